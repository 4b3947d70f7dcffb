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
from torrent_client.protocol.messages import HEADER_LENGTH, piece_headers
from torrent_client.protocol.scatter import BlockRun

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
        heads: room for the header of each block's message, one after the other.
        parts: head, block, head, block ...: where a peer's messages with all blocks go.
    """

    __slots__ = ("blocks", "data", "heads", "parts")

    def __init__(self, length: int) -> None:
        """Take fresh memory, of arbitrary contents."""
        self.data = memoryview(bytearray(length))
        self.blocks = [self.data[begin : begin + BLOCK_SIZE] for begin in range(0, length, BLOCK_SIZE)]
        self.heads = memoryview(bytearray(HEADER_LENGTH * len(self.blocks)))
        heads = [self.heads[begin : begin + HEADER_LENGTH] for begin in range(0, len(self.heads), HEADER_LENGTH)]
        self.parts = [part for place in zip(heads, self.blocks, strict=True) for part in place]


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
        was_shared: somebody else brought a block while there was a tenant; there will be none any more.
    """

    __slots__ = (
        "_headers",
        "block_count",
        "block_lengths",
        "buffer",
        "exclusive",
        "index",
        "length",
        "owner",
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
        self._headers = b""  # what the tenant's messages begin with

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
        """Let a peer's reads go straight into the buffer: `run` tells where."""
        self.tenant, self.buffer = tenant, buffer
        self._headers = piece_headers(self.index, tuple(self.block_lengths.values()))

    def run(self, first: int, count: int) -> BlockRun:
        """Return the places of neighbouring blocks, for the tenant."""
        assert self.buffer is not None
        begin, end = HEADER_LENGTH * first, HEADER_LENGTH * (first + count)
        parts = self.buffer.parts[2 * first : 2 * (first + count)]
        return BlockRun(self.index, first, self.buffer, parts, self.buffer.heads[begin:end], self._headers[begin:end])

    def is_in_place(self, run: BlockRun) -> bool:
        """Tell whether blocks that came are where they belong, and nobody else was asked for one."""
        return run.memory is self.buffer and not self.second_requesters

    def store_run(self, first: int, count: int) -> None:
        """Take note of blocks that are in place, and come from the peer that was asked for them."""
        self.received[first : first + count] = bytes([1]) * count
        self.remaining -= count

    def move_out(self, buffer: PieceBuffer) -> None:
        """Copy what has come to another buffer: whatever the tenant still reads goes to the old one."""
        assert self.buffer is not None
        for block, here in enumerate(self.received):
            if here:
                buffer.blocks[block][:] = self.buffer.blocks[block]
        self.tenant, self.buffer, self.was_shared = None, buffer, True

    def store(self, block: int, payload: memoryview | bytes, supplier: PeerKey) -> None:
        """Copy a block that is not there yet into the buffer, which has been set."""
        assert self.buffer is not None
        self.buffer.blocks[block][:] = payload
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
