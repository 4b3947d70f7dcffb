"""The conversation with peers: what their messages mean, what we ask them for, whom we serve.

    from a peer                                       to peers
    bitfield, have, have all     -> PieceManager      interested, not interested
    choke, unchoke, reject       -> PieceManager      request, cancel      <- PieceManager
    piece piece piece ...        -> PieceManager      piece, reject        <- Storage, by the writer
    interested, not interested   -> Choker            choke, unchoke       <- Choker
    request, cancel              -> the outbox        have                 <- housekeeping

Each read brings a batch of messages; every kind has one method, found through a table. Blocks that came in
one read are stored together, and the next ones are asked for before anything else happens; requests are queued
together.

Spec: BEP 3 (peer messages), 6 (fast extension), 10 (extension handshake), 16 (super-seeding), 21 (upload only).
Thread: handlers on the peer's worker; `tick`, `rechoke`, `announce_pieces` in housekeeping; `got_piece` on verifiers.
Lock: none; the parts have theirs.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from itertools import groupby
from random import Random
from typing import Any, Final

from torrent_client.active_piece import ActivePiece
from torrent_client.bitfield import Bitfield
from torrent_client.block_source import BlockSource
from torrent_client.choker import Choker, PeerView
from torrent_client.config import Config
from torrent_client.discovery import Discovery
from torrent_client.errors import PeerDisconnected, ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_extensions import PeerExtensions
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol import messages
from torrent_client.protocol.fast_set import SET_SIZE, allowed_fast_set
from torrent_client.protocol.scatter import Arrival, BlockRun
from torrent_client.super_seeder import Offer, SuperSeeder

logger = logging.getLogger(__name__)


class Conversation:
    """Talks with all peers of one torrent.

    Args:
        info_hash: 20 bytes.
        pieces: the truth about pieces.
        peers: returns the connected peers.
        on_full: is given each piece that became full, to be verified.
        on_interest: is called when `rechoke` should be, by the one thread that does so.
        extensions: what else we speak.
        config: limits.
        rng: source of optimistic luck.
        clock: monotonic seconds.
        metadata_size: bytes of the `info` dictionary, told to peers.
        super_seed: once complete, show each peer one piece at a time (BEP 16).
        discovery: tells peers of our DHT node, and hears of theirs.
    """

    def __init__(
        self,
        info_hash: bytes,
        pieces: PieceManager,
        peers: Callable[[], list[Peer]],
        on_full: Callable[[ActivePiece], None],
        on_interest: Callable[[], None],
        extensions: PeerExtensions,
        config: Config,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        *,
        metadata_size: int | None = None,
        super_seed: bool = False,
        discovery: Discovery | None = None,
    ) -> None:
        """Begin with nobody to talk to."""
        self._info_hash = info_hash
        self._pieces = pieces
        self._peers = peers
        self._on_full = on_full
        self._on_interest = on_interest
        self._extensions = extensions
        self._metadata_size = metadata_size
        self._config = config
        self._clock = clock
        self._choker = Choker(rng, slots=config.upload_slots, max_slots=config.max_upload_slots)
        self._super_seeder = SuperSeeder(pieces.piece_count, rng, clock) if super_seed else None
        self._discovery = discovery
        self._news: deque[int] = deque()  # pieces that we got and have told nobody of
        self._asks = True
        self._said_upload_only = False

    def stop_asking(self) -> None:
        """Ask for no more blocks: there is nowhere to put them."""
        self._asks = False

    def tick(self, now: float) -> None:
        """Do what is due once a second."""
        for peer in self._peers():
            self.update_interest(peer)
        if self._super_seeder:
            self._show(self._super_seeder.tick(now))
        self._say_whether_we_only_upload()
        self._extensions.tick(now)
        self._time_out(now)
        self.feed_hungry(now)

    # --- coming and going --------------------------------------------------------------------------------

    def joined(self, peer: Peer) -> None:
        """Say who we are and what we have, before anything else."""
        connection = peer.connection
        super_seeder = self._super_seeder if self._pieces.is_complete else None
        told = Bitfield(self._pieces.piece_count) if super_seeder else self._pieces.bitfield
        self._tell_pieces(connection, told)
        self._pieces.add_peer(peer)
        self._pieces.peer_choked(peer, keeps_requests=False)  # every connection begins choked (BEP 3)
        self._extensions.greet(peer, upload_only=self._only_uploads, metadata_size=self._metadata_size)
        if self._discovery:
            self._discovery.greet(connection)
        if super_seeder:
            self._show(super_seeder.joined(peer))
            return
        for index in Bitfield(told.size, self._pieces.bitfield.bits & ~told.bits):
            connection.send(messages.Have(index))  # came before `announce_pieces` knew of the peer

    @property
    def _only_uploads(self) -> bool:
        """Whether we want nothing more; a super-seeder does not say so, for it shows that it has nothing."""
        return self._pieces.is_done and not (self._super_seeder and self._pieces.is_complete)

    def _say_whether_we_only_upload(self) -> None:
        """Repeat our handshake when that has changed: other seeds may then leave us to those who need us (BEP 21)."""
        if self._said_upload_only != self._only_uploads:
            self._said_upload_only = self._only_uploads
            for peer in self._peers():
                self._extensions.greet(peer, upload_only=self._said_upload_only, metadata_size=self._metadata_size)

    def _tell_pieces(self, connection: PeerConnection, pieces: Bitfield) -> None:
        """Say what we have in the fewest bytes; with BEP 6 something must be said."""
        if connection.fast and pieces.complete:
            connection.send(messages.HaveAll())
        elif pieces:
            connection.send(messages.BitfieldMessage(pieces.to_bytes()))
        elif connection.fast:
            connection.send(messages.HaveNone())

    def left(self, peer: Peer | None) -> None:
        """Give what a peer leaves behind, its blocks and its upload slot, to others."""
        if peer:
            self._pieces.remove_peer(peer)
            self._extensions.left(peer)
            if self._super_seeder:
                self._show(self._super_seeder.left(peer))
            self._on_interest()
            self.feed_hungry(self._clock())

    # --- messages, on the peer's worker ------------------------------------------------------------------

    def received(self, peer: Peer, batch: Sequence[Arrival]) -> None:
        """Handle what one read brought, in order; neighbouring blocks, requests and `have`s together."""
        for kind, run in groupby(batch, type):
            if handle_run := _RUN_HANDLERS.get(kind):
                handle_run(self, peer, list(run))
            elif handle := _HANDLERS.get(kind):
                for message in run:
                    handle(self, peer, message)

    def store(self, source: BlockSource, blocks: Sequence[messages.Piece | BlockRun]) -> None:
        """Store blocks that came, ask for the next ones, and only then see to pieces that became full.

        Args:
            source: who sent them, on whose worker this is.
            blocks: in the order in which they came.

        Raises:
            ProtocolViolation: a block outside the torrent, or too many that nobody asked for.
        """
        now = self._clock()
        received = self._pieces.receive_blocks(source, blocks, now)
        source.download.add(received.useful)
        source.pipeline.received(sum(each.block_count if isinstance(each, BlockRun) else 1 for each in blocks))
        for loser, cancel in received.cancels:
            assert isinstance(loser, BlockSource)
            loser.cancel(cancel)
        self._request_more(source, now)
        for piece in received.full:
            self._on_full(piece)

    def _on_choke(self, peer: Peer, _message: messages.Choke) -> None:
        """The peer forgets what we asked for, so that others may be asked; with BEP 6 it says so for each."""
        peer.connection.peer_choking = True
        self._pieces.peer_choked(peer, keeps_requests=peer.connection.fast)
        self.feed_hungry(self._clock())

    def _on_unchoke(self, peer: Peer, _message: messages.Unchoke) -> None:
        peer.connection.peer_choking = False
        self._pieces.peer_unchoked(peer)
        self._request_more(peer, self._clock())

    def _on_interested(self, peer: Peer, _message: messages.Interested) -> None:
        peer.connection.peer_interested = True
        self._on_interest()

    def _on_not_interested(self, peer: Peer, _message: messages.NotInterested) -> None:
        peer.connection.peer_interested = False
        self._on_interest()

    def _on_haves(self, peer: Peer, haves: Sequence[messages.Have]) -> None:
        indices = [have.piece_index for have in haves]
        if self._pieces.peer_has(peer, *indices):
            self._on_new_pieces(peer)
        if self._super_seeder:
            self._show(self._super_seeder.peer_has(peer, sum(1 << index for index in set(indices))))

    def _on_bitfield(self, peer: Peer, message: messages.BitfieldMessage) -> None:
        """Take a bitfield at any time: some clients send it late, or twice."""
        self._on_pieces(peer, Bitfield.from_bytes(message.bits, self._pieces.piece_count))

    def _on_have_all(self, peer: Peer, _message: messages.HaveAll) -> None:
        self._on_pieces(peer, Bitfield.full(self._pieces.piece_count))

    def _on_have_none(self, peer: Peer, _message: messages.HaveNone) -> None:
        self._on_pieces(peer, Bitfield(self._pieces.piece_count))

    def _on_pieces(self, peer: Peer, bitfield: Bitfield) -> None:
        """The peer has said which pieces it has; one that has next to none may have some of ours at once."""
        if self._super_seeder:
            self._show(self._super_seeder.peer_has(peer, bitfield.bits))
        elif len(bitfield) < SET_SIZE:
            self._allow_fast(peer)
        if self._pieces.peer_has_all(peer, bitfield.bits):
            self._on_new_pieces(peer)
        elif bitfield.complete and self._pieces.is_done:
            raise PeerDisconnected("it has everything, and we want nothing more")

    def _show(self, offers: list[Offer]) -> None:
        """Let peers know of one more piece each (BEP 16)."""
        for peer, index in offers:
            assert isinstance(peer, Peer)
            peer.connection.send(messages.Have(index))

    def _allow_fast(self, peer: Peer) -> None:
        """Tell a newcomer which pieces it may have while we choke it (BEP 6); known for IPv4 only."""
        try:
            address = IPv4Address(peer.connection.address.host)
        except ValueError:
            return
        if peer.connection.fast:
            for index in allowed_fast_set(address, self._info_hash, self._pieces.piece_count):
                if self._pieces.has_piece(index):
                    peer.connection.allow_fast(index, self._pieces.piece_size(index))

    def _on_suggest(self, peer: Peer, message: messages.SuggestPiece) -> None:
        self._pieces.peer_suggests(peer, message.piece_index)

    def _on_allowed_fast(self, peer: Peer, message: messages.AllowedFast) -> None:
        if self._pieces.peer_allows(peer, message.piece_index):
            self._request_more(peer, self._clock())

    def _on_reject(self, peer: Peer, message: messages.Reject) -> None:
        """The peer will not answer: others may, and it may be asked for something else."""
        self._pieces.request_rejected(peer, message.piece_index, message.begin)
        self.feed_hungry(self._clock())
        self._request_more(peer, self._clock())

    def _on_new_pieces(self, peer: Peer) -> None:
        """The peer has something for us: say so, and ask for it if we may."""
        peer.connection.send(messages.Interested())
        self._request_more(peer, self._clock())

    def _on_requests(self, peer: Peer, requests: Sequence[messages.Request]) -> None:
        """Queue blocks, those that may be had."""
        served = [request for request in requests if self._may_have(peer, request)]
        if served and peer.connection.upload(*served) > self._config.reqq:
            raise ProtocolViolation(f"it asks for more than {self._config.reqq} blocks at once")

    def _may_have(self, peer: Peer, request: messages.Request) -> bool:
        """Tell whether a peer will get a block; else say that it will not come; without BEP 6 silence says so."""
        index, begin, length = request
        size = self._pieces.piece_size(index) if index < self._pieces.piece_count else 0
        if not 0 < length <= self._config.max_request_length or begin + length > size:
            raise ProtocolViolation(f"it asks for what does not exist: {request}")
        if self._pieces.has_piece(index) and peer.connection.serves(request):
            return True
        if peer.connection.fast:
            peer.connection.send(messages.Reject(*request))
        return False

    def _on_cancel(self, peer: Peer, message: messages.Cancel) -> None:
        peer.connection.cancel_upload(messages.Request(*message))

    def _on_extended(self, peer: Peer, message: messages.Extended) -> None:
        """Hand it to its extension; the handshake may tell that we have nothing for each other."""
        hello = self._extensions.received(peer, message)
        if hello and hello.upload_only and self._pieces.is_done:
            raise PeerDisconnected("neither of us wants anything")

    def _on_port(self, peer: Peer, message: messages.Port) -> None:
        if self._discovery:
            self._discovery.told_port(peer.connection, message)

    # --- asking ------------------------------------------------------------------------------------------

    def _request_more(self, source: BlockSource, now: float) -> None:
        """Fill a source's pipeline, unless there is nowhere to put blocks."""
        if self._asks:
            source.ask(self._pieces, now)

    def _time_out(self, now: float) -> None:
        """Snub those who keep us waiting: they are asked for one block at a time, after all who are hungry."""
        for source in self._pieces.stalled_peers(now):
            assert isinstance(source, BlockSource)
            logger.debug("%s is snubbed: it owes us blocks and sends none", source.address)
            source.snub()

    def feed_hungry(self, now: float) -> None:
        """Ask sources again that had nothing left to be asked for, now that there may be something."""
        for source in self._pieces.take_hungry(now):
            assert isinstance(source, BlockSource)
            self._request_more(source, now)

    def update_interest(self, peer: Peer) -> None:
        """Tell a peer whether it has something for us, if that has changed; leave it when neither has."""
        if self._pieces.is_interesting(peer):
            if not peer.connection.am_interested:
                self._on_new_pieces(peer)  # it may have unchoked us long ago, and will not remind us
            return
        peer.connection.send(messages.NotInterested())
        pieces, _ = self._pieces.peer_progress(peer)
        if self._pieces.is_done and pieces == self._pieces.piece_count:
            peer.connection.close("it has everything, and we want nothing more")

    # --- serving -----------------------------------------------------------------------------------------

    def got_piece(self, index: int) -> None:
        """Take note of a piece that others will want to know of."""
        self._news.append(index)

    def announce_pieces(self) -> None:
        """Tell everybody of the pieces that we got since the last time, each of those that it lacks.

        Many at once: to go to each of two hundred peers for each of a thousand pieces a second takes longer than to
        download them.
        """
        haves: dict[int, bytes] = {}
        while self._news:
            index = self._news.popleft()
            haves[index] = messages.Have(index).encode()
        if not haves:
            return
        who_lacks = self._pieces.who_lacks(sum(1 << index for index in haves))
        told: dict[int, bytes] = {}  # most lack the same
        for peer in self._peers():
            lacked = who_lacks.get(peer)
            if lacked and lacked not in told:
                told[lacked] = b"".join([have for index, have in haves.items() if lacked >> index & 1])
            if lacked:
                peer.connection.send_encoded(told[lacked])

    def rechoke(self) -> None:
        """Let the choker decide who is unchoked, and tell those for whom it has changed.

        Called by one thread alone: of two callers the slower one might undo what the other has decided
        from newer facts.
        """
        peers = self._peers()
        views = [
            PeerView(peer, peer.connection.peer_interested, peer.download.total, peer.connection.uploaded)
            for peer in peers
        ]
        unchoked = self._choker.choose(views, self._clock(), seeding=self._pieces.is_done)
        for peer in peers:
            peer.connection.send(messages.Unchoke() if peer in unchoked else messages.Choke())


_HANDLERS: Final[dict[type, Callable[[Conversation, Peer, Any], None]]] = {
    messages.Choke: Conversation._on_choke,
    messages.Unchoke: Conversation._on_unchoke,
    messages.Interested: Conversation._on_interested,
    messages.NotInterested: Conversation._on_not_interested,
    messages.BitfieldMessage: Conversation._on_bitfield,
    messages.Cancel: Conversation._on_cancel,
    messages.HaveAll: Conversation._on_have_all,
    messages.HaveNone: Conversation._on_have_none,
    messages.Reject: Conversation._on_reject,
    messages.SuggestPiece: Conversation._on_suggest,
    messages.AllowedFast: Conversation._on_allowed_fast,
    messages.Extended: Conversation._on_extended,
    messages.Port: Conversation._on_port,
}

_RUN_HANDLERS: Final[dict[type, Callable[[Conversation, Peer, list[Any]], None]]] = {
    messages.Piece: Conversation.store,
    BlockRun: Conversation.store,
    messages.Request: Conversation._on_requests,
    messages.Have: Conversation._on_haves,
}
"""What comes in runs: one lock and one wake-up are enough for all that one read brought."""
