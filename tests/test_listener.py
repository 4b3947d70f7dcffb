"""Incoming peers: who gets which torrent, strangers, ports that are taken, and an end without leftovers."""

import contextlib
import errno
import queue
import socket
import time
from collections.abc import Iterator

import pytest

from tests.fake_peer import LOOPBACK, FakePeer, Gone, fake_id
from tests.support import wait_until
from torrent_client import listener as listener_module
from torrent_client.config import Config
from torrent_client.encryption import EITHER, EncryptedSocket, PeerSocket, dial_encrypted
from torrent_client.errors import PeerError, TorrentError
from torrent_client.listener import HELLO_THREADS, Listener
from torrent_client.protocol.messages import Handshake
from torrent_client.tracker_client import PeerAddress

ONE, OTHER = bytes(20), bytes(range(20))
# A tick longer than any test: what ends sooner was woken.
CONFIG = Config(listen_port=0, socket_tick=30.0, handshake_timeout=30.0, housekeeping_interval=0.01)


class Torrent:
    """Takes over accepted peers, as a swarm does."""

    def __init__(self) -> None:
        self.accepted: queue.Queue[tuple[PeerSocket, PeerAddress, Handshake]] = queue.Queue()
        self.has_room = True
        self.error: Exception | None = None

    def accept(self, sock: PeerSocket, address: PeerAddress, handshake: Handshake) -> bool:
        """Keep a peer."""
        if self.error:
            raise self.error
        if self.has_room:
            self.accepted.put((sock, address, handshake))
        return self.has_room

    def next(self) -> tuple[PeerAddress, Handshake]:
        """Wait for a peer, hang up on it, and tell who it was."""
        sock, address, handshake = self.accepted.get(timeout=5)
        sock.close()
        return address, handshake


@contextlib.contextmanager
def listening(config: Config = CONFIG, torrent: Torrent | None = None) -> Iterator[Listener]:
    """Run a listener, which serves torrent ONE if there is one."""
    listener = Listener(config)
    if torrent:
        listener.serve(ONE, torrent.accept)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def greet(listener: Listener, info_hash: bytes = ONE) -> FakePeer:
    """Dial the listener and name a torrent."""
    peer = FakePeer.dial(listener.port)
    peer.send_raw(Handshake(info_hash, fake_id("caller")).encode())
    return peer


def no_thread(*_arguments: object) -> None:
    """Fail as a system that has no thread left."""
    raise RuntimeError("can't start new thread")


def is_hung_up(peer: FakePeer) -> bool:
    """Wait for the listener to hang up."""
    try:
        peer.read_exactly(1)
    except Gone:
        return True
    return False


# --- who gets which torrent -------------------------------------------------------------------------------


def test_peers_are_handed_to_the_torrent_that_they_name() -> None:
    """With their address and handshake; the listener itself answers nothing."""
    one, other = Torrent(), Torrent()
    with listening(torrent=one) as listener:
        listener.serve(OTHER, other.accept)
        with greet(listener, OTHER) as peer:
            address, handshake = other.next()
            assert address == PeerAddress(LOOPBACK, peer.sock.getsockname()[1])
            assert handshake == Handshake(OTHER, fake_id("caller"))
        with greet(listener, ONE):
            assert one.next()[1].info_hash == ONE
        assert other.accepted.empty()


def test_an_unknown_torrent_is_hung_up_on() -> None:
    """We say nothing: not even that we are a client."""
    torrent = Torrent()
    with listening(torrent=torrent) as listener, greet(listener, OTHER) as peer:
        assert is_hung_up(peer)
        assert torrent.accepted.empty()


def test_a_torrent_without_room_is_hung_up_on() -> None:
    """The listener closes what nobody takes."""
    torrent = Torrent()
    torrent.has_room = False
    with listening(torrent=torrent) as listener, greet(listener) as peer:
        assert is_hung_up(peer)


def test_a_bug_in_a_torrent_does_not_end_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next peer is served."""
    torrent = Torrent()
    torrent.error = ZeroDivisionError("oops")
    with listening(torrent=torrent) as listener:
        with greet(listener) as peer:
            assert is_hung_up(peer)
        assert "oops" in caplog.text
        torrent.error = None
        with greet(listener):
            torrent.next()


def test_callers_over_ipv6_are_served() -> None:
    """On the same port, where the system has IPv6."""
    torrent = Torrent()
    with listening(torrent=torrent) as listener:
        try:
            sock = socket.create_connection(("::1", listener.port), 5)
        except OSError:
            pytest.skip("this machine has no IPv6")
        with FakePeer(sock) as peer:
            peer.send_raw(Handshake(ONE, fake_id("caller")).encode())
            assert torrent.next()[0].host == "::1"


# --- strangers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\0" * 100])
def test_other_protocols_are_hung_up_on_at_once(greeting: bytes) -> None:
    """By their first byte, long before the time-out, where encryption is off; else they may be a key."""
    with listening(CONFIG._replace(encryption="off")) as listener, FakePeer.dial(listener.port) as peer:
        peer.send_raw(greeting)
        assert is_hung_up(peer)


def dial_with_keys(listener: Listener, handshake: Handshake, named: bytes = ONE) -> PeerSocket:
    """Dial the listener, encrypted, for the torrent that is named."""
    sock = socket.create_connection((LOOPBACK, listener.port), 5)
    try:
        return dial_encrypted(sock, named, EITHER, handshake.encode(), 5)
    except BaseException:
        sock.close()
        raise


@pytest.mark.parametrize(("mode", "is_rc4"), [("allow", False), ("prefer", True), ("require", True)])
def test_encrypted_callers_are_handed_to_their_torrent(mode: str, *, is_rc4: bool) -> None:
    """Found by its mark, among others; with the socket that goes on as agreed."""
    torrent = Torrent()
    with listening(CONFIG._replace(encryption=mode), torrent) as listener:
        listener.serve(OTHER, Torrent().accept)
        with contextlib.closing(dial_with_keys(listener, Handshake(ONE, fake_id("caller")))) as caller:
            sock, _, handshake = torrent.accepted.get(timeout=5)
            with contextlib.closing(sock):
                assert handshake == Handshake(ONE, fake_id("caller"))
                assert isinstance(sock, EncryptedSocket) == is_rc4
                sock.sendall(b"welcome")
                assert caller.recv(7) == b"welcome"


def test_a_caller_that_encrypts_for_one_torrent_and_names_another_is_hung_up_on() -> None:
    """Somebody in the middle may have put its words together."""
    torrent = Torrent()
    with listening(torrent=torrent) as listener:
        listener.serve(OTHER, torrent.accept)
        with contextlib.closing(dial_with_keys(listener, Handshake(OTHER, fake_id("caller")))) as caller:
            assert caller.recv(1) == b""
        assert torrent.accepted.empty()


def test_encrypted_callers_for_unknown_torrents_are_hung_up_on() -> None:
    """After our key, which says nothing."""
    with listening() as listener, pytest.raises((PeerError, OSError)):
        dial_with_keys(listener, Handshake(ONE, fake_id("caller")))


def test_plain_callers_are_hung_up_on_where_encryption_is_required() -> None:
    """They may try again, encrypted."""
    torrent = Torrent()
    with listening(CONFIG._replace(encryption="require"), torrent) as listener, greet(listener) as peer:
        assert is_hung_up(peer)
        assert torrent.accepted.empty()


def test_a_handshake_may_come_slowly() -> None:
    """Byte by byte, while others are served."""
    torrent = Torrent()
    with listening(torrent=torrent) as listener, FakePeer.dial(listener.port) as slow:
        greeting = Handshake(ONE, fake_id("slow")).encode()
        for byte in greeting[:-1]:
            slow.send_raw(bytes([byte]))
        with greet(listener):
            assert torrent.next()[1].peer_id == fake_id("caller")
        slow.send_raw(greeting[-1:])
        assert torrent.next()[1].peer_id == fake_id("slow")


def test_silent_strangers_hold_others_up_for_their_time_out_only() -> None:
    """They occupy every thread; a peer that comes meanwhile waits, and is served when they are given up."""
    torrent = Torrent()
    config = Config(listen_port=0, handshake_timeout=0.3)
    with listening(config, torrent) as listener, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(FakePeer.dial(listener.port)) for _ in range(HELLO_THREADS)]
        wait_until(lambda: len(listener._greeting) == HELLO_THREADS)
        begin = time.monotonic()
        stack.enter_context(greet(listener))
        torrent.next()
        assert time.monotonic() - begin < 2
        assert all(is_hung_up(stranger) for stranger in strangers)


def test_a_crowd_of_strangers_is_hung_up_on() -> None:
    """There is a limit to the sockets that wait for their first byte."""
    with listening() as listener, contextlib.ExitStack() as stack:
        for _ in range(2 * HELLO_THREADS):
            stack.enter_context(FakePeer.dial(listener.port))
        wait_until(lambda: len(listener._greeting) == 2 * HELLO_THREADS)
        assert is_hung_up(stack.enter_context(FakePeer.dial(listener.port)))


@pytest.mark.parametrize(("host", "limit"), [("192.0.2.7", 2), ("2001:db8::7", 2), ("::1", HELLO_THREADS)])
def test_one_stranger_cannot_occupy_every_thread(monkeypatch: pytest.MonkeyPatch, host: str, limit: int) -> None:
    """Two greetings of one address are waited for at a time, but for this machine's own."""
    monkeypatch.setattr(listener_module, "_peer_address", lambda address: PeerAddress(host, address[1]))
    torrent = Torrent()
    with listening(torrent=torrent) as listener, contextlib.ExitStack() as stack:
        for _ in range(limit):
            stranger = stack.enter_context(FakePeer.dial(listener.port))
        wait_until(lambda: len(listener._greeting) == limit)
        if limit == 2:
            assert is_hung_up(stack.enter_context(FakePeer.dial(listener.port)))
        stranger.send_raw(Handshake(ONE, fake_id("slow")).encode())
        torrent.next()
        stack.enter_context(greet(listener))
        torrent.next()


@pytest.mark.parametrize(
    ("seen", "host"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:0:c000:201", "::ffff:0:c000:201"),  # looks like one of IPv4, and is not
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_a_caller_is_known_by_an_address_of_its_own_kind(seen: str, host: str) -> None:
    """What is no address would end the thread that accepts."""
    assert listener_module._peer_address((seen, 5)) == PeerAddress(host, 5)


def test_a_shortage_of_threads_is_survived(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The caller is hung up on and told of; the next one is served."""
    torrent = Torrent()
    with listening(torrent=torrent) as listener:
        with monkeypatch.context() as patch:
            patch.setattr(listener._hello, "submit", no_thread)
            with FakePeer.dial(listener.port) as peer:
                assert is_hung_up(peer)
        with greet(listener):
            torrent.next()
    assert "can't start new thread" in caplog.text


def test_a_caller_that_goes_at_once_is_forgotten() -> None:
    """Port scanners connect and hang up."""
    with listening() as listener:
        for _ in range(20):
            FakePeer.dial(listener.port).close()
        wait_until(lambda: not listener._greeting)


def test_a_shortage_of_handles_is_waited_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """`accept` fails while all file handles are in use; it is told, and tried again."""
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = socket.socket.accept

    def failing(sock: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", failing)
    torrent = Torrent()
    with listening(torrent=torrent) as listener, greet(listener):
        torrent.next()
    assert caplog.text.count("cannot accept peers: Too many open files") == 3


# --- ports ------------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[list[int]]:
    """Take two ports in a row; the two after them are free."""
    with contextlib.ExitStack() as stack:
        while True:
            with contextlib.suppress(OSError), contextlib.ExitStack() as attempt:
                first = attempt.enter_context(socket.create_server(("", 0))).getsockname()[1]
                attempt.enter_context(socket.create_server(("", first + 1)))
                for port in (first + 2, first + 3):
                    socket.create_server(("", port)).close()
                stack.push(attempt.pop_all())
                yield [first, first + 1]
                return


def test_the_next_free_port_is_used(taken: list[int]) -> None:
    """Two clients on one machine do not get in each other's way."""
    with listening(Config(listen_port=taken[0], socket_tick=30.0)) as listener:
        assert listener.port == taken[1] + 1


def test_a_port_that_we_use_ourselves_is_taken(taken: list[int]) -> None:
    """The same with our own listeners, which use IPv4 and IPv6 at once."""
    config = Config(listen_port=taken[1] + 1, socket_tick=30.0)
    with listening(config) as first, listening(config) as second:
        assert (first.port, second.port) == (taken[1] + 1, taken[1] + 2)


def test_any_port_will_do_when_all_are_taken(taken: list[int]) -> None:
    """The system chooses one."""
    with listening(Config(listen_port=taken[0], listen_port_tries=2, socket_tick=30.0)) as listener:
        assert listener.port not in taken


def test_a_machine_that_lets_nobody_listen_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence."""

    def refuse(*_arguments: object, **_more: object) -> socket.socket:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(TorrentError, match="cannot listen for peers: Operation not permitted"):
        Listener(CONFIG)


# --- stopping ---------------------------------------------------------------------------------------------


def test_stopping_is_quick_and_frees_the_port() -> None:
    """It wakes the thread that accepts, long before its next tick."""
    with listening() as listener:
        port = listener.port
        begin = time.monotonic()
    assert time.monotonic() - begin < 1
    with pytest.raises(ConnectionRefusedError):
        FakePeer.dial(port)


def test_stopping_hangs_up_on_those_who_say_nothing() -> None:
    """Those that a thread listens to and those that wait for one."""
    with contextlib.ExitStack() as stack:
        with listening() as listener:
            strangers = [stack.enter_context(FakePeer.dial(listener.port)) for _ in range(HELLO_THREADS + 3)]
            wait_until(lambda: len(listener._greeting) == HELLO_THREADS + 3)
            begin = time.monotonic()
        assert time.monotonic() - begin < 1
        assert all(is_hung_up(stranger) for stranger in strangers)


def test_a_listener_that_never_started_can_be_stopped() -> None:
    """And leaves nothing behind."""
    Listener(CONFIG).stop()
