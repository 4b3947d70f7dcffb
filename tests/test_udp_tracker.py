"""The datagrams of UDP trackers, byte by byte, and any bytes that a tracker may send instead."""

import contextlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.errors import TrackerError
from torrent_client.protocol.udp_tracker import (
    AnnounceAnswer,
    AnnounceRequest,
    ScrapeEntry,
    connect_request,
    is_answer,
    is_error,
    parse_announce,
    parse_connect,
    parse_scrape,
    scrape_request,
    url_options,
)

HASH, PEER_ID = bytes(range(20)), b"-PC0100-abcdefghijkl"


def test_a_connect_request_is_the_one_of_the_specification() -> None:
    """16 bytes, with the number that stands for "no connection yet"."""
    assert connect_request(0x01020304).hex() == "0000041727101980" + "00000000" + "01020304"


@pytest.mark.parametrize(("event", "code"), [(None, 0), ("completed", 1), ("started", 2), ("stopped", 3)])
def test_an_announce_has_every_field_at_its_place(event: str | None, code: int) -> None:
    """98 bytes: the offsets of the specification's table."""
    request = AnnounceRequest(HASH, PEER_ID, 1, 2**40, 3, event, 0xCAFEBABE, -1, 6881)
    datagram = request.encode(0x1122334455667788, 5)
    assert len(datagram) == 98
    assert datagram[0:8].hex() == "1122334455667788"
    assert datagram[8:16].hex() == "0000000100000005"
    assert datagram[16:36] == HASH
    assert datagram[36:56] == PEER_ID
    assert [int.from_bytes(datagram[at : at + 8], "big") for at in (56, 64, 72)] == [1, 2**40, 3]
    assert datagram[80:84] == bytes([0, 0, 0, code])
    assert datagram[84:88] == bytes(4)
    assert datagram[88:92].hex() == "cafebabe"
    assert datagram[92:96].hex() == "ffffffff"
    assert datagram[96:98] == b"\x1a\xe1"


def test_path_and_query_follow_as_options() -> None:
    """BEP 41's own example, and a long one in several parts of at most 255 bytes."""
    assert url_options(b"/dir?a=b&c=d") == b"\x02\x0c/dir?a=b&c=d"
    assert url_options(b"x" * 600) == b"\x02\xff" + b"x" * 255 + b"\x02\xff" + b"x" * 255 + b"\x02\x5a" + b"x" * 90
    assert url_options(b"") == b""
    request = AnnounceRequest(HASH, PEER_ID, 0, 0, 0, None, 0, 1, 1, b"/announce?key=1")
    assert request.encode(1, 1)[98:] == b"\x02\x0f/announce?key=1"


def test_a_scrape_has_up_to_74_hashes() -> None:
    """One behind the other."""
    datagram = scrape_request(1, 2, [HASH, PEER_ID])
    assert datagram == bytes.fromhex("0000000000000001" + "00000002" + "00000002") + HASH + PEER_ID


def test_answers_are_read() -> None:
    """Connection id; interval, counts and IPv4 or IPv6 peers; a scrape's entries."""
    assert parse_connect(pack(">IIQ", 0, 9, 77)) == 77
    head = pack(">IIIII", 1, 9, 1800, 4, 5)
    assert parse_announce(head + b"\x0a\x00\x00\x01\x1a\xe1", 4) == AnnounceAnswer(
        1800, 4, 5, ((b"\x0a\x00\x00\x01", 6881),)
    )
    assert parse_announce(head + bytes(15) + b"\x01\x1a\xe1", 16).peers == ((bytes(15) + b"\x01", 6881),)
    assert parse_scrape(pack(">IIIII", 2, 9, 1, 2, 3), 1) == [ScrapeEntry(seeders=1, completed=2, leechers=3)]


@pytest.mark.parametrize(
    ("tail", "count"), [(b"", 0), (b"\x0a\x00\x00\x01\x1a", 0), (b"\x0a\x00\x00\x01\x1a\xe1\x0a", 1), (bytes(6), 0)]
)
def test_cut_addresses_and_port_0_are_left_out(tail: bytes, count: int) -> None:
    """What is good is kept."""
    assert len(parse_announce(pack(">IIIII", 1, 9, 1, 1, 1) + tail, 4).peers) == count


def test_an_answer_is_known_by_its_transaction() -> None:
    """Another's, or one too short to have any, is none."""
    assert is_answer(pack(">II", 0, 7), 7)
    assert not is_answer(pack(">II", 0, 8), 7)
    assert not is_answer(pack(">II", 0, 7)[:7], 7)
    assert not is_answer(b"", 0)


def test_an_error_is_told_in_the_trackers_words() -> None:
    """Fit for a terminal, without the zero byte that some put at its end, and not without end."""
    datagram = pack(">II", 3, 7) + b"not registered\x1b[2J\0"
    assert is_error(datagram)
    with pytest.raises(TrackerError) as caught:
        parse_announce(datagram, 4)
    assert str(caught.value) == "refused: not registered\ufffd[2J"
    with pytest.raises(TrackerError) as caught:
        parse_connect(pack(">II", 3, 7) + b"x" * 5000)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [(pack(">IIQ", 1, 9, 77), "another question"), (pack(">III", 0, 9, 77), "12 bytes instead of 16")],
)
def test_a_malformed_answer_is_told(datagram: bytes, reason: str) -> None:
    """Another action, or too few bytes."""
    with pytest.raises(TrackerError, match=reason):
        parse_connect(datagram)


def test_an_empty_answer_is_taken_for_a_refusal() -> None:
    """Some trackers give no reason."""
    with pytest.raises(TrackerError, match="perhaps the tracker does not serve this torrent"):
        parse_announce(pack(">II", 1, 7), 4)
    with pytest.raises(TrackerError, match="8 bytes instead of 16"):
        parse_connect(pack(">II", 0, 7))


@given(st.binary(min_size=8, max_size=100) | st.binary(max_size=80).map(lambda tail: pack(">II", 1, 9) + tail))
def test_any_answer_is_read_or_refused(datagram: bytes) -> None:
    """Any datagram that passes for an answer gives a value or a TrackerError, with printable words."""
    for parse in (parse_connect, lambda data: parse_announce(data, 16), lambda data: parse_scrape(data, 3)):
        with contextlib.suppress(TrackerError):
            parse(datagram)
    with contextlib.suppress(TrackerError):
        assert all(0 < port < 65_536 for _, port in parse_announce(datagram, 4).peers)
