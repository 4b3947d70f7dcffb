"""Making a .torrent of a file or of a directory.

A torrent cuts all its files, one after the other, into pieces of equal length, and lists the SHA-1 of each
piece. Making one therefore means reading everything once: one thread reads, in order, which every disk
likes best, and a pool of threads hashes, which is most of the work and runs without the GIL.

    files    |---- a.txt ----|-- b.txt --|------------- c.iso -------------|
    pieces   |-- 0 --|-- 1 --|-- 2 --|-- 3 --|-- 4 --|-- 5 --|-- 6 --|- 7 -|

There are two steps, so that a user can be told between them what is about to be shared: `find_content`
looks for the files, `create_torrent` reads them.

The same files always give the same torrent: the order of the files does not depend on the file system, and
there is no date in it unless the caller asks for one.

Spec: BEP 3 (metainfo files), 12 (tiers of trackers), 19 (web seeds), 27 (private torrents).
Thread: the caller's, and a pool of hashing threads that ends before the call returns.
Lock: none.
"""

import hashlib
import logging
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from torrent_client import __version__
from torrent_client.config import KIB, MAX_FILES, MAX_TORRENT_SIZE, MIB
from torrent_client.errors import MetainfoError, StorageError
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.text import printable

logger = logging.getLogger(__name__)

MIN_PIECE_LENGTH = 16 * KIB
"""Bytes. A piece smaller than a block would be pointless."""

MAX_PIECE_LENGTH = 16 * MIB
"""Bytes. Larger ones are refused by some clients, and a piece is what is lost when one byte is wrong."""

WANTED_PIECES = 1500
"""Pieces that the automatic choice aims at: 30 KB of hashes. More make the .torrent large, fewer make a
peer wait long before it has something to give."""

BUFFER_BUDGET = 128 * MIB
"""Bytes of pieces that are read but not yet hashed; for pieces of 16 MiB that is 8 of them."""

READ_SIZE = MIB
"""Bytes read at once. A Ctrl-C is heard between two reads, and the slowest disks need 0.2 s for this."""

CREATED_BY = f"torrent-client {__version__}"


class SourceFile(NamedTuple):
    """One file to share.

    Attributes:
        path: where it is, absolute and without links.
        components: its path below the torrent's root; none for a torrent of a single file.
        size: bytes.
        modified: when it was changed last, `st_mtime_ns`.
    """

    path: Path
    components: tuple[str, ...]
    size: int
    modified: int


class LeftOut(NamedTuple):
    """Something below the directory that is not shared.

    Attributes:
        path: below the torrent's root, with slashes.
        reason: why: `symbolic link`, `matching '*~'`.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a torrent is made of, found but not yet read.

    Attributes:
        name: the torrent's name.
        is_directory: the files lie in a directory of that name.
        files: in the torrent's order.
        left_out: what is in the directory and not in the torrent.
        unused_patterns: the patterns of `exclude` that nothing matched.
    """

    name: str
    is_directory: bool
    files: tuple[SourceFile, ...]
    left_out: tuple[LeftOut, ...] = ()
    unused_patterns: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def left_out_summary(self) -> str:
        """Return what was left out as `symbolic link (2), matching '*~' (1)`; empty if nothing was."""
        counts = Counter(item.reason for item in self.left_out)
        return ", ".join(f"{reason} ({count:,})" for reason, count in counts.items())


def create_torrent(
    content: Path | Content,
    *,
    piece_length: int | None = None,
    trackers: Sequence[Sequence[str]] = (),
    private: bool = False,
    comment: str | None = None,
    source: str | None = None,
    web_seeds: Sequence[str] = (),
    creation_date: int | None = None,
    created_by: str | None = CREATED_BY,
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Make a .torrent of a file, or of all files in a directory and below.

    Args:
        content: what to share, as `find_content` returned it; of a path, everything that it finds.
        piece_length: bytes per piece, a power of two from 16 KiB to 16 MiB; `None` picks one by the size.
        trackers: tiers of announce URLs (BEP 12), the first tier first.
        private: peers may come from the trackers only (BEP 27).
        comment: free text.
        source: a site's mark inside the info dictionary, which gives the same files another info hash.
        web_seeds: URLs at which the files can be had by HTTP (BEP 19).
        creation_date: seconds since 1970; `None` leaves it out.
        created_by: the program's name; `None` leaves it out.
        progress: called in the caller's thread after each piece, with the bytes done and the bytes in all.
            What it raises ends the call.

    Returns:
        The bytes of the .torrent.

    Raises:
        MetainfoError: no torrent can be made of it: see `find_content`; or an unusable piece length, or so
            many files or pieces that clients refuse the .torrent.
        BencodeError: a text that is not Unicode, such as a comment with half a surrogate pair.
        StorageError: a file cannot be read, or changed while it was read.
    """
    if isinstance(content, Path):
        content = find_content(content)
    total = content.size
    length = choose_piece_length(total) if piece_length is None else checked_piece_length(piece_length)
    info: dict[str, object] = {"name": content.name, "piece length": length}
    if content.is_directory:
        info["files"] = [{"length": file.size, "path": file.components} for file in content.files]
    else:
        info["length"] = total
    if private:
        info["private"] = 1
    if source is not None:
        info["source"] = source
    optional = {"comment": comment, "creation date": creation_date, "created by": created_by}
    metainfo = {
        "info": info,
        **_announce_fields(trackers),
        **({"url-list": list(web_seeds)} if web_seeds else {}),
        **{key: value for key, value in optional.items() if value is not None},
    }
    # Everything that can be wrong with these is found out now, and not after an hour of hashing.
    info["pieces"] = bytes(20 * -(-total // length))
    if (size := len(bencode_encode(metainfo))) > MAX_TORRENT_SIZE:
        raise MetainfoError(
            f"the .torrent would have {size:,} bytes, more than clients take ({MAX_TORRENT_SIZE:,}); "
            "share fewer files or choose larger pieces"
        )
    info["pieces"] = _hash_pieces(content.files, length, total, progress)
    return bencode_encode(metainfo)


def choose_piece_length(total: int) -> int:
    """Return the piece length for a torrent of `total` bytes.

    Args:
        total: bytes of all files together.

    Returns:
        A power of two from 16 KiB to 16 MiB, which gives 1,000 to 2,000 pieces if one does.
    """
    length = MIN_PIECE_LENGTH
    # Going on while there are more than 4/3 of the wanted pieces leaves from 2/3 to 4/3 of them.
    while length < MAX_PIECE_LENGTH and total > length * WANTED_PIECES * 4 // 3:
        length *= 2
    return length


def checked_piece_length(length: int) -> int:
    """Return `length`, in bytes, if pieces can have it.

    Raises:
        MetainfoError: they cannot.
    """
    if not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH or length.bit_count() != 1:
        raise MetainfoError(f"a piece length of {length} is not a power of two from 16 KiB to 16 MiB")
    return length


def _announce_fields(trackers: Sequence[Sequence[str]]) -> dict[str, object]:
    """Return the keys that tell the trackers: `announce`, and `announce-list` if there are several."""
    tiers = [list(tier) for tier in trackers if tier]
    if not tiers:
        return {}
    several = len(tiers) > 1 or len(tiers[0]) > 1
    return {"announce": tiers[0][0], **({"announce-list": tiers} if several else {})}


# --- finding the files ------------------------------------------------------------------------------------


def torrent_name(path: Path) -> str:
    """Return the name that a torrent of `path` gets: what the user typed, even if that is a link.

    Raises:
        MetainfoError: it has none, as `/`, or one that is not UTF-8.
        StorageError: `.` or `..`, which have to be looked up, does not exist.
    """
    try:
        name = path.name if path.name not in ("", "..") else os.path.basename(os.path.realpath(path, strict=True))
    except OSError as error:
        raise StorageError(f"cannot read {error.filename or path}: {error.strerror}") from error
    if not name:
        raise MetainfoError(f"{path} has no name that a torrent could have")
    _require_utf8(name)
    return name


def find_content(path: Path, exclude: Sequence[str] = (), *, leave_out: Path | None = None) -> Content:
    """Find the files that a torrent of `path` would have.

    They are sorted by the bytes of their paths, as mktorrent and libtorrent do, so that all three give the
    same files the same info hash. Hidden files are files like others. Symbolic links and special files below
    `path` are left out: following links could share what nobody meant to share. `path` itself may be a link.

    Args:
        path: a file, or a directory of which everything below is shared.
        exclude: patterns of what is left out below `path`, as the shell has them: `*`, `?`, `[...]`. One
            without a slash is compared with the name of each file and directory, one with slashes with the
            path below the torrent's root, where `*` also stands for slashes. A slash at the end asks for a
            directory. With a directory, everything in it is left out.
        leave_out: a file below `path` that is left out, such as the .torrent that is being made.

    Raises:
        MetainfoError: there are no bytes to share, or too many files, or a name is not UTF-8.
        StorageError: a file or a directory cannot be read.
    """
    search = _Search(exclude, leave_out.resolve() if leave_out else None)
    name = torrent_name(path)
    try:
        root = Path(os.path.realpath(path, strict=True))
        status = root.stat()
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory:
            files = sorted(search.files_below(root), key=lambda file: "/".join(file.components).encode())
        elif stat.S_ISREG(status.st_mode):
            files = [SourceFile(root, (), status.st_size, status.st_mtime_ns)]
        else:
            raise MetainfoError(f"{path} is neither a file nor a directory")
        # Now, and not after an hour of hashing the files before it.
        for file in files:
            if not os.access(file.path, os.R_OK):
                raise StorageError(f"cannot read {file.path}: Permission denied")
    except OSError as error:
        raise StorageError(f"cannot read {error.filename or path}: {error.strerror}") from error
    unused = tuple(pattern for pattern in dict.fromkeys(exclude) if pattern not in search.used_patterns)
    content = Content(name, is_directory, tuple(files), tuple(search.left_out), unused)
    if content.size == 0:
        left_out = f", and left out: {content.left_out_summary()}" if content.left_out else ""
        raise MetainfoError(f"there is nothing to share in {path}: no file with a byte in it{left_out}")
    return content


class _Search:
    """Looks through a directory, and remembers what it leaves out.

    Args:
        exclude: patterns of what is left out.
        torrent: the absolute path of the .torrent that is being made.
    """

    def __init__(self, exclude: Sequence[str], torrent: Path | None) -> None:
        self._exclude = exclude
        self._torrent = torrent
        self.left_out: list[LeftOut] = []
        self.used_patterns: set[str] = set()

    def files_below(self, root: Path) -> Iterator[SourceFile]:
        """Give the files to share below a directory, in the order of the file system."""
        count = 0
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            directory = waiting.pop()
            with os.scandir(root.joinpath(*directory)) as entries:
                for entry in entries:
                    components = (*directory, entry.name)
                    if reason := self._reason_against(entry, components):
                        self.left_out.append(LeftOut("/".join(components), reason))
                        logger.debug("left out: %s: %s", printable("/".join(components)), reason)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(components)
                    else:
                        count += 1
                        if count > MAX_FILES:
                            raise MetainfoError(f"{root} has more files than clients take ({MAX_FILES:,})")
                        _require_utf8("/".join(components))
                        status = entry.stat(follow_symlinks=False)
                        yield SourceFile(Path(entry.path), components, status.st_size, status.st_mtime_ns)

    def _reason_against(self, entry: "os.DirEntry[str]", components: tuple[str, ...]) -> str | None:
        """Return why something is left out, or None."""
        is_directory = entry.is_dir(follow_symlinks=False)
        matching = [pattern for pattern in self._exclude if _matches(pattern, components, is_directory)]
        if matching:
            self.used_patterns.update(matching)
            return f"matching {printable(matching[0])!r}"
        if entry.is_symlink():
            return "symbolic link"
        if not is_directory and not entry.is_file(follow_symlinks=False):
            return "special file"
        if self._torrent and entry.name == self._torrent.name and Path(entry.path) == self._torrent:
            return "earlier torrent of it"
        return None


def _matches(pattern: str, components: tuple[str, ...], is_directory: bool) -> bool:
    """Tell whether a pattern of `exclude` means this path below the torrent's root."""
    if pattern.endswith("/") and not is_directory:
        return False
    pattern = pattern.rstrip("/")
    return fnmatchcase("/".join(components) if "/" in pattern else components[-1], pattern)


def _require_utf8(name: str) -> None:
    """Refuse a name whose bytes on the disk are no UTF-8: a torrent can only hold text (BEP 3)."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise MetainfoError(f"the name {name!a} is not UTF-8; rename or exclude it") from error


# --- reading and hashing ----------------------------------------------------------------------------------


def _hash_pieces(
    files: Iterable[SourceFile], piece_length: int, total: int, progress: Callable[[int, int], None] | None
) -> bytes:
    """Return the SHA-1 of each piece, 20 bytes each, in order.

    The calling thread fills buffers while the pool hashes those that are full. Their number is fixed, so
    that a fast disk waits for the hashing and does not fill the memory.
    """
    workers = os.cpu_count() or 1
    buffers = min(2 * workers, BUFFER_BUDGET // piece_length, -(-total // piece_length))
    free = [memoryview(bytearray(piece_length)) for _ in range(buffers)]
    hashing: deque[tuple[Future[bytes], memoryview]] = deque()
    digests: list[bytes] = []

    def finish_oldest() -> None:
        future, piece = hashing.popleft()
        digests.append(future.result())
        free.append(piece)
        if progress is not None:
            progress(min(len(digests) * piece_length, total), total)

    with ThreadPoolExecutor(workers, "torrent-creator") as pool, closing(_read_pieces(files, free)) as pieces:
        try:
            for piece in pieces:
                hashing.append((pool.submit(_sha1, piece), piece))
                if len(hashing) == buffers:
                    finish_oldest()
            while hashing:
                finish_oldest()
        finally:  # after a Ctrl-C or an error there are some left, which nobody needs any more
            for future, _ in hashing:
                future.cancel()
    return b"".join(digests)


def _sha1(piece: memoryview) -> bytes:
    """Return the 20 bytes of a piece's hash."""
    return hashlib.sha1(piece, usedforsecurity=False).digest()


def _read_pieces(files: Iterable[SourceFile], free: list[memoryview]) -> Generator[memoryview, None, None]:
    """Give the content piece by piece, each in a buffer taken from `free`; the last piece may be shorter."""
    buffer = free.pop()
    filled = 0
    for file in files:
        left = file.size
        with _open_unchanged(file) as handle:
            while left and (count := handle.readinto(buffer[filled : filled + min(left, READ_SIZE)])):
                left -= count
                filled += count
                if filled == len(buffer):
                    yield buffer
                    buffer, filled = free.pop(), 0
    if filled:
        yield buffer[:filled]


@contextmanager
def _open_unchanged(file: SourceFile) -> Iterator[FileIO]:
    """Open a file to read all of it.

    A torrent made half of the old and half of the new content could never be seeded.

    Raises:
        StorageError: it cannot be read, or somebody writes to it.
    """
    try:
        with open(file.path, "rb", buffering=0, opener=_open_no_link) as handle:
            yield handle
            status = os.fstat(handle.fileno())
    except OSError as error:
        raise StorageError(f"cannot read {file.path}: {error.strerror}") from error
    if (status.st_size, status.st_mtime_ns) != (file.size, file.modified):
        raise StorageError(f"{file.path} changed while the torrent was made")


def _open_no_link(path: str, flags: int) -> int:
    """Open a file for `open`, but fail if a link has taken its place since it was found."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
