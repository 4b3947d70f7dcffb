"""The `seed` command: serve data that lies anywhere, under any name, without touching it.

Spec: BEP 3.
Thread: main; it draws, and waits for signals.
Lock: none.
"""

from argparse import Namespace
from pathlib import Path

from torrent_client.cli.get import config_of, default_state_directory, goals_of, run
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import StorageError
from torrent_client.session import Job
from torrent_client.torrent_parser import TorrentFile


def seed(options: Namespace) -> int:
    """Verify the data and seed it; return the exit code."""
    torrent = TorrentFile.from_file(options.torrent).with_trackers(options.tracker)
    data = find_data(torrent, options.data)
    choices = DownloadOptions(
        output=data.parent,
        state_directory=options.state_dir or default_state_directory(),
        seed=True,
        super_seed=options.super_seed,
        given_peers=tuple(options.peer),
        goals=goals_of(options),
        max_download_rate=options.max_torrent_download_rate,
        max_upload_rate=options.max_torrent_upload_rate,
        read_only=True,
    )
    return run([Job(torrent.stored_as(data.name), choices)], config_of(options), options)


def find_data(torrent: TorrentFile, path: Path) -> Path:
    """Return where the torrent's file or directory really lies: the user may name it by a link.

    Raises:
        StorageError: it is not there, or is not of the torrent's kind.
    """
    try:
        data = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise StorageError(f"cannot read {path}: it is not there") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise StorageError(f"cannot read {path}: {error}") from error
    if torrent.is_multi_file and not data.is_dir():
        raise StorageError(f"cannot seed {path}: the torrent is a directory, and this is a file")
    if not torrent.is_multi_file and data.is_dir():
        raise StorageError(f"cannot seed {path}: the torrent is one file, and this is a directory; name the file in it")
    if not data.name:
        raise StorageError(f"cannot seed {path}: a torrent cannot be the root of the file system")
    return data
