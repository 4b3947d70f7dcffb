"""Where the bytes of unwanted files lie that come with the pieces of wanted ones: the part file's layout.

    files     |---- 1 wanted ----|-- 2 not --|---------- 3 not ----------|
    pieces    |     0     |     1     |      2    |     3     |     4    |
                                  ^^^^^ is of file 2, but without it piece 1 cannot be verified or served

    part file    flags: 2 bytes a file  |  room for piece 1  |  room for each other piece that files share
                 first piece, last piece     ......xxxxxx

A torrent has at most one part file. Its layout follows from the torrent alone, whatever is selected, and it
is sparse: only what was really put there takes space. A flag is 1 when the file's bytes of that piece are
here and not in the file; so a run with another selection knows where everything is, with no state file.

Spec: none; libtorrent has the same idea (`.<info hash>.parts`) with another layout and so another name.
Thread: any; a flag belongs to one piece and so to whoever writes that piece.
Lock: none; flags are single bytes.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from torrent_client.torrent_parser import FileEntry

FLAGS_PER_FILE = 2
"""One for a file's first piece and one for its last: no other piece can reach into another file."""


def part_file_name(info_hash: bytes) -> str:
    """Return what the part file of a torrent is called; hidden, and another one for each torrent."""
    return f".{info_hash.hex()}.unwanted"


class Apart(NamedTuple):
    """Bytes that are in the part file: those of file `number` in piece `piece`."""

    number: int
    piece: int


class PartLayout:
    """Which bytes are in the part file, and where.

    Args:
        files: in torrent order.
        piece_length: bytes of every piece but the last.
    """

    def __init__(self, files: Sequence[FileEntry], piece_length: int) -> None:
        """Begin with an empty part file."""
        self._files = files
        self._piece_length = piece_length
        self.flags = bytearray(FLAGS_PER_FILE * len(files))

    def __contains__(self, apart: Apart) -> bool:
        """Tell whether a file's bytes of a piece are in the part file."""
        if not self.flags[self.flag(apart)]:
            return False
        file = self._files[apart.number]  # between its first piece and its last one there are no flags
        end = file.offset + file.length - 1
        return apart.piece in (file.offset // self._piece_length, end // self._piece_length)

    def __iter__(self) -> Iterator[Apart]:
        """Give what is in the part file, in torrent order."""
        place = self.flags.find(1)
        while place >= 0:
            number, is_last = divmod(place, FLAGS_PER_FILE)
            file = self._files[number]
            offset = file.offset + file.length - 1 if is_last else file.offset
            yield Apart(number, offset // self._piece_length)
            place = self.flags.find(1, place + 1)

    def load(self, flags: bytes, size: int) -> None:
        """Take the flags of a part file of `size` bytes; those that cannot be true are left out."""
        self.flags[:] = bytes(flag == 1 for flag in flags.ljust(len(self.flags), b"\0"))
        for apart in list(self):
            if not self.is_shared(apart.piece) or self.position(apart.piece, self.span(apart)[1]) > size:
                self.flags[self.flag(apart)] = 0

    def flag(self, apart: Apart) -> int:
        """Return where the flag of a file's bytes of its first or last piece is."""
        is_last = apart.piece != self._files[apart.number].offset // self._piece_length
        return FLAGS_PER_FILE * apart.number + is_last

    def span(self, apart: Apart) -> tuple[int, int]:
        """Return where in the piece the file's bytes begin and end."""
        file, start = self._files[apart.number], apart.piece * self._piece_length
        return max(0, file.offset - start), min(self._piece_length, file.offset + file.length - start)

    def is_shared(self, index: int) -> bool:
        """Tell whether several files have bytes in a piece, padding not counted."""
        slot = bisect_left(self._shared, index)
        return slot < len(self._shared) and self._shared[slot] == index

    def position(self, index: int, begin: int) -> int:
        """Return where byte `begin` of a shared piece lies in the part file."""
        return len(self.flags) + bisect_left(self._shared, index) * self._piece_length + begin

    @cached_property
    def _shared(self) -> list[int]:
        """The pieces that several files have bytes in, in order; made when it is first needed."""
        files = [file for file in self._files if file.length and not file.is_padding]
        last_pieces = ((file.offset + file.length - 1) // self._piece_length for file in files)
        meetings = zip(last_pieces, pairwise(files), strict=False)
        return sorted({last for last, (_, after) in meetings if after.offset // self._piece_length == last})
