"""Discovery and the DHT: when it is asked, and what peers tell each other of their nodes."""

from collections.abc import Callable, Sequence
from random import Random
from typing import cast

import pytest

from tests.support import FakeClock
from torrent_client.config import Config
from torrent_client.discovery import DHT_INTERVAL, Discovery, Services
from torrent_client.peer_connection import PeerConnection
from torrent_client.protocol.messages import RESERVED_DHT, Handshake, Message, Port, reserved_bits
from torrent_client.tracker_client import PeerAddress, Progress

INFO_HASH = b"h" * 20
PEER = PeerAddress("127.0.0.1", 4711)


class FakeLookup:
    """A search that never ends by itself."""

    is_cancelled = False

    def cancel(self) -> None:
        """Note it."""
        self.is_cancelled = True


class FakeDht:
    """Writes down what it is asked."""

    port = 6881

    def __init__(self) -> None:
        self.searches: list[tuple[bytes, int | None]] = []
        self.lookups: list[FakeLookup] = []
        self.nodes: list[tuple[str, int]] = []

    def find_peers(
        self, info_hash: bytes, on_peers: Callable[[Sequence[PeerAddress]], None], *, announce_port: int | None
    ) -> FakeLookup:
        """Find one peer at once."""
        self.searches.append((info_hash, announce_port))
        self.lookups.append(FakeLookup())
        on_peers([PEER])
        return self.lookups[-1]

    def add_node(self, host: str, port: int) -> None:
        """Note it."""
        self.nodes.append((host, port))

    def describe(self) -> str:
        """Return some words."""
        return "12 nodes"


class FakeConnection:
    """A peer with or without a DHT node."""

    def __init__(self, *, has_dht: bool) -> None:
        self.address = PEER
        self.remote = Handshake(INFO_HASH, b"p" * 20, reserved_bits(RESERVED_DHT) if has_dht else bytes(8))
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        """Note it."""
        self.sent.append(message)


@pytest.fixture
def dht() -> FakeDht:
    """Return a DHT that writes down."""
    return FakeDht()


def discovery(dht: FakeDht, clock: FakeClock, *, is_private: bool = False) -> Discovery:
    """Return the discovery of a torrent without trackers."""
    rng = Random(1)
    return Discovery(INFO_HASH, [], b"i" * 20, 7000, Services(dht), Config(), rng, clock, is_private=is_private)


def test_the_dht_is_asked_often_while_nobody_is_there_and_seldom_then(dht: FakeDht, clock: FakeClock) -> None:
    """Each search takes the place of the one before, and announces our port."""
    found: list[tuple[PeerAddress, str]] = []
    ours = discovery(dht, clock)
    ours.attach(lambda peers, source: found.extend((peer, source) for peer in peers), lambda: Progress(0, 0, 1))
    for _ in range(60):
        ours.tick(clock(), connected=0)
        clock.advance(1)
    hungry = len(dht.searches)
    assert 3 <= hungry <= 6
    assert dht.searches[0] == (INFO_HASH, 7000)
    assert [lookup.is_cancelled for lookup in dht.lookups] == [True] * (hungry - 1) + [False]
    clock.advance(DHT_INTERVAL)
    for _ in range(60):
        ours.tick(clock(), connected=3)
        clock.advance(1)
    assert len(dht.searches) == hungry + 1
    assert set(found) == {(PEER, "dht")}
    assert ours.dht_state() == "12 nodes, 1 peer found"


def test_peers_with_a_node_are_told_of_ours_and_theirs_is_added_once(dht: FakeDht, clock: FakeClock) -> None:
    """BEP 5; a flood of `port` messages is one."""
    ours = discovery(dht, clock)
    with_node, without = FakeConnection(has_dht=True), FakeConnection(has_dht=False)
    for connection in (with_node, without):
        ours.greet(cast("PeerConnection", connection))
    assert (with_node.sent, without.sent) == ([Port(6881)], [])
    for port in range(1, 100):
        ours.told_port(cast("PeerConnection", with_node), Port(port))
    assert dht.nodes == [("127.0.0.1", 1)]


def test_a_private_torrent_knows_of_no_dht(dht: FakeDht, clock: FakeClock) -> None:
    """Neither searches nor tells (BEP 27)."""
    ours = discovery(dht, clock, is_private=True)
    peer = FakeConnection(has_dht=True)
    ours.tick(clock(), connected=0)
    ours.greet(cast("PeerConnection", peer))
    ours.told_port(cast("PeerConnection", peer), Port(5))
    assert (dht.searches, dht.nodes, peer.sent) == ([], [], [])
    assert (ours.uses_dht, ours.dht_state()) == (False, None)


def test_once_it_is_known_to_be_private_the_dht_is_left(dht: FakeDht, clock: FakeClock) -> None:
    """As when a magnet link's metadata says so, in the middle of a search."""
    ours = discovery(dht, clock)
    ours.tick(clock(), connected=0)
    ours.restrict()
    clock.advance(2 * DHT_INTERVAL)
    ours.tick(clock(), connected=0)
    ours.told_port(cast("PeerConnection", FakeConnection(has_dht=True)), Port(5))
    assert [lookup.is_cancelled for lookup in dht.lookups] == [True]
    assert (dht.nodes, ours.uses_dht) == ([], False)


def test_after_the_stop_no_search_begins(dht: FakeDht, clock: FakeClock) -> None:
    """Housekeeping may be in the middle of its tick when another thread asks for the stop."""
    ours = discovery(dht, clock)
    ours.tick(clock(), connected=0)
    ours.begin_stop()
    clock.advance(2 * DHT_INTERVAL)
    ours.tick(clock(), connected=0)
    assert [lookup.is_cancelled for lookup in dht.lookups] == [True]
