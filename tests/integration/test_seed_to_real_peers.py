"""Our client as the only seed of other people's programs, and of several torrents at once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Peer,
    aria2_leech,
    free_port,
    has_everything,
    libtorrent_leech,
    libtorrent_seeder,
    make_torrent,
    opentracker,
    transmission_leech,
    transmission_seeder,
    wait_until_ready,
)
from tests.support import ClientProcess, payload, running_client, running_command

PIECE_LENGTH = 32768
SIZE = 2_000_003  # bytes
STOP_TIMEOUT = 3.0  # seconds, what our client promises
TIMEOUT = 40.0  # seconds


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of one file with an odd last piece."""
    return make_torrent(tmp_path, payload(SIZE), PIECE_LENGTH)


@pytest.fixture
def renamed(torrent: MadeTorrent, tmp_path: Path) -> Iterator[Path]:
    """Return the content under another name, in a directory in which nothing can be written."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = folder / "another name.iso"
    path.write_bytes(next(iter(torrent.files.values())))
    path.chmod(0o444)
    folder.chmod(0o555)
    before = path.stat().st_mtime_ns
    yield path
    folder.chmod(0o755)
    assert path.stat().st_mtime_ns == before
    assert list(folder.iterdir()) == [path]


def wait_until_seeding(client: ClientProcess, torrent: MadeTorrent, port: int) -> Peer:
    """Wait until our client offers the whole torrent on a port."""
    ours = Peer("our client", "127.0.0.1", port, client.process, client.log)
    wait_until_ready(ours, lambda: has_everything(ours, torrent))
    return ours


def test_renamed_read_only_data_is_seeded_to_libtorrent_and_aria2(
    torrent: MadeTorrent, renamed: Path, tmp_path: Path, downloads: Path
) -> None:
    """`seed --data` serves a file of another name where it lies; both leechers have no other seed."""
    port = free_port()
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        command = ["seed", tracked.path, "--data", renamed, "--port", str(port)]
        with running_command(tmp_path, *command) as client:
            ours = wait_until_seeding(client, torrent, port)
            libtorrent_leech(tmp_path, torrent, downloads / "libtorrent", [ours.address])
            tracker.wait_for_seeders(tracked)
            aria2_leech(tmp_path, tracked, downloads / "aria2")
            client.process.send_signal(signal.SIGINT)
            assert client.wait(STOP_TIMEOUT) == 128 + signal.SIGINT
        report = client.last_report()
    torrent.assert_content_in(downloads / "libtorrent")
    torrent.assert_content_in(downloads / "aria2")
    assert (report["type"], report["downloaded"]) == ("stopped", 0)
    assert report["uploaded"] >= 2 * SIZE
    assert report["ratio"] == pytest.approx(report["uploaded"] / SIZE)


def test_transmission_downloads_from_our_seed_alone(
    torrent: MadeTorrent, renamed: Path, tmp_path: Path, downloads: Path
) -> None:
    """Our seed dials Transmission, which dials nobody on loopback."""
    with transmission_leech(tmp_path, torrent, downloads) as peer:
        command = ["seed", torrent.path, "--data", renamed, "--port", "0", "--peer", peer.address]
        with running_command(tmp_path, *command):
            wait_until_ready(peer, lambda: has_everything(peer, torrent), TIMEOUT)
    torrent.assert_content_in(downloads)


def test_the_ratio_ends_seeding_by_itself_and_counts_earlier_runs(
    torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """With a goal of 1.5 a first run that gave one copy goes on, and the second copy of a later run is enough."""
    port = free_port()
    command = ["seed", torrent.path, "--data", torrent.directory / torrent.name, "--port", str(port)]
    for number, (goal, code) in enumerate([("1.5", 143), ("1.5", 0)]):
        with running_command(tmp_path, *command, "--seed-ratio", goal) as client:
            ours = wait_until_seeding(client, torrent, port)
            libtorrent_leech(tmp_path, torrent, downloads / str(number), [ours.address])
            if code:
                client.process.terminate()
            assert client.wait(TIMEOUT) == code, client.log_tail()
        torrent.assert_content_in(downloads / str(number))
    report = client.last_report()
    assert report["type"] == "complete"
    assert report["uploaded"] < 1.5 * SIZE <= report["ratio"] * SIZE


def test_incomplete_data_is_refused_with_exit_code_6(torrent: MadeTorrent, tmp_path: Path) -> None:
    """A wrong byte is found, named, and left as it is."""
    data = bytearray(next(iter(torrent.files.values())))
    data[PIECE_LENGTH] ^= 1
    path = tmp_path / "wrong.bin"
    path.write_bytes(data)
    with running_command(tmp_path, "seed", torrent.path, "--data", path, "--port", "0") as client:
        assert client.wait(TIMEOUT) == 6
    assert "missing or bad: 1" in client.log.read_text()
    assert path.read_bytes() == data


def two_torrents(tmp_path: Path) -> list[MadeTorrent]:
    """Return a folder and a single file, each of its own."""
    return [
        make_torrent(tmp_path, {"one": payload(700_000, 1), "two": payload(300_001, 2)}, PIECE_LENGTH),
        make_torrent(tmp_path, payload(SIZE, 3), PIECE_LENGTH),
    ]


def test_two_torrents_are_downloaded_at_once(tmp_path: Path, downloads: Path) -> None:
    """Each comes from its own real seeder; each has its final line; the process ends when both are complete."""
    first, second = two_torrents(tmp_path)
    with (
        libtorrent_seeder(tmp_path, first) as one,
        transmission_seeder(tmp_path, second, host="127.0.0.2") as two,
        running_client(
            tmp_path, first.path, downloads, second.path, "--peer", one.address, "--peer", two.address
        ) as client,
    ):
        assert client.wait(TIMEOUT) == 0, client.log_tail()
    final = [report for report in client.reports() if report["type"] == "complete"]
    assert {report["info_hash"] for report in final} == {first.info_hash.hex(), second.info_hash.hex()}
    assert {report["name"] for report in final} == {first.name, second.name}
    found = {str(path.relative_to(downloads)): path.read_bytes() for path in downloads.rglob("*") if path.is_file()}
    assert found == {**first.files, **second.files}


def test_an_error_of_one_torrent_does_not_stop_the_other(tmp_path: Path, downloads: Path) -> None:
    """A directory in a file's place ends that torrent; the other completes, and the exit code says 4."""
    first, second = two_torrents(tmp_path)
    (downloads / second.name).mkdir()
    with (
        libtorrent_seeder(tmp_path, first) as one,
        running_client(tmp_path, second.path, downloads, "--peer", one.address) as client,
    ):
        assert client.wait(TIMEOUT) == 4
    with (
        libtorrent_seeder(tmp_path, first) as one,
        running_client(tmp_path, second.path, downloads, first.path, "--peer", one.address) as client,
    ):
        assert client.wait(TIMEOUT) == 4, client.log_tail()
    kinds = {report["info_hash"]: report["type"] for report in client.reports()}
    assert kinds == {first.info_hash.hex(): "complete", second.info_hash.hex(): "error"}
