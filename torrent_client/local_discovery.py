"""Finds peers on our own network: every client tells a multicast group which torrents it has, and listens to it.

    announce(info hash) --> waiting --once a minute, many in a datagram--> 239.192.152.143, [ff15::efc0:988f]
                                                                                     |
    on_peers <-- a torrent that was announced <-- not our own cookie <-- datagrams --+

Who is not told of a torrent, because it is private, neither announces it nor hears of it. Where there is no
multicast, or others hold the port, nothing breaks: `state` says so, and peers come from elsewhere.

Spec: BEP 14.
Thread: `local` sends, listens and calls `on_peers`; public methods from any.
Lock: `_lock`, a leaf, around the torrents and what waits to be announced.
"""

import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Final, NamedTuple, TypeAlias

from torrent_client.config import Config
from torrent_client.errors import ProtocolViolation
from torrent_client.protocol.local_announce import MAX_DATAGRAM, MAX_INFO_HASHES, LocalAnnounce
from torrent_client.tracker_client import PeerAddress

logger = logging.getLogger(__name__)

OnPeers: TypeAlias = Callable[[Sequence[PeerAddress]], None]

LOCAL_PORT: Final = 6771
IPV4_GROUP: Final = "239.192.152.143"
IPV6_GROUP: Final = "ff15::efc0:988f"

ROUND_INTERVAL: Final = 60.0
"""Seconds between two datagrams of ours. BEP 14: no more than one announce a minute, of however many torrents."""

TICK: Final = 1.0
"""Seconds after which what waits to be sent is looked at: several torrents that begin together share a datagram."""

HEARD_A_SECOND: Final = 20
"""Datagrams read in a second; a flood beyond that stays in the kernel, which drops it. A thousand clients that keep
to BEP 14 send four."""

PEERS_COUNTED: Final = 1000
"""Addresses of one torrent that are counted for the display."""

LOOPBACK_INTERFACES: Final = ("lo", "lo0")
"""Used where there is no other: with others our own would hear each announcement twice, from two addresses."""

IP_MULTICAST_ALL: Final = 49
"""Of Linux, and missing in `socket`: off, so that a socket hears only the groups that it joined itself."""


class _Torrent(NamedTuple):
    """A torrent that is announced: who wants its peers, and whom we have heard."""

    on_peers: OnPeers
    heard: set[PeerAddress]


class LocalDiscovery:
    """Announces and hears torrents on the local network.

    Args:
        port: TCP port that we listen on.
        config: which networks to use, and whether there is a proxy, past which nothing may go.
        clock: monotonic seconds.
    """

    def __init__(self, port: int, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no torrent; nothing is opened before `start`."""
        self._port = port
        self._config = config
        self._clock = clock
        self._cookie = os.urandom(4).hex()
        self._lock = Lock()
        self._torrents: dict[bytes, _Torrent] = {}
        self._waiting: dict[bytes, None] = {}  # in the order of the calls
        self._next_round = 0.0
        self._networks = 0  # how many the last round went to
        self._trouble: str | None = None
        self._channels: list[_Channel] = []
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="local", daemon=True)
        self._bell: tuple[socket.socket, socket.socket] | None = None  # wakes the thread

    # --- any thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the groups; where that cannot be done, say so once and be quiet."""
        if not self._config.allows_direct:
            self._trouble = "off: the proxy carries no multicast"
            return
        reasons = []
        for family, group in ((socket.AF_INET, IPV4_GROUP), (socket.AF_INET6, IPV6_GROUP)):
            try:
                self._channels.append(_Channel(family, group, self._config.lsd_interfaces))
            except OSError as error:
                reasons.append(error.strerror or str(error))
        if not self._channels:
            self._trouble = f"off: {'; '.join(dict.fromkeys(reasons))}"
            logger.info("no local discovery: %s", self._trouble)
            return
        self._bell = socket.socketpair()
        self._thread.start()

    def announce(self, info_hash: bytes, on_peers: OnPeers) -> None:
        """Say that we are here, as soon as that may be said; returns at once.

        Args:
            info_hash: 20 bytes.
            on_peers: is given the peers of this torrent that are heard, from now on, and must be quick.
        """
        with self._lock:
            known = self._torrents.get(info_hash)
            self._torrents[info_hash] = _Torrent(on_peers, known.heard if known else set())
            self._waiting[info_hash] = None

    def forget(self, info_hash: bytes) -> None:
        """Neither announce a torrent nor hear of it any more."""
        with self._lock:
            self._torrents.pop(info_hash, None)
            self._waiting.pop(info_hash, None)

    def state(self, info_hash: bytes) -> str:
        """Return what is known of a torrent here, in words."""
        with self._lock:
            torrent = self._torrents.get(info_hash)
            heard = len(torrent.heard) if torrent else 0
            is_waiting = torrent is None or info_hash in self._waiting
            networks = self._networks
        if self._trouble:
            return self._trouble
        peers = f"{heard} peer{'' if heard == 1 else 's'} heard"
        if is_waiting:
            return f"waiting to announce, {peers}"
        if not networks:
            return f"no network takes multicast, {peers}"
        return f"announced to {networks} network{'' if networks == 1 else 's'}, {peers}"

    def stop(self) -> None:
        """Leave the groups; leave no thread or socket behind."""
        self._stopping.set()
        if self._bell:
            button, bell = self._bell
            button.close()
            self._thread.join()
            bell.close()
        for channel in self._channels:
            channel.close()

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Announce what is due and hear what comes, until we stop."""
        assert self._bell
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell[1], selectors.EVENT_READ)
            for channel in self._channels:
                selector.register(channel.sock, selectors.EVENT_READ, channel)
            while not self._stopping.is_set():
                try:
                    self.tick(self._clock())
                    self._listen(selector)
                except OSError as error:
                    logger.info("local discovery: %s", error)
                    self._stopping.wait(TICK)
                except Exception:
                    logger.exception("local discovery failed")
                    self._stopping.wait(TICK)

    def _listen(self, selector: selectors.BaseSelector) -> None:
        """Hear what comes in a second, up to the limit; what is left in the kernel then is old news."""
        end, count = self._clock() + TICK, 0
        while (left := end - self._clock()) > 0 and not self._stopping.is_set():
            if count >= HEARD_A_SECOND:
                self._stopping.wait(left)
                return
            for key, _ in selector.select(left):
                if key.data:
                    self.hear(*key.data.receive())
                    count += 1

    def tick(self, now: float) -> None:
        """Announce what waits, if a minute has passed since the last time.

        Args:
            now: monotonic seconds.
        """
        with self._lock:
            due = list(self._waiting)[:MAX_INFO_HASHES] if now >= self._next_round else []
            for info_hash in due:
                del self._waiting[info_hash]
        if not due:
            return
        self._next_round = now + ROUND_INTERVAL
        message = LocalAnnounce(self._port, tuple(due), self._cookie)
        names = [name for channel in self._channels for name in channel.send(message)]
        self._networks = len(set(names))
        logger.debug("%d torrents announced to %s", len(due), ", ".join(names) or "no network: none takes multicast")

    def hear(self, data: bytes, host: str) -> None:
        """Take a datagram.

        Args:
            data: what came.
            host: the address that it came from.
        """
        try:
            message = LocalAnnounce.decode(data)
        except ProtocolViolation as error:
            logger.debug("%s: %s", host, error)
            return
        if message.cookie == self._cookie:
            return
        address = PeerAddress(host, message.port)
        with self._lock:
            torrents = [torrent for info_hash in set(message.info_hashes) if (torrent := self._torrents.get(info_hash))]
            for torrent in torrents:
                if len(torrent.heard) < PEERS_COUNTED:
                    torrent.heard.add(address)
        for torrent in torrents:
            torrent.on_peers([address])


class _Channel:
    """One multicast group, on all networks that take part.

    Args:
        family: AF_INET or AF_INET6.
        group: the group's address.
        interfaces: names of the networks; all if there are none.

    Raises:
        OSError: the system has no such sockets, or the port is taken by somebody who does not share it.
    """

    def __init__(self, family: int, group: str, interfaces: Sequence[str]) -> None:
        self._family = family
        self._group = group
        self._interfaces = interfaces
        self._joined: set[int] = set()
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # where it is this one that lets several clients share a port
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            # The group's address, so that nobody outside our network can reach us here.
            self.sock.bind((group, LOCAL_PORT))
            self.sock.setblocking(False)
            self._join()
        except OSError:
            self.sock.close()
            raise

    def _networks(self) -> list[tuple[int, str]]:
        """Return index and name of the networks to use; the loopback only where it is named, or nothing else is."""
        known = socket.if_nameindex()
        if self._interfaces:
            return [(index, name) for index, name in known if name in self._interfaces]
        return [(index, name) for index, name in known if name not in LOOPBACK_INTERFACES] or known

    def _join(self) -> list[tuple[int, str]]:
        """Join the group on networks that are new, and return all; those without addresses of this kind refuse."""
        networks = self._networks()
        for index, _ in networks:
            if index not in self._joined:
                with suppress(OSError):
                    if self._family == socket.AF_INET:
                        request = struct.pack("@4s4si", socket.inet_aton(self._group), bytes(4), index)
                        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
                    else:
                        request = struct.pack("@16sI", socket.inet_pton(self._family, self._group), index)
                        self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
                    self._joined.add(index)
        return networks

    def send(self, message: LocalAnnounce) -> list[str]:
        """Send a message to every network; return the names of those that took it."""
        shown = f"[{self._group}]" if self._family == socket.AF_INET6 else self._group
        data = message.encode(f"{shown}:{LOCAL_PORT}")
        took = []
        for index, name in self._join():
            try:
                if self._family == socket.AF_INET:
                    # The kernel finds the address to send from, but on the loopback it takes another network's.
                    own = socket.inet_aton("127.0.0.1") if name in LOOPBACK_INTERFACES else bytes(4)
                    choice = struct.pack("@4s4si", bytes(4), own, index)
                    self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, choice)
                else:
                    self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                self.sock.sendto(data, (self._group, LOCAL_PORT))
                took.append(name)
            except OSError as error:
                logger.debug("%s takes no multicast to %s: %s", name, shown, error.strerror)
        return took

    def receive(self) -> tuple[bytes, str]:
        """Return a datagram, and where it came from."""
        data, address = self.sock.recvfrom(MAX_DATAGRAM + 1)
        return data, str(address[0])

    def close(self) -> None:
        """Leave the group."""
        self.sock.close()
