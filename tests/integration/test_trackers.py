"""Real trackers, opentracker and npm's bittorrent-tracker, over HTTP and UDP: announces, scrapes, IPv6, downloads."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.npm_tracker import npm_tracker
from tests.integration.real_peers import MadeTorrent, Tracker, libtorrent_seeder, make_torrent, opentracker
from tests.support import payload, running_client, wait_until
from torrent_client.cli.main import main
from torrent_client.tracker_client import Progress, TrackerClient, generate_peer_id


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to loopback directly."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of a file of 16 pieces."""
    return make_torrent(tmp_path, payload(16 * 65_536 - 5), 65_536)


@pytest.fixture(params=["opentracker", "bittorrent-tracker"])
def tracker(request: pytest.FixtureRequest, torrent: MadeTorrent, tmp_path: Path) -> Iterator[Tracker]:
    """Return each real tracker in turn, running."""
    start = opentracker(tmp_path, torrent) if request.param == "opentracker" else npm_tracker(tmp_path)
    with start as running:
        yield running


HTTP_AND_UDP = pytest.mark.parametrize(
    "url_of", [lambda tracker: tracker.announce_url, lambda tracker: tracker.udp_announce_url], ids=["http", "udp"]
)
UrlOf = Callable[[Tracker], str]


@HTTP_AND_UDP
def test_a_download_finds_its_seeder(
    url_of: UrlOf, tracker: Tracker, torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """From the command line to the verified file, with this tracker alone; and the state that it shows."""
    tracked = torrent.with_trackers(url_of(tracker))
    with libtorrent_seeder(tmp_path, tracked):
        observer = client_of(url_of(tracker), torrent, 1)
        wait_until(lambda: knows_a_seeder(observer, torrent))
        with running_client(tmp_path, tracked.path, downloads) as client:
            assert client.wait(30) == 0
            (status,) = client.last_report()["trackers"]
    assert (status["url"], status["state"], status["error"]) == (url_of(tracker), "working", None)
    assert status["seeders"] >= 1
    torrent.assert_content_in(downloads)


def knows_a_seeder(client: TrackerClient, torrent: MadeTorrent) -> bool:
    """Tell whether a tracker that is asked by a scrape knows a complete peer."""
    counts = client.scrape([torrent.info_hash]).get(torrent.info_hash)
    return counts is not None and counts.seeders >= 1


def client_of(url: str, torrent: MadeTorrent, port: int) -> TrackerClient:
    """Return a client of its own."""
    return TrackerClient(url, torrent.info_hash, generate_peer_id(), port)


@HTTP_AND_UDP
def test_two_clients_find_each_other(url_of: UrlOf, tracker: Tracker, torrent: MadeTorrent) -> None:
    """The second one is told of the first; who completed is counted; who says `stopped` is forgotten."""
    first, second = (client_of(url_of(tracker), torrent, port) for port in (1001, 1002))
    first.announce(Progress(0, 0, 5), "started")
    first.announce(Progress(0, 5, 0), "completed")
    answer = second.announce(Progress(0, 0, 5), "started")
    assert {peer.port for peer in answer.peers} >= {1001}
    assert (answer.seeders, answer.leechers) == (1, 1)
    (counts,) = second.scrape([torrent.info_hash]).values()
    assert (counts.seeders, counts.leechers) == (1, 1)
    first.announce(Progress(0, 0, 0), "stopped", num_want=0)
    assert second.announce(Progress(0, 0, 5)).seeders == 0


def test_ipv6_peers_come_over_ipv6(torrent: MadeTorrent, tmp_path: Path) -> None:
    """Asked over IPv6 the tracker names IPv6 addresses (`peers6`), and over UDP, where it cannot, it answers still."""
    with npm_tracker(tmp_path, "::1") as tracker:
        url = f"http://[::1]:{tracker.port}/announce"
        first, second = (client_of(url, torrent, port) for port in (1001, 1002))
        first.announce(Progress(0, 0, 0), "started")
        assert {str(peer) for peer in second.announce(Progress(0, 0, 5), "started").peers} >= {"[::1]:1001"}
        third = client_of(f"udp://[::1]:{tracker.port}", torrent, 1003)
        assert third.announce(Progress(0, 0, 5), "started").leechers == 2


def test_the_scrape_command_shows_what_real_trackers_know(
    tracker: Tracker, torrent: MadeTorrent, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers over HTTP and UDP."""
    client_of(tracker.announce_url, torrent, 1001).announce(Progress(0, 0, 0), "started")
    urls = tracker.announce_url, tracker.udp_announce_url
    options = [word for url in urls for word in ("--tracker", url)]
    assert main(["scrape", str(torrent.path), *options, "--json"]) == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {value["url"] for value in values} == set(urls)
    for value in values:
        assert (value["seeders"], value["leechers"]) == (1, 0), value


def test_both_transports_of_a_tracker_are_used_at_once(
    tracker: Tracker, torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """Each is a tier, and has its own state."""
    urls = tracker.announce_url, tracker.udp_announce_url
    tracked = torrent.with_trackers(*urls)
    with (
        libtorrent_seeder(tmp_path, tracked, upload_limit=400_000) as peer,
        running_client(tmp_path, tracked.path, downloads, "--peer", peer.address) as client,
    ):
        assert client.wait(30) == 0
    statuses = client.last_report()["trackers"]
    assert {status["url"]: status["state"] for status in statuses} == dict.fromkeys(urls, "working")
    assert {status["tier"] for status in statuses} == {1, 2}
