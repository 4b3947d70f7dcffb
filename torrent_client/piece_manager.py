"""The one truth about pieces: what we have, what is under way, who has what, what to ask for next.

    MISSING --get_next_piece--> DOWNLOADING --last block--> VERIFYING --mark_complete--> COMPLETE
       ^                             |                          |
       +------- nothing left of it --+-------- mark_failed -----+        (bad hash, or not written)

A piece is in exactly one state; `check_invariants` says what else always holds. Readers of many peers
call in at once: `next_requests` to learn what to ask for, `receive_blocks` with what came. The reader
that brings the last block of a piece gets the piece back, and its verifier hashes and writes it outside
the lock before it calls `mark_complete`.

What a peer is asked for, in order: the rest of a piece that it began; pieces whose owner left; a new
piece, of the most urgent ones the rarest; other peers' pieces; and when every block is asked for (the end
game) blocks that a slower peer still owes us. A peer whose pipeline does not hold a whole piece helps
others first, so that slow peers finish pieces together instead of holding one each.

Pieces that are not wanted (no file that the user chose has bytes in them) are never begun, and do not
make a peer interesting; one that was begun before that may still come. The download is *done* when every
wanted piece is COMPLETE, and *complete* when every piece is.

Spec: BEP 3 (rarest first, end game); the guide's Tasks 9 and 10.
Thread: any; peers' readers, verifiers, housekeeping, the display.
Lock: `_lock`, a leaf, held for memory operations alone: no I/O, no hashing, no other lock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha1
from random import Random
from threading import Lock
from typing import NamedTuple

from torrent_client.active_piece import ActivePiece, BufferPool, PeerKey
from torrent_client.bitfield import Bitfield
from torrent_client.config import BLOCK_SIZE, Config
from torrent_client.errors import ProtocolViolation
from torrent_client.piece_picker import PiecePicker, WantedPieces
from torrent_client.protocol.messages import Cancel, Piece, Request

UNASKED_BLOCKS_TOLERATED = 64
"""Blocks that nobody asked for before a peer counts as hostile. Honest peers send a few: answers that
crossed our `cancel`."""


REQUEST_BATCH = 4
"""A peer is asked again when a quarter of its depth is free: waking its writer costs more than a block,
and three quarters in flight still hide the round trip."""


class PieceState(IntEnum):
    """Where a piece is on its way; exactly one at a time."""

    MISSING = 0
    DOWNLOADING = 1
    VERIFYING = 2
    COMPLETE = 3


class PieceHashes:
    """The SHA-1 of every piece, 20 bytes each, as the torrent gives them in one string."""

    def __init__(self, hashes: bytes) -> None:
        """Keep the string; slicing it on demand is cheaper than a list of 100,000."""
        self._hashes = hashes

    def __getitem__(self, index: int) -> bytes:
        """Return the 20 bytes of piece `index`."""
        return self._hashes[20 * index : 20 * index + 20]

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._hashes) // 20


@dataclass(slots=True)
class _Peer:
    """What the manager knows of one peer."""

    pieces: int = 0  # set of bits
    in_flight: dict[int, float] = field(default_factory=dict)  # block number in the torrent: asked at
    own: list[ActivePiece] = field(default_factory=list)  # begun by it, with blocks still to ask for
    rate: float = 0.0  # bytes per second, of the last seconds
    last_block: float = 0.0  # when a block came, or when it was first asked again
    late_answers: int = UNASKED_BLOCKS_TOLERATED  # blocks it may still send unasked
    on_parole: bool = False
    is_snubbed: bool = False  # it kept us waiting for too long, and nothing came since
    refused: int = 0  # set of bits: it rejected requests for them
    allowed_fast: int = 0  # set of bits: it serves them even while it chokes us
    suggested: int = 0  # set of bits: it has them at hand (BEP 6)
    chokes: bool = False

    @property
    def servable(self) -> int:
        """The pieces that it would send us now, as a set of bits."""
        return self.pieces & self.allowed_fast if self.chokes else self.pieces & ~self.refused


class Received(NamedTuple):
    """What came of a batch of blocks.

    `full` are the pieces that it completed, now VERIFYING and the caller's to verify; `cancels` are
    requests to take back from other peers; `useful` is the bytes that were stored.
    """

    full: list[ActivePiece]
    cancels: list[tuple[PeerKey, Cancel]]
    useful: int


class WantedProgress(NamedTuple):
    """How far the wanted pieces are: `pieces_done` of `pieces`, `bytes_done` of `size` bytes."""

    pieces: int
    pieces_done: int
    size: int
    bytes_done: int


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
        self._config = config
        self._sequential = sequential
        self._blocks_per_piece = -(-piece_length // BLOCK_SIZE)
        self._picker = PiecePicker(
            self.piece_count, rng, random_first=config.random_first_pieces, sequential=sequential
        )
        self._states = bytearray(self.piece_count)
        self._missing = (1 << self.piece_count) - 1  # set of bits: state MISSING
        self._lacking = self._missing  # set of bits: any state but COMPLETE
        self._complete_count = 0
        self._complete_bytes = 0
        self._wanted = 0  # set of bits, with the three that follow what `set_wanted` was told
        self._surplus: Mapping[int, int] = {}
        self._wanted_size = 0
        self._wanted_done = 0  # bytes of COMPLETE ones
        self.set_wanted(wanted or WantedPieces.all_of(self.piece_count))
        self._active: dict[int, ActivePiece] = {}  # DOWNLOADING or VERIFYING
        self._open: dict[int, ActivePiece] = {}  # those of them with blocks to ask for
        self._max_active = max(4, config.piece_buffer_budget // piece_length)
        self._buffers = BufferPool(piece_length)
        self._peers: dict[PeerKey, _Peer] = {}
        self.useful_bytes = 0  # of blocks that were stored; these three are written under the lock
        self.wasted_bytes = 0  # of blocks that came twice or unasked, and of pieces that failed
        self.hash_failures = 0
        self._hungry: dict[PeerKey, None] = {}  # peers that got less than they could take, in their order

    # --- pieces ----------------------------------------------------------------------------------

    def piece_size(self, index: int) -> int:
        """Return the bytes of piece `index`; the last one may be shorter than the others."""
        return min(self.piece_length, self.total_length - index * self.piece_length)

    def set_wanted(self, wanted: WantedPieces) -> None:
        """Say which pieces are wanted and in which order, now or while the download runs."""
        with self._lock:
            self._wanted = 0
            for level in wanted.levels:
                self._wanted |= level
            self._surplus = wanted.surplus
            self._picker.levels = wanted.levels
            self._wanted_size = self._bytes_in(self._wanted) - sum(wanted.surplus.values())
            self._wanted_done = self._count_wanted_done()

    def get_next_piece(self, peer: PeerKey) -> int | None:
        """Choose a MISSING piece that is wanted and that `peer` has, make it DOWNLOADING and the peer its owner.

        Returns:
            The index, or None when the peer has no such piece, or the memory budget is used up.
        """
        with self._lock:
            piece = self._begin_piece(peer, self._peers[peer])
            return piece.index if piece else None

    def verify_piece(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Tell whether `data` is piece `index`: its SHA-1 equals the torrent's. Takes no lock."""
        return sha1(data).digest() == self.hashes[index]

    def mark_complete(self, index: int) -> bool:
        """Make a piece that is verified and on disk COMPLETE; tell whether it was the last wanted one lacking.

        A piece found on disk at the start goes from MISSING to COMPLETE directly.
        """
        with self._lock:
            piece = self._active.pop(index, None)
            if piece:
                self._release_buffer(piece)
                self._end_parole(piece)
            if self._states[index] == PieceState.COMPLETE:
                return False
            self._states[index] = PieceState.COMPLETE
            self._complete_count += 1
            self._complete_bytes += self.piece_size(index)
            self._missing &= ~(1 << index)
            self._lacking &= ~(1 << index)
            if not self._wanted >> index & 1:
                return False
            self._wanted_done += self.piece_size(index) - self._surplus.get(index, 0)
            return not self._lacking & self._wanted

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
                self.wasted_bytes += self.piece_size(index)
            self._abandon(self._active[index])
            for key in suspects:
                if key in self._peers:
                    self._peers[key].on_parole = True

    def mark_missing(self, index: int) -> None:
        """Make a COMPLETE piece MISSING again, because it is no longer on disk."""
        with self._lock:
            if self._states[index] == PieceState.COMPLETE:
                self._complete_count -= 1
                self._complete_bytes -= self.piece_size(index)
                if self._wanted >> index & 1:
                    self._wanted_done -= self.piece_size(index) - self._surplus.get(index, 0)
                self._lacking |= 1 << index
                self._set_missing(index)

    # --- peers -----------------------------------------------------------------------------------

    def add_peer(self, peer: PeerKey) -> None:
        """Take note of a new peer, which has nothing yet."""
        with self._lock:
            self._peers[peer] = _Peer()

    def remove_peer(self, peer: PeerKey) -> None:
        """Forget a peer; what it was asked for goes to others."""
        with self._lock:
            record = self._peers.pop(peer, None)
            if record is None:
                return
            self._release_requests(peer, record)
            self._picker.remove(record.pieces)
            self._hungry.pop(peer, None)
            for piece in self._active.values():
                if piece.owner == peer:
                    piece.owner, piece.exclusive = None, False

    def peer_has(self, peer: PeerKey, index: int) -> bool:
        """Take note of a `have`; tell whether we want that piece.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        self._check_index(index)
        return self.peer_has_all(peer, 1 << index)

    def peer_has_all(self, peer: PeerKey, pieces: int) -> bool:
        """Take note of a whole set of pieces (bits) that a peer has; tell whether we want one of them."""
        with self._lock:
            record = self._peers[peer]
            new = pieces & ~record.pieces
            record.pieces |= new
            self._picker.add(new)
            return bool(new & self._lacking & self._wanted)

    def peer_choked(self, peer: PeerKey, *, keeps_requests: bool) -> None:
        """A peer chokes us: from now on it serves only what it allows (BEP 6).

        Args:
            peer: the peer.
            keeps_requests: it answers or rejects each request that is under way (BEP 6); else it has
                forgotten them all.
        """
        with self._lock:
            record = self._peers[peer]
            record.chokes = True
            if keeps_requests:
                self._disown_pieces(peer, record)
            else:
                self._release_requests(peer, record)

    def peer_unchoked(self, peer: PeerKey) -> None:
        """A peer unchokes us, and may now give what it refused before."""
        with self._lock:
            self._peers[peer].chokes = False
            self._peers[peer].refused = 0

    def peer_suggests(self, peer: PeerKey, index: int) -> None:
        """Take note that a peer has a piece at hand; of equally rare pieces it is asked for that one.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        self._check_index(index)
        with self._lock:
            self._peers[peer].suggested |= 1 << index

    def peer_allows(self, peer: PeerKey, index: int) -> bool:
        """Take note that a peer serves a piece even while it chokes us; tell whether that is of use.

        Raises:
            ProtocolViolation: there is no such piece.
        """
        self._check_index(index)
        with self._lock:
            record = self._peers[peer]
            record.allowed_fast |= 1 << index
            return bool(record.servable & self._lacking & self._wanted)

    def request_rejected(self, peer: PeerKey, index: int, begin: int) -> None:
        """A peer will not answer a request: the block goes to others, and the peer is not asked again soon."""
        with self._lock:
            record = self._peers[peer]
            number = index * self._blocks_per_piece + begin // BLOCK_SIZE
            if begin % BLOCK_SIZE == 0 and number in record.in_flight:
                self._release_block(peer, record, number)
                record.late_answers -= 1  # a rejected block does not come late
                record.refused |= 1 << index
                record.allowed_fast &= ~(1 << index)

    def is_interesting(self, peer: PeerKey) -> bool:
        """Tell whether a peer has a piece that we want and lack."""
        with self._lock:
            record = self._peers.get(peer)
            return record is not None and bool(record.pieces & self._lacking & self._wanted)

    def peer_lacks(self, peer: PeerKey, index: int) -> bool:
        """Tell whether a connected peer does not have piece `index`, as far as we know."""
        with self._lock:
            record = self._peers.get(peer)
            return record is not None and not record.pieces >> index & 1

    def peer_progress(self, peer: PeerKey) -> tuple[int, int]:
        """Return how many pieces a peer has and how many blocks it owes us."""
        with self._lock:
            record = self._peers.get(peer)
            return (record.pieces.bit_count(), len(record.in_flight)) if record else (0, 0)

    def set_rate(self, peer: PeerKey, rate: float) -> None:
        """Tell a peer's speed, in bytes per second; the end game takes blocks from slow peers."""
        with self._lock:
            if peer in self._peers:
                self._peers[peer].rate = rate

    def is_sole_supplier(self, piece: ActivePiece) -> bool:
        """Tell whether all blocks of a full piece came from one peer."""
        return len(set(piece.requesters)) == 1

    # --- blocks ----------------------------------------------------------------------------------

    def next_requests(self, peer: PeerKey, depth: int, now: float) -> list[Request]:
        """Choose the blocks to ask a peer for, so that `depth` are in flight; they count as asked for.

        Args:
            peer: one that has unchoked us.
            depth: requests that it may have in flight in all.
            now: the clock, in seconds.
        """
        with self._lock:
            record = self._peers.get(peer)
            if record is None:
                return []
            room = depth - len(record.in_flight)
            if room < max(1, depth // REQUEST_BATCH):
                return []
            if not record.in_flight:
                record.last_block = now
            requests: list[Request] = []
            while len(requests) < room:
                piece = self._choose_piece(peer, record, depth)
                if piece is None:
                    break
                self._take_blocks(piece, peer, record, room - len(requests), now, requests)
            all_begun = not record.servable & self._missing & self._wanted
            if not requests and (all_begun or len(self._active) >= self._max_active):
                requests = self._end_game_requests(peer, record, room, now)
            if len(requests) < room:
                self._hungry[peer] = None
            return requests

    def receive_blocks(self, peer: PeerKey, blocks: Sequence[Piece], now: float) -> Received:
        """Store blocks that came from a peer.

        Raises:
            ProtocolViolation: a block outside the torrent, or too many that nobody asked for.
        """
        received = Received([], [], 0)
        useful = wasted = 0
        with self._lock:
            record = self._peers.get(peer)
            if record is None:
                return received
            record.last_block = now
            record.is_snubbed = False
            try:
                for index, begin, payload in blocks:
                    block = begin // BLOCK_SIZE
                    piece = self._active.get(index)
                    size = len(payload)
                    if piece is None or begin % BLOCK_SIZE or not size or size != piece.block_length(block):
                        self._check_unasked(record, index, begin, size)
                        wasted += size
                        continue
                    asked = record.in_flight.pop(index * self._blocks_per_piece + block, None) is not None
                    if not asked:
                        self._check_unasked(record, index, begin, size)
                    if piece.received[block]:
                        wasted += size
                    else:
                        self._store(piece, block, payload, peer, asked, received)
                        useful += size
            except ProtocolViolation:
                for piece in received.full:  # the caller gets the error alone: nobody would verify them
                    self._abandon(piece)
                    wasted += piece.length
                raise
            finally:
                self.useful_bytes += useful
                self.wasted_bytes += wasted
        return received._replace(useful=useful)

    def release_requests(self, peer: PeerKey) -> None:
        """Give what a peer was asked for to others: it choked us, or keeps us waiting."""
        with self._lock:
            record = self._peers.get(peer)
            if record:
                self._release_requests(peer, record)

    def stalled_peers(self, now: float) -> list[PeerKey]:
        """Find peers that owe us blocks and sent none for too long; their blocks go to others.

        They are hungry now, behind all who were before: else two peers that send nothing could take the
        last block again and again. A peer that sends, but skips a block, loses that block alone.
        """
        timeout = self._config.request_timeout
        stalled = []
        with self._lock:
            for key, peer in self._peers.items():
                if not peer.in_flight:
                    continue
                if now - peer.last_block > timeout:
                    self._release_requests(key, peer)
                    peer.is_snubbed = True
                    self._hungry.pop(key, None)
                    self._hungry[key] = None
                    stalled.append(key)
                    continue
                oldest, asked = next(iter(peer.in_flight.items()))
                queue_time = len(peer.in_flight) * BLOCK_SIZE / max(peer.rate, 1.0)
                if now - asked > 3 * timeout + 2 * queue_time:
                    self._release_block(key, peer, oldest)
        return stalled

    def take_hungry(self) -> list[PeerKey]:
        """Return the peers that could take more requests than there were, once, when there is more."""
        with self._lock:
            if not self._hungry or not (self._open or self._missing & self._wanted or self._active):
                return []
            hungry = list(self._hungry)
            self._hungry.clear()
            return hungry

    # --- what others want to know ------------------------------------------------------------------

    def has_piece(self, index: int) -> bool:
        """Tell whether piece `index` is COMPLETE; False for an index that does not exist."""
        return 0 <= index < self.piece_count and self._states[index] == PieceState.COMPLETE

    @property
    def bitfield(self) -> Bitfield:
        """A copy of the set of COMPLETE pieces."""
        with self._lock:
            everything = (1 << self.piece_count) - 1
            return Bitfield(self.piece_count, everything & ~self._lacking)

    @property
    def is_complete(self) -> bool:
        """Whether every piece is COMPLETE, wanted or not: we are a seeder."""
        return self._complete_count == self.piece_count

    @property
    def is_done(self) -> bool:
        """Whether every wanted piece is COMPLETE: there is nothing more to get."""
        with self._lock:
            return not self._lacking & self._wanted

    def wanted_progress(self) -> WantedProgress:
        """Return how far the wanted pieces are; of pieces on the edge of a wanted file only its bytes count."""
        with self._lock:
            done = (self._wanted & ~self._lacking).bit_count()
            return WantedProgress(self._wanted.bit_count(), done, self._wanted_size, self._wanted_done)

    @property
    def complete_count(self) -> int:
        """Number of COMPLETE pieces."""
        return self._complete_count

    @property
    def complete_bytes(self) -> int:
        """Bytes of COMPLETE pieces."""
        return self._complete_bytes

    def states(self) -> bytes:
        """Return a copy of the state of every piece, a `PieceState` a byte."""
        with self._lock:
            return bytes(self._states)

    def availability(self, index: int) -> int:
        """Return how many connected peers have piece `index`."""
        with self._lock:
            return self._picker.availability(index)

    def check_invariants(self) -> None:
        """Raise AssertionError unless the tables agree; called after every step of the tests."""
        with self._lock:
            states = Counter(self._states)
            assert states[PieceState.COMPLETE] == self._complete_count
            assert states[PieceState.MISSING] == self._missing.bit_count()
            assert self.piece_count - self._complete_count == self._lacking.bit_count()
            assert {index for index, state in enumerate(self._states) if state in (1, 2)} == set(self._active)
            assert self._wanted == sum(self._picker.levels), "a piece is on two levels, or on none"
            assert not self._wanted >> self.piece_count
            assert all(self._wanted >> index & 1 for index in self._surplus)
            assert self._wanted_done == self._count_wanted_done() <= self._wanted_size
            for index, piece in self._active.items():
                verifying = self._states[index] == PieceState.VERIFYING
                assert verifying == (piece.remaining == 0)
                assert (index in self._open) == bool(piece.unrequested)
                assert piece.remaining == piece.block_count - sum(piece.received)
                assert len(set(piece.unrequested)) == len(piece.unrequested)
                for block in piece.unrequested:
                    assert not piece.received[block]
                    assert piece.requesters[block] is None
            for key, peer in self._peers.items():
                for number in peer.in_flight:
                    index, block = divmod(number, self._blocks_per_piece)
                    piece = self._active[index]
                    assert key in (piece.requesters[block], piece.second_requesters.get(block))

    # --- under the lock ----------------------------------------------------------------------------

    def _bytes_in(self, pieces: int) -> int:
        """Return the bytes of a set of pieces."""
        last = self.piece_count - 1
        lacks = self.piece_length - self.piece_size(last) if pieces and pieces >> last & 1 else 0
        return pieces.bit_count() * self.piece_length - lacks

    def _count_wanted_done(self) -> int:
        surplus = sum(size for index, size in self._surplus.items() if self._states[index] == PieceState.COMPLETE)
        return self._bytes_in(self._wanted & ~self._lacking) - surplus

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.piece_count:
            raise ProtocolViolation(f"it speaks of piece {index}, but there are {self.piece_count}")

    def _set_missing(self, index: int) -> None:
        self._states[index] = PieceState.MISSING
        self._missing |= 1 << index

    def _abandon(self, piece: ActivePiece) -> None:
        """Make a begun piece MISSING again, of which nobody owes us a block."""
        del self._active[piece.index]
        self._open.pop(piece.index, None)
        self._release_buffer(piece)
        self._set_missing(piece.index)

    def _release_buffer(self, piece: ActivePiece) -> None:
        if piece.buffer is not None:
            self._buffers.give_back(piece.buffer)
            piece.buffer = None

    def _begin_piece(self, key: PeerKey, peer: _Peer) -> ActivePiece | None:
        """Make the best MISSING piece of a peer, of those that are wanted, DOWNLOADING."""
        candidates = peer.servable & self._missing & self._wanted
        if not candidates or not self._make_room():
            return None
        index = self._picker.pick(candidates, self._complete_count, peer.suggested)
        assert index is not None
        piece = ActivePiece(index, self.piece_size(index), key, exclusive=peer.on_parole)
        self._states[index] = PieceState.DOWNLOADING
        self._missing &= ~(1 << index)
        self._active[index] = self._open[index] = piece
        peer.own.append(piece)
        return piece

    def _make_room(self) -> bool:
        """Tell whether the memory budget allows one more piece; if need be, give up one that stands still.

        Pieces that were begun with peers who left or choke us would otherwise fill the budget, and peers
        that have other pieces would wait for them for ever.
        """
        if len(self._active) < self._max_active:
            return True
        piece = self._free_idle_piece(self._lacking)
        if piece:
            self._discard(piece)
        return piece is not None

    def _begin_alone(self, key: PeerKey, peer: _Peer) -> ActivePiece | None:
        """Give a suspect a begun piece that nobody works on, without what others sent of it.

        With blocks of others in it a bad piece would convict nobody, and could fail again and again.
        """
        piece = self._free_idle_piece(peer.servable)
        if piece is None:
            return None
        if any(supplier != key for supplier, here in zip(piece.requesters, piece.received, strict=True) if here):
            self._discard(piece)
            return self._begin_piece(key, peer)
        piece.owner, piece.exclusive = key, True
        peer.own.append(piece)
        return piece

    def _free_idle_piece(self, pieces: int) -> ActivePiece | None:
        """Take one of the begun pieces from the snubbed peers, if any, that alone work on it: the least begun."""
        snubbed = {None, *(key for key, peer in self._peers.items() if peer.is_snubbed)}
        idle = [
            piece
            for piece in self._open.values()
            if pieces >> piece.index & 1 and piece.owner in snubbed and piece.workers() <= snubbed
        ]
        if not idle:
            return None
        piece = min(idle, key=lambda piece: sum(piece.received))
        for key in piece.workers() - {None}:
            self._release_requests(key, self._peers[key])
            self._hungry[key] = None
        return piece

    def _discard(self, piece: ActivePiece) -> None:
        """Throw away what came of a piece that nobody works on."""
        self.wasted_bytes += sum(piece.block_length(block) for block, here in enumerate(piece.received) if here)
        self._abandon(piece)

    def _choose_piece(self, key: PeerKey, peer: _Peer, depth: int) -> ActivePiece | None:
        """Return a piece with blocks to ask this peer for, or None; see the module's text for the order."""
        while peer.own:
            piece = peer.own[-1]
            if piece.unrequested and piece.owner == key:
                if peer.servable >> piece.index & 1:
                    return piece
                piece.owner, piece.exclusive = None, False  # it chokes us, and others may go on
            peer.own.pop()
        if peer.on_parole:
            return self._begin_piece(key, peer) or self._begin_alone(key, peer)
        helps_first = self._sequential or depth < self._blocks_per_piece
        return (
            self._open_piece(peer, orphans_only=not helps_first)
            or self._begin_piece(key, peer)
            or self._open_piece(peer, orphans_only=False)
        )

    def _open_piece(self, peer: _Peer, *, orphans_only: bool) -> ActivePiece | None:
        """Find a begun piece that this peer can help with: the first begun, or in order if sequential."""
        servable = peer.servable
        usable = (
            piece
            for piece in self._open.values()
            if not piece.exclusive and (piece.owner is None or not orphans_only) and servable >> piece.index & 1
        )
        if self._sequential:
            return min(usable, key=lambda piece: piece.index, default=None)
        return next(usable, None)

    def _take_blocks(
        self, piece: ActivePiece, key: PeerKey, peer: _Peer, room: int, now: float, requests: list[Request]
    ) -> None:
        """Ask a peer for up to `room` unrequested blocks of a piece."""
        first_number = piece.index * self._blocks_per_piece
        for _ in range(min(room, len(piece.unrequested))):
            block = piece.unrequested.pop()
            piece.requesters[block] = key
            peer.in_flight[first_number + block] = now
            requests.append(Request(piece.index, block * BLOCK_SIZE, piece.block_length(block)))
        if not piece.unrequested:
            self._open.pop(piece.index, None)

    def _end_game_requests(self, key: PeerKey, peer: _Peer, room: int, now: float) -> list[Request]:
        """Ask for blocks that are asked of another peer already, of the one that will be last."""
        if peer.on_parole:
            return []  # a bad piece with its blocks among others' would convict nobody

        def time_left(other: _Peer) -> float:
            return len(other.in_flight) / max(other.rate, 1.0)

        others = [other for other in self._peers.values() if other.in_flight and other is not peer]
        for other in sorted(others, key=time_left, reverse=True):
            much_slower = peer.rate > self._config.takeover_speed_ratio * other.rate
            limit = room if much_slower else 0 if peer.in_flight else 1
            requests = self._duplicate_requests(key, peer, other, limit, now, much_slower)
            if requests:
                return requests
        return []

    def _duplicate_requests(
        self, key: PeerKey, peer: _Peer, other: _Peer, limit: int, now: float, take_exclusive: bool
    ) -> list[Request]:
        """Ask a peer for up to `limit` of the blocks that another one owes, last asked first."""
        requests: list[Request] = []
        servable = peer.servable
        for number in reversed(other.in_flight) if limit else ():
            index, block = divmod(number, self._blocks_per_piece)
            piece = self._active[index]
            if (
                number in peer.in_flight
                or block in piece.second_requesters
                or not servable >> index & 1
                or (piece.exclusive and not take_exclusive)
            ):
                continue
            piece.second_requesters[block] = key
            peer.in_flight[number] = now
            requests.append(Request(index, block * BLOCK_SIZE, piece.block_length(block)))
            if len(requests) == limit:
                break
        return requests

    def _store(
        self, piece: ActivePiece, block: int, payload: memoryview | bytes, key: PeerKey, asked: bool, out: Received
    ) -> None:
        """Keep a block that was lacking; take it back from everybody else who was asked for it."""
        if piece.buffer is None:
            piece.buffer = self._buffers.take()
        if not asked or piece.second_requesters:
            self._withdraw(piece, block, key, out.cancels)
        piece.store(block, payload, key)
        if not piece.remaining:
            self._states[piece.index] = PieceState.VERIFYING
            out.full.append(piece)

    def _withdraw(
        self, piece: ActivePiece, block: int, supplier: PeerKey, cancels: list[tuple[PeerKey, Cancel]]
    ) -> None:
        """Cancel a block with all who were asked for it, but for the peer that brought it."""
        losers = {piece.requesters[block], piece.second_requesters.pop(block, None)} - {None, supplier}
        for loser in losers:
            self._peers[loser].in_flight.pop(piece.index * self._blocks_per_piece + block)
            self._peers[loser].late_answers += 1
            self._hungry[loser] = None  # no block of its own will remind the caller to ask it again
            cancels.append((loser, Cancel(piece.index, block * BLOCK_SIZE, piece.block_length(block))))
        if block in piece.unrequested:
            piece.unrequested.remove(block)
            if not piece.unrequested:
                self._open.pop(piece.index, None)

    def _check_unasked(self, peer: _Peer, index: int, begin: int, length: int) -> None:
        """Count a block that is not in flight; a few are answers that crossed, many are an attack."""
        if not 0 <= index < self.piece_count or begin + length > self.piece_size(index):
            raise ProtocolViolation(f"a block outside the torrent: piece {index}, begin {begin}, {length} bytes")
        peer.late_answers -= 1
        if peer.late_answers < 0:
            raise ProtocolViolation("it sends blocks that nobody asked for")

    def _release_requests(self, key: PeerKey, peer: _Peer) -> None:
        """Give all that a peer was asked for back, and with it the pieces that it owns."""
        for number in list(reversed(peer.in_flight)):  # the block asked first lies on top again
            self._release_block(key, peer, number)
        self._disown_pieces(key, peer)

    def _disown_pieces(self, key: PeerKey, peer: _Peer) -> None:
        """Let whoever comes first finish the pieces that a peer began."""
        for piece in peer.own:
            if piece.owner == key:
                piece.owner, piece.exclusive = None, False
        peer.own.clear()

    def _release_block(self, key: PeerKey, peer: _Peer, number: int) -> None:
        """Give one block that a peer was asked for back."""
        del peer.in_flight[number]
        peer.late_answers += 1
        index, block = divmod(number, self._blocks_per_piece)
        piece = self._active[index]
        if piece.give_up(block, key):
            self._open[index] = piece
            piece.owner, piece.exclusive = None, False  # whoever comes first may finish it

    def _end_parole(self, piece: ActivePiece) -> None:
        """Trust a peer again that brought a whole good piece alone."""
        if self.is_sole_supplier(piece):
            supplier = self._peers.get(piece.requesters[0])
            if supplier:
                supplier.on_parole = False
