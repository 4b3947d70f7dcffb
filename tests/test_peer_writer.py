"""The sending half of a connection: order, cancelling, and peers that do not read."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.fake_peer import FakePeer
from tests.support import payload, wait_until
from torrent_client import peer_writer
from torrent_client.config import Config
from torrent_client.errors import StorageError
from torrent_client.peer_writer import PeerWriter
from torrent_client.protocol.messages import (
    Choke,
    Have,
    Interested,
    KeepAlive,
    NotInterested,
    Piece,
    Request,
    Unchoke,
)

BLOCK = 1000
A, B, C, D = (Request(index, 0, BLOCK) for index in range(4))


def block(request: Request) -> bytes:
    """Return the bytes of a request."""
    return payload(request.length, seed=request.piece_index)


def answer(request: Request) -> Piece:
    """Return the message that a request is answered with."""
    return Piece(request.piece_index, request.begin, block(request))


class Rig:
    """A writer, and the peer that it writes to.

    Attributes:
        gate: while it is clear, the writer is held where it reads a block.
        held: the writer waits at the gate.
    """

    def __init__(self) -> None:
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 20_000))
        self.near = near
        self.peer = FakePeer(far)
        self.failures: list[str] = []
        self.gate, self.held = threading.Event(), threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.writer: PeerWriter | None = None

    def start(self, config: Config | None = None) -> PeerWriter:
        """Start the writer."""
        self.writer = PeerWriter(self.near, self.read_block, self.failures.append, config or Config())
        self.writer.start()
        return self.writer

    def start_held(self) -> PeerWriter:
        """Start a writer that unchokes, and hold it in the middle of the upload of A."""
        self.gate.clear()
        writer = self.start()
        writer.send_message(Unchoke())
        assert self.peer.next_message() == Unchoke()
        writer.upload(A)
        assert self.held.wait(10)
        return writer

    def read_block(self, request: Request) -> bytes:
        """Return a block, when the gate is open."""
        self.held.set()
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        return block(request)

    def receive(self, count: int) -> list[object]:
        """Return the next messages that the peer gets."""
        return [self.peer.next_message() for _ in range(count)]

    def close(self) -> None:
        """End the writer as a connection does."""
        self.gate.set()
        if self.writer:
            self.writer.close()
            with contextlib.suppress(OSError):  # closed by the test
                self.near.shutdown(socket.SHUT_RDWR)
            self.writer.join()
        self.near.close()
        self.peer.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Return a rig that is closed at the end."""
    rig = Rig()
    yield rig
    rig.close()


# --- order ------------------------------------------------------------------------------------------------


def test_messages_arrive_in_order(rig: Rig) -> None:
    """Encoded ones and others alike."""
    writer = rig.start()
    writer.send_message(Interested())
    writer.send(A.encode() + B.encode())
    writer.send_message(Have(7))
    assert rig.receive(4) == [Interested(), A, B, Have(7)]


def test_what_waits_is_counted(rig: Rig) -> None:
    """Until the writer takes it."""
    writer = rig.start_held()
    for index in range(3):
        writer.send_message(Have(index))
    assert writer.waiting == 3
    rig.gate.set()
    wait_until(lambda: writer.waiting == 0)


def test_blocks_arrive_in_the_order_of_their_requests(rig: Rig) -> None:
    """And their bytes are counted."""
    writer = rig.start(Config())
    for request in (C, A, D, B):
        writer.upload(request)
    assert rig.receive(4) == [answer(request) for request in (C, A, D, B)]
    wait_until(lambda: writer.uploaded == 4 * BLOCK)


def test_neighbouring_blocks_are_read_together_and_sent_apart(rig: Rig) -> None:
    """One read for each stretch of a piece; the order and the bounds of the answers are those of the requests."""
    writer = rig.start_held()
    content = payload(10 * BLOCK, seed=1)
    reads: list[Request] = []

    def read(request: Request) -> bytes:
        reads.append(request)
        return content[request.begin : request.begin + request.length]

    writer._read_block = read
    requests = [Request(1, begin * BLOCK, size) for begin, size in ((2, BLOCK), (3, BLOCK), (4, 7), (5, BLOCK), (3, 9))]
    writer.upload(*requests)
    rig.gate.set()
    assert rig.receive(6)[1:] == [Piece(1, begin, content[begin : begin + size]) for _, begin, size in requests]
    assert reads == [Request(1, 2 * BLOCK, 2 * BLOCK + 7), Request(1, 5 * BLOCK, BLOCK), Request(1, 3 * BLOCK, 9)]


def test_messages_go_before_blocks(rig: Rig) -> None:
    """A `have` or a request must not wait behind megabytes of uploads."""
    writer = rig.start_held()
    writer.upload(B)
    writer.upload(C)
    writer.send_message(Have(7))
    rig.gate.set()
    assert rig.receive(4) == [answer(A), Have(7), answer(B), answer(C)]


def test_a_block_that_is_asked_for_twice_is_sent_once(rig: Rig) -> None:
    """Repeating requests does not multiply what we send."""
    writer = rig.start_held()
    assert [writer.upload(request) for request in (B, B, C, B)] == [1, 1, 2, 2]
    rig.gate.set()
    assert rig.receive(3) == [answer(A), answer(B), answer(C)]
    writer.send_message(Have(1))
    assert rig.receive(1) == [Have(1)]


def test_thousands_of_messages_are_sent(rig: Rig) -> None:
    """A slow upload holds the writer up while we complete pieces: the kernel takes 1,024 buffers a call."""
    writer = rig.start_held()
    for index in range(5000):
        writer.send_message(Have(index))
    rig.gate.set()
    assert rig.receive(5001) == [answer(A), *map(Have, range(5000))]
    assert not rig.failures


def test_large_blocks_survive_small_socket_buffers(rig: Rig) -> None:
    """Sends that the kernel takes in part go on where they stopped."""
    rig.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writer = rig.start()
    requests = [Request(index, 0, 50_000 + index) for index in range(40)]
    for request in requests:
        writer.upload(request)
    assert rig.receive(40) == [answer(request) for request in requests]


# --- flags ------------------------------------------------------------------------------------------------


def test_flags_are_told_when_they_change(rig: Rig) -> None:
    """Both begin as BEP 3 says, choking and not interested; repetition is left out."""
    writer = rig.start()
    assert (writer.am_choking, writer.am_interested) == (True, False)
    for message in (Choke(), NotInterested(), Unchoke(), Interested(), Choke(), NotInterested()):
        writer.send_message(message)
        writer.send_message(message)
    assert rig.receive(4) == [Unchoke(), Interested(), Choke(), NotInterested()]
    assert (writer.am_choking, writer.am_interested) == (True, False)


def test_choking_drops_what_was_asked(rig: Rig) -> None:
    """BEP 3: a choked peer asks again when it is unchoked."""
    writer = rig.start_held()
    writer.upload(B)
    writer.upload(C)
    writer.send_message(Choke())
    rig.gate.set()
    assert rig.receive(2) == [answer(A), Choke()]
    writer.send_message(Unchoke())
    writer.upload(D)
    assert rig.receive(2) == [Unchoke(), answer(D)]


def test_a_cancelled_block_is_not_sent(rig: Rig) -> None:
    """Unless it is on its way already; cancelling what was never asked for is nothing."""
    writer = rig.start_held()
    writer.upload(B)
    writer.upload(C)
    writer.cancel(B)
    writer.cancel(A)
    writer.cancel(D)
    rig.gate.set()
    assert rig.receive(2) == [answer(A), answer(C)]


# --- sending at once --------------------------------------------------------------------------------------


class SlowSocket(socket.socket):
    """Notes which threads send; may be held in the middle of a send, after the first bytes."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.senders: list[str] = []
        self.first = -1  # bytes that it takes before it is held; -1 for all, at once
        self.bug: Exception | None = None  # raised once
        self.held, self.gate = threading.Event(), threading.Event()

    def sendmsg(self, buffers: Iterable[bytes | memoryview], *more: Any) -> int:  # type: ignore[override] # noqa: ANN401
        """Send, or only begin to."""
        self.senders.append(threading.current_thread().name)
        bug, self.bug = self.bug, None
        if bug:
            raise bug
        if self.first < 0:
            return super().sendmsg(buffers, *more)
        first, self.first = self.first, -1
        sent = super().sendmsg([b"".join(buffers)[:first]]) if first else 0
        self.held.set()
        assert self.gate.wait(10)
        if not first:
            raise BlockingIOError
        return sent


@pytest.fixture
def slow(rig: Rig) -> SlowSocket:
    """Return the rig's socket."""
    slow = SlowSocket(rig.near)
    rig.near = slow
    return slow


def idle(writer: PeerWriter) -> PeerWriter:
    """Return the writer when it waits for something to do."""
    wait_until(lambda: writer._is_idle)
    return writer


def test_while_the_writer_is_idle_encoded_messages_are_sent_by_who_has_them(rig: Rig, slow: SlowSocket) -> None:
    """To wake the writer would take longer than to send them."""
    writer = idle(rig.start())
    writer.send(A.encode() + B.encode())
    assert slow.senders == [threading.current_thread().name]
    assert rig.receive(2) == [A, B]


def test_while_the_writer_is_at_work_encoded_messages_wait_for_it(rig: Rig) -> None:
    """One thread sends at a time."""
    writer = rig.start_held()
    writer.send(B.encode())
    assert writer.waiting == 1
    rig.gate.set()
    assert rig.receive(2) == [answer(A), B]


@pytest.mark.parametrize("taken", [0, 5])
def test_what_the_system_does_not_take_at_once_is_sent_first_by_the_writer(
    rig: Rig, slow: SlowSocket, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Before what others queue meanwhile, and before a keep-alive, which would stand in the middle of a message."""
    writer = idle(rig.start(Config(keep_alive_interval=0.02)))
    slow.first = taken
    sender = threading.Thread(target=writer.send, args=(A.encode(),))
    sender.start()
    assert slow.held.wait(10)
    writer.send(B.encode())
    writer.send_message(Interested())
    looks: list[bool] = []
    has_work = writer._has_work
    monkeypatch.setattr(writer, "_has_work", lambda: looks.append(has_work()) or looks[-1])
    wait_until(lambda: len(looks) > 10)  # it is time for a keep-alive, again and again
    assert not any(looks)
    assert writer.waiting == 2
    slow.gate.set()
    sender.join(10)
    messages = iter(rig.peer.next_message, Interested())
    assert [message for message in messages if message != KeepAlive()] == [A, B]


def test_a_large_batch_reaches_a_peer_that_reads_late(rig: Rig) -> None:
    """Whatever part of it the socket's buffer takes."""
    writer = idle(rig.start())
    haves = [Have(index) for index in range(100_000)]
    writer.send(b"".join(have.encode() for have in haves))
    assert rig.receive(len(haves)) == haves


def test_the_end_waits_for_whoever_is_sending(rig: Rig, slow: SlowSocket) -> None:
    """The socket is closed after that: its number may be another one's a moment later."""
    writer = idle(rig.start())
    slow.first = 5
    sender = threading.Thread(target=writer.send, args=(A.encode(),))
    sender.start()
    assert slow.held.wait(10)
    writer.close()
    ended = threading.Thread(target=writer.join)
    ended.start()
    writer._thread.join(10)
    assert ended.is_alive()
    slow.gate.set()
    ended.join(10)
    sender.join(10)
    assert not ended.is_alive()
    writer.send(B.encode())
    assert len(slow.senders) == 1


def test_a_bug_while_sending_does_not_hold_up_the_end(rig: Rig, slow: SlowSocket) -> None:
    """However a turn ends, the next one may send; else `join` would wait for ever."""
    writer = idle(rig.start())
    slow.bug = ZeroDivisionError("oops")
    with pytest.raises(ZeroDivisionError):
        writer.send(A.encode())
    assert rig.receive(1) == [A]  # from the writer's thread


# --- waiting ----------------------------------------------------------------------------------------------


def test_silence_is_broken_by_keep_alives(rig: Rig) -> None:
    """Nothing to say for long: four zero bytes, again and again; what there is to say takes their place."""
    writer = rig.start(Config(keep_alive_interval=0.05))
    assert rig.receive(2) == [KeepAlive(), KeepAlive()]
    writer.send_message(Interested())
    assert Interested() in rig.receive(3)


# --- peers that do not read, and other ends ---------------------------------------------------------------


def test_a_peer_that_reads_nothing_is_given_up(rig: Rig) -> None:
    """After the idle time-out, told once: what it owes us goes to others."""
    writer = rig.start(Config(idle_timeout=0.2))
    for index in range(50):
        writer.upload(Request(index, 0, 100_000))
    wait_until(lambda: bool(rig.failures))
    assert rig.failures == ["it reads nothing any more"]


def test_a_peer_that_reads_slowly_is_not_given_up(rig: Rig) -> None:
    """Any progress counts: five times the time-out passes in all."""
    rig.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writer = rig.start(Config(idle_timeout=0.2))
    request = Request(0, 0, 100_000)
    writer.upload(request)
    data = b""
    while len(data) < 13 + request.length:
        time.sleep(0.1)  # the slow peer itself
        data += rig.peer.sock.recv(10_000)
    assert data == answer(request).encode()
    assert not rig.failures


class TrickleReader:
    """A socket whose peer reads one byte at a time, while more and more is to be said to it."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self.writer = PeerWriter(self, block, self.failures.append, Config())  # type: ignore[arg-type]

    def sendmsg(self, _buffers: list[memoryview]) -> int:
        """Take one byte; end the test after many."""
        self.calls += 1
        self.writer.send(Have(1).encode())
        if self.calls > 1000:
            self.writer.close()
            raise BlockingIOError
        return 1


def test_a_peer_that_makes_us_talk_and_reads_in_a_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its progress, a byte now and then, is no excuse when messages had to be left out."""
    monkeypatch.setattr(peer_writer, "MAX_OUTBOX", 10)
    trickle = TrickleReader()
    trickle.writer.send(Have(0).encode())
    trickle.writer._run(trickle.failures.append)
    assert trickle.failures == ["it makes us answer faster than it reads"]
    assert trickle.calls < 50


def test_closing_wakes_a_writer_that_is_stuck(rig: Rig) -> None:
    """The connection's `shutdown` ends a send that waits for the peer; nobody is told of a failure."""
    writer = rig.start()
    for index in range(50):
        writer.upload(Request(index, 0, 100_000))
    wait_until(lambda: len(writer._uploads) < 50)
    begin = time.monotonic()
    rig.close()
    assert time.monotonic() - begin < 1
    assert not rig.failures


def test_a_peer_that_has_gone_is_told_of_once(rig: Rig) -> None:
    """By the first send that fails."""
    writer = rig.start()
    rig.peer.close()
    writer.send_message(Interested())
    wait_until(lambda: bool(rig.failures))
    writer.send_message(Have(1))
    assert len(rig.failures) == 1


def test_a_disk_that_fails_ends_the_connection(rig: Rig) -> None:
    """With the disk's reason."""
    rig.error = StorageError("cannot read x: the disk reports an error")
    rig.start().upload(A)
    wait_until(lambda: bool(rig.failures))
    assert rig.failures == ["cannot read x: the disk reports an error"]


def test_a_bug_in_the_writer_is_logged_and_ends_the_connection(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """With a traceback: it does not die silently."""
    rig.error = ZeroDivisionError("oops")
    rig.start().upload(A)
    wait_until(lambda: bool(rig.failures))
    assert rig.failures == ["ZeroDivisionError('oops')"]
    assert "Traceback" in caplog.text


def test_a_writer_that_never_started_can_be_joined() -> None:
    """A connection that fails early has one."""
    near, far = socket.socketpair()
    with near, far:
        writer = PeerWriter(near, block, print, Config())
        writer.close()
        writer.join()
