"""Our client and other people's, when they take encrypted connections only."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Peer,
    aria2_leech,
    aria2_seeder,
    free_port,
    has_everything,
    libtorrent_leech,
    libtorrent_seeder,
    make_torrent,
    opentracker,
    rtorrent_seeder,
    transmission_leech,
    transmission_seeder,
    wait_until_ready,
)
from tests.support import ClientProcess, payload, running_client, running_command

PIECE_LENGTH = 32768
SIZE = 3_000_003  # bytes
TIMEOUT = 40.0  # seconds; Transmission unchokes every 10 s

Seeder = Callable[..., AbstractContextManager[Peer]]


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of one file with an odd last piece."""
    return make_torrent(tmp_path, payload(SIZE), PIECE_LENGTH)


def all_peers(client: ClientProcess) -> list[dict[str, Any]]:
    """Return what every report says of every peer that has given or taken anything."""
    peers = [peer for report in client.reports() for peer in report["peers"]]
    return [peer for peer in peers if peer["downloaded"] or peer["uploaded"]]


def assert_downloads(client: ClientProcess, torrent: MadeTorrent, downloads: Path) -> None:
    """Wait for the end of a download, which has everything and fetched nothing twice."""
    assert client.wait(TIMEOUT) == 0, client.log_tail()
    torrent.assert_content_in(downloads)
    assert client.last_report()["wasted"] == 0


@pytest.mark.parametrize(
    ("seeder", "mode"),
    [
        (libtorrent_seeder, "allow"),
        (libtorrent_seeder, "prefer"),
        (libtorrent_seeder, "require"),
        (aria2_seeder, "allow"),
        (aria2_seeder, "require"),
        (rtorrent_seeder, "allow"),
        (rtorrent_seeder, "require"),
        (transmission_seeder, "allow"),  # once, because it makes us wait for 10 s
    ],
)
def test_downloads_from_a_seeder_that_insists_on_rc4(
    seeder: Seeder, mode: str, torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """By default after a plain handshake that was hung up on, else at once; and what we show says so."""
    with (
        seeder(tmp_path, torrent, encryption="rc4") as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", peer.address, "--encryption", mode) as client,
    ):
        assert_downloads(client, torrent, downloads)
    assert all(one["encrypted"] for one in all_peers(client))


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_downloads_from_a_seeder_that_encrypts_handshakes_alone(
    mode: str, torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """Plaintext goes on where the negotiation ended, in the same packets."""
    with (
        libtorrent_seeder(tmp_path, torrent, encryption="plaintext") as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", peer.address, "--encryption", mode) as client,
    ):
        assert_downloads(client, torrent, downloads)
    assert not any(one["encrypted"] for one in all_peers(client))


@pytest.mark.parametrize("seeder", [libtorrent_seeder, aria2_seeder])
def test_requires_rc4_of_seeders_that_leave_it_to_us(
    seeder: Seeder, torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """They take an encrypted handshake by their defaults."""
    with (
        seeder(tmp_path, torrent) as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", peer.address, "--encryption", "require") as client,
    ):
        assert_downloads(client, torrent, downloads)
    assert all(one["encrypted"] for one in all_peers(client))


def test_off_cannot_reach_a_seeder_that_insists(torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """The user asked for it, and is told why nothing comes."""
    with (
        libtorrent_seeder(tmp_path, torrent, encryption="rc4") as peer,
        running_client(
            tmp_path, torrent.path, downloads, "--peer", peer.address, "--encryption", "off", "--stop-timeout", "2"
        ) as client,
    ):
        assert client.wait(TIMEOUT) == 5
    assert client.last_report()["downloaded"] == 0


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_seeds_to_leechers_that_insist_on_rc4(mode: str, torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """They dial us, one told our address and one by the tracker."""
    port = free_port()
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        command = ["seed", tracked.path, "--data", torrent.directory / torrent.name, "--port", str(port)]
        with running_command(tmp_path, *command, "--encryption", mode) as client:
            ours = Peer("our client", "127.0.0.1", port, client.process, client.log, "rc4")
            wait_until_ready(ours, lambda: has_everything(ours, torrent))
            libtorrent_leech(tmp_path, torrent, downloads / "libtorrent", [ours.address], encryption="rc4")
            tracker.wait_for_seeders(tracked)
            aria2_leech(tmp_path, tracked, downloads / "aria2", encryption="rc4")
    torrent.assert_content_in(downloads / "libtorrent")
    torrent.assert_content_in(downloads / "aria2")


def test_seeds_to_a_leecher_that_encrypts_handshakes_alone(
    torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """Plaintext after it, both ways."""
    port = free_port()
    command = ["seed", torrent.path, "--data", torrent.directory / torrent.name, "--port", str(port)]
    with running_command(tmp_path, *command) as client:
        ours = Peer("our client", "127.0.0.1", port, client.process, client.log, "plaintext")
        wait_until_ready(ours, lambda: has_everything(ours, torrent))
        libtorrent_leech(tmp_path, torrent, downloads, [ours.address], encryption="plaintext")
    torrent.assert_content_in(downloads)


def test_seeds_to_transmission_that_insists_on_rc4(torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """We dial it, for it dials nobody on loopback."""
    data = torrent.directory / torrent.name
    with transmission_leech(tmp_path, torrent, downloads, encryption="rc4") as peer:
        command = ["seed", torrent.path, "--data", data, "--port", "0", "--peer", peer.address]
        with running_command(tmp_path, *command):
            wait_until_ready(peer, lambda: has_everything(peer, torrent), TIMEOUT)
    torrent.assert_content_in(downloads)
