"""The download command: one torrent from its file to its end, with whatever view the user wants.

Spec: the guide's Tasks 11 to 15.
Thread: main; it draws, and waits for signals.
Lock: none.
"""

import dataclasses
import json
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torrent_client.cli.exit_codes import ExitCode, exit_code
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager, DownloadOptions
from torrent_client.file_selection import FileSelection
from torrent_client.session import Session
from torrent_client.stats import TorrentState, TorrentStats
from torrent_client.text import format_duration, format_size, printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.views import LineView, SilentView, View, chosen_files

REFRESH = 0.5
"""Seconds between two pictures: speeds change once a second, and a terminal should not flicker."""

JSON_INTERVAL = 1.0
"""Seconds between two lines of `--json`."""


class Interruption:
    """SIGINT and SIGTERM: the first asks to stop, the second ends the program at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self.signal: int | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals inside the block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number


def get(options: Namespace) -> int:
    """Download a torrent; return the exit code."""
    torrent = TorrentFile.from_file(options.torrent)
    if options.list_files:
        return list_files(torrent, as_json=options.json)
    for renamed in torrent.renamed:
        logging.getLogger(__name__).info("%s", printable(str(renamed)))
    config = Config(
        listen_port=options.port,
        max_peers=options.max_peers,
        stop_after_idle=options.stop_timeout,
        max_download_rate=options.max_download_rate,
        max_upload_rate=options.max_upload_rate,
    )
    choices = DownloadOptions(
        output=options.output,
        state_directory=options.state_dir or default_state_directory(),
        sequential=options.sequential,
        seed=options.seed,
        files=FileSelection(options.select_file, options.file_priority, options.first_last),
        given_peers=tuple(options.peer),
    )
    interruption = Interruption()
    with interruption.handled():
        with Session(config) as session:
            manager = session.add(torrent, choices)
            _watch(manager, options, interruption)
            if interruption.signal is not None and not options.quiet:
                print("stopping; once more ends at once", file=sys.stderr)
        return _report(manager, options, interruption)


def list_files(torrent: TorrentFile, *, as_json: bool) -> int:
    """Print the number, size and path of each file, as `--select-file` counts them; return the exit code."""
    for number, file in enumerate(torrent.files, 1):
        if file.is_padding:
            continue
        if as_json:
            print(json.dumps({"type": "file", "index": number, "length": file.length, "path": str(file.path)}))
        else:
            print(f"{number:>5}  {format_size(file.length):>10}  {printable(str(file.path), 1000)}")
    return ExitCode.OK


def default_state_directory() -> Path:
    """Return where state files go unless the user says otherwise."""
    import platformdirs

    return platformdirs.user_state_path("torrent-client") / "resume"


def _watch(manager: DownloadManager, options: Namespace, interruption: Interruption) -> None:
    """Show the torrent until it is complete (unless it seeds), has failed, or the user has had enough."""
    interval = JSON_INTERVAL if options.json else REFRESH
    with _view(options) as view:
        while interruption.signal is None and manager.error is None:
            if manager.state is TorrentState.COMPLETE and not options.seed:
                break
            _show(manager.stats(), options, view)
            manager.wait_for_change(interval)
        view.show(manager.stats())


def _show(stats: TorrentStats, options: Namespace, view: View) -> None:
    view.show(stats)
    if options.json:
        _print_json("progress", stats)


def _view(options: Namespace) -> View:
    """Choose the view: none, a picture on a terminal, or lines."""
    if options.quiet or options.json:
        return SilentView()
    if options.verbose or not (sys.stdout.isatty() and sys.stderr.isatty()):
        return LineView(sys.stderr)
    from rich.console import Console

    from torrent_client.display import LiveView

    return LiveView(Console(stderr=True))


def _print_json(kind: str, stats: TorrentStats) -> None:
    """Print a snapshot as one line; the piece states only as their counts."""
    value = dataclasses.asdict(stats)
    del value["piece_states"]
    print(json.dumps({"type": kind, **value}), flush=True)


def _report(manager: DownloadManager, options: Namespace, interruption: Interruption) -> int:
    """Say how it ended, and return the exit code."""
    stats = manager.stats()
    if manager.error:
        code, kind = exit_code(manager.error), "error"
        print(f"error: {printable(str(manager.error), 2000)}", file=sys.stderr)
    elif interruption.signal is not None:
        code, kind = ExitCode(128 + interruption.signal), "stopped"
        _tell(options, f"stopped at {stats.pieces_done:,} of {stats.pieces_wanted:,} pieces; the same command goes on")
    else:
        code, kind = ExitCode.OK, "complete"
        _tell(options, _success(manager, stats))
    if options.json:
        _print_json(kind, stats)
    return code


def _tell(options: Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _success(manager: DownloadManager, stats: TorrentStats) -> str:
    place = str(manager.options.output / manager.torrent.files[0].path.parts[0])
    if chosen := chosen_files(stats):
        place = f"{chosen} in {place}"
    if not stats.downloaded:
        return f"complete: {place} was there already, all {stats.pieces_wanted:,} pieces are good"
    rate = f", {format_size(stats.downloaded)} in {format_duration(manager.seconds)}"
    wasted = f", {format_size(stats.wasted)} wasted" if stats.wasted else ""
    return f"complete: {place}, every piece verified{rate}{wasted}"
