"""Peers that know only one other find the third through it: A --> B <-- C, and then A --> C, by peer exchange alone.

The seed is slow and B is not complete, so that all three have reason to stay connected.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.integration.real_peers import MadeTorrent, libtorrent_exchanging, libtorrent_seeder, make_torrent
from tests.support import ClientProcess, payload, running_client, running_command, wait_until

SLOW = 20_000  # bytes per second
PIECE_LENGTH = 16_384
FOUND_WITHIN = 30.0  # seconds; libtorrent tells at once, we two seconds after a handshake, both then once a minute


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent that takes minutes at the seed's speed."""
    return make_torrent(tmp_path, payload(4_000_000), PIECE_LENGTH)


def sources(client: ClientProcess) -> dict[int, str]:
    """Return where the client has each of its peers from, by the ports of their addresses."""
    reports = client.reports()
    peers = reports[-1]["peers"] if reports else []
    return {int(peer["address"].rpartition(":")[2]): peer["source"] for peer in peers}


def ours(tmp_path: Path, name: str, torrent: MadeTorrent, *options: str) -> AbstractContextManager[ClientProcess]:
    """Run our client, as if on a machine of its own."""
    home = tmp_path / name
    home.mkdir()
    return running_client(home, torrent.path, home / "out", "--port", "0", *options)


def our_seed(tmp_path: Path, torrent: MadeTorrent) -> AbstractContextManager[ClientProcess]:
    """Seed slowly with our client, as if on a machine of its own."""
    home = tmp_path / "seed"
    home.mkdir()
    data = torrent.directory / torrent.name
    return running_command(home, "seed", torrent.path, "--data", data, "--port", "0", "--max-upload-rate", str(SLOW))


def port_of(client: ClientProcess) -> int:
    """Return the port that our client listens on, as it tells its user."""
    marker = "listening on port "

    def told() -> str:
        return client.log.read_text().partition(marker)[2].partition("\n")[0]

    wait_until(lambda: told().isdigit(), 10, "a port told")
    return int(told())


def test_we_find_a_peer_that_libtorrent_tells_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It is shown where the peer came from."""
    with (
        libtorrent_seeder(tmp_path, torrent, upload_limit=SLOW) as seed,
        libtorrent_exchanging(tmp_path, torrent, [seed.address]) as middle,
        ours(tmp_path, "a", torrent, "--peer", middle.address) as client,
    ):
        wait_until(lambda: sources(client).get(seed.port) == "pex", FOUND_WITHIN, "the seed found")
        assert sources(client)[middle.port] == "given"


def clients(client: ClientProcess) -> str:
    """Return the names of the client's peers."""
    reports = client.reports()
    return " ".join(peer["client"] for peer in reports[-1]["peers"]) if reports else ""


def test_libtorrent_finds_a_peer_that_we_tell_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It has nobody else to hear of it from; the seed is ours, too, and sees who calls."""
    with (
        our_seed(tmp_path, torrent) as seed,
        ours(tmp_path, "b", torrent, "--peer", f"127.0.0.1:{port_of(seed)}") as middle,
        libtorrent_exchanging(tmp_path, torrent, [f"127.0.0.1:{port_of(middle)}"]),
    ):
        wait_until(lambda: "libtorrent" in clients(seed), FOUND_WITHIN, "libtorrent at the seed")
