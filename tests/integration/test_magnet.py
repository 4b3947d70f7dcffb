"""Magnet links: the metadata and then the files, from real peers to us and from us to them."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote

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
    transmission_seeder,
    wait_until_ready,
)
from tests.support import ALONE, payload, running_client

Seeder = Callable[[Path, MadeTorrent], AbstractContextManager[Peer]]
Leech = Callable[[Path, str, Path], None]

MAIN = Path(__file__).parents[2] / "main.py"
SIZE = 13_500_000  # bytes: at 16 KiB a piece the metadata is 16,600 bytes, two pieces of BEP 9
TIMEOUT = 60.0  # seconds


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent with more metadata than fits into one message."""
    return make_torrent(tmp_path, payload(SIZE), 16 * 1024)


def link_to(torrent: MadeTorrent, *parameters: str) -> str:
    """Return a magnet link with more parameters."""
    return "&".join([f"magnet:?xt=urn:btih:{torrent.info_hash.hex()}", *parameters])


def get(tmp_path: Path, link: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run our client on a link, as a user does, to its end."""
    places = ["-o", str(tmp_path / "out"), "--state-dir", str(tmp_path / "state"), "--port", "0"]
    command = [sys.executable, str(MAIN), link, *places, *ALONE, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("seeder", [libtorrent_seeder, aria2_seeder, transmission_seeder])
def test_a_link_with_a_peer_in_it_is_enough(tmp_path: Path, torrent: MadeTorrent, seeder: Seeder) -> None:
    """Each kind of peer gives us the metadata, and then the file."""
    with seeder(tmp_path, torrent) as peer:
        result = get(tmp_path, link_to(torrent, f"x.pe={peer.address}"))
    assert result.returncode == 0, result.stderr
    torrent.assert_content_in(tmp_path / "out")


def test_a_tracker_in_a_link_leads_to_the_peers_and_chosen_files_alone_are_fetched(tmp_path: Path) -> None:
    """`tr`, `dn` and `so` of a link; and the .torrent file that is saved is the same torrent."""
    files = {"a.bin": payload(70_000, 1), "b.bin": payload(90_000, 2), "c.bin": payload(50_000, 3)}
    torrent = make_torrent(tmp_path, files, 16 * 1024)
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with libtorrent_seeder(tmp_path, tracked):
            tracker.wait_for_seeders(torrent)
            link = link_to(torrent, f"tr={quote(tracker.announce_url, safe='')}", "dn=music", "so=1")
            listed = get(tmp_path, link, "--list-files", "--json")
            result = get(tmp_path, link, "--save-torrent")
    assert listed.returncode == 0, listed.stderr
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [row["path"] for row in rows if row["type"] == "file"] == [f"album/{name}" for name in files]
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/album/b.bin").read_bytes() == files["b.bin"]
    assert not (tmp_path / "out/album/a.bin").exists()
    info = subprocess.run(
        [sys.executable, str(MAIN), "info", "--json", str(tmp_path / "out/album.torrent")],
        capture_output=True,
        check=True,
    )
    facts = json.loads(info.stdout)
    assert facts["info_hash"] == torrent.info_hash.hex()
    assert facts["trackers"] == [[tracker.announce_url]]


def test_the_metadata_is_kept_for_the_next_run(tmp_path: Path, torrent: MadeTorrent) -> None:
    """Once fetched, it needs no peer any more."""
    with libtorrent_seeder(tmp_path, torrent) as peer:
        first = get(tmp_path, link_to(torrent), "--metadata-only", "--peer", peer.address)
    assert first.returncode == 0, first.stderr
    again = get(tmp_path, link_to(torrent), "--list-files")
    assert again.returncode == 0, again.stderr
    assert "single.bin" in again.stdout


@pytest.mark.parametrize("leech", [libtorrent_leech, aria2_leech])
def test_others_get_metadata_from_us(tmp_path: Path, torrent: MadeTorrent, leech: Leech) -> None:
    """We are the only seed of somebody who has nothing but the link."""
    port = free_port()
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        options = ("--seed", "--port", str(port))
        with running_client(tmp_path, tracked.path, torrent.directory, *options) as client:
            ours = Peer("our client", "127.0.0.1", port, client.process, client.log)
            wait_until_ready(ours, lambda: has_everything(ours, torrent))
            tracker.wait_for_seeders(torrent)
            leech(tmp_path, link_to(torrent, f"tr={quote(tracker.announce_url, safe='')}"), tmp_path / "theirs")
    assert (tmp_path / "theirs/single.bin").read_bytes() == torrent.files["single.bin"]


def test_a_link_that_nobody_answers_says_what_it_waits_for(tmp_path: Path, torrent: MadeTorrent) -> None:
    """With --stop-timeout it ends, with the code for a download that stalled."""
    result = get(tmp_path, link_to(torrent, "x.pe=127.0.0.1:1"), "--stop-timeout", "2")
    assert result.returncode == 5, result.stderr
    assert "metadata" in result.stderr
