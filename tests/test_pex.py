"""The bytes of peer exchange."""

import pytest

from torrent_client.errors import ProtocolViolation
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_encode
from torrent_client.protocol.pex import MAX_ITEMS, MAX_MESSAGE, PexContact, PexFlags, PexMessage

A = PexContact("192.0.2.1", 6881, PexFlags.REACHABLE | PexFlags.UPLOAD_ONLY)
B = PexContact("198.51.100.2", 1)
C = PexContact("2001:db8::3", 65_535, PexFlags.PREFERS_ENCRYPTION)
A_BYTES = b"\xc0\x00\x02\x01\x1a\xe1"
B_BYTES = b"\xc6\x33\x64\x02\x00\x01"
C_BYTES = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x03\xff\xff"


def test_a_message_has_the_fields_of_bep_11() -> None:
    """Six bytes a peer, eighteen with IPv6, and a byte of flags for each that is added."""
    assert bencode_decode(PexMessage((A, C, B), (B._replace(port=2), C._replace(port=2))).encode()) == {
        b"added": A_BYTES + B_BYTES,
        b"added.f": b"\x12\x00",
        b"added6": C_BYTES,
        b"added6.f": b"\x01",
        b"dropped": B_BYTES[:-1] + b"\x02",
        b"dropped6": C_BYTES[:-2] + b"\x00\x02",
    }


def test_fields_without_peers_are_left_out() -> None:
    """At least one is there in what is sent: who has nothing to tell sends nothing."""
    assert bencode_decode(PexMessage(dropped=(A,)).encode()) == {b"dropped": A_BYTES}


def test_what_is_written_is_read_again() -> None:
    """IPv4 first; those dropped have no flags."""
    message = PexMessage((A, B, C), (B._replace(port=2), C._replace(port=2, flags=PexFlags.NONE)))
    assert PexMessage.decode(message.encode()) == message


@pytest.mark.parametrize("value", [{}, {b"added": b"", b"added.f": b"", b"dropped": b""}, {b"other": 1}])
def test_a_message_may_say_nothing(value: dict[bytes, BencodeValue]) -> None:
    """Old clients send empty fields."""
    assert PexMessage.decode(bencode_encode(value)) == PexMessage()


@pytest.mark.parametrize("flags", [None, b"", b"\x01", b"\x01\x02\x03", 1, [1, 2]])
def test_flags_that_do_not_fit_are_none(flags: BencodeValue | None) -> None:
    """They are optional, and hints."""
    value: dict[bytes, BencodeValue] = {b"added": A_BYTES + B_BYTES}
    if flags is not None:
        value[b"added.f"] = flags
    assert [contact.flags for contact in PexMessage.decode(bencode_encode(value)).added] == [0, 0]


def test_flags_of_times_to_come_are_kept() -> None:
    """BEP 11 reserves them; known ones are found among them."""
    (contact,) = PexMessage.decode(bencode_encode({b"added": A_BYTES, b"added.f": b"\xe2"})).added
    assert contact.flags == 0xE2
    assert contact.flags & PexFlags.UPLOAD_ONLY


@pytest.mark.parametrize(
    "value",
    [
        {b"added": A_BYTES[:-1]},
        {b"added": A_BYTES + b"x"},
        {b"added6": A_BYTES},
        {b"dropped": b"x"},
        {b"dropped6": C_BYTES[1:]},
        {b"added": 1},
        {b"added": [A_BYTES]},
        {b"dropped": {}},
    ],
)
def test_half_a_peer_is_a_violation(value: dict[bytes, BencodeValue]) -> None:
    """Somebody counts otherwise than we do: nothing in it can be believed."""
    with pytest.raises(ProtocolViolation, match="peer exchange"):
        PexMessage.decode(bencode_encode(value))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"de junk",
        b"le",
        b"i1e",
        b"d5:added6:",
        bencode_encode({b"added": A_BYTES * (MAX_MESSAGE // 6)}),
        b"d1:xl" + b"le" * MAX_ITEMS + b"ee",
    ],
)
def test_what_is_no_message_is_a_violation(payload: bytes) -> None:
    """Nor one that is far larger than BEP 11 allows."""
    with pytest.raises(ProtocolViolation, match="peer exchange"):
        PexMessage.decode(payload)
