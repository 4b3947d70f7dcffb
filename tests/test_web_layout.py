"""From ranges of a torrent to ranges of URLs, and which URLs are asked at all."""

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_peer import metainfo, torrent_of
from tests.support import payload
from torrent_client.errors import WebSeedError
from torrent_client.protocol.bencode import bencode_decode, bencode_encode
from torrent_client.torrent_parser import TorrentFile
from torrent_client.web_layout import FileLayout, PieceLayout, WebRange, check_web_seed_url, raw_names

SINGLE = torrent_of(payload(100), 64, name="a b.iso")
SEVERAL = torrent_of({"a.txt": payload(10), "empty": b"", "dir/b #1.iso": payload(90)}, 64, name="top")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://host/file.iso", "http://host/file.iso"),
        ("http://host/pub/", "http://host/pub/a%20b.iso"),
        ("http://host", "http://host/a%20b.iso"),
        ("http://host/get/?key=1#part", "http://host/get/a%20b.iso?key=1"),
        ("http://user:word@host:8080/", "http://user:word@host:8080/a%20b.iso"),
    ],
)
def test_the_url_of_a_single_file(base: str, expected: str) -> None:
    """As it stands, unless it ends in a slash; a fragment is not sent."""
    assert FileLayout(base, SINGLE).url_of(0) == expected


@pytest.mark.parametrize("base", ["http://host/pub/", "http://host/pub"])
def test_the_urls_of_several_files_hold_the_torrents_name(base: str) -> None:
    """Whether the base ends in a slash or not; what has a meaning in URLs is quoted."""
    layout = FileLayout(base, SEVERAL)
    assert [layout.url_of(0), layout.url_of(2)] == ["http://host/pub/top/a.txt", "http://host/pub/top/dir/b%20%231.iso"]


def test_names_are_those_of_the_torrent_and_not_ours() -> None:
    """Servers know nothing of the names that are safe on our disk."""
    value = bencode_decode(metainfo({"x": payload(10), "AUX": payload(10)}, 64))
    assert isinstance(value, dict)
    assert isinstance(value[b"info"], dict)
    files = value[b"info"][b"files"]
    assert isinstance(files, list)
    assert isinstance(files[0], dict)
    files[0][b"path"] = [b"\xe4?", b".."]
    torrent = TorrentFile.from_bytes(bencode_encode(value))
    assert raw_names(torrent) == [(b"file.bin", b"\xe4?", b".."), (b"file.bin", b"AUX")]
    assert FileLayout("http://host/", torrent).url_of(0) == "http://host/file.bin/%E4%3F/.."


def test_the_utf8_name_is_the_one_that_the_parser_takes() -> None:
    """Old makers give a second name in UTF-8."""
    value = bencode_decode(metainfo(payload(10), 64))
    assert isinstance(value, dict)
    assert isinstance(value[b"info"], dict)
    value[b"info"][b"name.utf-8"] = "ä".encode()
    torrent = TorrentFile.from_bytes(bencode_encode(value))
    assert FileLayout("http://host/", torrent).url_of(0) == "http://host/%C3%A4"


def test_a_range_over_several_files_is_asked_file_by_file() -> None:
    """With the place in each file, and its size; files without bytes are left out."""
    first, second = FileLayout("http://host/", SEVERAL).ranges(4, 50)
    assert first == WebRange("http://host/top/a.txt", 4, 6, 10, 0)
    assert second == WebRange("http://host/top/dir/b%20%231.iso", 0, 40, 90, 2)


def test_padding_is_nowhere() -> None:
    """Its bytes are zeros, and no server has them."""
    value = bencode_decode(metainfo({"a": payload(10), "pad": bytes(54), "b": payload(64)}, 64))
    assert isinstance(value, dict)
    assert isinstance(value[b"info"], dict)
    files = value[b"info"][b"files"]
    assert isinstance(files, list)
    assert isinstance(files[1], dict)
    files[1][b"attr"] = b"p"
    layout = FileLayout("http://host/", TorrentFile.from_bytes(bencode_encode(value)))
    assert [(part.url, part.length) for part in layout.ranges(0, 128)] == [
        ("http://host/file.bin/a", 10),
        ("", 54),
        ("http://host/file.bin/b", 64),
    ]


def test_a_script_is_asked_piece_by_piece() -> None:
    """BEP 17: both ends are in the range, and what it answers is these bytes alone."""
    first, second = PieceLayout("http://host/seed.php", SINGLE).ranges(60, 100)
    quoted = quote_from_bytes(SINGLE.info_hash, safe="")
    assert first.url == f"http://host/seed.php?info_hash={quoted}&piece=0&ranges=60-63"
    assert second == WebRange(f"http://host/seed.php?info_hash={quoted}&piece=1&ranges=0-35", 0, 36, 36, None)
    assert second.is_whole


def test_a_scripts_own_query_is_kept() -> None:
    """Some need a key."""
    (part,) = PieceLayout("http://host?key=1", SINGLE).ranges(0, 64)
    assert part.url.startswith("http://host/?key=1&info_hash=")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(sum), st.data())
def test_ranges_cover_exactly_what_was_asked_for(sizes: list[int], data: st.DataObject) -> None:
    """Whatever the files' sizes: in order, nothing twice, nothing left out."""
    torrent = torrent_of({f"f{number}": payload(size, number) for number, size in enumerate(sizes)}, 16)
    start = data.draw(st.integers(0, sum(sizes) - 1))
    end = data.draw(st.integers(start + 1, sum(sizes)))
    contents = [payload(size, number) for number, size in enumerate(sizes)]
    parts = list(FileLayout("http://host/", torrent).ranges(start, end))
    got = b"".join(contents[part.file or 0][part.start : part.start + part.length] for part in parts)
    assert got == b"".join(contents)[start:end]
    assert all(part.length > 0 for part in parts)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://host/file", "ftp URLs are not supported, only http and https"),
        ("file:///etc/passwd", "file URLs are not supported"),
        ("//host/file", "no URLs are not supported"),
        ("http:///file", "the URL has no host"),
        ("http://host:port/", "not a URL"),
        ("http://127.0.0.1/reboot?now=1", "a query"),
        ("http://localhost/?x", "a query"),
        ("http://192.168.1.1/admin?x=1", "a query"),
        ("http://[::1]/?x", "a query"),
    ],
)
def test_urls_that_are_not_asked(url: str, told: str) -> None:
    """A torrent must not make us push buttons on a router."""
    with pytest.raises(WebSeedError, match=told) as caught:
        check_web_seed_url(url)
    assert caught.value.is_lasting


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/file", "http://192.168.1.1/", "http://8.8.8.8/?x=1"])
def test_urls_that_are_asked(url: str) -> None:
    """Files of a private host are, and so are queries to the internet."""
    check_web_seed_url(url)
