"""The number by which both ends of a connection tell what it is worth."""

import pytest

from torrent_client.protocol.peer_priority import crc32c, peer_priority

US = ("123.213.32.10", 6881)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_crc32c(data: bytes, checksum: int) -> None:
    """The usual check value, and those of RFC 3720."""
    assert crc32c(data) == checksum


@pytest.mark.parametrize(
    ("theirs", "priority"),
    [
        ("98.76.54.32", 0xEC2D7224),
        ("123.213.32.234", 0x99568189),
    ],
)
def test_the_vectors_of_bep_40(theirs: str, priority: int) -> None:
    """Far away, and in one /24; the same from the other end, and whatever the ports."""
    assert peer_priority(US, (theirs, 1)) == priority
    assert peer_priority((theirs, 2), US) == priority
    assert peer_priority(US, (f"::ffff:{theirs}", 1)) == priority


@pytest.mark.parametrize(
    ("one", "other", "bytes_of_the_crc"),
    [
        # In one /16: all of the third byte counts, and half of the fourth.
        ("123.213.32.10", "123.213.33.255", "7bd520007bd52155"),
        ("2001:db8:1::ff", "2001:db8:2::ff", f"20010db80001{'00' * 9}5520010db80002{'00' * 9}55"),
        # In one /48, and in one /56: one byte more each.
        (
            "2001:db8:1:aaff::",
            "2001:db8:1:bbff::",
            f"20010db80001aa55{'00' * 8}20010db80001bb55{'00' * 8}",
        ),
        (
            "2001:db8:1:aaff:ff00::",
            "2001:db8:1:aafe:ff00::",
            f"20010db80001aafe55{'00' * 7}20010db80001aaff55{'00' * 7}",
        ),
    ],
)
def test_the_more_two_addresses_share_the_more_of_them_counts(one: str, other: str, bytes_of_the_crc: str) -> None:
    """So that neighbours differ, too."""
    assert peer_priority((one, 1), (other, 1)) == crc32c(bytes.fromhex(bytes_of_the_crc))


def test_behind_one_address_the_ports_count() -> None:
    """Smaller one first."""
    assert peer_priority(US, (US[0], 80)) == crc32c(bytes.fromhex("00501ae1"))
    assert peer_priority((US[0], 80), US) == crc32c(bytes.fromhex("00501ae1"))


@pytest.mark.parametrize("theirs", ["2001:db8::1", "peer.example", ""])
def test_some_have_no_priority(theirs: str) -> None:
    """Of another kind than ours, or no address."""
    assert peer_priority(US, (theirs, 1)) is None
