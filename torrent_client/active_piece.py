"""One piece while it is being downloaded: which of its blocks were asked for, and by whom they came.

    block       0    1    2    3    4
    asked of    A    A    B    -    -       unrequested: 3, 4
    received    x    .    x    .    .       remaining: 3

One peer may be its *tenant*: what that peer sends is read straight into the buffer (`protocol.scatter`), by the
system and without the lock. So nobody else may store a block there: before that the piece moves out, to another buffer.

Spec: BEP 3 (request, piece).
Thread: the PieceManager's callers; in state VERIFYING the verifier alone reads `data`.
Lock: none; used under the PieceManager's lock.
"""

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

from torrent_client.config import BLOCK_SIZE
from torrent_client.protocol.messages import Piece

PeerKey: TypeAlias = Hashable
"""Whatever the caller uses to tell peers apart."""


@lru_cache(maxsize=8)
def block_lengths(length: int) -> Mapping[int, int]:
    """Return the bytes of each block of a piece, by where it begins: 16 KiB, and less of the last one.

    Args:
        length: bytes of the piece; a torrent has pieces of two lengths, the last one's and the others'.
    """
    return {begin: min(BLOCK_SIZE, length - begin) for begin in range(0, length, BLOCK_SIZE)}


class PieceBuffer:
    """Memory for one piece.

    Args:
        length: its bytes.

    Attributes:
        data: all of them.
        blocks: a view of each block.
    """

    __slots__ = ("blocks", "data")

    def __init__(self, length: int) -> None:
        """Take fresh memory, of arbitrary contents."""
        self.data = memoryview(bytearray(length))
        self.blocks = [self.data[begin : begin + BLOCK_SIZE] for begin in range(0, length, BLOCK_SIZE)]


class BufferPool:
    """Buffers for whole pieces, used again and again: fresh memory costs page faults.

    Args:
        piece_length: bytes of every buffer but the last piece's.
    """

    def __init__(self, piece_length: int) -> None:
        """Begin with none; they are made as they are needed."""
        self._piece_length = piece_length
        self._free: list[PieceBuffer] = []

    def take(self, length: int) -> PieceBuffer:
        """Return a buffer of so many bytes, with arbitrary contents."""
        return self._free.pop() if self._free and length == self._piece_length else PieceBuffer(length)

    def give_back(self, buffer: PieceBuffer) -> None:
        """Keep a buffer for the next piece."""
        if len(buffer.data) == self._piece_length:
            self._free.append(buffer)


class ActivePiece:
    """The blocks of a piece that is DOWNLOADING or VERIFYING.

    Args:
        index: the piece.
        length: its bytes.
        owner: the peer that began it; others help only when they have nothing better to do.
        exclusive: nobody else may help, because the owner is on parole: if the piece fails, it alone
            is to blame.

    Attributes:
        block_lengths: bytes of each block, by where it begins.
        buffer: where its blocks go; None until there is one.
        tenant: the peer whose reads go straight there, if there is one.
        places: a `Piece` message for every block, with the tenant's memory for it.
        was_shared: somebody else brought a block while there was a tenant; there will be none any more.
    """

    __slots__ = (
        "block_count",
        "block_lengths",
        "buffer",
        "exclusive",
        "index",
        "length",
        "owner",
        "places",
        "received",
        "remaining",
        "requesters",
        "second_requesters",
        "tenant",
        "unrequested",
        "was_shared",
    )

    def __init__(self, index: int, length: int, owner: PeerKey | None, *, exclusive: bool = False) -> None:
        """Begin with every block unrequested and no buffer."""
        self.index = index
        self.length = length
        self.owner = owner
        self.exclusive = exclusive
        self.block_lengths = block_lengths(length)
        self.block_count = len(self.block_lengths)
        self.unrequested = list(range(self.block_count - 1, -1, -1))  # a stack, lowest block on top
        self.requesters: list[PeerKey | None] = [None] * self.block_count
        self.second_requesters: dict[int, PeerKey] = {}  # the end game's
        self.received = bytearray(self.block_count)
        self.remaining = self.block_count
        self.buffer: PieceBuffer | None = None
        self.tenant: PeerKey | None = None
        self.was_shared = False
        self.places: list[Piece] = []

    @property
    def data(self) -> memoryview:
        """The piece's bytes; all of them are good only once `remaining` is 0."""
        assert self.buffer is not None
        return self.buffer.data

    @property
    def has_one_supplier(self) -> bool:
        """Whether all blocks of a full piece came from one peer."""
        return len(set(self.requesters)) == 1

    def move_in(self, tenant: PeerKey, buffer: PieceBuffer) -> None:
        """Let a peer's reads go straight into the buffer: `places` tells where."""
        self.tenant, self.buffer = tenant, buffer
        self.places = [Piece(self.index, number * BLOCK_SIZE, block) for number, block in enumerate(buffer.blocks)]

    def move_out(self, buffer: PieceBuffer) -> None:
        """Copy what has come to another buffer: whatever the tenant still reads goes to the old one."""
        assert self.buffer is not None
        for block, here in enumerate(self.received):
            if here:
                buffer.blocks[block][:] = self.buffer.blocks[block]
        self.tenant, self.buffer, self.places, self.was_shared = None, buffer, [], True

    def store(self, block: int, payload: memoryview | bytes, supplier: PeerKey) -> None:
        """Put a block that is not there yet into the buffer, which has been set; it may be in its place already."""
        assert self.buffer is not None
        place = self.buffer.blocks[block]
        if payload is not place:
            place[:] = payload
        self.requesters[block] = supplier
        self.received[block] = 1
        self.remaining -= 1

    def give_up(self, block: int, peer: PeerKey) -> bool:
        """Forget that `peer` was asked for a block; tell whether nobody is asked for it now."""
        second = self.second_requesters.pop(block, None)
        if self.requesters[block] == peer:
            self.requesters[block] = second
            if second is None:
                self.unrequested.append(block)
                return True
        elif second is not None and second != peer:
            self.second_requesters[block] = second
        return False

    def disown(self) -> None:
        """Let whoever comes first finish the piece."""
        self.owner, self.exclusive = None, False

    def workers(self) -> set[PeerKey | None]:
        """Return the owner and those who are asked for blocks, None among them for what nobody does."""
        asked = {peer for peer, here in zip(self.requesters, self.received, strict=True) if not here}
        return {self.owner, *asked, *self.second_requesters.values()}

    def suppliers(self) -> Iterator[tuple[PeerKey, memoryview]]:
        """Give each received block's supplier and bytes, in order."""
        assert self.buffer is not None
        yield from zip(self.requesters, self.buffer.blocks, strict=True)
