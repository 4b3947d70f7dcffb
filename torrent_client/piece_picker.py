"""Which piece to begin next: the most urgent ones, of these the rarest first, with random ties.

Every piece has a count of the peers that own it. The counts are kept as *binary digits in columns*:
`_digits[k]` is one integer whose bit i is the k-th binary digit of piece i's count. Adding a peer is
then one ripple-carry addition over whole sets, and finding the rarest pieces is a walk over the digits
from the top, keeping the pieces whose digit is 0 while there are any. With 100,000 pieces and 100
peers a pick costs some ten microseconds, and nothing is ever sorted or scanned.

    counts     piece 0: 2   piece 1: 1   piece 2: 3        columns   digit 1: 101   digit 0: 110
                                                            (bit 2, bit 1, bit 0)

How urgent pieces are is kept in the same way, as a few sets of bits, the most urgent first; what is in
none of them is not wanted.

Spec: BEP 3 ("rarest first"), the guide's Task 9.
Thread: the PieceManager's callers.
Lock: none; used under the PieceManager's lock.
"""

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

RANDOM_TRIES = 4
"""Random places that are tried before the first member after one will do. That one is as likely as the gap before it
is wide, so that leechers choose it together, and the seed sends it to each: with tries it sent 1.51 copies to six of
them, without 1.59."""


class WantedPieces(NamedTuple):
    """Which pieces are wanted, and in which order.

    Attributes:
        levels: sets of bits that have no piece in common, the most urgent one first; a piece in none of
            them is not wanted.
        surplus: for wanted pieces that reach into files that nobody wants, the bytes there.
    """

    levels: tuple[int, ...]
    surplus: Mapping[int, int] = {}

    @classmethod
    def all_of(cls, piece_count: int) -> "WantedPieces":
        """Return that every piece is wanted, none before another."""
        return cls(((1 << piece_count) - 1,))


class PiecePicker:
    """Chooses among candidate pieces by how rare they are.

    Args:
        piece_count: number of pieces of the torrent.
        rng: source of random ties.
        random_first: until so many pieces are complete, any piece will do: a newcomer needs something
            to trade soon, and rare pieces are slow to get.
        sequential: lowest index first instead, for playing media while it comes.
    """

    def __init__(self, piece_count: int, rng: Random, *, random_first: int = 4, sequential: bool = False) -> None:
        """Begin with no peers, and with every piece wanted."""
        self._piece_count = piece_count
        self._rng = rng
        self._random_first = random_first
        self._sequential = sequential
        self.levels = WantedPieces.all_of(piece_count).levels
        self._digits: list[int] = []

    def add(self, pieces: int) -> None:
        """Count a peer (or what is new of it) that owns the set of bits `pieces`."""
        carry = pieces
        for place, digit in enumerate(self._digits):
            self._digits[place] = digit ^ carry
            carry &= digit
            if not carry:
                return
        if carry:
            self._digits.append(carry)

    def remove(self, pieces: int) -> None:
        """Take back an `add` of the same pieces."""
        borrow = pieces
        for place, digit in enumerate(self._digits):
            self._digits[place] = digit ^ borrow
            borrow ^= borrow & digit  # borrows on where the digit was 0
            if not borrow:
                return

    def availability(self, index: int) -> int:
        """Return how many peers own piece `index`."""
        return sum((digit >> index & 1) << place for place, digit in enumerate(self._digits))

    @property
    def available(self) -> int:
        """The pieces that a peer owns, as a set of bits."""
        pieces = 0
        for digit in self._digits:
            pieces |= digit
        return pieces

    def pick(self, candidates: int, completed: int, suggested: int = 0) -> int | None:
        """Choose one of the most urgent candidates, or None when no candidate is wanted.

        Args:
            candidates: set of bits of the pieces that may be begun.
            completed: number of pieces already complete.
            suggested: set of bits of the pieces that the peer has at hand; they win among equals.
        """
        candidates = next((urgent for level in self.levels if (urgent := candidates & level)), 0)
        if not candidates:
            return None
        if self._sequential:
            return _lowest(candidates)
        if completed >= self._random_first:
            candidates = self._rarest(candidates)
        return self._random_member(candidates & suggested or candidates)

    def _rarest(self, candidates: int) -> int:
        """Return the candidates with the lowest count."""
        for digit in reversed(self._digits):
            candidates = candidates & ~digit or candidates
        return candidates

    def _random_member(self, pieces: int) -> int:
        """Return a member of a set at random."""
        place = 0
        for _ in range(RANDOM_TRIES):
            place = self._rng.randrange(self._piece_count)
            if pieces >> place & 1:
                return place
        above = pieces >> place
        return place + _lowest(above) if above else _lowest(pieces)


def _lowest(pieces: int) -> int:
    """Return the lowest member of a set of bits that is not empty."""
    return (pieces & -pieces).bit_length() - 1
