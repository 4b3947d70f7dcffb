"""The bytes that two peers exchange: the handshake, then length-prefixed messages.

    handshake   | 19 | "BitTorrent protocol" | reserved 8 | info_hash 20 | peer_id 20 |   68 bytes
    message     | length 4 | id 1 | payload length-1 |        length 0 is a keep-alive

    id  name            payload                            id  name      payload
    0   choke           -                                  6   request   index 4, begin 4, length 4
    1   unchoke         -                                  7   piece     index 4, begin 4, block
    2   interested      -                                  8   cancel    index 4, begin 4, length 4
    3   not interested  -                                  9   port      port 2
    4   have            index 4                            20  extended  extension id 1, payload
    5   bitfield        one bit a piece, first piece in the high bit of the first byte

With the Fast extension, if both sides announce it:

    13  suggest piece   index 4                            16  reject        index 4, begin 4, length 4
    14  have all        -                                  17  allowed fast  index 4
    15  have none       -

All numbers are big-endian. `MessageReader` cuts a stream into messages: the caller fills its buffer
(`writable`, so that a socket can `recv_into` it) and gets every message that is whole (`received`).

Spec: BEP 3 (peer protocol), BEP 5 (port), BEP 6 (fast extension), BEP 10 (extended).
Thread: pure; a MessageReader belongs to its connection's reader thread.
Lock: none.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_START
from torrent_client.errors import HandshakeError, ProtocolViolation

PROTOCOL: Final = b"\x13BitTorrent protocol"
HANDSHAKE_LENGTH: Final = 68

RESERVED_EXTENSIONS: Final = (5, 0x10)
"""Byte and bit of the reserved field that announce the extension protocol (BEP 10)."""

RESERVED_DHT: Final = (7, 0x01)
"""Byte and bit of the reserved field that announce a DHT node (BEP 5)."""

RESERVED_FAST: Final = (7, 0x04)
"""Byte and bit of the reserved field that announce the Fast extension (BEP 6)."""


class MessageId(IntEnum):
    """The byte after a message's length."""

    CHOKE = 0
    UNCHOKE = 1
    INTERESTED = 2
    NOT_INTERESTED = 3
    HAVE = 4
    BITFIELD = 5
    REQUEST = 6
    PIECE = 7
    CANCEL = 8
    PORT = 9
    SUGGEST = 13
    HAVE_ALL = 14
    HAVE_NONE = 15
    REJECT = 16
    ALLOWED_FAST = 17
    EXTENDED = 20


_U32 = Struct(">I")
_HEAD = Struct(">IB")
_HEAD_U32 = Struct(">IBI")
_HEAD_U16 = Struct(">IBH")
_HEAD_REQUEST = Struct(">IBIII")
_U32_PAIR = Struct(">II")
_U32_TRIPLE = Struct(">III")

_HEAD_BLOCK = Struct(">IBII")
HEADER_LENGTH: Final = _HEAD_BLOCK.size
"""Bytes before the block in a `piece` message: length, id, piece index, begin."""

_PIECE_ID: Final = int(MessageId.PIECE)
"""Compared with every block's id byte: an IntEnum's member takes three times as long."""

_REQUEST_ID: Final = int(MessageId.REQUEST)
_REQUEST_LENGTH: Final = 13
"""The length prefix of a `request`: id, index, begin, length."""

_INDEX_END: Final = 9
"""Bytes of a block's header up to the end of the index."""

_PIECE_OVERHEAD: Final = 9
"""Bytes of a `piece` message's length that are not the block: id, index, begin."""


class Handshake(NamedTuple):
    """The first 68 bytes each way (BEP 3).

    `info_hash` and `peer_id` are 20 bytes, `reserved` is 8 bytes of feature bits.
    """

    info_hash: bytes
    peer_id: bytes
    reserved: bytes = bytes(8)

    def encode(self) -> bytes:
        """Return the 68 bytes."""
        return PROTOCOL + self.reserved + self.info_hash + self.peer_id

    @classmethod
    def decode(cls, data: bytes) -> "Handshake":
        """Read 68 bytes; unknown reserved bits are ignored.

        Raises:
            HandshakeError: they are not a BitTorrent handshake.
        """
        if len(data) != HANDSHAKE_LENGTH or not data.startswith(PROTOCOL):
            raise HandshakeError(f"not a BitTorrent handshake: it begins with {bytes(data[:20])!r}")
        return cls(reserved=bytes(data[20:28]), info_hash=bytes(data[28:48]), peer_id=bytes(data[48:68]))

    @property
    def supports_extensions(self) -> bool:
        """Whether the peer speaks the extension protocol (BEP 10)."""
        byte, bit = RESERVED_EXTENSIONS
        return bool(self.reserved[byte] & bit)

    @property
    def supports_dht(self) -> bool:
        """Whether the peer has a DHT node (BEP 5)."""
        byte, bit = RESERVED_DHT
        return bool(self.reserved[byte] & bit)

    @property
    def supports_fast(self) -> bool:
        """Whether the peer speaks the Fast extension (BEP 6)."""
        byte, bit = RESERVED_FAST
        return bool(self.reserved[byte] & bit)


def reserved_bits(*features: tuple[int, int]) -> bytes:
    """Return the 8 reserved bytes that announce features, each a byte and a bit."""
    reserved = bytearray(8)
    for byte, bit in features:
        reserved[byte] |= bit
    return bytes(reserved)


class KeepAlive(NamedTuple):
    """Says "still here"; sent about every two minutes."""

    def encode(self) -> bytes:
        """Return 4 zero bytes."""
        return bytes(4)


class Choke(NamedTuple):
    """The sender will answer no requests until it unchokes; what was asked is forgotten."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.CHOKE)


class Unchoke(NamedTuple):
    """The sender will answer requests."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.UNCHOKE)


class Interested(NamedTuple):
    """The receiver has pieces that the sender wants."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.INTERESTED)


class NotInterested(NamedTuple):
    """The receiver has nothing that the sender wants."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.NOT_INTERESTED)


class Have(NamedTuple):
    """The sender has completed the piece `piece_index`."""

    piece_index: int

    def encode(self) -> bytes:
        """Return the 9 bytes."""
        return _HEAD_U32.pack(5, MessageId.HAVE, self.piece_index)


class BitfieldMessage(NamedTuple):
    """All pieces that the sender has, one bit each; only sensible as the first message."""

    bits: bytes

    def encode(self) -> bytes:
        """Return 5 bytes and the bits."""
        return _HEAD.pack(1 + len(self.bits), MessageId.BITFIELD) + self.bits


class Request(NamedTuple):
    """Asks for `length` bytes at `begin` of piece `piece_index`."""

    piece_index: int
    begin: int
    length: int

    def encode(self) -> bytes:
        """Return the 17 bytes."""
        return _HEAD_REQUEST.pack(13, MessageId.REQUEST, *self)


class Piece(NamedTuple):
    """One block: the bytes at `begin` of piece `piece_index`.

    `block` points into the reader's buffer: use or copy it before the next read.
    """

    piece_index: int
    begin: int
    block: memoryview | bytes

    def encode(self) -> bytes:
        """Return 13 bytes and the block."""
        return piece_header(self.piece_index, self.begin, len(self.block)) + bytes(self.block)


class Cancel(NamedTuple):
    """Takes a request back, because another peer answered first."""

    piece_index: int
    begin: int
    length: int

    def encode(self) -> bytes:
        """Return the 17 bytes."""
        return _HEAD_REQUEST.pack(13, MessageId.CANCEL, *self)


class Port(NamedTuple):
    """The UDP port of the sender's DHT node (BEP 5)."""

    port: int

    def encode(self) -> bytes:
        """Return the 7 bytes."""
        return _HEAD_U16.pack(3, MessageId.PORT, self.port)


class SuggestPiece(NamedTuple):
    """The sender has piece `piece_index` at hand, so that it is cheap to send (BEP 6)."""

    piece_index: int

    def encode(self) -> bytes:
        """Return the 9 bytes."""
        return _HEAD_U32.pack(5, MessageId.SUGGEST, self.piece_index)


class HaveAll(NamedTuple):
    """The sender has every piece: stands for a bitfield (BEP 6)."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.HAVE_ALL)


class HaveNone(NamedTuple):
    """The sender has no piece: stands for a bitfield (BEP 6)."""

    def encode(self) -> bytes:
        """Return the 5 bytes."""
        return _HEAD.pack(1, MessageId.HAVE_NONE)


class Reject(NamedTuple):
    """The sender will not answer this request (BEP 6)."""

    piece_index: int
    begin: int
    length: int

    def encode(self) -> bytes:
        """Return the 17 bytes."""
        return _HEAD_REQUEST.pack(13, MessageId.REJECT, *self)


class AllowedFast(NamedTuple):
    """The sender answers requests for piece `piece_index` even while it chokes (BEP 6)."""

    piece_index: int

    def encode(self) -> bytes:
        """Return the 9 bytes."""
        return _HEAD_U32.pack(5, MessageId.ALLOWED_FAST, self.piece_index)


class Extended(NamedTuple):
    """A message of the extension protocol (BEP 10); extension id 0 is its handshake."""

    extension_id: int
    payload: bytes

    def encode(self) -> bytes:
        """Return 6 bytes and the payload."""
        return _HEAD.pack(2 + len(self.payload), MessageId.EXTENDED) + bytes([self.extension_id]) + self.payload


class Unknown(NamedTuple):
    """A message that this client does not know: to be ignored, as BEP 3 wants."""

    message_id: int
    payload: bytes

    def encode(self) -> bytes:
        """Return the message as it came."""
        return _HEAD.pack(1 + len(self.payload), self.message_id) + self.payload


Message: TypeAlias = (
    KeepAlive
    | Choke
    | Unchoke
    | Interested
    | NotInterested
    | Have
    | BitfieldMessage
    | Request
    | Piece
    | Cancel
    | Port
    | SuggestPiece
    | HaveAll
    | HaveNone
    | Reject
    | AllowedFast
    | Extended
    | Unknown
)


def piece_header(index: int, begin: int, length: int) -> bytes:
    """Return the 13 bytes that stand before a block of `length` bytes in a `piece` message."""
    return _HEAD_BLOCK.pack(_PIECE_OVERHEAD + length, MessageId.PIECE, index, begin)


@lru_cache(maxsize=8)
def _around_the_index(lengths: tuple[int, ...]) -> list[bytes]:
    """Return the headers of neighbouring blocks, joined, but cut where each has the piece's index."""
    headers = b"".join([piece_header(0, number * BLOCK_SIZE, length) for number, length in enumerate(lengths)])
    cuts = [0, *range(_INDEX_END, len(headers), HEADER_LENGTH), len(headers) + 4]
    return [headers[begin : end - 4] for begin, end in pairwise(cuts)]


def piece_headers(index: int, lengths: tuple[int, ...]) -> bytes:
    """Return the 13 bytes that stand before each block of a piece, joined.

    Args:
        index: the piece: they differ from another piece's in that alone, so that most of the work is done once.
        lengths: bytes of each block, from the first one on.
    """
    return index.to_bytes(4, "big").join(_around_the_index(lengths))


def encode_requests(requests: Sequence[Request]) -> bytes:
    """Return many `request` messages as one string, 17 bytes each."""
    pack, request_id = _HEAD_REQUEST.pack, int(MessageId.REQUEST)
    return b"".join([pack(13, request_id, index, begin, length) for index, begin, length in requests])


def _expect(name: str, payload: bytes, length: int) -> None:
    """Refuse a fixed-size message of another size."""
    if len(payload) != length:
        raise ProtocolViolation(f"a {name} message has {length} bytes of payload, not {len(payload)} (BEP 3)")


def _empty(message: Message) -> Callable[[bytes], Message]:
    """Return the parser of a message without payload."""

    def parse(payload: bytes) -> Message:
        _expect(type(message).__name__.lower(), payload, 0)
        return message

    return parse


def _indexed(message: type[Have | SuggestPiece | AllowedFast]) -> Callable[[bytes], Message]:
    """Return the parser of a message that is a piece index."""

    def parse(payload: bytes) -> Message:
        _expect(message.__name__.lower(), payload, 4)
        return message(*_U32.unpack(payload))

    return parse


def _block(message: type[Request | Cancel | Reject]) -> Callable[[bytes], Message]:
    """Return the parser of a message that names a block."""

    def parse(payload: bytes) -> Message:
        _expect(message.__name__.lower(), payload, 12)
        return message(*_U32_TRIPLE.unpack(payload))

    return parse


def _parse_piece(payload: bytes) -> Message:
    """Only a `piece` too short for its header comes here; `MessageReader.received` reads the good ones."""
    raise ProtocolViolation(f"a piece message has at least 8 bytes of payload, not {len(payload)} (BEP 3)")


def _parse_port(payload: bytes) -> Message:
    _expect("port", payload, 2)
    return Port(int.from_bytes(payload, "big"))


def _parse_extended(payload: bytes) -> Message:
    if not payload:
        raise ProtocolViolation("an extended message has an extension id (BEP 10)")
    return Extended(payload[0], payload[1:])


_PARSERS: Final[dict[int, Callable[[bytes], Message]]] = {
    MessageId.CHOKE: _empty(Choke()),
    MessageId.UNCHOKE: _empty(Unchoke()),
    MessageId.INTERESTED: _empty(Interested()),
    MessageId.NOT_INTERESTED: _empty(NotInterested()),
    MessageId.HAVE: _indexed(Have),
    MessageId.BITFIELD: BitfieldMessage,
    MessageId.REQUEST: _block(Request),
    MessageId.PIECE: _parse_piece,
    MessageId.CANCEL: _block(Cancel),
    MessageId.PORT: _parse_port,
    MessageId.SUGGEST: _indexed(SuggestPiece),
    MessageId.HAVE_ALL: _empty(HaveAll()),
    MessageId.HAVE_NONE: _empty(HaveNone()),
    MessageId.REJECT: _block(Reject),
    MessageId.ALLOWED_FAST: _indexed(AllowedFast),
    MessageId.EXTENDED: _parse_extended,
}


class MessageReader:
    """Cuts the bytes that a peer sends into messages, without copying the blocks.

    Args:
        max_length: largest length prefix accepted, in bytes; anything more is a protocol violation
            before a byte of it is stored.
    """

    def __init__(self, max_length: int = MAX_MESSAGE_LENGTH) -> None:
        """Begin with a small buffer; it grows when reads fill it."""
        self._max_length = max_length
        self._buffer = bytearray(RECEIVE_BUFFER_START)
        self._view = memoryview(self._buffer)
        self._start = 0  # first byte not yet given out as a message
        self._end = 0  # one past the last byte received
        self._size_wanted = len(self._buffer)

    @property
    def partial(self) -> int:
        """How many bytes there are of a message that is not whole yet."""
        return self._end - self._start

    @property
    def unread(self) -> memoryview:
        """The bytes of a message that is not whole yet."""
        return self._view[self._start : self._end]

    def clear(self) -> None:
        """Forget the bytes of a message that is not whole yet: somebody else reads it."""
        self._start = self._end = 0

    def writable(self, least: int = 1) -> memoryview:
        """Return the free part of the buffer for the next read: `least` bytes or more.

        Blocks of earlier `Piece` messages are overwritten by it.
        """
        pending = self._end - self._start
        self._size_wanted = max(self._size_wanted, pending + least)
        if self._size_wanted > len(self._buffer):
            buffer = bytearray(self._size_wanted)
            view = memoryview(buffer)
            view[:pending] = self._view[self._start : self._end]
            self._buffer, self._view = buffer, view
        elif self._start:
            self._view[:pending] = self._view[self._start : self._end]
        self._start, self._end = 0, pending
        return self._view[pending:]

    def received(self, count: int) -> list[Message]:
        """Take note of `count` bytes written into `writable()`; return the messages that are now whole.

        Raises:
            ProtocolViolation: a length prefix above the limit, or a known message of a wrong size.
        """
        self._end += count
        position, end, buffer, view = self._start, self._end, self._buffer, self._view
        if end == len(buffer) < RECEIVE_BUFFER_MAX:
            self._size_wanted = 2 * len(buffer)  # a full read: there is more where that came from
        unpack_length, unpack_pair, unpack_triple = _U32.unpack_from, _U32_PAIR.unpack_from, _U32_TRIPLE.unpack_from
        max_length = self._max_length
        messages: list[Message] = []
        while end - position >= 4:
            (length,) = unpack_length(buffer, position)
            if length > max_length:
                raise ProtocolViolation(f"a message of {length:,} bytes; the limit is {max_length:,}")
            start = position + 4
            if end - start < length:
                self._size_wanted = max(self._size_wanted, 4 + length)
                break
            position = start + length
            if length >= _PIECE_OVERHEAD and buffer[start] == _PIECE_ID:
                index, begin = unpack_pair(buffer, start + 1)
                messages.append(Piece(index, begin, view[start + _PIECE_OVERHEAD : position]))
            elif length == _REQUEST_LENGTH and buffer[start] == _REQUEST_ID:
                messages.append(Request(*unpack_triple(buffer, start + 1)))
            elif length:
                messages.append(decode_message(buffer[start], bytes(view[start + 1 : position])))
            else:
                messages.append(KeepAlive())
        self._start = position
        return messages


def decode_message(message_id: int, payload: bytes) -> Message:
    """Return the message of one id byte and its payload.

    Raises:
        ProtocolViolation: a known message of a wrong size.
    """
    parser = _PARSERS.get(message_id)
    return parser(payload) if parser else Unknown(message_id, payload)
