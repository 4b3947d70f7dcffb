"""The state of every piece, and the sets and sums that follow from it: one method for each arrow.

    MISSING --begin--> DOWNLOADING --fill--> VERIFYING --complete--> COMPLETE
       ^                    |                    |                      |
       +------ give_up -----+------ give_up -----+-------- lose --------+

A set of pieces is one integer, bit i for piece i. What a peer has that we lack and want is then two `&`,
however many pieces there are:

    piece          5 4 3 2 1 0
    missing        0 1 0 1 0 0      nobody has begun it
    lacking        1 1 0 1 0 0      any state but COMPLETE: piece 5 is under way
    wanted         1 1 0 0 0 1      a file that the user chose has bytes in it
    peer has       1 0 1 1 1 1      of these we need 5, and may begin none

Spec: BEP 3 (pieces); which of them are wanted is ours.
Thread: the PieceManager's callers.
Lock: none; used under the PieceManager's lock.
"""

from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from torrent_client.errors import ProtocolViolation
from torrent_client.piece_picker import WantedPieces


class PieceState(IntEnum):
    """Where a piece is on its way; exactly one at a time."""

    MISSING = 0
    DOWNLOADING = 1
    VERIFYING = 2
    COMPLETE = 3


class PieceHashes:
    """The SHA-1 of every piece, 20 bytes each, as the torrent gives them in one string."""

    def __init__(self, hashes: bytes) -> None:
        """Keep the string; slicing it on demand is cheaper than a list of 100,000."""
        self._hashes = hashes

    def __getitem__(self, index: int) -> bytes:
        """Return the 20 bytes of piece `index`."""
        return self._hashes[20 * index : 20 * index + 20]

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._hashes) // 20


class WantedProgress(NamedTuple):
    """How far the wanted pieces are: `pieces_done` of `pieces`, `bytes_done` of `size` bytes."""

    pieces: int
    pieces_done: int
    size: int
    bytes_done: int


class PieceTable:
    """Says of every piece in which state it is, and of the whole torrent how much is done.

    Args:
        piece_count: number of pieces.
        piece_length: bytes of every piece but the last.
        total_length: bytes of the torrent.
        wanted: which pieces to get.

    Attributes:
        missing: set of bits: state MISSING.
        lacking: set of bits: any state but COMPLETE.
        wanted: set of bits: to be got.
        complete_count: number of COMPLETE pieces.
        complete_bytes: bytes of COMPLETE pieces.
    """

    def __init__(self, piece_count: int, piece_length: int, total_length: int, wanted: WantedPieces) -> None:
        """Begin with every piece MISSING."""
        self.piece_count = piece_count
        self.piece_length = piece_length
        self.total_length = total_length
        self._states = bytearray(piece_count)
        self.missing = (1 << piece_count) - 1
        self.lacking = self.missing
        self.complete_count = 0
        self.complete_bytes = 0
        self.wanted = 0
        self._surplus: Mapping[int, int] = {}  # bytes of wanted pieces that lie in files that nobody wants
        self._wanted_size = 0
        self._wanted_done = 0  # bytes of COMPLETE ones
        self.set_wanted(wanted)

    # --- what never changes ----------------------------------------------------------------------

    def piece_size(self, index: int) -> int:
        """Return the bytes of piece `index`; the last one may be shorter than the others."""
        return min(self.piece_length, self.total_length - index * self.piece_length)

    def bytes_in(self, pieces: int) -> int:
        """Return the bytes of a set of pieces."""
        last = self.piece_count - 1
        lacks = self.piece_length - self.piece_size(last) if pieces and pieces >> last & 1 else 0
        return pieces.bit_count() * self.piece_length - lacks

    def check_index(self, index: int) -> None:
        """Raise ProtocolViolation for a piece that does not exist, of which a peer speaks."""
        if not 0 <= index < self.piece_count:
            raise ProtocolViolation(f"it speaks of piece {index}, but there are {self.piece_count}")

    # --- the arrows ------------------------------------------------------------------------------

    def begin(self, index: int) -> None:
        """MISSING to DOWNLOADING: a peer will be asked for its blocks."""
        self._states[index] = PieceState.DOWNLOADING
        self.missing ^= 1 << index

    def fill(self, index: int) -> None:
        """DOWNLOADING to VERIFYING: its last block came."""
        self._states[index] = PieceState.VERIFYING

    def give_up(self, index: int) -> None:
        """DOWNLOADING or VERIFYING back to MISSING: nothing of it is kept."""
        self._states[index] = PieceState.MISSING
        self.missing |= 1 << index

    def complete(self, index: int) -> bool:
        """VERIFYING to COMPLETE, or MISSING to COMPLETE for a piece found on disk.

        Returns:
            Whether it was the last wanted one that was lacking; False for one that was COMPLETE already.
        """
        before, piece = self._states[index], 1 << index
        if before == PieceState.COMPLETE:
            return False
        self._states[index] = PieceState.COMPLETE
        self.complete_count += 1
        self.complete_bytes += self.piece_size(index)
        if before == PieceState.MISSING:
            self.missing ^= piece
        self.lacking ^= piece
        if not self.wanted & piece:
            return False
        self._wanted_done += self._wanted_bytes_of(index)
        return self.is_done

    def lose(self, index: int) -> None:
        """COMPLETE to MISSING: it is no longer on disk; a piece in another state stays in it."""
        if self._states[index] != PieceState.COMPLETE:
            return
        self._states[index] = PieceState.MISSING
        self.complete_count -= 1
        self.complete_bytes -= self.piece_size(index)
        self.missing |= 1 << index
        self.lacking |= 1 << index
        if self.wanted >> index & 1:
            self._wanted_done -= self._wanted_bytes_of(index)

    # --- what is wanted --------------------------------------------------------------------------

    def set_wanted(self, wanted: WantedPieces) -> None:
        """Say which pieces are wanted; no piece changes its state by that."""
        self.wanted = 0
        for level in wanted.levels:
            self.wanted |= level
        self._surplus = wanted.surplus
        self._wanted_size = self.bytes_in(self.wanted) - sum(wanted.surplus.values())
        self._wanted_done = self._count_wanted_done()

    def needs(self, pieces: int) -> bool:
        """Tell whether one of a set of pieces is wanted and not COMPLETE."""
        return bool(pieces & self.lacking & self.wanted)

    def to_begin(self, pieces: int) -> int:
        """Return which of a set of pieces are wanted and MISSING."""
        return pieces & self.missing & self.wanted

    @property
    def is_done(self) -> bool:
        """Whether every wanted piece is COMPLETE."""
        return not self.lacking & self.wanted

    def wanted_progress(self) -> WantedProgress:
        """Return how far the wanted pieces are; of pieces on the edge of a wanted file only its bytes count."""
        done = (self.wanted & ~self.lacking).bit_count()
        return WantedProgress(self.wanted.bit_count(), done, self._wanted_size, self._wanted_done)

    def _wanted_bytes_of(self, index: int) -> int:
        """Return how many bytes of a wanted piece are in files that are wanted."""
        return self.piece_size(index) - self._surplus.get(index, 0)

    def _count_wanted_done(self) -> int:
        """Add up what `_wanted_done` should be."""
        surplus = sum(size for index, size in self._surplus.items() if self.is_complete(index))
        return self.bytes_in(self.wanted & ~self.lacking) - surplus

    # --- looking at it ---------------------------------------------------------------------------

    def is_complete(self, index: int) -> bool:
        """Tell whether a piece is COMPLETE; one look-up, which needs no lock."""
        return self._states[index] == PieceState.COMPLETE

    @property
    def complete_pieces(self) -> int:
        """The COMPLETE pieces, as a set of bits."""
        return (1 << self.piece_count) - 1 & ~self.lacking

    def states(self) -> bytes:
        """Return a copy of the state of every piece, a `PieceState` a byte."""
        return bytes(self._states)

    def under_way(self) -> dict[int, PieceState]:
        """Find the pieces that are DOWNLOADING or VERIFYING."""
        both = (PieceState.DOWNLOADING, PieceState.VERIFYING)
        return {index: PieceState(state) for index, state in enumerate(self._states) if state in both}

    def check_invariants(self) -> None:
        """Raise AssertionError unless sets and sums agree with the states."""
        states = Counter(self._states)
        assert states[PieceState.COMPLETE] == self.complete_count
        assert states[PieceState.MISSING] == self.missing.bit_count()
        assert self.piece_count - self.complete_count == self.lacking.bit_count()
        assert not self.missing & ~self.lacking
        assert not self.wanted >> self.piece_count
        assert all(self.wanted >> index & 1 for index in self._surplus)
        assert self._wanted_done == self._count_wanted_done() <= self._wanted_size
