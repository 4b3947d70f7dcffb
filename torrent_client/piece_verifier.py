"""What becomes of a full piece: hashed, written, marked complete; or thrown away, and somebody is to blame.

    full piece -> the peer's own worker, or the verifier thread where one peer sends all
                    |
                  SHA-1 --- good --> who has the pen: Storage --> COMPLETE --> `have` to the swarm, smart ban
                    +------ bad ---> MISSING --> the only supplier is banned, several go on parole

Hashing and writing release the GIL: workers of several peers use all processors while each verifies what it has
just received, which its processor's cache still holds; to hand it over would cost more (5 % of the CPU time with four
peers). One more thread lets a single fast peer use two processors. When pieces wait for it, the worker that brought the
next one verifies it itself: that slows the peer down, and keeps the memory small, without a queue to tune.

One thread at a time writes, the one that has the *pen*. Of two that write to one file the system lets one go ahead, and
the other one burns its processor while it waits. So who finds the pen taken leaves its piece to whoever has it and
goes on receiving; only when many pieces lie there does it wait, for then the disk is what is slow.

Spec: BEP 3 (pieces); the guide's Tasks 9, 12 and 15.
Thread: `verifier`, and peers' workers.
Lock: `_pen`, no guard of data but a turn: held while pieces are written and made COMPLETE. The parts have theirs.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock
from typing import NamedTuple

from torrent_client.active_piece import ActivePiece
from torrent_client.block_source import BlockSource
from torrent_client.config import KIB
from torrent_client.errors import StorageError, TorrentError
from torrent_client.piece_manager import PieceManager
from torrent_client.smart_ban import SmartBan, SourceAddress
from torrent_client.storage import Storage
from torrent_client.text import counted

logger = logging.getLogger(__name__)


SMALL_PIECE = 64 * KIB
"""Bytes of a piece that its peer's own worker verifies at once: to wake another thread takes longer than to hash it.
Measured with 20,000 pieces of 16 KiB."""


class VerifierCallbacks(NamedTuple):
    """What the owner does about pieces.

    `decided` follows every piece with its index, or None if it was bad; `ban` takes addresses and a reason;
    `last` follows the last wanted piece; `failed` follows an error after which nothing can be kept.
    """

    decided: Callable[[int | None], None]
    ban: Callable[[Iterable[SourceAddress], str], None]
    last: Callable[[], None]
    failed: Callable[[TorrentError], None]


class PieceVerifier:
    """Verifies and keeps full pieces.

    Args:
        pieces: the truth about pieces.
        storage: where good ones go.
        callbacks: what to do about them.
        backlog: pieces that may wait for the thread, and good ones that may wait for the pen.
    """

    def __init__(self, pieces: PieceManager, storage: Storage, callbacks: VerifierCallbacks, backlog: int) -> None:
        """Begin with nothing to verify."""
        self._pieces = pieces
        self._storage = storage
        self._callbacks = callbacks
        self._smart_ban = SmartBan()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._backlog = backlog
        self._room = BoundedSemaphore(backlog)
        self._good: deque[ActivePiece] = deque()  # to be written
        self._pen = Lock()

    def verify(self, piece: ActivePiece) -> None:
        """Verify a full piece here and now, or hand it to the thread, if a single busy peer would wait for it."""
        is_thread_of_use = self._pieces.busy_peers < 2 and piece.length > SMALL_PIECE
        if is_thread_of_use and self._room.acquire(blocking=False):
            future = self._thread.submit(self._verify, piece)
            future.add_done_callback(lambda _: self._room.release())
        else:
            self._verify(piece)

    def finish(self) -> None:
        """Wait until everything is verified, and end the thread."""
        self._thread.shutdown(wait=True)

    def _verify(self, piece: ActivePiece) -> None:
        """See to one piece; the error boundary of all that can go wrong with it."""
        try:
            if self._pieces.verify_piece(piece.index, piece.data):
                self._good.append(piece)
                self._write()
            else:
                self._reject(piece)
        except Exception as error:
            logger.exception("a verifier failed")
            self._callbacks.failed(TorrentError(f"internal error: {error!r}; -v with --log-file FILE tells more"))

    def _write(self) -> None:
        """Keep good pieces, one after the other, or leave it to the thread that is at it.

        That one looks again after it has put the pen down, so that no piece is left behind.
        """
        while self._good:
            if not self._pen.acquire(blocking=len(self._good) > self._backlog):
                return
            try:
                while self._good:
                    self._keep(self._good.popleft())
            finally:
                self._pen.release()

    def _keep(self, piece: ActivePiece) -> None:
        """Write a good piece; ban those who, as is clear now, sent bad blocks of it before."""
        try:
            self._storage.write_piece(piece.index, piece.data)
        except StorageError as error:
            self._pieces.mark_failed(piece.index, was_bad=False)
            self._callbacks.failed(error)
            return
        guilty = self._smart_ban.convict(piece.index, (block for _, block in piece.suppliers()))
        was_last = self._pieces.mark_complete(piece.index)
        if guilty:
            self._callbacks.ban(guilty, f"it sent bad blocks of piece {piece.index}")
        self._callbacks.decided(piece.index)
        if was_last:
            self._callbacks.last()

    def _reject(self, piece: ActivePiece) -> None:
        """A bad hash: ban the only supplier, or suspect all until the smart ban knows better."""
        suppliers = {source for source in piece.requesters if isinstance(source, BlockSource)}
        logger.warning("piece %d failed its hash; it came from %s", piece.index, counted(len(suppliers), "peer"))
        if len(suppliers) == 1:
            self._pieces.mark_failed(piece.index)
            addresses = {source.address for source in suppliers}
            self._callbacks.ban(addresses, f"it alone sent piece {piece.index}, which is bad")
        else:
            blocks = [(who.address, block) for who, block in piece.suppliers() if isinstance(who, BlockSource)]
            self._smart_ban.remember(piece.index, blocks)
            self._pieces.mark_failed(piece.index, suppliers)
        self._callbacks.decided(None)
