r"""Asking a tracker for peers. Most often: one HTTP GET, one bencoded answer.

    GET /announce?info_hash=%d6%9f...&peer_id=-PC0001-...&port=6881&uploaded=0&downloaded=0
                 &left=92063&compact=1&event=started ...

    d8:intervali1800e                  ask again after so many seconds
      5:peers12:\xc0\xa8\x01\x64\x1a\xe1 ...   6 bytes a peer: IPv4 address 4, port 2 (BEP 23)
      6:peers6  ...                    18 bytes a peer: IPv6 address 16, port 2 (BEP 7)
    e
    or  d14:failure reason17:unknown info hashe

An announce also tells the tracker how we are doing, and gets us into the list that others are given.
Called by `announcer` for as long as a torrent runs; `get_peers` is the whole of it for a lesson.

`TrackerClient` is the door to trackers of every kind: this module's HTTP, or `udp_tracker_client`.

Spec: BEP 3 (trackers), 7, 20 (peer ids), 23, 24 (our address), 31 (retry in), 48 (scrape); the guide's Tasks 4, 5.
Thread: the caller's, one call at a time; a `tracker-deadline` while an HTTP call lasts.
Lock: none.
"""

import ipaddress
import random
import socket
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from threading import Timer
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, urldefrag, urlsplit

from torrent_client import __version__, trace
from torrent_client.abort import Abort
from torrent_client.config import MAX_TRACKER_RESPONSE, Config
from torrent_client.errors import BencodeError, TrackerError, TrackerSilent
from torrent_client.http_rules import MAX_REASON_LENGTH, MAX_REDIRECTS, error_in_words
from torrent_client.protocol.bencode import BencodeValue, bencode_decode
from torrent_client.proxy import proxy_trouble, requests_proxies
from torrent_client.text import printable
from torrent_client.tracker_answers import (
    AnnounceResponse,
    PeerAddress,
    Progress,
    ScrapeCounts,
    Tracker,
    compact_peers,
)
from torrent_client.tracker_url import check_tracker_url, endpoints, families, redirected, scrape_url

if TYPE_CHECKING:
    import requests

__all__ = [
    "AnnounceResponse",
    "HttpTrackerClient",
    "PeerAddress",
    "Progress",
    "ScrapeCounts",
    "TrackerClient",
    "generate_peer_id",
    "parse_announce",
    "parse_scrape",
]
"""What others take from here: with the door come the values that go through it."""

USER_AGENT: Final = f"torrent-client/{__version__}"
HASHES_PER_SCRAPE: Final = 64
"""Info hashes in the URL of one HTTP scrape: at up to 71 characters each it stays well below the usual 8 KiB."""

_DEADLINE_GRACE: Final = 0.25
"""Seconds after the end of the time limit at which a request is cut off that does not end by itself: the
time-outs of single reads come first, because they know better what is wrong."""


def generate_peer_id(rng: random.Random | None = None) -> bytes:
    """Return a new peer id: `-PC0100-` and 12 random characters, 20 bytes in all (BEP 20).

    Args:
        rng: source of randomness; the system's by default, so that ids cannot be foreseen.
    """
    digits = "".join(part[-1] for part in (*__version__.split("."), "0"))
    characters = (rng or random.SystemRandom()).choices(string.ascii_letters + string.digits, k=12)
    return f"-PC{digits}-{''.join(characters)}".encode()


class TrackerClient:
    """One tracker, whatever it speaks.

    Args:
        url: announce URL; `udp://` is asked over UDP, everything else over HTTP.
        info_hash: 20 bytes.
        peer_id: 20 bytes.
        port: TCP port that we listen on.
        key: a number that proves to the tracker that we are still the same when our address changes.
        config: time-outs.
    """

    def __init__(
        self, url: str, info_hash: bytes, peer_id: bytes, port: int, *, key: int = 0, config: Config | None = None
    ) -> None:
        """Keep the facts; nothing is sent yet."""
        self._tracker: Tracker
        if url.lower().startswith("udp:"):
            from torrent_client.udp_tracker_client import UdpTrackerClient

            self._tracker = UdpTrackerClient(url, info_hash, peer_id, port, key=key, config=config)
        else:
            self._tracker = HttpTrackerClient(url, info_hash, peer_id, port, key=key, config=config)

    @property
    def url(self) -> str:
        """The announce URL."""
        return self._tracker.url

    def get_peers(self, left: int = 1) -> list[PeerAddress]:
        """Ask for peers once and return their addresses (the guide's Task 5).

        Raises:
            TrackerError: no usable answer.
        """
        try:
            return list(self.announce(Progress(0, 0, left), "started").peers)
        except TrackerSilent:  # a datagram may get lost
            return list(self.announce(Progress(0, 0, left), "started").peers)

    def families(self) -> Sequence[socket.AddressFamily | None]:
        """Return the kinds of addresses to announce to; see `Tracker.families`."""
        return self._tracker.families()

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,
        time_limit: float | None = None,
        family: socket.AddressFamily | None = None,
        abort: Abort | None = None,
    ) -> AnnounceResponse:
        """Tell the tracker how we are doing and get peers; see `Tracker.announce`."""
        return self._tracker.announce(
            progress,
            event,
            num_want=num_want,
            tracker_id=tracker_id,
            time_limit=time_limit,
            family=family,
            abort=abort,
        )

    def scrape(self, info_hashes: Sequence[bytes], *, time_limit: float | None = None) -> Mapping[bytes, ScrapeCounts]:
        """Ask for the numbers of torrents; see `Tracker.scrape`."""
        return self._tracker.scrape(info_hashes, time_limit=time_limit)


class HttpTrackerClient:
    """One HTTP or HTTPS tracker; the arguments are those of `TrackerClient`."""

    def __init__(
        self, url: str, info_hash: bytes, peer_id: bytes, port: int, *, key: int = 0, config: Config | None = None
    ) -> None:
        """Keep the facts; nothing is sent yet."""
        self.url = url
        self._info_hash = info_hash
        self._peer_id = peer_id
        self._port = port
        self._key = key
        self._config = config or Config()

    def families(self) -> Sequence[socket.AddressFamily | None]:
        """Return the kinds of addresses that the tracker has; a proxy has its own."""
        from torrent_client.http_connection import is_proxied

        if is_proxied(self.url, self._config):
            return (None,)
        return families(self.url) or (None,)

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,
        time_limit: float | None = None,
        family: socket.AddressFamily | None = None,
        abort: Abort | None = None,
    ) -> AnnounceResponse:
        """Tell the tracker how we are doing and get peers; see `Tracker.announce`.

        Raises:
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """
        check_tracker_url(self.url, looks_up=self._config.allows_direct)
        wanted = self._config.num_want if num_want is None else num_want
        url = self.announce_url(progress, event, wanted, tracker_id)
        return parse_announce(self._get(url, time_limit, family, abort))

    def scrape(self, info_hashes: Sequence[bytes], *, time_limit: float | None = None) -> dict[bytes, ScrapeCounts]:
        """Ask for the numbers of torrents; one that the tracker does not know is left out.

        Raises:
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """
        check_tracker_url(self.url, looks_up=self._config.allows_direct)
        url = scrape_url(self.url)
        counts: dict[bytes, ScrapeCounts] = {}
        for start in range(0, len(info_hashes), HASHES_PER_SCRAPE):
            some = info_hashes[start : start + HASHES_PER_SCRAPE]
            query = "&".join(f"info_hash={quote_from_bytes(info_hash, safe='')}" for info_hash in some)
            found = parse_scrape(self._get(_with_query(url, query), time_limit, None, None))
            counts |= {info_hash: found[info_hash] for info_hash in some if info_hash in found}
        return counts

    def announce_url(
        self, progress: Progress, event: str | None, num_want: int, tracker_id: bytes | None = None
    ) -> str:
        """Return the URL of an announce; binary values are percent-encoded byte by byte."""
        parameters = {
            "info_hash": quote_from_bytes(self._info_hash, safe=""),
            "peer_id": quote_from_bytes(self._peer_id, safe=""),
            "port": str(self._port),
            "uploaded": str(progress.uploaded),
            "downloaded": str(progress.downloaded),
            "left": str(progress.left),
            "compact": "1",
            "numwant": str(num_want),
            "key": f"{self._key:08X}",
        }
        if self._config.encryption != "off":
            wish = "requirecrypto" if self._config.encryption == "require" else "supportcrypto"
            parameters[wish] = "1"  # some trackers choose the peers that they tell us of by that
        if event:
            parameters["event"] = event
        if tracker_id:
            parameters["trackerid"] = quote_from_bytes(tracker_id, safe="")
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return _with_query(urldefrag(self.url).url, query)  # what follows a `#` is not sent

    def _get(
        self, url: str, time_limit: float | None, family: socket.AddressFamily | None, abort: Abort | None
    ) -> bytes:
        """Fetch a URL, following a few redirects that do not lead from the internet to a private host."""
        limit = time_limit or 2 * self._config.tracker_read_timeout
        too_late = Abort()
        timer = Timer(limit + _DEADLINE_GRACE, too_late.set)
        timer.daemon, timer.name = True, "tracker-deadline"
        timer.start()
        try:
            return self._follow(url, time.monotonic() + limit, family, [too_late, *([abort] if abort else [])])
        except TrackerError as error:
            if abort and abort.is_set:
                raise TrackerError("we are stopping") from error
            if too_late.is_set:
                raise TrackerError("the answer takes too long") from error
            raise
        finally:
            timer.cancel()
            timer.join()

    def _follow(self, url: str, deadline: float, family: socket.AddressFamily | None, aborts: Sequence[Abort]) -> bytes:
        import requests  # here, because it costs a tenth of a second that a magnet or --peer need not pay
        import urllib3

        for _ in range(MAX_REDIRECTS + 1):
            try:
                # A session each, because a server that redirects may hang up after it, and a connection is used again.
                with (
                    ExitStack() as stack,
                    requests.Session() as session,
                    self._request(session, url, deadline, family, aborts, stack) as response,
                ):
                    target = response.headers.get("Location") if response.is_redirect else None
                    if target is None:
                        body = _body(response, deadline)
                        if any(abort.is_set for abort in aborts):
                            raise TrackerError("cut off")  # `_get` says why
                        trace.http_exchange(url, f"{response.status_code} {response.reason}", body)
                        return body
                    url = redirected(url, target, looks_up=self._config.allows_direct)
            # Both libraries let some of the errors below them through: of names that are none, say.
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise TrackerError(proxy_trouble(self._config, error) or error_in_words(error)) from error
        raise TrackerError(f"more than {MAX_REDIRECTS} redirects")

    def _request(
        self,
        session: "requests.Session",
        url: str,
        deadline: float,
        family: socket.AddressFamily | None,
        aborts: Sequence[Abort],
        stack: ExitStack,
    ) -> "requests.Response":
        from torrent_client.http_connection import WatchedAdapter

        def watch(sock: socket.socket) -> None:
            stack.enter_context(closing(sock))
            for abort in aborts:
                stack.enter_context(abort.watching(sock))

        left = max(0.1, deadline - time.monotonic())
        connect_timeout = min(self._config.tracker_connect_timeout, left)
        found = endpoints(url, family) if self._config.allows_direct else []
        adapter = WatchedAdapter(found, watch, connect_timeout)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.headers["User-Agent"] = USER_AGENT
        timeouts = connect_timeout, min(self._config.tracker_read_timeout, left)
        proxies = requests_proxies(self._config)
        return session.get(url, timeout=timeouts, stream=True, allow_redirects=False, proxies=proxies)


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


def parse_announce(body: bytes) -> AnnounceResponse:
    """Read a tracker's answer.

    Args:
        body: a bencoded dictionary.

    Raises:
        TrackerError: it is none, or holds a `failure reason`.
    """
    answer = _dictionary(body)
    interval = _count(answer.get(b"interval"))
    tracker_id = answer.get(b"tracker id")
    warning = answer.get(b"warning message")
    return AnnounceResponse(
        peers=tuple(dict.fromkeys([*_peers(answer.get(b"peers")), *_compact(answer.get(b"peers6"), 16)])),
        interval=float(1800 if interval is None else interval),
        min_interval=float(_count(answer.get(b"min interval")) or 0),
        seeders=_count(answer.get(b"complete")),
        leechers=_count(answer.get(b"incomplete")),
        tracker_id=tracker_id if isinstance(tracker_id, bytes) else None,
        warning=_text(warning) if warning is not None else None,
        external_ip=_address(answer.get(b"external ip")),
    )


def parse_scrape(body: bytes) -> dict[bytes, ScrapeCounts]:
    """Read a tracker's answer to a scrape; entries that are none are left out, as are numbers below zero.

    Args:
        body: a bencoded dictionary.

    Raises:
        TrackerError: it is none, or holds a `failure reason`.
    """
    files = _dictionary(body).get(b"files")
    if not isinstance(files, dict):
        raise TrackerError("the answer to the scrape has no files")
    names = b"complete", b"incomplete", b"downloaded"
    return {
        _info_hash(key): ScrapeCounts(*(_count(entry.get(name)) or 0 for name in names))
        for key, entry in files.items()
        if isinstance(entry, dict)
    }


def _info_hash(key: bytes) -> bytes:
    """Return a torrent's key in an answer; bittorrent-tracker 11 takes its 20 bytes for letters, and writes UTF-8."""
    with suppress(UnicodeError):
        if len(key) != 20:
            return key.decode("utf-8").encode("latin-1")
    return key


def _dictionary(body: bytes) -> dict[bytes, BencodeValue]:
    """Decode an answer; a refusal becomes the error that it is."""
    try:
        answer = bencode_decode(body)
    except BencodeError as error:
        kind = "a web page" if body.lstrip().startswith(b"<") else f"{printable(body[:60])!r}"
        raise TrackerError(f"the answer is no tracker's, but {kind}") from error
    if not isinstance(answer, dict):
        raise TrackerError("the answer is no dictionary")
    failure = answer.get(b"failure reason")
    if failure is not None:
        minutes = answer.get(b"retry in")
        retry_in = 60.0 * minutes if isinstance(minutes, int) and 0 < minutes < 10_000 else None
        raise TrackerError(f"refused: {_text(failure)}", retry_in)
    return answer


def _body(response: "requests.Response", deadline: float) -> bytes:
    """Read an answer, decompressed, up to the size limit and the deadline."""
    body = bytearray()
    # `read1`, because all else waits for 16 KiB, and a byte now and then would keep us for hours.
    while chunk := response.raw.read1(16 * 1024, decode_content=True):
        body += chunk
        if len(body) > MAX_TRACKER_RESPONSE:
            raise TrackerError(f"the answer is longer than {MAX_TRACKER_RESPONSE:,} bytes")
        if time.monotonic() > deadline:
            raise TrackerError("the answer takes too long")
    if response.status_code != 200 and not body.startswith(b"d"):
        # Some trackers send a failure reason with a 400: that one is more telling.
        raise TrackerError(f"HTTP {response.status_code} {printable(response.reason or '')}")
    return bytes(body)


def _peers(value: BencodeValue | None) -> Iterator[PeerAddress]:
    """Read `peers`: a compact string, or a list of dictionaries from old trackers."""
    if not isinstance(value, list):
        yield from _compact(value, 4)
        return
    for entry in value:
        match entry:
            case {b"ip": bytes(host), b"port": int(port)} if 0 < port < 65_536 and 0 < len(host) < 256:
                name = host.decode("ascii", "replace")
                if name.isascii() and name.isprintable():
                    yield PeerAddress(name, port)


def _compact(value: BencodeValue | None, address_size: int) -> Iterator[PeerAddress]:
    return compact_peers(value, address_size) if isinstance(value, bytes) else iter(())


def _address(value: BencodeValue | None) -> str | None:
    """Read a packed IPv4 or IPv6 address (BEP 24); some trackers send it as text."""
    if not isinstance(value, bytes):
        return None
    try:
        return str(ipaddress.ip_address(value if len(value) in (4, 16) else value.decode("ascii", "replace")))
    except ValueError:
        return None


def _count(value: BencodeValue | None) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _text(value: BencodeValue) -> str:
    return printable(value if isinstance(value, bytes) else str(value), MAX_REASON_LENGTH)
