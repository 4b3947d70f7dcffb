"""Many short connections leave nothing behind: the classic leak of a threaded server.

`TORRENT_CLIENT_CYCLES=10000 pytest tests/test_connection_cycles.py --timeout 600` for the whole of it.
"""

import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.fake_peer import LOOPBACK, closed_port
from tests.support import OpenResources, leaks_since, wait_until
from tests.test_session import CONFIG, fetch, make, seeding
from torrent_client.download_manager import DownloadManager
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_writer import PeerWriter
from torrent_client.session import Session
from torrent_client.tracker_client import PeerAddress

CYCLES = int(os.environ.get("TORRENT_CLIENT_CYCLES", "300"))
AT_ONCE = 4
"""Connections at the same time: as many as there are upload slots, so that none is choked for long."""

MEMORY_SLACK = 16 * 1024 * 1024
"""Bytes that the process may have grown by: what 10,000 connections would leave is ten times as much."""


def tables(session: Session, manager: DownloadManager) -> dict[str, int]:
    """Return the sizes of everything that grows with connections."""
    swarm = manager.swarm
    gc.collect()
    alive = [type(thing) for thing in gc.get_objects()]
    return {
        "connections": len(swarm._connections),
        "peers": len(swarm.peers()),
        "addresses": swarm.pool.counts()[0],
        "greeting": len(session._listener._greeting),
        "slots taken": CONFIG.max_peers_total - session._slots._value,
        "pieces' peers": len(manager.pieces._book.peers),
        **{kind.__name__: alive.count(kind) for kind in (PeerConnection, Peer, PeerWriter)},
    }


def test_connections_that_come_and_go_leave_no_thread_descriptor_or_memory(tmp_path: Path) -> None:
    """Handshake, one block, gone; again and again, four at a time."""
    job = make(tmp_path, "a")
    with seeding(job) as (session, (manager,)), ThreadPoolExecutor(AT_ONCE) as clients:

        def cycles(start: int, count: int) -> None:
            for block in clients.map(
                lambda number: fetch(session.port, job.torrent, f"{number}"), range(start, start + count)
            ):
                assert len(block) == 16_384

        def is_idle() -> bool:
            return not manager.swarm._connections and not session._listener._greeting

        cycles(0, 100)  # pools of threads have grown as far as they will
        wait_until(is_idle)
        before, resources = tables(session, manager), OpenResources.now()
        memory = psutil.Process().memory_info().rss
        cycles(100, CYCLES)
        wait_until(is_idle)
        assert tables(session, manager) == before
        grown = [leak for leak in leaks_since(resources) if "peer_" not in leak and "hello" not in leak]
        assert not grown
        workers = [thread for thread in OpenResources.now().threads if thread.name.startswith("peer")]
        assert len(workers) <= 2 * AT_ONCE, "workers are used again, not added"
        assert psutil.Process().memory_info().rss - memory < MEMORY_SLACK
        assert manager.swarm.uploaded == (100 + CYCLES) * 16_384


@pytest.fixture
def nobody_looks_for_garbage() -> Iterator[None]:
    """Let the interpreter do without: `main.py` lets it look so seldom that it comes to the same."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connections() -> int:
    """Count the connections in memory, those at their end included."""
    return [type(thing) for thing in gc.get_objects()].count(PeerConnection)


@pytest.mark.usefixtures("nobody_looks_for_garbage")
def test_what_a_connection_held_is_free_when_it_ends(tmp_path: Path) -> None:
    """Its buffers are large: in a reference cycle they would wait for somebody who looks for garbage."""
    job = make(tmp_path, "a")
    with seeding(job) as (session, (manager,)):
        for number in range(3):
            fetch(session.port, job.torrent, f"{number}")
        wait_until(lambda: not manager.swarm._connections)
        wait_until(lambda: not connections())


@pytest.mark.usefixtures("nobody_looks_for_garbage")
def test_what_a_connection_held_is_free_when_nobody_answers(tmp_path: Path) -> None:
    """Most addresses that trackers name are of that kind."""
    with Session(CONFIG) as session:
        address = PeerAddress(LOOPBACK, closed_port())
        manager = session.add(*make(tmp_path, "a", complete=False, given_peers=(address,)))
        wait_until(lambda: manager.swarm.last_failure is not None)
        wait_until(lambda: not connections())
