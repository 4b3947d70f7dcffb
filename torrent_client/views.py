"""The views of a running torrent that need no terminal: none at all, and plain lines.

The picture for terminals is in `display`, apart from these because drawing libraries take time to load.

Spec: the guide's Task 13.
Thread: main.
Lock: none; they work on snapshots.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from torrent_client.stats import TorrentState, TorrentStats
from torrent_client.text import counted, format_duration, format_rate, format_size, printable

LINE_INTERVAL = 5.0
"""Seconds between two plain lines: a log file should stay readable after a night."""


class View(Protocol):
    """Something that shows snapshots; used in a `with` block.

    Attributes:
        takes_keys: keys that are pressed meanwhile are for us.
        note: a line to be shown below.
        keys: the keys that work, beside it or below it.
    """

    takes_keys: bool
    note: str
    keys: str

    def show(self, *snapshots: TorrentStats) -> None:
        """Show a snapshot of each torrent."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""


class SilentView:
    """Shows nothing: for `--quiet`, and where `--json` speaks instead."""

    takes_keys = False
    note = ""
    keys = ""

    def show(self, *snapshots: TorrentStats) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""


class LineView(SilentView):
    """Prints a line for each torrent every few seconds, and one whenever its state changes.

    Args:
        output: where to.
        clock: monotonic seconds.
    """

    def __init__(self, output: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing printed."""
        self._output = output
        self._clock = clock
        self._last: dict[str, tuple[TorrentState, float, str]] = {}  # by info hash: what was printed, and when

    def show(self, *snapshots: TorrentStats) -> None:
        """Print a line for each torrent whose time has come."""
        now = self._clock()
        for stats in snapshots:
            state, printed_at, before = self._last.get(stats.info_hash, (None, now, ""))
            if stats.state is state and (is_over(stats) or now - printed_at < LINE_INTERVAL):
                continue
            line = summary_line(stats)
            self._last[stats.info_hash] = stats.state, now, line
            is_news = line != before or not stats.seeding  # a log of an idle seed should not grow for weeks
            if is_news and stats.state is not TorrentState.ERROR:  # the error itself is told at the end
                print(line, file=self._output, flush=True)


def summary_line(stats: TorrentStats) -> str:
    """Return a snapshot in one line."""
    name = printable(stats.name, 60)
    if stats.state is TorrentState.CHECKING:
        return f"{name}: checking pieces on disk, {stats.checked:,}/{stats.to_check:,}"
    if stats.state is TorrentState.METADATA:
        return f"{name}: getting the metadata, {metadata_progress(stats)}"
    if stats.state is TorrentState.COMPLETE and not stats.files_total:
        return f"{name}: the metadata is there"  # of a magnet link, and no more was wanted
    chosen = f" ({files})" if (files := chosen_files(stats)) else ""
    done = f"{percent_done(stats):.1f} % of {format_size(stats.size)}{chosen}"
    speeds = f"down {format_rate(stats.download_rate)}, up {format_rate(stats.upload_rate)}"
    line = f"{name}: {state_name(stats)}, {done}, {speeds}, {counted(len(stats.peers), 'peer')}"
    if stats.web_seeds:
        line += f", {counted(len(stats.web_seeds), 'web seed')}"
    if stats.seeding:
        line += f", ratio {stats.ratio:.2f}"
    if stats.eta is not None:
        line += f", {format_duration(stats.eta)} left"
    if stats.waiting_for:
        line += f"; {stats.waiting_for}"
    if stats.error:
        line += f"; {printable(stats.error, 2000)}"
    return line


def metadata_progress(stats: TorrentStats) -> str:
    """Return how far the metadata of a magnet link is."""
    parts = f"{stats.checked:,} of {stats.to_check:,} pieces" if stats.to_check else "none yet"
    return f"{parts}, {counted(len(stats.peers), 'peer')}" + (f"; {stats.waiting_for}" if stats.waiting_for else "")


def chosen_files(stats: TorrentStats) -> str:
    """Return `3 of 10 files`; empty when all are wanted."""
    return f"{stats.files_wanted:,} of {stats.files_total:,} files" if stats.files_wanted < stats.files_total else ""


def state_name(stats: TorrentStats) -> str:
    """Return what a torrent is doing, in a word."""
    return "seeding" if stats.seeding else stats.state.value


def is_over(stats: TorrentStats) -> bool:
    """Tell whether nothing about a torrent will change any more."""
    is_running = stats.state not in (TorrentState.COMPLETE, TorrentState.STOPPED, TorrentState.ERROR)
    return not is_running and not stats.seeding


def percent_done(stats: TorrentStats) -> float:
    """Return how much of the wanted files is there, 0 to 100."""
    if not stats.size:
        return 0.0 if stats.state is TorrentState.METADATA else 100.0
    return percent(stats.bytes_done, stats.size)


def percent(done: int, total: int) -> float:
    """Return a share as it is shown, 0.0 to 100.0, rounded down: it is 100 only when nothing is lacking."""
    return 1000 * done // total / 10
