"""Peer exchange with Transmission, on three machines of a network of their own: it tells nobody of 127.0.0.1.

left 10.1.0.2 --- 10.1.0.1 middle 10.2.0.1 --- 10.2.0.2 right     left and right are told of the middle alone
"""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.networks import OWN_NETWORK, THREE_MACHINES, require_network
from tests.integration.real_peers import MadeTorrent, make_torrent, require_program
from tests.support import ALONE, payload, running, tail, wait_until

MAIN = Path(__file__).parents[2] / "main.py"
PORT = 21_000
FOUND_WITHIN = 150.0  # seconds; Transmission tells once in 90 s what it did not know the first time


@pytest.fixture(autouse=True)
def three_machines() -> None:
    """Every test here needs them."""
    require_network(THREE_MACHINES)


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent that takes minutes at the seed's speed."""
    return make_torrent(tmp_path, payload(4_000_000), 16_384)


def transmission(folder: Path, torrent: MadeTorrent) -> str:
    """Return the command of Transmission's daemon as a leecher with peer exchange; the torrent waits in its folder."""
    watched = folder / "watched"
    watched.mkdir(parents=True)
    shutil.copy(torrent.path, watched)
    settings = {
        "dht-enabled": False,
        "download-dir": str(folder),
        "lpd-enabled": False,
        "peer-port": PORT,
        "pex-enabled": True,
        "port-forwarding-enabled": False,
        "rpc-enabled": False,
        "utp-enabled": False,
        "watch-dir": str(watched),
        "watch-dir-enabled": True,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return shlex.join([require_program("transmission-daemon"), "--foreground", "--config-dir", str(folder)])


def ours(tmp_path: Path, name: str, *arguments: object) -> str:
    """Return the shell command of our client, as if with a user of its own; its reports go to `NAME.json`."""
    home = tmp_path / name
    home.mkdir()
    words = [sys.executable, MAIN, *arguments, *ALONE, "--json", "--state-dir", home]
    return f"{shlex.join(map(str, words))} > {shlex.quote(f'{home}.json')}"


def our_seed(tmp_path: Path, torrent: MadeTorrent, *options: object) -> str:
    """Return the command of our client as a slow seed that is told of nobody: the others have to call it."""
    data = torrent.directory / torrent.name
    slow = ["--port", "7001", "--max-upload-rate", "20K", "--no-pex"]
    return ours(tmp_path, "seed", "seed", torrent.path, "--data", data, *slow, *options)


def peers(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    """Return the peers in our client's last report."""
    path = tmp_path / f"{name}.json"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    found: list[dict[str, Any]] = json.loads(whole[-1])["peers"] if whole else []
    return found


def wait_for(tmp_path: Path, script: str, name: str, **expected: str) -> None:
    """Run a script on three machines until one of our clients has a peer whose fields contain these words."""
    log = tmp_path / "machines.log"

    def is_found() -> bool:
        return any(all(word in peer[field] for field, word in expected.items()) for peer in peers(tmp_path, name))

    with running([*OWN_NETWORK, f"{THREE_MACHINES}{script}\nwait"], log, cwd=tmp_path):
        try:
            wait_until(is_found, FOUND_WITHIN)
        except TimeoutError:
            pytest.fail(f"{peers(tmp_path, name)}\n{tail(log)}", pytrace=False)


@pytest.mark.timeout(200)
def test_we_find_a_peer_that_transmission_tells_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It stands in the middle; both of ours call it, the second when it knows the first."""
    middle = transmission(tmp_path / "transmission", torrent)
    seed = our_seed(tmp_path, torrent, "--peer", f"10.2.0.1:{PORT}")
    leech = ours(tmp_path, "leech", torrent.path, "-o", tmp_path / "out", "--peer", f"10.1.0.1:{PORT}")
    until_known = f"until grep -q Transmission {shlex.quote(str(tmp_path))}/seed.json; do sleep 0.2; done"
    script = f"{middle} &\n$right {seed} &\n{until_known}\n$left {leech} &\n"
    wait_for(tmp_path, script, "leech", source="pex", address="10.2.0.2:7001")


@pytest.mark.timeout(200)
def test_transmission_finds_a_peer_that_we_tell_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """We stand in the middle and call both; then Transmission calls the seed."""
    left = transmission(tmp_path / "transmission", torrent)
    seed = our_seed(tmp_path, torrent)
    known = ["--peer", "10.2.0.2:7001", "--peer", f"10.1.0.2:{PORT}"]
    middle = ours(tmp_path, "middle", torrent.path, "-o", tmp_path / "out", *known)
    script = f"$left {left} &\n$right {seed} &\nsleep 5\n{middle} &\n"
    wait_for(tmp_path, script, "seed", client="Transmission", direction="in")
