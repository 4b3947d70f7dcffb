"""A web seed: a thread that asks the PieceManager what a peer would be asked for, and fetches it over HTTP.

    PieceManager --next_requests--> blocks --merged--> ranges of the torrent --WebLayout--> ranges of URLs
                                                                                                |
    Conversation.store <----------------- blocks, cut from what comes <----------------- HttpFetcher

To everybody else it is one more source of blocks, which has all pieces, never chokes, and likes neighbouring pieces,
because these come in one answer. How much it is asked for at once grows with its speed, as with a peer.

    waiting --> asking --> sending --> idle (nothing to ask for)
       ^           |          |
       +- failing -+----------+        2 s, 10 s, 30 s ... or when the server says; an hour for what will hardly change
                   +-- banned          it sent bad data: never again

Spec: BEP 19 (url-list), BEP 17 (httpseeds).
Thread: `web-seed`, one for each; `close`, `ban`, `ask`, `cancel`, `snub`, `tick` and `stats` from any.
Lock: none; each field has one writer.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from torrent_client.bitfield import Bitfield
from torrent_client.block_source import BlockSource
from torrent_client.config import Config
from torrent_client.errors import ProtocolViolation, WebSeedError
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol.messages import Cancel, Piece, Request
from torrent_client.rate_limiter import RateLimiter
from torrent_client.request_pipeline import RequestPipeline
from torrent_client.stats import WebSeedStats
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.web_layout import FileLayout, PieceLayout, WebLayout, WebRange, check_web_seed_url

if TYPE_CHECKING:
    from torrent_client.http_fetcher import HttpFetcher

logger = logging.getLogger(__name__)

IDLE_CONNECTION = 10.0
"""Seconds that a connection is kept while there is nothing to ask for; many servers close it after 5 to 75."""

ZEROS = bytes(256 * 1024)
"""Padding is made of these."""


class WebSeedCallbacks(NamedTuple):
    """What the owner does with a web seed, on its thread.

    `store` takes blocks that came; `released` follows when blocks that it owed may be had by others.
    """

    store: Callable[[BlockSource, Sequence[Piece]], None]
    released: Callable[[], None]


class WebSeed(BlockSource):
    """One web seed of one torrent.

    Args:
        url: as the torrent gives it.
        torrent: what it has.
        pieces: the truth about pieces.
        callbacks: what to do with blocks.
        limiter: bytes per second of the torrent's downloads.
        config: limits.
        clock: monotonic seconds.
        by_piece: it is a script that gives pieces (BEP 17), not a server that has files (BEP 19).
    """

    def __init__(
        self,
        url: str,
        torrent: TorrentFile,
        pieces: PieceManager,
        callbacks: WebSeedCallbacks,
        limiter: RateLimiter,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
        *,
        by_piece: bool = False,
    ) -> None:
        """Begin waiting; nothing is sent before `start`."""
        depth = config.web_seed_queue_depth
        super().__init__(url, RequestPipeline(config._replace(max_queue_depth=depth, default_reqq=depth)))
        self.url = url
        self.shown_url = _without_password(url)
        self._torrent = torrent
        self._pieces = pieces
        self._callbacks = callbacks
        self._limiter = limiter
        self._config = config
        self._clock = clock
        self._by_piece = by_piece
        self._fetcher: HttpFetcher | None = None
        self._thread = Thread(target=self._run, name="web-seed", daemon=True)
        self._stopping = Event()
        self._wake = Event()
        self._cancelled: set[tuple[int, int]] = set()  # blocks that others brought meanwhile
        self._lacking = 0  # set of bits: pieces of files that it does not have
        self._is_paying = False  # it waits for our own limit, which is not its fault
        self._is_snubbed = False
        self._banned_for: str | None = None
        self._missing: str | None = None  # the last file that it turned out not to have, and why
        self._state = "waiting"
        self._error: str | None = None
        self._failures = 0
        self._next_try = 0.0

    # --- for other threads ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to fetch, on a thread of its own, unless that has been done."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """End it; returns at once."""
        self._stopping.set()
        self._wake.set()
        if self._fetcher:
            self._fetcher.close()

    def join(self, timeout: float) -> None:
        """Wait for the end of one that was closed; a name look-up that hangs is left behind."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def ban(self, reason: str) -> None:
        """Never ask it again: it sent bad data."""
        if self._banned_for:
            return
        logger.warning("web seed %s is banned: %s", self.shown_url, reason)
        self._banned_for = reason
        self.close()

    def ask(self, _pieces: PieceManager, _now: float, /) -> None:
        """Let its thread look for blocks to fetch; nothing, if it is busy."""
        self._wake.set()

    def cancel(self, cancel: Cancel) -> None:
        """Take a request back: what is left of an answer is dropped once nobody needs any of it."""
        self._cancelled.add((cancel.piece_index, cancel.begin))

    def snub(self) -> None:
        """It sent no block for too long: hang up, and ask again later."""
        if not self._is_paying:
            self._is_snubbed = True
            if self._fetcher:
                self._fetcher.interrupt()

    def tick(self, seconds: float) -> None:
        """Measure its speed; called once a second."""
        self.download.tick(seconds)
        self.pipeline.measure(self.download.last_second)
        self._pieces.set_rate(self, self.download.smoothed)

    def stats(self) -> WebSeedStats:
        """Return a snapshot."""
        pieces, in_flight = self._pieces.peer_progress(self)
        waits = self._state == "failing" and not self._banned_for
        return WebSeedStats(
            url=self.shown_url,
            state="banned" if self._banned_for else self._state,
            error=self._banned_for or self._error or self._missing,
            failures=self._failures,
            next_try_in=max(0.0, self._next_try - self._clock()) if waits else None,
            pieces=pieces,
            in_flight=in_flight,
            download_rate=self.download.smoothed,
            downloaded=self.download.total,
        )

    # --- its thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        """Fetch until we stop: the thread's whole life, and its error boundary."""
        try:
            self._prepare()
            while not self._stopping.is_set():
                self._try()
        except WebSeedError as error:  # the URL is none that we may ask
            self._state, self._error = "unusable", str(error)
            logger.warning("web seed %s: %s", self.shown_url, error)
        except Exception as error:
            self._state, self._error = "unusable", f"internal error: {error!r}"
            logger.exception("web seed %s failed", self.shown_url)
        finally:
            self._leave()
            if self._fetcher:
                self._fetcher.hang_up()

    def _prepare(self) -> None:
        """Look at the URL, and load what speaks HTTP."""
        from torrent_client.http_fetcher import HttpFetcher  # here, because it takes a fifth of a second

        check_web_seed_url(self.url, looks_up=self._config.allows_direct)
        layout = PieceLayout if self._by_piece else FileLayout
        self._layout: WebLayout = layout(self.url, self._torrent)
        self._fetcher = HttpFetcher(self._config)
        if self._stopping.is_set():
            self._fetcher.close()

    def _try(self) -> None:
        """Fetch until something fails, and then wait until it is worth trying again."""
        before = self.download.total
        self._is_snubbed = False
        self._join()
        try:
            while not self._stopping.is_set():
                self._fetch_or_wait()
            return
        except ProtocolViolation as violation:
            error = WebSeedError(str(violation), is_lasting=True)
        except WebSeedError as caught:
            error = caught
        self._leave()
        if self._stopping.is_set():
            return
        if self._is_snubbed:
            error = WebSeedError(f"no block came in {self._config.request_timeout:.0f} s")
        if self.download.total > before:
            self._failures = 0
        self._wait(error)

    def _wait(self, error: WebSeedError) -> None:
        """Say what went wrong, and wait; not if another file can be had at once."""
        self._failures += 1
        if error.missing_file is not None and self._forgo(error.missing_file):
            self._missing = f"{self._torrent.files[error.missing_file].path}: {error}"
            self._failures = 0
            logger.info("web seed %s: %s", self.shown_url, self._missing)
            return
        delays = self._config.web_seed_retry_delays
        delay = delays[min(self._failures, len(delays)) - 1]
        if error.is_lasting:
            delay = self._config.web_seed_lasting_delay
            self._lacking, self._missing = 0, None  # look again then
        if error.retry_in is not None:
            delay = max(delays[0], error.retry_in)
        self._next_try = self._clock() + delay
        self._state, self._error = "failing", str(error)
        log = logger.warning if self._failures == 1 else logger.debug
        log("web seed %s: %s; next try in %.0f s", self.shown_url, error, delay)
        self._stopping.wait(delay)

    def _forgo(self, number: int) -> bool:
        """Count the pieces of a file as lacking; tell whether it has others that we want."""
        file = self._torrent.files[number]
        length = self._torrent.piece_length
        first, last = file.offset // length, (file.offset + max(file.length, 1) - 1) // length
        lacking = self._lacking | (1 << last + 1) - (1 << first)
        left = Bitfield.full(self._torrent.piece_count).bits & ~lacking
        if not left:
            return False
        self._lacking = lacking
        return True

    def _join(self) -> None:
        """Become a source of blocks."""
        self._pieces.add_peer(self, prefers_runs=True)
        self._pieces.peer_has_all(self, Bitfield.full(self._torrent.piece_count).bits & ~self._lacking)

    def _leave(self) -> None:
        """Give what it owes us to others."""
        self._pieces.remove_peer(self)
        self._callbacks.released()

    # --- fetching ------------------------------------------------------------------------------------

    def _fetch_or_wait(self) -> None:
        """Fetch the next blocks, or wait until there may be some."""
        self._wake.clear()
        requests = self._pieces.next_requests(self, self.pipeline.depth, self._clock())
        if requests:
            self._cancelled.clear()
            for run in runs_of(requests, self._torrent.piece_length):
                self._fetch(run)
            return
        self._state = "idle"
        if not self._wake.wait(IDLE_CONNECTION):
            assert self._fetcher is not None
            self._fetcher.hang_up()
            self._wake.wait()

    def _fetch(self, run: Sequence[Request]) -> None:
        """Fetch neighbouring blocks."""
        blocks = BlockCutter(run)
        if self._is_moot(blocks):
            return
        self._state = "asking"
        start = run[0].piece_index * self._torrent.piece_length + run[0].begin
        end = start + sum(request.length for request in run)
        for wanted in self._layout.ranges(start, end):
            with closing(self._data(wanted)) as stream:
                for data in stream:
                    if self._stopping.is_set():
                        raise WebSeedError("we are stopping")
                    self._received(blocks.cut(data))
                    if self._is_moot(blocks):
                        return
                    self._pay(len(data))

    def _received(self, blocks: list[Piece]) -> None:
        """Hand blocks over, if there are any."""
        if blocks:
            self._state, self._error = "sending", None
            self._callbacks.store(self, blocks)

    def _is_moot(self, blocks: "BlockCutter") -> bool:
        """Tell whether all blocks that are still to come were brought by others."""
        if not self._cancelled:
            return False
        rest = set(blocks.rest())
        return bool(rest) and rest <= self._cancelled

    def _data(self, wanted: WebRange) -> Generator[bytes]:
        """Give the bytes of a range, as they come."""
        if not wanted.url:
            for start in range(0, wanted.length, len(ZEROS)):
                yield ZEROS[: wanted.length - start]
            return
        assert self._fetcher is not None
        yield from self._fetcher.fetch(wanted, self._limiter.quantum)

    def _pay(self, count: int) -> None:
        """Book what was read, and wait until it has been earned: TCP then slows the server down."""
        delay = self._limiter.book(count)
        if delay:
            self._is_paying = True
            self._stopping.wait(delay)
            self._is_paying = False


class BlockCutter:
    """Cuts a stream of bytes into blocks.

    Args:
        requests: the blocks that the stream is made of, in order.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        """Begin at the first byte of the first block."""
        self._requests = requests
        self._next = 0
        self._begun = bytearray()  # of a block that lies in several pieces of the stream

    def cut(self, data: bytes) -> list[Piece]:
        """Return the blocks that `data` completes; they are views of it, but for a first one that was begun."""
        blocks = []
        view = memoryview(data)
        while view:
            index, begin, length = self._requests[self._next]
            lacking = length - len(self._begun)
            if len(view) < lacking:
                self._begun += view
                break
            payload, view = view[:lacking], view[lacking:]
            if self._begun:
                payload = memoryview(self._begun + payload)
                self._begun = bytearray()
            blocks.append(Piece(index, begin, payload))
            self._next += 1
        return blocks

    def rest(self) -> Iterator[tuple[int, int]]:
        """Give piece and begin of each block that has not come yet."""
        return ((index, begin) for index, begin, _ in self._requests[self._next :])


def runs_of(requests: Sequence[Request], piece_length: int) -> Iterator[list[Request]]:
    """Put blocks into order and give those that follow each other together."""
    run: list[Request] = []
    end = -1
    for request in sorted(requests):
        start = request.piece_index * piece_length + request.begin
        if run and start != end:
            yield run
            run = []
        run.append(request)
        end = start + request.length
    if run:
        yield run


def _without_password(url: str) -> str:
    """Return a URL as it may be shown: without a user's name and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return printable(url)
    return printable(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), 2000)
