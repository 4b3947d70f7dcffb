"""Our node of the DHT: the sockets, the thread, and the door for everybody else in this process.

    find_peers, add_node --> commands --+
                                        v
    UDP socket IPv4 <------------> thread `dht` ----> DhtEngine IPv4  ---+ on_peers
    UDP socket IPv6 <------------>      |       ----> DhtEngine IPv6  ---+
                                        v
    thread `dht-names` <-- names of bootstrap nodes; looking one up can take seconds

The engines belong to the thread alone. Everybody else puts a command into a queue and goes on.

Spec: BEP 5, 32, 42, 43, in `engine`.
Thread: `dht`, and `dht-names` for name look-ups; public methods from any.
Lock: none; a queue of commands, and a snapshot that is replaced.
"""

import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from queue import SimpleQueue
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Thread
from typing import Any, Final, NamedTuple

from torrent_client import trace
from torrent_client.config import DHT_ROUTERS, Config
from torrent_client.dht import saved_nodes
from torrent_client.dht.engine import DhtEngine
from torrent_client.dht.search import OnDone, OnHop, Search, SearchResult
from torrent_client.errors import TorrentError
from torrent_client.protocol.krpc import MAX_DATAGRAM, Endpoint
from torrent_client.text import counted
from torrent_client.tracker_answers import PeerAddress

logger = logging.getLogger(__name__)

TICK: Final = 0.2
"""Seconds between two looks at the clock: the shortest time-out is a second."""

DATAGRAMS_AT_ONCE: Final = 64
"""Datagrams taken from one socket before the other one's turn comes."""

SAVE_INTERVAL: Final = 900.0
"""Seconds between two saves, for a process that is killed."""

NAMES_INTERVAL: Final = 30.0
"""Seconds after which names that were not known are looked up again."""

STOP_LIMIT: Final = 0.8
"""Seconds that stopping waits for the thread."""

RECEIVE_BUFFER: Final = 256 * 1024
"""Bytes of datagrams that the kernel keeps for us while a look-up's answers come all at once."""


class DhtFamilyStats(NamedTuple):
    """One address family's half.

    Attributes:
        state: `bootstrapping`, `ready` or `unreachable`.
        reason: why it is unreachable, in words.
        next_try: seconds until it is tried again; None if it is not going to be.
        nodes: nodes in the routing table.
        node_id: ours, in hexadecimal.
        address: our address as others see it, if they agree.
        queries_in: queries that we answered.
        queries_out: queries that we sent.
        dropped: datagrams dropped because there were too many.
        nonsense: datagrams that were no message, or answered nothing that we asked.
        stored_peers: peers that others announced to us.
    """

    state: str
    reason: str = ""
    next_try: float | None = None
    nodes: int = 0
    node_id: str = ""
    address: str | None = None
    queries_in: int = 0
    queries_out: int = 0
    dropped: int = 0
    nonsense: int = 0
    stored_peers: int = 0


class DhtStats(NamedTuple):
    """A snapshot of the node.

    Attributes:
        port: its UDP port.
        ipv4, ipv6: its halves; None where the system has no such family.
    """

    port: int
    ipv4: DhtFamilyStats | None
    ipv6: DhtFamilyStats | None

    @property
    def halves(self) -> list[DhtFamilyStats]:
        """The halves that there are."""
        return [half for half in (self.ipv4, self.ipv6) if half]

    @property
    def best(self) -> DhtFamilyStats:
        """The half that is doing best: the other one matters only where this one does not work."""
        order = ("ready", "bootstrapping", "unreachable")
        return min(self.halves, key=lambda half: (order.index(half.state), -half.nodes))

    def as_values(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""
        return {
            "port": self.port,
            "ipv4": self.ipv4._asdict() if self.ipv4 else None,
            "ipv6": self.ipv6._asdict() if self.ipv6 else None,
        }

    @property
    def nodes(self) -> int:
        """Nodes of both halves."""
        return sum(half.nodes for half in self.halves)

    def describe(self) -> str:
        """Return the state in a few words, for people."""
        best = self.best
        if best.state == "ready":
            return f"{self.nodes:,} node{'' if self.nodes == 1 else 's'}"
        if best.state == "bootstrapping":
            return "looking for nodes"
        again = f", next try in {best.next_try:.0f} s" if best.next_try is not None else ""
        return f"unreachable: {best.reason}{again}"


class DhtSearch:
    """A search in both halves, to be cancelled.

    Args:
        searches: one for each half.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        """Keep them."""
        self._searches = searches

    def cancel(self) -> None:
        """End it; nothing is told any more."""
        for search in self._searches:
            search.cancel()


class DhtNode:
    """A node of the DHT.

    Args:
        config: where to begin.
        port: UDP port wanted, that of TCP; another one is taken if it is not free.
        state_directory: where ids and nodes are kept; None for nowhere.
        rng: source of ids and tokens; the system's by default, so that nobody foresees them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: Config,
        port: int,
        state_directory: Path | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the sockets.

        Raises:
            TorrentError: no UDP port is free, or nothing may go past a proxy.
        """
        if not config.allows_direct:
            raise TorrentError("no DHT behind a proxy, which carries no UDP: the look-ups would go past it")
        self._sockets = _bind(port)
        self.port: int = next(iter(self._sockets.values())).getsockname()[1]
        if port not in (0, self.port):
            logger.warning("UDP port %d is taken; the DHT uses port %d", port, self.port)
        self._directory = None if config.dht_read_only else state_directory
        self._clock = clock
        self._uses_routers = config.dht_bootstrap is None
        self._names = list(DHT_ROUTERS if config.dht_bootstrap is None else config.dht_bootstrap)
        self._names_again = clock()
        self._name_errors: list[str] = []
        self._send_errors: dict[int, str] = {}
        self._looked_up: SimpleQueue[tuple[str, int, Callable[[list[Endpoint]], None]] | None] = SimpleQueue()
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake, self._wake_end = socket.socketpair()
        for sock in (self._wake, self._wake_end):
            sock.setblocking(False)
        self._saved = saved_nodes.load(state_directory, self.port) if state_directory else {}
        source = rng or random.SystemRandom()
        self._engines = {
            family: DhtEngine(
                family,
                self._saved[family].node_id if self._saved else None,
                self._sender(family),
                source,
                clock,
                read_only=config.dht_read_only,
            )
            for family in self._sockets
        }
        if len(self._engines) == 2:
            self._engines[4].sister, self._engines[6].sister = self._engines[6], self._engines[4]
        self._next_save = clock() + SAVE_INTERVAL
        self._is_looking_up = bool(self._names)
        self._snapshot = self._take_snapshot()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="dht", daemon=True)
        self._names_thread = Thread(target=self._look_up_names, name="dht-names", daemon=True)

    # --- the door ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        for family, engine in self._engines.items():
            if self._saved and self._saved[family].nodes:
                self._do(lambda engine=engine, nodes=self._saved[family].nodes: engine.bootstrap((), nodes))  # type: ignore[misc]
        self._do(self._look_up_entrances)
        self._thread.start()
        self._names_thread.start()

    def begin_stop(self) -> None:
        """Ask the threads to end; returns at once."""
        self._stopping.set()
        self._looked_up.put(None)
        self._do(lambda: None)

    def stop(self) -> None:
        """Save, and leave no thread or socket behind; a name look-up that hangs is left to itself."""
        self.begin_stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_LIMIT)
            self._names_thread.join(0.1)
        for sock in (*self._sockets.values(), self._wake, self._wake_end):
            sock.close()

    def find_peers(
        self,
        info_hash: bytes,
        on_peers: Callable[[Sequence[PeerAddress]], None],
        *,
        announce_port: int | None,
        on_hop: OnHop | None = None,
        on_done: OnDone | None = None,
    ) -> DhtSearch:
        """Look for the peers of a torrent, and announce ourselves at the end; returns at once.

        Args:
            info_hash: 20 bytes.
            on_peers: is given peers as they are found, on the DHT's thread; must be quick.
            announce_port: TCP port on which peers can call us; None for no announcement.
            on_hop: is told of every node that was asked.
            on_done: is told how the search ended.
        """

        def found(endpoints: Sequence[Endpoint]) -> None:
            on_peers([PeerAddress(*endpoint) for endpoint in endpoints])

        results: list[SearchResult] = []

        def done(result: SearchResult) -> None:
            results.append(result)
            if on_done and len(results) == len(searches):
                on_done(SearchResult(*map(sum, zip(*results, strict=True))))

        searches = [Search(info_hash, found, announce_port, on_hop, done) for _ in self._engines]
        for engine, search in zip(self._engines.values(), searches, strict=True):
            self._do(lambda engine=engine, search=search: engine.find_peers(search))  # type: ignore[misc]
        return DhtSearch(searches)

    def add_node(self, host: str, port: int) -> None:
        """Get to know a node: of a torrent's `nodes`, or a peer that told its port; returns at once.

        Args:
            host: its address or name.
            port: its UDP port.
        """
        if port:
            self._resolve(host, port, lambda endpoints: self._to_engines(endpoints, DhtEngine.add_node))

    def describe(self) -> str:
        """Return the state in a few words, for people."""
        return self._snapshot.describe()

    def stats(self) -> DhtStats:
        """Return a snapshot, a moment old."""
        return self._snapshot

    # --- the thread --------------------------------------------------------------------------------------

    def _do(self, command: Callable[[], None]) -> None:
        """Have a command carried out on the thread."""
        self._commands.put(command)
        with suppress(OSError):  # the pipe is full, and wakes it anyhow; or it is closed
            self._wake.send(b"\0")

    def _run(self) -> None:
        """Receive, and do what is due, until we stop; then save."""
        with DefaultSelector() as selector:
            selector.register(self._wake_end, EVENT_READ)
            for family, sock in self._sockets.items():
                selector.register(sock, EVENT_READ, family)
            next_tick = 0.0
            while not self._stopping.is_set():
                for key, _ in selector.select(TICK):
                    try:
                        self._receive(key.data)
                    except Exception:
                        logger.exception("the DHT failed at a datagram")
                self._carry_out()
                if self._clock() >= next_tick:
                    next_tick = self._clock() + TICK
                    self._tick()
        self._save()

    def _receive(self, family: int | None) -> None:
        """Take what has come in; None for the pipe that wakes us."""
        if family is None:
            with suppress(BlockingIOError):
                self._wake_end.recv(4096)
            return
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                data, address = self._sockets[family].recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("DHT: %s", error)
                return
            trace.datagram("dht", self._sockets[family].getsockname, address, data, sent=False)
            if address[1]:
                self._engines[family].receive(data, Endpoint(address[0].partition("%")[0], address[1]))

    def _carry_out(self) -> None:
        """Do what others asked for."""
        while not self._commands.empty():
            try:
                self._commands.get()()
            except Exception:
                logger.exception("the DHT failed at a command")
        self._snapshot = self._take_snapshot()

    def _tick(self) -> None:
        """Do what is due."""
        try:
            for engine in self._engines.values():
                engine.tick()
            now = self._clock()
            if self._names and not self._is_looking_up and now >= self._names_again:
                self._look_up_entrances()
            if now >= self._next_save:
                self._next_save = now + SAVE_INTERVAL
                self._save()
        except Exception:
            logger.exception("the DHT failed")
        self._snapshot = self._take_snapshot()

    def _sender(self, family: int) -> Callable[[bytes, Endpoint], None]:
        """Return what sends a datagram, and keeps in mind why one could not be sent."""

        def send(data: bytes, endpoint: Endpoint) -> None:
            try:
                self._sockets[family].sendto(data, endpoint)
                trace.datagram("dht", self._sockets[family].getsockname, endpoint, data, sent=True)
                self._send_errors.pop(family, None)
            except OSError as error:
                self._send_errors[family] = (error.strerror or str(error)).lower()

        return send

    def _save(self) -> None:
        """Save what was learned; a run without the internet must not forget the nodes of the one before."""
        families = {}
        for family, engine in self._engines.items():
            nodes = [node.info for node in engine.table if not node.is_bad]
            families[family] = engine.table.own_id, nodes or list(self._saved[family].nodes if self._saved else ())
        if self._directory and any(len(engine.table) for engine in self._engines.values()):
            saved_nodes.save(self._directory, self.port, families)

    # --- names -------------------------------------------------------------------------------------------

    def _look_up_entrances(self) -> None:
        """Have the names of bootstrap nodes looked up; each is used as soon as it is known."""
        names, self._names, self._name_errors = self._names, [], []
        self._is_looking_up = bool(names)
        left = len(names)

        def known(name: tuple[str, int], endpoints: list[Endpoint]) -> None:
            nonlocal left
            left -= 1
            if not endpoints:
                self._names.append(name)
                self._name_errors.append(name[0])
            self._bootstrap(endpoints)
            if not left:
                self._is_looking_up = False
                self._names_again = self._clock() + NAMES_INTERVAL
                self._bootstrap_the_rest()

        for host, port in names:
            self._resolve(host, port, lambda endpoints, name=(host, port): known(name, endpoints))  # type: ignore[misc]
        if not names:
            self._bootstrap_the_rest()

    def _bootstrap(self, endpoints: list[Endpoint]) -> None:
        """Begin at bootstrap nodes."""
        for family, engine in self._engines.items():
            own = [endpoint for endpoint in endpoints if (":" in endpoint.host) == (family == 6)]
            if own:
                engine.bootstrap(own, stepping_stones=self._uses_routers)

    def _bootstrap_the_rest(self) -> None:
        """Let those halves that have nothing to begin with find that out."""
        for engine in self._engines.values():
            if not engine.is_bootstrapping and not len(engine.table):
                engine.bootstrap(())

    def _resolve(self, host: str, port: int, then: Callable[[list[Endpoint]], None]) -> None:
        """Find the addresses of a host, and do something with them on the thread."""
        try:
            endpoint = Endpoint(str(ip_address(host)), port)
        except ValueError:
            self._looked_up.put((host, port, then))
        else:
            self._do(lambda: then([endpoint]))

    def _look_up_names(self) -> None:
        """Look up one name after the other until we stop."""
        while (order := self._looked_up.get()) is not None and not self._stopping.is_set():
            host, port, then = order
            endpoints = []
            try:
                for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
                    endpoints.append(Endpoint(str(address[0]).partition("%")[0], port))
            except (OSError, UnicodeError) as error:
                logger.debug("DHT: %s: %s", host, error)
            self._do(lambda then=then, endpoints=endpoints: then(endpoints))  # type: ignore[misc]

    def _to_engines(self, endpoints: list[Endpoint], action: Callable[[DhtEngine, Endpoint], None]) -> None:
        """Give each address to the engine of its family."""
        for endpoint in endpoints:
            engine = self._engines.get(6 if ":" in endpoint.host else 4)
            if engine:
                action(engine, endpoint)

    # --- what people see ---------------------------------------------------------------------------------

    def _take_snapshot(self) -> DhtStats:
        halves = {family: self._half(family, engine) for family, engine in self._engines.items()}
        return DhtStats(self.port, halves.get(4), halves.get(6))

    def _half(self, family: int, engine: DhtEngine) -> DhtFamilyStats:
        nodes = sum(not node.is_bad for node in engine.table)
        state = "ready"
        if engine.is_bootstrapping or (not nodes and (self._is_looking_up or engine.next_try is None)):
            state = "bootstrapping"
        elif not nodes:
            state = "unreachable"
        return DhtFamilyStats(
            state=state,
            reason=self._reason(family, engine) if state == "unreachable" else "",
            next_try=None if engine.next_try is None else max(0.0, engine.next_try - self._clock()),
            nodes=nodes,
            node_id=engine.table.own_id.hex(),
            address=engine.votes.elected(),
            queries_in=engine.queries_in,
            queries_out=engine.queries_out,
            dropped=engine.dropped,
            nonsense=engine.nonsense,
            stored_peers=len(engine.store),
        )

    def _reason(self, family: int, engine: DhtEngine) -> str:
        """Return why nobody was reached."""
        if family in self._send_errors:
            return self._send_errors[family]
        if engine.entrances_tried:
            return f"no answer from {counted(engine.entrances_tried, 'bootstrap node')}"
        if self._name_errors:
            return f"host name not known: {', '.join(self._name_errors)}"
        return "no node to begin with; see --dht-bootstrap"


def _bind(port: int) -> dict[int, socket.socket]:
    """Bind the wanted UDP port, or any other, for each family that the system has."""
    sockets: dict[int, socket.socket] = {}
    for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        wanted = next(iter(sockets.values())).getsockname()[1] if sockets else port
        for number in dict.fromkeys((wanted, 0)):
            with suppress(OSError):
                sockets[family] = _bind_port(kind, number)
                break
    if not sockets:
        raise TorrentError("cannot take part in the DHT: no UDP port is free")
    return sockets


def _bind_port(kind: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(kind, socket.SOCK_DGRAM)
    try:
        if kind == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock
