"""The `verify` command: hash what is on disk, say what is good, and correct the state file.

Spec: the guide's Task 14.
Thread: main, with a pool for hashing.
Lock: none.
"""

import json
import os
import random
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from torrent_client.bitfield import Bitfield
from torrent_client.cli.exit_codes import ExitCode
from torrent_client.cli.get import Interruption, default_state_directory
from torrent_client.config import Config
from torrent_client.hash_check import CHECKS_AT_ONCE, check_pieces
from torrent_client.part_file import part_file_name
from torrent_client.piece_manager import PieceManager
from torrent_client.resume import ResumeFile, format_ranges
from torrent_client.storage import Storage
from torrent_client.text import format_size, printable
from torrent_client.torrent_parser import TorrentFile


def verify(options: Namespace) -> int:
    """Hash all files of a torrent; return 0 when all is good, else 6."""
    torrent = TorrentFile.from_file(options.torrent)
    config = Config()
    storage = Storage(
        options.output,
        torrent.files,
        torrent.piece_length,
        config.max_open_files,
        part_name=part_file_name(torrent.info_hash),
    )
    storage.find_parts()
    manager = PieceManager(torrent.piece_hashes, torrent.piece_length, torrent.total_length, config, random.Random())
    resume = ResumeFile(options.state_dir or default_state_directory(), torrent, options.output)
    state = resume.load()
    interruption = Interruption()
    with interruption.handled(), ThreadPoolExecutor(min(CHECKS_AT_ONCE, cpu_count() or 1)) as executor:
        _check(manager, storage, torrent, executor, options, interruption)
    if interruption.signal is not None:
        storage.close()
        return 128 + interruption.signal
    good = manager.bitfield
    if good.bits or state:
        uploaded, downloaded = (state.uploaded, state.downloaded) if state else (0, 0)
        resume.save(good, storage, uploaded, downloaded, synced=False)
    storage.close()
    _report(torrent, good, manager.complete_bytes, options)
    if not options.quiet and not any(map(os.path.lexists, map(storage.path, torrent.files))):
        where = printable(str(options.output), 1000)
        print(f"none of the torrent's files is in {where}: -o says where they are", file=sys.stderr)
    return ExitCode.OK if manager.is_complete else ExitCode.INCOMPLETE


def _check(
    manager: PieceManager,
    storage: Storage,
    torrent: TorrentFile,
    executor: ThreadPoolExecutor,
    options: Namespace,
    interruption: Interruption,
) -> None:
    """Hash every piece, with a progress bar where somebody looks."""
    with Progress(console=Console(stderr=True), transient=True, disable=not _is_watched(options)) as progress:
        task = progress.add_task(escape(f"verifying {printable(torrent.name, 40)}"), total=torrent.piece_count)

        def on_checked(_index: int, _good: bool) -> None:
            progress.advance(task)

        def stopped() -> bool:
            return interruption.signal is not None

        check_pieces(manager, storage, range(torrent.piece_count), executor, on_checked, stopped)


def _is_watched(options: Namespace) -> bool:
    """Tell whether somebody looks at standard error."""
    return not options.quiet and not options.json and sys.stderr.isatty()


def _report(torrent: TorrentFile, good: Bitfield, good_bytes: int, options: Namespace) -> None:
    """Say what was found, on standard output."""
    missing = Bitfield(torrent.piece_count, Bitfield.full(torrent.piece_count).bits & ~good.bits)
    if options.json:
        print(
            json.dumps(
                {
                    "type": "verified",
                    "pieces_total": torrent.piece_count,
                    "pieces_done": len(good),
                    "bytes_done": good_bytes,
                    "size": torrent.total_length,
                    "missing": format_ranges(missing),
                }
            )
        )
        return
    if options.quiet:
        return
    print(
        f"{printable(torrent.name)}: {len(good):,} of {torrent.piece_count:,} pieces are good, "
        f"{format_size(good_bytes)} of {format_size(torrent.total_length)}"
    )
    if missing.bits:
        print(f"missing or bad: {format_ranges(missing)}")
