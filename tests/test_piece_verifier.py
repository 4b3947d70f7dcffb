"""Who writes good pieces: one thread at a time, and nobody waits for it without need."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path

import pytest

from tests.support import payload, wait_until
from torrent_client import piece_verifier
from torrent_client.active_piece import ActivePiece
from torrent_client.config import Config
from torrent_client.errors import StorageError, TorrentError
from torrent_client.piece_manager import PieceManager
from torrent_client.piece_table import PieceState
from torrent_client.piece_verifier import PieceVerifier, VerifierCallbacks
from torrent_client.protocol.messages import Piece
from torrent_client.storage import Storage

PIECE = 1000
COUNT = 200
DATA = payload(PIECE * COUNT)
BACKLOG = 4


class Disk(Storage):
    """Takes pieces when it is told to, and notes which thread brought them; some it cannot write."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), (), PIECE)
        self.lets_write = threading.Event()
        self.lets_write.set()
        self.broken: set[int] = set()
        self.written: list[tuple[str, int]] = []
        self.writing: Counter[int] = Counter()

    def write_piece(self, index: int, data: memoryview | bytes) -> None:
        """Wait for permission."""
        self.writing[index] += 1
        assert sum(self.writing.values()) == 1, "two threads write"
        assert self.lets_write.wait(10)
        assert bytes(data) == DATA[index * PIECE : (index + 1) * PIECE]
        if index not in self.broken:
            self.written.append((threading.current_thread().name, index))
        self.writing.clear()
        if index in self.broken:
            raise StorageError("broken")


class Lab:
    """A verifier, its disk, and all pieces of a torrent, full."""

    def __init__(self) -> None:
        hashes = b"".join(sha1(DATA[begin : begin + PIECE]).digest() for begin in range(0, len(DATA), PIECE))
        self.manager = PieceManager(hashes, PIECE, len(DATA), Config(max_queue_depth=COUNT), random.Random(1))
        self.disk = Disk()
        self.decided: list[int | None] = []
        self.errors: list[TorrentError] = []
        self.lasts: list[None] = []
        callbacks = VerifierCallbacks(
            self.decided.append, lambda _who, _why: None, lambda: self.lasts.append(None), self.errors.append
        )
        self.verifier = PieceVerifier(self.manager, self.disk, callbacks, BACKLOG)
        self.manager.add_peer("a")
        self.manager.peer_has_all("a", (1 << COUNT) - 1)
        self.full: list[ActivePiece] = []
        while len(self.full) < COUNT:
            for index, begin, _ in self.manager.next_requests("a", COUNT, 0.0):
                block = Piece(index, begin, memoryview(DATA)[index * PIECE : (index + 1) * PIECE])
                self.full += self.manager.receive_blocks("a", [block], 0.0).full

    @contextmanager
    def in_thread(self, *pieces: ActivePiece) -> Iterator[threading.Thread]:
        """Let another thread verify pieces meanwhile."""
        thread = threading.Thread(target=lambda: [self.verifier.verify(piece) for piece in pieces])
        thread.start()
        try:
            yield thread
        finally:
            self.disk.lets_write.set()
            thread.join(10)
            assert not thread.is_alive()

    def is_complete(self, piece: ActivePiece) -> bool:
        """Tell whether a piece is."""
        return self.manager.has_piece(piece.index)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Return a laboratory whose verifier is ended at the end."""
    lab = Lab()
    yield lab
    lab.verifier.finish()


class Pen:
    """The pen, with something to be done just before it is put down for the first time; notes who waits for it."""

    def __init__(self, before_release: Callable[[], object] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._before_release = before_release
        self.asked: list[bool] = []

    def acquire(self, *, blocking: bool) -> bool:
        """Take it, or not."""
        self.asked.append(blocking)
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        """Put it down."""
        before, self._before_release = self._before_release, lambda: None
        before()
        self._lock.release()


def test_a_piece_is_left_to_the_thread_that_writes(lab: Lab) -> None:
    """Who brings it returns at once, and that thread writes both."""
    first, second, *_ = lab.full
    lab.disk.lets_write.clear()
    with lab.in_thread(first) as writer:
        wait_until(lambda: bool(lab.disk.writing))
        lab.verifier.verify(second)
        assert not lab.is_complete(second)
    assert lab.disk.written == [(writer.name, first.index), (writer.name, second.index)]
    assert lab.decided == [first.index, second.index]


def test_when_many_pieces_wait_the_next_one_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is slow, and to receive more would only fill the memory."""
    pen = Pen()
    monkeypatch.setattr(lab.verifier, "_pen", pen)
    first, *others = lab.full[: BACKLOG + 2]
    lab.disk.lets_write.clear()
    with lab.in_thread(first):
        wait_until(lambda: bool(lab.disk.writing))
        for piece in others[:-1]:
            lab.verifier.verify(piece)
        assert pen.asked == [False] * (1 + BACKLOG)
        with lab.in_thread(others[-1]):
            wait_until(lambda: pen.asked[-1])
            assert not lab.disk.written
    assert all(map(lab.is_complete, [first, *others]))


def test_a_piece_that_comes_while_the_pen_is_put_down_is_not_left_behind(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who brings it finds the pen still taken; the one who had it looks again."""
    first, late, *_ = lab.full
    monkeypatch.setattr(lab.verifier, "_pen", Pen(lambda: lab.verifier.verify(late)))
    lab.verifier.verify(first)
    assert lab.is_complete(late)


def test_a_piece_that_cannot_be_written_is_lost_alone(lab: Lab) -> None:
    """Those that wait behind it are written, and its error is told."""
    first, broken, last, *_ = lab.full
    lab.disk.broken = {broken.index}
    lab.disk.lets_write.clear()
    with lab.in_thread(first):
        wait_until(lambda: bool(lab.disk.writing))
        lab.verifier.verify(broken)
        lab.verifier.verify(last)
    assert [index for _, index in lab.disk.written] == [first.index, last.index]
    assert [str(error) for error in lab.errors] == ["broken"]
    assert lab.manager.states()[broken.index] == PieceState.MISSING


def test_pieces_of_many_threads_are_all_written_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they come, and the last one is told of."""
    monkeypatch.setattr(piece_verifier, "SMALL_PIECE", 0)  # with one busy peer the verifier's thread takes part, too
    threads = [
        threading.Thread(target=lambda part: [lab.verifier.verify(piece) for piece in part], args=(lab.full[begin::8],))
        for begin in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lab.verifier.finish()
    assert sorted(index for _, index in lab.disk.written) == list(range(COUNT))
    assert lab.manager.is_complete
    assert len(lab.lasts) == 1
