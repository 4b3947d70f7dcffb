"""Peer messages in words: their name, each field with its bytes, what they mean, and where that is specified.

    0000000d 06 00000003 00004000 00004000
    request   length prefix 13 (0000000d)  id 6 (06)  index 3 (00000003)  begin 16384 (00004000) ...
              "Asks for `length` bytes at `begin` of piece `piece_index`."   BEP 3

What it means is the first sentence of the message's own docstring.

Spec: BEP 3, 5, 6, 9, 10, 11.
Thread: pure.
Lock: none.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from torrent_client.errors import BencodeError
from torrent_client.protocol import messages
from torrent_client.protocol.bencode import BencodeValue, bencode_decode_prefix
from torrent_client.protocol.client_names import client_name
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID
from torrent_client.protocol.messages import Handshake, Message, MessageId
from torrent_client.text import printable

BYTES_SHOWN: Final = 16
"""Bytes of a long field that are shown; of a block nobody wants to read 16,384."""

MAX_ITEMS: Final = 2000
"""Tokens of a bencoded payload that are decoded to be shown."""


class Field(NamedTuple):
    """One field of a message: its name, its value in words, and its bytes, the first few if there are many."""

    name: str
    value: str
    data: bytes


class Description(NamedTuple):
    """A message in words.

    Attributes:
        name: `request`, `extended ut_pex` ...
        fields: in the order of their bytes.
        meaning: a sentence.
        spec: `BEP 3`.
        size: bytes of all of it.
    """

    name: str
    fields: tuple[Field, ...]
    meaning: str
    spec: str
    size: int


_SPECS: Final[dict[int, str]] = {
    MessageId.PORT: "BEP 5",
    MessageId.SUGGEST: "BEP 6",
    MessageId.HAVE_ALL: "BEP 6",
    MessageId.HAVE_NONE: "BEP 6",
    MessageId.REJECT: "BEP 6",
    MessageId.ALLOWED_FAST: "BEP 6",
    MessageId.EXTENDED: "BEP 10",
}
_EXTENSION_SPECS: Final = {"ut_metadata": "BEP 9", "ut_pex": "BEP 11"}
_NAMES: Final = {
    "KeepAlive": "keep-alive",
    "NotInterested": "not interested",
    "BitfieldMessage": "bitfield",
    "SuggestPiece": "suggest piece",
    "HaveAll": "have all",
    "HaveNone": "have none",
    "AllowedFast": "allowed fast",
}


def describe_handshake(handshake: Handshake) -> Description:
    """Return the 68 bytes that begin a connection, in words."""
    data = handshake.encode()
    features = [
        word
        for word, has in (
            ("extension protocol", handshake.supports_extensions),
            ("fast extension", handshake.supports_fast),
        )
        if has
    ]
    return Description(
        "handshake",
        (
            Field("name length", "19", data[:1]),
            Field("protocol", "BitTorrent protocol", data[1:20]),
            Field("reserved", ", ".join(features) or "no extensions", handshake.reserved),
            Field("info hash", handshake.info_hash.hex(), handshake.info_hash),
            Field("peer id", client_name(handshake.peer_id), handshake.peer_id),
        ),
        "Says which torrent this is about, and who speaks; the other side answers with its own.",
        "BEP 3",
        len(data),
    )


def describe(message: Message, extensions: Mapping[int, str] | None = None) -> Description:
    """Return a message in words.

    Args:
        message: any.
        extensions: what the receiver said under which number it wants each extension (BEP 10).
    """
    kind = type(message).__name__
    name = _NAMES.get(kind, kind.lower())
    data = message.encode()
    fields = list(_fields(message, data))
    spec = _SPECS.get(data[4]) if len(data) > 4 else None
    meaning = (type(message).__doc__ or "").split("\n", 1)[0]
    if isinstance(message, messages.Extended):
        extension = (extensions or {}).get(message.extension_id, f"number {message.extension_id}")
        is_handshake = message.extension_id == EXTENDED_HANDSHAKE_ID
        name = "extended handshake" if is_handshake else f"extended {printable(extension, 30)}"
        spec = _EXTENSION_SPECS.get(extension, spec)
        if is_handshake:
            meaning = "Says which extensions the sender speaks, under which numbers it wants them, and more of itself."
    return Description(name, tuple(fields), meaning, spec or "BEP 3", len(data))


def extension_numbers(message: Message) -> dict[int, str] | None:
    """Return the extensions' names by number, if the message is the handshake that says them."""
    if not isinstance(message, messages.Extended) or message.extension_id != EXTENDED_HANDSHAKE_ID:
        return None
    value, _ = _decoded(message.payload)
    table = value.get(b"m") if isinstance(value, dict) else None
    if not isinstance(table, dict):
        return {}
    return {number: printable(name, 30) for name, number in table.items() if isinstance(number, int) and number}


def _fields(message: Message, data: bytes) -> Iterator[Field]:
    """Give the fields of a message."""
    yield Field("length prefix", str(len(data) - 4), data[:4])
    if len(data) == 4:
        return
    yield Field("id", str(data[4]), data[4:5])
    match message:
        case messages.BitfieldMessage(bits):
            count = int.from_bytes(bits, "big").bit_count()
            yield Field("bits", f"{count:,} pieces", bits[:BYTES_SHOWN])
        case messages.Piece(index, begin, block):
            yield from _numbers(("index", "begin"), (index, begin), data)
            yield Field("block", f"{len(block):,} bytes", bytes(block[:BYTES_SHOWN]))
        case messages.Have(index) | messages.SuggestPiece(index) | messages.AllowedFast(index):
            yield from _numbers(("index",), (index,), data)
        case messages.Request() | messages.Cancel() | messages.Reject():
            yield from _numbers(("index", "begin", "length"), message, data)
        case messages.Port(port):
            yield Field("port", str(port), data[5:7])
        case messages.Extended(number, payload):
            yield Field("extension id", str(number), data[5:6])
            yield from _payload_fields(payload)
        case messages.Unknown(_, payload):
            yield Field("payload", f"{len(payload):,} bytes", payload[:BYTES_SHOWN])


def _numbers(names: tuple[str, ...], values: tuple[int, ...], data: bytes) -> Iterator[Field]:
    """Give numbers of four bytes each, which begin after length and id."""
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        yield Field(name, str(value), data[5 + 4 * position : 9 + 4 * position])


def _payload_fields(payload: bytes) -> Iterator[Field]:
    """Give the payload of an extended message: a bencoded dictionary, and perhaps bytes after it."""
    value, end = _decoded(payload)
    if value is not None:
        yield Field("dictionary", show_value(value), payload[:BYTES_SHOWN])
    if end < len(payload):
        yield Field("data", f"{len(payload) - end:,} bytes", payload[end : end + BYTES_SHOWN])


def _decoded(payload: bytes) -> tuple[BencodeValue | None, int]:
    """Return a bencoded value and where it ends; None and 0 for anything else."""
    try:
        return bencode_decode_prefix(payload, max_items=MAX_ITEMS)
    except BencodeError:
        return None, 0


def show_value(value: BencodeValue, limit: int = 300) -> str:
    """Return a bencoded value as people write such things, cut where it becomes long.

    Args:
        value: any.
        limit: characters kept.
    """
    match value:
        case dict():
            items = (f"{printable(key, 40)}: {show_value(item, 120)}" for key, item in value.items())
            text = "{" + ", ".join(items) + "}"
        case list():
            text = "[" + ", ".join(show_value(item, 60) for item in value) + "]"
        case bytes():
            is_text = value.isascii() and value.decode().isprintable()
            text = f'"{value.decode()}"' if is_text else f"<{len(value)} bytes {value[:BYTES_SHOWN].hex()}>"
        case _:
            text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
