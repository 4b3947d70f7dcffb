"""Pieces to files and back: a torrent's files laid end to end are one long string, cut into pieces.

    files     |---- a.txt ----|- b.txt -|---------- c.iso ----------|
    pieces    |  piece 0  |  piece 1  |  piece 2  |  piece 3  | pc 4|
    piece 1 = the end of a.txt, all of b.txt, the beginning of c.iso: three pwrites

Files are created sparse at their full size, never truncated and never reached through a symbolic link (see
`open_files`).

Files that nobody wants are not made and never written. What comes of them with the pieces of their
neighbours goes to the part file (see `part_file`), a hidden file in the output directory: beside the data
it is on the same disk, moves with it, and is not lost with the state files. When its file becomes wanted
the bytes move there, and an empty part file is removed.

Spec: BEP 3 (files), BEP 47 (pad files); the guide's Task 12.
Thread: any; verifiers write, peers' writers read, housekeeping asks for sizes.
Lock: none of its own; `OpenFiles` has one. Sets that several threads change are changed by single calls.
"""

import errno
import logging
import os
import stat
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import NamedTuple

from torrent_client.errors import FileVanished, StorageError, TooManyFiles
from torrent_client.open_files import Access, OpenFiles
from torrent_client.part_file import Apart, PartLayout
from torrent_client.torrent_parser import FileEntry

logger = logging.getLogger(__name__)

FREE_SPACE_RESERVE = 1024 * 1024
"""Bytes left free on the disk: a file system filled to the last block cannot even save the state."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether a file that we write to was deleted: a look after each write took as long as
all else that Python does about it."""


class FileStamp(NamedTuple):
    """What tells whether a file was changed behind our back: bytes and modification time in ns."""

    size: int
    mtime_ns: int


class _Segment(NamedTuple):
    """Part of a piece that lies in one file: `length` bytes at `offset` of file `number`.

    The part file has the number after the last one.
    """

    number: int
    offset: int
    length: int


class Storage:
    """Reads and writes the pieces of one torrent.

    Args:
        root: the output directory; every file lies below it.
        files: in torrent order.
        piece_length: bytes of every piece but the last.
        max_open_files: handles kept open.
        wanted: whether each file is wanted; None for all.
        part_name: what the part file is called; another one for each torrent in the directory.
        read_only: refuse to create or write anything.
        clock: seconds.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[FileEntry],
        piece_length: int,
        max_open_files: int = 64,
        *,
        wanted: Sequence[bool] | None = None,
        part_name: str = ".unwanted",
        read_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet."""
        self.root = root
        self.files = tuple(files)
        self.part_file = FileEntry(PurePosixPath(part_name), 0, 0)
        self._wanted = [True] * len(self.files) if wanted is None else list(wanted)
        self._parts = PartLayout(self.files, piece_length)
        self._has_part_file = False  # as far as we know
        self._piece_length = piece_length
        self._total_length = sum(file.length for file in files)
        self._ends = [file.offset + file.length for file in self.files]
        self._root_prefix = os.path.join(root, "")  # a `Path` does not end with a slash
        self._entries = (*self.files, self.part_file)
        self._open_files = OpenFiles(root, self._entries, max_open_files, read_only=read_only)
        self._unsynced: set[int] = set()  # numbers of files with something that was not synced yet
        self._syncing: set[int] = set()  # of those that are being synced, or where that failed
        self._syncer = Thread()  # the one of `sync_within`, when it has been called
        self._unseen: set[int] = set()  # numbers of files that were not looked at since they were written to
        self._look_again = 0.0  # when to look at them
        self._clock = clock
        self._stamps: dict[int, FileStamp] = {}  # of the files as we left them
        self._restamp: set[int] = set()  # numbers of files that we have changed since

    def path(self, file: FileEntry) -> Path:
        """Return where a file lies."""
        return self.root / file.path

    def _path_text(self, file: FileEntry) -> str:
        """Return what `path` does, for loops over all files: a `Path` takes longer to make than most system calls."""
        return f"{self._root_prefix}{file.path}"

    # --- before the download -----------------------------------------------------------------------

    def find_parts(self) -> None:
        """Find out what is in the part file, before anything is read or judged.

        Raises:
            StorageError: it is there and cannot be read; or the directory is none.
        """
        if self.root.is_file():
            raise StorageError(f"{self.root} is a file, and no directory; choose a directory with -o")
        size = len(self._parts.flags)
        with suppress(FileNotFoundError), _translated("look at", self.path(self.part_file)):
            with self._open_files.lend(len(self.files), Access.READ) as descriptor:
                self._parts.load(os.pread(descriptor, size, 0), os.fstat(descriptor).st_size)
            self._has_part_file = True

    def bytes_to_allocate(self, wanted: Sequence[bool] | None = None) -> int:
        """Return how many bytes of disk the wanted files still need: what is sparse or absent of them."""
        needed = 0
        for file in self.content(wanted):
            needed += file.length
            try:
                needed -= min(file.length, os.lstat(self._path_text(file)).st_blocks * 512)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _in_words("look at", self.path(file), error) from error
        return needed

    def check_free_space(self, needed: int) -> None:
        """Refuse to begin what cannot end.

        Args:
            needed: bytes still to be written.

        Raises:
            StorageError: the disk has not so many; says how many are missing.
        """
        directory = self.root
        with _translated("use", directory):
            while not directory.exists() and directory != directory.parent:
                directory = directory.parent
            status = os.statvfs(directory)
        missing = needed + FREE_SPACE_RESERVE - status.f_bavail * status.f_frsize
        if needed and missing > 0:
            raise StorageError(
                f"not enough space in {self.root}: {needed:,} bytes are needed and {missing:,} more "
                "must be free; free some, or choose another directory with -o"
            )

    def preallocate(self, wanted: Sequence[bool] | None = None, stopped: Callable[[], bool] = lambda: False) -> None:
        """Create every wanted file at its full size, sparse; existing ones are made longer, never shorter.

        Args:
            wanted: a new choice of files, which counts from now on, even while pieces are written.
            stopped: asked before each file whether to give up.

        Raises:
            StorageError: a directory or a file cannot be made.
        """
        wanted = self._wanted if wanted is None else list(wanted)
        for number, file in enumerate(self.files):
            if file.is_padding or not wanted[number]:
                continue
            if stopped():
                return
            try:
                with self._open_files.lend(number, Access.CREATE) as descriptor:
                    if os.fstat(descriptor).st_size < file.length:
                        os.truncate(descriptor, file.length)
                        self._mark_changed(number)
            except OSError as error:
                raise _in_words("create", self.path(file), error) from error
        self._wanted = wanted  # before looking at the flags: see `_write_apart`
        for apart in list(self._parts):
            if wanted[apart.number]:
                self._bring_back(apart)

    def remove_empty_part_file(self) -> None:
        """Remove the part file if nothing is left in it; only while nobody writes pieces."""
        if self._has_part_file and not any(self._parts.flags):
            self._has_part_file = False
            self._open_files.forget(len(self.files))
            self._unsynced.discard(len(self.files))
            self._unseen.discard(len(self.files))
            with suppress(OSError):
                self.path(self.part_file).unlink()

    # --- pieces --------------------------------------------------------------------------------------

    def write_piece(self, index: int, data: memoryview | bytes) -> None:
        """Write a whole verified piece, one `pwrite` for each file that it touches.

        Raises:
            StorageError: the disk is full, read-only or failing, or a file was deleted; parts of the piece
                may be written.
        """
        if self._clock() >= self._look_again:
            self.refuse_deleted()
        view = memoryview(data)
        for number, offset, length in self._segments(index * self._piece_length, len(view)):
            part, view = view[:length], view[length:]
            if self._entries[number].is_padding:
                continue
            if not self._wanted[number] and self._parts.is_shared(index):
                self._write_apart(Apart(number, index), offset, part)
            else:
                self._write(number, part, offset)

    def refuse_deleted(self) -> None:
        """See that the files which were written to still have a name; done each second, and to be done at the end.

        The system takes the bytes of a file that was deleted while it is open, and nobody will ever find them.

        Raises:
            FileVanished: one has none.
        """
        self._look_again = self._clock() + LOOK_INTERVAL
        for number in _taken(self._unseen):
            if not self._open_files.exists(number):
                raise _in_words("write", self.path(self._entries[number]), FileNotFoundError())

    def read_block(self, index: int, begin: int, length: int) -> bytes:
        """Read `length` bytes at `begin` of a piece; padding reads as zeros.

        Raises:
            StorageError: a file is missing, too short or unreadable.
        """
        parts = [self._read(number, size, offset) for number, offset, size in self._places(index, begin, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_hole(self, index: int, length: int) -> bool:
        """Tell whether a piece lies wholly in files' holes, where nothing was ever written.

        Raises:
            StorageError: a file is missing or unreadable.
        """
        for number, offset, size in self._places(index, 0, length):
            if self._entries[number].is_padding:
                continue
            path = self.path(self._entries[number])
            with _translated("read", path), self._open_files.lend(number, Access.READ) as descriptor:
                if os.fstat(descriptor).st_size < offset + size:
                    return False  # too short is something else than empty
                try:
                    if os.lseek(descriptor, offset, os.SEEK_DATA) < offset + size:
                        return False
                except OSError as error:
                    if error.errno != errno.ENXIO:  # no data from there to the end
                        return False  # a file system that does not tell: read it
        return True

    # --- files ---------------------------------------------------------------------------------------

    def stamp(self, file: FileEntry) -> FileStamp | None:
        """Return a file's size and time of change, or None when it is not there."""
        try:
            status = os.lstat(self._path_text(file))
        except OSError:
            return None
        return FileStamp(status.st_size, status.st_mtime_ns)

    def set_aside(self, file: FileEntry) -> Path | None:
        """Rename a wanted file that is there and has contents; return its new place, None if there is none.

        Raises:
            StorageError: it cannot be renamed.
        """
        path = self.path(file)
        number = bisect_right(self._ends, file.offset)
        if file.is_padding or not file.length or not self._wanted[number]:
            return None
        with _translated("rename", path):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(status.st_mode) or not status.st_size or not status.st_blocks:
                return None  # nothing, or space that another client has set aside
            count = 1
            while (kept := path.with_name(f"{path.name}.old{count}")).exists():
                count += 1
            path.rename(kept)
        self._open_files.forget(number)
        return kept

    def stamps(self) -> dict[str, FileStamp]:
        """Return each file's stamp, by its path, as it was after we had last written to it.

        What somebody else did to a file since does not show here, so that it shows when these stamps are
        compared with the files. The first call takes the stamps of all files.
        """
        changed = _taken(self._restamp)
        for number, file in enumerate(self._entries):
            if file.is_padding or (number in self._stamps and number not in changed):
                continue
            stamp = self.stamp(file)
            if stamp:
                self._stamps[number] = stamp
        return {str(self._entries[number].path): stamp for number, stamp in self._stamps.items()}

    def pieces_of(self, file: FileEntry) -> range:
        """Return the indices of the pieces that a file has bytes in."""
        if not file.length:
            return range(0)
        last = file.offset + file.length - 1
        return range(file.offset // self._piece_length, last // self._piece_length + 1)

    def pieces_apart(self) -> dict[FileEntry, int]:
        """Return the files of which there are bytes in the part file, each with these pieces as a set of bits."""
        found: dict[FileEntry, int] = {}
        for number, index in self._parts:
            found[self.files[number]] = found.get(self.files[number], 0) | 1 << index
        return found

    def oversized(self) -> list[FileEntry]:
        """Find wanted files on disk that are longer than the torrent says: they are left so, and told of."""
        stamps = self.stamps()
        return [file for file in self.content() if (stamp := stamps.get(str(file.path))) and stamp.size > file.length]

    @property
    def is_synced(self) -> bool:
        """Whether everything that was written until now is on the disk itself, and would outlive a power cut."""
        return not self._unsynced and not self._syncing

    @property
    def is_syncing(self) -> bool:
        """Whether the thread of `sync_within` is at it."""
        return self._syncer.is_alive()

    def doubt_sync(self) -> None:
        """Take nothing of what is there for synced: an earlier run, or somebody else, wrote it."""
        self._unsynced.update(number for number, file in enumerate(self._entries) if self.stamp(file))

    def sync(self) -> None:
        """Wait until everything that was written is on the disk itself.

        Raises:
            StorageError: the disk reports an earlier write as failed.
        """
        for number in list(self._unsynced):
            self._syncing.add(number)  # first, so that at no moment all seems to be synced
            self._unsynced.discard(number)
            try:
                with self._open_files.lend(number, Access.READ) as descriptor:
                    os.fsync(descriptor)
            except OSError as error:  # the system tells of it once: this file never counts as synced again
                raise _in_words("write", self.path(self._entries[number]), error) from error
            self._syncing.discard(number)

    def sync_within(self, seconds: float) -> bool:
        """Let a thread `sync`, wait so long for it at most, and tell whether all is synced.

        It goes on after that, and a disk that hangs is left to itself. For one caller at a time.
        """
        if not self.is_syncing:
            self._syncer = Thread(target=self._sync_or_warn, name="sync", daemon=True)
            self._syncer.start()
        self._syncer.join(seconds)
        return self.is_synced

    def _sync_or_warn(self) -> None:
        try:
            self.sync()
        except StorageError as error:
            logger.warning("%s", error)

    def close(self) -> None:
        """Close every file; whoever still uses one closes it behind itself. None is kept open from now on."""
        self._open_files.close()
        self.remove_empty_part_file()

    # --- inside ----------------------------------------------------------------------------------------

    def content(self, wanted: Sequence[bool] | None = None) -> Iterator[FileEntry]:
        """Give the wanted files without the padding."""
        chosen = zip(self.files, wanted or self._wanted, strict=True)
        return (file for file, is_wanted in chosen if is_wanted and not file.is_padding)

    def _write(self, number: int, data: memoryview, offset: int, access: Access = Access.WRITE) -> None:
        try:
            file = self._open_files.borrow(number, access)
            try:
                _write_all(file.descriptor, data, offset)
            finally:
                self._open_files.give_back(file)
                self._mark_changed(number)
        except OSError as error:
            raise _in_words("write", self.path(self._entries[number]), error) from error

    def _mark_changed(self, number: int) -> None:
        """Note, after the change, who is to see it: the next look, stamps and sync."""
        self._unseen.add(number)
        self._restamp.add(number)
        self._unsynced.add(number)

    def _read(self, number: int, size: int, offset: int) -> bytes:
        entry = self._entries[number]
        if entry.is_padding:
            return bytes(size)
        try:
            file = self._open_files.borrow(number, Access.READ)
            try:
                data = os.pread(file.descriptor, size, offset)
            finally:
                self._open_files.give_back(file)
        except OSError as error:
            raise _in_words("read", self.path(entry), error) from error
        if len(data) != size:
            raise StorageError(f"cannot read {self.path(entry)}: it is shorter than the torrent says")
        return data

    def _write_apart(self, apart: Apart, offset: int, data: memoryview) -> None:
        """Write the bytes that a shared piece has of an unwanted file to the part file; first they, then the flag."""
        self._has_part_file = True
        begin = self.files[apart.number].offset + offset - apart.piece * self._piece_length
        self._write(len(self.files), data, self._parts.position(apart.piece, begin), Access.CREATE)
        self._set_flag(apart, 1)
        if self._wanted[apart.number]:  # since a moment ago: `preallocate` may have missed the flag
            self._bring_back(apart)

    def _bring_back(self, apart: Apart) -> None:
        """Move bytes from the part file to the file that they belong to, which is wanted now."""
        file = self.files[apart.number]
        begin, end = self._parts.span(apart)
        data = self.read_block(apart.piece, begin, end - begin)
        self._write(apart.number, memoryview(data), apart.piece * self._piece_length + begin - file.offset)
        self._set_flag(apart, 0)

    def _set_flag(self, apart: Apart, value: int) -> None:
        place = self._parts.flag(apart)
        self._write(len(self.files), memoryview(bytes([value])), place)
        self._parts.flags[place] = value

    def _places(self, index: int, begin: int, length: int) -> list[_Segment]:
        """Return where `length` bytes at `begin` of a piece lie, in files and in the part file."""
        start = index * self._piece_length
        segments = self._segments(start + begin, length)
        if self._has_part_file:
            for slot, (number, offset, size) in enumerate(segments):
                if Apart(number, index) in self._parts:
                    place = self._parts.position(index, self.files[number].offset + offset - start)
                    segments[slot] = _Segment(len(self.files), place, size)
        return segments

    def _segments(self, offset: int, length: int) -> list[_Segment]:
        """Return the parts of files that `length` bytes at `offset` of the torrent lie in."""
        segments = []
        number = bisect_right(self._ends, offset)  # files that end at or before it are skipped
        while length:
            file = self.files[number]
            size = min(length, file.offset + file.length - offset)
            if size:
                segments.append(_Segment(number, offset - file.offset, size))
            offset, length, number = offset + size, length - size, number + 1
        return segments


def _taken(numbers: set[int]) -> set[int]:
    """Return what is in a set, and take that out of it, while other threads put more in."""
    taken = numbers.copy()
    numbers -= taken
    return taken


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data`, in one call unless the disk is nearly full."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again to go on",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again to go on",
    errno.EROFS: "the file system is read-only; choose another directory with -o",
    errno.EACCES: "permission denied; choose another directory with -o, or change its permissions",
    errno.ELOOP: "it is a symbolic link, and links are never followed",
    errno.EISDIR: "there is a directory in its place",
    errno.ENOTDIR: "there is a file where a directory should be",
    errno.EEXIST: "there is a file where a directory should be",
    errno.EFBIG: "the file system takes no file so large",
    errno.EIO: "the disk reports an error",
}


@contextmanager
def _translated(verb: str, path: Path) -> Iterator[None]:
    """Turn the system's errors into sentences; a file that is missing may be the caller's to handle."""
    try:
        yield
    except OSError as error:
        if verb == "look at" and isinstance(error, FileNotFoundError):
            raise
        raise _in_words(verb, path, error) from error


def _in_words(verb: str, path: Path, error: OSError) -> StorageError:
    """Return what the system says as a sentence with advice."""
    if isinstance(error, FileNotFoundError):
        return FileVanished(f"cannot {verb} {path}: it is not there (was a drive taken out?)")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFiles(f"cannot {verb} {path}: too many files are open")
    return StorageError(f"cannot {verb} {path}: {_ADVICE.get(error.errno or 0, error.strerror)}")
