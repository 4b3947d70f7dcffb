"""The extension handshake: what is said, what is believed of what others say, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torrent_client.errors import ProtocolViolation
from torrent_client.protocol.bencode import BencodeValue, bencode_encode
from torrent_client.protocol.extensions import (
    MAX_CLIENT_NAME,
    MAX_EXTENSIONS,
    MAX_HANDSHAKE_ITEMS,
    MAX_HANDSHAKE_LENGTH,
    ExtendedHandshake,
)


def decoded(fields: dict[bytes, BencodeValue]) -> ExtendedHandshake:
    """Return what a peer's handshake with these fields tells us."""
    return ExtendedHandshake.decode(bencode_encode(fields))


def test_everything_that_is_said_is_understood() -> None:
    """Each field has BEP 10's key (BEP 21's for upload_only)."""
    hello = ExtendedHandshake({"ut_pex": 1, "ut_metadata": 255}, "torrent-client 0.1.0", 6881, 2000, upload_only=True)
    data = hello.encode()
    expected = b"d1:md11:ut_metadatai255e6:ut_pexi1ee1:pi6881e4:reqqi2000e11:upload_onlyi1e1:v20:torrent-client 0.1.0e"
    assert data == expected
    assert ExtendedHandshake.decode(data) == hello


def test_what_is_not_known_is_not_said() -> None:
    """An empty handshake holds the empty dictionary of extensions that BEP 10 asks for, and nothing else."""
    assert ExtendedHandshake().encode() == b"d1:mdee"
    assert ExtendedHandshake.decode(b"d1:mdee") == ExtendedHandshake()
    assert ExtendedHandshake.decode(b"de") == ExtendedHandshake()


@settings(max_examples=50)
@given(
    st.builds(
        ExtendedHandshake,
        extensions=st.dictionaries(st.text(max_size=20), st.integers(1, 255), max_size=5),
        client=st.none() | st.from_regex(r"[!-~]([ -~]{0,60}[!-~])?", fullmatch=True),
        port=st.none() | st.integers(1, 65_535),
        request_queue=st.none() | st.integers(1, 1_000_000),
        upload_only=st.booleans(),
        metadata_size=st.none() | st.integers(1, 10_000_000),
        your_ip=st.none() | st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
        switched_off=st.just(frozenset()),
        prefers_encryption=st.booleans(),
    )
)
def test_every_handshake_survives_the_wire(hello: ExtendedHandshake) -> None:
    """What one side encodes is what the other side decodes."""
    assert ExtendedHandshake.decode(hello.encode()) == hello


@pytest.mark.parametrize("data", [b"", b"le", b"i1e", b"4:spam", b"d", b"d1:mde", b"d1:mdeei", b"\xff", b"d1:md"])
def test_what_is_no_dictionary_is_a_violation(data: bytes) -> None:
    """Any other bencoded value, anything that is not bencode, and anything after the dictionary."""
    with pytest.raises(ProtocolViolation, match="extension handshake"):
        ExtendedHandshake.decode(data)


@pytest.mark.parametrize("value", [b"1", [1], {b"a": 1}, 0, -1, 65_536, 10**19])
def test_a_port_that_is_none_is_left_out(value: BencodeValue) -> None:
    """The rest of the handshake still counts."""
    hello = decoded({b"p": value, b"v": b"x"})
    assert hello.port is None
    assert hello.client == "x"


@pytest.mark.parametrize(("value", "port"), [(1, 1), (65_535, 65_535)])
def test_every_real_port_is_taken(value: int, port: int) -> None:
    """From the first to the last."""
    assert decoded({b"p": value}).port == port


@pytest.mark.parametrize(
    ("value", "queue"), [(1, 1), (1_000_000, 1_000_000), (0, None), (-5, None), (1_000_001, None), (b"9", None)]
)
def test_a_request_queue_is_at_least_one(value: BencodeValue, queue: int | None) -> None:
    """Zero would mean to ask for nothing for ever."""
    assert decoded({b"reqq": value}).request_queue == queue


@pytest.mark.parametrize(("value", "upload_only"), [(1, True), (0, False), (2, False), (b"1", False), ([1], False)])
def test_upload_only_is_one_and_nothing_else(value: BencodeValue, upload_only: bool) -> None:
    """Who is taken for a seeder by mistake gets nothing from us."""
    assert decoded({b"upload_only": value}).upload_only is upload_only


def test_extensions_that_are_off_or_out_of_range_are_left_out() -> None:
    """Id 0 switches an extension off (BEP 10); an id has one byte."""
    ids: dict[bytes, BencodeValue] = {
        b"off": 0,
        b"first": 1,
        b"last": 255,
        b"too large": 256,
        b"negative": -1,
        b"text": b"1",
        b"list": [],
    }
    assert decoded({b"m": ids}).extensions == {"first": 1, "last": 255}


def test_a_later_handshake_says_only_what_has_changed() -> None:
    """Extensions come and go one by one; who wants something again says so by not saying that it does not."""
    first = decoded({b"m": {b"ut_pex": 1, b"ut_metadata": 2}, b"v": b"X 1", b"p": 5, b"reqq": 9, b"upload_only": 1})
    later = first.updated_by(decoded({b"m": {b"ut_pex": 0, b"new": 7}, b"metadata_size": 3, b"e": 1}))
    assert later.extensions == {"ut_metadata": 2, "new": 7}
    assert (later.client, later.port, later.request_queue, later.metadata_size) == ("X 1", 5, 9, 3)
    assert (later.upload_only, later.prefers_encryption) == (False, True)


def test_handshakes_with_ever_new_extensions_do_not_fill_the_memory() -> None:
    """Each one may have 64 KiB of names; those that came first, which a real client says in its first one, stay."""
    hello = decoded({b"m": {b"ut_pex": 1, b"x" * 1000: 2}})
    assert hello.extensions == {"ut_pex": 1}
    for handshake in range(10):
        hello = hello.updated_by(decoded({b"m": {b"%d-%d" % (handshake, number): 9 for number in range(300)}}))
    assert len(hello.extensions) == MAX_EXTENSIONS
    assert hello.extensions["ut_pex"] == 1


@pytest.mark.parametrize("value", [1, b"ut_pex", [b"ut_pex", 1]])
def test_extensions_that_are_no_dictionary_are_none(value: BencodeValue) -> None:
    """The peer then has none, and is still a peer."""
    assert decoded({b"m": value}).extensions == {}


def test_a_name_that_is_no_text_does_not_hide_others() -> None:
    """It becomes a name that nobody asks for."""
    assert decoded({b"m": {b"\xff": 3, b"ut_pex": 1}}).extensions == {"\N{REPLACEMENT CHARACTER}": 3, "ut_pex": 1}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"Transmission 4.0.5", "Transmission 4.0.5"),
        ("µTorrent 3.6".encode(), "µTorrent 3.6"),
        (b"  spaces  ", "spaces"),
        (b"\x1b[2Jx\n", "�[2Jx�"),
        (b"", None),
        (b"   ", None),
        (7, None),
        ([b"x"], None),
    ],
)
def test_a_clients_name_is_printable(value: BencodeValue, name: str | None) -> None:
    """It is shown in a table on our terminal; an empty one is none."""
    assert decoded({b"v": value}).client == name


@pytest.mark.parametrize(
    "data",
    [
        b"d1:v%d:%se" % (MAX_HANDSHAKE_LENGTH, b"x" * MAX_HANDSHAKE_LENGTH),
        b"d1:ml" + b"le" * (MAX_HANDSHAKE_ITEMS // 2) + b"ee",
    ],
    ids=["bytes", "items"],
)
def test_a_huge_handshake_is_a_violation(data: bytes) -> None:
    """A peer may send them one after the other, to keep us busy."""
    with pytest.raises(ProtocolViolation, match="extension handshake"):
        ExtendedHandshake.decode(data)


def test_a_handshake_with_many_extensions_is_read() -> None:
    """Far more than there are."""
    ids: dict[bytes, BencodeValue] = {b"extension %d" % number: number for number in range(1, 256)}
    assert len(decoded({b"m": ids}).extensions) == 255


def test_a_long_name_is_cut() -> None:
    """A screenful of name is for nobody's eyes."""
    name = decoded({b"v": b"x" * 60_000}).client
    assert name is not None
    assert len(name) == MAX_CLIENT_NAME
    assert name.endswith("…")
