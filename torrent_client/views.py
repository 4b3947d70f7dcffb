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
from torrent_client.text import format_duration, format_rate, format_size, printable

LINE_INTERVAL = 5.0
"""Seconds between two plain lines: a log file should stay readable after a night."""


class View(Protocol):
    """Something that shows snapshots; used in a `with` block."""

    def show(self, stats: TorrentStats) -> None:
        """Show one snapshot."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""


class SilentView:
    """Shows nothing: for `--quiet`, and where `--json` speaks instead."""

    def show(self, stats: TorrentStats) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""


class LineView(SilentView):
    """Prints a line every few seconds, and one whenever the state changes.

    Args:
        output: where to.
        clock: monotonic seconds.
    """

    def __init__(self, output: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing printed."""
        self._output = output
        self._clock = clock
        self._last_time = float("-inf")
        self._last_state: TorrentState | None = None

    def show(self, stats: TorrentStats) -> None:
        """Print a line if it is time for one."""
        now = self._clock()
        if stats.state is self._last_state and now - self._last_time < LINE_INTERVAL:
            return
        self._last_time, self._last_state = now, stats.state
        print(summary_line(stats), file=self._output, flush=True)


def summary_line(stats: TorrentStats) -> str:
    """Return a snapshot in one line."""
    name = printable(stats.name, 60)
    if stats.state is TorrentState.CHECKING:
        return f"{name}: checking pieces on disk, {stats.checked:,}/{stats.to_check:,}"
    chosen = f" ({files})" if (files := chosen_files(stats)) else ""
    percent = f"{percent_done(stats):.1f} % of {format_size(stats.size)}{chosen}"
    speeds = f"down {format_rate(stats.download_rate)}, up {format_rate(stats.upload_rate)}"
    line = f"{name}: {stats.state}, {percent}, {speeds}, {len(stats.peers)} peer(s)"
    if stats.eta is not None:
        line += f", {format_duration(stats.eta)} left"
    if stats.waiting_for:
        line += f"; {stats.waiting_for}"
    return line


def chosen_files(stats: TorrentStats) -> str:
    """Return `3 of 10 files`; empty when all are wanted."""
    return f"{stats.files_wanted:,} of {stats.files_total:,} files" if stats.files_wanted < stats.files_total else ""


def percent_done(stats: TorrentStats) -> float:
    """Return how much of the wanted files is there, 0 to 100."""
    return 100.0 * stats.bytes_done / stats.size if stats.size else 100.0
