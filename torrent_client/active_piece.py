"""One piece while it is being downloaded: which of its blocks were asked for, and by whom they came.

    block       0    1    2    3    4
    asked of    A    A    B    -    -       unrequested: 3, 4
    received    x    .    x    .    .       remaining: 3

Spec: BEP 3 (request, piece).
Thread: the PieceManager's callers; in state VERIFYING the verifier alone reads `data`.
Lock: none; used under the PieceManager's lock.
"""

from collections.abc import Hashable, Iterator
from typing import TypeAlias

from torrent_client.config import BLOCK_SIZE

PeerKey: TypeAlias = Hashable
"""Whatever the caller uses to tell peers apart."""


class BufferPool:
    """Buffers for whole pieces, used again and again: fresh memory costs page faults.

    Args:
        piece_length: bytes of every buffer.
    """

    def __init__(self, piece_length: int) -> None:
        """Begin with none; they are made as they are needed."""
        self._piece_length = piece_length
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Return a buffer, with arbitrary contents."""
        return self._free.pop() if self._free else memoryview(bytearray(self._piece_length))

    def give_back(self, buffer: memoryview) -> None:
        """Keep a buffer for the next piece."""
        self._free.append(buffer)


class ActivePiece:
    """The blocks of a piece that is DOWNLOADING or VERIFYING.

    Args:
        index: the piece.
        length: its bytes.
        owner: the peer that began it; others help only when they have nothing better to do.
        exclusive: nobody else may help, because the owner is on parole: if the piece fails, it alone
            is to blame.
    """

    __slots__ = (
        "block_count",
        "buffer",
        "exclusive",
        "index",
        "length",
        "owner",
        "received",
        "remaining",
        "requesters",
        "second_requesters",
        "unrequested",
    )

    def __init__(self, index: int, length: int, owner: PeerKey | None, *, exclusive: bool = False) -> None:
        """Begin with every block unrequested and no buffer."""
        self.index = index
        self.length = length
        self.owner = owner
        self.exclusive = exclusive
        self.block_count = -(-length // BLOCK_SIZE)
        self.unrequested = list(range(self.block_count - 1, -1, -1))  # a stack, lowest block on top
        self.requesters: list[PeerKey | None] = [None] * self.block_count
        self.second_requesters: dict[int, PeerKey] = {}  # the end game's
        self.received = bytearray(self.block_count)
        self.remaining = self.block_count
        self.buffer: memoryview | None = None

    @property
    def data(self) -> memoryview:
        """The piece's bytes; all of them are good only once `remaining` is 0."""
        assert self.buffer is not None
        return self.buffer[: self.length]

    @property
    def has_one_supplier(self) -> bool:
        """Whether all blocks of a full piece came from one peer."""
        return len(set(self.requesters)) == 1

    def block_length(self, block: int) -> int:
        """Return the bytes of a block: 16 KiB, but for the last; below 1 for a block that does not exist."""
        return min(BLOCK_SIZE, self.length - block * BLOCK_SIZE)

    def store(self, block: int, payload: memoryview | bytes, supplier: PeerKey) -> None:
        """Copy a block that is not there yet into the buffer, which has been set."""
        assert self.buffer is not None
        begin = block * BLOCK_SIZE
        self.buffer[begin : begin + len(payload)] = payload
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
        for block, supplier in enumerate(self.requesters):
            begin = block * BLOCK_SIZE
            yield supplier, self.data[begin : begin + BLOCK_SIZE]
