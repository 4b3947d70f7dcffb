"""A small HTTP tracker, for the offline demo, for lessons and for tests.

A tracker is the place where the peers of a torrent find each other. Each peer announces itself every few
minutes, and is told the addresses of some others; the tracker never sees a byte of the torrent. This one
keeps everything in memory and runs inside the program that starts it:

    with LocalTracker() as tracker:
        print(tracker.announce_url)  # http://127.0.0.1:41237/announce

It is honest about mistakes: a client that sends a wrong announce is told what is wrong with it, where a
public tracker might guess. It believes no address that a stranger claims to have (the `ip` parameter),
because it would lead a whole swarm to dial somebody who has not asked for it.

Spec: BEP 3 (trackers), BEP 23 (compact peers), BEP 7 (IPv6), BEP 48 (scrape).
Thread: one that accepts connections, and one for each request that is being answered; all end in `stop`.
Lock: `_Swarms._lock` for the peers, `_Server._workers_lock` for the threads; no path holds both.
"""

import ipaddress
import logging
import random
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias
from urllib.parse import unquote_to_bytes

from torrent_client.errors import TrackerError
from torrent_client.protocol.bencode import bencode_encode

logger = logging.getLogger(__name__)

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_INTERVAL = 60
"""Seconds between two announces of a peer. Public trackers say 1,800; here somebody is waiting to see it."""

MISSED_ANNOUNCES = 2
"""Intervals after which a silent peer is forgotten: one announce may get lost."""

DEFAULT_NUMWANT = 50
"""Peers told to a client that does not say how many it wants. BEP 3."""

MAX_NUMWANT = 200
"""Peers told at most: an announce answered with thousands would make the tracker an amplifier."""

MAX_CONNECTIONS = 256
"""Requests under way at once; each has a thread. More are hung up on."""

REQUEST_TIMEOUT = 10.0
"""Seconds that a client may be silent in the middle of a request."""

_EVENTS = (b"", b"started", b"completed", b"stopped", b"paused")  # paused: BEP 21


class LocalTracker:
    """An HTTP tracker on one address, running from `start` to `stop` or for a `with` block.

    What it knows survives `stop`, and `start` takes the same port again: to its clients, a stopped tracker
    is one that is down for a while.

    Args:
        host: the address or host name to listen on; everything but loopback is open to others.
        port: the TCP port; 0 lets the system choose one.
        interval: seconds after which clients are told to announce again.
        max_torrents: torrents remembered at once; an announce of one more is refused.
        max_peers: peers remembered at once, of all torrents together; one more is refused.
        clock: tells seconds that never go back.
        rng: picks the peers that are told, where there are more than a client wants.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        interval: int = DEFAULT_INTERVAL,
        max_torrents: int = 1_000,
        max_peers: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ):
        self._host = host
        self._port = port
        self._swarms = _Swarms(interval, max_torrents, max_peers, clock, rng or random.Random())
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def announce_url(self) -> str:
        """The URL for a torrent's `announce`; known from the first `start` on.

        Raises:
            RuntimeError: the system has not yet chosen the port.
        """
        if self._port == 0:
            raise RuntimeError("the tracker has no port before it is started")
        # The "any" addresses are for listening only: a client on this machine finds us on loopback.
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/announce"

    def start(self) -> None:
        """Begin to answer, in a thread of its own.

        Raises:
            TrackerError: the address or port cannot be had.
            RuntimeError: it is already running.
        """
        if self._server is not None:
            raise RuntimeError("the tracker is already running")
        try:
            self._server = _Server(self._host, self._port, self._swarms)
        except OSError as error:
            raise TrackerError(f"cannot listen on {self._host} port {self._port}: {error}") from error
        self._port = self._server.server_port
        # 50 ms: how long `stop` may have to wait for the loop to look up.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="local-tracker", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody and end all threads; does nothing if it is not running."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


# --- the swarms -------------------------------------------------------------------------------------------


class _Endpoint(NamedTuple):
    """Where a peer can be dialled."""

    address: IPAddress
    port: int


class _Announce(NamedTuple):
    """A well-formed announce."""

    info_hash: bytes  # 20 bytes
    peer_id: bytes  # 20 bytes
    endpoints: dict[int, _Endpoint]  # by IP version, 4 or 6
    left: int  # bytes
    event: bytes  # one of _EVENTS
    numwant: int
    compact: bool
    with_peer_ids: bool


@dataclass(slots=True)
class _Peer:
    """One peer of one swarm. The same peer may announce itself over IPv4 and over IPv6."""

    peer_id: bytes
    endpoints: dict[int, _Endpoint] = field(default_factory=dict)
    left: int = 0
    seen: float = 0.0
    completed: bool = False


@dataclass(slots=True)
class _Swarm:
    """The peers of one torrent, by peer id, and how many ever announced that they have completed it."""

    peers: dict[bytes, _Peer] = field(default_factory=dict)
    downloaded: int = 0

    def counts(self) -> dict[str, int]:
        """Return the numbers that both an announce and a scrape are answered with."""
        complete = sum(peer.left == 0 for peer in self.peers.values())
        return {
            "complete": complete,
            "downloaded": self.downloaded,
            "incomplete": len(self.peers) - complete,
        }


class _Swarms:
    """All that the tracker remembers; every method may be called from any thread."""

    def __init__(
        self,
        interval: int,
        max_torrents: int,
        max_peers: int,
        clock: Callable[[], float],
        rng: random.Random,
    ):
        self._interval = interval
        self._max_torrents = max_torrents
        self._max_peers = max_peers
        self._clock = clock
        self._rng = rng
        self._swarms: dict[bytes, _Swarm] = {}
        self._lock = threading.Lock()  # for _swarms, all that is in it, and _rng

    def announce(self, query: bytes, source: IPAddress) -> dict[str, object]:
        """Answer an announce.

        Args:
            query: what stands behind the `?`, still percent-encoded.
            source: where the request came from.

        Raises:
            TrackerError: the announce is malformed, or there is no room for one more peer.
        """
        request = _parse_announce(query, source)
        with self._lock:
            now = self._clock()
            swarm = self._update(request, now)
            counts = swarm.counts()
            others = [peer for peer in swarm.peers.values() if peer.peer_id != request.peer_id]
            if request.event == b"stopped":
                others = []
            elif len(others) > request.numwant:
                others = self._rng.sample(others, request.numwant)
            told = [(peer.peer_id, endpoint) for peer in others for endpoint in peer.endpoints.values()]
        intervals = {"interval": self._interval, "min interval": max(1, self._interval // 2)}
        return {**intervals, **counts, **_format_peers(told, request)}

    def scrape(self, query: bytes, _source: IPAddress) -> dict[str, object]:
        """Answer a scrape: the numbers of the torrents that are asked for, or of all.

        Args:
            query: what stands behind the `?`, still percent-encoded.

        Raises:
            TrackerError: an `info_hash` is not 20 bytes.
        """
        wanted = _parse_query(query).get(b"info_hash")
        if wanted is not None and any(len(info_hash) != 20 for info_hash in wanted):
            raise TrackerError("each info_hash must be 20 bytes")
        with self._lock:
            self._forget_silent(self._clock())
            chosen = self._swarms.keys() if wanted is None else set(wanted) & self._swarms.keys()
            return {"files": {info_hash: self._swarms[info_hash].counts() for info_hash in chosen}}

    def _update(self, request: _Announce, now: float) -> _Swarm:
        """Enter or remove the peer; return its swarm, without silent peers. The caller holds the lock."""
        swarm = self._swarms.get(request.info_hash, _Swarm())
        self._forget_silent_in(swarm, now)
        if request.event == b"stopped":
            swarm.peers.pop(request.peer_id, None)
            return swarm
        if request.peer_id not in swarm.peers:
            self._make_room(request.info_hash, now)
        # Making room may have dropped the swarm because it was empty.
        swarm = self._swarms.setdefault(request.info_hash, swarm)
        peer = swarm.peers.setdefault(request.peer_id, _Peer(request.peer_id))
        peer.endpoints.update(request.endpoints)
        peer.left = request.left
        peer.seen = now
        if request.event == b"completed" and not peer.completed:
            peer.completed = True
            swarm.downloaded += 1
        return swarm

    def _make_room(self, info_hash: bytes, now: float) -> None:
        """Make sure that one more peer may be entered. The caller holds the lock."""
        if self._has_room(info_hash):
            return
        self._forget_silent(now)
        for empty in [known for known, swarm in self._swarms.items() if not swarm.peers]:
            del self._swarms[empty]
        if not self._has_room(info_hash):
            raise TrackerError("this tracker is full")

    def _has_room(self, info_hash: bytes) -> bool:
        """Tell whether one more peer may be entered. The caller holds the lock."""
        if info_hash not in self._swarms and len(self._swarms) >= self._max_torrents:
            return False
        return sum(len(swarm.peers) for swarm in self._swarms.values()) < self._max_peers

    def _forget_silent(self, now: float) -> None:
        """Forget the peers that stopped to announce themselves. The caller holds the lock."""
        for swarm in self._swarms.values():
            self._forget_silent_in(swarm, now)

    def _forget_silent_in(self, swarm: _Swarm, now: float) -> None:
        """Forget those of one swarm. The caller holds the lock."""
        oldest = now - MISSED_ANNOUNCES * self._interval
        for peer_id in [peer.peer_id for peer in swarm.peers.values() if peer.seen < oldest]:
            del swarm.peers[peer_id]


def _format_peers(told: list[tuple[bytes, _Endpoint]], request: _Announce) -> dict[str, object]:
    """Write peers as the client wants them: 6 or 18 bytes each (BEP 23, BEP 7), or dictionaries (BEP 3)."""
    if request.compact:
        compact: dict[int, bytes] = {4: b"", 6: b""}
        for version in compact:
            compact[version] = b"".join(
                endpoint.address.packed + endpoint.port.to_bytes(2, "big")
                for _, endpoint in told
                if endpoint.address.version == version
            )
        return {"peers": compact[4], **({"peers6": compact[6]} if compact[6] else {})}
    peers: list[dict[str, object]] = [
        {"ip": str(endpoint.address), "port": endpoint.port, "peer id": peer_id} for peer_id, endpoint in told
    ]
    if not request.with_peer_ids:
        for peer in peers:
            del peer["peer id"]
    return {"peers": peers}


# --- reading requests -------------------------------------------------------------------------------------


def _parse_query(query: bytes) -> dict[bytes, list[bytes]]:
    """Return the values of each parameter.

    Not `urllib.parse.parse_qs`: it makes text of the values, and an info hash is no text in any encoding.
    """
    parameters: dict[bytes, list[bytes]] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        # A space may be written as a plus, as in forms; a client's own plus comes as %2B.
        parameters.setdefault(name, []).append(unquote_to_bytes(value.replace(b"+", b" ")))
    return parameters


def _parse_announce(query: bytes, source: IPAddress) -> _Announce:
    """Read and check the parameters of an announce.

    Raises:
        TrackerError: a parameter is missing or malformed; says which and why.
    """
    parameters = {name: values[0] for name, values in _parse_query(query).items()}
    for name in (b"uploaded", b"downloaded"):
        _number(parameters, name)  # of no use here, but a client that forgets them has a bug
    event = parameters.get(b"event", b"")
    if event not in _EVENTS:
        raise TrackerError("event must be started, completed or stopped, or left out")
    port = _number(parameters, b"port")
    if not 1 <= port <= 65535:
        raise TrackerError("port must be from 1 to 65535")
    # Some clients ask for -1 peers when they do not care.
    wants_default = parameters.get(b"numwant", b"-1").startswith(b"-")
    return _Announce(
        info_hash=_identifier(parameters, b"info_hash"),
        peer_id=_identifier(parameters, b"peer_id"),
        endpoints=_endpoints(parameters, source, port),
        left=_number(parameters, b"left"),
        event=event,
        numwant=DEFAULT_NUMWANT if wants_default else min(MAX_NUMWANT, _number(parameters, b"numwant")),
        # BEP 23 suggests the compact form for all that do not ask for the other one.
        compact=parameters.get(b"compact") != b"0",
        with_peer_ids=parameters.get(b"no_peer_id") != b"1",
    )


def _identifier(parameters: dict[bytes, bytes], name: bytes) -> bytes:
    """Return a parameter of 20 bytes."""
    value = parameters.get(name)
    if value is None:
        raise TrackerError(f"{name.decode()} is missing")
    if len(value) != 20:
        raise TrackerError(f"{name.decode()} must be 20 bytes, percent-encoded; it is {len(value)}")
    return value


def _number(parameters: dict[bytes, bytes], name: bytes) -> int:
    """Return a parameter that is a number of at most 20 digits."""
    value = parameters.get(name)
    if value is None:
        raise TrackerError(f"{name.decode()} is missing")
    if not re.fullmatch(rb"[0-9]{1,20}", value):
        raise TrackerError(f"{name.decode()} must be a number")
    return int(value)


def _endpoints(parameters: dict[bytes, bytes], source: IPAddress, port: int) -> dict[int, _Endpoint]:
    """Return where the peer can be dialled: where it comes from, and what it may claim besides.

    A program on this machine may tell the machine's other addresses (BEP 7); nobody else may.
    """
    if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped:
        source = source.ipv4_mapped  # an IPv4 client of a socket that listens on both
    endpoints: dict[int, _Endpoint] = {source.version: _Endpoint(source, port)}
    if source.is_loopback:
        for version, name in ((4, b"ipv4"), (6, b"ipv6")):
            if name in parameters:
                endpoints[version] = _claimed_endpoint(parameters[name], version, port)
    return endpoints


def _claimed_endpoint(value: bytes, version: int, port: int) -> _Endpoint:
    """Read `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1` or `[2001:db8::1]:5`; `port` is for those without."""
    text = value.decode("latin-1")
    own_port = re.fullmatch(r"(\[.*\]|[0-9.]*):([0-9]{1,5})", text)
    if own_port:
        text, port = own_port[1], int(own_port[2])
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        address = None
    if address is None or address.version != version or not 1 <= port <= 65535:
        raise TrackerError(f"ipv{version} must be an IPv{version} address")
    return _Endpoint(address, port)


# --- HTTP -------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """The listening socket, and a thread per request.

    The base class can either wait for its threads, with no end if a client just keeps its connection open,
    or forget them; this one knows their sockets and can hang up.
    """

    daemon_threads = True
    request_queue_size = 128  # a demo's whole swarm starts in the same second

    def __init__(self, host: str, port: int, swarms: _Swarms):
        self.swarms = swarms
        self._workers: dict[threading.Thread, socket.socket] = {}
        self._workers_lock = threading.Lock()  # for _workers
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _RequestHandler)

    def server_bind(self) -> None:
        """Bind, without the name look-up of the base class: offline, it would wait for a DNS time-out."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    # The base class's annotation allows for datagrams; ours are always sockets, and mypy cannot know.
    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as inherited
        """Answer in a thread of its own, unless there are too many."""
        worker = threading.Thread(
            target=self._work, args=(request, client_address), name="local-tracker-request", daemon=True
        )
        with self._workers_lock:
            accepted = len(self._workers) < MAX_CONNECTIONS
            if accepted:
                self._workers[worker] = request
        if not accepted:
            self.shutdown_request(request)
            return
        try:
            worker.start()
        except RuntimeError:  # the system gives us no more threads; the base class closes the socket
            with self._workers_lock:
                del self._workers[worker]
            raise

    def _work(self, request: socket.socket, client_address: object) -> None:
        """Answer one request; the base class reports errors to `handle_error` and closes the socket."""
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._workers_lock:
                del self._workers[threading.current_thread()]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # as inherited
        """Log what went wrong with one request; the base class, which calls this from `except`, prints it."""
        logger.debug("a request from %s failed", client_address, exc_info=True)  # noqa: LOG014  # see above

    def hang_up(self) -> None:
        """Wake the threads that wait for their clients, and wait until all have ended."""
        with self._workers_lock:
            workers = dict(self._workers)
        for request in workers.values():
            with suppress(OSError):  # its thread has closed it in this moment
                request.shutdown(socket.SHUT_RDWR)
        for worker in workers:
            worker.join()


class _RequestHandler(BaseHTTPRequestHandler):
    """Answers one request with a bencoded dictionary, and closes the connection."""

    server: _Server
    timeout = REQUEST_TIMEOUT

    def do_GET(self) -> None:
        """Answer an announce or a scrape; a refusal is an answer like any other (BEP 3)."""
        path, _, query = self.path.partition("?")
        answer = {"/announce": self.server.swarms.announce, "/scrape": self.server.swarms.scrape}.get(path)
        if answer is None:
            self.send_error(404)
            return
        source = ipaddress.ip_address(self.client_address[0])
        try:
            # The base class has decoded the line in this way: it gives back every byte.
            reply = answer(query.encode("latin-1"), source)
        except TrackerError as error:
            reply = {"failure reason": str(error)}
        body = bencode_encode(reply)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name for it
        """Send the base class's lines to the log; it would print them."""
        # As ASCII, because the lines hold what the client sent, which a terminal might obey.
        logger.debug("%s: %a", self.client_address[0], format % args)
