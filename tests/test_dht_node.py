"""The DHT node on real sockets of this machine: ports, threads, names, saved nodes, and its place in a session."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support import wait_until
from torrent_client.config import Config
from torrent_client.dht import saved_nodes
from torrent_client.dht.node import DhtNode
from torrent_client.dht.search import SearchResult
from torrent_client.errors import TorrentError
from torrent_client.protocol.krpc import Endpoint, NodeInfo
from torrent_client.session import Session
from torrent_client.tracker_client import PeerAddress

INFO_HASH = bytes.fromhex("d69f91e6b2ae4c542468d1073a71d4ea13879a7f")


@contextmanager
def running(bootstrap: tuple[tuple[str, int], ...] = (), state: Path | None = None, port: int = 0) -> Iterator[DhtNode]:
    """Run a node that begins at others of this machine, or nowhere."""
    node = DhtNode(Config(dht_bootstrap=bootstrap), port, state)
    node.start()
    try:
        yield node
    finally:
        node.stop()


@contextmanager
def private_dht(count: int) -> Iterator[list[DhtNode]]:
    """Run several nodes that know each other."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(running())]
        for _ in range(count - 1):
            nodes.append(stack.enter_context(running((("127.0.0.1", nodes[0].port),))))
        wait_until(lambda: all(node.stats().best.state == "ready" for node in nodes), what="all nodes ready")
        yield nodes
        for node in nodes:
            node.begin_stop()  # all at once


def search(node: DhtNode, announce_port: int | None = None) -> tuple[set[PeerAddress], SearchResult]:
    """Search, and wait for the end."""
    found: set[PeerAddress] = set()
    results: list[SearchResult] = []
    over = threading.Event()

    def done(result: SearchResult) -> None:
        results.append(result)
        over.set()

    node.find_peers(INFO_HASH, found.update, announce_port=announce_port, on_done=done)
    assert over.wait(20)
    return found, results[0]


def test_a_dozen_nodes_find_a_peer_that_one_announced() -> None:
    """Over real sockets."""
    with private_dht(12) as nodes:
        assert search(nodes[3], announce_port=4711)[1].announced >= 8
        for node in nodes[4:]:
            assert PeerAddress("127.0.0.1", 4711) in search(node)[0]
        stats = nodes[0].stats()
        assert stats.ipv4 is not None
        assert stats.ipv4.queries_in > 10
        assert stats.describe() == f"{stats.nodes} nodes"


def test_a_taken_port_is_replaced_by_another(caplog: pytest.LogCaptureFixture) -> None:
    """And it is said."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("", 0))
        taken = other.getsockname()[1]
        with running(port=taken) as node:
            assert node.port not in (0, taken)
    assert f"UDP port {taken} is taken" in caplog.text


def test_nodes_and_id_are_kept_between_runs(tmp_path: Path) -> None:
    """The second run begins at the nodes of the first."""
    with private_dht(3) as nodes:
        entrance = (("127.0.0.1", nodes[0].port),)
        with running(entrance, tmp_path) as node:
            wait_until(lambda: node.stats().nodes >= 3)
            port, before = node.port, node.stats().ipv4
        with running((), tmp_path, port) as node:
            wait_until(lambda: node.stats().nodes >= 3)
            after = node.stats().ipv4
            assert before is not None
            assert after is not None
            assert (node.port, after.node_id) == (port, before.node_id)
    with running((), tmp_path, port):
        pass  # all are gone
    assert len(saved_nodes.load(tmp_path, port)[4].nodes) >= 3


def test_dead_bootstrap_nodes_are_told(tmp_path: Path) -> None:
    """What was tried, and when the next try is."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        with running((silent.getsockname(),)) as node:
            wait_until(lambda: node.stats().ipv4.state == "unreachable")  # type: ignore[union-attr]
            half = node.stats().ipv4
            assert half is not None
            assert half.reason == "no answer from 1 bootstrap node"
            assert half.next_try is not None
            assert 0 <= half.next_try <= 5


def test_unknown_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("torrent_client.dht.node.socket.getaddrinfo", unknown)
    with running((("router.example", 6881),)) as node:
        wait_until(lambda: node.stats().best.state == "unreachable")
        assert "host name not known: router.example" in node.stats().describe()


def test_names_are_looked_up_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow look-up does not keep the node from answering, nor from stopping."""
    release = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        release.wait(20)
        return []

    monkeypatch.setattr("torrent_client.dht.node.socket.getaddrinfo", slow)
    with running() as other, running((("router.example", 6881),)) as node:
        node.add_node("127.0.0.1", other.port)
        wait_until(lambda: node.stats().nodes == 1)
        release.set()


def test_nothing_goes_past_a_proxy() -> None:
    """SOCKS carries no UDP for us."""
    with pytest.raises(TorrentError, match="proxy"):
        DhtNode(Config(proxy="socks5://127.0.0.1:9"), 0)


def test_a_state_directory_that_cannot_be_written_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The node works without."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    saved_nodes.save(blocked, 1, {4: (bytes(20), [NodeInfo(bytes(20), Endpoint("45.1.1.1", 1))])})
    assert "cannot save the DHT nodes" in caplog.text


def test_a_session_has_a_node_on_its_port_only_if_it_is_to(tmp_path: Path) -> None:
    """A library's user is asked first; behind a proxy there is none at all."""
    with Session(Config(listen_port=0)) as session:
        assert session.dht is None
    with Session(Config(listen_port=0, dht=True, proxy="socks5://127.0.0.1:9")) as session:
        assert session.dht is None
    config = Config(listen_port=0, dht=True, dht_bootstrap=())
    with Session(config, state_directory=tmp_path) as session:
        assert session.dht is not None
        assert session.dht.port == session.port
    assert not list(tmp_path.iterdir())  # it met nobody
