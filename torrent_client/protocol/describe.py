"""Messages in words: their name, each field with its bytes, what they mean, and where that is specified.

    0000000d 06 00000003 00004000 00004000
    request   length prefix 13 (0000000d)  id 6 (06)  index 3 (00000003)  begin 16384 (00004000) ...
              "Asks for `length` bytes at `begin` of piece `piece_index`."   BEP 3

What a peer message means is the first sentence of its own docstring.

Spec: BEP 3, 5, 6, 9, 10, 11, 15.
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


def describe_krpc(data: bytes) -> Description:
    """Return a datagram of the DHT in words."""
    value, _ = _decoded(data)
    if not isinstance(value, dict):
        return _nonsense(data)
    kind = value.get(b"y")
    query = value.get(b"q")
    names = {b"q": printable(query, 30) if isinstance(query, bytes) else "query", b"r": "response", b"e": "error"}
    name = names.get(kind, "datagram") if isinstance(kind, bytes) else "datagram"
    fields = tuple(Field(printable(key, 20), show_value(item), b"") for key, item in value.items())
    return Description(name, fields, _KRPC_MEANINGS.get(name, ""), "BEP 5", len(data))


def describe_udp_tracker(data: bytes, *, is_request: bool) -> Description:
    """Return a datagram to or from a UDP tracker in words.

    Args:
        data: all of it.
        is_request: whether it goes to the tracker.
    """
    start = 8 if is_request else 0  # a request begins with a connection id
    if len(data) < start + 8:
        return _nonsense(data)
    action = int.from_bytes(data[start : start + 4], "big")
    name = _UDP_ACTIONS.get(action, f"action {action}") + (" request" if is_request else " response")
    fields = []
    position = 0
    for field, size in _UDP_LAYOUTS.get((action, is_request), _UDP_HEADS[is_request]):
        part = data[position : position + size]
        if part:
            shown = part.hex() if size > 8 else str(int.from_bytes(part, "big"))
            fields.append(Field(field, shown, part))
        position += size
    if position < len(data):
        rest = data[position:]
        fields.append(Field("data", f"{len(rest):,} bytes", rest[:BYTES_SHOWN]))
    return Description(name, tuple(fields), _UDP_MEANINGS.get((action, is_request), ""), "BEP 15", len(data))


def describe_http_request(path: str, query: str, size: int) -> Description:
    """Return a request to an HTTP tracker in words.

    Args:
        path: of the URL.
        query: of the URL, still percent-encoded.
        size: bytes of the request.
    """
    pairs = (part.partition("=") for part in query.split("&") if part)
    fields = tuple(Field(printable(key, 30), printable(value, 200), b"") for key, _, value in pairs)
    meaning = "Tells the tracker of us, and asks it for peers." if "scrape" not in path else "Asks how many there are."
    return Description(f"GET {printable(path, 60)}", fields, meaning, "BEP 3", size)


def describe_http_answer(status: str, body: bytes) -> Description:
    """Return an HTTP tracker's answer in words.

    Args:
        status: `200 OK`.
        body: bencoded, if it is a tracker's.
    """
    value, _ = _decoded(body)
    items = value.items() if isinstance(value, dict) else ()
    fields = tuple(Field(printable(key, 40), show_value(item), b"") for key, item in items)
    return Description(f"HTTP {printable(status, 40)}", fields, "The tracker's answer.", "BEP 3", len(body))


def _nonsense(data: bytes) -> Description:
    return Description("datagram", (Field("data", f"{len(data):,} bytes", data[:BYTES_SHOWN]),), "", "", len(data))


_KRPC_MEANINGS: Final = {
    "ping": "Asks whether the node is there.",
    "find_node": "Asks for the nodes nearest to an id.",
    "get_peers": "Asks for peers of a torrent, or for the nodes nearest to its info hash.",
    "announce_peer": "Says that the sender is a peer of a torrent; the token shows that it asked before.",
    "response": "Answers the query with the same transaction id `t`.",
    "error": "Says why a query is not answered.",
}
_UDP_ACTIONS: Final = {0: "connect", 1: "announce", 2: "scrape", 3: "error"}
_REQUEST_HEAD: Final = (("connection id", 8), ("action", 4), ("transaction id", 4))
_ANSWER_HEAD: Final = (("action", 4), ("transaction id", 4))
_UDP_HEADS: Final = {True: _REQUEST_HEAD, False: _ANSWER_HEAD}
_UDP_LAYOUTS: Final = {
    (0, True): (("protocol id", 8), ("action", 4), ("transaction id", 4)),
    (0, False): (*_ANSWER_HEAD, ("connection id", 8)),
    (1, True): (
        *_REQUEST_HEAD,
        ("info hash", 20),
        ("peer id", 20),
        ("downloaded", 8),
        ("left", 8),
        ("uploaded", 8),
        ("event", 4),
        ("ip", 4),
        ("key", 4),
        ("num want", 4),
        ("port", 2),
    ),
    (1, False): (*_ANSWER_HEAD, ("interval", 4), ("leechers", 4), ("seeders", 4)),
}
_UDP_MEANINGS: Final = {
    (0, True): "Asks for a connection id, which shows that the sender's address is its own.",
    (0, False): "Gives a connection id, good for a minute.",
    (1, True): "Tells the tracker of us, and asks it for peers.",
    (1, False): "Gives peers, and says when to ask again.",
    (2, True): "Asks how many seeders and leechers there are.",
    (2, False): "Says how many seeders, downloads and leechers there are of each torrent.",
    (3, False): "Says why the tracker refuses.",
}


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
