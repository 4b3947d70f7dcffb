"""One connection over real sockets: handshakes good and bad, waking, time-outs, and no deadlock."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.fake_peer import (
    LOOPBACK,
    FakePeer,
    FakeServer,
    black_hole,
    closed_port,
    fake_id,
    is_connecting,
    tcp_pair,
)
from tests.support import payload, wait_until
from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH, Config
from torrent_client.encryption import open_incoming
from torrent_client.errors import HandshakeError, PeerDisconnected, PeerError, ProtocolViolation, StorageError
from torrent_client.peer_connection import PeerConnection, read_handshake
from torrent_client.protocol.messages import (
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Handshake,
    Have,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Piece,
    Port,
    Request,
    Unchoke,
    Unknown,
)
from torrent_client.protocol.mse import torrent_mark
from torrent_client.tracker_client import PeerAddress

HASH = bytes(range(20))
OUR_ID = fake_id("us")
ADDRESS = PeerAddress(LOOPBACK, 1)
THEIRS = Handshake(HASH, fake_id("them"))

# A tick longer than any test: what ends sooner was woken.
LONG_TICK = Config(socket_tick=30.0, handshake_timeout=30.0, connect_timeout=30.0)
QUICK = Config(socket_tick=0.05, idle_timeout=0.3, handshake_timeout=0.3, connect_timeout=0.3, keep_alive_interval=60)


@contextmanager
def pair(**options: Any) -> Iterator[tuple[PeerConnection, FakePeer]]:  # noqa: ANN401  # passed on
    """Give a connection on an accepted socket, before its handshake, and the peer at the other end."""
    near, far = tcp_pair()
    with FakePeer(far) as peer, PeerConnection(ADDRESS, HASH, OUR_ID, sock=near, **options) as connection:
        yield connection, peer


@contextmanager
def connected(**options: Any) -> Iterator[tuple[PeerConnection, FakePeer]]:  # noqa: ANN401  # passed on
    """Give a connection and a peer that have shaken hands."""
    with pair(**{"config": LONG_TICK} | options) as (connection, peer):
        peer.send_raw(THEIRS.encode())
        connection.handshake()
        peer.read_handshake()
        yield connection, peer


@contextmanager
def in_background(call: Callable[[], object]) -> Iterator[Callable[[], BaseException | None]]:
    """Run a call in a thread; give a function that waits for its end and returns what it raised."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        yield lambda: future.exception(5)


# --- connecting -------------------------------------------------------------------------------------------


def test_a_whole_lesson_works() -> None:
    """The example in the module's text: connect, shake hands, say something, read the answer."""

    def script(peer: FakePeer) -> None:
        peer.read_handshake()
        peer.send_raw(THEIRS.encode())
        assert peer.next_message() == Interested()
        peer.send(BitfieldMessage(b"\x80"), Unchoke())

    with FakeServer(script) as server, PeerConnection(server.address, HASH, OUR_ID) as connection:
        connection.connect()
        assert connection.handshake() == THEIRS
        connection.send(Interested())
        received: list[Message] = []
        while len(received) < 2:
            received += connection.receive()
        assert received == [BitfieldMessage(b"\x80"), Unchoke()]
        assert connection.outgoing


def test_nobody_listens() -> None:
    """A refused connection is a peer's error."""
    connection = PeerConnection(PeerAddress(LOOPBACK, closed_port()), HASH, OUR_ID)
    with connection, pytest.raises(PeerDisconnected, match="cannot connect: Connection refused"):
        connection.connect()


def test_a_dead_address_costs_the_connect_timeout() -> None:
    """And no more."""
    with black_hole() as address, PeerConnection(address, HASH, OUR_ID, config=QUICK) as connection:
        begin = time.monotonic()
        with pytest.raises(PeerDisconnected, match="cannot connect"):
            connection.connect()
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "999.1.1.1.invalid"])
def test_a_host_name_that_is_none_is_a_peers_error(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers give names, too, and not only good ones."""
    real = socket.getaddrinfo

    def offline(host: str, port: int, **more: Any) -> Any:  # noqa: ANN401  # passed on
        return real(host, port, **more, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    connection = PeerConnection(PeerAddress(host, 6881), HASH, OUR_ID)
    with connection, pytest.raises(PeerDisconnected, match="cannot connect"):
        connection.connect()


def test_closing_wakes_a_connect() -> None:
    """Stopping does not wait for addresses that never answer."""
    with (
        black_hole() as address,
        PeerConnection(address, HASH, OUR_ID, config=LONG_TICK) as connection,
        in_background(connection.connect) as ended,
    ):
        wait_until(lambda: is_connecting(connection._sock))
        connection.close("we are stopping")
        assert isinstance(ended(), PeerDisconnected)


def test_a_connection_closed_before_it_connects_does_not() -> None:
    """Whoever stops in the moment of dialling is not forgotten."""
    with FakeServer(FakePeer.close) as server, PeerConnection(server.address, HASH, OUR_ID) as connection:
        connection.close("we are stopping")
        with pytest.raises(PeerDisconnected, match="we are stopping"):
            connection.connect()
    assert not server.peers


# --- the handshake ----------------------------------------------------------------------------------------


def test_both_sides_learn_of_each_other() -> None:
    """Our 68 bytes are those of BEP 3, with BEP 10's bit if we offer extensions."""
    with connected(extensions=True) as (connection, peer):
        assert peer.handshake_seen == Handshake(HASH, OUR_ID, bytes([0, 0, 0, 0, 0, 0x10, 0, 0]))
        assert connection.remote == THEIRS
        assert not connection.outgoing


def test_unknown_reserved_bits_are_ignored() -> None:
    """Other clients set bits that we never heard of (libtorrent#8692)."""
    with pair() as (connection, peer):
        peer.send_raw(THEIRS._replace(reserved=b"\xff" * 8).encode())
        assert connection.handshake().supports_extensions


def test_a_handshake_may_come_byte_by_byte() -> None:
    """With messages right behind it, which are not lost."""
    with pair(config=LONG_TICK) as (connection, peer), in_background(connection.handshake) as ended:
        send_bytewise(peer, THEIRS.encode())
        peer.send(Have(3))
        assert ended() is None
        assert connection.receive() == [Have(3)]


def test_messages_may_come_together_with_the_handshake() -> None:
    """Clients send handshake and bitfield in one packet."""
    with pair(config=LONG_TICK) as (connection, peer):
        peer.send_raw(THEIRS.encode() + BitfieldMessage(b"\x80").encode() + Unchoke().encode())
        connection.handshake()
        assert connection.receive() == [BitfieldMessage(b"\x80"), Unchoke()]


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n", b"\x13BitTorrent protocoX", b"\x12BitTorrent", b"\0"])
def test_another_protocol_is_noticed_at_once(greeting: bytes) -> None:
    """By the first byte that differs, without waiting for 68."""
    with pair(config=LONG_TICK) as (connection, peer):
        peer.send_raw(greeting)
        with pytest.raises(HandshakeError, match="not a BitTorrent handshake"):
            connection.handshake()


def test_another_torrent_is_refused() -> None:
    """A peer that answers with another info hash is of no use."""
    with pair() as (connection, peer):
        peer.send_raw(THEIRS._replace(info_hash=bytes(20)).encode())
        with pytest.raises(HandshakeError, match="it has another torrent, 0000"):
            connection.handshake()


def test_our_own_id_is_refused() -> None:
    """A tracker tells us our own address like any other."""
    with pair() as (connection, peer):
        peer.send_raw(THEIRS._replace(peer_id=OUR_ID).encode())
        with pytest.raises(HandshakeError, match="it is ourselves"):
            connection.handshake()


@pytest.mark.parametrize("sent", [0, 1, 48, 67])
def test_a_peer_that_hangs_up_in_the_handshake_is_gone(sent: int) -> None:
    """However far it came."""
    with pair() as (connection, peer):
        peer.send_raw(THEIRS.encode()[:sent])
        peer.close()
        with pytest.raises(PeerDisconnected, match="handshake"):
            connection.handshake()


@pytest.mark.parametrize("sent", [0, 67])
def test_a_peer_that_is_silent_in_the_handshake_is_given_up(sent: int) -> None:
    """After the time-out."""
    with pair(config=QUICK) as (connection, peer):
        peer.send_raw(THEIRS.encode()[:sent])
        with pytest.raises(PeerDisconnected, match="no handshake"):
            connection.handshake()


def test_a_slow_drip_does_not_stretch_the_handshake() -> None:
    """The time-out is for all of it: a byte now and then buys no more time."""
    near, far = tcp_pair()
    stop = threading.Event()

    def drip() -> None:
        for byte in THEIRS.encode():
            if stop.wait(0.05):
                return
            far.sendall(bytes([byte]))

    with near, far, in_background(drip):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            read_handshake(near, 0.3)
        assert time.monotonic() - begin < 2
        stop.set()


def test_a_handshake_that_was_read_already_is_only_answered() -> None:
    """The listener has read it to find the torrent."""
    with pair(remote_handshake=THEIRS) as (connection, peer):
        assert connection.handshake() == THEIRS
        assert peer.read_handshake().peer_id == OUR_ID


def test_closing_wakes_a_handshake() -> None:
    """Stopping does not wait for a silent stranger."""
    with pair(config=LONG_TICK) as (connection, peer), in_background(connection.handshake) as ended:
        peer.read_handshake()
        connection.close("we are stopping")
        assert isinstance(ended(), PeerDisconnected)


# --- encryption -------------------------------------------------------------------------------------------


class Picky:
    """A peer that takes only some callers, as its settings say; hangs up on all others.

    Args:
        mode: `Config.encryption`.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self.first_bytes: list[bytes] = []

    def __call__(self, peer: FakePeer) -> None:
        """Answer a caller, and say something afterwards."""
        self.first_bytes.append(peer.sock.recv(20, socket.MSG_PEEK))
        torrents = {torrent_mark(HASH): HASH}
        try:
            sock, _ = open_incoming(peer.sock, self._mode, torrents.get, 5)
        except PeerError:
            return
        sock.sendall(THEIRS.encode() + Have(7).encode())
        peer.sock.settimeout(5)
        with suppress(OSError):
            while sock.recv(100):
                pass

    @property
    def seen(self) -> list[str]:
        """How it was called, one call after the other."""
        return ["plain" if first.startswith(b"\x13BitTorrent") else "encrypted" for first in self.first_bytes]


@pytest.mark.parametrize(
    ("ours", "theirs", "calls", "is_rc4"),
    [
        ("allow", "off", ["plain"], False),
        ("allow", "allow", ["plain"], False),
        ("allow", "require", ["plain", "encrypted"], True),
        ("prefer", "off", ["encrypted", "plain"], False),
        ("prefer", "allow", ["encrypted"], False),
        ("prefer", "prefer", ["encrypted"], True),
        ("prefer", "require", ["encrypted"], True),
        ("require", "prefer", ["encrypted"], True),
        ("off", "prefer", ["plain"], False),
    ],
)
def test_a_peer_is_dialled_as_it_and_we_want(ours: str, theirs: str, calls: list[str], *, is_rc4: bool) -> None:
    """Once more where it hangs up on the first way, and messages flow whatever was agreed."""
    script = Picky(theirs)
    config = LONG_TICK._replace(encryption=ours)
    with FakeServer(script) as server, PeerConnection(server.address, HASH, OUR_ID, config=config) as connection:
        connection.connect()
        assert connection.handshake() == THEIRS
        assert connection.receive() == [Have(7)]
        assert connection.is_encrypted == is_rc4
        assert script.seen == calls


@pytest.mark.parametrize(("ours", "theirs"), [("off", "require"), ("require", "off")])
def test_settings_that_do_not_match_end_a_connection(ours: str, theirs: str) -> None:
    """After one call; there is no other way."""
    script = Picky(theirs)
    config = LONG_TICK._replace(encryption=ours)
    with FakeServer(script) as server, PeerConnection(server.address, HASH, OUR_ID, config=config) as connection:
        connection.connect()
        with pytest.raises(PeerDisconnected):
            connection.handshake()
        assert len(script.seen) == 1


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_a_peer_that_hangs_up_on_everything_is_called_twice(mode: str) -> None:
    """And no more."""
    config = LONG_TICK._replace(encryption=mode)
    with (
        FakeServer(FakePeer.close) as server,
        PeerConnection(server.address, HASH, OUR_ID, config=config) as connection,
    ):
        connection.connect()
        with pytest.raises(PeerDisconnected):
            connection.handshake()
        wait_until(lambda: len(server.peers) == 2)


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_a_silent_peer_is_called_once(mode: str) -> None:
    """It has cost its time-out, and would again."""
    config = QUICK._replace(encryption=mode)

    def listen(peer: FakePeer) -> None:
        with suppress(OSError):
            while peer.sock.recv(1000):
                pass

    with FakeServer(listen) as server, PeerConnection(server.address, HASH, OUR_ID, config=config) as connection:
        connection.connect()
        with pytest.raises(PeerDisconnected, match="no handshake"):
            connection.handshake()
        assert len(server.peers) == 1


def test_a_peer_that_hangs_up_while_we_stop_is_not_called_again() -> None:
    """Closing ends the dial, whatever there is left to try."""
    with PeerConnection(ADDRESS, HASH, OUR_ID, config=LONG_TICK) as connection:

        def close(peer: FakePeer) -> None:
            connection.close("we are stopping")
            peer.close()

        with FakeServer(close) as server:
            connection.address = server.address
            connection.connect()
            with pytest.raises(PeerDisconnected):
                connection.handshake()
            assert len(server.peers) == 1


# --- receiving --------------------------------------------------------------------------------------------

EVERY_MESSAGE: list[Message] = [
    KeepAlive(),
    Choke(),
    Unchoke(),
    Interested(),
    NotInterested(),
    Have(1),
    BitfieldMessage(b"\xf0"),
    Request(1, 2, 3),
    Piece(1, 2, b"block"),
    Cancel(1, 2, 3),
    Port(6881),
    Extended(0, b"de"),
    Unknown(99, b"?"),
]


def test_every_message_is_received() -> None:
    """All in one packet."""
    with connected() as (connection, peer):
        peer.send(*EVERY_MESSAGE)
        received: list[Message] = []
        while len(received) < len(EVERY_MESSAGE):
            received += connection.receive()
        assert received == EVERY_MESSAGE


def send_bytewise(peer: FakePeer, data: bytes) -> None:
    """Send each byte in a call of its own."""
    for byte in data:
        peer.send_raw(bytes([byte]))


def test_messages_may_come_byte_by_byte() -> None:
    """Each packet a byte: the same messages come out, one by one."""
    with (
        connected() as (connection, peer),
        in_background(lambda: send_bytewise(peer, b"".join(message.encode() for message in EVERY_MESSAGE))),
    ):
        received: list[Message] = []
        while len(received) < len(EVERY_MESSAGE):
            received += [
                message._replace(block=bytes(message.block)) if isinstance(message, Piece) else message
                for message in connection.receive()
            ]
        assert received == EVERY_MESSAGE


@pytest.mark.parametrize("length", [MAX_MESSAGE_LENGTH + 1, 2**32 - 1])
def test_an_oversized_message_is_refused_at_its_prefix(length: int) -> None:
    """Before a byte of it is waited or paid for."""
    with connected() as (connection, peer):
        peer.send_raw(struct.pack(">I", length))
        with pytest.raises(ProtocolViolation, match="the limit is"):
            connection.receive()


def test_a_torrent_with_many_pieces_may_need_longer_messages() -> None:
    """The limit is an argument: a bitfield of 10 million pieces is longer than the default."""
    bitfield = BitfieldMessage(bytes(MAX_MESSAGE_LENGTH + 100))
    limit = len(bitfield.bits) + 1
    with connected(max_message_length=limit) as (connection, peer), in_background(lambda: peer.send(bitfield)):
        assert connection.receive() == [bitfield]


def test_a_malformed_message_is_a_violation() -> None:
    """A `have` of three bytes, say."""
    with connected() as (connection, peer):
        peer.send_raw(b"\0\0\0\4\4\0\0\0")
        with pytest.raises(ProtocolViolation, match="have"):
            connection.receive()


def test_a_peer_that_closes_is_gone() -> None:
    """After the last message that it sent, and also in the middle of one."""
    with connected() as (connection, peer):
        peer.send(Have(1))
        peer.send_raw(b"\0\0\0\5")
        peer.close()
        assert connection.receive() == [Have(1)]
        with pytest.raises(PeerDisconnected, match="it closed the connection"):
            connection.receive()


def test_a_peer_that_resets_is_gone() -> None:
    """A crashed program's system says so."""
    with connected() as (connection, peer):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(PeerDisconnected):
            connection.receive()


def test_a_silent_peer_is_given_up() -> None:
    """After the idle time-out, in which nothing at all came."""
    with connected(config=QUICK) as (connection, _):
        begin = time.monotonic()
        with pytest.raises(PeerDisconnected, match="silent for"):
            connection.receive()
        assert 0.25 < time.monotonic() - begin < 2


def test_keep_alives_keep_a_connection_alive() -> None:
    """Each one begins the time-out anew, and so does half a message."""
    with connected(config=QUICK) as (connection, peer):
        begin = time.monotonic()
        while time.monotonic() - begin < 0.6:
            time.sleep(0.1)  # the quiet peer itself
            peer.send(KeepAlive())
            assert connection.receive() == [KeepAlive()]
        peer.send_raw(b"\0\0")
        with pytest.raises(PeerDisconnected, match="silent"):
            connection.receive()


# --- sending ----------------------------------------------------------------------------------------------


def test_flags_follow_what_we_send() -> None:
    """And what changes nothing is not sent."""
    with connected() as (connection, peer):
        assert (connection.am_choking, connection.am_interested) == (True, False)
        connection.send(Interested())
        connection.send(Interested())
        connection.send(Unchoke())
        assert (connection.am_choking, connection.am_interested) == (False, True)
        connection.send(NotInterested())
        connection.send(Choke())
        assert [peer.next_message() for _ in range(4)] == [Interested(), Unchoke(), NotInterested(), Choke()]
        assert (connection.am_choking, connection.am_interested) == (True, False)


def test_requests_are_answered() -> None:
    """Blocks come from `read_block`, and are counted."""
    with connected(read_block=lambda request: payload(request.length)) as (connection, peer):
        connection.upload(Request(1, 0, 100))
        assert peer.next_message() == Piece(1, 0, payload(100))
        wait_until(lambda: connection.uploaded == 100)


def test_a_connection_without_storage_serves_nothing() -> None:
    """The lesson's connection has nothing to give: it ends instead of inventing bytes."""
    with connected() as (connection, _):
        connection.upload(Request(1, 0, 100))
        with pytest.raises(PeerDisconnected, match="serves nothing"):
            connection.receive()


def test_a_block_can_be_cancelled() -> None:
    """Until it is on its way."""
    held, gate = threading.Event(), threading.Event()

    def read_block(request: Request) -> bytes:
        held.set()
        assert gate.wait(10)
        return bytes(request.length)

    with connected(read_block=read_block) as (connection, peer):
        connection.upload(Request(1, 0, 100))
        assert held.wait(10)
        connection.upload(Request(2, 0, 100))
        connection.cancel_upload(Request(2, 0, 100))
        connection.upload(Request(3, 0, 100))
        gate.set()
        assert peer.expect_many(Piece, 2) == [Piece(1, 0, bytes(100)), Piece(3, 0, bytes(100))]


def test_before_the_handshake_nothing_is_sent() -> None:
    """There is no writer yet: calls are harmless and counts are zero."""
    with pair() as (connection, _):
        connection.send(Interested())
        connection.send_encoded(b"x")
        connection.cancel_upload(Request(0, 0, 1))
        assert connection.upload(Request(0, 0, 1)) == connection.uploaded == 0
        assert (connection.am_choking, connection.am_interested) == (True, False)


def test_two_honest_peers_with_deep_pipelines_never_deadlock() -> None:
    """Both ask for 500 blocks at once and answer each other through small socket buffers: all blocks arrive."""
    blocks = 500
    near, far = tcp_pair()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)

    both_have_all = threading.Barrier(2, timeout=20)

    def exchange(sock: socket.socket, name: str) -> None:
        options: dict[str, Any] = {"read_block": lambda request: bytes(request.length)}
        with PeerConnection(ADDRESS, HASH, fake_id(name), sock=sock, **options) as connection:
            connection.handshake()
            for number in range(blocks):
                connection.send(Request(number, 0, BLOCK_SIZE))
            came = asked = 0
            while came < blocks or asked < blocks:
                for message in connection.receive():
                    if isinstance(message, Request):
                        connection.upload(message)
                        asked += 1
                    else:
                        came += isinstance(message, Piece)
            both_have_all.wait()

    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(exchange, near, "one"), pool.submit(exchange, far, "two")]
        for side in sides:
            side.result(20)


# --- closing ----------------------------------------------------------------------------------------------


def test_closing_from_another_thread_wakes_the_reader() -> None:
    """At once, long before the next tick, with the reason that was given."""
    with connected() as (connection, _), in_background(connection.receive) as ended:
        begin = time.monotonic()
        connection.close("we are stopping")
        error = ended()
        assert isinstance(error, PeerDisconnected)
        assert str(error) == "we are stopping"
        assert time.monotonic() - begin < 1


def test_a_send_that_the_peer_never_reads_ends() -> None:
    """The connection closes itself after the idle time-out, though the peer goes on sending."""
    with connected(config=QUICK, read_block=lambda request: bytes(request.length)) as (connection, peer):
        for number in range(100):
            connection.upload(Request(number, 0, 128 * 1024))
        begin = time.monotonic()
        while connection.close_reason is None:
            peer.send(KeepAlive())
            with suppress(PeerDisconnected):
                connection.receive()
        assert connection.close_reason == "it reads nothing any more"
        assert time.monotonic() - begin < 3


def test_closing_wakes_a_send_that_is_stuck() -> None:
    """And leaves no writer behind."""
    with connected(read_block=lambda request: bytes(request.length)) as (connection, _):
        for number in range(100):
            connection.upload(Request(number, 0, 128 * 1024))
        wait_until(lambda: connection.uploaded > 0)
        begin = time.monotonic()
        connection.finish()
        assert time.monotonic() - begin < 1


def test_the_first_reason_counts() -> None:
    """However many threads close a connection, at whatever time."""
    with connected() as (connection, peer):
        connection.close("first")
        connection.close("second")
        connection.finish()
        connection.close("third")
        connection.finish()
        assert connection.close_reason == "first"
        with pytest.raises(PeerDisconnected, match="first"):
            connection.receive()
        assert peer.read_until_gone() == []


def test_what_is_sent_after_closing_is_lost_without_a_word() -> None:
    """Other threads need not know that a peer has just gone."""
    with connected() as (connection, _):
        connection.finish()
        connection.send(Have(1))
        connection.send_encoded(b"x")
        connection.upload(Request(0, 0, 1))


def test_a_disk_that_fails_while_uploading_ends_the_connection() -> None:
    """The reader is woken and told why."""

    def read_block(_request: Request) -> bytes:
        raise StorageError("cannot read x: it is not there")

    with connected(read_block=read_block) as (connection, _), in_background(connection.receive) as ended:
        connection.upload(Request(0, 0, 1))
        assert str(ended()) == "cannot read x: it is not there"
