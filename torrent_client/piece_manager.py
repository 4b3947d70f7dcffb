"""The one truth about pieces: what we have, what is under way, who has what, what to ask for next.

    MISSING --get_next_piece--> DOWNLOADING --last block--> VERIFYING --mark_complete--> COMPLETE
       ^                             |                          |
       +------- nothing left of it --+-------- mark_failed -----+        (bad hash, or not written)

A piece is in exactly one state; `check_invariants` says what else always holds. Readers of many peers
call in at once: `next_requests` to learn what to ask for, `receive_blocks` with what came. The reader
that brings the last block of a piece gets the piece back, and its verifier hashes and writes it outside
the lock before it calls `mark_complete`.

Pieces that are not wanted (no file that the user chose has bytes in them) are never begun, and do not
make a peer interesting; one that was begun before that may still come. The download is *done* when every
wanted piece is COMPLETE, and *complete* when every piece is.

Called by `conversation` (what peers have, and what to ask them for), `piece_verifier` (good or bad), and
`download_manager`, which makes it.

This module is the door: it has the lock, and each of its methods is a few lines. Behind it are

    piece_table     the state of every piece, sets and sums        "which pieces do we lack?"
    request_book    peers, pieces under way, blocks in flight      "who was asked for this block?"
    block_picker    the order in which blocks are asked for        "what shall this peer send next?"
    piece_picker    rarest first                                   "which piece is begun next?"

Spec: BEP 3 (rarest first, end game); the guide's Tasks 9 and 10.
Thread: any; peers' readers, verifiers, housekeeping, the display.
Lock: `_lock`, a leaf, held for memory operations alone: no I/O, no hashing, no other lock.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha1
from random import Random
from threading import Lock

from torrent_client.active_piece import PeerKey
from torrent_client.bitfield import Bitfield
from torrent_client.block_picker import BlockPicker
from torrent_client.config import Config
from torrent_client.piece_picker import PiecePicker, WantedPieces
from torrent_client.piece_table import PieceHashes, PieceTable, WantedProgress
from torrent_client.protocol.messages import Piece, Request
from torrent_client.protocol.scatter import BlockRun
from torrent_client.request_book import UNKNOWN_LATENCY, PeerRecord, Received, RequestBook


class PieceManager:
    """Tracks every piece of one torrent and decides what each peer is asked for.

    Args:
        hashes: SHA-1 of each piece, 20 bytes each, in one string.
        piece_length: bytes of every piece but the last.
        total_length: bytes of the torrent.
        config: limits.
        rng: source of random ties; a seeded one makes a run repeatable.
        sequential: pick pieces in order instead of rarest first.
        wanted: which pieces to get and in which order; None for all.
    """

    def __init__(
        self,
        hashes: bytes,
        piece_length: int,
        total_length: int,
        config: Config,
        rng: Random,
        *,
        sequential: bool = False,
        wanted: WantedPieces | None = None,
    ) -> None:
        """Begin with every piece MISSING."""
        self._lock = Lock()
        self.hashes = PieceHashes(hashes)
        self.piece_count = len(self.hashes)
        self.piece_length = piece_length
        self.total_length = total_length
        wanted = wanted or WantedPieces.all_of(self.piece_count)
        self._table = PieceTable(self.piece_count, piece_length, total_length, wanted)
        self._book = RequestBook(self._table)
        self._piece_picker = PiecePicker(
            self.piece_count, rng, random_first=config.random_first_pieces, sequential=sequential
        )
        self._piece_picker.levels = wanted.levels
        self._block_picker = BlockPicker(self._table, self._book, self._piece_picker, config, sequential=sequential)
        self.hash_failures = 0  # written under the lock

    # --- pieces ----------------------------------------------------------------------------------

    def piece_size(self, index: int) -> int:
        """Return the bytes of piece `index`; the last one may be shorter than the others."""
        return self._table.piece_size(index)

    def set_wanted(self, wanted: WantedPieces) -> None:
        """Say which pieces are wanted and in which order, now or while the download runs."""
        with self._lock:
            self._table.set_wanted(wanted)
            self._piece_picker.levels = wanted.levels

    def get_next_piece(self, peer: PeerKey) -> int | None:
        """Choose a MISSING piece that is wanted and that `peer` has, make it DOWNLOADING and the peer its owner.

        Returns:
            The index, or None when the peer has no such piece, or the memory budget is used up.
        """
        with self._lock:
            piece = self._block_picker.begin_piece(self._book.peers[peer])
            return piece.index if piece else None

    def verify_piece(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Tell whether `data` is piece `index`: its SHA-1 equals the torrent's. Takes no lock."""
        return sha1(data).digest() == self.hashes[index]

    def mark_complete(self, index: int) -> bool:
        """Make a piece that is verified and on disk COMPLETE; tell whether it was the last wanted one lacking.

        A piece found on disk at the start goes from MISSING to COMPLETE directly.
        """
        with self._lock:
            self._book.finish(index)
            return self._table.complete(index)

    def mark_failed(self, index: int, suspects: Iterable[PeerKey] = (), *, was_bad: bool = True) -> None:
        """Make a piece MISSING again, because its hash was wrong or it could not be written.

        Args:
            index: a piece in state VERIFYING.
            suspects: peers to put on parole: until one of their pieces passes, they get pieces of
                their own that nobody else helps with.
            was_bad: its hash was wrong, so that its bytes were wasted.
        """
        with self._lock:
            if was_bad:
                self.hash_failures += 1
                self._book.wasted_bytes += self.piece_size(index)
            self._book.abandon(self._book.active[index])
            for key in suspects:
                if key in self._book.peers:
                    self._book.peers[key].on_parole = True

    def mark_missing(self, index: int) -> None:
        """Make a COMPLETE piece MISSING again, because it is no longer on disk."""
        with self._lock:
            self._table.lose(index)

    # --- peers -----------------------------------------------------------------------------------

    def add_peer(self, peer: PeerKey, *, prefers_runs: bool = False) -> None:
        """Take note of a new peer, which has nothing yet.

        Args:
            peer: the key under which it is spoken of from now on.
            prefers_runs: of equally good pieces ask it for neighbours, from the first one on.
        """
        with self._lock:
            self._book.peers[peer] = PeerRecord(peer, prefers_runs=prefers_runs)

    def remove_peer(self, peer: PeerKey) -> None:
        """Forget a peer; what it was asked for goes to others."""
        with self._lock:
            record = self._book.remove_peer(peer)
            if record:
                self._piece_picker.remove(record.pieces)

    def peer_has(self, peer: PeerKey, *indices: int) -> bool:
        """Take note of one `have` or several; tell whether we want one of those pieces.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        new = 0
        for index in indices:
            self._table.check_index(index)
            new |= 1 << index
        return self.peer_has_all(peer, new)

    def peer_has_all(self, peer: PeerKey, pieces: int) -> bool:
        """Take note of a whole set of pieces (bits) that a peer has; tell whether we want one of them."""
        with self._lock:
            record = self._book.peers[peer]
            new = pieces & ~record.pieces
            if not new:
                return False
            record.pieces |= new
            self._piece_picker.add(new)
            return self._table.needs(new)

    def peer_choked(self, peer: PeerKey, *, keeps_requests: bool) -> None:
        """A peer chokes us: from now on it serves only what it allows (BEP 6).

        Args:
            peer: the peer.
            keeps_requests: it answers or rejects each request that is under way (BEP 6); else it has
                forgotten them all.
        """
        with self._lock:
            record = self._book.peers[peer]
            record.chokes = True
            if keeps_requests:
                self._book.disown_pieces(record)
            else:
                self._book.release_all(record)

    def peer_unchoked(self, peer: PeerKey) -> None:
        """A peer unchokes us, and may now give what it refused before."""
        with self._lock:
            record = self._book.peers[peer]
            record.chokes = False
            record.refused, record.forgive_at = 0, 0.0

    def peer_suggests(self, peer: PeerKey, index: int) -> None:
        """Take note that a peer has a piece at hand; of equally rare pieces it is asked for that one.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        self._table.check_index(index)
        with self._lock:
            self._book.peers[peer].suggested |= 1 << index

    def peer_allows(self, peer: PeerKey, index: int) -> bool:
        """Take note that a peer serves a piece even while it chokes us; tell whether that is of use.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        self._table.check_index(index)
        with self._lock:
            record = self._book.peers[peer]
            record.allowed_fast |= 1 << index
            return self._table.needs(record.servable)

    def request_rejected(self, peer: PeerKey, index: int, begin: int) -> None:
        """A peer will not answer a request: the block goes to others, and the peer is not asked again soon."""
        with self._lock:
            self._book.reject(self._book.peers[peer], index, begin)

    def is_interesting(self, peer: PeerKey) -> bool:
        """Tell whether a peer has a piece that we want and lack."""
        with self._lock:
            record = self._book.peers.get(peer)
            return record is not None and self._table.needs(record.pieces)

    def who_lacks(self, pieces: int) -> dict[PeerKey, int]:
        """Return the connected peers that lack some of a set of pieces (bits), as far as we know, and which of them."""
        with self._lock:
            lacking = {key: pieces & ~record.pieces for key, record in self._book.peers.items()}
        return {key: lacked for key, lacked in lacking.items() if lacked}

    def peer_progress(self, peer: PeerKey) -> tuple[int, int]:
        """Return how many pieces a peer has and how many blocks it owes us."""
        with self._lock:
            record = self._book.peers.get(peer)
            return (record.pieces.bit_count(), len(record.in_flight)) if record else (0, 0)

    @property
    def busy_peers(self) -> int:
        """How many peers keep us busy, as of a moment ago: those that owe us many blocks."""
        return self._block_picker.deep_pipelines

    def set_rate(self, peer: PeerKey, rate: float) -> None:
        """Tell a peer's speed, in bytes per second; the end game takes blocks from slow peers."""
        with self._lock:
            if peer in self._book.peers:
                self._book.peers[peer].rate = rate

    def latency(self, peer: PeerKey) -> float:
        """Return the shortest time, in seconds, in which a peer answered a request; a second while nobody knows."""
        with self._lock:
            record = self._book.peers.get(peer)
            return record.latency if record else UNKNOWN_LATENCY

    # --- blocks ----------------------------------------------------------------------------------

    def next_requests(self, peer: PeerKey, depth: int, now: float) -> list[Request]:
        """Choose the blocks to ask a peer for, so that `depth` are in flight; they count as asked for.

        Args:
            peer: one that has unchoked us.
            depth: requests that it may have in flight in all.
            now: the clock, in seconds.
        """
        with self._lock:
            record = self._book.peers.get(peer)
            return self._block_picker.next_requests(record, depth, now) if record else []

    def places(self, peer: PeerKey, count: int) -> list[BlockRun]:
        """Return where the next blocks of a peer belong, up to `count`, in the order in which they were asked for.

        Called by the peer's reader alone, which may read into that memory until its next call, or `remove_peer`.
        """
        with self._lock:
            record = self._book.peers.get(peer)
            return self._book.places(record, count) if record else []

    def receive_blocks(self, peer: PeerKey, blocks: Sequence[Piece | BlockRun], now: float) -> Received:
        """Store blocks that came from a peer, or take note of those that are in their places already.

        Raises:
            ProtocolViolation: a block outside the torrent, or too many that nobody asked for.
        """
        with self._lock:
            record = self._book.peers.get(peer)
            return self._book.receive(record, blocks, now) if record else Received([], [], 0)

    def stalled_peers(self, now: float) -> list[PeerKey]:
        """Find peers that owe us blocks and sent none for too long; their blocks go to others."""
        with self._lock:
            return self._block_picker.stalled_peers(now)

    def take_hungry(self, now: float) -> list[PeerKey]:
        """Return the peers that could take more requests than there were, once, when there may be more for them."""
        with self._lock:
            return self._block_picker.take_hungry(now)

    # --- what others want to know ------------------------------------------------------------------

    def has_piece(self, index: int) -> bool:
        """Tell whether piece `index` is COMPLETE; False for an index that does not exist."""
        return 0 <= index < self.piece_count and self._table.is_complete(index)

    @property
    def bitfield(self) -> Bitfield:
        """A copy of the set of COMPLETE pieces."""
        with self._lock:
            return Bitfield(self.piece_count, self._table.complete_pieces)

    @property
    def is_complete(self) -> bool:
        """Whether every piece is COMPLETE, wanted or not: we are a seeder."""
        return self._table.complete_count == self.piece_count

    @property
    def is_done(self) -> bool:
        """Whether every wanted piece is COMPLETE: there is nothing more to get."""
        with self._lock:
            return self._table.is_done

    def wanted_progress(self) -> WantedProgress:
        """Return how far the wanted pieces are; of pieces on the edge of a wanted file only its bytes count."""
        with self._lock:
            return self._table.wanted_progress()

    @property
    def complete_count(self) -> int:
        """Number of COMPLETE pieces."""
        return self._table.complete_count

    @property
    def complete_bytes(self) -> int:
        """Bytes of COMPLETE pieces."""
        return self._table.complete_bytes

    @property
    def useful_bytes(self) -> int:
        """Bytes of blocks that were stored."""
        return self._book.useful_bytes

    @property
    def wasted_bytes(self) -> int:
        """Bytes of blocks that came twice or unasked, and of pieces that failed."""
        return self._book.wasted_bytes

    def states(self) -> bytes:
        """Return a copy of the state of every piece, a `PieceState` a byte."""
        with self._lock:
            return self._table.states()

    def check_invariants(self) -> None:
        """Raise AssertionError unless the tables agree; called after every step of the tests."""
        with self._lock:
            self._table.check_invariants()
            assert self._table.wanted == sum(self._piece_picker.levels), "a piece is on two levels, or on none"
            self._book.check_invariants()
