"""The open files of one torrent: opened when they are needed, kept for the next user, and never outside the root.

    borrow(3) --> in the table? ----------------------------------> descriptor, users + 1
                      | no                                                   |
                  root -> d -> file, step by step, no link followed     pread, pwrite ...
                      |                                                      |
                  the least recently used falls out                  give_back: users - 1

A file is reached from the root through a descriptor of each directory on the way (`openat`), none of which may
be a symbolic link. So nobody can put a link there between a check and the opening, and a file costs one system
call for each step, where a look at the whole path costs one for each directory from `/` on, before it is opened.
Where the user has made a directory a link to another one below the root, the way through that one is gone instead.

What falls out of the table, or is in it when that is closed, is closed by its last user.

Spec: none; openat(2), open(2).
Thread: any; verifiers write, peers' writers read.
Lock: `_lock`, a leaf, around the table: nothing is opened, closed, read or written under it.
"""

import errno
import os
import resource
import stat
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from threading import Lock

from torrent_client.errors import StorageError
from torrent_client.torrent_parser import FileEntry

_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""No links, nothing inherited, and no waiting for the other end of a pipe that lies in a file's place."""

_ROOT_FLAGS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""Where every way begins; links may lead there. With `O_PATH` (Linux) a directory that may not be listed will do."""

_STEP_FLAGS = _ROOT_FLAGS | os.O_NOFOLLOW
"""A step on the way, which no link may be."""

SHARES = 8
"""A torrent keeps open this part of the files that the process may have, so that several torrents and hundreds of
peers get along: 128 where the limit is the usual 1,024, and nobody asked for more (see `share_out`)."""


def share_out(limit: int, torrents: int) -> int:
    """Return how many files each torrent may keep open, after asking the system for as many as they would like.

    Args:
        limit: files that a torrent would keep open.
        torrents: how many there are; all together get no more than half of what the process may have.
    """
    shares = max(SHARES, 2 * torrents)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limit * shares if hard == resource.RLIM_INFINITY else min(limit * shares, hard)
    if _may_have() < wanted:
        with suppress(OSError, ValueError):  # some systems have limits above the limits
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(limit, _may_have() // shares)


def _may_have() -> int:
    """Return how many files the process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Access(IntEnum):
    """What a file is opened for; each one can do what those before it can."""

    READ = os.O_RDONLY
    WRITE = os.O_RDWR
    CREATE = os.O_RDWR | os.O_CREAT


class OpenFile:
    """An open file in use; closed when it is neither in the table nor in use."""

    __slots__ = ("descriptor", "retired", "users", "writable")

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        """Begin with one user."""
        self.descriptor = descriptor
        self.writable = writable
        self.users = 1
        self.retired = False


class OpenFiles:
    """A table of open files, by their numbers.

    Args:
        root: the directory that all lie below; it may itself be reached through links.
        files: each number's file.
        limit: how many are kept open; fewer where the process may not have so many.
        read_only: refuse to create or write anything.
    """

    def __init__(self, root: Path, files: Sequence[FileEntry], limit: int, *, read_only: bool = False) -> None:
        """Open nothing yet."""
        self._root = str(root)  # a `Path` takes longer to make than what it names takes to open
        self._files = files
        self._limit = min(limit, _may_have() // SHARES)
        self._read_only = read_only
        self._lock = Lock()
        self._table: OrderedDict[int, OpenFile] = OrderedDict()  # the least recently used one first
        self._closed = False

    def borrow(self, number: int, access: Access) -> OpenFile:
        """Return a file to be used and then given back; it stays open for the next user unless the table is full.

        Raises:
            OSError: it cannot be opened.
            StorageError: it is only to be read, is no file, or a link leads out of the root.
        """
        with self._lock:
            file = self._table.get(number)
            if file is not None and (access is Access.READ or file.writable):
                self._table.move_to_end(number)
                file.users += 1
                return file
        return self._insert(number, access)

    def give_back(self, file: OpenFile) -> None:
        """Tell that a file is no longer used."""
        with self._lock:
            file.users -= 1
            is_over = file.retired and not file.users
        if is_over:
            os.close(file.descriptor)

    @contextmanager
    def lend(self, number: int, access: Access) -> Iterator[int]:
        """Lend a file's descriptor for a block of code; raises what `borrow` does."""
        file = self.borrow(number, access)
        try:
            yield file.descriptor
        finally:
            self.give_back(file)

    def exists(self, number: int) -> bool:
        """Tell whether a file still has a name: one that was deleted while it is open takes bytes, and loses them."""
        with self._lock:
            file = self._table.get(number)
            if file is not None:
                file.users += 1
        if file is None:
            return os.path.lexists(f"{self._root}/{self._files[number].path}")
        try:
            return os.fstat(file.descriptor).st_nlink > 0
        finally:
            self.give_back(file)

    def forget(self, number: int) -> None:
        """Close one file, if it is open."""
        with self._lock:
            file = self._table.pop(number, None)
        self._retire([file] if file else [])

    def close(self) -> None:
        """Close all files; what is opened from now on is closed by its user."""
        with self._lock:
            self._closed = True
            files = list(self._table.values())
            self._table.clear()
        self._retire(files)

    # --- inside ----------------------------------------------------------------------------------------

    def _insert(self, number: int, access: Access) -> OpenFile:
        """Open a file and put it into the table; what falls out of it is closed."""
        try:
            descriptor = self._open(self._files[number], access)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._close_idle():
                raise
            descriptor = self._open(self._files[number], access)
        file = OpenFile(descriptor, writable=access is not Access.READ)
        with self._lock:
            fallen = [self._table.pop(number)] if number in self._table else []
            if self._closed:
                file.retired = True
            else:
                self._table[number] = file
            while len(self._table) > self._limit:
                fallen.append(self._table.popitem(last=False)[1])
        self._retire(fallen)
        return file

    def _retire(self, files: Sequence[OpenFile]) -> None:
        """Close files that are no longer in the table; those in use are left to their users."""
        if not files:
            return
        with self._lock:
            for file in files:
                file.retired = True
            idle = [file for file in files if not file.users]
        for file in idle:
            os.close(file.descriptor)

    def _close_idle(self) -> int:
        """Close the files that nobody uses, because the process has too many; return how many those were."""
        with self._lock:
            idle = [number for number, file in self._table.items() if not file.users]
            files = [self._table.pop(number) for number in idle]
        for file in files:
            os.close(file.descriptor)
        return len(files)

    def _open(self, entry: FileEntry, access: Access) -> int:
        """Open one file below the root, making its directories if it is to be created."""
        if self._read_only and access is not Access.READ:
            raise StorageError(f"cannot write {self._path(entry)}: it is only to be read")
        try:
            descriptor = _open_below(self._root, entry.path.parts, access)
        except _LinkOnTheWay:
            descriptor = _open_below(self._root, self._resolved(entry).parts, access)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"cannot open {self._path(entry)}: there is something else than a file in its place")
        return descriptor

    def _path(self, entry: FileEntry) -> Path:
        return Path(self._root, entry.path)

    def _resolved(self, entry: FileEntry) -> Path:
        """Return where the links on the way to a file lead, from the root on: within it they are the user's."""
        path = self._path(entry)
        # Not `Path.resolve`, which raises RuntimeError where links lead in a circle.
        directory, root = Path(os.path.realpath(path.parent)), os.path.realpath(self._root)
        if not directory.is_relative_to(root):
            raise StorageError(f"cannot open {path}: a symbolic link leads out of {self._root}")
        return (directory / path.name).relative_to(root)


class _LinkOnTheWay(OSError):
    """A directory on the way to a file is a symbolic link."""


def _open_below(root: str, names: Sequence[str], access: Access) -> int:
    """Open a file step by step from the root, so that no link is followed, whoever puts one there meanwhile."""
    may_create = access is Access.CREATE
    place = _open_root(root, may_create=may_create)
    try:
        for directory in names[:-1]:
            above, place = place, _step(place, directory, may_create=may_create)
            os.close(above)
        return os.open(names[-1], access | _FILE_FLAGS, 0o666, dir_fd=place)
    finally:
        os.close(place)


def _open_root(root: str, *, may_create: bool) -> int:
    """Return a descriptor of the root."""
    try:
        return os.open(root, _ROOT_FLAGS)
    except FileNotFoundError:
        if not may_create:
            raise
    os.makedirs(root, exist_ok=True)
    return os.open(root, _ROOT_FLAGS)


def _step(above: int, name: str, *, may_create: bool) -> int:
    """Return a descriptor of a directory that lies in the directory `above`."""
    try:
        return os.open(name, _STEP_FLAGS, dir_fd=above)
    except FileNotFoundError:
        if not may_create:
            raise
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and stat.S_ISLNK(os.lstat(name, dir_fd=above).st_mode):
            raise _LinkOnTheWay(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    return os.open(name, _STEP_FLAGS, dir_fd=above)
