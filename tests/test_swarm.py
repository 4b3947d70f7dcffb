"""The connections of a torrent: limits, redialling, bans and errors; and whole swarms of our own clients."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fake_peer import (
    LOOPBACK,
    PIECE_LENGTH,
    FakePeer,
    FakeServer,
    closed_port,
    fake_id,
    seeder,
    serving,
    tcp_pair,
    torrent_of,
)
from tests.support import FakeClock, payload, wait_until
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.local_tracker import LocalTracker
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import Handshake, Have, Interested, Message
from torrent_client.session import Session
from torrent_client.stats import TorrentState
from torrent_client.swarm import PeerCallbacks, Swarm, seen_as
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

HASH = bytes(range(20))
OUR_ID = fake_id("us")
HELLO = ExtendedHandshake()
CONFIG = Config(socket_tick=30.0, handshake_timeout=30.0, connect_timeout=30.0, redial_delays=(10.0, 100.0))


class Rig:
    """A swarm, and what it told its owner."""

    def __init__(self, config: Config, clock: FakeClock) -> None:
        self.joined: list[Peer] = []
        self.left: list[Peer | None] = []
        self.received: list[Message] = []
        self.config = config
        callbacks = PeerCallbacks(self.joined.append, self.on_received, self.left.append)
        self.swarm = Swarm(OUR_ID, config, callbacks, self.new_connection, clock)

    def new_connection(
        self, address: PeerAddress, sock: socket.socket | None, handshake: Handshake | None
    ) -> PeerConnection:
        """Make a connection."""
        return PeerConnection(address, HASH, OUR_ID, sock=sock, remote_handshake=handshake, config=self.config)

    def on_received(self, _peer: Peer, messages: Sequence[Message]) -> None:
        """Take messages; one of them is a bug."""
        if Have(13) in messages:
            raise ZeroDivisionError("a bug")
        self.received += messages

    def call(self, name: str) -> FakePeer | None:
        """Dial the swarm; None when it has no room."""
        near, far = tcp_pair()
        peer = FakePeer(far)
        address = PeerAddress(LOOPBACK, far.getsockname()[1])
        if self.swarm.accept(near, address, Handshake(HASH, fake_id(name))):
            peer.read_handshake()
            return peer
        near.close()
        peer.close()
        return None

    def addresses(self) -> set[str]:
        """Return the addresses of the connected peers."""
        return {str(peer.connection.address) for peer in self.swarm.peers()}


@pytest.fixture
def start(clock: FakeClock) -> Iterator[Callable[..., Rig]]:
    """Return `start(config, dials=True)`, which opens a swarm that is closed at the end."""
    rigs: list[Rig] = []

    def start_swarm(config: Config = CONFIG, *, dials: bool = True) -> Rig:
        rigs.append(Rig(config, clock))
        rigs[-1].swarm.open(dials=dials)
        return rigs[-1]

    yield start_swarm
    for rig in rigs:
        rig.swarm.close("the test is over")
        rig.swarm.join(5)


def friendly(name: str) -> Callable[[FakePeer], None]:
    """Return the script of a peer that shakes hands and then only listens."""

    def script(peer: FakePeer) -> None:
        peer.shake_hands(HASH, fake_id(name))
        peer.read_until_gone()

    return script


def silent(peer: FakePeer) -> None:
    """Say nothing, not even hello."""
    peer.read_handshake()
    peer.read_until_gone()


def addresses_of(servers: Sequence[FakeServer]) -> list[PeerAddress]:
    """Return where servers listen."""
    return [server.address for server in servers]


# --- dialling ---------------------------------------------------------------------------------------------


def test_addresses_are_dialled_when_they_come(start: Callable[..., Rig]) -> None:
    """Each becomes a peer, with its source; the same address again is nothing new."""
    with serving(friendly("a"), friendly("b")) as servers:
        rig = start()
        rig.swarm.add_addresses(addresses_of(servers), "tracker")
        rig.swarm.add_addresses(addresses_of(servers), "tracker")
        wait_until(lambda: len(rig.swarm.peers()) == 2)
        assert {peer.source for peer in rig.swarm.peers()} == {"tracker"}
        assert {peer.peer_id for peer in rig.joined} == {fake_id("a"), fake_id("b")}
        assert [len(server.peers) for server in servers] == [1, 1]


def test_few_are_dialled_at_once(start: Callable[..., Rig]) -> None:
    """Home routers choke on many half-open connections; the next is dialled as soon as one is through."""
    with serving(silent, silent, friendly("a"), friendly("b")) as servers:
        rig = start(Config(dials_at_once=2, socket_tick=30.0, handshake_timeout=30.0, encryption="off"))
        rig.swarm.add_addresses(addresses_of(servers), "test")
        wait_until(lambda: [len(server.peers) for server in servers] == [1, 1, 0, 0])
        assert rig.swarm.connecting == 2
        rig.swarm.dial()
        assert rig.swarm.connecting == 2
        servers[0].peers[0].sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: [len(server.peers) for server in servers] == [1, 1, 1, 0])
        wait_until(lambda: len(rig.joined) == 1)
        rig.swarm.dial()  # housekeeping's, once a second
        wait_until(lambda: [len(server.peers) for server in servers] == [1, 1, 1, 1])


def test_there_is_a_limit_to_peers(start: Callable[..., Rig]) -> None:
    """Dialled and accepted ones together; one that goes makes room."""
    with serving(friendly("a"), friendly("b"), friendly("c")) as servers:
        rig = start(Config(max_peers=2, socket_tick=30.0))
        rig.swarm.add_addresses(addresses_of(servers), "test")
        wait_until(lambda: len(rig.swarm.peers()) == 2)
        assert rig.call("caller") is None
        assert len(servers[2].peers) == 0
        servers[0].peers[0].sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: len(servers[2].peers) == 1)


def test_failures_are_redialled_later_and_later(start: Callable[..., Rig], clock: FakeClock) -> None:
    """After 10 s, then after 100 s; before that, nothing happens."""
    with serving(FakePeer.close) as [server]:
        rig = start()
        rig.swarm.add_addresses([server.address], "test")
        for number, delay in enumerate([10.0, 100.0, 100.0], 1):
            wait_until(lambda number=number: len(rig.left) == number)  # type: ignore[misc]
            clock.advance(delay - 0.1)
            rig.swarm.dial()
            assert rig.swarm.connecting == 0
            clock.advance(0.1)
            rig.swarm.dial()
        wait_until(lambda: len(rig.left) == 4)
        assert rig.left == [None] * 4


def greeted(rig: Rig, name: str, hello: ExtendedHandshake) -> FakePeer:
    """Let a peer call that says something of itself; return its end."""
    caller = rig.call(name)
    assert caller
    wait_until(lambda: any(peer.peer_id == fake_id(name) for peer in rig.joined))
    next(peer for peer in rig.joined if peer.peer_id == fake_id(name)).introduce(hello)
    return caller


def test_a_peer_that_called_us_is_not_dialled_meanwhile(start: Callable[..., Rig], clock: FakeClock) -> None:
    """Others tell us where it listens; it has all it needs of us. When it has gone, it is dialled."""
    rig = start()
    with FakeServer(silent) as server, greeted(rig, "caller", ExtendedHandshake(port=server.port)):
        rig.swarm.add_addresses([server.address], "pex")
        clock.advance(5.0)
        rig.swarm.dial()
        assert (len(rig.swarm.peers()), rig.swarm.connecting) == (1, 0)
        assert rig.swarm.pool.next_dial_time() == clock() + 5.0
        rig.swarm.peers()[0].connection.close("the test has seen it")
        wait_until(lambda: bool(rig.left))
        clock.advance(5.0)
        rig.swarm.dial()
        wait_until(lambda: len(server.peers) == 1)


def test_a_peer_that_called_us_and_has_gone_is_known(start: Callable[..., Rig]) -> None:
    """If it told where it listens."""
    rig = start(dials=False)
    with greeted(rig, "tells", ExtendedHandshake(port=1234)), greeted(rig, "does not", ExtendedHandshake()):
        pass
    wait_until(lambda: len(rig.left) == 2)
    assert list(rig.swarm.pool.addresses().items()) == [(PeerAddress(LOOPBACK, 1234), "incoming")]


def peer_at(host: str, your_ip: str | None = None) -> Peer:
    """Return a peer that says how it sees our address, which is all that there is to it."""
    peer = object.__new__(Peer)
    peer.connection = PeerConnection(PeerAddress(host, 1), HASH, OUR_ID)
    peer.hello = ExtendedHandshake(your_ip=ip_address(your_ip).packed) if your_ip else None
    return peer


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        ([], []),
        ([("1.1.1.1", "8.8.8.8")], []),
        ([("1.1.1.1", "8.8.8.8"), ("1.1.1.2", "8.8.8.8")], ["8.8.8.8"]),
        ([("1.1.1.1", "8.8.8.8"), ("1.1.1.1", "8.8.8.8")], []),  # one voter, twice
        ([("1.1.1.1", "8.8.8.8"), ("1.1.1.2", "::ffff:8.8.8.8"), ("1.1.1.3", None)], ["8.8.8.8"]),
        ([("1.1.1.1", "8.8.8.8"), ("1.1.1.2", "8.8.8.8"), ("1.1.1.3", "9.9.9.9"), ("1.1.1.4", "9.9.9.9")], []),
        ([("10.0.0.1", "10.0.0.9"), ("10.0.0.2", "10.0.0.9")], []),  # of no use outside
        (
            [("1.1.1.1", "8.8.8.8"), ("1.1.1.2", "8.8.8.8"), ("2600::1", "2600::9"), ("2600::2", "2600::9")],
            ["8.8.8.8", "2600::9"],
        ),
    ],
)
def test_our_own_address_is_what_most_peers_say_it_is(told: list[tuple[str, str | None]], believed: list[str]) -> None:
    """One alone may lie, and each address has one vote."""
    assert seen_as(peer_at(host, ip) for host, ip in told) == believed


def test_a_useless_peer_gives_its_place_to_a_caller(start: Callable[..., Rig], clock: FakeClock) -> None:
    """Of several the one that was useless longest; those of use stay, even if the caller has to come again."""
    rig = start(CONFIG._replace(max_peers=3), dials=False)
    with greeted(rig, "first", HELLO), greeted(rig, "second", HELLO), greeted(rig, "third", HELLO):
        for peer, idle in zip(rig.joined, (61.0, 99.0, 5.0), strict=True):
            peer.idle_seconds = idle
        rig.swarm.tick(clock())
        assert len(rig.swarm.peers()) == 3
        assert rig.call("late") is None
        rig.swarm.tick(clock())
        wait_until(lambda: len(rig.left) == 1)
        assert [peer.peer_id for peer in rig.left if peer] == [rig.joined[1].peer_id]
        late = rig.call("late")
        assert late
        late.close()


def test_the_place_of_the_lowest_priority_goes_first(
    start: Callable[..., Rig], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEP 40, among those that are useless."""
    rig = start(CONFIG._replace(max_peers=3), dials=False)
    with greeted(rig, "first", HELLO), greeted(rig, "second", HELLO), greeted(rig, "third", HELLO):
        ranks = {peer.connection.address: rank for peer, rank in zip(rig.joined, (7, 9, 1), strict=True)}
        monkeypatch.setattr(rig.swarm.pool, "priority", ranks.__getitem__)
        for peer, idle in zip(rig.joined, (61.0, 99.0, 5.0), strict=True):
            peer.idle_seconds = idle
        assert rig.call("late") is None
        rig.swarm.tick(clock())
        wait_until(lambda: len(rig.left) == 1)
        assert [peer.peer_id for peer in rig.left if peer] == [rig.joined[0].peer_id]


def test_a_swarm_that_does_not_dial_only_listens(start: Callable[..., Rig]) -> None:
    """A complete torrent calls nobody."""
    with serving(friendly("a")) as [server]:
        rig = start(dials=False)
        rig.swarm.add_addresses([server.address], "test")
        caller = rig.call("caller")
        assert caller is not None
        with caller:
            wait_until(lambda: len(rig.swarm.peers()) == 1)
            assert not server.peers


def test_a_swarm_is_closed_until_it_opens(clock: FakeClock) -> None:
    """Callers come too early while files are checked: they are refused; addresses wait, and no longer than that."""
    with serving(friendly("a")) as [server]:
        rig = Rig(CONFIG, clock)
        rig.swarm.add_addresses([server.address], "test")
        assert rig.call("caller") is None
        assert not server.peers
        rig.swarm.open(dials=True)
        wait_until(lambda: len(rig.swarm.peers()) == 1)
        rig.swarm.close("over")
        rig.swarm.join(5)


# --- messages and errors ----------------------------------------------------------------------------------


def test_messages_are_handed_over(start: Callable[..., Rig]) -> None:
    """On the peer's worker, in order."""
    rig = start()
    caller = rig.call("caller")
    assert caller is not None
    with caller:
        caller.send(Interested(), Have(1), Have(2))
        wait_until(lambda: len(rig.received) == 3)
        assert rig.received == [Interested(), Have(1), Have(2)]


@pytest.mark.parametrize(
    ("nonsense", "level"), [(b"\xff" * 4, "INFO"), (Have(13).encode(), "ERROR")], ids=["violation", "bug"]
)
def test_one_peers_error_ends_that_peer(
    start: Callable[..., Rig], caplog: pytest.LogCaptureFixture, nonsense: bytes, level: str
) -> None:
    """What a peer does wrong is information, what we do wrong an error with a traceback; the others go on."""
    caplog.set_level(logging.INFO)
    rig = start()
    bad, good = rig.call("bad"), rig.call("good")
    assert bad is not None
    assert good is not None
    with bad, good:
        bad.send_raw(nonsense)
        bad.read_until_gone()
        wait_until(lambda: len(rig.left) == 1)
        good.send(Have(1))
        wait_until(lambda: bool(rig.received))
        assert [peer.peer_id for peer in rig.swarm.peers()] == [fake_id("good")]
    assert {record.levelname for record in caplog.records} == {level}
    assert ("a worker failed" in caplog.text) == (level == "ERROR")


def test_a_peer_that_breaks_the_protocol_is_dialled_late(start: Callable[..., Rig], clock: FakeClock) -> None:
    """Its connection brought nothing: it counts as a failure."""

    def hostile(peer: FakePeer) -> None:
        peer.shake_hands(HASH, fake_id("hostile"))
        peer.send_raw(b"\xff" * 4)
        peer.read_until_gone()

    with serving(hostile) as [server]:
        rig = start()
        rig.swarm.add_addresses([server.address], "test")
        wait_until(lambda: len(rig.left) == 1)
        clock.advance(10)
        rig.swarm.dial()
        wait_until(lambda: len(rig.left) == 2)
        clock.advance(99)
        rig.swarm.dial()
        assert rig.swarm.connecting == 0


@pytest.mark.parametrize("runs", [False, True], ids=["never runs", "runs later"])
def test_a_shortage_of_threads_costs_no_place(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """The executor may have queued a worker although it failed: the connection's place is given back once."""
    rig = start()
    free = rig.swarm._slots._value
    submit = rig.swarm._workers.submit

    def failing(*work: object) -> None:
        if runs:
            submit(*work).result(10)  # type: ignore[arg-type]
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(rig.swarm._workers, "submit", failing)
        rig.swarm.add_addresses([PeerAddress(LOOPBACK, closed_port())], "test")
    assert rig.swarm.connecting == 0
    assert rig.swarm._slots._value == free
    with serving(friendly("a")) as [server]:
        rig.swarm.add_addresses([server.address], "test")
        wait_until(lambda: len(rig.swarm.peers()) == 1)


def test_a_worker_of_a_connection_that_was_given_up_gives_no_second_place_back(start: Callable[..., Rig]) -> None:
    """A thread that ends lets another take the queued work after all."""
    rig = start()
    free = rig.swarm._slots._value
    connection = rig.new_connection(PeerAddress(LOOPBACK, closed_port()), None, None)
    connection.close("no worker")
    rig.swarm._run_peer(connection)
    assert rig.swarm._slots._value == free
    assert rig.left == [None]


def test_an_error_at_the_end_of_a_connection_is_logged(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody looks at what a worker's future holds."""
    rig = start()
    monkeypatch.setattr(rig.swarm, "_callbacks", rig.swarm._callbacks._replace(left=lambda _: 1 / 0))
    caller = rig.call("caller")
    assert caller is not None
    caller.close()
    wait_until(lambda: "ZeroDivisionError" in caplog.text)


# --- bans -------------------------------------------------------------------------------------------------


def test_a_banned_peer_is_hung_up_on_and_stays_out(start: Callable[..., Rig], clock: FakeClock) -> None:
    """It is neither dialled nor let in, at any later time; the others stay."""
    with serving(friendly("bad"), friendly("good")) as servers:
        rig = start()
        rig.swarm.add_addresses(addresses_of(servers), "test")
        wait_until(lambda: len(rig.swarm.peers()) == 2)
        rig.swarm.ban([servers[0].address], "it lies")
        wait_until(lambda: rig.addresses() == {str(servers[1].address)})
        clock.advance(1_000_000)
        rig.swarm.add_addresses([servers[0].address], "test")
        rig.swarm.dial()
        near, far = tcp_pair()
        with near, far:
            assert not rig.swarm.accept(near, servers[0].address, Handshake(HASH, fake_id("bad")))
        assert len(servers[0].peers) == 1


# --- closing ----------------------------------------------------------------------------------------------


def test_closing_ends_every_connection(start: Callable[..., Rig]) -> None:
    """Peers and those that are on their way, in no time; and nobody is let in after."""
    with serving(friendly("a"), silent) as servers:
        rig = start()
        rig.swarm.add_addresses(addresses_of(servers), "test")
        caller = rig.call("caller")
        assert caller is not None
        with caller:
            wait_until(lambda: len(rig.swarm.peers()) == 2 and bool(servers[1].peers))
            begin = time.monotonic()
            rig.swarm.close("we are stopping")
            rig.swarm.join(5)
            assert time.monotonic() - begin < 1
            assert not rig.swarm.peers()
            assert rig.call("late") is None
            caller.read_until_gone()
    assert sorted(peer is None for peer in rig.left) == [False, False, True]


def test_a_worker_that_hangs_in_a_name_lookup_is_left_behind(
    start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can end `getaddrinfo`: stopping waits no longer than it may."""
    looking, found = threading.Event(), threading.Event()

    def slow(*_arguments: object, **_more: object) -> list[Any]:
        looking.set()
        found.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    rig = start()
    rig.swarm.add_addresses([PeerAddress("peer.example", 6881)], "test")
    assert looking.wait(10)
    begin = time.monotonic()
    rig.swarm.close("we are stopping")
    rig.swarm.join(0.1)
    assert time.monotonic() - begin < 1
    found.set()
    wait_until(lambda: len(rig.left) == 1)


def test_uploads_to_those_who_have_gone_still_count(start: Callable[..., Rig]) -> None:
    """The total never goes down."""
    rig = start()
    caller = rig.call("caller")
    assert caller is not None
    with caller:
        wait_until(lambda: len(rig.swarm.peers()) == 1)
        (peer,) = rig.swarm.peers()
        assert peer.connection._writer is not None
        peer.connection._writer.uploaded = 1234
        assert rig.swarm.uploaded == 1234
    wait_until(lambda: not rig.swarm.peers())
    assert rig.swarm.uploaded == 1234


# --- whole swarms of our own clients ----------------------------------------------------------------------

QUICK = Config(listen_port=0, housekeeping_interval=0.02, redial_delays=(0.1,), socket_tick=30.0)
DATA = payload(60 * PIECE_LENGTH + 5)
TORRENT = torrent_of(DATA)


class Client:
    """One of our clients, as the command line runs it."""

    def __init__(self, folder: Path, torrent: TorrentFile, content: bytes | None, peers: Sequence[PeerAddress]) -> None:
        folder.mkdir()
        self.path = folder / "file.bin"
        if content is not None:
            self.path.write_bytes(content)
        self.session = Session(QUICK)
        self.session.start()
        options = DownloadOptions(folder, seed=True, given_peers=tuple(peers))
        self.manager: DownloadManager = self.session.add(torrent, options)
        self.address = PeerAddress(LOOPBACK, self.session.port)


@contextmanager
def clients(folder: Path, torrent: TorrentFile = TORRENT) -> Iterator[Callable[..., Client]]:
    """Give `start(content, *peers)`, which runs one more client until the end of the `with` block."""
    started: list[Client] = []

    def start_client(content: bytes | None, *peers: PeerAddress) -> Client:
        started.append(Client(folder / str(len(started)), torrent, content, peers))
        return started[-1]

    try:
        yield start_client
    finally:
        for client in started:
            client.session.stop()
            client.manager.pieces.check_invariants()


def assert_complete(client: Client, data: bytes = DATA) -> None:
    """Wait until a client has everything."""
    assert client.manager.wait(20), client.manager.stats().waiting_for
    assert client.manager.state is TorrentState.COMPLETE
    assert client.path.read_bytes() == data


def test_everybody_gets_everything(tmp_path: Path) -> None:
    """One seeder and four leechers, who find each other through a tracker."""
    with LocalTracker() as tracker:
        torrent = torrent_of(DATA, announce=tracker.announce_url)
        with clients(tmp_path, torrent) as start_client:
            everybody = [start_client(content) for content in (DATA, None, None, None, None)]
            for client in everybody:
                assert_complete(client)


def test_two_halves_make_a_whole(tmp_path: Path) -> None:
    """Without a seeder: each has what the other lacks, and both end up with all of it."""
    half = 30 * PIECE_LENGTH
    with clients(tmp_path) as start_client:
        first = start_client(DATA[:half] + bytes(len(DATA) - half))
        second = start_client(bytes(half) + DATA[half:], first.address)
        assert_complete(first)
        assert_complete(second)
        assert first.manager.stats().downloaded == len(DATA) - half
        assert second.manager.stats().downloaded == half


def test_a_chain_of_leechers_passes_pieces_on(tmp_path: Path) -> None:
    """The last one knows only the one before it, which was empty, too."""
    with clients(tmp_path) as start_client:
        chain = [start_client(DATA)]
        for _ in range(3):
            chain.append(start_client(None, chain[-1].address))
        assert_complete(chain[-1])


def test_liars_in_a_swarm_do_no_harm(tmp_path: Path) -> None:
    """Two liars among honest peers: they are banned, and the file is right."""
    liars = [seeder(TORRENT, DATA, name=f"liar {number}", corrupt=range(60)) for number in range(2)]
    with serving(*liars) as bad, clients(tmp_path) as start_client:
        good = [start_client(DATA), start_client(DATA)]
        leecher = start_client(None, *addresses_of(bad), *[client.address for client in good])
        assert_complete(leecher)
        assert not any(leecher.manager.swarm.pool.is_banned(client.address) for client in good)
        for server in bad:
            if server.requests:
                wait_until(lambda server=server: leecher.manager.swarm.pool.is_banned(server.address))  # type: ignore[misc]


def test_a_seeder_that_dies_is_replaced(tmp_path: Path) -> None:
    """The download goes on with whoever is left."""
    with clients(tmp_path) as start_client:
        survivor = start_client(DATA)
        with serving(seeder(TORRENT, DATA, blocks=20)) as [mortal]:
            leecher = start_client(None, mortal.address)
            wait_until(lambda: leecher.manager.stats().pieces_done > 5)
        leecher.manager.swarm.add_addresses([survivor.address, PeerAddress(LOOPBACK, closed_port())], "test")
        assert_complete(leecher)


# --- locks ------------------------------------------------------------------------------------------------


TURNS = {"piece_verifier"}
"""Modules whose lock is a turn to do something: what is done then may block, and take locks, but who holds one never
waits for his turn."""


class LockWatch:
    """Knows which of our locks each thread holds, and notes what must not happen under one."""

    def __init__(self) -> None:
        self.violations: set[str] = set()
        self.acquired = 0
        self._held = threading.local()

    def held(self) -> list[str]:
        """Return the locks that this thread holds."""
        if not hasattr(self._held, "names"):
            self._held.names = []
        names: list[str] = self._held.names
        return names

    def check(self, what: str) -> None:
        """Note a violation if this thread holds a lock."""
        if self.held():
            self.violations.add(f"{what} while {self.held()[-1]} is held")

    def guard(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return `call` with a check before it."""

        @wraps(call)
        def checked(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401  # passed on
            self.check(name)
            return call(*arguments, **more)

        return checked


class WatchedLock:
    """A lock that tells a LockWatch who holds it."""

    def __init__(self, watch: LockWatch, name: str) -> None:
        self._lock = threading.Lock()
        self._watch = watch
        self._name = name

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock, which must be the only one unless nobody waits for it."""
        if blocking:
            self._watch.check(f"{self._name} is acquired")
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._watch.acquired += 1
            if self._name not in TURNS:
                self._watch.held().append(self._name)
        return taken

    def release(self) -> None:
        """Release the lock."""
        if self._name not in TURNS:
            self._watch.held().remove(self._name)
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


class LogWatch(logging.Handler):
    """Notes log calls under a lock."""

    def __init__(self, watch: LockWatch) -> None:
        super().__init__()
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one record."""
        self._watch.check(f"{record.name} logs")


@pytest.fixture
def lock_watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[LockWatch]:
    """Watch all locks that our modules make from now on, and all that may block."""
    watch = LockWatch()
    for name, module in sorted(sys.modules.items()):
        if not name.startswith("torrent_client.") or name.endswith("local_tracker"):
            continue
        new_lock = partial(WatchedLock, watch, name.removeprefix("torrent_client."))

        def new_condition(new_lock: Callable[[], WatchedLock] = new_lock) -> threading.Condition:
            return threading.Condition(new_lock())  # type: ignore[arg-type]

        for attribute, replacement in (("Lock", new_lock), ("Condition", new_condition)):
            if hasattr(module, attribute):
                monkeypatch.setattr(module, attribute, replacement)
        if getattr(module, "threading", None) is threading:
            monkeypatch.setattr(module, "threading", SimpleNamespace(Lock=new_lock, Condition=new_condition))
        if hasattr(module, "sha1"):
            monkeypatch.setattr(module, "sha1", watch.guard(module.sha1, "sha1"))
    for call in ("accept", "connect", "recv", "recvmsg_into", "send", "sendall", "sendmsg", "shutdown"):
        monkeypatch.setattr(socket.socket, call, watch.guard(getattr(socket.socket, call), call))
    for call in ("open", "close", "pread", "pwrite", "fsync", "lseek"):
        monkeypatch.setattr(os, call, watch.guard(getattr(os, call), call))
    logger = logging.getLogger("torrent_client")
    handler, level = LogWatch(watch), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield watch
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_no_lock_is_held_over_io_hashing_logging_or_another_lock(lock_watch: LockWatch, tmp_path: Path) -> None:
    """The rule that makes deadlocks impossible, watched in a swarm of leechers, seeders and a liar."""
    with LocalTracker() as tracker:
        torrent = torrent_of(DATA, announce=tracker.announce_url)
        script = seeder(torrent, DATA, name="liar", corrupt=range(60))
        with serving(script) as [liar], clients(tmp_path, torrent) as start_client:
            everybody = [start_client(DATA), start_client(None, liar.address), start_client(None)]
            for client in everybody:
                assert_complete(client)
                client.manager.stats()
    assert lock_watch.acquired > 1000
    assert lock_watch.violations == set()


def test_the_lock_watch_sees_what_it_should(lock_watch: LockWatch) -> None:
    """The watch itself: nested locks, input and output, hashing and logging are noted."""
    modules = {name: sys.modules[f"torrent_client.{name}"] for name in ("swarm", "peer_pool", "piece_manager")}
    with modules["swarm"].Lock():
        with modules["peer_pool"].Lock():
            pass
        os.close(os.dup(0))
        modules["piece_manager"].sha1(b"")
        logging.getLogger("torrent_client.swarm").debug("x")
    assert lock_watch.violations == {
        "peer_pool is acquired while swarm is held",
        "close while swarm is held",
        "sha1 while swarm is held",
        "torrent_client.swarm logs while swarm is held",
    }
