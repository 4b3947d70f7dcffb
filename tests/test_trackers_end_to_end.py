"""Our client with several trackers at once, as a user runs it: silent, hanging, dead and good ones."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_peer import LOOPBACK, FakeServer, closed_port, metainfo, seeder, serving, torrent_of
from tests.fake_udp_tracker import FakeUdpTracker, honest
from tests.support import payload, running_client, wait_until
from torrent_client.config import Config
from torrent_client.download_manager import DownloadOptions
from torrent_client.session import Session


@pytest.fixture
def hanging() -> Iterator[str]:
    """Return the URL of a server that accepts and says nothing."""
    with FakeServer(lambda peer: peer.read_exactly(1_000_000)) as server:
        yield f"http://{server.address}/announce"


def test_a_download_starts_on_the_first_answer(hanging: str, tmp_path: Path) -> None:
    """A hanging, a silent and a dead tracker before the good one cost nothing, and each shows its own state."""
    data = payload(100_000)
    torrent = torrent_of(data)
    path = tmp_path / "file.torrent"
    with serving(seeder(torrent, data)) as [server], FakeUdpTracker(lambda _: []) as silent:
        peer = socket.inet_aton(LOOPBACK) + server.port.to_bytes(2, "big")
        with FakeUdpTracker(lambda datagram: honest(datagram, peer)) as good:
            dead = f"http://127.0.0.1:{closed_port()}/announce"
            urls = [hanging, silent.url, dead, good.url]
            path.write_bytes(metainfo(data))
            options = [word for url in urls for word in ("--tracker", url)]
            with running_client(tmp_path, path, tmp_path / "out", *options) as client:
                assert client.wait(20) == 0
            assert good.actions[-1] == 1
            assert good.seen[-1][83] == 3  # stopped
    states = {tracker["url"]: tracker["state"] for tracker in client.last_report()["trackers"]}
    assert states[good.url] == "working"
    assert "working" not in {states[url] for url in (hanging, silent.url, dead)}


def test_hanging_trackers_do_not_hold_up_the_end(hanging: str, tmp_path: Path) -> None:
    """Ctrl-C while an HTTP and a UDP tracker are being asked."""
    path = tmp_path / "file.torrent"
    path.write_bytes(metainfo(payload(100_000)))
    with FakeUdpTracker(lambda _: []) as silent:
        options = ["--tracker", hanging, "--tracker", silent.url]
        with running_client(tmp_path, path, tmp_path / "out", *options) as client:
            wait_until(lambda: bool(silent.seen))
            client.process.send_signal(signal.SIGINT)
            assert client.wait(4) == 130


def test_the_user_can_have_the_trackers_asked_again(tmp_path: Path) -> None:
    """What the key does, for every torrent of the session."""
    torrent = torrent_of(payload(100_000))
    config = Config(listen_port=0, min_announce_interval=0.0)
    with FakeUdpTracker() as tracker, Session(config) as session:
        manager = session.add(torrent.with_trackers([(tracker.url,)]), DownloadOptions(tmp_path))
        wait_until(lambda: manager.stats().trackers[0].state == "working")
        session.announce_now()
        wait_until(lambda: tracker.actions.count(1) == 2)
