"""Which files of a torrent are wanted, and in which order: from the user's words to sets of pieces.

    files            1 a.txt    2 b.txt   3 c.iso         --select-file 1,3 --file-priority 3=high
    pieces        |  0  |  1  |  2  |  3  |  4  |  5  |
    a.txt         |-------|                                normal
    b.txt                 |-----|                          not wanted, and yet there are bytes of it
    c.iso                       |---------------------|    high      in pieces 1 and 2, which are

A piece is as urgent as the most urgent file that has bytes in it. Files count from 1 in the torrent's order,
as in aria2; padding (BEP 47) has a number, too, which does nothing: padding goes with the file before it.

Spec: BEP 47 (pad files); the rest is ours.
Thread: pure.
Lock: none.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from torrent_client.errors import SelectionError
from torrent_client.piece_picker import WantedPieces
from torrent_client.torrent_parser import FileEntry


class FilePriority(IntEnum):
    """How urgent a file is."""

    UNWANTED = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3


class FileRange(NamedTuple):
    """Files `first` to `last`, both included, counted from 1."""

    first: int
    last: int


class FileSelection(NamedTuple):
    """What the user said about files; nothing means all of them.

    Attributes:
        selected: the files to get; empty for all.
        priorities: ranges with what they are; where they overlap the last one counts. They order the
            selected files and add none to them.
        first_last: get the first and the last piece of each wanted file before all others: players read
            them before anything else.
    """

    selected: tuple[FileRange, ...] = ()
    priorities: tuple[tuple[FileRange, FilePriority], ...] = ()
    first_last: bool = False

    def resolve(self, files: Sequence[FileEntry]) -> tuple[FilePriority, ...]:
        """Return each file's priority, that of padding included.

        Raises:
            SelectionError: a number is that of no file, or nothing but padding is selected.
        """
        for first, last in (*self.selected, *(files_named for files_named, _ in self.priorities)):
            if last > len(files):
                number = max(first, len(files) + 1)
                raise SelectionError(f"there is no file {number}: the torrent has {len(files)}, see --list-files")
        start = FilePriority.UNWANTED if self.selected else FilePriority.NORMAL
        priorities = [start] * len(files)
        for first, last in self.selected:
            priorities[first - 1 : last] = [FilePriority.NORMAL] * (last - first + 1)
        for (first, last), priority in self.priorities:
            for number in range(first - 1, last):
                if priorities[number]:
                    priorities[number] = priority
        if not any(priority for file, priority in zip(files, priorities, strict=True) if not file.is_padding):
            raise SelectionError("no file is selected: these numbers are those of padding")
        for number, file in enumerate(files):
            if file.is_padding:
                priorities[number] = priorities[number - 1] if number else start
        return tuple(priorities)


ALL_FILES: Final = FileSelection()


def parse_ranges(text: str) -> tuple[FileRange, ...]:
    """Read file numbers in aria2's syntax: `1,3-5`.

    Raises:
        ValueError: it is something else.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})(?:-([0-9]{1,6}))?\s*", part)
        if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]):
            raise ValueError(f"{part.strip()!r} is not a file's number or a range, as in 1,3-5")
        ranges.append(FileRange(int(match[1]), int(match[2] or match[1])))
    return tuple(ranges)


def parse_priorities(text: str) -> tuple[tuple[FileRange, FilePriority], ...]:
    """Read `3=high,5-7=low`; `normal` is what files have otherwise.

    Raises:
        ValueError: it is something else.
    """
    names = {priority.name.lower(): priority for priority in FilePriority if priority}
    found = []
    for part in text.split(","):
        numbers, _, name = part.partition("=")
        priority = names.get(name.strip().lower())
        if priority is None:
            raise ValueError(f"{part.strip()!r} is not a file and high, normal or low, as in 3=high,5-7=low")
        found += [(files, priority) for files in parse_ranges(numbers)]
    return tuple(found)


def wanted_pieces(
    files: Sequence[FileEntry], priorities: Sequence[FilePriority], piece_length: int, *, first_last: bool = False
) -> WantedPieces:
    """Return which pieces are wanted for the files that are.

    Args:
        files: in torrent order.
        priorities: one for each.
        piece_length: bytes of every piece but the last.
        first_last: put the first and last pieces of wanted files onto a level of their own, above all.
    """
    # A row of digits for each level, joined into one integer at the end: adding file after file to an integer
    # of 100,000 bits would take quadratic time.
    piece_count = -(-sum(file.length for file in files) // piece_length)
    urgency = bytearray(piece_count)
    ends = FilePriority.HIGH + 1
    surplus: dict[int, int] = {}
    for file, priority in zip(files, priorities, strict=True):
        if not file.length or not priority:
            continue
        first, last = file.offset // piece_length, (file.offset + file.length - 1) // piece_length
        urgency[first] = max(urgency[first], priority)
        urgency[last] = max(urgency[last], priority)
        if last - first > 1:
            urgency[first + 1 : last] = bytes([priority]) * (last - first - 1)
        if first_last and not file.is_padding:
            urgency[first] = urgency[last] = ends
    for file, priority in zip(files, priorities, strict=True):
        if not file.length or priority:
            continue
        first, last = file.offset // piece_length, (file.offset + file.length - 1) // piece_length
        for index in {first, last}:
            if urgency[index]:
                start = max(file.offset, index * piece_length)
                end = min(file.offset + file.length, (index + 1) * piece_length)
                surplus[index] = surplus.get(index, 0) + end - start
    present = range(ends, FilePriority.UNWANTED, -1)
    return WantedPieces(tuple(level for value in present if (level := _members(urgency, value))), surplus)


def _members(values: bytearray, value: int) -> int:
    """Return the set of bits of the places where `values` is `value`."""
    digits = values.translate(bytes(b"1"[0] if byte == value else b"0"[0] for byte in range(256)))
    return int(digits[::-1] or b"0", 2)
