"""The `dht` command: what it shows, what it says to programs, and how it fails."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support import payload, wait_until
from torrent_client.cli.exit_codes import ExitCode
from torrent_client.cli.main import main
from torrent_client.config import Config
from torrent_client.dht.node import DhtNode
from torrent_client.torrent_creator import create_torrent

HASH = "d69f91e6b2ae4c542468d1073a71d4ea13879a7f"
NODES = 9


@pytest.fixture
def entrance() -> Iterator[str]:
    """Return the address of a node of a private DHT."""
    nodes: list[DhtNode] = []
    with ExitStack() as stack:
        for _ in range(NODES):
            node = DhtNode(Config(dht_bootstrap=(("127.0.0.1", nodes[0].port),) if nodes else ()), 0)
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        wait_until(lambda: all(node.stats().nodes >= NODES - 2 for node in nodes))
        yield f"127.0.0.1:{nodes[0].port}"


def look_up(tmp_path: Path, target: str, entrance: str, *options: str) -> int:
    """Run the command."""
    return main(["dht", target, "--dht-bootstrap", entrance, "--state-dir", str(tmp_path / "state"), *options])


def test_an_announced_peer_is_found_and_the_way_is_shown(
    tmp_path: Path, entrance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Peers on standard output, one a line; each node on standard error."""
    assert look_up(tmp_path, HASH, entrance, "--announce", "4711") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "announced to 8 nodes" in shown.err
    assert look_up(tmp_path, base64.b32encode(bytes.fromhex(HASH)).decode(), entrance) == 0
    shown = capsys.readouterr()
    assert shown.out == "127.0.0.1:4711\n"
    assert shown.err.count(" ms  ") >= NODES - 1
    assert "1 different peer found" in shown.err
    assert not (tmp_path / "state").exists()  # a visitor leaves nothing


def test_a_program_reads_lines_of_json(tmp_path: Path, entrance: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A hop, peers, and the result at the end; a magnet link and a .torrent do as well."""
    look_up(tmp_path, HASH, entrance, "--announce", "4711", "-q")
    assert look_up(tmp_path, f"magnet:?xt=urn:btih:{HASH}", entrance, "--json") == 0
    shown = capsys.readouterr()
    values = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == ""
    assert {value["type"] for value in values} == {"hop", "peers", "result"}
    assert all(0 <= value["common_bits"] <= 160 for value in values if value["type"] == "hop")
    assert values[-1]["info_hash"] == HASH
    assert values[-1]["peers"] == 1


def test_an_unreachable_dht_is_an_error_that_says_what_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        assert look_up(tmp_path, HASH, f"127.0.0.1:{silent.getsockname()[1]}") == ExitCode.ERROR
    assert "nobody in the DHT answered: no answer from 1 bootstrap node" in capsys.readouterr().err


def test_what_cannot_be_looked_up_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No hash and no file; a private torrent."""
    assert look_up(tmp_path, "nonsense", "127.0.0.1:9") == ExitCode.BAD_TORRENT
    (tmp_path / "file.bin").write_bytes(payload(40_000))
    private = tmp_path / "private.torrent"
    private.write_bytes(create_torrent(tmp_path / "file.bin", trackers=[], private=True))
    assert look_up(tmp_path, str(private), "127.0.0.1:9") == ExitCode.BAD_TORRENT
    assert "private" in capsys.readouterr().err
