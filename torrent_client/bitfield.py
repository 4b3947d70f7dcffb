"""A set of piece indices, kept as one Python integer: bit i is set when piece i is in the set.

Whole-set questions ("what has this peer that I lack?") are then single machine loops over a few
kilobytes, `a & ~b`, even for 100,000 pieces. On the wire piece 0 is the *high* bit of byte 0, so that
bytes are mirrored on the way in and out.

    wire      11010110 11000000      pieces 0 1 3 5 6 8 9
    integer   bit 0 = piece 0        0b11_0110_1011

Spec: BEP 3 (bitfield message).
Thread: pure; the owner's.
Lock: none; the owner's.
"""

from collections.abc import Iterator

from torrent_client.errors import ProtocolViolation

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Bitfield:
    """Which of `size` pieces somebody has.

    Args:
        size: number of pieces of the torrent.
        bits: the set as an integer, bit i for piece i.
    """

    __slots__ = ("bits", "size")

    def __init__(self, size: int, bits: int = 0) -> None:
        """Begin with the given set."""
        self.size = size
        self.bits = bits

    @classmethod
    def full(cls, size: int) -> "Bitfield":
        """Return the set of all pieces."""
        return cls(size, (1 << size) - 1)

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Bitfield":
        """Read the payload of a bitfield message.

        Args:
            data: exactly ceil(size / 8) bytes.
            size: number of pieces.

        Raises:
            ProtocolViolation: wrong length, or one of the spare bits at the end is set (BEP 3).
        """
        if len(data) != (size + 7) // 8:
            raise ProtocolViolation(f"a bitfield of {len(data)} bytes for {size} pieces (BEP 3)")
        bits = int.from_bytes(data.translate(_MIRRORED), "little")
        if bits >> size:
            raise ProtocolViolation("a bitfield with spare bits set (BEP 3)")
        return cls(size, bits)

    def to_bytes(self) -> bytes:
        """Return the payload of a bitfield message, ceil(size / 8) bytes."""
        return self.bits.to_bytes((self.size + 7) // 8, "little").translate(_MIRRORED)

    def add(self, index: int) -> None:
        """Put piece `index` into the set."""
        self.bits |= 1 << index

    @property
    def complete(self) -> bool:
        """Whether every piece is in the set."""
        return self.bits.bit_count() == self.size

    def __contains__(self, index: int) -> bool:
        """Tell whether piece `index` is in the set."""
        return bool(self.bits >> index & 1)

    def __len__(self) -> int:
        """Return how many pieces are in the set."""
        return self.bits.bit_count()

    def __iter__(self) -> Iterator[int]:
        """Give the indices in the set, lowest first."""
        for offset, byte in enumerate(self.bits.to_bytes((self.size + 7) // 8, "little")):
            for bit in range(8) if byte else ():
                if byte >> bit & 1:
                    yield offset * 8 + bit

    def __eq__(self, other: object) -> bool:
        """Two sets are equal when they hold the same pieces of as many."""
        return isinstance(other, Bitfield) and (self.size, self.bits) == (other.size, other.bits)

    __hash__ = None  # type: ignore[assignment]  # mutable: must not be a dictionary key

    def __repr__(self) -> str:
        """Show the count, not a hundred thousand bits."""
        return f"<Bitfield {len(self)}/{self.size}>"
