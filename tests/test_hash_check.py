"""Which pieces are believed, which are hashed, and what hashing finds."""

import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fake_peer import torrent_of
from tests.support import payload
from torrent_client.bitfield import Bitfield
from torrent_client.config import Config
from torrent_client.errors import StorageError
from torrent_client.hash_check import check_pieces, judge_files
from torrent_client.piece_manager import PieceManager
from torrent_client.resume import ResumeData
from torrent_client.storage import Storage

PIECE = 1000
# pieces      0     1   2     3   4
# files   [ one 2500  ][empty][two 2500 ]
CONTENT = {"one": payload(2500), "empty": b"", "two": payload(2500, 1)}


class Disk:
    """A torrent on disk, with its manager."""

    def __init__(self, folder: Path, content: Mapping[str, bytes]) -> None:
        self.torrent = torrent_of(content, piece_length=PIECE, name="d")
        self.storage = Storage(folder, self.torrent.files, PIECE)
        self.manager = PieceManager(
            self.torrent.piece_hashes, PIECE, self.torrent.total_length, Config(), random.Random(1)
        )
        self.data = b"".join(content.values())

    def path(self, name: str) -> Path:
        """Return where a file lies."""
        return self.storage.root / "d" / name

    def write(self, *pieces: int) -> None:
        """Make all files, and fill these pieces."""
        self.storage.preallocate()
        for index in pieces:
            self.storage.write_piece(index, self.data[index * PIECE : (index + 1) * PIECE])

    def state(self, *pieces: int, trusted: bool = True) -> ResumeData:
        """Return the state that says that these pieces are complete and the files as they are now."""
        stamps = {str(file.path): self.storage.stamp(file) for file in self.torrent.files}
        return ResumeData(
            Bitfield(self.torrent.piece_count, sum(1 << index for index in pieces)),
            {path: stamp for path, stamp in stamps.items() if stamp},
            trusted=trusted,
        )

    def judge(self, state: ResumeData | None) -> tuple[list[int], list[int]]:
        """Return the pieces that are believed, and those to be hashed."""
        believed, doubtful = judge_files(state, self.storage, self.torrent.piece_count)
        return list(believed), list(doubtful)

    def check(self, *pieces: int, stop_after: int | None = None) -> list[tuple[int, bool]]:
        """Hash pieces; return what was told of each, in order."""
        told: list[tuple[int, bool]] = []

        def stopped() -> bool:
            return stop_after is not None and len(told) >= stop_after

        with ThreadPoolExecutor(2) as pool:
            check_pieces(
                self.manager, self.storage, pieces, pool, lambda index, good: told.append((index, good)), stopped
            )
        self.manager.check_invariants()
        return told


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Return the torrent of three files on an empty disk."""
    disk = Disk(tmp_path, CONTENT)
    yield disk
    disk.storage.close()


# --- believing --------------------------------------------------------------------------------------------


def test_an_empty_disk_has_nothing_to_hash(disk: Disk) -> None:
    """No state and no files: everything is missing at once."""
    assert disk.judge(None) == ([], [])


def test_files_without_a_state_are_hashed(disk: Disk) -> None:
    """What lies there may be good, whoever put it there."""
    disk.write()
    assert disk.judge(None) == ([], [0, 1, 2, 3, 4])


def test_pieces_of_unchanged_files_are_believed(disk: Disk) -> None:
    """Complete ones are complete, and the others missing, without hashing either."""
    disk.write(0, 4)
    assert disk.judge(disk.state(0, 4)) == ([0, 4], [])


def test_pieces_of_a_changed_file_are_hashed(disk: Disk) -> None:
    """All of them, the one that it shares with an unchanged file too; the rest is believed."""
    disk.write(0, 1, 2, 3, 4)
    state = disk.state(0, 1, 2, 3, 4)
    os.utime(disk.path("two"), ns=(1, 1))
    assert disk.judge(state) == ([0, 1], [2, 3, 4])


def test_a_file_of_another_size_is_hashed(disk: Disk) -> None:
    """Even when its time of change is the same."""
    disk.write(0, 1, 2, 3, 4)
    state = disk.state(0, 1, 2, 3, 4)
    times = disk.path("one").stat()
    os.truncate(disk.path("one"), 2000)
    os.utime(disk.path("one"), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert disk.judge(state) == ([3, 4], [0, 1, 2])


def test_a_change_to_an_empty_file_harms_nobody(disk: Disk) -> None:
    """No piece has a byte of it."""
    disk.write(0)
    state = disk.state(0)
    os.utime(disk.path("empty"), ns=(1, 1))
    assert disk.judge(state) == ([0], [])


@pytest.mark.parametrize("leave_empty", [False, True])
def test_pieces_of_a_deleted_file_are_missing_without_hashing(disk: Disk, leave_empty: bool) -> None:
    """There is nothing to hash in a file that is gone or empty, nor in a piece half of which is."""
    disk.write(0, 1, 2, 3, 4)
    state = disk.state(0, 1, 2, 3, 4)
    disk.path("two").unlink()
    if leave_empty:
        disk.path("two").touch()
    assert disk.judge(state) == ([0, 1], [])


def test_a_state_that_is_not_trusted_makes_everything_doubtful(disk: Disk) -> None:
    """After a power cut the stamps may be right and the data not."""
    disk.write(0)
    assert disk.judge(disk.state(0, trusted=False)) == ([], [0, 1, 2, 3, 4])


def test_files_that_the_state_does_not_know_are_hashed(disk: Disk) -> None:
    """They appeared after it was saved."""
    state = disk.state()
    disk.write(3)
    assert disk.judge(state) == ([], [0, 1, 2, 3, 4])


def test_a_torrent_of_nothing_is_judged(tmp_path: Path) -> None:
    """No pieces, nothing to believe, nothing to hash."""
    disk = Disk(tmp_path, {"empty": b""})
    disk.write()
    assert disk.judge(None) == ([], [])
    assert disk.check() == []
    assert disk.manager.is_complete
    disk.storage.close()


# --- hashing ----------------------------------------------------------------------------------------------


def test_good_pieces_are_found_and_told_in_order(disk: Disk) -> None:
    """Each piece is reported once, good ones are marked complete."""
    disk.write(0, 2, 4)
    assert disk.check(0, 1, 2, 3, 4) == [(0, True), (1, False), (2, True), (3, False), (4, True)]
    assert list(disk.manager.bitfield) == [0, 2, 4]


def test_one_wrong_byte_makes_a_piece_bad(disk: Disk) -> None:
    """And its neighbours stay good."""
    disk.write(0, 1, 2, 3, 4)
    with disk.path("one").open("r+b") as file:
        file.seek(1999)
        file.write(bytes([disk.data[1999] ^ 1]))
    assert disk.check(0, 1, 2) == [(0, True), (1, False), (2, True)]


def test_missing_and_short_files_have_bad_pieces(disk: Disk) -> None:
    """No error: what is not there is simply downloaded."""
    disk.write(0, 1, 2, 3, 4)
    disk.storage.close()
    os.truncate(disk.path("one"), 1500)
    disk.path("two").unlink()
    assert disk.check(0, 1, 2, 3, 4) == [(0, True), (1, False), (2, False), (3, False), (4, False)]


def test_a_hole_is_judged_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freshly made file of many GiB is checked in no time; where the torrent wants zeros, a hole is good."""
    disk = Disk(tmp_path, {"zeros": bytes(64 * PIECE), "data": payload(64 * PIECE)})
    disk.storage.preallocate()

    def read_block(*_arguments: object) -> bytes:
        raise StorageError("a hole was read")

    monkeypatch.setattr(Storage, "read_block", read_block)
    found = dict(disk.check(*range(128)))
    disk.storage.close()
    assert [index for index, good in found.items() if good] == list(range(64))


def test_a_short_last_hole_is_judged_by_its_own_length(tmp_path: Path) -> None:
    """The last piece of zeros has another hash than the others."""
    disk = Disk(tmp_path, {"zeros": bytes(2 * PIECE + 1)})
    disk.storage.preallocate()
    assert disk.check(0, 1, 2) == [(0, True), (1, True), (2, True)]
    disk.storage.close()


def test_checking_stops_when_asked_to(disk: Disk) -> None:
    """A user who presses Ctrl-C waits for the pieces under way and for no more."""
    disk.write(0, 1, 2, 3, 4)
    told = disk.check(*[0, 1, 2, 3, 4] * 100, stop_after=3)
    assert 3 <= len(told) <= 8


def test_a_disk_that_fails_makes_pieces_bad(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad sector costs one piece, not the download."""
    disk.write(0, 1, 2, 3, 4)
    pread = os.pread

    def bad_sector(descriptor: int, size: int, offset: int) -> bytes:
        if offset == 1000:
            raise OSError(5, "Input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", bad_sector)
    assert disk.check(0, 1, 2) == [(0, True), (1, False), (2, True)]


def test_a_bug_while_hashing_is_not_swallowed(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors of the disk make a piece bad."""

    def broken(*_arguments: object) -> bool:
        raise ZeroDivisionError

    disk.write(0)
    monkeypatch.setattr(PieceManager, "verify_piece", broken)
    with pytest.raises(ZeroDivisionError):
        disk.check(0)


# --- unwanted files ---------------------------------------------------------------------------------------


def choose(disk: Disk, *wanted: bool) -> None:
    """Replace the storage by that of another run, with these files wanted."""
    disk.storage.close()
    disk.storage = Storage(disk.storage.root, disk.torrent.files, PIECE, wanted=wanted)
    disk.storage.find_parts()


def state_of(disk: Disk, *pieces: int) -> ResumeData:
    """Return the state with the part file's stamp in it, as it is saved."""
    state = disk.state(*pieces)
    stamp = disk.storage.stamp(disk.storage.part_file)
    if stamp:
        state.stamps[str(disk.storage.part_file.path)] = stamp
    return state


def test_pieces_in_the_part_file_are_believed_with_another_selection(disk: Disk) -> None:
    """What a run with the first file brought is there for every other run."""
    choose(disk, True, False, False)
    disk.write(0, 1, 2)
    state = state_of(disk, 0, 1, 2)
    for wanted in ((True, False, False), (False, False, True), (True, True, True)):
        choose(disk, *wanted)
        assert disk.judge(state) == ([0, 1, 2], [])


def test_without_a_state_what_is_apart_is_hashed_and_found(disk: Disk) -> None:
    """The state file may be deleted at any time."""
    choose(disk, True, False, False)
    disk.write(0, 1, 2)
    choose(disk, False, False, True)
    assert disk.judge(None) == ([], [0, 1, 2])
    disk.storage.preallocate()
    assert disk.check(0, 1, 2) == [(0, True), (1, True), (2, True)]


@pytest.mark.parametrize("gone", [False, True])
def test_a_part_file_that_changed_makes_its_pieces_doubtful(disk: Disk, gone: bool) -> None:
    """They are hashed; without it they are not there, though no file looks changed."""
    choose(disk, True, False, False)
    disk.write(0, 1, 2)
    state = state_of(disk, 0, 1, 2)
    part = disk.storage.path(disk.storage.part_file)
    if gone:
        part.unlink()
    else:
        os.utime(part, ns=(1, 1))
    choose(disk, True, False, False)
    assert disk.judge(state) == ([0, 1], [] if gone else [2])


def test_an_unwanted_file_on_disk_is_hashed(disk: Disk) -> None:
    """It may be good, and then it is served."""
    disk.write(0, 1, 2, 3, 4)
    choose(disk, True, False, False)
    assert disk.judge(None) == ([], [0, 1, 2, 3, 4])
    disk.storage.preallocate()
    assert all(good for _, good in disk.check(0, 1, 2, 3, 4))
