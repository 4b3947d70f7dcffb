"""A running torrent with chosen files: what is asked for, what is left on disk, and changes of mind."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fake_peer import FakeServer, fake_id, seeder, serving, torrent_of
from tests.support import payload, wait_until
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import SelectionError, StorageError
from torrent_client.file_selection import ALL_FILES, FileSelection, parse_priorities, parse_ranges
from torrent_client.part_file import part_file_name
from torrent_client.stats import TorrentState
from torrent_client.views import summary_line

PIECE = 32768
CONTENT = {"a": payload(100_000), "b": payload(150_000, 1), "c": payload(200_000, 2)}
DATA = b"".join(CONTENT.values())
TORRENT = torrent_of(CONTENT, PIECE, name="d")
PART = part_file_name(TORRENT.info_hash)
TIMEOUT = 10.0  # seconds


@contextmanager
def downloading(
    folder: Path, servers: list[FakeServer], files: FileSelection, *, seed: bool = False
) -> Iterator[DownloadManager]:
    """Run a download of chosen files from fake peers until the block ends."""
    options = DownloadOptions(
        folder / "out",
        folder / "state",
        seed=seed,
        files=files,
        given_peers=tuple(server.address for server in servers),
    )
    manager = DownloadManager(TORRENT, options, fake_id("us"), 0, Config(), rng=random.Random(1))
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()


def listing(folder: Path) -> list[str]:
    """Return every file below the output directory."""
    root = folder / "out"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def chosen(numbers: str) -> FileSelection:
    """Return the choice of these files."""
    return FileSelection(parse_ranges(numbers))


def test_only_the_pieces_of_the_chosen_file_are_asked_for(tmp_path: Path) -> None:
    """The state says what is done; the torrent as a whole is not complete, and no stray file is there."""
    with serving(seeder(TORRENT, DATA)) as servers:
        with downloading(tmp_path, servers, chosen("2")) as manager:
            assert manager.wait(TIMEOUT)
            stats = manager.stats()
            assert manager.state is TorrentState.COMPLETE
        assert {request.piece_index for request in servers[0].requests} == set(range(3, 8))
    assert (stats.size, stats.bytes_done, stats.total_size) == (150_000, 150_000, 450_000)
    assert (stats.pieces_done, stats.pieces_wanted, stats.pieces_total) == (5, 5, 14)
    assert (stats.files_wanted, stats.files_total, stats.eta) == (1, 3, None)
    assert "100.0 % of 146 KiB (1 of 3 files)" in summary_line(stats)
    assert not manager.pieces.is_complete
    assert manager._progress().left == 450_000 - 5 * PIECE
    assert listing(tmp_path) == [PART, "d/b"]
    assert (tmp_path / "out" / "d" / "b").read_bytes() == CONTENT["b"]


def test_urgent_files_are_asked_for_first(tmp_path: Path) -> None:
    """High before normal before low, and the ends of files before all if that is asked for."""
    files = FileSelection((), parse_priorities("3=high,1=low"))
    with serving(seeder(TORRENT, DATA)) as servers, downloading(tmp_path, servers, files) as manager:
        assert manager.wait(TIMEOUT)
        order = list(dict.fromkeys(request.piece_index for request in servers[0].requests))
    assert [set(order[:7]), set(order[7:11]), set(order[11:])] == [{*range(7, 14)}, {*range(3, 7)}, {0, 1, 2}]
    files = FileSelection(first_last=True)
    with serving(seeder(TORRENT, DATA)) as servers, downloading(tmp_path / "2", servers, files) as manager:
        assert manager.wait(TIMEOUT)
        order = list(dict.fromkeys(request.piece_index for request in servers[0].requests))
    assert set(order[:4]) == {0, 3, 7, 13}


def test_the_choice_may_grow_while_we_seed(tmp_path: Path) -> None:
    """A download that was complete goes on; in the end the part file's bytes are where they belong."""
    scripts = [
        seeder(TORRENT, DATA, name="first", pieces=range(13)),
        seeder(TORRENT, DATA, name="second", pieces=range(1, 14)),
    ]
    with serving(*scripts) as servers, downloading(tmp_path, servers, chosen("2"), seed=True) as manager:
        assert manager.wait(TIMEOUT)
        assert listing(tmp_path) == [PART, "d/b"]
        manager.select_files(ALL_FILES)
        assert manager.state is TorrentState.DOWNLOADING
        assert manager.wait(TIMEOUT)
        assert manager.state is TorrentState.COMPLETE
        assert manager.pieces.is_complete
        manager.pieces.check_invariants()
    assert listing(tmp_path) == ["d/a", "d/b", "d/c"]
    assert {name: (tmp_path / "out" / "d" / name).read_bytes() for name in CONTENT} == CONTENT


def test_the_choice_may_shrink_until_nothing_is_left_to_do(tmp_path: Path) -> None:
    """What is not wanted any more is not waited for."""
    lacks_a = seeder(TORRENT, DATA, pieces=range(3, 14))
    with serving(lacks_a) as servers, downloading(tmp_path, servers, ALL_FILES) as manager:
        wait_until(lambda: manager.pieces.complete_count == 11, TIMEOUT, "all that the peer has")
        assert manager.state is TorrentState.DOWNLOADING
        manager.select_files(chosen("2-3"))
        assert manager.wait(TIMEOUT)
        assert manager.state is TorrentState.COMPLETE


def test_a_choice_that_cannot_be_had_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files that do not exist nor files for which there is no room."""
    with serving(seeder(TORRENT, DATA)) as servers, downloading(tmp_path, servers, chosen("2")) as manager:
        assert manager.wait(TIMEOUT)

        def refuse(_needed: int) -> None:
            raise StorageError("not enough space")

        with pytest.raises(SelectionError):
            manager.select_files(chosen("4"))
        monkeypatch.setattr(manager.storage, "check_free_space", refuse)
        with pytest.raises(StorageError):
            manager.select_files(ALL_FILES)
        assert manager.state is TorrentState.COMPLETE
        assert manager.stats().files_wanted == 1
        assert listing(tmp_path) == [PART, "d/b"]


def test_another_run_with_another_choice_fetches_nothing_twice(tmp_path: Path) -> None:
    """Complete pieces stay complete, also those whose bytes are apart."""
    for numbers, pieces in (("2", {3, 4, 5, 6, 7}), ("1", {0, 1, 2}), ("1-3", {8, 9, 10, 11, 12, 13})):
        with serving(seeder(TORRENT, DATA)) as servers:
            with downloading(tmp_path, servers, chosen(numbers)) as manager:
                assert manager.wait(TIMEOUT)
                assert manager.state is TorrentState.COMPLETE
            assert {request.piece_index for request in servers[0].requests} == pieces
    assert listing(tmp_path) == ["d/a", "d/b", "d/c"]
    assert {name: (tmp_path / "out" / "d" / name).read_bytes() for name in CONTENT} == CONTENT
