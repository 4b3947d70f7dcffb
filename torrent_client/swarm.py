"""The connections of one torrent: dialling, accepting, joining, leaving, banning.

    address --dial--> connection (a worker) --handshake--> peer --... messages ...--> gone
                           |                     |                                      |
                  max_peers, slots       no twin, not banned                    redial later, or never

Every connection is a worker in a `ThreadPoolExecutor` from dialling to its end; what the messages mean is
the download manager's business, which gives the callbacks.

Spec: BEP 3, 40 (whom to part from); the guide's Task 11.
Thread: peers' workers run the connections; every method may be called from any thread.
Lock: `_peers_lock`, a leaf, around the tables of connections and peers.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import BoundedSemaphore, Lock
from typing import Final, NamedTuple, TypeAlias

from torrent_client.config import Config
from torrent_client.encryption import PeerSocket
from torrent_client.errors import HandshakeError, PeerDisconnected, PeerError, ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_pool import PeerPool
from torrent_client.protocol.messages import Handshake
from torrent_client.protocol.scatter import Arrival, BlockRun
from torrent_client.proxy import NO_PEERS, may_dial_peers
from torrent_client.tracker_client import PeerAddress

logger = logging.getLogger(__name__)

MIN_VOTES: Final = 2
"""Peers that must agree on how our own address looks to others; of one alone nothing is believed."""

NewConnection: TypeAlias = Callable[[PeerAddress, PeerSocket | None, Handshake | None], PeerConnection]
"""Makes a connection: to dial when there is no socket, else one that was accepted."""


class PeerCallbacks(NamedTuple):
    """What the owner of a swarm does with its peers, on the peer's worker.

    `joined` greets a peer after its handshake, `received` handles the messages of one read, `left`
    follows the end of a peer or of a connection that did not become one (None). `places` tells where
    the next blocks of a peer belong.
    """

    joined: Callable[[Peer], None]
    received: Callable[[Peer, Sequence[Arrival]], None]
    left: Callable[[Peer | None], None]
    places: Callable[[Peer, int], Sequence[BlockRun]] = lambda _peer, _count: ()


class Swarm:
    """The peers of one torrent.

    Args:
        peer_id: 20 bytes, ours.
        config: limits.
        callbacks: what to do with peers.
        new_connection: makes a connection for this torrent.
        clock: monotonic seconds.
        slots: one for each connection that all swarms of a session may have together.
        port: TCP port that we listen on.
    """

    def __init__(
        self,
        peer_id: bytes,
        config: Config,
        callbacks: PeerCallbacks,
        new_connection: NewConnection,
        clock: Callable[[], float] = time.monotonic,
        slots: BoundedSemaphore | None = None,
        port: int = 0,
    ) -> None:
        """Begin closed: no connection is made before `open`."""
        self.pool = PeerPool(config)
        self._peer_id = peer_id
        self._config = config
        self._callbacks = callbacks
        self._new_connection = new_connection
        self._clock = clock
        self._port = port
        self._slots = slots or BoundedSemaphore(config.max_peers)
        self._workers = ThreadPoolExecutor(config.max_peers, thread_name_prefix="peer")
        self._peers_lock = Lock()
        self._connections: dict[PeerConnection, Future[None] | None] = {}  # each one from dialling on
        self._peers: dict[PeerConnection, Peer] = {}  # those after their handshake
        self._uploaded_to_gone = 0
        self._is_open = False
        self._dials = False
        self._turned_away = False  # somebody called since the last tick, and there was no room
        self.is_held_back = False  # the last connection was not made because other torrents have all slots
        self.last_failure: str | None = None  # of the dials since somebody was reached, what the last one came to

    # --- the owner's side ------------------------------------------------------------------------------

    def open(self, *, dials: bool) -> None:
        """Accept connections from now on.

        Args:
            dials: make connections, too, and to the addresses that are known already at once.
        """
        self._is_open = True
        self._dials = dials and may_dial_peers(self._config)
        self.dial()

    def close(self, reason: str) -> None:
        """Refuse new connections and end all there are; returns at once."""
        self._is_open = False
        with self._peers_lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close(reason)

    def join(self, timeout: float) -> None:
        """Wait for the workers of a closed swarm; one that hangs in a name look-up is left behind."""
        with self._peers_lock:
            running = [future for future in self._connections.values() if future]
        wait(running, timeout)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def peers(self) -> list[Peer]:
        """Return the connected peers, to act on outside the lock."""
        with self._peers_lock:
            return list(self._peers.values())

    @property
    def connecting(self) -> int:
        """How many connections have not shaken hands yet."""
        with self._peers_lock:
            return len(self._connections) - len(self._peers)

    @property
    def obstacle(self) -> str | None:
        """What keeps us from dialling anybody at all, in words."""
        if not may_dial_peers(self._config):
            return NO_PEERS
        if self.is_held_back:
            return f"all {self._config.max_peers_total:,} connections are in use by other torrents"
        return None

    @property
    def is_full(self) -> bool:
        """Whether every place for a connection is taken."""
        with self._peers_lock:
            return len(self._connections) >= self._config.max_peers

    @property
    def uploaded(self) -> int:
        """Bytes of blocks sent to all peers, those gone included."""
        with self._peers_lock:
            return self._uploaded_to_gone + sum(connection.uploaded for connection in self._peers)

    def add_addresses(self, addresses: Iterable[PeerAddress], source: str) -> None:
        """Take note of addresses, and dial them when there is room.

        Args:
            addresses: where peers are said to listen.
            source: who said so.
        """
        if self.pool.add(addresses, source):
            self.dial()

    def dial(self) -> None:
        """Start workers for addresses whose time has come, within the limits."""
        while self._may_dial() and self._take_slot():
            address = self.pool.next_to_dial(self._clock())
            if address is None:
                self._slots.release()
                return
            if any(peer.listen_address == address for peer in self.peers()):  # it called us
                self._slots.release()
                self.pool.ended(address, self._clock(), useful=True)
                continue
            if not self._start_worker(self._new_connection(address, None, None)):
                self.pool.ended(address, self._clock(), useful=True)
                return

    def accept(self, sock: PeerSocket, address: PeerAddress, handshake: Handshake) -> bool:
        """Take over a connection that the listener accepted; False when there is no room for it."""
        is_taken = self._take_slot() and self._start_worker(self._new_connection(address, sock, handshake))
        self._turned_away |= not is_taken and not self.pool.is_banned(address)
        return is_taken

    def tick(self, now: float) -> None:
        """Learn who we are, and make room; once a second.

        Args:
            now: monotonic seconds.
        """
        self.pool.prefer(tuple(PeerAddress(host, self._port) for host in seen_as(self.peers())))
        self._make_room(now)
        self.dial()

    def _make_room(self, now: float) -> None:
        """Part from a useless peer when others wait for its place: from that of the lowest priority (BEP 40).

        While nobody has told us our address, all have the same priority, and the one goes that is useless longest.
        """
        due = self.pool.next_dial_time()
        somebody_waits = (due is not None and due <= now) or self._turned_away
        self._turned_away = False
        if not self.is_full or not somebody_waits:
            return
        useless = [peer for peer in self.peers() if peer.idle_seconds >= self._config.useless_peer_timeout]
        if useless:
            least = min(useless, key=lambda peer: (self.pool.priority(peer.connection.address), -peer.idle_seconds))
            least.connection.close("others wait for its place")

    def ban(self, addresses: Iterable[PeerAddress], reason: str) -> None:
        """Ban peers for good and close their connections."""
        for address in addresses:
            logger.warning("%s is banned: %s", address, reason)
            self.pool.ban(address)
        for peer in self.peers():
            if self.pool.is_banned(peer.connection.address):
                peer.connection.close(f"banned: {reason}")

    # --- connections -------------------------------------------------------------------------------------

    def _may_dial(self) -> bool:
        with self._peers_lock:
            connecting = len(self._connections) - len(self._peers)
            full = len(self._connections) >= self._config.max_peers
        return self._is_open and self._dials and not full and connecting < self._config.dials_at_once

    def _take_slot(self) -> bool:
        """Take one of the session's slots, if one is free."""
        self.is_held_back = not self._slots.acquire(blocking=False)
        return not self.is_held_back

    def _start_worker(self, connection: PeerConnection) -> bool:
        """Give a connection, for which a slot was taken, a worker.

        False, and the slot given back, when the swarm is closed or full, or the peer is banned.
        """
        is_banned = self.pool.is_banned(connection.address)
        with self._peers_lock:
            has_room = self._is_open and not is_banned and len(self._connections) < self._config.max_peers
            if has_room:
                self._connections[connection] = None
        if not has_room:
            self._slots.release()
            return False
        try:
            future = self._workers.submit(self._run_peer, connection)
        except RuntimeError as error:  # the executor was shut down meanwhile, or the system has no thread left
            logger.info("%s: no worker: %s", connection.address, error)
            connection.close("no worker")  # it may be in the executor's queue all the same: see `_uncount`
            self._uncount(connection)
            return False
        with self._peers_lock:
            if connection in self._connections:
                self._connections[connection] = future
        return True

    def _run_peer(self, connection: PeerConnection) -> None:
        """Live one connection from dialling to its end: the worker's whole life, and its error boundary."""
        peer = None
        try:
            if connection.outgoing:
                connection.connect()
            connection.handshake()
            peer = self._join(connection)
            self._callbacks.joined(peer)
            places = partial(self._callbacks.places, peer)
            while True:
                self._callbacks.received(peer, connection.receive_in_place(places))
        except ProtocolViolation as error:
            connection.close(str(error))
            logger.info("%s: %s", connection.address, error)
        except PeerError as error:
            connection.close(str(error))
            logger.debug("%s: %s", connection.address, error)
        except Exception as error:
            connection.close(repr(error))
            logger.exception("%s: a worker failed", connection.address)
        finally:
            try:
                connection.finish()
                self._leave(connection, peer)
            except Exception:
                logger.exception("%s: the end of a connection failed", connection.address)

    def _join(self, connection: PeerConnection) -> Peer:
        """Take a peer that has shaken hands into the swarm; refuse one that is here already.

        When both sides dial each other at once, both must close the same one of the two connections:
        the one opened by the peer with the lower id.
        """
        peer = Peer(connection, self.pool.source(connection.address), self._config)
        with self._peers_lock:
            twin = next((other for other in self._peers.values() if other.peer_id == peer.peer_id), None)
            if twin and not self._is_preferred(connection, twin):
                raise HandshakeError(f"already connected, at {twin.connection.address}")
            self._peers[connection] = peer
            self.last_failure = None
        if twin:
            twin.connection.close("connected twice")
        if not self._is_open:
            raise PeerDisconnected("the swarm is closed")
        return peer

    def _is_preferred(self, connection: PeerConnection, twin: Peer) -> bool:
        """Tell whether a second connection to a peer is the one to keep."""
        if connection.outgoing == twin.connection.outgoing:
            return False
        ours_is_higher = self._peer_id > twin.peer_id
        return connection.outgoing == ours_is_higher

    def _uncount(self, connection: PeerConnection) -> bool:
        """Give a connection's place back, once: a `submit` that fails may still lead to a worker; tell whether now."""
        with self._peers_lock:
            is_counted = connection in self._connections
            self._connections.pop(connection, None)
        if is_counted:
            self._slots.release()
        return is_counted

    def _leave(self, connection: PeerConnection, peer: Peer | None) -> None:
        """Forget a connection, and see to what it leaves behind."""
        with self._peers_lock:
            if self._peers.pop(connection, None):
                self._uploaded_to_gone += connection.uploaded
        is_counted = self._uncount(connection)
        if is_counted and connection.outgoing:
            if peer is None and self._is_open:
                self.last_failure = connection.close_reason
            if connection.remote and connection.remote.peer_id == self._peer_id:
                self.pool.forget(connection.address)  # it is ourselves
            else:
                self.pool.ended(connection.address, self._clock(), useful=bool(peer and peer.download.total))
        elif peer and peer.listen_address and not connection.outgoing:
            self.pool.met(peer.listen_address, self._clock(), useful=bool(peer.download.total))
        self._callbacks.left(peer)
        self.dial()


def seen_as(peers: Iterable[Peer]) -> list[str]:
    """Return how others see our own address, by what they say of it: no more than one of IPv4 and one of IPv6.

    A peer may lie, so that most of them must agree, each of their own addresses having one vote; and what is said
    within a network of our own is of no use outside.
    """
    votes = {peer.connection.address.host: ip for peer in peers if (ip := _own_address_told_by(peer))}
    found = []
    for version in (4, 6):
        told = Counter(str(ip) for ip in votes.values() if ip.version == version)
        host, count = max(told.items(), key=lambda item: item[1], default=("", 0))
        if count >= MIN_VOTES and 2 * count > told.total():
            found.append(host)
    return found


def _own_address_told_by(peer: Peer) -> IPv4Address | IPv6Address | None:
    """Return the address that a peer says it sees us at, if others can see us there, too."""
    if peer.hello is None or peer.hello.your_ip is None:
        return None
    ip = ip_address(peer.hello.your_ip)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip if ip.is_global else None
