"""Blocks that are read straight into their places: whatever else comes, no message is lost and no byte copied twice."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import payload
from torrent_client.active_piece import ActivePiece, PieceBuffer
from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH
from torrent_client.errors import ProtocolViolation
from torrent_client.protocol.messages import Choke, Have, KeepAlive, Message, Piece, Unknown
from torrent_client.protocol.scatter import LEAST_BLOCKS, MOST_BLOCKS, BlockRun, ScatterReader, nowhere


class Pieces:
    """Pieces that were asked for, block by block, and the memory where they belong.

    Args:
        lengths: bytes of each piece.
    """

    def __init__(self, *lengths: int) -> None:
        self.pieces = [ActivePiece(index, length, "peer") for index, length in enumerate(lengths)]
        for piece in self.pieces:
            piece.move_in("peer", PieceBuffer(piece.length))
        self.data = [payload(length + index)[index:] for index, length in enumerate(lengths)]
        self.blocks = [(piece, number) for piece in self.pieces for number in range(piece.block_count)]
        self.asked = list(self.blocks)

    def answer(self, number: int) -> Piece:
        """Return what a peer sends for the block of this number."""
        piece, block = self.blocks[number]
        begin = block * BLOCK_SIZE
        return Piece(piece.index, begin, self.data[piece.index][begin : begin + BLOCK_SIZE])

    def stream(self, numbers: Iterable[int]) -> bytes:
        """Return the answers of some numbers, one after the other."""
        return b"".join(self.answer(number).encode() for number in numbers)

    def expect(self, count: int) -> Sequence[BlockRun]:
        """Return the places of the blocks that are asked for and not here yet."""
        runs: list[BlockRun] = []
        for piece, number in self.asked[:count]:
            last = runs[-1] if runs else None
            if last and last.piece_index == piece.index and last.first + last.block_count == number:
                runs[-1] = piece.run(last.first, last.block_count + 1)
            else:
                runs.append(piece.run(number, 1))
        return runs

    def took(self, message: Piece) -> None:
        """Note that a block came: in whatever memory, it is copied to the piece."""
        piece = self.pieces[message.piece_index]
        number = message.begin // BLOCK_SIZE
        piece.store(number, bytes(message.block), "peer")
        self.asked = [block for block in self.asked if block != (piece, number)]

    @property
    def is_right(self) -> bool:
        """Whether every block that came is in its place."""
        missing = set(self.asked)
        return all(
            bytes(piece.run(number, 1).parts[1]) == self.answer(each).block
            for each, (piece, number) in enumerate(self.blocks)
            if (piece, number) not in missing
        )


def feed(reader: ScatterReader, pieces: Pieces, data: bytes) -> list[Message]:
    """Let bytes arrive, which the reader reads as it likes; return what it makes of them, with copies of the blocks."""
    messages: list[Message] = []
    while data:
        count = 0
        for buffer in reader.writable(pieces.expect):
            part = data[count : count + len(buffer)]
            buffer[: len(part)] = part
            count += len(part)
        data = data[count:]
        for arrival in reader.received(count):
            for message in arrival.pieces() if isinstance(arrival, BlockRun) else [arrival]:
                messages.append(message._replace(block=bytes(message.block)) if isinstance(message, Piece) else message)
                if isinstance(message, Piece):
                    pieces.took(message)
    return messages


def new_reader() -> ScatterReader:
    """Return a reader at the start of a stream."""
    return ScatterReader(MAX_MESSAGE_LENGTH)


def test_expected_blocks_are_read_into_their_places() -> None:
    """What comes out is the run that went in, and the memory has the bytes."""
    pieces, reader = Pieces(2 * BLOCK_SIZE, 5), new_reader()
    data = pieces.stream(range(3))
    buffers = reader.writable(pieces.expect)
    assert [len(buffer) for buffer in buffers] == [13, BLOCK_SIZE, 13, BLOCK_SIZE, 13, 5]
    for buffer in buffers:
        buffer[:], data = data[: len(buffer)], data[len(buffer) :]
    runs = reader.received(sum(map(len, buffers)))
    assert [(run.piece_index, run.block_count) for run in runs if isinstance(run, BlockRun)] == [(0, 2), (1, 1)]
    assert [bytes(piece.data) for piece in pieces.pieces] == pieces.data


@pytest.mark.parametrize("cut", [1, 4, 12, 13, 14, 5000, BLOCK_SIZE + 12, BLOCK_SIZE + 13, BLOCK_SIZE + 14])
@pytest.mark.parametrize("lengths", [(2 * BLOCK_SIZE,), (BLOCK_SIZE, BLOCK_SIZE), (BLOCK_SIZE + 7,)])
def test_a_read_may_end_anywhere(cut: int, lengths: tuple[int, ...]) -> None:
    """The next read goes on behind the last byte, and the blocks are in their places all the same."""
    pieces, reader = Pieces(*lengths), new_reader()
    data = pieces.stream(range(2))
    assert feed(reader, pieces, data[:cut]) + feed(reader, pieces, data[cut:]) == [pieces.answer(0), pieces.answer(1)]
    assert not pieces.asked
    assert pieces.is_right


others = st.sampled_from([Have(3), Choke(), KeepAlive(), Unknown(99, b"??"), Unknown(99, bytes(40_000))])


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 9) | others, max_size=16) | st.just(list(range(10))),
    st.lists(st.integers(1, 50_000), max_size=8),
    st.sampled_from([(10 * BLOCK_SIZE,), (4 * BLOCK_SIZE, 4 * BLOCK_SIZE, BLOCK_SIZE + 1), (1,) * 10, (3000,) * 10]),
)
def test_any_stream_cut_anywhere_gives_its_messages(
    stream: list[int | Message], cuts: list[int], lengths: tuple[int, ...]
) -> None:
    """Blocks in whatever order, twice or never, with anything between them, and the network cuts where it likes."""
    pieces, reader = Pieces(*lengths), new_reader()
    messages = [pieces.answer(each) if isinstance(each, int) else each for each in stream]
    data = b"".join(message.encode() for message in messages)
    came, start = list[Message](), 0
    for cut in cuts:
        came += feed(reader, pieces, data[start : start + cut])
        start += cut
    came += feed(reader, pieces, data[start:])
    assert came == messages
    assert len(pieces.asked) == 10 - len({each for each in stream if isinstance(each, int)})
    assert pieces.is_right


@pytest.mark.parametrize(
    ("before", "lengths"), [(0, (4 * BLOCK_SIZE,)), (1, (4 * BLOCK_SIZE,)), (3, (BLOCK_SIZE, 3 * BLOCK_SIZE))]
)
def test_blocks_before_something_else_are_in_their_places(before: int, lengths: tuple[int, ...]) -> None:
    """What comes after it in the same read is not, and is handed out as any message."""
    pieces, reader = Pieces(*lengths), new_reader()
    data = pieces.stream(range(before)) + Have(1).encode() + pieces.stream(range(before, 4))
    count = 0
    for buffer in reader.writable(pieces.expect):
        part = data[count : count + len(buffer)]
        buffer[: len(part)] = part
        count += len(part)
    messages = reader.received(count)
    runs = [message for message in messages if isinstance(message, BlockRun)]
    assert [piece.block for run in runs for piece in run.pieces()] == [
        pieces.answer(each).block for each in range(before)
    ]
    assert messages[len(runs) :] == [Have(1), *(pieces.answer(each) for each in range(before, 3))]


def test_after_something_else_blocks_are_read_into_their_places_again() -> None:
    """What was read plainly of a block is moved to its place, and the rest goes there by itself."""
    pieces, reader = Pieces(4 * BLOCK_SIZE), new_reader()
    feed(reader, pieces, Have(1).encode() + pieces.stream([0, 1])[: BLOCK_SIZE + 13 + 100])
    buffers = reader.writable(pieces.expect)
    assert len(buffers[0]) == BLOCK_SIZE + 13 - 100
    assert buffers[0].obj is pieces.pieces[0].data.obj


def test_a_block_that_is_half_here_stays_where_it_is() -> None:
    """Even if it belongs elsewhere now, or nowhere: its bytes came, and the rest follows."""
    pieces, reader = Pieces(4 * BLOCK_SIZE), new_reader()
    old, data, cut = pieces.pieces[0].data, pieces.stream([0, 1]), BLOCK_SIZE + 13 + 1000
    feed(reader, pieces, data[:cut])
    pieces.pieces[0].move_in("peer", PieceBuffer(4 * BLOCK_SIZE))
    for asked in ([2, 1, 3], [1, 2, 3], []):
        pieces.asked = [pieces.blocks[number] for number in asked]
        buffers = reader.writable(pieces.expect)
        others = [13, BLOCK_SIZE, 13, BLOCK_SIZE] if asked else []
        assert [len(buffer) for buffer in buffers] == [BLOCK_SIZE + 13 - 1000, *others], "one block, two places"
        assert buffers[0].obj is old.obj
    assert feed(reader, pieces, data[cut:]) == [pieces.answer(1)]


def test_a_read_that_brought_nothing_leaves_no_places() -> None:
    """A moment of silence after half a block, and what is expected changes: of what was, only that block goes on."""
    pieces, reader = Pieces(4 * BLOCK_SIZE), new_reader()
    feed(reader, pieces, pieces.stream([0, 1])[: BLOCK_SIZE + 13 + 1000])
    for asked in ([1, 2, 3], [2, 3, 1], [3], []):  # no `received` in between
        pieces.asked = [pieces.blocks[number] for number in asked]
        expected = [BLOCK_SIZE + 13 - 1000, *[13, BLOCK_SIZE] * len([number for number in asked if number != 1])]
        assert [len(buffer) for buffer in reader.writable(pieces.expect)] == expected, "one block, two places"


def test_the_rest_of_a_block_is_read_alone_when_a_read_brought_none_to_its_end() -> None:
    """On a slow line, which would wake the reader for each packet; a block that came whole ends that."""
    pieces, reader = Pieces(3 * BLOCK_SIZE), new_reader()
    data = pieces.stream(range(3))
    feed(reader, pieces, data[:1500])
    assert reader.wants_all
    (rest,) = reader.writable(pieces.expect)
    assert len(rest) == BLOCK_SIZE + 13 - 1500
    reader.received(0)
    assert feed(reader, pieces, data[1500 : BLOCK_SIZE + 2000]) == [pieces.answer(0)]
    assert reader.wants_all, "the last of these reads brought the begin of a block"
    assert feed(reader, pieces, data[BLOCK_SIZE + 2000 : 2 * BLOCK_SIZE + 26]) == [pieces.answer(1)]
    assert not reader.wants_all
    feed(reader, pieces, Have(1).encode() + data[-BLOCK_SIZE - 13 : -100])
    assert not reader.wants_all, "what is read plainly is read as it comes"


def test_where_nothing_is_expected_a_block_that_is_half_here_is_read_to_its_end() -> None:
    """A limit or the end of the download came in between."""
    pieces, reader = Pieces(BLOCK_SIZE), new_reader()
    data = pieces.stream([0])
    feed(reader, pieces, data[:7])
    (head, block) = reader.writable(nowhere)
    assert (len(head), len(block)) == (6, BLOCK_SIZE)
    head[:4] = data[7:11]  # no more than a part of the first buffer
    assert reader.received(4) == []
    assert feed(reader, pieces, data[11:]) == [pieces.answer(0)]


def test_reads_grow_as_long_as_they_are_filled() -> None:
    """A read that was not filled to a quarter is followed by a smaller one."""
    pieces, reader = Pieces(*[16 * BLOCK_SIZE] * 25), new_reader()
    sizes = []
    for _ in range(7):
        number = 400 - len(pieces.asked)
        sizes.append(len(reader.writable(pieces.expect)) // 2)
        feed(reader, pieces, pieces.stream(range(number, min(400, number + sizes[-1]))))
    assert sizes[:5] == [LEAST_BLOCKS, 8, 16, 32, 64]
    assert max(sizes) == MOST_BLOCKS
    for _ in range(10):
        feed(reader, pieces, pieces.stream([400 - len(pieces.asked)]))
    assert len(reader.writable(pieces.expect)) // 2 == LEAST_BLOCKS


def test_a_huge_length_is_refused() -> None:
    """Between blocks as everywhere."""
    pieces, reader = Pieces(2 * BLOCK_SIZE), new_reader()
    with pytest.raises(ProtocolViolation, match="the limit is"):
        feed(reader, pieces, pieces.stream([0]) + (2**31).to_bytes(4, "big") + bytes(20))
