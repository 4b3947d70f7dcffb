"""Receives blocks straight into their pieces: what a peer sends next is known, for it was asked for.

    asked for       block 6           block 7           block 8
    the stream    | 13 | 16 KiB     | 13 | 16 KiB     | 13 | 16 KiB ...
    one read      | head | piece 3  | head | piece 3  | head | piece 4 ...      no copy of ours

A *place* is a `Piece` message whose block is the memory where it belongs. The system scatters what it reads over the
places of the blocks that were asked for first, and the 13 bytes before each are then compared with what was expected.
Peers answer in order, so that they nearly always agree. Where they do not (a `have` in between, a block left out), what
came is copied together from there on and read by a `MessageReader`, which reads all else that is not expected, too.

The memory of a place must be nobody else's until the next read: whatever a peer sends is left there.
`request_book` sees to that; here no two places of one block are used at once.

Spec: BEP 3 (request, piece).
Thread: pure; belongs to its connection's reader thread.
Lock: none.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, cast

from torrent_client.protocol.messages import BLOCK_HEADER, Message, MessageId, MessageReader, Piece, piece_header

Places: TypeAlias = Callable[[int], Sequence[Piece]]
"""Returns the places of up to so many blocks, in the order in which they were asked for."""

MOST_BLOCKS: Final = 128
"""Blocks in one read at most, 2 MiB: two buffers for each, of the 1,024 that Linux takes (IOV_MAX). Fewer reads cost
fewer wake-ups: with 128 a download took 10 % less CPU than with 32."""

LEAST_BLOCKS: Final = 4
"""Blocks in the first reads; to prepare many places for little is of no use."""

_HEADER: Final = BLOCK_HEADER.size
_PIECE_ID: Final = int(MessageId.PIECE)


def nowhere(_count: int) -> Sequence[Piece]:
    """Expect nothing: the `Places` of whoever reads messages alone."""
    return ()


class ScatterReader:
    """Cuts the bytes that a peer sends into messages; blocks that were expected are in their places already.

    Args:
        max_length: largest length prefix accepted, in bytes.
    """

    def __init__(self, max_length: int) -> None:
        """Begin at the start of a message."""
        self._plain = MessageReader(max_length)
        self._heads = bytearray(_HEADER * MOST_BLOCKS)
        view = memoryview(self._heads)
        self._head_views = [view[begin : begin + _HEADER] for begin in range(0, len(view), _HEADER)]
        self._places: Sequence[Piece] = ()  # of this read; none if it goes to the MessageReader
        self._begun = 0  # bytes that are there of the first place's message
        self._wanted = LEAST_BLOCKS

    def writable(self, places: Places) -> list[memoryview]:
        """Return where the next read goes, in this order; `received` must follow."""
        self._places = self._choose_places(places)
        if not self._places:
            return [self._plain.writable()]
        buffers = self._buffers()
        if self._begun < _HEADER:
            buffers[0] = buffers[0][self._begun :]
        else:
            buffers[:2] = [buffers[1][self._begun - _HEADER :]]
        return buffers

    def received(self, count: int) -> list[Message]:
        """Take note of `count` bytes read into `writable()`; return the messages that are now whole.

        Raises:
            ProtocolViolation: a length prefix above the limit, or a known message of a wrong size.
        """
        places = self._places
        if not places:
            return self._plain.received(count)
        left, whole = self._begun + count, 0
        for (index, begin, block), head in zip(places, BLOCK_HEADER.iter_unpack(self._heads), strict=False):
            size = _HEADER + len(block)
            if left < size or head != (size - 4, _PIECE_ID, index, begin):
                break
            left -= size
            whole += 1
        if left and not self._is_begun(whole, left):
            return self._reread(self._begun + count)
        messages: list[Message] = list(places[:whole])
        self._begun = left
        self._places = places[whole : whole + 1]
        if left:
            self._heads[:_HEADER] = self._head_views[whole]
        self._adapt(whole, len(places))
        return messages

    def _buffers(self) -> list[memoryview]:
        """Return where the expected messages go: header, block, header, block ..."""
        blocks = cast("list[memoryview]", [block for _, _, block in self._places])
        return [part for message in zip(self._head_views, blocks, strict=False) for part in message]

    # --- the next read ---------------------------------------------------------------------------------

    def _choose_places(self, places: Places) -> Sequence[Piece]:
        """Return where the next blocks belong, first the rest of one that is half here; nothing to read it plainly."""
        chosen = places(self._wanted)
        if self._begun:
            half = self._places[0]
            if not chosen or chosen[0] is not half:
                return [half, *(place for place in chosen if place[:2] != half[:2])]
        elif chosen and self._plain.partial and not self._take_over(chosen[0]):
            return ()
        return chosen

    def _take_over(self, place: Piece) -> bool:
        """Put the first bytes of a block, which were read plainly, to its place; tell whether they are that block's."""
        index, begin, block = place
        begun = self._plain.unread
        if len(begun) < _HEADER or begun[:_HEADER] != piece_header(index, begin, len(block)):
            return False
        self._head_views[0][:] = begun[:_HEADER]
        cast("memoryview", block)[: len(begun) - _HEADER] = begun[_HEADER:]
        self._begun = len(begun)
        self._plain.clear()
        return True

    def _adapt(self, whole: int, expected: int) -> None:
        """Expect more blocks when a read brought all, and fewer when it brought few."""
        if whole == expected:
            self._wanted = min(2 * self._wanted, MOST_BLOCKS)
        elif whole < self._wanted // 4:
            self._wanted = max(self._wanted // 2, LEAST_BLOCKS)

    # --- something else came -----------------------------------------------------------------------------

    def _is_begun(self, number: int, count: int) -> bool:
        """Tell whether the last `count` bytes are a part of the message of a place."""
        index, begin, block = self._places[number]
        seen = min(count, _HEADER)
        expected = piece_header(index, begin, len(block))
        return count < _HEADER + len(block) and self._head_views[number][:seen] == expected[:seen]

    def _reread(self, count: int) -> list[Message]:
        """Read the `count` bytes that are in the places as what they are: first those that are as expected."""
        came = b"".join(self._buffers())[:count]
        self._begun, self._places = 0, ()
        self._plain.writable(count)[:count] = came
        return self._plain.received(count)
