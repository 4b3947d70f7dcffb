"""Scraping: what is asked over HTTP and what answers say, and the `scrape` command with several trackers."""

import json
from pathlib import Path

import pytest

from tests.fake_peer import closed_port
from tests.fake_udp_tracker import FakeUdpTracker
from torrent_client.cli.main import main
from torrent_client.errors import TrackerError
from torrent_client.local_tracker import LocalTracker
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.torrent_creator import create_torrent
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import (
    HASHES_PER_SCRAPE,
    Progress,
    ScrapeCounts,
    TrackerClient,
    generate_peer_id,
    parse_scrape,
)
from torrent_client.tracker_url import scrape_url

HASH = bytes(range(20))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to loopback directly."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize(
    ("announce", "scrape"),
    [
        ("http://example.com/announce", "http://example.com/scrape"),
        ("http://example.com/x/announce", "http://example.com/x/scrape"),
        ("http://example.com/announce.php", "http://example.com/scrape.php"),
        ("http://example.com/announce?x2%0644", "http://example.com/scrape?x2%0644"),
        ("https://example.com:8443/key/announce#x", "https://example.com:8443/key/scrape"),
    ],
)
def test_the_scrape_url_follows_from_the_announce_url(announce: str, scrape: str) -> None:
    """BEP 48's own examples."""
    assert scrape_url(announce) == scrape


@pytest.mark.parametrize("announce", ["http://example.com/a", "http://example.com/announce/x", "http://example.com"])
def test_some_trackers_offer_none(announce: str) -> None:
    """Which their URL says."""
    with pytest.raises(TrackerError, match="offers no scrape"):
        scrape_url(announce)


def test_an_answer_is_read() -> None:
    """Entries that are none are left out, and so are numbers below zero."""
    answer = {"files": {HASH: {"complete": 5, "incomplete": 2, "downloaded": 50}, b"x": {"complete": -1}, b"y": 5}}
    assert parse_scrape(bencode_encode(answer)) == {
        HASH: ScrapeCounts(seeders=5, leechers=2, completed=50),
        b"x": ScrapeCounts(0, 0, 0),
    }


def test_a_hash_that_was_taken_for_letters_is_known() -> None:
    """bittorrent-tracker 11 writes each byte above 127 as two, which is UTF-8."""
    info_hash = bytes(range(120, 140))
    answer = {"files": {info_hash.decode("latin-1").encode(): {"complete": 5}}}
    assert parse_scrape(bencode_encode(answer)) == {info_hash: ScrapeCounts(5, 0, 0)}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [({"failure reason": "no"}, "refused: no"), ({}, "no files"), ({"files": []}, "no files"), ([], "no dictionary")],
)
def test_a_bad_answer_is_a_tracker_error(answer: object, reason: str) -> None:
    """In words."""
    with pytest.raises(TrackerError, match=reason):
        parse_scrape(bencode_encode(answer))


def test_http_trackers_are_asked_about_many_torrents_at_once() -> None:
    """More than go into one URL; those that the tracker does not know are left out."""
    hashes = [bytes([number]) * 20 for number in range(HASHES_PER_SCRAPE + 3)]
    with LocalTracker() as tracker:
        known = hashes[1], hashes[-1]
        for info_hash in known:
            TrackerClient(tracker.announce_url, info_hash, generate_peer_id(), 7).announce(Progress(0, 0, 0), "started")
        counts = TrackerClient(tracker.announce_url, hashes[0], generate_peer_id(), 7).scrape(hashes)
    assert {info_hash: counts[info_hash].seeders for info_hash in known} == {known[0]: 1, known[1]: 1}


@pytest.fixture
def torrent(tmp_path: Path) -> Path:
    """Return the path of a torrent without trackers."""
    (tmp_path / "file").write_bytes(bytes(20_000))
    path = tmp_path / "file.torrent"
    path.write_bytes(create_torrent(tmp_path / "file"))
    return path


def test_the_command_asks_every_tracker(torrent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """HTTP, UDP and a dead one: a line each, and success when one has answered."""
    dead = f"http://127.0.0.1:{closed_port()}/announce"
    with LocalTracker() as http, FakeUdpTracker() as udp:
        info_hash = TorrentFile.from_file(torrent).info_hash
        TrackerClient(http.announce_url, info_hash, generate_peer_id(), 7).announce(Progress(0, 0, 0), "started")
        options = [word for url in (http.announce_url, udp.url, dead) for word in ("--tracker", url)]
        assert main(["scrape", str(torrent), *options, "--json"]) == 0
        values = {value["url"]: value for value in map(json.loads, capsys.readouterr().out.splitlines())}
        assert main(["scrape", str(torrent), *options]) == 0
    assert (values[http.announce_url]["seeders"], values[http.announce_url]["error"]) == (1, None)
    assert (values[udp.url]["leechers"], values[udp.url]["completed"]) == (2, 1)
    assert (values[dead]["seeders"], values[dead]["error"]) == (None, "connection refused: nothing listens there")
    text = capsys.readouterr()
    assert f"1 seeds      0 others        0 completed   {http.announce_url}" in text.out
    assert f"{dead}: connection refused" in text.err


def test_the_command_fails_when_nobody_answers(torrent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And when there is nobody to ask."""
    assert main(["scrape", str(torrent), "--tracker", f"udp://127.0.0.1:{closed_port()}"]) == 1
    assert "connection refused" in capsys.readouterr().err
    assert main(["scrape", str(torrent)]) == 3
    assert "no tracker to ask" in capsys.readouterr().err


def test_the_command_takes_links_and_several_torrents(torrent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tracker that several name is asked once about all."""
    with FakeUdpTracker() as udp:
        link = f"magnet:?xt=urn:btih:{HASH.hex()}&dn=linked&tr={udp.url}"
        assert main(["scrape", str(torrent), link, "--tracker", udp.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert udp.actions == [0, 2]
    assert "file: udp://" in lines[0]
    assert "linked: udp://" in lines[1]
