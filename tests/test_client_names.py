"""A client's name from its peer id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.protocol.client_names import client_name


@pytest.mark.parametrize(
    ("peer_id", "name"),
    [
        (b"-TR4050-abcdefghijkl", "Transmission 4.0.5.0"),
        (b"-TR40Z0-abcdefghijkl", "Transmission 4.0.Z.0"),
        (b"-qB4650-abcdefghijkl", "qBittorrent 4.6.5.0"),
        (b"-LT20A0-abcdefghijkl", "libtorrent 2.0.A.0"),
        (b"-lt0D80-abcdefghijkl", "rTorrent 0.D.8.0"),  # capitals count
        (b"-PC0100-abcdefghijkl", "torrent-client 0.1.0.0"),
        (b"-ZZ1234-abcdefghijkl", "ZZ 1.2.3.4"),  # nobody we know, in the usual form
        (b"A2-1-36-0-abcdefghij", "aria2 1.36.0"),
        (b"A2-1-36-0-a-b-c-d-ef", "aria2 1.36.0"),
        (b"M4-3-6--abcdefghijkl", "Mainline 4.3.6"),
        (b"M7-10-5-abcdefghijkl", "Mainline 7.10.5"),
        (b"S58B-----abcdefghijk", "S 58B"),  # Shadow's form
        (b"T03I--00abcdefghijkl", "T 03I"),
        (b"exbc\x00\x01LORDxxxxxxxx", "exbc..LO"),
        (b"-TR405-abcdefghijklm", "-TR405-a"),  # one digit short of the usual form
        (b"-TR4050+abcdefghijkl", "-TR4050+"),
        (bytes(20), "........"),
        (b"\x1b[2J\r\n\x07\x9b............", ".[2J...."),
        (b"        abcdefghijkl", "........"),
        (b"", ""),
    ],
)
def test_names_of_known_and_unknown_clients(peer_id: bytes, name: str) -> None:
    """BEP 20's forms; of anything else the beginning, as far as it can be printed."""
    assert client_name(peer_id) == name


@given(st.binary(min_size=20, max_size=20) | st.from_regex(rb"\A(-..|A2-|[A-Z]).*", fullmatch=True))
def test_any_id_gives_a_short_printable_name(peer_id: bytes) -> None:
    """It is shown on our terminal, whatever a peer says."""
    name = client_name(peer_id[:20])
    assert name.isprintable()
    assert name.isascii()
    assert len(name) <= 40
