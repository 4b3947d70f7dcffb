"""The `demo` command: a whole swarm on this machine, over real sockets, without the internet.

    this process     an HTTP tracker, and one download with the live display
    3 processes      seeders: this client, with the finished file

Spec: none.
Thread: main, and those of the tracker and the download.
Lock: none.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torrent_client.cli.arguments import parse
from torrent_client.cli.get import get
from torrent_client.config import MIB
from torrent_client.errors import TorrentError, TrackerError
from torrent_client.local_tracker import LocalTracker
from torrent_client.text import format_size
from torrent_client.torrent_creator import create_torrent
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import Progress, TrackerClient, generate_peer_id

SEEDERS = 3
SEEDERS_READY_LIMIT = 30.0
"""Seconds for the seeders to hash the file and announce themselves."""

FILE_NAME = "made-up-data.bin"


def demo(options: Namespace) -> int:
    """Run the swarm; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="torrent-demo-") as name, LocalTracker() as tracker:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 3 * options.size:
            raise TorrentError(f"the demo needs {format_size(3 * options.size)} in {folder}; try a smaller --size")
        _say(options, f"making {format_size(options.size)} of random data and a torrent of it")
        torrent_path = _make_torrent(folder, options.size, tracker.announce_url)
        _say(options, f"tracker at {tracker.announce_url}; starting {SEEDERS} seeders")
        with _seeders(folder, torrent_path, options.rate) as seeders:
            _wait_for_seeders(tracker, TorrentFile.from_file(torrent_path), seeders)
            flags = [flag for flag in ("json", "quiet", "verbose") if getattr(options, flag)]
            code = get(
                parse(
                    [
                        str(torrent_path),
                        *("-o", str(folder / "download")),
                        *("--state-dir", str(folder / "state")),
                        *("--no-portmap", "--no-lsd", "--no-dht", "--port", "0"),
                        *(f"--{flag}" for flag in flags),
                    ]
                )
            )
        if code == 0:
            _compare(options, folder)
        return code


def _say(options: Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _make_torrent(folder: Path, size: int, announce_url: str) -> Path:
    """Write the data and its torrent; return the torrent's path."""
    seed_folder = folder / "seed"
    seed_folder.mkdir()
    with (seed_folder / FILE_NAME).open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    torrent_path = folder / "demo.torrent"
    torrent_path.write_bytes(create_torrent(seed_folder / FILE_NAME, trackers=[[announce_url]]))
    return torrent_path


@contextmanager
def _seeders(folder: Path, torrent_path: Path, rate: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the seeding processes, which only read the file that they share, inside the block."""
    main = Path(__file__).parents[2] / "main.py"
    command = [sys.executable, str(main), "seed", str(torrent_path), "--data", str(folder / "seed" / FILE_NAME), "-q"]
    command += ["--no-portmap", "--no-lsd", "--no-dht", "--port", "0", "--max-upload-rate", f"{rate:.0f}"]
    processes = [
        subprocess.Popen([*command, "--state-dir", str(folder / f"state-{number}")]) for number in range(SEEDERS)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _wait_for_seeders(tracker: LocalTracker, torrent: TorrentFile, seeders: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the tracker knows all seeders.

    Raises:
        TorrentError: they did not come up.
    """
    observer = TrackerClient(tracker.announce_url, torrent.info_hash, generate_peer_id(), 1)
    deadline = time.monotonic() + SEEDERS_READY_LIMIT
    while time.monotonic() < deadline and all(seeder.poll() is None for seeder in seeders):
        try:
            if (observer.announce(Progress(0, 0, 1), "stopped", num_want=0).seeders or 0) >= SEEDERS:
                return
        except TrackerError as error:
            raise TorrentError(f"the demo's tracker: {error}") from error
        time.sleep(0.05)
    raise TorrentError("the demo's seeders did not come up; what they said stands above")


def _compare(options: Namespace, folder: Path) -> None:
    """Compare the download with the original, byte by byte."""
    same = filecmp.cmp(folder / "seed" / FILE_NAME, folder / "download" / FILE_NAME, shallow=False)
    if not same:
        raise TorrentError("the downloaded file differs from the original")
    _say(options, "the downloaded file equals the original, byte for byte; all files of the demo are deleted again")
