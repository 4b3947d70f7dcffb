"""We become a seed while others still need us: a second handshake says so (BEP 10, 21), and nobody takes it amiss."""

from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    libtorrent_exchanging,
    libtorrent_seeder,
    make_torrent,
    transmission_leech,
    wait_until_ready,
)
from tests.support import ClientProcess, payload, running_client, wait_until

SPEED = 500_000  # bytes per second of the seed, so that we are complete after some seconds
TIMEOUT = 60.0  # seconds; Transmission asks for a seed's pieces only after its pulses


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of a few seconds."""
    return make_torrent(tmp_path, payload(2_000_003), 32_768)


def states_with(client: ClientProcess, name: str) -> list[str]:
    """Return our client's states in those reports in which it is connected to a peer of this name."""
    return [report["state"] for report in client.reports() if any(name in peer["client"] for peer in report["peers"])]


def test_transmission_stays_with_us(tmp_path: Path, torrent: MadeTorrent, downloads: Path) -> None:
    """It hears of it, and gets all it needs."""
    out = tmp_path / "theirs"
    out.mkdir()
    with (
        libtorrent_seeder(tmp_path, torrent, upload_limit=SPEED) as seed,
        transmission_leech(tmp_path, torrent, out, host="127.0.0.2", timeout=TIMEOUT) as leech,
        running_client(
            tmp_path,
            torrent.path,
            downloads,
            *("--port", "0", "--peer", seed.address, "--peer", leech.address, "--seed"),
        ) as client,
    ):
        wait_until(lambda: "complete" in states_with(client, "Transmission"), TIMEOUT, "Transmission at the seed")
        wait_until_ready(leech, lambda: holds(out, torrent), TIMEOUT)
    torrent.assert_content_in(downloads)


def test_libtorrent_stays_with_us(tmp_path: Path, torrent: MadeTorrent, downloads: Path) -> None:
    """It called us while we were a seed to be, and has everything in the end."""
    with (
        libtorrent_seeder(tmp_path, torrent, upload_limit=SPEED) as seed,
        running_client(
            tmp_path,
            torrent.path,
            downloads,
            *("--port", "0", "--peer", seed.address, "--seed", "--max-upload-rate", "300K"),
        ) as client,
    ):
        wait_until(lambda: "listening on port " in client.log.read_text(), 10)
        port = client.log.read_text().partition("listening on port ")[2].split()[0]
        with libtorrent_exchanging(tmp_path, torrent, [f"127.0.0.1:{port}"]) as leech:
            assert leech.process.wait(TIMEOUT) == 0
        wait_until(lambda: client.last_report()["uploaded"] > 0, 5)
    torrent.assert_content_in(downloads)


def holds(directory: Path, torrent: MadeTorrent) -> bool:
    """Tell whether a directory has the torrent's file, whole."""
    path = directory / torrent.name
    return path.exists() and path.read_bytes() == torrent.files[torrent.name]
