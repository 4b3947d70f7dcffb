"""The sending half of a peer connection: a thread, and the outbox that feeds it.

    any thread --send()--------> |  messages, joined    |
    reader     --upload()------> |  blocks asked of us  |--> writer thread --sendmsg--> socket
    reader     --cancel()-- - -> |  (one less)          |

Nobody waits for the writer or for the peer: two honest peers that upload to each other with deep
pipelines fill both socket buffers, and if their readers waited to send, both would wait for ever. Messages go out
before blocks.

To wake a thread takes longer than to send a few requests. So when the writer has nothing to do, who has encoded
messages for the peer sends them himself, as far as the system takes them at once; the rest is the writer's.

Spec: BEP 3 (keep-alive, choking drops what was asked), BEP 6 (reject, allowed fast).
Thread: `_run` is the writer thread; every method may be called from any thread and returns at once.
Lock: `_wake` (a Condition), a leaf, around the outbox; reading and sending happen outside. One thread sends at a time:
the writer, or, while that is idle, the one that has set `_is_sending`.
"""

import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Condition, Thread

from torrent_client.config import Config
from torrent_client.encryption import PeerSocket
from torrent_client.errors import PeerDisconnected, TorrentError
from torrent_client.protocol.messages import (
    Choke,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Reject,
    Request,
    Unchoke,
    piece_header,
)
from torrent_client.rate_limiter import RateLimiter
from torrent_client.trace import StreamTrace

logger = logging.getLogger(__name__)

BUFFERS_AT_ONCE = 1024
"""Buffers in one `sendmsg`: Linux's IOV_MAX, and more is an error. While a peer reads slowly, thousands of `have`
can gather."""


MAX_OUTBOX = 50_000
"""Queued messages above which a peer is dropped: it makes us answer and does not read. A fast download
of 100,000 pieces queues a few hundred `have` between two wake-ups."""


class PeerWriter:
    """Sends everything that one peer gets after the handshake.

    Args:
        sock: connected and blocking, with a send time-out.
        read_block: returns the bytes of a request; raises StorageError.
        on_failure: called once, from the writer thread, when sending is no longer possible.
        config: keep-alive interval and limits.
        limiter: bytes per second of blocks; messages are never held up.
        fast: both sides speak the Fast extension: requests that are not answered are rejected (BEP 6).
        trace: is told what is sent.
    """

    def __init__(
        self,
        sock: PeerSocket,
        read_block: Callable[[Request], bytes],
        on_failure: Callable[[str], None],
        config: Config,
        limiter: RateLimiter | None = None,
        *,
        fast: bool = False,
        trace: StreamTrace | None = None,
    ) -> None:
        """Begin with an empty outbox; `start` begins to send."""
        self._sock = sock
        self._read_block = read_block
        self._config = config
        self._limiter = limiter or RateLimiter()
        self._fast = fast
        self._trace = trace
        self.allowed_fast: dict[int, int] = {}  # pieces served even while the peer is choked: bytes left of each
        self._wake = Condition()
        self._messages: list[bytes] = []
        # A set in order: cancelling is one look-up. A `dict` would keep holes where blocks are taken, at its beginning.
        self._uploads: OrderedDict[Request, None] = OrderedDict()
        self._next_uploads: list[Request] = []  # those that were booked together
        self._is_idle = False  # the writer waits
        self._is_sending = False  # another thread sends meanwhile
        self._closed = False
        self._overflow = False
        self.am_choking = True
        self.am_interested = False
        self.uploaded = 0  # bytes of blocks sent
        self._booked = 0  # bytes that the rate limiter has granted for the next blocks
        self._uploads_from = 0.0  # when they may go out
        # The thread alone keeps `on_failure`: in an attribute it would close a reference cycle with its connection,
        # whose buffers would stay until somebody looks for garbage.
        self._thread = Thread(target=self._run, args=(on_failure,), name="peer-writer", daemon=True)

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def send_message(self, message: Message) -> None:
        """Queue one message, unless it would only repeat what the peer knows of our side's flags.

        The flags change under the same lock as the outbox, so that the last message in it always says
        what they are.
        """
        with self._wake:
            if self._changes_flags(message):
                self._put(message.encode())
            if self.am_choking and self._uploads:
                self._drop_uploads()

    def send(self, data: bytes) -> None:
        """Send whole messages that are encoded already: at once, or queue them while somebody else is sending."""
        with self._wake:
            at_once = self._is_idle and not (self._messages or self._is_sending or self._closed or self._trace)
            if at_once:
                self._is_sending = True
            else:
                self._put(data)
        if at_once:
            self._send_at_once(data)

    def upload(self, *requests: Request) -> int:
        """Queue blocks that the peer asked for; return how many are queued now."""
        with self._wake:
            for request in requests:  # one by one: `OrderedDict.update` takes six times as long
                self._uploads[request] = None
            self._wake.notify()
            return len(self._uploads)

    def cancel(self, request: Request) -> None:
        """Take a queued block back, if it is not on its way yet."""
        with self._wake:
            if request in self._uploads:
                self._drop_upload(request)

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent, blocks not among them."""
        return len(self._messages)

    def close(self) -> None:
        """Let the writer thread end; the socket is shut down by the connection."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        """Wait until nobody sends any more; the connection's reader does so last of all, when it has closed us."""
        if self._thread.is_alive():
            self._thread.join()
        with self._wake:
            self._wake.wait_for(lambda: not self._is_sending)

    # --- under the lock --------------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        if len(self._messages) >= MAX_OUTBOX:
            self._overflow = True  # the writer thread ends the connection
            return
        self._messages.append(data)
        self._wake.notify()

    def _drop_uploads(self) -> None:
        """Forget what a choked peer has asked for (BEP 3), but for the pieces it may always have (BEP 6)."""
        for request in [one for one in self._uploads if one.piece_index not in self.allowed_fast]:
            self._drop_upload(request)

    def _drop_upload(self, request: Request) -> None:
        del self._uploads[request]
        if self._fast:
            self._put(Reject(*request).encode())

    def _changes_flags(self, message: Message) -> bool:
        """Keep our side's flags; tell whether the message says anything new."""
        match message:
            case Choke() | Unchoke():
                before, self.am_choking = self.am_choking, isinstance(message, Choke)
                return before != self.am_choking
            case Interested() | NotInterested():
                before, self.am_interested = self.am_interested, isinstance(message, Interested)
                return before != self.am_interested
            case _:
                return True

    # --- the writer thread ---------------------------------------------------------------------------

    def _run(self, on_failure: Callable[[str], None]) -> None:
        reason = "closed"
        try:
            while True:
                self._book_uploads()
                work = self._next()
                if work is None:
                    break
                messages, requests = work
                self._send_all([*messages, *self._blocks(requests)] if requests else messages)
                self.uploaded += _total(requests)
        except (OSError, TorrentError) as error:
            reason = str(error)
        except Exception as error:
            logger.exception("a writer thread failed")
            reason = repr(error)
        self._limiter.give_back(self._booked)
        if not self._closed:
            on_failure(reason)

    def _book_uploads(self) -> None:
        """Book the next blocks with the rate limiter; give back what was booked for blocks since cancelled."""
        with self._wake:
            self._next_uploads = self._choose_uploads()
            wanted = _total(self._next_uploads)
            before, self._booked = self._booked, wanted
        if wanted > before:
            self._uploads_from = time.monotonic() + self._limiter.book(wanted - before)
        elif wanted < before:
            self._limiter.give_back(before - wanted)

    def _next(self) -> tuple[list[bytes], list[Request]] | None:
        """Wait for something to send; a keep-alive when nothing came for long; None at the end."""
        with self._wake:
            upload_wait = self._uploads_from - time.monotonic() if self._booked else self._config.keep_alive_interval
            self._is_idle = True
            has_work = self._wake.wait_for(self._has_work, max(0.0, upload_wait))
            self._is_idle = False
            if self._closed:
                return None
            if self._is_sending:
                return [], []  # time is up, but another thread may be in the middle of a message
            if not has_work and not self._booked:
                return [KeepAlive().encode()], []
            messages, self._messages = self._messages, []
            requests = []
            if self._booked and time.monotonic() >= self._uploads_from:
                requests = [request for request in self._next_uploads if request in self._uploads]
                for request in requests:
                    del self._uploads[request]
                self._booked = 0
            return messages, requests

    def _has_work(self) -> bool:
        """Tell whether to stop waiting: for blocks only when none are booked yet."""
        has_something = self._messages or (self._uploads and not self._booked)
        return self._closed or bool(has_something and not self._is_sending)

    def _choose_uploads(self) -> list[Request]:
        """Return the blocks that go out together next, oldest first."""
        if not self._uploads:
            return []
        room = self._limiter.quantum()
        requests: list[Request] = []
        for request in self._uploads:
            room -= request.length
            if requests and room < 0:
                break
            requests.append(request)
        return requests

    def _blocks(self, requests: Sequence[Request]) -> list[bytes | memoryview]:
        """Read the blocks asked for, each with its header before it; neighbours with one read."""
        buffers: list[bytes | memoryview] = []
        for run in _neighbours(requests):
            index, first, _ = run[0]
            data = memoryview(self._read_block(Request(index, first, _total(run))))
            for _, begin, length in run:
                buffers.append(piece_header(index, begin, length))
                buffers.append(data[begin - first : begin - first + length])
        return buffers

    def _send_at_once(self, data: bytes) -> None:
        """Send what the system takes without waiting, and leave the rest to the writer."""
        sent = 0
        try:
            sent = self._sock.sendmsg([data], (), socket.MSG_DONTWAIT)
        except OSError:  # nothing was sent: the buffer is full, or the writer will see why
            pass
        finally:
            with self._wake:
                self._is_sending = False
                if sent < len(data):
                    self._messages.insert(0, data[sent:])
                if self._has_work():
                    self._wake.notify()

    def _send_all(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send buffers, in one system call if the kernel takes them all."""
        if self._trace:
            self._trace.sent(*buffers)
        last_progress = time.monotonic()
        while buffers:
            if self._overflow:  # whether it reads nothing or a byte now and then
                raise PeerDisconnected("it makes us answer faster than it reads")
            try:
                sent = self._sock.sendmsg(buffers[:BUFFERS_AT_ONCE])
            except BlockingIOError as error:  # the send time-out: a moment to look whether to stop
                if self._closed:
                    return
                if time.monotonic() - last_progress > self._config.idle_timeout:
                    raise PeerDisconnected("it reads nothing any more") from error
                continue
            last_progress = time.monotonic()
            buffers = _rest(buffers, sent)


def _total(requests: Sequence[Request]) -> int:
    """Return the bytes of blocks."""
    return sum([length for _, _, length in requests])


def _rest(buffers: Sequence[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """Return what is left of buffers of which the first `sent` bytes are gone."""
    for place, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[place + 1 :]]
        sent -= len(buffer)
    return []


def _neighbours(requests: Sequence[Request]) -> list[list[Request]]:
    """Gather requests that ask for one stretch of a piece, in their order."""
    runs: list[list[Request]] = []
    after = None
    for request in requests:
        index, begin, length = request
        if (index, begin) == after:
            runs[-1].append(request)
        else:
            runs.append([request])
        after = (index, begin + length)
    return runs
