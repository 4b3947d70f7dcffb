"""The coursework's commands, run as a student runs them, against other people's programs."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Peer,
    aria2_seeder,
    libtorrent_seeder,
    make_torrent,
    opentracker,
    rtorrent_seeder,
    transmission_seeder,
)
from tests.support import payload

MAIN = Path(__file__).parents[2] / "main.py"
PIECE_LENGTH = 32768
SIZE = 5 * PIECE_LENGTH + 777

Seeder = Callable[[Path, MadeTorrent], AbstractContextManager[Peer]]


def milestone(*arguments: str | Path) -> str:
    """Run a command and return its standard output; it must end well, with the display's stream left alone."""
    done = subprocess.run([sys.executable, MAIN, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of one file."""
    return make_torrent(tmp_path, payload(SIZE), PIECE_LENGTH)


@pytest.mark.parametrize("seeder", [libtorrent_seeder, aria2_seeder, rtorrent_seeder])
def test_the_ladder_is_climbed_with_a_real_peer(seeder: Seeder, torrent: MadeTorrent, tmp_path: Path) -> None:
    """Tracker, handshake, a piece, the file: each command's output is exactly what the course wants."""
    data = torrent.files[torrent.name]
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with seeder(tmp_path, tracked) as peer:
            tracker.wait_for_seeders(tracked)
            assert peer.address in milestone("peers", tracked.path).splitlines()
            label, _, peer_id = milestone("handshake", tracked.path, peer.address).rstrip("\n").partition(": ")
            assert label == "Peer ID"
            assert len(bytes.fromhex(peer_id)) == 20
            output = tmp_path / "piece"
            assert milestone("download_piece", "-o", output, tracked.path, "5") == ""
            assert output.read_bytes() == data[5 * PIECE_LENGTH :]
            assert milestone("download", "-o", output, tracked.path) == ""
            assert output.read_bytes() == data


@pytest.mark.parametrize("seeder", [libtorrent_seeder, aria2_seeder, rtorrent_seeder])
def test_the_magnet_ladder_is_climbed_with_a_real_peer(seeder: Seeder, torrent: MadeTorrent, tmp_path: Path) -> None:
    """From the link alone: both ids, the metadata, a piece, the file."""
    data = torrent.files[torrent.name]
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            link = f"magnet:?xt=urn:btih:{tracked.info_hash.hex()}&dn=x&tr={tracker.announce_url}"
            wanted = f"Tracker URL: {tracker.announce_url}\nInfo Hash: {tracked.info_hash.hex()}\n"
            assert milestone("magnet_parse", link) == wanted
            peer_id, number = milestone("magnet_handshake", link).splitlines()
            assert len(bytes.fromhex(peer_id.removeprefix("Peer ID: "))) == 20
            assert 0 < int(number.removeprefix("Peer Metadata Extension ID: ")) < 256
            assert milestone("magnet_info", link) == milestone("info", tracked.path)
            output = tmp_path / "out"
            assert milestone("magnet_download_piece", "-o", output, link, "0") == ""
            assert output.read_bytes() == data[:PIECE_LENGTH]
            assert milestone("magnet_download", "-o", output, link) == ""
            assert output.read_bytes() == data


def test_a_peer_that_unchokes_late_is_waited_for(torrent: MadeTorrent, tmp_path: Path) -> None:
    """Transmission does so every 10 s; the course allows 20 s for a download."""
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with transmission_seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            milestone("download", "-o", tmp_path / "out", tracked.path)
    assert (tmp_path / "out").read_bytes() == torrent.files[torrent.name]


def test_a_folder_is_downloaded_into_a_directory_of_the_given_name(tmp_path: Path) -> None:
    """Where the course knows one file only, nothing is lost."""
    torrent = make_torrent(tmp_path, {"a/one": payload(70_000), "two": payload(10, 1), "empty": b""}, PIECE_LENGTH)
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with libtorrent_seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            output = tmp_path / "new" / torrent.name
            assert milestone("download", "-o", output, tracked.path) == ""
            tracked.assert_content_in(output.parent)
