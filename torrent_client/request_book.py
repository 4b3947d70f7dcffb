"""The book of requests: which peer was asked for which block, and what came of it.

Two views of one fact, kept in step here and nowhere else:

    PeerRecord A      in_flight {0, 1}    own [piece 0]        piece 0     block        0    1    2    3
    PeerRecord B      in_flight {2}       own []                           asked of     A    A    B    -
                                                                           received     .    x    .    .
A block is
  - *taken* by one peer, in the end game by a second one as well (`ask`, `ask_again`),
  - *received* and stored, which *withdraws* it from whoever else was asked for it (`receive`),
  - or *released*: rejected, timed out, or its peer left or choked us; then it can be taken again (`release`).

A peer *owns* the pieces that it began: others help with them only when they have nothing better to do. A
peer that got fewer requests than it could take is *hungry*; when blocks are released it is asked again.

Whom to ask for what is not decided here, but in `block_picker`.

Spec: BEP 3 (request, piece, cancel), BEP 6 (reject, allowed fast, suggest).
Thread: the PieceManager's callers.
Lock: none; used under the PieceManager's lock.
"""

from collections.abc import Sequence
from itertools import compress, islice
from typing import NamedTuple

from torrent_client.active_piece import ActivePiece, BufferPool, PeerKey
from torrent_client.config import BLOCK_SIZE
from torrent_client.errors import ProtocolViolation
from torrent_client.piece_table import PieceState, PieceTable
from torrent_client.protocol.messages import Cancel, Piece, Request
from torrent_client.protocol.scatter import BlockRun

UNASKED_BLOCKS_TOLERATED = 64
"""Blocks that nobody asked for before a peer counts as hostile. Honest peers send a few: answers that
crossed our `cancel`."""

UNKNOWN_LATENCY = 1.0
"""Seconds that a peer is thought to take for an answer before it has given one."""


class PeerRecord:
    """What we know of one peer.

    Args:
        key: whose record it is.
        prefers_runs: neighbouring pieces come in one answer: a web seed.
    """

    def __init__(self, key: PeerKey, *, prefers_runs: bool = False) -> None:
        """Know nothing yet."""
        self.key = key
        self.prefers_runs = prefers_runs
        self.pieces = 0  # set of bits
        self.in_flight: dict[int, float] = {}  # block number in the torrent: asked at
        self.own: list[ActivePiece] = []  # begun by it, with blocks still to ask for
        self.rate = 0.0  # bytes per second, of the last seconds
        self.last_block = 0.0  # when a block came, or when it was first asked again
        self.asked_from = 0.0  # when it was first asked at all
        self.useful = 0  # bytes of blocks that it has sent and we lacked
        self.latency = UNKNOWN_LATENCY  # seconds, the shortest that it took to answer
        self.share = 1.0  # blocks in flight for each byte that is still to come, at most
        self.least_depth = 1  # but so many in any case
        self.late_answers = UNASKED_BLOCKS_TOLERATED  # blocks it may still send unasked
        self.on_parole = False
        self.is_snubbed = False  # it kept us waiting for too long, and nothing came since
        self.refused = 0  # set of bits: it rejected requests for them lately
        self.forgive_at = 0.0  # when to ask for those again; 0 until the next tick sets it
        self.allowed_fast = 0  # set of bits: it serves them even while it chokes us
        self.suggested = int(prefers_runs)  # set of bits: it has them at hand (BEP 6)
        self.chokes = False

    def speed(self, now: float) -> float:
        """Return its bytes per second; 0 when nothing is known."""
        seconds = now - self.asked_from
        return self.rate or (self.useful / seconds if seconds > 0 else 0.0)

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


class RequestBook:
    """Keeps the peers, the pieces under way, and who was asked for which of their blocks.

    Args:
        table: the state of every piece, which follows what happens here.

    Attributes:
        peers: what we know of each connected peer.
        active: pieces that are DOWNLOADING or VERIFYING.
        open_pieces: those of them with blocks to ask for, the first begun first.
        hungry: peers that got less than they could take, in their order.
        blocks_per_piece: of every piece but the last; block b of piece i is number i * blocks_per_piece + b.
        useful_bytes: of blocks that were stored.
        wasted_bytes: of blocks that came twice or unasked, and of pieces that failed.
    """

    def __init__(self, table: PieceTable) -> None:
        """Begin with no peers, and nothing under way."""
        self._table = table
        self._buffers = BufferPool(table.piece_length)
        self.peers: dict[PeerKey, PeerRecord] = {}
        self.active: dict[int, ActivePiece] = {}
        self.open_pieces: dict[int, ActivePiece] = {}
        self.hungry: dict[PeerKey, None] = {}
        self.blocks_per_piece = -(-table.piece_length // BLOCK_SIZE)
        self.useful_bytes = 0
        self.wasted_bytes = 0

    # --- pieces begin and end --------------------------------------------------------------------

    def begin(self, index: int, peer: PeerRecord) -> ActivePiece:
        """Make a MISSING piece DOWNLOADING and a peer its owner; the only one if the peer is on parole."""
        piece = ActivePiece(index, self._table.piece_size(index), peer.key, exclusive=peer.on_parole)
        self._table.begin(index)
        self.active[index] = self.open_pieces[index] = piece
        peer.own.append(piece)
        return piece

    def finish(self, index: int) -> None:
        """Forget a piece that is on disk; trust a peer on parole again that brought the whole of it alone."""
        piece = self.active.pop(index, None)
        if piece is None:
            return
        self._release_buffer(piece)
        if piece.has_one_supplier:
            supplier = self.peers.get(piece.requesters[0])
            if supplier:
                supplier.on_parole = False

    def abandon(self, piece: ActivePiece) -> None:
        """Make a begun piece MISSING again, of which nobody owes us a block."""
        del self.active[piece.index]
        self.open_pieces.pop(piece.index, None)
        self._release_buffer(piece)
        self._table.give_up(piece.index)

    def discard(self, piece: ActivePiece) -> None:
        """Throw away what came of a piece that nobody works on."""
        self.wasted_bytes += sum(compress(piece.block_lengths.values(), piece.received))
        self.abandon(piece)

    def _release_buffer(self, piece: ActivePiece) -> None:
        """Keep a buffer for another piece, unless its tenant may be reading into it at this moment."""
        if piece.buffer is not None and (piece.tenant is None or not piece.remaining):
            self._buffers.give_back(piece.buffer)
        piece.buffer = None

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, piece: ActivePiece, peer: PeerRecord, room: int, now: float, requests: list[Request]) -> None:
        """Ask a peer for up to `room` blocks of a piece that nobody was asked for; add them to `requests`."""
        count = min(room, len(piece.unrequested))
        blocks = piece.unrequested[: -count - 1 : -1]
        del piece.unrequested[len(piece.unrequested) - count :]
        index, key, in_flight, requesters = piece.index, peer.key, peer.in_flight, piece.requesters
        first_number, lengths = index * self.blocks_per_piece, piece.block_lengths
        for block in blocks:
            requesters[block] = key
            in_flight[first_number + block] = now
            begin = block * BLOCK_SIZE
            requests.append(Request(index, begin, lengths[begin]))
        if not piece.unrequested:
            self.open_pieces.pop(index, None)

    def ask_again(self, piece: ActivePiece, block: int, peer: PeerRecord, now: float) -> Request:
        """Ask a second peer for a block that another one owes us: the end game."""
        piece.second_requesters[block] = peer.key
        peer.in_flight[piece.index * self.blocks_per_piece + block] = now
        begin = block * BLOCK_SIZE
        return Request(piece.index, begin, piece.block_lengths[begin])

    def bytes_to_come(self) -> int:
        """Return the bytes of wanted pieces that nobody has sent yet."""
        here = sum(piece.block_count - piece.remaining for piece in self.active.values())
        return max(0, self._table.bytes_in(self._table.lacking & self._table.wanted) - here * BLOCK_SIZE)

    # --- receiving -------------------------------------------------------------------------------

    def places(self, peer: PeerRecord, count: int) -> list[BlockRun]:
        """Return where the next blocks of a peer belong, up to `count`, if it answers in the order of our requests.

        They end where a block's memory cannot be this peer's alone.
        """
        runs: list[BlockRun] = []
        numbers = list(islice(peer.in_flight, count))
        begin = 0
        while begin < len(numbers):
            index, first = divmod(numbers[begin], self.blocks_per_piece)
            piece = self.active[index]
            if piece.tenant != peer.key and not self._move_in(peer, piece):
                break
            length = _run_length(numbers, begin, piece.block_count - first)
            runs.append(piece.run(first, length))
            begin += length
        return runs

    def _move_in(self, peer: PeerRecord, piece: ActivePiece) -> bool:
        """Make a peer the tenant of a piece that it began, if nobody is or was."""
        if piece.tenant is not None or piece.was_shared or piece.owner != peer.key:
            return False
        piece.move_in(peer.key, piece.buffer or self._buffers.take(piece.length))
        return True

    def receive(self, peer: PeerRecord, blocks: Sequence[Piece | BlockRun], now: float) -> Received:
        """Store the blocks of a batch that were lacking, and count the others.

        Raises:
            ProtocolViolation: a block outside the torrent, or too many that nobody asked for.
        """
        received, useful_before = Received([], [], 0), self.useful_bytes
        peer.last_block = now
        peer.is_snubbed = False
        for last in blocks[-1:]:
            self._time(peer, last, now)
        try:
            for came in blocks:
                if not isinstance(came, BlockRun):
                    self._receive(peer, came, received)
                elif not self._receive_run(peer, came, received):
                    for message in came.pieces():
                        self._receive(peer, message, received)
        except ProtocolViolation:
            for piece in received.full:  # the caller gets the error alone: nobody would verify them
                self.abandon(piece)
                self.wasted_bytes += piece.length
            raise
        useful = self.useful_bytes - useful_before
        peer.useful += useful
        return received._replace(useful=useful)

    def _time(self, peer: PeerRecord, last: Piece | BlockRun, now: float) -> None:
        """Take note of how long a peer took for the last block of a batch, if that was shorter than ever."""
        block = last.first + last.block_count - 1 if isinstance(last, BlockRun) else last.begin // BLOCK_SIZE
        asked = peer.in_flight.get(last.piece_index * self.blocks_per_piece + block)
        if asked is not None and now - asked < peer.latency:
            peer.latency = now - asked

    def _receive_run(self, peer: PeerRecord, run: BlockRun, received: Received) -> bool:
        """Take note of blocks that are in their places; False, and nothing done, if one must be looked at by itself."""
        piece, in_flight = self.active.get(run.piece_index), peer.in_flight
        if piece is None or piece.tenant != peer.key or not piece.is_in_place(run):
            return False
        first_number, count = run.piece_index * self.blocks_per_piece + run.first, run.block_count
        numbers = range(first_number, first_number + count)
        if not all(map(in_flight.__contains__, numbers)):
            return False
        for number in numbers:
            del in_flight[number]
        piece.store_run(run.first, count)
        self.useful_bytes += run.size
        self._see_whether_full(piece, received)
        return True

    def _receive(self, peer: PeerRecord, message: Piece, received: Received) -> None:
        """Store a block that was lacking, or count it."""
        index, begin, payload = message
        piece, size = self.active.get(index), len(payload)
        if piece is None or piece.block_lengths.get(begin) != size:
            self._check_unasked(peer, index, begin, size)
            self.wasted_bytes += size
            return
        block = begin // BLOCK_SIZE
        asked = peer.in_flight.pop(index * self.blocks_per_piece + block, None) is not None
        if not asked:
            self._check_unasked(peer, index, begin, size)
        if piece.received[block]:
            self.wasted_bytes += size
            return
        if not asked or piece.second_requesters:
            self._withdraw(piece, block, peer.key, received.cancels)
        if piece.tenant != peer.key or piece.buffer is None:
            self._make_room(piece)
        piece.store(block, payload, peer.key)
        self.useful_bytes += size
        self._see_whether_full(piece, received)

    def _see_whether_full(self, piece: ActivePiece, received: Received) -> None:
        if not piece.remaining:
            self._table.fill(piece.index)
            received.full.append(piece)

    def _make_room(self, piece: ActivePiece) -> None:
        """See to it that there is memory for a piece's blocks, and that nobody else reads into it."""
        if piece.buffer is None:
            piece.buffer = self._buffers.take(piece.length)
        elif piece.tenant is not None:
            piece.move_out(self._buffers.take(piece.length))

    def _withdraw(
        self, piece: ActivePiece, block: int, supplier: PeerKey, cancels: list[tuple[PeerKey, Cancel]]
    ) -> None:
        """Cancel a block with all who were asked for it, but for the peer that brought it."""
        losers = {piece.requesters[block], piece.second_requesters.pop(block, None)} - {None, supplier}
        for loser in losers:
            self.peers[loser].in_flight.pop(piece.index * self.blocks_per_piece + block)
            self.peers[loser].late_answers += 1
            self.hungry[loser] = None  # no block of its own will remind the caller to ask it again
            begin = block * BLOCK_SIZE
            cancels.append((loser, Cancel(piece.index, begin, piece.block_lengths[begin])))
        if block in piece.unrequested:
            piece.unrequested.remove(block)
            if not piece.unrequested:
                self.open_pieces.pop(piece.index, None)

    def _check_unasked(self, peer: PeerRecord, index: int, begin: int, length: int) -> None:
        """Count a block that is not in flight; a few are answers that crossed, many are an attack."""
        if not 0 <= index < self._table.piece_count or begin + length > self._table.piece_size(index):
            raise ProtocolViolation(f"a block outside the torrent: piece {index}, begin {begin}, {length} bytes")
        peer.late_answers -= 1
        if peer.late_answers < 0:
            raise ProtocolViolation("it sends blocks that nobody asked for")

    # --- releasing -------------------------------------------------------------------------------

    def release(self, peer: PeerRecord, number: int) -> None:
        """Give one block that a peer was asked for back."""
        del peer.in_flight[number]
        peer.late_answers += 1
        index, block = divmod(number, self.blocks_per_piece)
        piece = self.active[index]
        if piece.give_up(block, peer.key):
            self.open_pieces[index] = piece
            piece.disown()

    def release_all(self, peer: PeerRecord) -> None:
        """Give all that a peer was asked for back, and with it the pieces that it owns."""
        for number in list(reversed(peer.in_flight)):  # the block asked first lies on top again
            self.release(peer, number)
        self.disown_pieces(peer)

    def disown_pieces(self, peer: PeerRecord) -> None:
        """Let whoever comes first finish the pieces that a peer began."""
        for piece in peer.own:
            if piece.owner == peer.key:
                piece.disown()
        peer.own.clear()

    def reject(self, peer: PeerRecord, index: int, begin: int) -> None:
        """Give one block back that a peer refuses; that piece is not asked of it for a while, or until an unchoke."""
        number = index * self.blocks_per_piece + begin // BLOCK_SIZE
        if begin % BLOCK_SIZE == 0 and number in peer.in_flight:
            self.release(peer, number)
            peer.late_answers -= 1  # a rejected block does not come late
            peer.refused |= 1 << index
            peer.allowed_fast &= ~(1 << index)

    def remove_peer(self, key: PeerKey) -> PeerRecord | None:
        """Forget a peer, if it is known, and give back what it was asked for; return what was known of it."""
        peer = self.peers.pop(key, None)
        if peer is None:
            return None
        self.release_all(peer)
        self.hungry.pop(key, None)
        for piece in self.active.values():
            if piece.owner == key:
                piece.disown()
            if piece.tenant == key:
                piece.tenant = None  # this is its reader, which reads no more
        return peer

    # --- checking --------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Raise AssertionError unless pieces, peers and the table tell the same story."""
        under_way = self._table.under_way()
        assert set(under_way) == set(self.active)
        assert set(self.open_pieces) <= set(self.active)
        for index, piece in self.active.items():
            assert (under_way[index] == PieceState.VERIFYING) == (piece.remaining == 0)
            assert (index in self.open_pieces) == bool(piece.unrequested)
            assert piece.remaining == piece.block_count - sum(piece.received)
            assert len(set(piece.unrequested)) == len(piece.unrequested)
            for block in piece.unrequested:
                assert not piece.received[block]
                assert piece.requesters[block] is None
        for key, peer in self.peers.items():
            for number in peer.in_flight:
                index, block = divmod(number, self.blocks_per_piece)
                piece = self.active[index]
                assert key in (piece.requesters[block], piece.second_requesters.get(block))


def _run_length(numbers: Sequence[int], begin: int, most: int) -> int:
    """Return how many of some numbers, from a place on, go up by one from each to the next; `most` at most."""
    first = numbers[begin]
    part = numbers[begin : begin + most]
    if part == list(range(first, first + len(part))):
        return len(part)
    return next(offset for offset, number in enumerate(part) if number != first + offset)
