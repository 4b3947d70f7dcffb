"""Encryption over real sockets: both sides of ours, clumsy and hostile others, and what comes after."""

import contextlib
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import payload
from torrent_client import encryption
from torrent_client.encryption import (
    EITHER,
    Ciphers,
    EncryptedSocket,
    PeerSocket,
    dial_encrypted,
    open_incoming,
)
from torrent_client.errors import HandshakeError, PeerDisconnected
from torrent_client.protocol import mse
from torrent_client.protocol.messages import PROTOCOL, Handshake
from torrent_client.protocol.mse import Crypto

HASH, OTHER = bytes(range(20)), bytes(20)
HELLO = Handshake(HASH, b"-FK0001-encrypted---").encode()
TIMEOUT = 5.0  # seconds


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a connection, ours first."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(TIMEOUT)
        theirs.settimeout(TIMEOUT)
        yield ours, theirs


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Return a thread for the other side."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def serves(*info_hashes: bytes) -> Callable[[bytes], bytes | None]:
    """Return a look-up of torrents as the listener has one."""
    return {mse.torrent_mark(info_hash): info_hash for info_hash in info_hashes}.get


def read(sock: PeerSocket, size: int) -> bytes:
    """Read exactly so much."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, "hung up"
        data += part
    return data


def negotiate(
    ends: tuple[socket.socket, socket.socket],
    background: ThreadPoolExecutor,
    offered: Crypto = EITHER,
    mode: str = "prefer",
    hello: bytes = HELLO,
) -> tuple[PeerSocket, PeerSocket]:
    """Run both of our sides against each other; return what each goes on with."""
    ours, theirs = ends
    dialled = background.submit(dial_encrypted, theirs, HASH, offered, hello, TIMEOUT)
    accepted, begun = open_incoming(ours, mode, serves(OTHER, HASH), TIMEOUT)
    assert begun == b""
    assert isinstance(accepted, EncryptedSocket)
    assert accepted.info_hash == HASH
    assert read(accepted, len(hello)) == hello
    return accepted.settled(), dialled.result()


def assert_talks(one: PeerSocket, other: PeerSocket) -> None:
    """Send something each way, in several pieces."""
    for sender, receiver in ((one, other), (other, one), (one, other)):
        sender.sendall(b"ab")
        assert sender.sendmsg([b"cd", memoryview(b"efg"), b""]) == 5
        assert read(receiver, 7) == b"abcdefg"


# --- both of our sides ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "mode", "is_rc4"),
    [
        (EITHER, "prefer", True),
        (EITHER, "allow", False),
        (EITHER, "require", True),
        (Crypto.RC4, "allow", True),
        (Crypto.RC4, "require", True),
        (Crypto.PLAINTEXT, "prefer", False),
    ],
)
def test_both_sides_agree(
    ends: tuple[socket.socket, socket.socket],
    background: ThreadPoolExecutor,
    offered: Crypto,
    mode: str,
    is_rc4: bool,  # a parameter of the test
) -> None:
    """On RC4, with a socket in the place of the socket, or on plaintext, with the socket itself."""
    accepted, dialled = negotiate(ends, background, offered, mode)
    assert [isinstance(side, EncryptedSocket) for side in (accepted, dialled)] == [is_rc4] * 2
    assert_talks(accepted, dialled)


@pytest.mark.parametrize("length", [0, 1, 511, 512])
def test_paddings_of_every_length_are_skipped(
    ends: tuple[socket.socket, socket.socket],
    background: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    length: int,
) -> None:
    """Their ends are found by the mark that follows."""
    monkeypatch.setattr(encryption, "_padding", lambda: secrets.token_bytes(length))
    assert_talks(*negotiate(ends, background))


@pytest.mark.parametrize("mode", ["prefer", "allow"])
def test_what_comes_with_the_first_handshake_is_not_lost(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, mode: str
) -> None:
    """The initial payload may hold messages as well: they are read before what comes from the socket."""
    ours, theirs = ends
    dialled = background.submit(dial_encrypted, theirs, HASH, EITHER, HELLO + b"messages", TIMEOUT)
    accepted, _ = open_incoming(ours, mode, serves(HASH), TIMEOUT)
    assert isinstance(accepted, EncryptedSocket)
    assert read(accepted, len(HELLO)) == HELLO
    rest = accepted.settled()
    assert rest is accepted
    dialled.result().sendall(b", and more")
    buffer = bytearray(5)
    assert rest.recvmsg_into([memoryview(buffer)]) == (5,)
    assert bytes(buffer) + read(rest, 13) == b"messages, and more"
    assert rest.is_encrypted == (mode == "prefer")
    assert (rest.settled() is ours) == (mode == "allow")
    if mode == "allow":
        assert rest.sendmsg([b"plain"]) == 5
        assert theirs.recv(5) == b"plain"


def test_nothing_readable_is_on_the_wire_with_rc4(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """The socket below sees noise."""
    _, dialled = negotiate(ends, background)
    dialled.sendall(bytes(1000))
    noise = ends[0].recv(2000)
    assert len(noise) == 1000
    assert len(set(noise)) > 200


def test_a_plain_handshake_is_told_by_its_first_bytes(ends: tuple[socket.socket, socket.socket]) -> None:
    """However slowly they come; what was read of it is given back, and not a byte more was."""
    ours, theirs = ends
    theirs.sendall(HELLO)
    for mode in ("allow", "prefer", "off"):
        sock, begun = open_incoming(ours, mode, serves(HASH), TIMEOUT)
        assert sock is ours
        assert begun == PROTOCOL
        assert ours.recv(100) == HELLO[len(PROTOCOL) :]
        theirs.sendall(HELLO)
    with pytest.raises(HandshakeError, match="does not encrypt, which is required"):
        open_incoming(ours, "require", serves(HASH), TIMEOUT)


def test_a_key_that_begins_like_a_plain_handshake_is_a_key(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in 256 begins with 19; the bytes that were looked at are part of it."""
    private = next(one for one in range(10_000, 20_000) if mse.public_key(one)[0] == 19)
    monkeypatch.setattr(secrets, "randbits", lambda _bits: private)
    assert_talks(*negotiate(ends, background))


# --- sending and receiving --------------------------------------------------------------------------------


def test_a_send_that_the_system_takes_in_part_goes_on_where_it_stopped(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """What was encrypted once is not encrypted again."""
    accepted, dialled = negotiate(ends, background)
    ends[0].settimeout(0)
    data = payload(3_000_000)
    received = background.submit(read, dialled, len(data))
    left = memoryview(data)
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[accepted.sendmsg([left[:700_001], left[700_001:]]) :]
    assert received.result() == data


def test_a_send_that_must_not_wait_goes_on_where_it_stopped(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """The flag counts with and without RC4."""
    accepted, dialled = negotiate(ends, background)
    ends[0].settimeout(None)
    data, received = payload(3_000_000), b""
    left = memoryview(data)
    while left:
        try:
            left = left[accepted.sendmsg([left], (), socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            received += read(dialled, 50_000)
    received += read(dialled, len(data) - len(received))
    assert received == data


def test_a_part_of_a_buffer_is_decrypted_in_its_place(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """What lies before and behind it stays."""
    accepted, dialled = negotiate(ends, background)
    dialled.sendall(b"new")
    buffer = bytearray(b"0123456789")
    assert accepted.recvmsg_into([memoryview(buffer)[2:8]]) == (3,)
    assert buffer == b"01new56789"


def test_hanging_up_is_seen(ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor) -> None:
    """As on any socket, and a tick without a byte decrypts nothing."""
    accepted, dialled = negotiate(ends, background)
    accepted.settimeout(0.01)
    with pytest.raises(TimeoutError):
        accepted.recv(10)
    dialled.sendall(b"bye")
    dialled.shutdown(socket.SHUT_RDWR)
    accepted.settimeout(TIMEOUT)
    assert read(accepted, 3) == b"bye"
    assert accepted.recv(10) == b""


def test_the_beginning_of_rc4_is_thrown_away() -> None:
    """The 1,025th byte on, by RFC 6229's vector for the key 0102...10."""
    stream = encryption._rc4(bytes(range(1, 17)))
    assert stream.update(bytes(16)).hex() == "bdf0324e6083dcc6d3cedd3ca8c53c16"


# --- strangers --------------------------------------------------------------------------------------------


class Stranger:
    """Dials us and knows the rules, which it may break.

    Args:
        sock: connected.
        info_hash: which torrent it speaks of.
        padding: PadA.
    """

    def __init__(self, sock: socket.socket, info_hash: bytes = HASH, padding: bytes = b"") -> None:
        self.sock = sock
        self._info_hash = info_hash
        self._private = secrets.randbits(mse.PRIVATE_KEY_BITS)
        sock.sendall(mse.public_key(self._private) + padding)

    def claim(self) -> Ciphers:
        """Wait for our key, and return the ciphers after having named the torrent."""
        self.secret = mse.shared_secret(self._private, read(self.sock, mse.KEY_LENGTH))
        keys = mse.stream_keys(self.secret, self._info_hash)
        mark = mse.mask(mse.torrent_mark(self._info_hash), self.secret)
        self.sock.sendall(mse.secret_mark(self.secret) + mark)
        return Ciphers(encryption._rc4(keys.dialler), encryption._rc4(keys.acceptor))


def accepting(
    ours: socket.socket, background: ThreadPoolExecutor, mode: str = "prefer", timeout: float = TIMEOUT
) -> Any:  # noqa: ANN401
    """Run our side in the background."""
    return background.submit(open_incoming, ours, mode, serves(HASH), timeout)


def test_a_handshake_byte_by_byte_is_accepted(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """With paddings wherever they may be."""
    ours, theirs = ends
    future = accepting(ours, background)
    ciphers = Stranger(theirs, padding=bytes(100)).claim()
    for byte in ciphers.encrypt.update(mse.encode_offer(Crypto.RC4, b"later versions", HELLO)):
        theirs.sendall(bytes([byte]))
    accepted, _ = future.result()
    assert read(accepted, len(HELLO)) == HELLO
    accepted.sendall(b"welcome")
    noise = b""
    mark = ciphers.decrypt.update(mse.VERIFICATION)
    while mark not in noise:
        noise += theirs.recv(1)
    assert ciphers.decrypt.update(read(theirs, 6 + 7)) == b"\0\0\0\2\0\0welcome"


def test_an_unknown_torrent_is_not_spoken_of(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """All that the caller gets is a key."""
    ours, theirs = ends
    future = accepting(ours, background)
    Stranger(theirs, OTHER).claim()
    with pytest.raises(HandshakeError, match="an unknown torrent, encrypted"):
        future.result()


def test_a_recorded_handshake_is_worth_nothing(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """Played again it meets another key of ours: the mark never comes, and the padding is too long."""
    ours, theirs = ends
    future = accepting(ours, background)
    stranger = Stranger(theirs)
    ciphers = stranger.claim()
    offer = ciphers.encrypt.update(mse.encode_offer(EITHER, b"", HELLO))
    theirs.sendall(offer)
    future.result()
    again, replayed = socket.socketpair()
    with again, replayed:
        future = accepting(again, background)
        replayed.sendall(mse.public_key(stranger._private) + mse.secret_mark(stranger.secret) + offer + bytes(600))
        with pytest.raises(HandshakeError, match="its encryption is not ours"):
            future.result()


def test_an_offer_with_another_key_is_refused(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """Whoever names the torrent by a mark that was seen somewhere does not have its hash."""
    ours, theirs = ends
    future = accepting(ours, background)
    Stranger(theirs).claim()
    theirs.sendall(bytes(mse.OFFER_LENGTH))
    with pytest.raises(HandshakeError, match="its encryption is not ours"):
        future.result()


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_noise_is_given_up_when_no_mark_can_come_any_more(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, mode: str
) -> None:
    """Long before the time-out, and without reading more."""
    ours, theirs = ends
    future = accepting(ours, background, mode)
    theirs.sendall(b"\x01" * 5000)
    with pytest.raises(HandshakeError, match="its encryption is not ours"):
        future.result()


def test_what_does_not_suit_us_is_refused(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor
) -> None:
    """Plaintext after the handshake, where RC4 is required."""
    ours, theirs = ends
    future = accepting(ours, background, "require")
    ciphers = Stranger(theirs).claim()
    theirs.sendall(ciphers.encrypt.update(mse.encode_offer(Crypto.PLAINTEXT, b"", HELLO)))
    with pytest.raises(HandshakeError, match="no encryption that we accept"):
        future.result()


def test_noise_is_refused_at_once_where_encryption_is_off(ends: tuple[socket.socket, socket.socket]) -> None:
    """By its first byte."""
    ours, theirs = ends
    theirs.sendall(b"\x01")
    with pytest.raises(HandshakeError, match="not a BitTorrent handshake"):
        open_incoming(ours, "off", serves(HASH), TIMEOUT)


@pytest.mark.parametrize("said", [b"", b"\x13BitTor", b"\x01" * 50, b"\x01" * 100])
def test_who_says_nothing_more_is_given_up_in_time(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, said: bytes
) -> None:
    """One deadline for all of it, at whatever point."""
    ours, theirs = ends
    theirs.sendall(said)
    with pytest.raises(TimeoutError):
        accepting(ours, background, timeout=0.05).result()


@pytest.mark.parametrize("said", [b"", b"\x13BitTor", b"\x01" * 50, b"\x01" * 100])
def test_who_hangs_up_is_gone(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, said: bytes
) -> None:
    """At whatever point."""
    ours, theirs = ends
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerDisconnected, match="closed the connection"):
        accepting(ours, background).result()


@pytest.mark.parametrize("answer", [bytes(96), b"\x01" * 96 + b"\x02" * 600, HELLO * 20])
def test_a_peer_that_answers_nonsense_is_no_peer(
    ends: tuple[socket.socket, socket.socket], background: ThreadPoolExecutor, answer: bytes
) -> None:
    """A bad key, no mark where it should be, or a plain handshake."""
    ours, theirs = ends
    theirs.sendall(answer)
    with pytest.raises(HandshakeError):
        dial_encrypted(ours, HASH, EITHER, HELLO, TIMEOUT)


# --- what it costs those who do not use it ----------------------------------------------------------------


def test_the_package_is_not_loaded_before_it_is_needed() -> None:
    """A plain download does not pay for it."""
    program = (
        "import sys, torrent_client.cli.get, torrent_client.cli.arguments\n"
        "sys.exit(any(name in sys.modules for name in ('cryptography', 'socks')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
