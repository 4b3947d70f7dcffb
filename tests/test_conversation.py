"""What messages lead to, with connections that only write down what they are told to send."""

import socket
from dataclasses import dataclass, field
from random import Random
from typing import cast

import pytest

from tests.support import FakeClock, payload
from torrent_client.active_piece import ActivePiece
from torrent_client.config import BLOCK_SIZE, Config
from torrent_client.conversation import Conversation
from torrent_client.errors import PeerDisconnected, ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_extensions import PeerExtensions
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol import messages
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.tracker_client import PeerAddress

PIECE = 2 * BLOCK_SIZE
PIECES = 30
INFO_HASH = b"h" * 20


@dataclass(eq=False)
class FakeConnection:
    """Stands for a PeerConnection; `sent` is what the peer would get, in order."""

    remote: messages.Handshake
    fast: bool
    address: PeerAddress
    outgoing: bool = True
    peer_choking: bool = True
    peer_interested: bool = False
    am_choking: bool = True
    am_interested: bool = False
    uploaded: int = 0
    close_reason: str | None = None
    sent: list[messages.Message] = field(default_factory=list)
    uploads: list[messages.Request] = field(default_factory=list)
    allowed: set[int] = field(default_factory=set)

    def send(self, message: messages.Message, **_options: bool) -> None:
        """Keep our flags as the real one does, and write the message down if it says something new."""
        before = (self.am_choking, self.am_interested)
        if isinstance(message, messages.Choke | messages.Unchoke):
            self.am_choking = isinstance(message, messages.Choke)
        elif isinstance(message, messages.Interested | messages.NotInterested):
            self.am_interested = isinstance(message, messages.Interested)
        else:
            before = (not self.am_choking, False)
        if before != (self.am_choking, self.am_interested):
            self.sent.append(message)

    def send_encoded(self, data: bytes) -> None:
        """Write down the messages in `data`."""
        reader = messages.MessageReader()
        for start in range(0, len(data), 4096):
            part = data[start : start + 4096]
            reader.writable()[: len(part)] = part
            self.sent += reader.received(len(part))

    def serves(self, request: messages.Request) -> bool:
        """Serve as the real one does."""
        return not self.am_choking or request.piece_index in self.allowed

    def upload(self, *requests: messages.Request) -> int:
        """Queue blocks."""
        self.uploads += requests
        return len(self.uploads)

    def cancel_upload(self, request: messages.Request) -> None:
        """Take a block back."""
        self.uploads.remove(request)

    def allow_fast(self, index: int, _size: int) -> None:
        """Allow a piece."""
        self.allowed.add(index)
        self.sent.append(messages.AllowedFast(index))

    def close(self, reason: str) -> None:
        """Write down why."""
        self.close_reason = reason

    def take(self, kind: type) -> list[messages.Message]:
        """Return what was sent of one kind."""
        return [message for message in self.sent if isinstance(message, kind)]


class Room:
    """A conversation, the truth about pieces, and peers to talk with."""

    def __init__(self, clock: FakeClock, *, complete: bool = False, super_seed: bool = False) -> None:
        hashes = b"".join(payload(20, index) for index in range(PIECES))
        self.pieces = PieceManager(hashes, PIECE, PIECES * PIECE, Config(), Random(1))
        for index in range(PIECES) if complete else ():
            self.pieces.mark_complete(index)
        self.peers: list[Peer] = []
        self.full: list[ActivePiece] = []
        self.talk = Conversation(
            INFO_HASH,
            self.pieces,
            lambda: self.peers,
            self.full.append,
            self._on_interest,
            PeerExtensions([], 6881, Config()),
            Config(),
            Random(1),
            clock,
            super_seed=super_seed,
        )

    def _on_interest(self) -> None:
        self.talk.rechoke()

    def join(self, *, fast: bool = True, host: str = "192.0.2.7") -> tuple[Peer, FakeConnection]:
        """Let a peer in."""
        reserved = messages.reserved_bits(messages.RESERVED_EXTENSIONS)
        handshake = messages.Handshake(INFO_HASH, b"-XX0001-%012d" % len(self.peers), reserved)
        connection = FakeConnection(handshake, fast, PeerAddress(host, 6881))
        peer = Peer(cast(PeerConnection, connection), "given", Config())
        self.peers.append(peer)
        self.talk.joined(peer)
        return peer, connection

    def say(self, peer: Peer, *batch: messages.Message) -> None:
        """Let a peer send messages in one read."""
        self.talk.received(peer, batch)
        self.pieces.check_invariants()


@pytest.fixture
def room(clock: FakeClock) -> Room:
    """Return a room in which nothing has been downloaded."""
    return Room(clock)


@pytest.fixture
def seed(clock: FakeClock) -> Room:
    """Return a room in which we have everything."""
    return Room(clock, complete=True)


def test_a_newcomer_with_the_fast_extension_says_so_in_five_bytes(room: Room, seed: Room) -> None:
    """Have none and have all stand for a bitfield; one of the three comes first (BEP 6)."""
    assert room.join()[1].sent[0] == messages.HaveNone()
    assert seed.join()[1].sent[0] == messages.HaveAll()


def test_without_the_fast_extension_a_bitfield_is_sent_or_nothing(room: Room, seed: Room) -> None:
    """Nobody gets messages that it did not offer to understand."""
    assert not isinstance(room.join(fast=False)[1].sent[0], messages.HaveNone | messages.BitfieldMessage)
    assert isinstance(seed.join(fast=False)[1].sent[0], messages.BitfieldMessage)


def test_our_extension_handshake_tells_limits_and_whether_we_only_upload(room: Room, seed: Room) -> None:
    """`reqq` lets the peer pipeline deeply; `upload_only` lets other seeds leave (BEP 21)."""
    hello = [ExtendedHandshake.decode(one.payload) for one in room.join()[1].take(messages.Extended)]
    assert [(one.request_queue, one.upload_only) for one in hello] == [(2000, False)]
    hello = [ExtendedHandshake.decode(one.payload) for one in seed.join()[1].take(messages.Extended)]
    assert [one.upload_only for one in hello] == [True]


def test_peers_hear_when_we_want_nothing_more(room: Room, clock: FakeClock) -> None:
    """Once, in another handshake (BEP 21), and those who come later in their first one."""
    _, connection = room.join()
    room.talk.tick(clock())
    for index in range(PIECES):
        room.pieces.mark_complete(index)
    room.talk.tick(clock())
    room.talk.tick(clock())
    hellos = [ExtendedHandshake.decode(one.payload) for one in connection.take(messages.Extended)]
    assert [one.upload_only for one in hellos] == [False, True]
    assert [one.request_queue for one in hellos] == [2000, 2000]


def test_two_that_only_upload_part(seed: Room) -> None:
    """Neither wants anything of the other."""
    peer, _ = seed.join()
    with pytest.raises(PeerDisconnected):
        seed.say(peer, messages.Extended(0, ExtendedHandshake(upload_only=True).encode()))


def test_have_all_makes_a_peer_interesting(room: Room) -> None:
    """And an unchoke is answered with requests."""
    peer, connection = room.join()
    room.say(peer, messages.HaveAll(), messages.Unchoke())
    assert connection.am_interested
    assert len(connection.take(messages.Request)) > 0


def test_a_choked_peer_is_asked_for_what_it_allows_and_nothing_else(room: Room) -> None:
    """Allowed fast pieces let us begin before anybody has unchoked us."""
    peer, connection = room.join()
    room.say(peer, messages.HaveAll())
    assert connection.take(messages.Request) == []
    room.say(peer, messages.AllowedFast(7))
    assert {request.piece_index for request in connection.take(messages.Request)} == {7}


def test_a_suggested_piece_wins_among_equals(room: Room) -> None:
    """It is cheap for the peer to send, and as good for us as any other (BEP 6)."""
    peer, connection = room.join()
    room.say(peer, messages.HaveAll(), messages.SuggestPiece(23), messages.Unchoke())
    first = connection.take(messages.Request)[0]
    assert isinstance(first, messages.Request)
    assert first.piece_index == 23


@pytest.mark.parametrize("kind", [messages.SuggestPiece, messages.AllowedFast, messages.Have])
def test_pieces_that_do_not_exist_end_the_connection(room: Room, kind: type) -> None:
    """No correct client speaks of them."""
    peer, _ = room.join()
    with pytest.raises(ProtocolViolation):
        room.say(peer, kind(PIECES))


def test_a_rejected_block_is_asked_of_somebody_else(room: Room) -> None:
    """And the one that rejected it is not asked for that piece again until it unchokes anew."""
    first, to_first = room.join()
    room.say(first, messages.HaveAll(), messages.Unchoke())
    asked = to_first.take(messages.Request)
    second, to_second = room.join()
    room.say(second, messages.HaveAll())
    rejected = [messages.Reject(*request) for request in asked]
    to_first.sent.clear()
    room.say(first, *rejected)
    again = {request[:2] for request in to_first.take(messages.Request)}
    assert not again & {request[:2] for request in asked}
    room.say(second, messages.Unchoke())
    wanted = {request[:2] for request in to_second.take(messages.Request)}
    assert wanted & {request[:2] for request in asked}


def test_a_choke_keeps_requests_alive_only_with_the_fast_extension(room: Room) -> None:
    """A plain peer forgets them; a fast one answers or rejects each."""
    for fast, left in ((True, True), (False, False)):
        peer, _ = room.join(fast=fast)
        room.say(peer, messages.HaveAll() if fast else messages.BitfieldMessage(b"\xff\xff\xff\xfc"))
        room.say(peer, messages.Unchoke(), messages.Choke())
        assert bool(room.pieces.peer_progress(peer)[1]) is left
        room.talk.left(peer)
        room.peers.remove(peer)


def test_requests_that_will_not_be_answered_are_rejected(seed: Room, room: Room) -> None:
    """Because the peer is choked, or because we lack the piece; without BEP 6 silence says it."""
    request = messages.Request(3, 0, BLOCK_SIZE)
    for place in (seed, room):
        peer, connection = place.join()
        place.say(peer, request)
        assert connection.take(messages.Reject) == [messages.Reject(*request)]
        plain, to_plain = place.join(fast=False)
        place.say(plain, request)
        assert to_plain.take(messages.Reject) == []
        assert connection.uploads == to_plain.uploads == []


@pytest.mark.parametrize(
    "request_",
    [
        messages.Request(PIECES, 0, BLOCK_SIZE),
        messages.Request(0, PIECE, 1),
        messages.Request(0, 0, 0),
        messages.Request(0, PIECE - 1, 2),
        messages.Request(0, 0, 0xFFFFFFFF),
        messages.Request(0xFFFFFFFF, 0xFFFFFFFF, BLOCK_SIZE),
    ],
)
def test_requests_for_what_does_not_exist_end_the_connection(seed: Room, request_: messages.Request) -> None:
    """No correct client asks for bytes outside the torrent."""
    peer, _ = seed.join()
    with pytest.raises(ProtocolViolation):
        seed.say(peer, request_)


def test_a_flood_of_requests_ends_the_connection(seed: Room) -> None:
    """The queue that we advertise is all that a peer gets."""
    peer, connection = seed.join()
    seed.say(peer, messages.Interested())
    assert not connection.am_choking
    flood = [messages.Request(number % PIECES, 0, 1 + number) for number in range(Config().reqq + 1)]
    with pytest.raises(ProtocolViolation):
        seed.say(peer, *flood)


def test_a_newcomer_may_have_a_few_pieces_while_it_is_choked(seed: Room) -> None:
    """Those of the BEP's set, which both sides can compute."""
    peer, connection = seed.join(host="80.4.4.200")
    seed.say(peer, messages.HaveNone())
    allowed = {message.piece_index for message in connection.take(messages.AllowedFast)}
    assert len(allowed) == 10
    index = min(allowed)
    seed.say(peer, messages.Request(index, 0, BLOCK_SIZE))
    assert connection.uploads == [messages.Request(index, 0, BLOCK_SIZE)]


def test_what_is_allowed_is_served_once() -> None:
    """Else a stranger that is choked could download for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    handshake = messages.Handshake(INFO_HASH, b"-XX0001-123456789012", messages.reserved_bits(messages.RESERVED_FAST))
    config = Config()
    with (
        theirs,
        PeerConnection(
            PeerAddress("192.0.2.7", 6881),
            INFO_HASH,
            b"o" * 20,
            sock=ours,
            remote_handshake=handshake,
            fast=True,
            config=config,
        ) as connection,
    ):
        connection.handshake()
        connection.allow_fast(3, PIECE)
        request = messages.Request(3, 0, BLOCK_SIZE)
        assert [connection.serves(request) for _ in range(4)] == [True, True, False, False]
        connection.allow_fast(3, PIECE)
        assert not connection.serves(request)
        assert not connection.serves(messages.Request(4, 0, BLOCK_SIZE))


def test_an_interested_peer_is_unchoked_at_once_while_a_slot_is_free(seed: Room) -> None:
    """Nobody waits for the next round beside a free slot."""
    peer, connection = seed.join()
    assert connection.am_choking
    seed.say(peer, messages.Interested())
    assert not connection.am_choking


def test_no_more_peers_are_unchoked_than_there_are_slots(seed: Room) -> None:
    """And when one leaves, another gets its place."""
    joined = [seed.join() for _ in range(9)]
    for peer, _ in joined:
        seed.say(peer, messages.Interested())
    served = [pair for pair in joined if not pair[1].am_choking]
    assert len(served) == Config().upload_slots
    gone = served[0][0]
    seed.peers.remove(gone)
    seed.talk.left(gone)
    assert sum(not connection.am_choking for peer, connection in joined if peer is not gone) == Config().upload_slots


def test_full_pieces_are_handed_on_after_the_next_requests_went_out(room: Room) -> None:
    """The line stays busy while the piece is verified."""
    peer, connection = room.join()
    room.say(peer, messages.HaveAll(), messages.Unchoke())
    asked = connection.take(messages.Request)
    before = len(asked)
    room.say(peer, *(messages.Piece(*request[:2], bytes(request.length)) for request in asked))
    assert len(room.full) == before // 2
    assert len(connection.take(messages.Request)) > before


def test_a_super_seed_hides_what_it_has(clock: FakeClock) -> None:
    """A peer is told of one piece, and of another when the first one has been passed on (BEP 16)."""
    room = Room(clock, complete=True, super_seed=True)
    first, to_first = room.join()
    assert to_first.sent[0] == messages.HaveNone()
    hello = [ExtendedHandshake.decode(one.payload) for one in to_first.take(messages.Extended)]
    assert not hello[0].upload_only
    (shown,) = to_first.take(messages.Have)
    second, _ = room.join()
    room.say(first, shown)
    assert len(to_first.take(messages.Have)) == 1
    room.say(second, shown)
    assert len(to_first.take(messages.Have)) == 2


def test_a_super_seed_does_not_wait_for_those_who_have_gone_or_do_nothing(clock: FakeClock) -> None:
    """When nobody is left to pass a piece on to, and after a minute in any case, there is another."""
    room = Room(clock, complete=True, super_seed=True)
    first, to_first = room.join()
    second, _ = room.join()
    (shown,) = to_first.take(messages.Have)
    room.say(first, shown)
    clock.advance(60)
    room.talk.tick(clock())
    assert len(to_first.take(messages.Have)) == 2
    room.say(first, to_first.take(messages.Have)[1])
    room.peers.remove(second)
    room.talk.left(second)
    assert len(to_first.take(messages.Have)) == 3


def test_unknown_messages_and_extensions_are_ignored(room: Room) -> None:
    """Future clients may say more than we know."""
    peer, connection = room.join()
    before = list(connection.sent)
    room.say(peer, messages.Unknown(99, b"?"), messages.Extended(77, b"?"), messages.Port(6881), messages.KeepAlive())
    assert connection.sent == before


def test_new_pieces_are_told_to_those_who_lack_them_together(room: Room) -> None:
    """Each once, whatever a peer has of them; a second look finds nothing new."""
    _, to_one = room.join()
    other, to_other = room.join()
    room.say(other, messages.Have(1))
    for index in (2, 1):
        room.pieces.mark_complete(index)
        room.talk.got_piece(index)
    assert not to_one.take(messages.Have)
    room.talk.announce_pieces()
    room.talk.announce_pieces()
    assert to_one.take(messages.Have) == [messages.Have(2), messages.Have(1)]
    assert to_other.take(messages.Have) == [messages.Have(2)]


def test_a_peer_that_joins_before_a_piece_is_told_hears_of_it(room: Room) -> None:
    """In its bitfield, if not before; twice is harmless, never would be a piece that nobody fetches."""
    room.pieces.mark_complete(3)
    room.talk.got_piece(3)
    _, connection = room.join()
    (bitfield,) = connection.take(messages.BitfieldMessage)
    assert isinstance(bitfield, messages.BitfieldMessage)
    assert bitfield.bits[0] >> 4 & 1
