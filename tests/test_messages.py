"""Handshake and messages: every one byte for byte, every way of arriving, every limit."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import payload
from torrent_client.config import BLOCK_SIZE, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_START
from torrent_client.errors import HandshakeError, ProtocolViolation
from torrent_client.protocol.messages import (
    HANDSHAKE_LENGTH,
    RESERVED_EXTENSIONS,
    RESERVED_FAST,
    AllowedFast,
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Handshake,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    Message,
    MessageId,
    MessageReader,
    NotInterested,
    Piece,
    Port,
    Reject,
    Request,
    SuggestPiece,
    Unchoke,
    Unknown,
    decode_message,
    encode_requests,
    piece_header,
    reserved_bits,
)

WIRE: list[tuple[Message, str]] = [
    (KeepAlive(), "00000000"),
    (Choke(), "00000001 00"),
    (Unchoke(), "00000001 01"),
    (Interested(), "00000001 02"),
    (NotInterested(), "00000001 03"),
    (Have(0x01020304), "00000005 04 01020304"),
    (BitfieldMessage(b""), "00000001 05"),
    (BitfieldMessage(b"\xd6\xc0"), "00000003 05 d6c0"),
    (Request(1, 0x4000, 0x4000), "0000000d 06 00000001 00004000 00004000"),
    (Request(2**32 - 1, 2**32 - 1, 2**32 - 1), "0000000d 06 ffffffff ffffffff ffffffff"),
    (Piece(2, 0x8000, b"data"), "0000000d 07 00000002 00008000 64617461"),
    (Piece(3, 5, b""), "00000009 07 00000003 00000005"),
    (Cancel(1, 0x4000, 0x4000), "0000000d 08 00000001 00004000 00004000"),
    (Port(6881), "00000003 09 1ae1"),
    (SuggestPiece(7), "00000005 0d 00000007"),
    (HaveAll(), "00000001 0e"),
    (HaveNone(), "00000001 0f"),
    (Reject(1, 2, 3), "0000000d 10 00000001 00000002 00000003"),
    (AllowedFast(7), "00000005 11 00000007"),
    (Extended(0, b"de"), "00000004 14 00 6465"),
    (Extended(255, b""), "00000002 14 ff"),
    (Unknown(21, b"??"), "00000003 15 3f3f"),
    (Unknown(255, b""), "00000001 ff"),
]


def receive(reader: MessageReader, data: bytes) -> list[Message]:
    """Hand bytes to a reader as `recv` does, as many at a time as it has room for; copy the blocks."""
    messages: list[Message] = []
    while data:
        room = reader.writable()
        assert len(room) > 0, "a read into no room looks like the end of the connection"
        part, data = data[: len(room)], data[len(room) :]
        room[: len(part)] = part
        for message in reader.received(len(part)):
            kept = message._replace(block=bytes(message.block)) if isinstance(message, Piece) else message
            messages.append(kept)
    return messages


def receive_in_parts(reader: MessageReader, parts: Iterable[bytes]) -> list[Message]:
    """Hand several parts to a reader, one after the other."""
    return [message for part in parts for message in receive(reader, part)]


def in_every_way(data: bytes, max_length: int = 2**20) -> list[Message]:
    """Return the messages in `data`, which must be the same ones however it arrives.

    Whole; byte by byte; in two parts, cut anywhere; and with the beginning of another message after it.
    """
    reader = MessageReader(max_length)
    messages = receive(reader, data)
    assert reader.partial == 0
    assert receive_in_parts(MessageReader(max_length), (bytes([byte]) for byte in data)) == messages
    for cut in range(1, min(len(data), 100)):
        assert receive_in_parts(MessageReader(max_length), (data[:cut], data[cut:])) == messages
    for trailing in (b"\0", b"\0\0\0", b"\0\0\0\x05", b"\0\0\0\x05\x04\0\0\0"):
        reader = MessageReader(max_length)
        assert receive(reader, data + trailing) == messages
        assert reader.partial == len(trailing)
    return messages


def framed(message_id: int, body: bytes) -> bytes:
    """Return a message with any id and payload."""
    return (1 + len(body)).to_bytes(4, "big") + bytes([message_id]) + body


# --- every message ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=lambda value: type(value).__name__)
def test_every_message_is_these_bytes(message: Message, wire: str) -> None:
    """As BEP 3, 5, 6 and 10 write them, both ways, however they arrive."""
    data = bytes.fromhex(wire)
    assert message.encode() == data
    (received,) = in_every_way(data)
    assert received == message
    assert type(received) is type(message)


def test_every_known_id_is_tried() -> None:
    """The table above has an example of each."""
    assert {bytes.fromhex(wire)[4] for _, wire in WIRE[1:]} >= set(MessageId)


def test_a_stream_of_all_messages_is_cut_where_they_end() -> None:
    """In order, none lost, none doubled."""
    data = b"".join(message.encode() for message, _ in WIRE)
    assert in_every_way(data) == [message for message, _ in WIRE]


def test_many_requests_are_encoded_as_one_by_one() -> None:
    """A batch is nothing but its messages."""
    requests = [Request(index, 16_384 * index, 5) for index in range(5)]
    assert encode_requests(requests) == b"".join(request.encode() for request in requests)
    assert encode_requests([]) == b""


def test_a_piece_is_its_header_and_its_block() -> None:
    """The header alone is sent before blocks that the kernel copies."""
    block = payload(100)
    assert piece_header(4, 16_384, 100) + block == Piece(4, 16_384, memoryview(block)).encode()


@pytest.mark.parametrize(
    ("message_id", "length", "name"),
    [
        (MessageId.CHOKE, 0, "choke"),
        (MessageId.UNCHOKE, 0, "unchoke"),
        (MessageId.INTERESTED, 0, "interested"),
        (MessageId.NOT_INTERESTED, 0, "notinterested"),
        (MessageId.HAVE, 4, "have"),
        (MessageId.REQUEST, 12, "request"),
        (MessageId.CANCEL, 12, "cancel"),
        (MessageId.PORT, 2, "port"),
        (MessageId.SUGGEST, 4, "suggestpiece"),
        (MessageId.HAVE_ALL, 0, "haveall"),
        (MessageId.HAVE_NONE, 0, "havenone"),
        (MessageId.REJECT, 12, "reject"),
        (MessageId.ALLOWED_FAST, 4, "allowedfast"),
    ],
)
def test_a_fixed_message_of_another_size_is_a_violation(message_id: MessageId, length: int, name: str) -> None:
    """A byte more or a byte less; the error names the message and both sizes."""
    for wrong in {length - 1, length + 1, 0, 1000} - {length, -1}:
        with pytest.raises(ProtocolViolation) as caught:
            receive(MessageReader(), framed(message_id, bytes(wrong)))
        assert name in str(caught.value).replace(" ", "").lower()
        assert f"{length} bytes" in str(caught.value)
        assert f"not {wrong} " in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_piece_without_its_header_is_a_violation(length: int) -> None:
    """It must tell at least where its block belongs."""
    with pytest.raises(ProtocolViolation, match=f"at least 8 bytes of payload, not {length}"):
        receive(MessageReader(), framed(MessageId.PIECE, bytes(length)))


def test_an_extended_message_without_id_is_a_violation() -> None:
    """There is nothing to tell what it extends."""
    with pytest.raises(ProtocolViolation, match="extension id"):
        receive(MessageReader(), framed(MessageId.EXTENDED, b""))


@pytest.mark.parametrize("message_id", sorted(set(range(256)) - set(MessageId)))
def test_unknown_messages_are_handed_on(message_id: int) -> None:
    """To be ignored by whoever gets them; a client of tomorrow is no attacker."""
    assert decode_message(message_id, b"?") == Unknown(message_id, b"?")


# --- cutting the stream -----------------------------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
bodies = st.binary(max_size=60)
messages_strategy = st.one_of(
    st.sampled_from([message for message, _ in WIRE]),
    st.builds(Request, u32, u32, u32),
    st.builds(Piece, u32, u32, bodies | st.builds(payload, st.integers(0, 3 * BLOCK_SIZE))),
    st.builds(Extended, st.integers(0, 255), bodies),
    st.builds(BitfieldMessage, bodies),
)


@settings(max_examples=50)
@given(st.lists(messages_strategy, max_size=12), st.lists(st.integers(1, 40_000), max_size=8))
def test_any_stream_cut_anywhere_gives_its_messages(messages: list[Message], cuts: list[int]) -> None:
    """Whatever was sent comes out, in order and unchanged, wherever the network cuts it."""
    data = b"".join(message.encode() for message in messages)
    parts, start = [], 0
    for cut in cuts:
        parts.append(data[start : start + cut])
        start += cut
    assert receive_in_parts(MessageReader(), [*parts, data[start:]]) == messages


def test_what_came_before_an_incomplete_message_is_not_held_back() -> None:
    """Whole messages are given out while the rest of the last one is on its way."""
    reader = MessageReader()
    have = Have(7).encode()
    assert receive(reader, Choke().encode() + have[:6]) == [Choke()]
    assert reader.partial == 6
    assert receive(reader, have[6:]) == [Have(7)]
    assert reader.partial == 0


@pytest.mark.parametrize("limit", [5, 100, BLOCK_SIZE + 9])
def test_the_limit_is_the_largest_length_prefix(limit: int) -> None:
    """A message of exactly that length passes, a byte more does not."""
    message = Unknown(99, bytes(limit - 1))
    assert receive(MessageReader(limit), message.encode()) == [message]
    with pytest.raises(ProtocolViolation, match=f"{limit + 1:,} bytes; the limit is {limit:,}"):
        receive(MessageReader(limit), Unknown(99, bytes(limit)).encode())


@pytest.mark.parametrize("length", [2**20 + 1, 2**31, 2**32 - 1])
def test_a_huge_length_is_refused_before_anything_is_allocated(length: int) -> None:
    """Four bytes from a stranger must not cost us four gigabytes."""
    reader = MessageReader()
    reader.writable()[:4] = length.to_bytes(4, "big")
    with pytest.raises(ProtocolViolation, match="the limit is 1,048,576"):
        reader.received(4)
    assert len(reader._buffer) == RECEIVE_BUFFER_START


def test_a_peer_that_says_nothing_costs_a_small_buffer() -> None:
    """Small messages never make it grow."""
    reader = MessageReader()
    for index in range(2 * RECEIVE_BUFFER_START // 9):
        receive(reader, Have(index).encode())
    assert len(reader._buffer) == RECEIVE_BUFFER_START


def test_full_reads_double_the_buffer_up_to_its_limit() -> None:
    """A read that fills the buffer means that there is more: bigger reads cost less for each block."""
    reader = MessageReader(2 * RECEIVE_BUFFER_MAX)
    sizes = []
    for _ in range(8):
        room = reader.writable()
        sizes.append(len(room))
        room[:] = BitfieldMessage(bytes(len(room) - 5)).encode()
        assert len(reader.received(len(room))) == 1
    assert sizes[0] == RECEIVE_BUFFER_START
    assert sizes[1:3] == [2 * RECEIVE_BUFFER_START, 4 * RECEIVE_BUFFER_START]
    assert sizes[-1] == sizes[-2] == RECEIVE_BUFFER_MAX


def test_a_read_that_leaves_a_byte_free_does_not_grow_the_buffer() -> None:
    """The socket was empty."""
    reader = MessageReader()
    room = reader.writable()
    room[:-1] = bytes(len(room) - 1)
    reader.received(len(room) - 1)
    assert len(reader.writable()) + reader.partial == RECEIVE_BUFFER_START


@pytest.mark.parametrize("size", [RECEIVE_BUFFER_START, RECEIVE_BUFFER_MAX - 1, RECEIVE_BUFFER_MAX + 77])
def test_a_message_larger_than_the_buffer_gets_room(size: int) -> None:
    """A bitfield of a huge torrent arrives whole, after and before other messages."""
    big = BitfieldMessage(payload(size))
    data = Have(1).encode() + big.encode() + Have(2).encode()
    for cut in (1, 13, 20, size):
        reader = MessageReader(2 * RECEIVE_BUFFER_MAX)
        assert receive_in_parts(reader, [data[:cut], data[cut:]]) == [Have(1), big, Have(2)]


def test_blocks_are_views_into_the_buffer() -> None:
    """Nothing is copied: a block is good until the next read, and that read overwrites it."""
    reader = MessageReader()
    data = Piece(1, 2, b"first").encode()
    room = reader.writable()
    room[: len(data)] = data
    (piece,) = reader.received(len(data))
    assert isinstance(piece, Piece)
    assert isinstance(piece.block, memoryview)
    assert piece.block.obj is reader._buffer
    assert piece.block == b"first"
    reader.writable()[: len(data)] = Piece(1, 2, b"other").encode()
    assert piece.block == b"other"


def test_what_is_left_of_a_read_is_moved_to_the_front() -> None:
    """The beginning of a message survives both the move within a buffer and the move to a larger one."""
    block = payload(BLOCK_SIZE)
    data = Piece(1, 0, block).encode()
    reader = MessageReader()
    first = data + data[:10_000]
    room = reader.writable()
    room[: len(first)] = first
    (whole,) = reader.received(len(first))
    assert isinstance(whole, Piece)
    assert whole.block == block
    assert reader.partial == 10_000
    room = reader.writable()  # moved left over the block that was given out
    assert len(room) == RECEIVE_BUFFER_START - 10_000
    assert receive(reader, data[10_000:] + data[:RECEIVE_BUFFER_START]) == [Piece(1, 0, block)] * 2
    big = BitfieldMessage(payload(100_000))
    assert receive(reader, big.encode()[:20]) == []
    assert len(reader.writable()) >= 100_005 - 20  # moved to a new buffer
    assert receive(reader, big.encode()[20:]) == [big]


# --- handshake --------------------------------------------------------------------------------------------

INFO_HASH, PEER_ID = bytes(range(20)), b"-PC0100-abcdefghijkl"


def test_the_handshake_is_these_68_bytes() -> None:
    """The length of the name, the name, 8 reserved bytes, info hash, peer id."""
    handshake = Handshake(INFO_HASH, PEER_ID)
    data = b"\x13BitTorrent protocol" + bytes(8) + INFO_HASH + PEER_ID
    assert handshake.encode() == data
    assert len(data) == HANDSHAKE_LENGTH
    assert Handshake.decode(data) == handshake


def test_the_parts_of_a_handshake_are_bytes_of_their_own() -> None:
    """They outlive the buffer that they were read from, and can be dictionary keys."""
    buffer = bytearray(Handshake(INFO_HASH, PEER_ID, b"reserved").encode())
    handshake = Handshake.decode(buffer)
    buffer[:] = bytes(len(buffer))
    assert handshake == Handshake(INFO_HASH, PEER_ID, b"reserved")
    assert {type(part) for part in handshake} == {bytes}


def mutations() -> Sequence[bytes]:
    """Return bytes that are nearly a handshake."""
    good = Handshake(INFO_HASH, PEER_ID).encode()
    wrong_name = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 1, 10, 19)]
    return [b"", good[:1], good[:20], good[:67], good + b"\0", b"GET / HTTP/1.1\r\n" + bytes(52), *wrong_name]


@pytest.mark.parametrize("data", mutations())
def test_anything_else_is_no_handshake(data: bytes) -> None:
    """Another length, another protocol: the error shows how it began, and no more of it."""
    with pytest.raises(HandshakeError, match="not a BitTorrent handshake") as caught:
        Handshake.decode(data)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("reserved", "extensions", "fast"),
    [
        ("0000000000000000", False, False),
        ("0000000000100000", True, False),
        ("0000000000000004", False, True),
        ("0000000000100004", True, True),
        ("ffffffffffffffff", True, True),
        ("ffffffffffefffff", False, True),
        ("fffffffffffffffb", True, False),
    ],
)
def test_features_are_single_bits_and_unknown_ones_are_ignored(reserved: str, extensions: bool, fast: bool) -> None:
    """BEP 6 and BEP 10; others may use the other bits."""
    handshake = Handshake.decode(Handshake(INFO_HASH, PEER_ID, bytes.fromhex(reserved)).encode())
    assert (handshake.supports_extensions, handshake.supports_fast) == (extensions, fast)


def test_our_features_are_announced_by_their_bits() -> None:
    """Alone, together, or none at all: then all bytes are zero."""
    assert reserved_bits() == bytes(8)
    assert reserved_bits(RESERVED_EXTENSIONS).hex() == "0000000000100000"
    assert reserved_bits(RESERVED_FAST).hex() == "0000000000000004"
    assert reserved_bits(RESERVED_EXTENSIONS, RESERVED_FAST).hex() == "0000000000100004"
