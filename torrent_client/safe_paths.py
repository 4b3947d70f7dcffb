r"""Paths that are safe to write to, made from the names in a torrent.

The names come from a stranger: they may climb out of the download directory (`..`, `/etc/passwd`), be
illegal on this system or on the one that the disk is carried to next (`CON`, `a:b`, 300 letters), show
something else than they are (right-to-left marks), or be the same as another file's. A torrent is never
refused for that: the names are changed as little as possible, and the caller is told which were.

    evil/../../etc/passwd      evil/_/_/etc/passwd
    notes/what?.txt            notes/what_.txt
    notes/AUX.c                notes/_AUX.c
    Readme, README             Readme, README (1)

The same input gives the same paths always and on every system, because a resumed download has to find
its files again. For the same reason a good name is left alone down to its bytes: it is not even put
into a Unicode normal form, which other clients would not do either.

Spec: BEP 3 (name, path), which leaves all of this open.
Thread: pure.
Lock: none.
"""

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

MAX_COMPONENT_BYTES = 255
"""UTF-8 bytes of one name: NAME_MAX of Linux and the BSDs. NTFS and APFS count UTF-16 units, never more."""

MAX_PATH_BYTES = 800
"""UTF-8 bytes of a whole relative path. macOS ends at 1,024 with the user's own directory before it."""

_NUMBER_ROOM = 12
"""Bytes kept free for the ` (123)` that makes a name unique; enough for 99 million files."""

_MAX_EXTENSION_BYTES = 40
"""What follows the last dot is an extension up to this length, unless there is a space in it: otherwise it
is the rest of a sentence, and cut like the beginning."""

# Illegal in names on Windows or elsewhere; control characters (a terminal obeys them); marks that turn
# around the direction of text, so that `gpj.exe` reads `exe.jpg`; line ends; halves of surrogate pairs,
# which stand for bytes that were no UTF-8.
_UNSAFE = re.compile(
    '[<>:"/\\\\|?*\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)

# Devices on Windows, whatever comes after the first dot.
_DEVICE = re.compile(
    "(?:CON|PRN|AUX|NUL|CONIN[$]|CONOUT[$]|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(?:[.].*)?", re.IGNORECASE
)

# Unicode's Default_Ignorable_Code_Point: without width, and ignored by some file systems when they compare
# names (HFS+, ext4 with case folding).
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_SEPARATOR = "\0"
"""Between the components of a key: no name holds it."""


class Renamed(NamedTuple):
    """One file that does not get the name that the torrent gives it.

    Attributes:
        file_index: the file's place in the torrent, from 0.
        wanted: the components that the torrent asked for, unchecked: see `__str__`.
        path: the relative path that it gets.
    """

    file_index: int
    wanted: tuple[str, ...]
    path: PurePosixPath

    def __str__(self) -> str:
        """Tell old and new path; the old one quoted, as it may hold what a terminal obeys."""
        return f"{'/'.join(self.wanted)!a} is saved as {str(self.path)!r}"


class SafePaths(NamedTuple):
    """Where the files of a torrent go.

    Attributes:
        paths: for each file, in the torrent's order, its path relative to the download directory.
        renamed: the files whose path differs from the torrent's, in the same order.
    """

    paths: list[PurePosixPath]
    renamed: list[Renamed]


def safe_component(name: str) -> str:
    """Return a name for one file or directory, as like `name` as is safe.

    Args:
        name: any text, which may be empty or hold lone surrogates.

    Returns:
        A name of 1 to 255 UTF-8 bytes that is legal on Linux, macOS and Windows and means nothing but
        itself; `name` if that is so already.
    """
    cleaned = _shorten(_UNSAFE.sub("_", name).rstrip(" ."), MAX_COMPONENT_BYTES) or "_"
    if _DEVICE.fullmatch(cleaned):
        cleaned = _shorten("_" + cleaned, MAX_COMPONENT_BYTES)
    return cleaned


def safe_path(components: Sequence[str]) -> tuple[str, ...]:
    """Return the safe relative path for one path of a torrent, without regard to its other files.

    Args:
        components: the torrent's name and then the file's `path`, any text; none at all counts as one
            empty component.

    Returns:
        As many components, each a `safe_component`; if they are more than 800 bytes together, the
        directories between the first and the last become one, named after their hash.
    """
    return _fit([safe_component(component) for component in components or ("",)])


def safe_paths(name: str, files: Sequence[Sequence[str]] = ()) -> SafePaths:
    """Return safe paths for all files of a torrent, no two of which meet on any file system.

    Two paths meet when they differ only in case or in Unicode normalisation, or when one is a directory of
    the other. The first file with an unchanged name keeps it, the others get a number: `a (1).txt`.

    Args:
        name: the torrent's `name`.
        files: the `path` of each file below `name`; empty for a torrent of the single file `name`.

    Returns:
        The paths, and which of them are not what the torrent says. All are relative, of 1 to 255 bytes
        per component and at most 800 in all, and each file's path begins with the cleaned `name`.
    """
    wanted = [(name, *(file or ("",))) for file in files] or [(name,)]
    clean = cache(safe_component)  # a directory is cleaned once, not once per file in it
    cleaned = [_fit([clean(component) for component in components]) for components in wanted]
    unique = _make_unique(cleaned, [old == new for old, new in zip(wanted, cleaned, strict=True)])
    paths = [PurePosixPath(*components) for components in unique]
    renamed = [
        Renamed(index, old, paths[index])
        for index, (old, new) in enumerate(zip(wanted, unique, strict=True))
        if old != new
    ]
    return SafePaths(paths, renamed)


def _make_unique(cleaned: Sequence[tuple[str, ...]], untouched: Sequence[bool]) -> list[tuple[str, ...]]:
    """Number the files that meet another file or a directory; those that are `untouched` come first."""
    table = _Taken(cleaned)
    # Every file that can keep its name keeps it, before any number is given: a file that is really
    # called `a (1)` is not pushed aside by the second `a`.
    first_choice = [index for index, same in enumerate(untouched) if same]
    second_choice = [index for index, same in enumerate(untouched) if not same]
    pushed_aside = [index for index in first_choice + second_choice if not table.take(cleaned[index])]
    # The next number to try, for each name that numbers are added to: were each to start from 1 again,
    # 100,000 files of one name would take five billion tries.
    numbers: dict[str, int] = {}
    unique = list(cleaned)
    for index in sorted(pushed_aside):
        directory, (stem, extension) = cleaned[index][:-1], _split(cleaned[index][-1])
        # Cut to the same length whatever the number: all names that lead to one series share its counter.
        stem = _cut(stem, MAX_COMPONENT_BYTES - _NUMBER_ROOM - len(extension.encode()))
        series = table.key((*directory, stem + extension))
        while True:
            numbers[series] = number = numbers.get(series, 0) + 1
            unique[index] = (*directory, f"{stem} ({number}){extension}")
            if table.take(unique[index]):
                break
    return unique


class _Taken:
    """Which paths are taken, by files or as directories.

    Paths are compared by their keys, which are equal exactly when two paths could meet.

    Args:
        paths: the files that there will be; their directories count as taken from the beginning.
    """

    def __init__(self, paths: Sequence[tuple[str, ...]]):
        self._fold = cache(_fold)
        self._sorted = sorted(map(self.key, paths))
        self._files: set[str] = set()

    def key(self, path: tuple[str, ...]) -> str:
        """Return the key of a path."""
        return _SEPARATOR.join(map(self._fold, path))

    def take(self, path: tuple[str, ...]) -> bool:
        """Take a path for a file; tell whether it was free."""
        key = self.key(path)
        if key in self._files or self._is_directory(key):
            return False
        self._files.add(key)
        return True

    def _is_directory(self, key: str) -> bool:
        """Tell whether a file's key begins with this one; such keys stand together in the sorted list."""
        prefix = key + _SEPARATOR
        place = bisect_left(self._sorted, prefix)
        return place < len(self._sorted) and self._sorted[place].startswith(prefix)


def _fold(component: str) -> str:
    """Return what the least discerning file system compares: no case, no normal form, no zero width."""
    if component.isascii():
        return component.lower()
    visible = _IGNORED.sub("", component)
    # Unicode's canonical caseless matching (its chapter 3.13, D145).
    folded = unicodedata.normalize("NFD", visible).casefold()
    return unicodedata.normalize("NFC", folded)


def _fit(components: Sequence[str]) -> tuple[str, ...]:
    """Return the components, with the directories in the middle as one if they are too long together."""
    limit = MAX_PATH_BYTES - _NUMBER_ROOM
    whole = "/".join(components)
    if len(whole) * 4 > limit and len(whole.encode()) > limit:
        # There are three components at least: two cannot be too long. With 40 digits of a hash, nobody
        # finds two directories that end up as one.
        middle = hashlib.sha256("/".join(components[1:-1]).encode()).hexdigest()[:40]
        return components[0], middle, components[-1]
    return tuple(components)


def _split(name: str) -> tuple[str, str]:
    """Split a name into stem and extension, the latter with its dot or empty."""
    stem, _, extension = name.rpartition(".")
    if stem and " " not in extension and len(extension.encode()) <= _MAX_EXTENSION_BYTES:
        return stem, "." + extension
    return name, ""


def _shorten(name: str, size: int) -> str:
    """Return `name` in at most `size` bytes of UTF-8, cut before its extension."""
    if len(name) * 4 <= size or len(name.encode()) <= size:
        return name
    stem, extension = _split(name)
    return (_cut(stem, size - len(extension.encode())) + extension).rstrip(" .")


def _cut(text: str, size: int) -> str:
    """Return the longest beginning of `text` that is at most `size` bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore")
