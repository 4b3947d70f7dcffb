r"""Asking a tracker for peers: one HTTP GET, one bencoded answer.

    GET /announce?info_hash=%d6%9f...&peer_id=-PC0001-...&port=6881&uploaded=0&downloaded=0
                 &left=92063&compact=1&event=started ...

    d8:intervali1800e                  ask again after so many seconds
      5:peers12:\xc0\xa8\x01\x64\x1a\xe1 ...   6 bytes a peer: IPv4 address 4, port 2 (BEP 23)
      6:peers6  ...                    18 bytes a peer: IPv6 address 16, port 2 (BEP 7)
    e
    or  d14:failure reason17:unknown info hashe

An announce also tells the tracker how we are doing, and gets us into the list that others are given.
`Announcer` calls it for as long as a torrent runs; `get_peers` is the whole of it for a lesson.

Spec: BEP 3 (trackers), 7, 20 (peer ids), 23, 31 (retry in); the guide's Tasks 4 and 5.
Thread: the caller's; a running torrent's announce thread.
Lock: none; immutable.
"""

import ipaddress
import random
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from struct import iter_unpack
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote, urldefrag, urljoin, urlsplit

from torrent_client import __version__
from torrent_client.config import MAX_TRACKER_RESPONSE, Config
from torrent_client.errors import BencodeError, TrackerError
from torrent_client.http_rules import MAX_REASON_LENGTH, MAX_REDIRECTS, error_in_words, is_loopback, leads_inside
from torrent_client.protocol.bencode import BencodeValue, bencode_decode
from torrent_client.proxy import proxy_trouble, requests_proxies
from torrent_client.text import printable

if TYPE_CHECKING:
    import requests

USER_AGENT: Final = f"torrent-client/{__version__}"


class PeerAddress(NamedTuple):
    """Where a peer listens: an IPv4 or IPv6 address as text (or a host name) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Progress(NamedTuple):
    """What a tracker is told about us: bytes sent and received in this run, and bytes still lacking."""

    uploaded: int
    downloaded: int
    left: int


@dataclass(frozen=True, slots=True)
class AnnounceResponse:
    """A tracker's answer.

    Attributes:
        peers: the addresses, as given.
        interval: seconds after which to announce again.
        min_interval: seconds before which not to.
        seeders, leechers: how many peers the tracker knows, if it says.
        tracker_id: to be sent back with the next announce.
        warning: a text for the user.
    """

    peers: tuple[PeerAddress, ...]
    interval: float
    min_interval: float = 0.0
    seeders: int | None = None
    leechers: int | None = None
    tracker_id: bytes | None = None
    warning: str | None = None


def generate_peer_id(rng: random.Random | None = None) -> bytes:
    """Return a new peer id: `-PC0100-` and 12 random characters, 20 bytes in all (BEP 20).

    Args:
        rng: source of randomness; the system's by default, so that ids cannot be foreseen.
    """
    digits = "".join(part[-1] for part in (*__version__.split("."), "0"))
    characters = (rng or random.SystemRandom()).choices(string.ascii_letters + string.digits, k=12)
    return f"-PC{digits}-{''.join(characters)}".encode()


class TrackerClient:
    """One HTTP or HTTPS tracker.

    Args:
        url: announce URL.
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
        self.url = url
        self._info_hash = info_hash
        self._peer_id = peer_id
        self._port = port
        self._key = key
        self._config = config or Config()

    def get_peers(self, left: int = 1) -> list[PeerAddress]:
        """Ask for peers once and return their addresses (the guide's Task 5).

        Raises:
            TrackerError: no usable answer.
        """
        return list(self.announce(Progress(0, 0, left), "started").peers)

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,
        time_limit: float | None = None,
    ) -> AnnounceResponse:
        """Tell the tracker how we are doing and get peers.

        Args:
            progress: bytes uploaded, downloaded, left.
            event: `started`, `completed`, `stopped`, or None for a regular announce.
            num_want: peers wanted; Config's number by default.
            tracker_id: what the tracker's last answer gave.
            time_limit: seconds for all of it, instead of Config's.

        Raises:
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """
        check_tracker_url(self.url, looks_up=self._config.allows_direct)
        wanted = self._config.num_want if num_want is None else num_want
        url = self.announce_url(progress, event, wanted, tracker_id)
        return parse_announce(self._get(url, time_limit or 2 * self._config.tracker_read_timeout))

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
        if event:
            parameters["event"] = event
        if tracker_id:
            parameters["trackerid"] = quote_from_bytes(tracker_id, safe="")
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        url = urldefrag(self.url).url  # what follows a `#` is not sent
        return f"{url}{'&' if urlsplit(url).query else '?'}{query}"

    def _get(self, url: str, time_limit: float) -> bytes:
        """Fetch a URL, following a few redirects that do not lead from the internet to a private host."""
        import requests  # here, because it costs a tenth of a second that a magnet or --peer need not pay
        import urllib3

        deadline = time.monotonic() + time_limit
        for _ in range(MAX_REDIRECTS + 1):
            try:
                # A session each, because a server that redirects may hang up after it, and a connection is used again.
                with requests.Session() as session, self._request(session, url, deadline) as response:
                    target = response.headers.get("Location") if response.is_redirect else None
                    if target is None:
                        return _body(response, deadline)
                    url = _redirect(url, target, looks_up=self._config.allows_direct)
            # Both libraries let some of the errors below them through: of names that are none, say.
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise TrackerError(proxy_trouble(self._config, error) or error_in_words(error)) from error
        raise TrackerError(f"more than {MAX_REDIRECTS} redirects")

    def _request(self, session: "requests.Session", url: str, deadline: float) -> "requests.Response":
        left = max(0.1, deadline - time.monotonic())
        timeouts = min(self._config.tracker_connect_timeout, left), min(self._config.tracker_read_timeout, left)
        session.headers["User-Agent"] = USER_AGENT
        proxies = requests_proxies(self._config)
        return session.get(url, timeout=timeouts, stream=True, allow_redirects=False, proxies=proxies)


def parse_announce(body: bytes) -> AnnounceResponse:
    """Read a tracker's answer.

    Args:
        body: a bencoded dictionary.

    Raises:
        TrackerError: it is none, or holds a `failure reason`.
    """
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
    )


def check_tracker_url(url: str, *, looks_up: bool = True) -> None:
    """Refuse URLs by which a torrent could make us talk to something that is no tracker.

    Args:
        url: what the torrent names.
        looks_up: find out where host names lead; not where a proxy does that, past which nothing may go.

    Raises:
        TrackerError: another scheme than http and https, no host, or a path other than /announce on
            this very machine (server-side request forgery against local services).
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise TrackerError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise TrackerError(f"{parts.scheme or 'no'} trackers are not supported, only http and https; try --peer")
    if not host:
        raise TrackerError("the URL has no host")
    path = unquote(parts.path)
    if is_loopback(host, looks_up=looks_up) and (not path.startswith("/announce") or "/." in path):
        raise TrackerError("a tracker on this machine must be at /announce")


def _redirect(url: str, location: str, *, looks_up: bool = True) -> str:
    """Return where a redirect leads, unless it leads from a public host to a private one."""
    target = urljoin(url, location)
    check_tracker_url(target, looks_up=looks_up)
    if leads_inside(url, target, looks_up=looks_up):
        host = urlsplit(target).hostname
        raise TrackerError(f"redirected from a public host to a private one, {host}: not followed")
    return target


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
    """Read compact peers of `address_size` + 2 bytes; a cut one at the end is left out."""
    if not isinstance(value, bytes):
        return
    size = address_size + 2
    for address, port in iter_unpack(f">{address_size}sH", value[: len(value) // size * size]):
        if port:
            yield PeerAddress(str(ipaddress.ip_address(address)), port)


def _count(value: BencodeValue | None) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _text(value: BencodeValue) -> str:
    return printable(value if isinstance(value, bytes) else str(value), MAX_REASON_LENGTH)
