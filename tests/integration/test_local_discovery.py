"""Peers that nobody has told of each other meet on their own network: by multicast alone.

The network is one that the kernel makes for the test: nothing of it reaches a real one.
"""

import json
import shlex
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.networks import ONE_MACHINE, OWN_NETWORK, require_network
from tests.integration.real_peers import MadeTorrent, make_torrent
from tests.support import payload, running, wait_until

MAIN = Path(__file__).parents[2] / "main.py"
LIBTORRENT = Path(__file__).with_name("libtorrent_peer.py")
FOUND_WITHIN = 30.0  # seconds; both announce when they begin


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent without trackers."""
    return make_torrent(tmp_path, payload(300_000), 16_384)


@pytest.fixture(autouse=True)
def own_network() -> None:
    """Every test here needs one."""
    require_network(ONE_MACHINE)


def in_one_network(
    tmp_path: Path, first: list[object], second: list[object], *, ready: str = "true"
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run two programs in a network of their own; the second one's end ends both.

    Args:
        tmp_path: where they run; what they print goes to `network.log`.
        first: the command of the first program.
        second: that of the second one.
        ready: a shell command that succeeds when the second one may begin.
    """
    one, two = (shlex.join(map(str, program)) for program in (first, second))
    script = f"{ONE_MACHINE}{one} &\nuntil {ready}; do sleep 0.1; done\n{two}\n"
    return running([*OWN_NETWORK, script], tmp_path / "network.log", cwd=tmp_path)


def ours(tmp_path: Path, name: str, *arguments: object) -> list[object]:
    """Return the command of our client, as if on a machine of its own; its reports go to `NAME.json`."""
    home = tmp_path / name
    home.mkdir()
    alone = ["--no-dht", "--no-portmap", "--json", "--port", "0"]
    words = [sys.executable, MAIN, *arguments, *alone, "--state-dir", home, "--log-file", home / "log"]
    return ["sh", "-c", f"exec {shlex.join(map(str, words))} > {shlex.quote(str(home))}.json"]


def reports(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    """Return what our client has reported."""
    path = tmp_path / f"{name}.json"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_two_of_ours_find_each_other(tmp_path: Path, torrent: MadeTorrent) -> None:
    """The seed hears the download and dials it, or the other way round."""
    seed = ours(tmp_path, "seed", "seed", torrent.path, "--data", torrent.directory / torrent.name)
    leech = ours(tmp_path, "leech", torrent.path, "-o", tmp_path / "out", "--seed")
    with in_one_network(tmp_path, seed, leech):
        wait_until(lambda: is_complete(tmp_path, "leech"), FOUND_WITHIN, "the download")
        wait_until(lambda: has_heard(tmp_path, "seed") or has_heard(tmp_path, "leech"), 5, "a report of it")
    torrent.assert_content_in(tmp_path / "out")


def has_heard(tmp_path: Path, name: str) -> bool:
    """Tell whether our client says that it has heard somebody."""
    return not reports(tmp_path, name)[-1]["local_network"].endswith(" 0 peers heard")


def test_a_private_torrent_is_not_announced(tmp_path: Path, torrent: MadeTorrent) -> None:
    """Nor is it found where somebody else does so (BEP 27)."""
    secret = torrent.as_private()
    seed = ours(tmp_path, "seed", "seed", secret.path, "--data", secret.directory / secret.name)
    leech = ours(tmp_path, "leech", secret.path, "-o", tmp_path / "out", "--stop-timeout", "3")
    with in_one_network(tmp_path, seed, leech) as process:
        assert process.wait(FOUND_WITHIN) == 5
        last = reports(tmp_path, "leech")[-1]
    assert (last["local_network"], last["known_peers"]) == (None, 0)


def libtorrent(torrent: MadeTorrent, directory: Path, *options: str) -> list[object]:
    """Return the command of libtorrent with local discovery."""
    return [sys.executable, LIBTORRENT, torrent.path, directory, "--listen", "10.77.0.1:0", "--lsd", *options]


def test_we_find_libtorrent(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It begins later, so that it is its announcement that is heard."""
    leech = ours(tmp_path, "leech", torrent.path, "-o", tmp_path / "out", "--seed")
    announced = "grep -q 'announced to' leech.json"
    with in_one_network(tmp_path, leech, libtorrent(torrent, torrent.directory, "--seed"), ready=announced):
        wait_until(lambda: is_complete(tmp_path, "leech"), FOUND_WITHIN, "the download")
        wait_until(lambda: has_heard(tmp_path, "leech"), 5, "a report of it")
        assert reports(tmp_path, "leech")[-1]["known_peers"] == 1
    torrent.assert_content_in(tmp_path / "out")


def is_complete(tmp_path: Path, name: str) -> bool:
    """Tell whether our client has everything."""
    told = reports(tmp_path, name)
    return bool(told) and told[-1]["state"] == "complete"


def test_libtorrent_finds_us(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It begins before us, so that it is our announcement that is heard."""
    (tmp_path / "out").mkdir()
    home = ours(tmp_path, "seed", "seed", torrent.path, "--data", torrent.directory / torrent.name)
    with in_one_network(tmp_path, libtorrent(torrent, tmp_path / "out"), home, ready="grep -q checked network.log"):
        wait_until(lambda: has_sent_all(tmp_path, torrent), FOUND_WITHIN, "everything sent")


def has_sent_all(tmp_path: Path, torrent: MadeTorrent) -> bool:
    """Tell whether our seed has sent as much as there is."""
    told = reports(tmp_path, "seed")
    return bool(told) and told[-1]["uploaded"] >= torrent.size
