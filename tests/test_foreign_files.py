"""Files that were there before us and only happen to have our names."""

from pathlib import Path, PurePosixPath
from random import Random

from tests.support import payload
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.stats import TorrentState
from torrent_client.storage import Storage
from torrent_client.torrent_creator import create_torrent
from torrent_client.torrent_parser import FileEntry, TorrentFile


def storage_of(tmp_path: Path, wanted: bool = True) -> Storage:
    """Return the storage of one file, `a`."""
    return Storage(tmp_path, [FileEntry(PurePosixPath("a"), 100_000, 0)], 16_384, wanted=[wanted])


def test_a_file_is_set_aside_under_a_free_name(tmp_path: Path) -> None:
    """Nothing is lost, and nothing that was set aside before is overwritten."""
    (tmp_path / "a.old1").write_text("older")
    (tmp_path / "a").write_text("mine")
    storage = storage_of(tmp_path)
    assert storage.set_aside(storage.files[0]) == tmp_path / "a.old2"
    assert (tmp_path / "a.old1").read_text() == "older"
    assert (tmp_path / "a.old2").read_text() == "mine"
    assert not (tmp_path / "a").exists()


def test_what_holds_nothing_is_not_kept(tmp_path: Path) -> None:
    """An empty file, or the space that another client has set aside, is nobody's work."""
    storage = storage_of(tmp_path)
    assert storage.set_aside(storage.files[0]) is None
    with (tmp_path / "a").open("wb") as file:
        file.truncate(100_000)
    assert storage.set_aside(storage.files[0]) is None
    assert (tmp_path / "a").exists()


def test_a_file_that_is_not_wanted_stays_where_it_is(tmp_path: Path) -> None:
    """We do not write to it either."""
    (tmp_path / "a").write_text("mine")
    storage = storage_of(tmp_path, wanted=False)
    assert storage.set_aside(storage.files[0]) is None
    assert (tmp_path / "a").read_text() == "mine"


def prepared(tmp_path: Path, contents: bytes) -> DownloadManager:
    """Let a download look at what is there, and stop it."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "data").write_bytes(payload(100_000))
    torrent = TorrentFile.from_bytes(create_torrent(tmp_path / "src" / "data", piece_length=16_384))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").write_bytes(contents)
    manager = DownloadManager(torrent, DownloadOptions(tmp_path / "out"), bytes(20), 0, Config(), rng=Random(1))
    manager.start()
    while manager.state in (TorrentState.STARTING, TorrentState.CHECKING):
        manager.wait(0.01)
    manager.stop()
    return manager


def test_a_download_keeps_a_stranger_and_begins_anew(tmp_path: Path) -> None:
    """Not one of its pieces is good: it is something else."""
    manager = prepared(tmp_path, b"my diary")
    assert manager.pieces.complete_count == 0
    assert (tmp_path / "out" / "data.old1").read_bytes() == b"my diary"
    assert (tmp_path / "out" / "data").stat().st_size == 100_000


def test_a_part_of_the_file_is_used_where_it_is(tmp_path: Path) -> None:
    """Another client's unfinished download, say."""
    manager = prepared(tmp_path, payload(100_000)[:40_000])
    assert manager.pieces.complete_count == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data"]
