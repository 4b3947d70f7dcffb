"""Storage: pieces over many files, disks that fail, and traps that an attacker or an accident leaves on disk."""

import errno
import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.support import payload
from torrent_client.errors import FileVanished, StorageError
from torrent_client.storage import FREE_SPACE_RESERVE, LOOK_INTERVAL, Storage
from torrent_client.torrent_parser import FileEntry

PIECE = 4096
PADDING = "padding"


def entries(*sizes: int | str) -> list[FileEntry]:
    """Return the files `d/0`, `d/1` ... of so many bytes; `"padding 90"` is a pad file of 90 bytes."""
    files: list[FileEntry] = []
    offset = 0
    for number, size in enumerate(sizes):
        length = int(str(size).removeprefix(PADDING))
        is_padding = isinstance(size, str)
        files.append(FileEntry(PurePosixPath(f"d/{number}"), length, offset, is_padding))
        offset += length
    return files


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Storage]]:
    """Return `make(*sizes, **options)`, which makes a storage that is closed at the end."""
    made: list[Storage] = []

    def make_storage(*sizes: int | str, **options: Any) -> Storage:  # noqa: ANN401  # handed on as they are
        made.append(Storage(tmp_path / "out", entries(*sizes), PIECE, **options))
        return made[-1]

    yield make_storage
    for storage in made:
        storage.close()


def fill(storage: Storage, data: bytes) -> None:
    """Write all pieces."""
    for index in range(-(-len(data) // PIECE)):
        storage.write_piece(index, data[index * PIECE : (index + 1) * PIECE])


def on_disk(storage: Storage, number: int) -> Path:
    """Return where a file lies."""
    return storage.path(storage.files[number])


def open_below(folder: Path) -> Counter[str]:
    """Return what this process has open below a folder."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if target.startswith(str(folder)):
            found[target] += 1
    return found


# --- pieces and files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        [PIECE],
        [1],
        [PIECE + 1],
        [3 * PIECE, 5 * PIECE - 1],
        [PIECE - 1, 2, PIECE - 1],
        [1] * 50 + [PIECE] * 3 + [1] * 50,
        [0, 10, 0, 0, PIECE, 0],
        [100, 3 * PIECE, 7, 0, 2 * PIECE, 1],
    ],
)
def test_pieces_are_laid_over_files(make: Callable[..., Storage], sizes: list[int]) -> None:
    """Files laid end to end are the torrent: written by pieces, they hold its bytes, and any block is read back."""
    storage, data = make(*sizes), payload(sum(sizes))
    storage.preallocate()
    fill(storage, data)
    for file in storage.files:
        assert storage.path(file).read_bytes() == data[file.offset : file.offset + file.length]
    for start in range(0, len(data), 1000):
        index, begin = divmod(start, PIECE)
        size = min(1000, len(data) - start)
        assert storage.read_block(index, begin, size) == data[start : start + size]


def test_random_files_hold_random_pieces(make: Callable[..., Storage], rng: random.Random) -> None:
    """Pieces in random order over files of random sizes, written from memory views as the verifiers do."""
    sizes = [rng.choice([0, 1, rng.randrange(3 * PIECE)]) for _ in range(40)]
    storage, data = make(*sizes, max_open_files=3), payload(sum(sizes))
    storage.preallocate()
    indices = list(range(-(-len(data) // PIECE)))
    rng.shuffle(indices)
    for index in indices:
        storage.write_piece(index, memoryview(data)[index * PIECE : (index + 1) * PIECE])
    assert b"".join(storage.path(file).read_bytes() for file in storage.files) == data


def test_empty_files_are_made(make: Callable[..., Storage]) -> None:
    """A file without a byte is in no piece, and yet there in the end."""
    storage = make(0, 5, 0)
    storage.preallocate()
    assert [storage.path(file).stat().st_size for file in storage.files] == [0, 5, 0]


def test_padding_is_never_written(make: Callable[..., Storage]) -> None:
    """A pad file has no place on disk: what is written to it is dropped, what is read from it is zeros."""
    storage = make(100, f"{PADDING} {PIECE - 100}", 50)
    storage.preallocate()
    data = payload(100) + bytes(PIECE - 100) + payload(50, seed=1)
    fill(storage, data)
    assert sorted(os.listdir(storage.root / "d")) == ["0", "2"]
    assert storage.read_block(0, 0, PIECE) == data[:PIECE]
    assert storage.read_block(0, 200, 10) == bytes(10)
    assert on_disk(storage, 2).read_bytes() == data[PIECE:]


def test_pieces_of_a_file_are_those_with_its_bytes(make: Callable[..., Storage]) -> None:
    """First and last piece included, none for an empty file."""
    storage = make(PIECE, 1, 0, 2 * PIECE)
    assert [storage.pieces_of(file) for file in storage.files] == [range(1), range(1, 2), range(0), range(1, 4)]


def test_writes_that_the_disk_cuts_short_go_on(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk may take a part: the rest follows."""
    storage, data = make(PIECE), payload(PIECE)
    storage.preallocate()
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, part, offset: whole(file, part[:700], offset))
    storage.write_piece(0, data)
    assert on_disk(storage, 0).read_bytes() == data


# --- making files -----------------------------------------------------------------------------------------


def test_files_are_made_sparse(make: Callable[..., Storage]) -> None:
    """Files have their full size at once and take no room yet."""
    storage = make(10_000_000, 5)
    storage.preallocate()
    status = on_disk(storage, 0).stat()
    assert status.st_size == 10_000_000
    assert status.st_blocks * 512 < 1_000_000


def test_preallocation_changes_no_byte_that_is_there(make: Callable[..., Storage]) -> None:
    """Of files that exist, the shorter one grows and the longer one stays as it is, and is told of."""
    storage = make(100, 100, 100)
    for number, size in enumerate([40, 100, 160]):
        on_disk(storage, number).parent.mkdir(parents=True, exist_ok=True)
        on_disk(storage, number).write_bytes(payload(size, number))
    storage.preallocate()
    assert on_disk(storage, 0).read_bytes() == payload(40, 0) + bytes(60)
    assert on_disk(storage, 1).read_bytes() == payload(100, 1)
    assert on_disk(storage, 2).read_bytes() == payload(160, 2)
    assert storage.oversized() == [storage.files[2]]


def test_bytes_to_allocate_counts_holes_and_absent_files(make: Callable[..., Storage]) -> None:
    """Absent and sparse files still need room, written ones none, padding never."""
    storage = make(1_000_000, f"{PADDING} 500000", 1_000_000)
    assert storage.bytes_to_allocate() == 2_000_000
    storage.preallocate()
    assert storage.bytes_to_allocate() > 1_900_000
    on_disk(storage, 0).write_bytes(payload(1_000_000))
    assert 900_000 < storage.bytes_to_allocate() <= 1_000_000


def test_a_file_in_a_directorys_place_is_told_of(make: Callable[..., Storage]) -> None:
    """The error says what is wrong and where, not `ENOTDIR`."""
    storage = make(100)
    storage.root.mkdir()
    (storage.root / "d").write_text("in the way")
    with pytest.raises(StorageError, match="a file where a directory should be"):
        storage.preallocate()
    with pytest.raises(StorageError, match="a file where a directory should be"):
        storage.bytes_to_allocate()
    assert (storage.root / "d").read_text() == "in the way"


# --- free space -------------------------------------------------------------------------------------------


def fake_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Make every disk have `free` bytes."""
    values = [0] * 10
    values[1], values[4] = 1, free  # f_frsize, f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))


def test_too_little_space_is_told_before_anything_is_written(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how much more must be free, and what can be done."""
    storage = make(5_000_000)
    fake_disk(monkeypatch, free=2_000_000)
    with pytest.raises(StorageError) as caught:
        storage.check_free_space(5_000_000)
    assert f"{5_000_000 + FREE_SPACE_RESERVE - 2_000_000:,} more" in str(caught.value)
    assert "-o" in str(caught.value)
    assert not storage.root.exists()


def test_enough_space_is_enough(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte, with the reserve; a directory that does not exist yet is judged by its nearest parent."""
    storage = make(1000)
    fake_disk(monkeypatch, free=1000 + FREE_SPACE_RESERVE)
    storage.check_free_space(1000)
    with pytest.raises(StorageError, match="not enough space"):
        storage.check_free_space(1001)


def test_what_is_complete_needs_no_space(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason not to seed from it."""
    fake_disk(monkeypatch, free=0)
    make(1000).check_free_space(0)


def test_a_directory_that_may_not_be_looked_at_is_a_storage_error(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission denied on the way to the output directory is told like every other disk error."""

    def refuse(*_arguments: object, **_more: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    storage = make(1000)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(StorageError, match="permission denied"):
        storage.check_free_space(1000)


def test_a_working_directory_that_was_deleted_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even `.` has a name, nothing can be made, which is told like everything else."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    storage = Storage(Path("out"), entries(5), PIECE)
    storage.check_free_space(5)
    with pytest.raises(StorageError, match="not there"):
        storage.preallocate()


# --- links and other traps --------------------------------------------------------------------------------

UseOfAFile = Callable[[Storage], object]
uses_of_a_file = pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda storage: storage.preallocate(), id="preallocate"),
        pytest.param(lambda storage: storage.write_piece(0, bytes(100)), id="write"),
        pytest.param(lambda storage: storage.read_block(0, 0, 100), id="read"),
        pytest.param(lambda storage: storage.is_hole(0, 100), id="is_hole"),
    ],
)


@uses_of_a_file
@pytest.mark.parametrize("target", ["outside", "out/d/inside", "nowhere"])
def test_a_symbolic_link_is_never_followed(
    make: Callable[..., Storage], tmp_path: Path, use: UseOfAFile, target: str
) -> None:
    """A link in a file's place is refused, wherever it leads, and what it leads to stays as it is."""
    storage = make(100)
    on_disk(storage, 0).parent.mkdir(parents=True)
    if target != "nowhere":
        (tmp_path / target).write_bytes(b"precious" * 50)
    on_disk(storage, 0).symlink_to(tmp_path / target)
    with pytest.raises(StorageError, match="links are never followed"):
        use(storage)
    assert (tmp_path / target).exists() == (target != "nowhere")
    if target != "nowhere":
        assert (tmp_path / target).read_bytes() == b"precious" * 50


@uses_of_a_file
def test_a_linked_directory_that_leads_out_is_refused(
    make: Callable[..., Storage], tmp_path: Path, use: UseOfAFile
) -> None:
    """One torrent may have put a link where the next one has a directory: nothing is reached through it."""
    storage = make(100)
    storage.root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0").write_bytes(b"precious" * 50)
    (storage.root / "d").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leads out of"):
        use(storage)
    assert (tmp_path / "outside" / "0").read_bytes() == b"precious" * 50


def test_no_directory_is_made_behind_a_link(tmp_path: Path) -> None:
    """Not even the directories on the way to a file are made outside."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").symlink_to(tmp_path / "outside")
    storage = Storage(tmp_path / "out", [FileEntry(PurePosixPath("d/e/f/g"), 5, 0)], PIECE)
    with pytest.raises(StorageError, match="leads out of"):
        storage.preallocate()
    assert not any((tmp_path / "outside").iterdir())


@uses_of_a_file
def test_a_directory_that_links_to_itself_is_a_storage_error(make: Callable[..., Storage], use: UseOfAFile) -> None:
    """A loop of links is one of the ways in which a disk can be odd, not a bug of ours."""
    storage = make(100)
    storage.root.mkdir()
    (storage.root / "d").symlink_to(storage.root / "d")
    with pytest.raises(StorageError):
        use(storage)


def test_the_output_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    """The user may keep downloads wherever the user likes."""
    (tmp_path / "big disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big disk")
    storage = Storage(tmp_path / "out", entries(5), PIECE)
    storage.preallocate()
    storage.write_piece(0, b"hello")
    storage.close()
    assert (tmp_path / "big disk" / "d" / "0").read_bytes() == b"hello"


@uses_of_a_file
def test_a_directory_in_a_files_place_is_a_storage_error(make: Callable[..., Storage], use: UseOfAFile) -> None:
    """It is told of in words, and not touched."""
    storage = make(100)
    on_disk(storage, 0).mkdir(parents=True)
    with pytest.raises(StorageError, match=r"directory in its place|something else than a file"):
        use(storage)
    assert on_disk(storage, 0).is_dir()


@uses_of_a_file
def test_a_pipe_in_a_files_place_makes_nobody_wait(make: Callable[..., Storage], use: UseOfAFile) -> None:
    """Opening a pipe would wait for somebody at its other end, for ever."""
    storage = make(100)
    on_disk(storage, 0).parent.mkdir(parents=True)
    os.mkfifo(on_disk(storage, 0))
    with pytest.raises(StorageError, match="something else than a file"):
        use(storage)


# --- files that go away -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda storage: storage.write_piece(1, bytes(100)), id="write"),
        pytest.param(lambda storage: storage.read_block(1, 0, 100), id="read"),
        pytest.param(lambda storage: storage.is_hole(1, 100), id="is_hole"),
    ],
)
def test_a_missing_file_is_not_made_again(make: Callable[..., Storage], use: UseOfAFile) -> None:
    """Only preallocation makes files: a drive that was taken out must not be replaced by empty files."""
    storage = make(PIECE, 100, max_open_files=1)
    storage.preallocate()
    storage.write_piece(0, bytes(PIECE))  # so that the other file is no longer open
    on_disk(storage, 1).unlink()
    with pytest.raises(StorageError, match="not there"):
        use(storage)
    assert not on_disk(storage, 1).exists()


def test_a_file_deleted_under_an_open_handle_is_a_storage_error(make: Callable[..., Storage]) -> None:
    """The handle would take the bytes of a file without a name, and the download would end with nothing."""
    now = 1000.0
    storage = make(3 * PIECE, clock=lambda: now)
    storage.preallocate()
    storage.write_piece(0, payload(PIECE))
    on_disk(storage, 0).unlink()
    storage.write_piece(1, payload(PIECE))  # nobody looks after each piece
    now += LOOK_INTERVAL
    with pytest.raises(FileVanished, match="not there"):
        storage.write_piece(2, payload(PIECE))
    assert not on_disk(storage, 0).exists()


@pytest.mark.parametrize("max_open_files", [0, 1, 2])
def test_a_file_deleted_after_its_last_piece_is_told_at_the_end(
    make: Callable[..., Storage], max_open_files: int
) -> None:
    """Whether it is still open or not; and what is there is found to be there."""
    storage = make(PIECE, PIECE, max_open_files=max_open_files, clock=lambda: 0.0)
    storage.preallocate()
    fill(storage, payload(2 * PIECE))
    storage.refuse_deleted()
    fill(storage, payload(2 * PIECE))
    on_disk(storage, 0).unlink()
    with pytest.raises(FileVanished, match="not there"):
        storage.refuse_deleted()


def test_a_file_that_was_moved_away_after_the_last_look_is_not_missed(make: Callable[..., Storage]) -> None:
    """What was written, looked at and closed is the user's."""
    storage = make(PIECE, PIECE, max_open_files=1, clock=lambda: 0.0)
    storage.preallocate()
    storage.write_piece(0, payload(PIECE))
    storage.refuse_deleted()
    storage.write_piece(1, payload(PIECE))
    on_disk(storage, 0).rename(storage.root / "seen")
    storage.refuse_deleted()


def test_a_file_that_is_too_short_is_a_storage_error(make: Callable[..., Storage]) -> None:
    """A block is never made up."""
    storage = make(100)
    storage.preallocate()
    os.truncate(on_disk(storage, 0), 60)
    assert storage.read_block(0, 0, 60) == bytes(60)
    with pytest.raises(StorageError, match="shorter than the torrent says"):
        storage.read_block(0, 50, 20)


# --- disks that fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "the disk reports an error"),
        (errno.EFBIG, "no file so large"),
        (errno.ENXIO, "No such device"),
    ],
)
def test_a_failed_write_is_told_in_words(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    """The message names the file and says what can be done; the handle is still closed at the end."""

    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    storage = make(100)
    storage.preallocate()
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageError, match=advice) as caught:
        storage.write_piece(0, bytes(100))
    assert str(on_disk(storage, 0)) in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_file_that_cannot_be_made_is_told_in_words(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No permission, or a file system that is read-only."""

    def fail(*_arguments: object, **_more: object) -> int:
        raise OSError(number, os.strerror(number))

    storage = make(100)
    for name in ("mkdir", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(StorageError, match="choose another directory with -o"):
                storage.preallocate()


def test_a_disk_that_is_really_full_is_told_in_words(tmp_path: Path) -> None:
    """A file system of 256 KiB takes what fits; what does not is a StorageError and no crash."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    storage = Storage(tmp_path, entries(1_000_000), PIECE)
    try:
        storage.preallocate()  # sparse: it fits
        with pytest.raises(StorageError, match="the disk is full"):
            fill(storage, payload(1_000_000))
        assert storage.read_block(0, 0, PIECE) == payload(1_000_000)[:PIECE]
        with pytest.raises(StorageError, match="not enough space"):
            storage.check_free_space(storage.bytes_to_allocate())
    finally:
        storage.close()
        subprocess.run(["umount", tmp_path], check=True)


# --- handles ----------------------------------------------------------------------------------------------


def test_no_more_files_are_open_than_allowed(make: Callable[..., Storage], tmp_path: Path) -> None:
    """A torrent of 100 files gets along with 4 handles, and closing leaves none."""
    storage, data = make(*[100] * 100, max_open_files=4), payload(10_000)
    storage.preallocate()
    assert open_below(tmp_path).total() == 4
    fill(storage, data)
    assert open_below(tmp_path).total() == 4
    assert b"".join(storage.path(file).read_bytes() for file in storage.files) == data
    storage.close()
    assert not open_below(tmp_path)


def test_threads_share_few_handles(make: Callable[..., Storage], tmp_path: Path, rng: random.Random) -> None:
    """Eight threads read and write twelve files through two handles: every byte is right, nothing stays open."""
    storage, data = make(*[3000] * 12, max_open_files=2), payload(36_000)
    storage.preallocate()
    pieces = -(-len(data) // PIECE)
    jobs = [rng.randrange(pieces) for _ in range(800)]
    fill(storage, data)

    def work(index: int) -> bool:
        piece = data[index * PIECE : (index + 1) * PIECE]
        storage.write_piece(index, piece)
        return storage.read_block(index, 0, len(piece)) == piece

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, jobs))
    assert open_below(tmp_path).total() <= 2
    storage.close()
    assert not open_below(tmp_path)


def test_a_handle_that_can_only_read_is_replaced_by_one_that_can_write(
    make: Callable[..., Storage], tmp_path: Path
) -> None:
    """Files on a read-only disk can be seeded, so that reading opens them read-only; writing opens again."""
    storage = make(100)
    storage.preallocate()
    storage.close()
    storage = make(100)
    assert storage.read_block(0, 0, 100) == bytes(100)
    storage.write_piece(0, payload(100))
    assert storage.read_block(0, 0, 100) == payload(100)
    assert open_below(tmp_path).total() == 1


def test_a_file_in_use_is_closed_by_its_user(
    make: Callable[..., Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` waits for nobody: a read that is under way ends well, and its handle is closed behind it."""
    storage = make(100)
    storage.preallocate()
    reading, may_go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow_pread(descriptor: int, size: int, offset: int) -> bytes:
        reading.set()
        assert may_go_on.wait(10)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", slow_pread)
    with ThreadPoolExecutor(1) as pool:
        block = pool.submit(storage.read_block, 0, 0, 100)
        assert reading.wait(10)
        storage.close()
        assert open_below(tmp_path).total() == 1
        may_go_on.set()
        assert block.result(5) == bytes(100)
    assert not open_below(tmp_path)


def test_what_falls_out_of_the_table_while_in_use_is_closed_by_its_user(
    make: Callable[..., Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one handle for two files, a slow read of one survives the opening of the other."""
    storage = make(100, 100, max_open_files=1)
    storage.preallocate()
    reading, may_go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow_pread(descriptor: int, size: int, offset: int) -> bytes:
        if size == 60:
            reading.set()
            assert may_go_on.wait(10)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", slow_pread)
    with ThreadPoolExecutor(1) as pool:
        block = pool.submit(storage.read_block, 0, 0, 60)
        assert reading.wait(10)
        assert storage.read_block(0, 100, 100) == bytes(100)
        may_go_on.set()
        assert block.result(5) == bytes(60)
    assert open_below(tmp_path) == {str(on_disk(storage, 1)): 1}


def test_nothing_stays_open_after_close(make: Callable[..., Storage], tmp_path: Path) -> None:
    """A late upload may still be read, but its file is not kept open."""
    storage = make(100)
    storage.preallocate()
    storage.close()
    storage.close()
    assert storage.read_block(0, 0, 10) == bytes(10)
    assert not open_below(tmp_path)


# --- sync -------------------------------------------------------------------------------------------------


def test_sync_syncs_what_was_written_once(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each changed file is synced, also one whose handle was closed meanwhile, and not a second time."""
    storage = make(PIECE, PIECE, PIECE, max_open_files=1)
    storage.preallocate()
    storage.sync()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    storage.write_piece(0, payload(PIECE))
    storage.write_piece(2, payload(PIECE))
    storage.sync()
    assert sorted(synced) == [str(on_disk(storage, 0)), str(on_disk(storage, 2))]
    storage.sync()
    assert len(synced) == 2


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let every sync fail, until this is undone."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    return monkeypatch


@pytest.mark.usefixtures("bad_disk")
def test_a_write_that_failed_late_is_told_by_sync(make: Callable[..., Storage]) -> None:
    """Disks report some errors only when data is forced out."""
    storage = make(100)
    storage.preallocate()
    with pytest.raises(StorageError, match="the disk reports an error"):
        storage.sync()


def test_what_was_written_counts_as_synced_when_the_disk_has_said_so(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, not while it is at it, and not when something else was written meanwhile."""
    storage = make(2 * PIECE)
    assert storage.is_synced
    storage.preallocate()
    assert not storage.is_synced
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: seen.append(storage.is_synced))
    assert storage.sync_within(10)
    assert not storage.is_syncing
    monkeypatch.setattr(os, "fsync", lambda _descriptor: storage.write_piece(1, payload(PIECE)))
    storage.write_piece(0, payload(PIECE))
    assert not storage.sync_within(10)
    assert seen == [False]


def test_a_file_that_could_not_be_synced_never_counts_as_synced_again(
    make: Callable[..., Storage], bad_disk: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Linux tells of an error once, and says that all is well when it is asked again."""
    storage = make(100)
    storage.preallocate()
    assert not storage.sync_within(10)
    assert "the disk reports an error" in caplog.text
    bad_disk.undo()
    assert not storage.sync_within(10)


def test_a_disk_that_hangs_is_not_waited_for(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sync goes on in the background, and a second one is not begun beside it."""
    storage, hanging, begun = make(100), threading.Event(), threading.Event()
    storage.preallocate()

    def hang(_descriptor: int) -> None:
        assert not begun.is_set()
        begun.set()
        hanging.wait(10)

    monkeypatch.setattr(os, "fsync", hang)
    assert not storage.sync_within(0)
    assert begun.wait(10)
    assert storage.is_syncing
    assert not storage.sync_within(0)
    hanging.set()
    assert storage.sync_within(10)


def test_files_of_an_earlier_run_can_be_taken_for_unsynced(make: Callable[..., Storage]) -> None:
    """Those that are there: the system may still have them in its memory alone."""
    first = make(PIECE, PIECE)
    first.preallocate()
    on_disk(first, 1).unlink()
    storage = make(PIECE, PIECE)
    storage.doubt_sync()
    assert storage._unsynced == {0}
    assert storage.sync_within(10)


# --- holes ------------------------------------------------------------------------------------------------


def test_a_piece_that_was_never_written_is_a_hole(make: Callable[..., Storage]) -> None:
    """Holes are found without reading; a single byte of data in a piece makes it none."""
    storage = make(10 * PIECE, f"{PADDING} {PIECE}", 2 * PIECE)
    storage.preallocate()
    assert all(storage.is_hole(index, PIECE) for index in range(13))
    storage.write_piece(3, payload(PIECE))
    assert [index for index in range(13) if not storage.is_hole(index, PIECE)] == [3]


def test_a_piece_of_two_files_is_a_hole_only_if_both_have_one(make: Callable[..., Storage]) -> None:
    """Data in either file is data of the piece."""
    storage = make(PIECE // 2, PIECE // 2)
    storage.preallocate()
    assert storage.is_hole(0, PIECE)
    on_disk(storage, 1).write_bytes(payload(PIECE // 2))
    assert not storage.is_hole(0, PIECE)


def test_a_short_file_is_no_hole(make: Callable[..., Storage]) -> None:
    """What is not there is something else than zeros."""
    storage = make(2 * PIECE)
    storage.preallocate()
    os.truncate(on_disk(storage, 0), PIECE)
    assert storage.is_hole(0, PIECE)
    assert not storage.is_hole(1, PIECE)


def test_a_file_system_that_knows_no_holes_is_read(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `SEEK_DATA` is unknown, nothing counts as a hole."""

    def unknown(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    storage = make(PIECE)
    storage.preallocate()
    monkeypatch.setattr(os, "lseek", unknown)
    assert not storage.is_hole(0, PIECE)


# --- stamps -----------------------------------------------------------------------------------------------


def test_a_stamp_tells_size_and_time_of_change(make: Callable[..., Storage]) -> None:
    """A file that is not there has none; one that was written or touched has another one."""
    storage = make(100)
    assert storage.stamp(storage.files[0]) is None
    storage.preallocate()
    os.utime(on_disk(storage, 0), ns=(1, 1_700_000_000_123_456_789))
    before = storage.stamp(storage.files[0])
    assert before == (100, 1_700_000_000_123_456_789)
    storage.write_piece(0, payload(100))
    assert storage.stamp(storage.files[0]) != before


# --- unwanted files ---------------------------------------------------------------------------------------

PARTS = ".unwanted"
SIX = [100, 200, 300, 400, PIECE * 2, 50]  # piece 0 holds four files and the beginning of a fifth


def listing(storage: Storage) -> list[str]:
    """Return every file below the root."""
    return sorted(str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file())


def only(*numbers: int, of: int = 6) -> list[bool]:
    """Return that these files are wanted."""
    return [number in numbers for number in range(of)]


def test_a_piece_across_four_tiny_files_leaves_no_stray_file(make: Callable[..., Storage]) -> None:
    """Only the wanted file and the part file are made; the whole piece can be read again."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    storage.preallocate()
    assert listing(storage) == ["d/2"]
    storage.write_piece(0, data[:PIECE])
    assert listing(storage) == [PARTS, "d/2"]
    assert on_disk(storage, 2).read_bytes() == data[300:600]
    assert storage.read_block(0, 0, PIECE) == data[:PIECE]
    for begin in range(0, PIECE, 77):
        size = min(50, PIECE - begin)
        assert storage.read_block(0, begin, size) == data[begin : begin + size]
    assert not storage.is_hole(0, PIECE)


def test_the_part_file_takes_the_space_of_what_is_in_it(make: Callable[..., Storage]) -> None:
    """It does not grow with the unwanted files."""
    gib = 1 << 30
    storage = make(gib, 2 * PIECE, gib, wanted=only(1, of=3))
    storage.preallocate()
    assert storage.bytes_to_allocate() <= 2 * PIECE
    for index in range(gib // PIECE, gib // PIECE + 2):
        storage.write_piece(index, payload(PIECE))
    assert listing(storage) == ["d/1"]  # its ends lie on the edges of pieces
    storage = make(gib + 1, 2 * PIECE, gib, wanted=only(1, of=3))
    storage.preallocate()
    for index in range(gib // PIECE, gib // PIECE + 3):
        storage.write_piece(index, payload(PIECE, index))
        assert storage.read_block(index, 0, PIECE) == payload(PIECE, index)
    assert (storage.root / PARTS).stat().st_size <= 4 * PIECE


def test_a_file_in_the_place_of_the_directory_is_named(make: Callable[..., Storage]) -> None:
    """What `-o` says is what the user can change."""
    storage = make(*SIX)
    storage.root.write_bytes(b"x")
    with pytest.raises(StorageError, match=r"out is a file, and no directory; choose a directory with -o"):
        storage.find_parts()


def test_another_run_finds_what_is_apart(make: Callable[..., Storage]) -> None:
    """Whatever it selects: the part file says where everything is."""
    first, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    first.preallocate()
    first.write_piece(0, data[:PIECE])
    first.close()
    assert listing(first) == [PARTS, "d/2"]
    for wanted in (only(2), only(5), only()):
        later = make(*SIX, wanted=wanted)
        later.find_parts()
        assert later.read_block(0, 0, PIECE) == data[:PIECE]
        assert set(later.pieces_apart()) == {later.files[number] for number in (0, 1, 3, 4)}
        later.close()


def test_bytes_move_to_a_file_that_becomes_wanted(make: Callable[..., Storage]) -> None:
    """One file after the other, until nothing is apart and the part file is gone."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    storage.preallocate()
    storage.write_piece(0, data[:PIECE])
    storage.close()
    for wanted in ([2, 0], [3, 4], [5], [1]):  # those of earlier runs are not wanted any more, and stay
        storage = make(*SIX, wanted=only(*wanted))
        storage.find_parts()
        storage.preallocate()
        storage.remove_empty_part_file()
        assert (PARTS in listing(storage)) == (wanted != [1])
        for file in (storage.files[number] for number in wanted if number < 5):
            in_piece = min(file.length, PIECE - file.offset)
            assert storage.path(file).read_bytes()[:in_piece] == data[file.offset :][:in_piece]
        assert storage.read_block(0, 0, PIECE) == data[:PIECE]
        storage.close()
    assert listing(storage) == [f"d/{number}" for number in range(6)]


def test_an_empty_part_file_is_removed_at_the_end(make: Callable[..., Storage]) -> None:
    """A choice that changes while pieces come leaves it until nobody can be reading it."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    storage.preallocate()
    storage.write_piece(0, data[:PIECE])
    storage.preallocate([True] * 6)
    assert storage.read_block(0, 0, PIECE) == data[:PIECE]
    assert on_disk(storage, 1).read_bytes() == data[100:300]
    storage.sync()
    storage.close()
    assert listing(storage) == [f"d/{number}" for number in range(6)]


def test_a_storage_that_did_not_look_removes_no_part_file(make: Callable[..., Storage]) -> None:
    """Not knowing that there is something in it is no reason to throw it away."""
    first = make(*SIX, wanted=only(2))
    first.preallocate()
    first.write_piece(0, payload(PIECE))
    first.close()
    make(*SIX).close()
    assert PARTS in listing(first)


def test_an_unwanted_file_on_disk_is_read_and_never_written(make: Callable[..., Storage]) -> None:
    """It may be the user's own; bytes that come go to the part file, and count more than what lies there."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    for number, content in ((1, data[100:300]), (3, b"edited by the user")):
        on_disk(storage, number).parent.mkdir(parents=True, exist_ok=True)
        on_disk(storage, number).write_bytes(content)
    storage.preallocate()
    assert storage.read_block(0, 100, 200) == data[100:300]
    storage.write_piece(0, data[:PIECE])
    assert on_disk(storage, 3).read_bytes() == b"edited by the user"
    assert storage.read_block(0, 0, PIECE) == data[:PIECE]
    assert listing(storage) == [PARTS, "d/1", "d/2", "d/3"]


def test_a_large_unwanted_file_is_read_between_its_ends(make: Callable[..., Storage]) -> None:
    """Its first and last piece may be apart; those between are in the file or nowhere."""
    sizes = [100, 5 * PIECE, 100]
    data = payload(sum(sizes))
    whole = make(*sizes)
    whole.preallocate()
    fill(whole, data)
    whole.close()
    storage = make(*sizes, wanted=only(0, 2, of=3))
    for index in (0, 5):
        storage.write_piece(index, data[index * PIECE : (index + 1) * PIECE])
    assert b"".join(storage.read_block(index, 0, min(PIECE, len(data) - index * PIECE)) for index in range(6)) == data


def test_pieces_under_way_of_a_file_not_wanted_any_more_are_written(make: Callable[..., Storage]) -> None:
    """Those in its middle go to the file, which was made when it was wanted."""
    storage, data = make(3 * PIECE, 100), payload(3 * PIECE + 100)
    storage.preallocate()
    storage.preallocate([False, True])
    storage.write_piece(1, data[PIECE : 2 * PIECE])
    assert on_disk(storage, 0).read_bytes()[PIECE : 2 * PIECE] == data[PIECE : 2 * PIECE]


def test_a_file_that_becomes_wanted_while_its_piece_is_written_gets_its_bytes(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice changes after the verifier looked at it and before the flag is set: nothing stays behind."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    storage.preallocate()
    set_flag, calls = storage._set_flag, Counter[str]()

    def choose_all_first(*arguments: Any) -> None:  # noqa: ANN401  # handed on as they are
        calls["flag"] += 1
        if calls["flag"] == 1:
            storage.preallocate([True] * 6)
        set_flag(*arguments)

    monkeypatch.setattr(storage, "_set_flag", choose_all_first)
    storage.write_piece(0, data[:PIECE])
    storage.close()
    assert listing(storage) == [f"d/{number}" for number in range(6)]
    assert b"".join(on_disk(storage, number).read_bytes() for number in range(6))[:PIECE] == data[:PIECE]


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\xff" * 5000, b"\x01" * 12])
def test_a_damaged_part_file_harms_nobody(make: Callable[..., Storage], damage: bytes) -> None:
    """What it says is not there is missing, and what it says wrongly is read and fails its hash."""
    storage, data = make(*SIX, wanted=only(2)), payload(sum(SIX))
    storage.root.mkdir()
    (storage.root / PARTS).write_bytes(damage)
    storage.find_parts()
    storage.preallocate()
    with pytest.raises(StorageError):
        storage.read_block(0, 0, PIECE)
    storage.write_piece(0, data[:PIECE])
    assert storage.read_block(0, 0, PIECE) == data[:PIECE]


def test_a_part_file_that_is_a_link_is_refused(make: Callable[..., Storage], tmp_path: Path) -> None:
    """As every other file."""
    storage = make(*SIX, wanted=only(2))
    storage.preallocate()
    (tmp_path / "precious").write_bytes(b"precious")
    (storage.root / PARTS).symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="links are never followed"):
        storage.find_parts()
    with pytest.raises(StorageError, match="links are never followed"):
        storage.write_piece(0, payload(PIECE))
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_padding_makes_no_part_file(make: Callable[..., Storage]) -> None:
    """Pieces that end in padding belong to one file alone."""
    storage = make(100, f"{PADDING} {PIECE - 100}", 50, wanted=[True, True, False])
    storage.preallocate()
    storage.write_piece(0, payload(100) + bytes(PIECE - 100))
    assert listing(storage) == ["d/0"]


def test_unwanted_empty_files_are_not_made(make: Callable[..., Storage]) -> None:
    """No more than others; wanted ones are."""
    storage = make(0, 0, 5, wanted=[False, True, False])
    storage.preallocate()
    assert listing(storage) == ["d/1"]
    assert storage.oversized() == []
    assert storage.bytes_to_allocate() == 0
    assert storage.bytes_to_allocate([True] * 3) == 5
