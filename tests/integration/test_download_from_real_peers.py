"""Our client, run as a user runs it, against other people's programs."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

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
    transmission_seeder,
    wait_until_ready,
)
from tests.support import ClientProcess, payload, running_client

Seeder = Callable[[Path, MadeTorrent], AbstractContextManager[Peer]]
SEEDERS = [libtorrent_seeder, aria2_seeder, transmission_seeder, rtorrent_seeder]

# Transmission unchokes every 10 s, the others at once.
DOWNLOAD_TIMEOUT = 40.0  # seconds
STOP_TIMEOUT = 3.0  # seconds, what our client promises

PIECE_LENGTH = 32768
# For interrupted downloads: about 4 s, so that a report a second shows it half way.
SLOW = 1_000_000  # bytes per second
SLOW_SIZE = 4_000_001  # bytes


@pytest.fixture
def single_file(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of one file with an odd last piece."""
    return make_torrent(tmp_path, payload(1_000_003), PIECE_LENGTH)


@pytest.fixture
def folder(tmp_path: Path) -> MadeTorrent:
    """Return a torrent with nested folders, an empty file, pieces across files and a last piece of 1 byte."""
    sizes = {
        "README": 100,
        "disc 1/one.bin": PIECE_LENGTH,
        "disc 1/empty": 0,
        "disc 2/deep/er/two.bin": 500_001,
        "disc 2/three.bin": 3 * PIECE_LENGTH,
    }
    odd = sum(sizes.values()) % PIECE_LENGTH
    sizes["zz last"] = PIECE_LENGTH - odd + 1
    files = {name: payload(size, seed) for seed, (name, size) in enumerate(sizes.items())}
    torrent = make_torrent(tmp_path, files, PIECE_LENGTH)
    assert torrent.size % PIECE_LENGTH == 1
    return torrent


@pytest.fixture
def slow_file(tmp_path: Path) -> MadeTorrent:
    """Return a torrent that takes some seconds at the rate of `SLOW`."""
    return make_torrent(tmp_path, payload(SLOW_SIZE), PIECE_LENGTH)


def assert_completes(client: ClientProcess, torrent: MadeTorrent, directory: Path) -> None:
    """Wait for the client to end well, and compare what it downloaded and what it said."""
    code = client.wait(DOWNLOAD_TIMEOUT)
    assert code == 0, client.log_tail()
    torrent.assert_content_in(directory)
    report = client.last_report()
    assert report["type"] == "complete"
    assert report["bytes_done"] == report["size"] == torrent.size
    assert report["pieces_done"] == report["pieces_total"] == torrent.piece_count


def by_address(*peers: Peer) -> list[str]:
    """Return the options that name these peers."""
    return [word for peer in peers for word in ("--peer", peer.address)]


@pytest.mark.parametrize("seeder", SEEDERS)
def test_downloads_a_single_file_from_a_peer_named_by_address(
    seeder: Seeder, single_file: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """With no tracker at all, `--peer` is enough; nothing is fetched twice."""
    with (
        seeder(tmp_path, single_file) as peer,
        running_client(tmp_path, single_file.path, downloads, *by_address(peer)) as client,
    ):
        assert_completes(client, single_file, downloads)
        report = client.last_report()
        assert (report["downloaded"], report["wasted"]) == (single_file.size, 0)


@pytest.mark.parametrize("seeder", SEEDERS)
def test_downloads_a_folder_from_a_peer_that_the_tracker_knows(
    seeder: Seeder, folder: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """The announce finds the seeder, and nested folders, an empty file and odd sizes come out right."""
    with opentracker(tmp_path, folder) as tracker:
        tracked = folder.with_trackers(tracker.announce_url)
        with seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            with running_client(tmp_path, tracked.path, downloads) as client:
                assert_completes(client, tracked, downloads)


def test_downloads_from_several_programs_at_once(tmp_path: Path, downloads: Path) -> None:
    """Three slow seeders each serve a part, and a fourth that chokes for 10 s holds nothing up."""
    torrent = make_torrent(tmp_path, payload(3_000_000), PIECE_LENGTH)
    with ExitStack() as stack:
        slow = [
            stack.enter_context(seeder(tmp_path, torrent, host=f"127.0.0.{number}", upload_limit=400_000))
            for number, seeder in enumerate([libtorrent_seeder, aria2_seeder, rtorrent_seeder], start=2)
        ]
        choking = stack.enter_context(transmission_seeder(tmp_path, torrent, host="127.0.0.5"))
        options = by_address(*slow, choking)
        client = stack.enter_context(running_client(tmp_path, torrent.path, downloads, *options))
        assert_completes(client, torrent, downloads)
    served = bytes_by_peer(client)
    assert served.keys() == {peer.address for peer in [*slow, choking]}
    assert all(served[peer.address] > 0 for peer in slow)


def bytes_by_peer(client: ClientProcess) -> dict[str, int]:
    """Return how many bytes came from each address, going by the client's last report of it."""
    peers = [peer for report in client.reports() for peer in report["peers"]]
    return {peer["address"]: peer["downloaded"] for peer in peers}


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_half_way_stops_soon_and_the_next_run_goes_on(
    number: signal.Signals, exit_code: int, slow_file: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """The exit code says which signal it was, and no verified piece is downloaded again."""
    with (
        libtorrent_seeder(tmp_path, slow_file, upload_limit=SLOW) as peer,
        running_client(tmp_path, slow_file.path, downloads, *by_address(peer)) as client,
    ):
        client.wait_for_bytes(SLOW_SIZE // 3)
        client.process.send_signal(number)
        assert client.wait(STOP_TIMEOUT) == exit_code
    report = client.last_report()
    assert report["type"] == "stopped"
    assert report["bytes_done"] < slow_file.size
    assert_resumes(slow_file, tmp_path, downloads, report["bytes_done"])


def test_kill_9_half_way_loses_no_reported_piece(slow_file: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """What was reported as done is still done after a crash that gave no time to save anything."""
    with (
        libtorrent_seeder(tmp_path, slow_file, upload_limit=SLOW) as peer,
        running_client(tmp_path, slow_file.path, downloads, *by_address(peer)) as client,
    ):
        client.wait_for_bytes(SLOW_SIZE // 3)
        client.process.kill()
        client.process.wait()
    report = client.last_report()
    assert report["type"] == "progress"
    assert_resumes(slow_file, tmp_path, downloads, report["bytes_done"])


def assert_resumes(torrent: MadeTorrent, tmp_path: Path, downloads: Path, bytes_done: int) -> None:
    """Run the client again, and see that it completes without fetching what was done."""
    with (
        libtorrent_seeder(tmp_path, torrent) as peer,
        running_client(tmp_path, torrent.path, downloads, *by_address(peer)) as client,
    ):
        assert_completes(client, torrent, downloads)
        report = client.last_report()
        assert 0 < report["downloaded"] + report["wasted"] <= torrent.size - bytes_done


def test_seeds_to_libtorrent_and_aria2(folder: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """With `--seed` a complete folder is served to a peer that dials us and to one that asks the tracker."""
    port = free_port()
    with opentracker(tmp_path, folder) as tracker:
        tracked = folder.with_trackers(tracker.announce_url)
        options = ["--seed", "--port", str(port)]
        with running_client(tmp_path, tracked.path, tracked.directory, *options) as client:
            ours = Peer("our client", "127.0.0.1", port, client.process, client.log)
            wait_until_ready(ours, lambda: has_everything(ours, tracked))
            libtorrent_leech(tmp_path, folder, downloads / "libtorrent", [ours.address])
            tracker.wait_for_seeders(tracked)
            aria2_leech(tmp_path, tracked, downloads / "aria2")
            client.process.terminate()
            assert client.wait(STOP_TIMEOUT) == 128 + signal.SIGTERM
    folder.assert_content_in(downloads / "libtorrent")
    folder.assert_content_in(downloads / "aria2")
