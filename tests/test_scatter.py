"""Blocks that are read straight into their places: whatever else comes, no message is lost and no byte copied twice."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import payload
from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH
from torrent_client.errors import ProtocolViolation
from torrent_client.protocol.messages import Choke, Have, KeepAlive, Message, Piece, Unknown
from torrent_client.protocol.scatter import LEAST_BLOCKS, MOST_BLOCKS, ScatterReader, nowhere


class Pieces:
    """Blocks that were asked for, and the memory where they belong.

    Args:
        lengths: bytes of each block.
    """

    def __init__(self, *lengths: int) -> None:
        self.memory = [memoryview(bytearray(length)) for length in lengths]
        self.places = [Piece(7, number * BLOCK_SIZE, block) for number, block in enumerate(self.memory)]
        self.data = [payload(length + number)[number:] for number, length in enumerate(lengths)]
        self.asked = list(self.places)

    def answer(self, number: int) -> Piece:
        """Return what a peer sends for a block."""
        return Piece(7, number * BLOCK_SIZE, self.data[number])

    def expect(self, count: int) -> Sequence[Piece]:
        """Return the places of the blocks that are asked for and not here yet."""
        return self.asked[:count]

    def took(self, messages: Sequence[Message]) -> None:
        """Note that blocks came: in whatever memory, they are copied away."""
        for message in messages:
            if isinstance(message, Piece):
                number = message.begin // BLOCK_SIZE
                if message.block is not self.memory[number]:
                    self.memory[number][:] = message.block
                self.asked = [place for place in self.asked if place.begin != message.begin]


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
        batch = reader.received(count)
        messages += [each._replace(block=bytes(each.block)) if isinstance(each, Piece) else each for each in batch]
        pieces.took(batch)
    return messages


def test_expected_blocks_are_read_into_their_places() -> None:
    """The message that comes out is the place that went in."""
    pieces, reader = Pieces(BLOCK_SIZE, BLOCK_SIZE, 5), ScatterReader(MAX_MESSAGE_LENGTH)
    data = b"".join(pieces.answer(number).encode() for number in range(3))
    buffers = reader.writable(pieces.expect)
    assert [len(buffer) for buffer in buffers] == [13, BLOCK_SIZE, 13, BLOCK_SIZE, 13, 5]
    for buffer in buffers:
        buffer[:], data = data[: len(buffer)], data[len(buffer) :]
    messages = reader.received(sum(map(len, buffers)))
    assert all(message is place for message, place in zip(messages, pieces.places, strict=True))
    assert [bytes(block) for block in pieces.memory] == pieces.data


@pytest.mark.parametrize("cut", [1, 4, 12, 13, 14, 5000, BLOCK_SIZE + 12, BLOCK_SIZE + 13, BLOCK_SIZE + 14])
def test_a_read_may_end_anywhere(cut: int) -> None:
    """The next read goes on behind the last byte, and the blocks are in their places all the same."""
    pieces, reader = Pieces(BLOCK_SIZE, BLOCK_SIZE), ScatterReader(MAX_MESSAGE_LENGTH)
    data = pieces.answer(0).encode() + pieces.answer(1).encode()
    assert feed(reader, pieces, data[:cut]) + feed(reader, pieces, data[cut:]) == [pieces.answer(0), pieces.answer(1)]
    assert [bytes(block) for block in pieces.memory] == pieces.data


others = st.sampled_from([Have(3), Choke(), KeepAlive(), Unknown(99, b"??"), Unknown(99, bytes(40_000))])


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 9) | others, max_size=16),
    st.lists(st.integers(1, 50_000), max_size=8),
    st.lists(st.integers(1, BLOCK_SIZE), min_size=10, max_size=10),
    st.booleans(),
)
def test_any_stream_cut_anywhere_gives_its_messages(
    stream: list[int | Message], cuts: list[int], lengths: list[int], equal: bool
) -> None:
    """Blocks in whatever order, twice or never, with anything between them, and the network cuts where it likes."""
    pieces = Pieces(*([BLOCK_SIZE] * 10 if equal else lengths))
    messages = [pieces.answer(each) if isinstance(each, int) else each for each in stream]
    data = b"".join(message.encode() for message in messages)
    reader, came, start = ScatterReader(MAX_MESSAGE_LENGTH), list[Message](), 0
    for cut in cuts:
        came += feed(reader, pieces, data[start : start + cut])
        start += cut
    came += feed(reader, pieces, data[start:])
    assert came == messages
    for number in {each for each in stream if isinstance(each, int)}:
        assert pieces.memory[number] == pieces.data[number]


def test_after_something_else_blocks_are_read_into_their_places_again() -> None:
    """What was read plainly of a block is moved to its place, and the rest goes there by itself."""
    pieces, reader = Pieces(*[BLOCK_SIZE] * 4), ScatterReader(MAX_MESSAGE_LENGTH)
    feed(reader, pieces, Have(1).encode() + pieces.answer(0).encode() + pieces.answer(1).encode()[:100])
    buffers = reader.writable(pieces.expect)
    assert len(buffers[0]) == BLOCK_SIZE + 13 - 100
    assert buffers[0].obj is pieces.memory[1].obj


def test_a_block_that_is_half_here_stays_where_it_is() -> None:
    """Even if it is asked of somebody else now, or belongs elsewhere: its bytes came, and the rest follows."""
    pieces, reader = Pieces(BLOCK_SIZE, BLOCK_SIZE), ScatterReader(MAX_MESSAGE_LENGTH)
    answers = [pieces.answer(number).encode() for number in range(2)]
    feed(reader, pieces, answers[0][:1000])
    pieces.asked = [Piece(7, 0, memoryview(bytearray(BLOCK_SIZE))), pieces.places[1]]
    buffers = reader.writable(pieces.expect)
    assert [len(buffer) for buffer in buffers] == [BLOCK_SIZE + 13 - 1000, 13, BLOCK_SIZE], "one block, two places"
    assert buffers[0].obj is pieces.memory[0].obj
    pieces.asked = []
    assert feed(reader, pieces, answers[0][1000:]) == [pieces.answer(0)]


def test_where_nothing_is_expected_a_block_that_is_half_here_is_read_to_its_end() -> None:
    """A limit or the end of the download came in between."""
    pieces, reader = Pieces(BLOCK_SIZE), ScatterReader(MAX_MESSAGE_LENGTH)
    data = pieces.answer(0).encode()
    feed(reader, pieces, data[:7])
    (head, block) = reader.writable(nowhere)
    assert (len(head), len(block)) == (6, BLOCK_SIZE)
    head[:4] = data[7:11]  # no more than a part of the first buffer
    assert reader.received(4) == []
    assert feed(reader, pieces, data[11:]) == [pieces.answer(0)]


def test_reads_grow_as_long_as_they_are_filled() -> None:
    """A read that was not filled to a quarter is followed by a smaller one."""
    pieces, reader = Pieces(*[BLOCK_SIZE] * 400), ScatterReader(MAX_MESSAGE_LENGTH)
    sizes = []
    for _ in range(7):
        number = 400 - len(pieces.asked)
        sizes.append(len(reader.writable(pieces.expect)) // 2)
        whole = range(number, min(400, number + sizes[-1]))
        feed(reader, pieces, b"".join(pieces.answer(each).encode() for each in whole))
    assert sizes[:5] == [LEAST_BLOCKS, 8, 16, 32, 64]
    assert max(sizes) == MOST_BLOCKS
    for _ in range(10):
        number = 400 - len(pieces.asked)
        feed(reader, pieces, pieces.answer(number).encode())
    assert len(reader.writable(pieces.expect)) // 2 == LEAST_BLOCKS


def test_a_huge_length_is_refused() -> None:
    """Between blocks as everywhere."""
    pieces, reader = Pieces(BLOCK_SIZE, BLOCK_SIZE), ScatterReader(MAX_MESSAGE_LENGTH)
    with pytest.raises(ProtocolViolation, match="the limit is"):
        feed(reader, pieces, pieces.answer(0).encode() + (2**31).to_bytes(4, "big") + bytes(20))
