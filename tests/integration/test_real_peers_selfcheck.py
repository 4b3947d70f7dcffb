"""The real peers against each other, without our client: what fails here is not our client's fault."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Peer,
    aria2_leech,
    aria2_seeder,
    libtorrent_leech,
    libtorrent_seeder,
    make_torrent,
    opentracker,
    rtorrent_seeder,
    transmission_seeder,
)
from tests.support import payload

SEEDERS = [libtorrent_seeder, aria2_seeder, transmission_seeder, rtorrent_seeder]


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent with a nested folder, an empty file and an odd last piece."""
    files = {
        "a.bin": payload(300_001, 1),
        "deep/er/b.bin": payload(70_000, 2),
        "deep/empty": b"",
        "last": payload(1, 3),
    }
    return make_torrent(tmp_path, files, 32768)


@pytest.mark.parametrize("seeder", SEEDERS)
def test_libtorrent_downloads_from_each_seeder_by_address(
    seeder: Callable[[Path, MadeTorrent], AbstractContextManager[Peer]],
    torrent: MadeTorrent,
    tmp_path: Path,
    downloads: Path,
) -> None:
    """A seeder that is called ready serves every byte to a peer that dials it."""
    with seeder(tmp_path, torrent) as peer:
        libtorrent_leech(tmp_path, torrent, downloads, [peer.address])
    torrent.assert_content_in(downloads)


def test_aria2_downloads_from_a_swarm_that_only_the_tracker_knows(
    torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """Every seeder announces itself, each from an address of its own, and a leecher finds them."""
    with ExitStack() as stack:
        tracker = stack.enter_context(opentracker(tmp_path, torrent))
        tracked = torrent.with_trackers(tracker.announce_url)
        for number, seeder in enumerate(SEEDERS, start=2):
            stack.enter_context(seeder(tmp_path, tracked, host=f"127.0.0.{number}"))
        tracker.wait_for_seeders(tracked, len(SEEDERS))
        aria2_leech(tmp_path, tracked, downloads)
    torrent.assert_content_in(downloads)


def test_a_seeder_announces_itself_over_udp(torrent: MadeTorrent, tmp_path: Path) -> None:
    """The tracker serves UDP on the port of its HTTP side."""
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.udp_announce_url)
        with libtorrent_seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
