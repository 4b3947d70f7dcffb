"""The `create` command: a .torrent of a file or of a directory.

Standard output has the path of the torrent, or one JSON object; standard error has the rest, for people.

Spec: BEP 3 (metainfo files), 12 (tiers of trackers), 19 (web seeds), 27 (private torrents).
Thread: main, and the creator's pool for hashing.
Lock: none.
"""

import json
import os
import secrets
import shlex
import signal
import stat
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from torrent_client.cli.exit_codes import ExitCode
from torrent_client.errors import StorageError, TorrentError
from torrent_client.magnet import MagnetLink
from torrent_client.text import counted, format_duration, format_rate, format_size, printable
from torrent_client.torrent_creator import Content, create_torrent, find_content, torrent_name
from torrent_client.torrent_parser import TorrentFile

RENAMES_SHOWN = 3
"""Names on standard error that clients change; `info` shows more."""


def create(options: Namespace) -> int:
    """Make a torrent and write it; return the exit code."""
    with _ended_by_sigterm():
        try:
            content, path, torrent, seconds = _make(options)
        except (KeyboardInterrupt, SystemExit):
            _tell(options, "stopped: no torrent was written")
            raise
    if not options.quiet:
        print("\n".join(_summary(content, path, torrent, options, seconds)), file=sys.stderr)
    _answer(path, torrent, options)
    return ExitCode.OK


def _make(options: Namespace) -> tuple[Content, Path, TorrentFile, float]:
    """Return what the torrent was made of, where it is, what is in it, and the seconds that hashing took."""
    path = _output_path(options)
    target = Path(os.path.realpath(path))  # where a link leads to: the link itself is not replaced
    content = find_content(options.path, options.exclude, leave_out=target if target.suffix == ".torrent" else None)
    if any(file.path == target for file in content.files):
        raise TorrentError(f"{path} is one of the files to share; choose another name with -o")
    _require_room(path, target, options)
    for pattern in content.unused_patterns:
        _tell(options, f"warning: nothing matches --exclude {shlex.quote(printable(pattern))}")
    start = time.monotonic()
    with _progress(content, options) as progress:
        data = create_torrent(
            content,
            piece_length=options.piece_size,
            trackers=options.tracker,
            private=options.private,
            comment=options.comment or None,
            source=options.source or None,
            web_seeds=options.web_seed,
            creation_date=None if options.no_date else int(time.time()),
            progress=progress,
        )
    seconds = time.monotonic() - start
    torrent = TorrentFile.from_bytes(data)
    _require_room(path, target, options)  # once more: hashing may have taken an hour
    _write(path, target, data)
    return content, path, torrent, seconds


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: by an exception, so that everything is cleaned up."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(ExitCode.TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(options: Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


# --- where the torrent goes -------------------------------------------------------------------------------


def _output_path(options: Namespace) -> Path:
    """Return the path of the torrent as the user would type it: in the current directory unless `-o` says more."""
    name = f"{torrent_name(options.path)}.torrent"
    output: Path | None = options.output
    if output is None:
        return Path(name)
    return output / name if os.path.isdir(output) else output


def _require_room(path: Path, target: Path, options: Namespace) -> None:
    """See that the torrent can be written.

    Raises:
        TorrentError: something is there that must not be overwritten.
        StorageError: the directory does not take files.
    """
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(target.lstat().st_mode):  # root must not lose /dev/null in this way
                raise TorrentError(f"{path} is there already and is no regular file")
            if not options.force:
                raise TorrentError(f"{path} is there already; --force overwrites it")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, target: Path, data: bytes) -> None:
    """Write the torrent, all or nothing: beside its place, and then renamed.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    temporary = target.with_name(f".torrent-client-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


# --- what is printed --------------------------------------------------------------------------------------


@contextmanager
def _progress(content: Content, options: Namespace) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar inside the block, where somebody looks; give the function that moves it."""
    if options.quiet or options.verbose or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("hashing"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=content.size)
        yield lambda done, _total: bar.update(task, completed=done)


def _answer(path: Path, torrent: TorrentFile, options: Namespace) -> None:
    """Print what scripts read."""
    if options.json:
        facts = {
            "path": str(path),
            "info_hash": torrent.info_hash.hex(),
            "magnet": str(MagnetLink.of(torrent)),
            "pieces": torrent.piece_count,
            "piece_length": torrent.piece_length,
            "size": torrent.total_length,
            "files": len(torrent.files),
        }
        print(json.dumps(facts))
        return
    # As it is, so that a script finds the file whatever is in its name; but a terminal obeys some characters.
    name = printable(str(path), 4096).encode() if sys.stdout.isatty() else os.fsencode(path)
    sys.stdout.buffer.write(name + b"\n")
    sys.stdout.buffer.flush()


def _summary(content: Content, path: Path, torrent: TorrentFile, options: Namespace, seconds: float) -> list[str]:
    """Return the lines for people."""
    pieces = f"{counted(torrent.piece_count, 'piece')} of {format_size(torrent.piece_length)}"
    size = format_size(torrent.total_length)
    lines = [
        f"name:      {printable(torrent.name)}",
        f"size:      {size} in {pieces}",
        f"files:     {len(torrent.files):,}",
    ]
    if seconds >= 1:
        rate = format_rate(torrent.total_length / seconds)
        lines.append(f"hashed:    in {format_duration(seconds)}, {rate}")
    if content.left_out:
        lines.append(f"left out:  {content.left_out_summary()}")
    for number, tier in enumerate(torrent.trackers, 1):
        lines.append(f"tier {number}:    {', '.join(tier)}")
    optional = {
        "web seeds": ", ".join(torrent.web_seeds),
        "comment": torrent.comment,
        "source": torrent.source,
        "private": "yes: peers come from its trackers alone" if torrent.is_private else None,
    }
    lines += [f"{label + ':':<10} {printable(str(value))}" for label, value in optional.items() if value]
    lines.append(f"info hash: {torrent.info_hash.hex()}")
    lines.append(f"magnet:    {printable(str(MagnetLink.of(torrent)), 4000)}")
    return lines + _advice(path, torrent, options)


def _advice(path: Path, torrent: TorrentFile, options: Namespace) -> list[str]:
    """Return what the user should know now: what is odd about the torrent, and how to seed it."""
    lines = []
    if torrent.is_private and not torrent.trackers:
        lines.append("warning: private and without a tracker: nobody will find a peer; see --tracker")
    elif not torrent.trackers:
        lines.append("note: no tracker, so that peers need the DHT or each other's addresses; see --tracker")
    if torrent.renamed:
        lines.append(
            f"warning: {len(torrent.renamed):,} name(s) are not safe on every system: some clients, this one too, "
            "change them; better rename the files and make the torrent again"
        )
        lines += [f"  {printable(str(renamed))}" for renamed in torrent.renamed[:RENAMES_SHOWN]]
        return lines
    given: Path = options.path
    # `.` and `..` have no parent to type.
    parent = given.parent if given.name not in ("", "..") else Path(os.path.realpath(given)).parent
    command = ["python", "main.py", str(path), "-o", str(parent), "--seed"]
    lines.append(f"seed it:   {printable(shlex.join(command), 1000)}")
    return lines
