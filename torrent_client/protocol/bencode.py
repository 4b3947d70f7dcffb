r"""Bencode, the notation of everything in BitTorrent that is not a peer message.

There are four kinds of values, each of which tells by its first byte what it is:

    i-42e             the integer -42
    4:spam            the byte string b"spam": its length, a colon, the bytes
    l4:spami-42ee     the list [b"spam", -42]
    d3:agei25ee       the dictionary {b"age": 25}; its keys are byte strings

The decoder is our own because its input comes from strangers. It takes time linear in the length of the
input, never recurses, and gives either a value or a `BencodeError`, whatever the bytes are. A regular
expression recognises a whole token, so that Python runs once per token and not once per byte.

Strict where two programs could read the same bytes differently (leading zeros, `-0`, signs, spaces), but
not about the order of a dictionary's keys: torrents with unsorted and with duplicate keys exist, and the
info hash, which is taken of the raw bytes, stays right for them. Of duplicates the first one counts.

Spec: BEP 3 (bencoding).
Thread: pure.
Lock: none.
"""

import re
from collections.abc import Iterator
from typing import NoReturn, TypeAlias

from torrent_client.errors import BencodeError

BencodeValue: TypeAlias = int | bytes | list["BencodeValue"] | dict[bytes, "BencodeValue"]
"""What the decoder returns."""

Span: TypeAlias = tuple[int, int]
"""Where a value stands in the input: offset of its first byte and of the byte after its last."""

MAX_DEPTH = 100
"""Lists and dictionaries inside each other. A torrent needs 5; libtorrent's limit is 100 too."""

MAX_ITEMS = 3_000_000
"""Tokens in one value: strings, integers, and begin and end of each list and dictionary. libtorrent's limit
is 3 million too. It bounds memory: `le`, two bytes on the wire, is 56 bytes of Python list."""

MAX_INTEGER_DIGITS = 20
"""Digits of an integer: those of 2^64. `int` takes quadratic time, so that 10 MB of digits would hang us."""

# The two kinds of token that take more than one byte. The length of a string has at most ten digits (9 GB):
# enough for any input, and cheap to convert.
_match_scalar = re.compile(rb"(0|[1-9][0-9]{0,9}):|i(0|-?[1-9][0-9]{0,%d})e" % (MAX_INTEGER_DIGITS - 1)).match
_DICTIONARY = ord("d")


def bencode_decode(
    data: bytes | bytearray | memoryview, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS
) -> BencodeValue:
    """Decode bytes that are exactly one bencoded value.

    Args:
        data: the value, of any length, with nothing after it.
        max_depth: lists and dictionaries that may be open at once.
        max_items: tokens that the value may consist of.

    Returns:
        The value; integers have at most 20 digits.

    Raises:
        BencodeError: anything else; tells the offset.
    """
    raw = _as_bytes(data)
    value, end = _decode(raw, 0, max_depth, iter(range(max_items)))
    _require_end(raw, end)
    return value


def bencode_decode_prefix(
    data: bytes | bytearray | memoryview,
    start: int = 0,
    *,
    max_depth: int = MAX_DEPTH,
    max_items: int = MAX_ITEMS,
) -> tuple[BencodeValue, int]:
    """Decode the value that begins at `start` and may be followed by anything.

    A metadata message is a dictionary with raw bytes right after it (BEP 9).

    Args:
        data: the bytes, of any length.
        start: offset of the value's first byte.
        max_depth: lists and dictionaries that may be open at once.
        max_items: tokens that the value may consist of.

    Returns:
        The value, and the offset of the first byte after it.

    Raises:
        BencodeError: there is no value at `start`; tells the offset.
    """
    raw = _as_bytes(data)
    if not 0 <= start <= len(raw):
        raise BencodeError(f"offset outside the {len(raw)} bytes of data", start)
    return _decode(raw, start, max_depth, iter(range(max_items)))


def bencode_decode_spans(
    data: bytes | bytearray | memoryview, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS
) -> tuple[BencodeValue, dict[bytes, Span]]:
    """Decode exactly one value, and tell where the values of its top-level keys stand.

    The info hash is the SHA-1 of `info` as it stands in the file: encoding it again would sort keys and
    drop duplicates, and so change the hash of a torrent whose maker did neither.

    Args:
        data: the value, of any length, with nothing after it.
        max_depth: lists and dictionaries that may be open at once.
        max_items: tokens that the value may consist of.

    Returns:
        The value, and the span of each key's value; no spans if the value is no dictionary. Of a key that
        occurs twice, both the value and the span are those of the first occurrence.

    Raises:
        BencodeError: anything else; tells the offset.
    """
    raw = _as_bytes(data)
    if raw[:1] != b"d" or max_depth < 1:
        return bencode_decode(raw, max_depth=max_depth, max_items=max_items), {}
    fields: dict[bytes, BencodeValue] = {}
    spans: dict[bytes, Span] = {}
    budget = iter(range(max_items - 2))  # the top-level dictionary's own begin and end are two items
    end = 1
    while raw[end : end + 1] != b"e":
        key, begin = _decode(raw, end, max_depth - 1, budget)
        if not isinstance(key, bytes):
            raise BencodeError("a dictionary key that is not a string", end)
        value, end = _decode(raw, begin, max_depth - 1, budget)
        if key not in fields:
            fields[key] = value
            spans[key] = (begin, end)
    _require_end(raw, end + 1)
    return fields, spans


def bencode_encode(value: object) -> bytes:
    """Encode a value: keys sorted by their bytes, `str` as UTF-8, tuples as lists.

    Args:
        value: an `int`, `bytes`, `str`, or a list, tuple or dictionary (keys `bytes` or `str`) of such.

    Returns:
        The one canonical encoding, which `bencode_decode` can read.

    Raises:
        TypeError: bencode has no such thing: `None`, `bool`, `float`, `bytearray`, any other type.
        BencodeError: a type that can be encoded with a value that cannot: an integer of more than 20
            digits, text that is not Unicode, the same key as `bytes` and as `str`, nested more than 100
            deep. The offset means nothing here and is 0.
    """
    import bencodepy  # only those who encode wait for its import

    encoded: bytes = bencodepy.encode(_plain(value, MAX_DEPTH))
    return encoded


def _as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Return `data` as bytes, whose slices are bytes: one copy, unless they already are."""
    # Not `bytes(data)`: of an integer it would make that many zeros.
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def _require_end(data: bytes, end: int) -> None:
    """Refuse bytes after the value: another program could take them for a part of it."""
    if end != len(data):
        raise BencodeError(f"{len(data) - end} bytes after the value", end)


def _decode(data: bytes, start: int, max_depth: int, budget: Iterator[int]) -> tuple[BencodeValue, int]:
    """Decode the value that begins at `start`.

    Args:
        data: what to decode.
        start: offset of the value's first byte.
        max_depth: lists and dictionaries that may be open at once.
        budget: gives as many items as there may be tokens; calls that share it share the limit.

    Returns:
        The value and the offset of the byte after it.
    """
    # A dictionary is a flat list of keys and values until it ends. `values` is the innermost open list or
    # dictionary, which began at `begin`; those around it wait in `outer`.
    outer: list[tuple[list[BencodeValue], int]] = []
    values: list[BencodeValue] = []
    begin = end = start
    for _ in budget:
        lead = data[end : end + 1]
        if lead == b"e" and outer:
            closed = _dictionary(values, begin) if data[begin] == _DICTIONARY else values
            values, begin = outer.pop()
            values.append(closed)
            end += 1
        elif lead in (b"d", b"l"):
            if len(outer) >= max_depth:
                raise BencodeError(f"more than {max_depth} lists and dictionaries inside each other", end)
            outer.append((values, begin))
            values, begin = [], end
            end += 1
            continue
        elif (token := _match_scalar(data, end)) is None:
            _refuse(data, end)
        elif lead == b"i":
            values.append(int(token[2]))
            end = token.end()
        else:
            text = token.end()
            end = text + int(token[1])
            if end > len(data):
                raise BencodeError(f"a string of {end - text} bytes, longer than the data", text)
            values.append(data[text:end])
        if not outer:
            return values[0], end
    raise BencodeError("too many items", end)


def _dictionary(flat: list[BencodeValue], begin: int) -> dict[bytes, BencodeValue]:
    """Make the dictionary that began at offset `begin` of its keys and values: key, value, key, value ..."""
    keys, values = flat[::2], flat[1::2]
    if len(keys) != len(values):
        raise BencodeError("a dictionary with a key that has no value", begin)
    if not set(map(type, keys)) <= {bytes}:
        raise BencodeError("a dictionary with a key that is not a string", begin)
    fields: dict[bytes, BencodeValue] = dict(zip(keys, values, strict=True))  # type: ignore[arg-type]
    if len(fields) != len(keys):
        # Duplicates, of which `dict` keeps the last value and we the first.
        fields.update(zip(reversed(keys), reversed(values), strict=True))  # type: ignore[arg-type]
    return fields


def _refuse(data: bytes, offset: int) -> NoReturn:
    """Say what is wrong with the bytes at `offset`, which are no token."""
    # 24 bytes are more than the longest token: the message's length does not depend on the sender.
    found = data[offset : offset + 24]
    if not found:
        message = "the data ends in the middle of a value"
    elif found[:1] == b"i":
        message = f"not an integer of at most {MAX_INTEGER_DIGITS} digits: {found!r}"
    elif found[:1] == b"e":
        message = "an end with nothing to end"
    elif found[:1].isdigit():
        message = f"not the length of a string: {found!r}"
    else:
        message = f"not the beginning of a value: {found!r}"
    raise BencodeError(message, offset)


def _plain(value: object, depth: int) -> BencodeValue:
    """Copy a value into the types that bencodepy can be trusted with; `depth` more levels are allowed."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 10**MAX_INTEGER_DIGITS:
            raise BencodeError(f"an integer of more than {MAX_INTEGER_DIGITS} digits cannot be encoded")
        return int(value)
    if not isinstance(value, list | tuple | dict):
        raise TypeError(f"bencode has no {type(value).__name__}")
    if depth == 0:
        raise BencodeError(f"more than {MAX_DEPTH} lists and dictionaries inside each other")
    if isinstance(value, dict):
        return _plain_dictionary(value, depth)
    return [_plain(item, depth - 1) for item in value]


def _plain_dictionary(fields: dict[object, object], depth: int) -> dict[bytes, BencodeValue]:
    """Copy a dictionary, its keys as bytes."""
    plain: dict[bytes, BencodeValue] = {}
    for name, value in fields.items():
        if not isinstance(name, bytes | str):
            raise TypeError(f"a key of a bencoded dictionary cannot be a {type(name).__name__}")
        key = _utf8(name) if isinstance(name, str) else name
        if key in plain:
            raise BencodeError(f"the key {key!r} is there as bytes and as text")
        plain[key] = _plain(value, depth - 1)
    return plain


def _utf8(text: str) -> bytes:
    """Encode text, which can be no half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BencodeError(f"text that is not Unicode: {text!r}") from error
