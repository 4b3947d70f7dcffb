"""Announces to real trackers, over HTTP and UDP."""

from pathlib import Path

import pytest

from tests.integration.real_peers import MadeTorrent, libtorrent_seeder, make_torrent, opentracker
from tests.support import payload, running_client
from torrent_client.tracker_client import Progress, TrackerClient, generate_peer_id


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of a file of 16 pieces."""
    return make_torrent(tmp_path, payload(16 * 65_536 - 5), 65_536)


def test_a_download_finds_its_seeder_over_udp(torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """From the command line to the verified file, with a tracker that is asked over UDP alone."""
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.udp_announce_url)
        with libtorrent_seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            with running_client(tmp_path, tracked.path, downloads) as client:
                assert client.wait(30) == 0
                (status,) = client.last_report()["trackers"]
    assert status["url"] == tracker.udp_announce_url
    torrent.assert_content_in(downloads)


def test_opentracker_lists_us_over_udp(torrent: MadeTorrent, tmp_path: Path) -> None:
    """Two clients find each other; one that says `stopped` is forgotten."""
    with opentracker(tmp_path, torrent) as tracker:
        url = tracker.udp_announce_url
        first, second = (TrackerClient(url, torrent.info_hash, generate_peer_id(), port) for port in (1001, 1002))
        first.announce(Progress(0, 0, 0), "started")
        answer = second.announce(Progress(0, 0, 5), "started")
        assert {peer.port for peer in answer.peers} >= {1001}
        assert (answer.seeders, answer.leechers) == (1, 1)
        first.announce(Progress(0, 0, 0), "stopped", num_want=0)
        assert second.announce(Progress(0, 0, 5)).seeders == 0
