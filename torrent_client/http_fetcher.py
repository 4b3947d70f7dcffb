"""Fetching ranges of bytes from web servers: one connection that is kept, and every answer looked at.

    GET /pub/michael/disk.iso                    the whole file, and
    Range: bytes=262144-4456447                  this much of it
    Accept-Encoding: identity                    as it is

    206, Content-Range: bytes 262144-4456447/N   just these                 -> read
    200                                          the whole file             -> read, if little is to be skipped
    301, 302, 307, 308                           elsewhere                  -> asked there from now on
    404, 410, 416 ...                            it does not have it        -> a lasting error
    429, 503, Retry-After: 30                    not now                    -> an error with a time

A server that gives whole files only is read on from where the last range ended: pieces in order come in one answer.
`requests` does the talking, in a thread that may be interrupted at any moment: we keep a second handle of the socket,
and shut the connection down under it.

Imported where it is used, because `requests` takes a fifth of a second to load.

Spec: RFC 9110 (range requests, Retry-After), BEP 19, BEP 17 (503 with the seconds in its body).
Thread: one, the web seed's; `interrupt` and `close` from any.
Lock: none.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from torrent_client.config import KIB, Config
from torrent_client.errors import WebSeedError
from torrent_client.http_rules import MAX_REDIRECTS, error_in_words, leads_inside
from torrent_client.proxy import proxy_trouble, requests_proxies
from torrent_client.text import printable
from torrent_client.tracker_client import USER_AGENT
from torrent_client.web_layout import WebRange, check_web_seed_url

SKIP_SIZE: Final = 64 * KIB
"""Bytes read in one go where they are thrown away."""

MAX_RETRY_AFTER: Final = 3600.0
"""Seconds that a server may keep us waiting: it can tell us again then."""

MAX_REDIRECTS_KEPT: Final = 1000
"""URLs of which it is remembered where they lead to."""

_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
"""What the libraries raise; some errors of those below them come through, of names that are none, say."""

_PASSING: Final = frozenset({408, 425, 429})
"""Of the refusals (4xx) those that soon may be none: too slow, too early, too many."""


class _Answer:
    """An answer that is being read.

    Args:
        url: that was asked for, before any redirect.
        response: after its headers.
        position: place of the next byte in what the URL names.
        end: place after the answer's last byte, as far as it is known.
    """

    def __init__(self, url: str, response: requests.Response, position: int, end: int) -> None:
        self.url = url
        self.position = position
        self.end = end
        self._response = response

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes as soon as there are any.

        Raises:
            WebSeedError: the answer ends here, and should not.
        """
        data: bytes = self._response.raw.read1(count, decode_content=False)
        if not data:
            raise WebSeedError("the answer ended too early")
        self.position += len(data)
        return data

    def close(self) -> None:
        """Hang up, unless the answer was read to its end: then the connection is kept for the next one."""
        self._response.close()


class HttpFetcher:
    """Fetches ranges, one after the other.

    Args:
        config: time-outs, and how much may be skipped.
        wall_clock: seconds since 1970, for servers that name a date.

    Attributes:
        skipped: bytes read and thrown away.
    """

    def __init__(self, config: Config, wall_clock: Callable[[], float] = time.time) -> None:
        """Begin without a connection."""
        self._config = config
        self._wall_clock = wall_clock
        self._connection: Any = None  # the last one that was made
        self._socket: socket.socket | None = None  # our own handle of it
        self._is_closed = False
        self._is_interrupted = False
        self._answer: _Answer | None = None
        self._moved: dict[str, str] = {}  # where redirects led to
        self._session = self._new_session()
        self.skipped = 0

    def fetch(self, wanted: WebRange, quantum: Callable[[], int]) -> Iterator[bytes]:
        """Give the bytes of a range in order, as they come.

        Args:
            wanted: what to ask for.
            quantum: returns how many bytes to read in one go at most.

        Raises:
            WebSeedError: it failed, and why.
        """
        self._is_interrupted = self._is_closed
        try:
            answer = self._answer = self._continued(wanted) or self._asked(wanted)
            left = wanted.length
            while left:
                data = answer.read(min(left, quantum()))
                left -= len(data)
                yield data
        except _ERRORS as error:
            self.hang_up()
            raise WebSeedError(self._in_words(error)) from error
        except (WebSeedError, GeneratorExit):
            self.hang_up()
            raise

    def interrupt(self) -> None:
        """Break the connection, whatever is being done on it; from any thread."""
        self._is_interrupted = True
        if self._socket:
            with suppress(OSError):  # closed meanwhile
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break the connection and make no other; from any thread. `hang_up` by the fetching thread follows."""
        self._is_closed = True
        self.interrupt()

    def hang_up(self) -> None:
        """Let the connection go; the next range makes a new one."""
        if self._answer:
            self._answer.close()
            self._answer = None
        self._session.close()
        if self._connection and self._socket:
            self._connection.close()  # the session would leave it open for as long as anything still knows of it
            self._socket.close()
            self._connection = self._socket = None
        self._moved.clear()

    def _in_words(self, error: Exception) -> str:
        """Return what an error of the libraries means."""
        if "IncompleteRead" in str(error):
            return "the answer ended too early"
        return proxy_trouble(self._config, error) or error_in_words(error)

    # --- connections ---------------------------------------------------------------------------------

    def _new_session(self) -> requests.Session:
        """Return a session that lets us know of its sockets."""
        session = requests.Session()
        session.headers.clear()
        session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, _WatchedAdapter(self._on_connected))
        return session

    def _on_connected(self, connection: Any, sock: socket.socket) -> None:  # noqa: ANN401  # one of many
        """Keep a second handle of a new connection: the library's own is out of other threads' reach."""
        if self._socket:
            self._socket.close()
        if self._connection is not connection and self._connection:
            self._connection.close()  # to another host, which has led us here
        self._connection, self._socket = connection, sock.dup()
        if self._is_interrupted:
            self.interrupt()

    # --- asking --------------------------------------------------------------------------------------

    def _continued(self, wanted: WebRange) -> _Answer | None:
        """Return the last answer, read on to the wanted bytes, if it holds them and they are near."""
        answer, self._answer = self._answer, None
        if answer is None:
            return None
        if answer.url != wanted.url or wanted.start + wanted.length > answer.end or not self._is_near(wanted, answer):
            answer.close()
            return None
        self._skip(answer, wanted.start)
        return answer

    def _is_near(self, wanted: WebRange, answer: _Answer) -> bool:
        return 0 <= wanted.start - answer.position <= self._config.web_seed_skip

    def _skip(self, answer: _Answer, start: int) -> None:
        """Throw away what comes before the wanted bytes."""
        while answer.position < start:
            self.skipped += len(answer.read(min(start - answer.position, SKIP_SIZE)))

    def _asked(self, wanted: WebRange) -> _Answer:
        """Send a request, to where the last one was led, and return the answer at the first wanted byte."""
        moved = self._moved.pop(wanted.url, None)
        if moved:
            try:
                return self._follow(moved, wanted)
            except (WebSeedError, *_ERRORS):
                if self._is_interrupted:
                    raise
        return self._follow(wanted.url, wanted)  # it may lead elsewhere by now: signed URLs expire, mirrors go

    def _follow(self, url: str, wanted: WebRange) -> _Answer:
        """Send a request, following a few redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(url, wanted)
            try:
                target = response.headers.get("Location") if response.is_redirect else None
                if target is None:
                    answer = self._checked(response, wanted)
                    self._skip(answer, wanted.start)
                    if url != wanted.url and len(self._moved) < MAX_REDIRECTS_KEPT:
                        self._moved[wanted.url] = url
                    return answer
                url = _redirected(url, target, looks_up=self._config.allows_direct)
            except BaseException:
                response.close()
                raise
            response.close()
        raise WebSeedError(f"more than {MAX_REDIRECTS} redirects", is_lasting=True)

    def _get(self, url: str, wanted: WebRange) -> requests.Response:
        """Send one request; once more if the server has closed a connection that we had kept."""
        headers = {}
        if not wanted.is_whole:
            headers["Range"] = f"bytes={wanted.start}-{wanted.start + wanted.length - 1}"
        config = self._config
        # To connect lasts a tick at most: until then there is no socket that could be shut down.
        connecting = config.proxy_timeout if config.proxy else min(config.connect_timeout, config.socket_tick)
        timeouts = connecting, config.web_seed_timeout
        was_connected = self._socket is not None
        try:
            return self._send(url, headers, timeouts)
        except requests.ConnectionError:
            if not was_connected or self._is_interrupted:
                raise
            self._session.close()
            return self._send(url, headers, timeouts)

    def _send(self, url: str, headers: dict[str, str], timeouts: tuple[float, float]) -> requests.Response:
        """Ask, and return the beginning of the answer."""
        proxies = requests_proxies(self._config)  # here, because the environment's would outdo those of the session
        return self._session.get(
            url, headers=headers, timeout=timeouts, stream=True, allow_redirects=False, proxies=proxies
        )

    def _checked(self, response: requests.Response, wanted: WebRange) -> _Answer:
        """Return the answer, if it is what we asked for.

        Raises:
            WebSeedError: it is something else.
        """
        status = response.status_code
        if status not in (200, 206):
            raise self._refusal(response, wanted)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise WebSeedError(f"it compresses files ({printable(encoding, 20)})", is_lasting=True)
        length = response.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if status == 206:
            _check_content_range(response.headers.get("Content-Range", ""), wanted)
            if size not in (None, wanted.length):
                raise WebSeedError(f"it answers {size:,} bytes to a range of {wanted.length:,}", is_lasting=True)
            return _Answer(wanted.url, response, wanted.start, wanted.start + wanted.length)
        if size not in (None, wanted.size):
            raise WebSeedError(
                f"its file has {size:,} bytes instead of {wanted.size:,}", is_lasting=True, missing_file=wanted.file
            )
        if wanted.start > self._config.web_seed_skip:
            raise WebSeedError("it gives whole files only, not parts of them", is_lasting=True)
        return _Answer(wanted.url, response, 0, wanted.size)

    def _refusal(self, response: requests.Response, wanted: WebRange) -> WebSeedError:
        """Return what to make of an answer without data."""
        status = response.status_code
        message = f"HTTP {status} {printable(response.reason or '', 60)}".strip()
        retry_in = _seconds(response.headers.get("Retry-After", ""), self._wall_clock())
        if retry_in is None and status == 503 and wanted.file is None:
            body = response.raw.read1(20, decode_content=False)  # BEP 17
            retry_in = _seconds(body.decode("ascii", "replace"), self._wall_clock())
        if status == 416:
            message = "its file is shorter than the torrent says"
        if status >= 500 or status in _PASSING:
            return WebSeedError(message, retry_in=retry_in)
        return WebSeedError(message, is_lasting=True, missing_file=wanted.file)


class _WatchedAdapter(HTTPAdapter):
    """Makes connections as ever, through proxies too, and tells of each new socket.

    Args:
        connected: is given the connection and the socket.
    """

    def __init__(self, connected: Callable[[Any, socket.socket], None]) -> None:
        self._connected = connected
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # passed on
        """Return the pool of connections to a host, which makes connections that tell."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not hasattr(pool.ConnectionCls, "tells"):
            pool.ConnectionCls = _telling(pool.ConnectionCls, self._connected)
        return pool


def _telling(connection_class: Any, connected: Callable[[Any, socket.socket], None]) -> Any:  # noqa: ANN401  # one of many
    """Return a class of connections that tells of its sockets, direct ones or to a proxy."""

    def new_connection(connection: object) -> socket.socket:
        sock: socket.socket = connection_class._new_conn(connection)
        connected(connection, sock)
        return sock

    return type(connection_class.__name__, (connection_class,), {"_new_conn": new_connection, "tells": True})


def _redirected(url: str, location: str, *, looks_up: bool) -> str:
    """Return where a redirect leads, unless it leads from a public host to a private one."""
    target = urljoin(url, location)
    check_web_seed_url(target, looks_up=looks_up)
    if leads_inside(url, target, looks_up=looks_up):
        host = urlsplit(target).hostname
        raise WebSeedError(f"redirected from a public host to a private one, {host}: not followed", is_lasting=True)
    return target


def _check_content_range(value: str, wanted: WebRange) -> None:
    """Refuse an answer of other bytes than those that were asked for."""
    match = re.fullmatch(r"bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", value.strip())
    if not match:
        raise WebSeedError(f"it does not say which bytes it sends: {printable(value, 60)!r}", is_lasting=True)
    if (int(match[1]), int(match[2])) != (wanted.start, wanted.start + wanted.length - 1):
        raise WebSeedError(f"it sends other bytes than asked for: {printable(value, 60)}", is_lasting=True)
    if match[3] not in ("*", str(wanted.size)):
        raise WebSeedError(
            f"its file has {int(match[3]):,} bytes instead of {wanted.size:,}",
            is_lasting=True,
            missing_file=wanted.file,
        )


def _seconds(value: str, now: float) -> float | None:
    """Read a Retry-After: seconds, or a date; None if it is neither."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    with suppress(ValueError, TypeError, OverflowError):
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now), MAX_RETRY_AFTER)
    return None
