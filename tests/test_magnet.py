"""What a magnet link says, and what a .torrent file around fetched metadata holds."""

import base64

import pytest

from tests.fake_peer import metainfo as torrent_bytes
from torrent_client.errors import MetainfoError
from torrent_client.file_selection import FileRange
from torrent_client.magnet import MAX_LENGTH, MagnetLink, metainfo
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

HASH = bytes(range(20))
TORRENT_INFO = TorrentFile.from_bytes(torrent_bytes(b"x" * 50_000, 16_384)).info
XT = f"magnet:?xt=urn:btih:{HASH.hex()}"


def test_the_info_hash_may_be_hex_or_base32_in_either_case() -> None:
    for text in (
        HASH.hex(),
        HASH.hex().upper(),
        base64.b32encode(HASH).decode(),
        base64.b32encode(HASH).decode().lower(),
    ):
        assert MagnetLink.parse(f"magnet:?xt=urn:btih:{text}").info_hash == HASH


def test_every_parameter_is_read_and_written_again() -> None:
    link = MagnetLink.parse(
        f"{XT}&dn=a+b%26c&tr=http%3A%2F%2Ft.example%2Fannounce&tr.2=udp://u.example:80&x.pe=192.0.2.1:6881"
        "&x.pe=[2001:db8::1]:7000&x.pe=peer.example:1&ws=http://w.example/f&so=0,2,4-6&unknown=1"
    )
    assert link.name == "a b&c"
    assert link.trackers == ("http://t.example/announce", "udp://u.example:80")
    assert link.peers == (
        PeerAddress("192.0.2.1", 6881),
        PeerAddress("2001:db8::1", 7000),
        PeerAddress("peer.example", 1),
    )
    assert link.web_seeds == ("http://w.example/f",)
    assert link.selected == (FileRange(1, 1), FileRange(3, 3), FileRange(5, 7))
    assert MagnetLink.parse(str(link)) == link


def test_a_hybrid_link_counts_by_its_v1_hash() -> None:
    assert MagnetLink.parse(f"magnet:?xt=urn:btmh:1220{'00' * 32}&xt=urn:btih:{HASH.hex()}").info_hash == HASH


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://example.com", "magnet:?"),
        ("magnet:?dn=x", "names no torrent"),
        ("magnet:?xt=urn:btih:abc", "40 hex or 32 base32"),
        (f"magnet:?xt=urn:btih:{'g' * 40}", "40 hex or 32 base32"),
        (f"magnet:?xt=urn:btmh:1220{'00' * 32}", "v2-only"),
        (XT + "&x=" + "y" * MAX_LENGTH, "characters"),
        (XT + "&a=b" * 2000, "magnet link"),
    ],
)
def test_what_is_no_link_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(MetainfoError, match=said.replace("?", r"\?")):
        MagnetLink.parse(text)


@pytest.mark.parametrize("peer", ["", ":1", "a:0", "a:65536", "a:x", "2001:db8::1:80", "a b:1", "\x1b[1m:5"])
def test_an_address_that_is_none_is_left_out(peer: str) -> None:
    assert MagnetLink.parse(f"{XT}&x.pe={peer}").peers == ()


def test_an_url_with_control_characters_is_left_out() -> None:
    assert MagnetLink.parse(f"{XT}&tr=http://a%1b%5b1m/&ws=nonsense").trackers == ()


def test_the_link_to_a_torrent_names_it_and_all_its_trackers() -> None:
    torrent = TorrentFile.from_bytes(
        metainfo(TORRENT_INFO, [["http://t/announce", "udp://u:1"], ["http://v/"]], ["http://w/"])
    )
    link = MagnetLink.of(torrent)
    assert MagnetLink.parse(str(link)) == link
    assert (link.info_hash, link.name) == (torrent.info_hash, torrent.name)
    assert link.trackers == ("http://t/announce", "udp://u:1", "http://v/")
    assert link.web_seeds == ("http://w/",)


def test_a_link_without_a_name_shows_its_hash() -> None:
    assert MagnetLink.parse(XT).display_name == HASH.hex()


def test_the_made_metainfo_is_the_same_torrent_with_the_links_trackers_and_web_seeds() -> None:
    original = TorrentFile.from_bytes(torrent_bytes(b"x" * 50_000, 16_384))
    data = metainfo(original.info, [["http://t/announce"], ["udp://u:1"]], ["http://w/"])
    made = TorrentFile.from_bytes(data)
    assert made.info_hash == original.info_hash
    assert made.trackers == (("http://t/announce",), ("udp://u:1",))
    assert made.web_seeds == ("http://w/",)
    assert TorrentFile.from_bytes(metainfo(original.info, [], [])).info_hash == original.info_hash
