"""Bencode: other implementations' vectors, round trips, hostile input, spans."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bencodepy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.errors import BencodeError
from torrent_client.protocol.bencode import (
    MAX_DEPTH,
    BencodeValue,
    bencode_decode,
    bencode_decode_prefix,
    bencode_decode_spans,
    bencode_encode,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "bencode_vectors.json").read_text("utf-8"))["vectors"]

LARGEST = 10**20 - 1
values = st.recursive(
    st.integers(-LARGEST, LARGEST) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.binary(max_size=8), inner, max_size=6),
    max_leaves=40,
)


def vector_bytes(vector: dict[str, Any]) -> bytes:
    """Return the input of a vector."""
    if repeat := vector.get("repeat"):
        pattern = bytes.fromhex(repeat["byte_hex"])
        return bytes.fromhex(repeat["prefix_hex"]) + pattern * int(repeat["count"])
    return bytes.fromhex(vector["hex"])


def vector_value(value: Any) -> BencodeValue:  # noqa: ANN401  # what JSON can hold
    """Turn a value of the JSON file into what the decoder returns."""
    if isinstance(value, list):
        return [vector_value(item) for item in value]
    if isinstance(value, dict) and "d" in value:
        return {bytes.fromhex(key): vector_value(item) for key, item in value["d"]}
    if isinstance(value, dict):
        return bytes.fromhex(value["b"])
    assert isinstance(value, int)
    return value


def vectors(verdict: str) -> list[Any]:
    """Return the vectors with one verdict, named by their first bytes."""
    chosen = [vector for vector in VECTORS if vector["verdict"] == verdict]
    return [pytest.param(vector, id=repr(vector_bytes(vector)[:30])) for vector in chosen]


def refusal(decode: Callable[[bytes], object], data: bytes) -> BencodeError:
    """Return the error that `decode` raises, whose offset must lie inside the data."""
    with pytest.raises(BencodeError) as caught:
        decode(data)
    assert 0 <= caught.value.offset <= len(data)
    return caught.value


def value_or_error(data: bytes) -> BencodeValue | BencodeError:
    """Decode in all three ways, which must agree; anything but a value or a BencodeError fails the test."""
    try:
        value, end = bencode_decode_prefix(data)
    except BencodeError:
        refusal(bencode_decode_spans, data)
        refusal(bencode_decode_prefix, data)
        return refusal(bencode_decode, data)
    if end != len(data):
        assert refusal(bencode_decode_spans, data).offset == end
        error = refusal(bencode_decode, data)
        assert error.offset == end
        return error
    assert bencode_decode(data) == value
    again, spans = bencode_decode_spans(data)
    assert again == value
    for key, (begin, stop) in spans.items():
        assert isinstance(value, dict)
        assert bencode_decode(data[begin:stop]) == value[key]
    return value


# --- what others decode -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("good"))
def test_valid_vector_decodes_to_its_value(vector: dict[str, Any]) -> None:
    """What other implementations decode, we decode to the same value."""
    value = bencode_decode(vector_bytes(vector))
    if isinstance(vector["value"], dict) and "b_len" in vector["value"]:
        assert isinstance(value, bytes)
        assert len(value) == vector["value"]["b_len"]
    else:
        assert value == vector_value(vector["value"])


@pytest.mark.parametrize("vector", vectors("bad"))
def test_invalid_vector_is_refused(vector: dict[str, Any]) -> None:
    """What other implementations refuse, we refuse."""
    assert isinstance(value_or_error(vector_bytes(vector)), BencodeError)


@pytest.mark.parametrize("vector", vectors("lenient"))
def test_disputed_vector_gives_the_expected_value_or_an_error(vector: dict[str, Any]) -> None:
    """Where implementations differ we may refuse, but not decode to something else."""
    outcome = value_or_error(vector_bytes(vector))
    if vector.get("value") is not None and not isinstance(outcome, BencodeError):
        assert outcome == vector_value(vector["value"])


@given(values)
def test_agrees_with_bencodepy_on_valid_input(value: BencodeValue) -> None:
    """The library that we encode with reads our values as we do."""
    data = bencode_encode(value)
    assert bencodepy.decode(data) == value
    assert bencode_decode(data) == value


# --- strict and lenient -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"i01e", 0),
        (b"i-01e", 0),
        (b"i00e", 0),
        (b"i-0e", 0),
        (b"i+1e", 0),
        (b"i 1e", 0),
        (b"i1 e", 0),
        (b"i1_0e", 0),
        (b"i\xb2e", 0),
        (b"i\n1e", 0),
        (b"i1\ne", 0),
        (b"li1ei--1ee", 4),
        (b"01:a", 0),
        (b"00:", 0),
        (b"+1:a", 0),
        (b" 1:a", 0),
        (b"1 :a", 0),
        (b"1_0:0123456789", 0),
        (b"\n", 0),
        (b"l1:ai5", 4),
        (b"l1:a", 4),
        (b"l1:aee", 5),
        (b"1:ab", 3),
        (b"le\n", 2),
        (b"e", 0),
        (b"de" + b"e", 2),
        (b"9999999999:", 11),
        (b"99999999999:", 0),
        (b"5:four", 2),
        (b"li1ed1:aee", 4),
        (b"li1edi1ei2eee", 4),
        (b"ld1:ai2elei3eee", 1),
        (b"ldde1:aee", 1),
    ],
)
def test_malformed_input_is_refused_where_it_is_malformed(data: bytes, offset: int) -> None:
    """The error tells where: at the token, or where the dictionary begins whose keys are wrong."""
    with pytest.raises(BencodeError) as caught:
        bencode_decode(data)
    assert caught.value.offset == offset
    assert str(caught.value).endswith(f"at byte {offset}")


def test_unsorted_keys_are_accepted() -> None:
    """Torrents with unsorted keys exist."""
    assert bencode_decode(b"d1:bi2e1:ai1ee") == {b"a": 1, b"b": 2}


def test_the_first_of_duplicate_keys_counts() -> None:
    """Value and span are those of the first occurrence, at the top and further in."""
    data = b"d1:ad1:xi1e1:yi5e1:xi2ee1:bi9e1:ai3ee"
    expected = {b"a": {b"x": 1, b"y": 5}, b"b": 9}
    assert bencode_decode(data) == expected
    value, spans = bencode_decode_spans(data)
    assert value == expected
    assert spans == {b"a": (4, 24), b"b": (27, 30)}


def test_integers_have_at_most_twenty_digits() -> None:
    """2^64 fits; one digit more is refused."""
    for number in (2**64, LARGEST, -LARGEST):
        assert bencode_decode(b"i%de" % number) == number
    for number in (LARGEST + 1, -LARGEST - 1):
        with pytest.raises(BencodeError, match="20 digits"):
            bencode_decode(b"i%de" % number)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_input_gives_bytes(kind: Callable[[bytes], bytearray | memoryview]) -> None:
    """Nothing in the result refers to the caller's buffer."""
    data = b"d1:al4:spamee"
    value, spans = bencode_decode_spans(kind(data))
    assert value == {b"a": [b"spam"]}
    assert spans == {b"a": (4, 12)}
    inner = value[b"a"]
    assert isinstance(inner, list)
    assert type(inner[0]) is bytes
    assert bencode_decode_prefix(kind(b"xx3:abcyy"), 2) == (b"abc", 7)


def test_input_that_is_not_bytes_is_a_type_error() -> None:
    """Text and numbers are bugs of the caller, not malformed data."""
    for wrong in ("de", 5, None):
        with pytest.raises(TypeError):
            bencode_decode(wrong)  # type: ignore[arg-type]


# --- prefix and spans -------------------------------------------------------------------------------------


def test_prefix_tells_where_the_value_ends() -> None:
    """A BEP 9 message is a dictionary and then raw bytes, which may look like bencode."""
    head = b"d8:msg_typei1e5:piecei0e10:total_sizei34256ee"
    for tail in (b"", b"e", b"i1e", b"\xff" * 100):
        assert bencode_decode_prefix(head + tail) == (bencode_decode(head), len(head))
        assert bencode_decode_prefix(b"??" + head + tail, 2) == (bencode_decode(head), len(head) + 2)


@given(values, st.binary(max_size=20), st.binary(max_size=20))
def test_prefix_finds_any_value_between_any_bytes(value: BencodeValue, before: bytes, after: bytes) -> None:
    """What stands around the value does not matter."""
    data = bencode_encode(value)
    found = bencode_decode_prefix(before + data + after, len(before))
    assert found == (value, len(before) + len(data))


@pytest.mark.parametrize("start", [-1, 3, 100])
def test_prefix_refuses_a_start_without_data(start: int) -> None:
    """An offset outside the data, or at its end, is an error like any other."""
    with pytest.raises(BencodeError) as caught:
        bencode_decode_prefix(b"i1e", start)
    assert caught.value.offset == start


@given(st.dictionaries(st.binary(max_size=8), values, max_size=8))
def test_spans_cover_each_value(value: dict[bytes, BencodeValue]) -> None:
    """Every key has a span, and decoding the span gives the key's value."""
    data = bencode_encode(value)
    decoded, spans = bencode_decode_spans(data)
    assert decoded == value
    assert spans.keys() == value.keys()
    for key, (begin, end) in spans.items():
        assert data[begin:end] == bencode_encode(value[key])


@pytest.mark.parametrize("data", [b"le", b"i1e", b"3:abc", b"ld1:ai1eee", b"de"])
def test_only_a_top_level_dictionary_has_spans(data: bytes) -> None:
    """Other values are decoded all the same."""
    assert bencode_decode_spans(data) == (bencode_decode(data), {})


@pytest.mark.parametrize("data", [b"d", b"d1:a", b"d1:ae", b"di1ei2ee", b"dlei1ee", b"d1:ai1e", b"dee", b"l"])
def test_spans_of_malformed_dictionaries_are_refused(data: bytes) -> None:
    """The span decoder is as strict as the other one."""
    assert isinstance(value_or_error(data), BencodeError)


# --- hostile input ----------------------------------------------------------------------------------------


def test_nesting_ends_at_the_limit() -> None:
    """100 levels are decoded, 101 are not, in each kind of container."""
    for before, after in ((b"l", b"e"), (b"d0:", b"e")):
        deepest = before * MAX_DEPTH + b"i1e" + after * MAX_DEPTH
        value_or_error(deepest)
        assert not isinstance(value_or_error(deepest), BencodeError)
        outcome = value_or_error(before + deepest + after)
        assert isinstance(outcome, BencodeError)
        assert outcome.offset == len(before) * MAX_DEPTH


def test_limits_can_be_lowered() -> None:
    """A caller that knows how small its messages are can say so; all three decoders obey."""
    data = b"d1:al1:b1:cee"  # two levels; eight tokens
    for decode in (bencode_decode, bencode_decode_prefix, bencode_decode_spans):
        decode(data, max_depth=2, max_items=7)
        for limits in ({"max_depth": 1}, {"max_depth": 0}, {"max_items": 6}, {"max_items": 0}):
            with pytest.raises(BencodeError):
                decode(data, **limits)


@pytest.mark.parametrize(
    "pattern",
    [
        b"l",
        b"d",
        b"e",
        b"9",
        b"0",
        b"-",
        b"i9",
        b"i",
        b":",
        b"1:",
        b"le",
        b"d0:",
        b"ld",
        b"1:x",
        b"0:",
        b"\x00",
    ],
)
def test_four_megabytes_of_anything_take_linear_time(pattern: bytes) -> None:
    """No input makes the decoder hang; on each of these bencodepy or another decoder once did, or crashed."""
    data = pattern * (4_000_000 // len(pattern))
    for attack in (data, b"i" + data + b"e", b"l" + data + b"e"):
        started = time.process_time()
        message = ""
        try:
            bencode_decode(attack)
        except BencodeError as error:
            message = str(error)
        assert len(message) < 250  # a log line, whatever the sender sends
        assert time.process_time() - started < 30  # 1 s on a quiet machine; quadratic would be hours


def test_too_many_items_are_refused() -> None:
    """Four megabytes of empty lists would be 112 MB of Python objects."""
    with pytest.raises(BencodeError, match="too many items") as caught:
        bencode_decode(b"l" + b"le" * 2_000_000 + b"e")
    assert caught.value.offset == 3_000_000


def test_random_mutations_give_a_value_or_the_one_error() -> None:
    """Valid messages, damaged in every way a seeded generator thinks of."""
    rng = random.Random(20)
    seeds = [vector_bytes(vector) for vector in VECTORS if "hex" in vector]
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data.insert(at, rng.choice(b"eild:09-"))
                case 1:
                    del data[at : at + rng.randrange(1, 5)]
                case 2:
                    data[at : at + 1] = rng.randbytes(1)
                case _:
                    data += rng.choice(seeds)[:20]
        value_or_error(bytes(data))


@given(st.binary(max_size=60) | st.text("ilde:0123456789-x", max_size=60).map(str.encode))
def test_any_bytes_give_a_value_or_the_one_error(data: bytes) -> None:
    """Hypothesis looks for bytes that do not."""
    value_or_error(data)


def test_every_cut_of_a_message_is_refused() -> None:
    """A message that has not arrived whole is never taken for a shorter one."""
    data = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:rl4:spami-42ee1:t2:aa1:y1:qe"
    assert isinstance(bencode_decode(data), dict)
    for end in range(len(data)):
        assert isinstance(value_or_error(data[:end]), BencodeError)


# --- encoding ---------------------------------------------------------------------------------------------


@given(values)
def test_what_is_encoded_is_decoded_to_the_same(value: BencodeValue) -> None:
    """Encoding and decoding are inverse."""
    assert bencode_decode(bencode_encode(value)) == value


def test_encoding_is_canonical() -> None:
    """Keys are sorted by their bytes, text becomes UTF-8, a tuple becomes a list."""
    value = {"b": (1, [b""]), b"a": "ü", "\u00e9": -3, "B": {}}
    assert bencode_encode(value) == b"d1:Bde1:a2:\xc3\xbc1:bli1el0:ee2:\xc3\xa9i-3ee"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        bytearray(b"x"),
        memoryview(b"x"),
        {1},
        object(),
        {1: 2},
        {None: 2},
        [None],
        {"a": 1.0},
    ],
)
def test_what_bencode_does_not_have_is_a_type_error(value: object) -> None:
    """Better than a KeyError from the library, or `True` silently sent as 1."""
    with pytest.raises(TypeError):
        bencode_encode(value)


@pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 1, "\ud800", {"\udfff": 1}, {"a": 1, b"a": 2}])
def test_values_that_cannot_be_encoded_are_refused(value: object) -> None:
    """What the decoder would refuse, or read differently, is not written."""
    with pytest.raises(BencodeError):
        bencode_encode(value)


def test_encoding_nests_as_deep_as_decoding() -> None:
    """The encoder's recursion is bounded by the same limit, also when a list contains itself."""
    value: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert isinstance(bencode_decode(bencode_encode(value)), list)
    with pytest.raises(BencodeError):
        bencode_encode([value])
    value.append(value)
    with pytest.raises(BencodeError):
        bencode_encode(value)


def test_subclasses_are_encoded_as_what_they_are() -> None:
    """Members of an IntEnum are integers and named tuples lists, which bencodepy alone does not know."""

    class Kind(int):
        pass

    assert bencode_encode({"kind": Kind(2)}) == b"d4:kindi2ee"
