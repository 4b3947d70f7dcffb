"""Asking a tracker over UDP: two datagrams there, two back.

    we                                     tracker
    connect        ------------------->
                   <-------------------    connection id, good for a minute
    announce       ------------------->
                   <-------------------    interval, seeders, leechers, peers

Datagrams get lost, and nobody tells us. A call waits 15 s and then fails with `TrackerSilent`, which says when
the question is to be sent again: 15 x 2^n s after it was sent last, n = 0, 1, ... 8. Whoever keeps us announced
waits for that, and asks others meanwhile.

The socket is connected, so that the system lets through what comes from the asked address only, and tells us
when nothing listens there. What comes from it and is no answer to our question is not even looked at.

Spec: BEP 15, BEP 41 (path and query of the URL).
Thread: the caller's, one call at a time.
Lock: none.
"""

import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from torrent_client import trace
from torrent_client.abort import Abort
from torrent_client.config import MAX_UDP_TRACKER_RESPONSE, Config
from torrent_client.errors import TrackerError, TrackerSilent
from torrent_client.protocol import udp_tracker
from torrent_client.protocol.udp_tracker import MAX_SCRAPE_HASHES, AnnounceRequest
from torrent_client.text import format_duration
from torrent_client.tracker_answers import AnnounceResponse, PeerAddress, Progress, ScrapeCounts
from torrent_client.tracker_url import Endpoint, endpoints, families

CONNECTION_LIFETIME: Final = 60.0
"""Seconds for which a connection id may be used; BEP 15."""

MAX_DOUBLINGS: Final = 8
"""How often the wait between two questions doubles: up to 3840 s; BEP 15."""

MAX_STRAY_DATAGRAMS: Final = 1000
"""Datagrams that answer nothing of ours, after which we stop listening: a flood must not cost a processor."""

_TICK: Final = 0.1
"""Seconds after which a wait notices that it is to end; a shutdown does not wake a UDP socket everywhere."""


class _Connection(NamedTuple):
    """A tracker's leave to ask: its id, and the monotonic time until which it is good."""

    id: int
    expires: float


class UdpTrackerClient:
    """One UDP tracker.

    Args:
        url: announce URL, `udp://HOST:PORT` and perhaps a path.
        info_hash: 20 bytes.
        peer_id: 20 bytes.
        port: TCP port that we listen on.
        key: 32 bits that prove to the tracker that we are still the same when our address changes.
        config: time-outs.
        rng: source of transaction ids; the system's by default, so that they cannot be foreseen.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        info_hash: bytes,
        peer_id: bytes,
        port: int,
        *,
        key: int = 0,
        config: Config | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the facts; nothing is sent yet."""
        self.url = url
        self._info_hash = info_hash
        self._peer_id = peer_id
        self._port = port
        self._key = key
        self._config = config or Config()
        self._rng = rng or random.SystemRandom()
        self._clock = clock
        self._connections: dict[Endpoint, _Connection] = {}
        self._silences: dict[socket.AddressFamily | None, int] = {}  # unanswered questions in a row

    def families(self) -> Sequence[socket.AddressFamily | None]:
        """Return the kinds of addresses that the tracker has: it learns ours of each kind, and tells its peers'."""
        return (self._config.allows_direct and families(self.url)) or (None,)

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,  # noqa: ARG002  # HTTP trackers have that
        time_limit: float | None = None,
        family: socket.AddressFamily | None = None,
        abort: Abort | None = None,
    ) -> AnnounceResponse:
        """Tell the tracker how we are doing and get peers; see `tracker_answers.Tracker.announce`.

        Raises:
            TrackerSilent: no answer in time.
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """
        request = AnnounceRequest(
            info_hash=self._info_hash,
            peer_id=self._peer_id,
            downloaded=progress.downloaded,
            left=progress.left,
            uploaded=progress.uploaded,
            event=event,
            key=self._key,
            num_want=self._config.num_want if num_want is None else num_want,
            port=self._port,
            url_data=_url_data(self.url),
        )
        endpoint, datagram = self._ask(request.encode, family, time_limit, abort)
        address_size, kind = (4, socket.AF_INET) if endpoint.family == socket.AF_INET else (16, socket.AF_INET6)
        answer = udp_tracker.parse_announce(datagram, address_size)
        peers = (PeerAddress(socket.inet_ntop(kind, address), port) for address, port in answer.peers)
        return AnnounceResponse(
            peers=tuple(dict.fromkeys(peers)),
            interval=float(answer.interval),
            seeders=answer.seeders,
            leechers=answer.leechers,
        )

    def scrape(self, info_hashes: Sequence[bytes], *, time_limit: float | None = None) -> dict[bytes, ScrapeCounts]:
        """Ask for the numbers of torrents, 74 at a time.

        Raises:
            TrackerSilent: no answer in time.
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """
        counts: dict[bytes, ScrapeCounts] = {}
        for start in range(0, len(info_hashes), MAX_SCRAPE_HASHES):
            some = info_hashes[start : start + MAX_SCRAPE_HASHES]

            def request(connection_id: int, transaction_id: int, hashes: Sequence[bytes] = some) -> bytes:
                return udp_tracker.scrape_request(connection_id, transaction_id, hashes)

            _, datagram = self._ask(request, None, time_limit, None)
            entries = udp_tracker.parse_scrape(datagram, len(some))
            for info_hash, entry in zip(some, entries, strict=True):
                counts[info_hash] = ScrapeCounts(entry.seeders, entry.leechers, entry.completed)
        return counts

    def _ask(
        self,
        request: Callable[[int, int], bytes],
        family: socket.AddressFamily | None,
        time_limit: float | None,
        abort: Abort | None,
    ) -> tuple[Endpoint, bytes]:
        """Ask at the tracker's addresses, one after the other; return the one that answered, and the answer."""
        if not self._config.allows_direct:
            raise TrackerError("not asked: UDP does not go through the proxy")
        limit = min(time_limit or self._config.udp_tracker_timeout, self._config.udp_tracker_timeout)
        deadline = self._clock() + limit
        found = endpoints(self.url, family)
        if not found:
            raise TrackerError("its host name is not known")
        silences = self._silences.get(family, 0)
        turn = silences % len(found)  # an address that was silent is not the first to be asked again
        problem: OSError | None = None
        for endpoint in found[turn:] + found[:turn]:
            try:
                datagram = self._ask_at(endpoint, request, deadline, abort)
            except TimeoutError as error:
                if time_limit is None:
                    self._silences[family] = silences + 1
                raise self._silence(silences, limit) from error
            except OSError as error:
                problem = error
                continue
            self._silences.pop(family, None)
            return endpoint, datagram
        raise TrackerError(_reason(problem)) from problem

    def _ask_at(
        self, endpoint: Endpoint, request: Callable[[int, int], bytes], deadline: float, abort: Abort | None
    ) -> bytes:
        """Ask at one address, with a connection id that is still good or with a new one."""
        with socket.socket(endpoint.family, socket.SOCK_DGRAM) as sock:
            sock.connect(endpoint.address)
            known = self._connections.get(endpoint)
            if known and known.expires > self._clock():
                answer = self._exchange(sock, lambda number: request(known.id, number), deadline, abort)
                if not udp_tracker.is_error(answer):
                    return answer
                # It may have been started again since, and know nothing of its promise.
            datagram = self._exchange(sock, udp_tracker.connect_request, deadline, abort)
            connection_id = udp_tracker.parse_connect(datagram)
            self._connections[endpoint] = _Connection(connection_id, self._clock() + CONNECTION_LIFETIME)
            return self._exchange(sock, lambda number: request(connection_id, number), deadline, abort)

    def _exchange(
        self, sock: socket.socket, request: Callable[[int], bytes], deadline: float, abort: Abort | None
    ) -> bytes:
        """Send a datagram and return the one that answers it.

        Raises:
            TimeoutError: there was none in time.
            TrackerError: `abort` was set, or too much came that is no answer.
            OSError: the address cannot be reached.
        """
        transaction_id = self._rng.getrandbits(32)
        question = request(transaction_id)
        sock.send(question)
        trace.datagram("tracker", sock.getsockname, sock.getpeername(), question, sent=True)
        strays = 0
        while strays < MAX_STRAY_DATAGRAMS:
            if abort and abort.is_set:
                raise TrackerError("we are stopping")
            left = deadline - self._clock()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(min(_TICK, left))
            try:
                datagram = sock.recv(MAX_UDP_TRACKER_RESPONSE + 1)
            except TimeoutError:
                continue
            trace.datagram("tracker", sock.getsockname, sock.getpeername(), datagram, sent=False)
            if udp_tracker.is_answer(datagram, transaction_id) and len(datagram) <= MAX_UDP_TRACKER_RESPONSE:
                return datagram
            strays += 1
        raise TrackerError(f"it sent {MAX_STRAY_DATAGRAMS:,} datagrams that answer nothing")

    def _silence(self, silences: int, waited: float) -> TrackerSilent:
        """Return the error that says when to ask again: 15 x 2^n s after the question, of which we have waited 15."""
        wait = self._config.udp_tracker_timeout * (2 ** min(silences, MAX_DOUBLINGS) - 1)
        return TrackerSilent(f"no answer in {format_duration(waited)}", wait)


def _url_data(url: str) -> bytes:
    """Return path and query as they are sent; nothing for a URL that has none."""
    parts = urlsplit(url)
    text = parts._replace(scheme="", netloc="", fragment="").geturl()
    return b"" if text in ("", "/") else text.encode()


def _reason(error: OSError | None) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    return (error.strerror or str(error)).lower() if error else "it has no address"
