"""The DHT with libtorrent: a private one, of nodes of ours on this machine, through which peers meet."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.real_peers import MadeTorrent, libtorrent_leech, libtorrent_seeder, make_torrent
from tests.support import payload, running, wait_until
from torrent_client.config import Config
from torrent_client.dht.node import DhtNode
from torrent_client.tracker_client import PeerAddress

MAIN = Path(__file__).parents[2] / "main.py"
NODES = 6
TIMEOUT = 60.0  # seconds


@pytest.fixture
def nodes() -> Iterator[list[DhtNode]]:
    """Return a private DHT of our nodes, all of which know each other."""
    started: list[DhtNode] = []
    with ExitStack() as stack:
        for _ in range(NODES):
            entrance = (("127.0.0.1", started[0].port),) if started else ()
            node = DhtNode(Config(dht_bootstrap=entrance), 0)
            stack.callback(node.stop)
            node.start()
            started.append(node)
        wait_until(lambda: all(node.stats().nodes >= NODES - 1 for node in started), what="everybody knows everybody")
        yield started


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent without trackers."""
    return make_torrent(tmp_path, payload(700_000), 16 * 1024)


def search(node: DhtNode, info_hash: bytes) -> set[PeerAddress]:
    """Return the peers that the DHT knows now."""
    found: set[PeerAddress] = set()
    over = threading.Event()
    node.find_peers(info_hash, found.update, announce_port=None, on_done=lambda _result: over.set())
    assert over.wait(TIMEOUT)
    return found


def command(tmp_path: Path, what: str | Path, entrance: DhtNode, *options: str | Path) -> list[str | Path]:
    """Return our client's command line: the DHT is its only way to peers."""
    alone = ["--no-lsd", "--no-portmap", "--port", "0", "--state-dir", tmp_path / "state", "--json"]
    return [sys.executable, MAIN, what, "--dht-bootstrap", f"127.0.0.1:{entrance.port}", *alone, *options]


def test_what_libtorrent_announces_our_nodes_find(tmp_path: Path, torrent: MadeTorrent, nodes: list[DhtNode]) -> None:
    """Its node gets into our tables, and ours take its announcement."""
    with libtorrent_seeder(tmp_path, torrent, dht=f"127.0.0.1:{nodes[0].port}") as seeder:
        expected = PeerAddress("127.0.0.1", seeder.port)
        wait_until(lambda: expected in search(nodes[3], torrent.info_hash), TIMEOUT, "found in the DHT")
        wait_until(lambda: nodes[0].stats().nodes >= NODES, TIMEOUT, "libtorrent's node in the table")


@pytest.mark.parametrize("as_magnet", [False, True])
def test_we_download_from_libtorrent_through_the_dht_alone(
    tmp_path: Path, torrent: MadeTorrent, nodes: list[DhtNode], *, as_magnet: bool
) -> None:
    """A torrent without a tracker, and a magnet link that names nobody."""
    what = f"magnet:?xt=urn:btih:{torrent.info_hash.hex()}" if as_magnet else torrent.path
    with libtorrent_seeder(tmp_path, torrent, dht=f"127.0.0.1:{nodes[0].port}"):
        ours = command(tmp_path, what, nodes[1], "-o", tmp_path / "out")
        result = subprocess.run(ours, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stderr
    torrent.assert_content_in(tmp_path / "out")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert reports[-1]["dht"]["ipv4"]["nodes"] >= NODES
    assert "found" in reports[-1]["dht_state"]


def test_libtorrent_downloads_from_us_through_the_dht_alone(
    tmp_path: Path, torrent: MadeTorrent, nodes: list[DhtNode]
) -> None:
    """It finds what we announced."""
    ours = command(tmp_path, torrent.path, nodes[1], "-o", torrent.directory, "--seed")
    with running(ours, tmp_path / "ours.log", stdout=tmp_path / "ours.json"):
        wait_until(lambda: bool(search(nodes[3], torrent.info_hash)), TIMEOUT, "our announcement")
        libtorrent_leech(tmp_path, torrent, tmp_path / "out", timeout=TIMEOUT, dht=f"127.0.0.1:{nodes[0].port}")
    torrent.assert_content_in(tmp_path / "out")


def test_peers_tell_each_other_their_nodes(tmp_path: Path, torrent: MadeTorrent, nodes: list[DhtNode]) -> None:
    """Our client knows a peer and no node: the peer's `port` message leads it into the DHT (BEP 5)."""
    dead = next(iter(nodes))
    with libtorrent_seeder(tmp_path, torrent, dht=f"127.0.0.1:{nodes[2].port}") as seeder:
        dead.stop()
        ours = command(tmp_path, torrent.path, dead, "-o", tmp_path / "out", "--peer", seeder.address, "--seed")
        output = tmp_path / "ours.json"
        with running(ours, tmp_path / "ours.log", stdout=output):

            def knows_nodes() -> bool:
                lines = output.read_text().splitlines(keepends=True)
                reports = [json.loads(line) for line in lines if line.endswith("\n")]
                return bool(reports) and reports[-1]["dht"]["ipv4"]["nodes"] >= NODES - 1

            wait_until(knows_nodes, TIMEOUT, "nodes known")


def test_a_private_torrent_stays_out_of_the_dht(tmp_path: Path, torrent: MadeTorrent, nodes: list[DhtNode]) -> None:
    """Neither announced nor looked for (BEP 27)."""
    private = torrent.as_private()
    ours = command(tmp_path, private.path, nodes[1], "-o", private.directory, "--seed")
    output = tmp_path / "ours.json"
    with running(ours, tmp_path / "ours.log", stdout=output):
        wait_until(lambda: '"seeding": true' in output.read_text(), TIMEOUT, "seeding")
        wait_until(lambda: nodes[1].stats().nodes >= NODES, TIMEOUT, "our client's node in the table")
        assert search(nodes[3], private.info_hash) == set()
    assert json.loads(output.read_text().splitlines()[0])["dht_state"] is None
