"""Which blocks to ask a peer for: decisions alone, which the `RequestBook` then carries out.

What a peer is asked for, in order:

  1. the rest of a piece that it began;
  2. pieces whose owner left;
  3. a new piece, of the most urgent ones the rarest (`piece_picker`);
  4. other peers' pieces;
  5. when every block that somebody has is asked for, the *end game*: blocks that another peer still owes us, if this
     one will bring them sooner.

A peer whose pipeline does not hold a whole piece helps others first (4 before 3), so that slow peers finish
pieces together instead of holding one each. A peer *on parole*, a suspect after a bad hash, works alone on its
pieces: if one of them fails, it is convicted.

Near the end pipelines become shorter: of all that is still to come half may be in flight, shared out by speed, so that
all peers finish together and little is left for the end game.

Spec: BEP 3 (rarest first, end game); the guide's Tasks 9 and 10.
Thread: the PieceManager's callers.
Lock: none; used under the PieceManager's lock.
"""

import math
from operator import itemgetter

from torrent_client.active_piece import ActivePiece, PeerKey
from torrent_client.config import BLOCK_SIZE, Config
from torrent_client.piece_picker import PiecePicker
from torrent_client.piece_table import PieceTable
from torrent_client.protocol.messages import Request
from torrent_client.request_book import PeerRecord, RequestBook

REQUEST_BATCH = 4
"""A peer is asked again when a quarter of its depth is free: a system call costs more than a block,
and three quarters in flight still hide the round trip."""

LOOK_INTERVAL = 0.05
"""Seconds between two looks at all peers: pipelines fill within a second, and to look at every peer for every request
would cost more than it saves."""

SHARE_OF_REST = 0.5
"""Of all that is still to come, the part that may be in flight: each peer's share of that follows its speed. Sixty-four
peers with a megabyte in flight each would otherwise begin the end game, in which nothing is left for those who are
quicker than was thought, a quarter before the end of 256 MiB."""

LEAST_DEPTH = 4
"""Requests that any peer may have in flight near the end, however little is left."""

PATIENCE = 0.1
"""Seconds that a block may be late before somebody else is asked for it: what has come waits for its thread."""


class BlockPicker:
    """Decides which block is asked of whom, and who has waited for too long.

    Args:
        table: the state of every piece.
        book: who was asked for what.
        picker: chooses new pieces.
        config: limits.
        sequential: prefer pieces in order, begun ones too.

    Attributes:
        max_active: how many pieces may be under way: what the memory budget holds.
        deep_pipelines: how many peers, a moment ago, owed us many blocks each: those that keep us busy.
    """

    def __init__(
        self, table: PieceTable, book: RequestBook, picker: PiecePicker, config: Config, *, sequential: bool
    ) -> None:
        """Begin with what the others know."""
        self._table = table
        self._book = book
        self._picker = picker
        self._config = config
        self._sequential = sequential
        self._deepest = config.max_queue_depth
        self._next_look = self._next_feed = -math.inf
        self._best_speed = 0.0  # of a peer that owes us blocks
        self._goal = 0  # what `useful_bytes` will be when all that is wanted has come
        self.deep_pipelines = 0
        self.max_active = max(4, config.piece_buffer_budget // table.piece_length)

    def next_requests(self, peer: PeerRecord, depth: int, now: float) -> list[Request]:
        """Choose the blocks to ask a peer for, so that `depth` are in flight; they count as asked for."""
        if now >= self._next_look or self._goal <= self._book.useful_bytes:
            self._look(now)
        depth = min(depth, self._deepest)
        most = min(depth, max(peer.least_depth, int(peer.share * (self._goal - self._book.useful_bytes))))
        room = most - len(peer.in_flight)
        if room < max(1, most // REQUEST_BATCH):
            return []
        if not peer.in_flight:
            peer.last_block = now
            peer.asked_from = peer.asked_from or now
        requests: list[Request] = []
        while len(requests) < room:
            piece = self._choose_piece(peer, depth)
            if piece is None:
                break
            self._book.ask(piece, peer, room - len(requests), now, requests)
        if not requests and self._is_end_game():
            requests = self._end_game_requests(peer, room, now)
        if len(requests) < room:
            self._book.hungry[peer.key] = None
        return requests

    # --- which piece -----------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """See how many pipelines are deep, how much is still to come, and what each peer's share of it is."""
        self._next_look = now + LOOK_INTERVAL
        book, least = self._book, self._config.least_share
        busy = [peer for peer in book.peers.values() if peer.in_flight]
        self.deep_pipelines = sum(len(peer.in_flight) >= least for peer in busy)
        self._deepest = max(least, self._config.max_in_flight // max(1, self.deep_pipelines))
        self._goal = book.useful_bytes + book.bytes_to_come()
        speeds = [peer.speed(now) for peer in busy]
        self._best_speed = max(speeds, default=0.0)
        mean = sum(speeds) / max(1, sum(map(bool, speeds))) or 1.0
        total = sum(speed or mean for speed in speeds)
        for peer, speed in zip(busy, speeds, strict=True):
            peer.share = SHARE_OF_REST * (speed or mean) / total / BLOCK_SIZE if len(busy) > 1 else 1.0
            peer.least_depth = self._least_depth(peer, speed)

    def _least_depth(self, peer: PeerRecord, speed: float) -> int:
        """Return how many requests keep a peer busy while the next ones are on their way."""
        if not speed:
            return self._config.min_queue_depth
        return max(LEAST_DEPTH, 2 + int(2 * speed * peer.latency / BLOCK_SIZE))

    def _choose_piece(self, peer: PeerRecord, depth: int) -> ActivePiece | None:
        """Return a piece with blocks to ask this peer for, or None; see the module's text for the order."""
        piece = self._own_piece(peer)
        if piece:
            return piece
        if peer.on_parole:
            return self.begin_piece(peer) or self._begin_alone(peer)
        helps_first = self._sequential or depth < self._book.blocks_per_piece
        return (
            self._open_piece(peer, orphans_only=not helps_first)
            or self.begin_piece(peer)
            or self._open_piece(peer, orphans_only=False)
        )

    def _own_piece(self, peer: PeerRecord) -> ActivePiece | None:
        """Return the last piece that a peer began and can go on with; forget the others on the way."""
        while peer.own:
            piece = peer.own[-1]
            if piece.unrequested and piece.owner == peer.key:
                if peer.servable >> piece.index & 1:
                    return piece
                piece.disown()  # it chokes us, and others may go on
            peer.own.pop()
        return None

    def _open_piece(self, peer: PeerRecord, *, orphans_only: bool) -> ActivePiece | None:
        """Find a begun piece that this peer can help with: the first begun, or in order if sequential."""
        servable = peer.servable
        usable = (
            piece
            for piece in self._book.open_pieces.values()
            if not piece.exclusive and (piece.owner is None or not orphans_only) and servable >> piece.index & 1
        )
        if self._sequential:
            return min(usable, key=lambda piece: piece.index, default=None)
        return next(usable, None)

    def begin_piece(self, peer: PeerRecord) -> ActivePiece | None:
        """Make the best MISSING piece of a peer, of those that are wanted, DOWNLOADING."""
        candidates = self._table.to_begin(peer.servable)
        if not candidates or not self._make_room():
            return None
        index = self._picker.pick(candidates, self._table.complete_count, peer.suggested)
        assert index is not None
        if peer.prefers_runs:
            peer.suggested = 2 << index  # of equally good pieces the next one
        return self._book.begin(index, peer)

    def _begin_alone(self, peer: PeerRecord) -> ActivePiece | None:
        """Give a suspect a begun piece that nobody works on, without what others sent of it.

        With blocks of others in it a bad piece would convict nobody, and could fail again and again.
        """
        piece = self._free_idle_piece(peer.servable)
        if piece is None:
            return None
        if any(supplier != peer.key for supplier, here in zip(piece.requesters, piece.received, strict=True) if here):
            self._book.discard(piece)
            return self.begin_piece(peer)
        piece.owner, piece.exclusive = peer.key, True
        peer.own.append(piece)
        return piece

    # --- the memory budget -----------------------------------------------------------------------

    def _is_full(self) -> bool:
        """Tell whether as many pieces are under way as there may be."""
        return len(self._book.active) >= self.max_active

    def _make_room(self) -> bool:
        """Tell whether the memory budget allows one more piece; if need be, give up one that stands still.

        Pieces that were begun with peers who left or choke us would otherwise fill the budget, and peers
        that have other pieces would wait for them for ever.
        """
        if not self._is_full():
            return True
        piece = self._free_idle_piece(self._table.lacking)
        if piece:
            self._book.discard(piece)
        return piece is not None

    def _free_idle_piece(self, pieces: int) -> ActivePiece | None:
        """Take one of the begun pieces from the snubbed peers, if any, that alone work on it: the least begun."""
        book = self._book
        snubbed = {None, *(key for key, peer in book.peers.items() if peer.is_snubbed)}
        idle = [
            piece
            for piece in book.open_pieces.values()
            if pieces >> piece.index & 1 and piece.owner in snubbed and piece.workers() <= snubbed
        ]
        if not idle:
            return None
        piece = min(idle, key=lambda piece: sum(piece.received))
        for key in piece.workers() - {None}:
            book.release_all(book.peers[key])
            book.hungry[key] = None
        return piece

    # --- the end game ----------------------------------------------------------------------------

    def _is_end_game(self) -> bool:
        """Tell whether no piece can be begun, with any peer.

        A peer that merely has nothing new for us must wait. In a young swarm that is everybody but the seed,
        for all ask the seed for the same pieces; if they duplicated those, it would send each several times.
        """
        return self._is_full() or not self._table.to_begin(self._picker.available)

    def _end_game_requests(self, peer: PeerRecord, room: int, now: float) -> list[Request]:
        """Ask for blocks that are asked of another peer already and that this one brings sooner."""
        if peer.on_parole:
            return []  # a bad piece with its blocks among others' would convict nobody
        speed, ratio = peer.speed(now), self._config.takeover_speed_ratio
        others = [
            (len(other.in_flight) / (theirs or 1.0), other, theirs)
            for other in self._book.peers.values()
            if other.in_flight and other is not peer
            if speed > ratio * (theirs := other.speed(now)) or not peer.in_flight
        ]
        others.sort(key=itemgetter(0), reverse=True)
        for _, other, theirs in others:
            much_faster = speed > ratio * theirs
            requests = self._duplicate_requests(peer, other, room if much_faster else 1, now, much_faster)
            if requests:
                return requests
        return []

    def _duplicate_requests(
        self, peer: PeerRecord, other: PeerRecord, limit: int, now: float, take_exclusive: bool
    ) -> list[Request]:
        """Ask a peer for up to `limit` of the blocks that another one owes, last asked first."""
        requests: list[Request] = []
        servable = peer.servable
        for before, number in zip(range(len(other.in_flight) - 1, -1, -1), reversed(other.in_flight), strict=True):
            if not self._is_sooner(peer, other, before, now):
                break
            index, block = divmod(number, self._book.blocks_per_piece)
            piece = self._book.active[index]
            if (
                number in peer.in_flight
                or block in piece.second_requesters
                or not servable >> index & 1
                or (piece.exclusive and not take_exclusive)
            ):
                continue
            requests.append(self._book.ask_again(piece, block, peer, now))
            if len(requests) == limit:
                break
        return requests

    def _is_sooner(self, peer: PeerRecord, other: PeerRecord, before: int, now: float) -> bool:
        """Tell whether a peer would bring a block before another one does, who owes us so many `before` it.

        One whose speed nobody knows is thought to be quick; what is late may never come. A slow one does not take the
        place of the second whom we ask, while others are much quicker.
        """
        ours, theirs = peer.speed(now), other.speed(now)
        if not ours or not theirs:
            return True
        waited, interval = now - other.last_block, BLOCK_SIZE / theirs
        their_time = max((before + 1) * interval - waited, interval / 2)  # what is due may come at any moment, or not
        our_time = peer.latency + (len(peer.in_flight) + 1) * BLOCK_SIZE / ours
        is_quick = self._config.takeover_speed_ratio * ours >= self._best_speed
        return (is_quick and their_time > our_time) or waited > 2 * (before + 1) * interval + PATIENCE

    # --- who may be asked again --------------------------------------------------------------------

    def take_hungry(self, now: float) -> list[PeerKey]:
        """Return the hungry peers, once, for whom there may be something."""
        book = self._book
        if not book.hungry:
            return []
        useful = self._table.to_begin(self._picker.available)
        for index in book.open_pieces:
            useful |= 1 << index
        fed = [key for key in book.hungry if book.peers[key].servable & useful]
        if not fed and book.active and now >= self._next_feed and self._is_end_game():
            self._next_feed = now + LOOK_INTERVAL
            fed = [key for key in book.hungry if not book.peers[key].in_flight]
        for key in fed:
            del book.hungry[key]
        return fed

    # --- time-outs -------------------------------------------------------------------------------

    def stalled_peers(self, now: float) -> list[PeerKey]:
        """Find peers that owe us blocks and sent none for too long; their blocks go to others.

        They are hungry now, behind all who were before: else two peers that send nothing could take the
        last block again and again. A peer that sends, but skips a block, loses that block alone.
        """
        timeout = self._config.request_timeout
        hungry = self._book.hungry
        stalled = []
        for key, peer in self._book.peers.items():
            if peer.refused:
                self._forgive(peer, now)
            if not peer.in_flight:
                continue
            if now - peer.last_block > timeout:
                self._book.release_all(peer)
                peer.is_snubbed = True
                hungry.pop(key, None)
                hungry[key] = None
                stalled.append(key)
                continue
            oldest, asked = next(iter(peer.in_flight.items()))
            queue_time = len(peer.in_flight) * BLOCK_SIZE / max(peer.rate, 1.0)
            if now - asked > 3 * timeout + 2 * queue_time:
                self._book.release(peer, oldest)
        return stalled

    def _forgive(self, peer: PeerRecord, now: float) -> None:
        """Ask a peer again, after a while, for what it refused: its queue may have been full, or its disk."""
        if not peer.forgive_at:
            peer.forgive_at = now + self._config.request_timeout
        elif now >= peer.forgive_at:
            peer.refused, peer.forgive_at = 0, 0.0
            self._book.hungry[peer.key] = None
