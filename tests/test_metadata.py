"""Metadata from peers: the messages, whom to ask for what, liars, and what we serve."""

from hashlib import sha1

import pytest

from tests.support import FakeClock, payload
from torrent_client.config import MIB
from torrent_client.errors import ProtocolViolation
from torrent_client.metadata_fetcher import (
    ANSWER_LIMIT,
    MAX_HELD,
    PAUSE_AFTER_REJECT,
    MetadataFetcher,
    MetadataProgress,
)
from torrent_client.metadata_server import MAX_WAITING, TIMES_SERVED, MetadataServer
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.metadata import MAX_REFUSALS, METADATA_PIECE, MetadataKind, MetadataMessage

INFO = payload(2 * METADATA_PIECE + 100)
HASH = sha1(INFO).digest()
PIECES = 3


class SpeakingPeer:
    """A peer that keeps what it is sent."""

    def __init__(self, size: int | None = len(INFO)) -> None:
        self.hello = ExtendedHandshake(extensions={"ut_metadata": 3}, metadata_size=size)
        self.sent: list[MetadataMessage] = []
        self.connection = self
        self.waiting = 0  # messages that it has not read yet

    def send_extended(self, extension: str, payload: bytes) -> None:
        assert extension == "ut_metadata"
        message = MetadataMessage.decode(payload)
        assert message
        self.sent.append(message)

    def take(self) -> list[int]:
        """Return the pieces that it was asked for since the last call."""
        pieces = [message.piece for message in self.sent if message.kind is MetadataKind.REQUEST]
        self.sent.clear()
        return pieces


class Rig:
    """A fetcher and what it reported."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metadata: list[bytes] = []
        self.liars: list[object] = []
        self.fetcher = MetadataFetcher(HASH, self.metadata.append, self.liars.append, self.clock)

    def answer(self, peer: SpeakingPeer, piece: int, data: bytes | None = None, total: int = len(INFO)) -> None:
        """Let a peer send a piece."""
        good = INFO[piece * METADATA_PIECE : (piece + 1) * METADATA_PIECE]
        message = MetadataMessage(MetadataKind.DATA, piece, total, good if data is None else data)
        self.fetcher.received(peer, message.encode())  # type: ignore[arg-type]

    def greet(self, *peers: SpeakingPeer) -> None:
        """Let peers say that they have metadata."""
        for peer in peers:
            self.fetcher.greeted(peer)  # type: ignore[arg-type]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    "message",
    [
        MetadataMessage(MetadataKind.REQUEST, 0),
        MetadataMessage(MetadataKind.DATA, 5, 100_000, b"x" * 16_384),
        MetadataMessage(MetadataKind.REJECT, 2),
    ],
)
def test_messages_survive_encoding(message: MetadataMessage) -> None:
    assert MetadataMessage.decode(message.encode()) == message


def test_the_example_of_the_specification_is_read() -> None:
    data = MetadataMessage.decode(b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxx")
    assert data == MetadataMessage(MetadataKind.DATA, 0, 34256, b"xxxx")


def test_an_unknown_kind_is_ignored_and_nonsense_is_a_violation() -> None:
    assert MetadataMessage.decode(b"d8:msg_typei9e5:piecei0ee") is None
    for bad in (b"", b"le", b"d8:msg_typei0ee", b"d8:msg_typei0e5:piecei-1ee", b"i1e"):
        with pytest.raises(ProtocolViolation):
            MetadataMessage.decode(bad)


def test_all_pieces_of_one_peer_make_the_metadata(rig: Rig) -> None:
    peer = SpeakingPeer()
    rig.greet(peer)
    assert sorted(peer.take()) == [0, 1, 2]
    for piece in (2, 0):
        rig.answer(peer, piece)
    assert rig.fetcher.progress() == MetadataProgress(2, PIECES, 1)
    rig.answer(peer, 1)
    assert rig.metadata == [INFO]
    assert not rig.liars


def test_a_piece_is_asked_of_a_second_peer_only_when_nothing_else_is_left(rig: Rig) -> None:
    first, second = SpeakingPeer(), SpeakingPeer()
    rig.greet(first)
    assert sorted(first.take()) == [0, 1, 2]
    rig.answer(first, 0)
    rig.greet(second)
    assert sorted(second.take()) == [1, 2]
    rig.answer(second, 1)
    rig.answer(first, 1)
    rig.answer(first, 2)
    assert rig.metadata == [INFO]


def test_a_peer_without_a_size_is_asked_for_nothing(rig: Rig) -> None:
    peer = SpeakingPeer(None)
    rig.greet(peer)
    assert not peer.sent


def test_a_single_supplier_of_wrong_bytes_is_the_liar(rig: Rig) -> None:
    liar = SpeakingPeer()
    rig.greet(liar)
    for piece in range(PIECES):
        rig.answer(liar, piece, bytes(min(METADATA_PIECE, len(INFO) - piece * METADATA_PIECE)))
    assert rig.liars == [liar]
    assert not rig.metadata


def test_after_a_mixture_that_failed_each_peer_must_give_everything_itself(rig: Rig) -> None:
    honest, liar = SpeakingPeer(), SpeakingPeer()
    rig.greet(honest)
    rig.greet(liar)
    honest.take(), liar.take()
    rig.answer(honest, 0)
    rig.answer(liar, 1, bytes(METADATA_PIECE))
    rig.answer(honest, 2)
    assert not rig.metadata
    assert not rig.liars
    rig.fetcher.tick(rig.clock())
    assert {0, 1, 2} <= {*honest.take()} | {1}
    for piece in range(PIECES):
        rig.answer(honest, piece)
    assert rig.metadata == [INFO]


def test_those_who_claim_another_size_do_not_spoil_the_attempt(rig: Rig) -> None:
    honest, liar = SpeakingPeer(), SpeakingPeer(METADATA_PIECE)
    rig.greet(liar, honest)
    rig.answer(liar, 0, bytes(METADATA_PIECE), total=METADATA_PIECE)
    assert rig.liars == [liar]
    for piece in range(PIECES):
        rig.answer(honest, piece)
    assert rig.metadata == [INFO]


def test_what_nobody_asked_for_is_ignored(rig: Rig) -> None:
    peer = SpeakingPeer()
    rig.answer(peer, 0)
    rig.greet(peer)
    rig.answer(peer, 0)
    rig.answer(peer, 0)
    assert rig.fetcher.progress().pieces_done == 1


@pytest.mark.parametrize(("data", "total"), [(b"short", len(INFO)), (None, 5)])
def test_a_piece_of_the_wrong_size_is_a_violation(rig: Rig, data: bytes | None, total: int) -> None:
    peer = SpeakingPeer()
    rig.greet(peer)
    with pytest.raises(ProtocolViolation):
        rig.answer(peer, 0, data, total)


def test_a_peer_that_changes_its_mind_about_the_size_is_in_violation(rig: Rig) -> None:
    peer = SpeakingPeer()
    rig.greet(peer)
    peer.hello = ExtendedHandshake(extensions={"ut_metadata": 3}, metadata_size=5)
    with pytest.raises(ProtocolViolation):
        rig.greet(peer)


def test_a_rejecting_peer_is_left_alone_for_a_while(rig: Rig) -> None:
    peer = SpeakingPeer()
    rig.greet(peer)
    peer.take()
    for piece in range(PIECES):
        rig.fetcher.received(peer, MetadataMessage(MetadataKind.REJECT, piece).encode())  # type: ignore[arg-type]
    rig.fetcher.tick(rig.clock())
    assert peer.take() == []
    rig.clock.advance(PAUSE_AFTER_REJECT)
    rig.fetcher.tick(rig.clock())
    assert sorted(peer.take()) == [0, 1, 2]


def test_a_silent_peer_is_given_up_and_asked_again_later(rig: Rig) -> None:
    silent, other = SpeakingPeer(), SpeakingPeer()
    rig.greet(silent)
    rig.clock.advance(ANSWER_LIMIT)
    rig.fetcher.tick(rig.clock())
    rig.greet(other)
    assert sorted(other.take()) == [0, 1, 2]


def test_many_invented_sizes_do_not_fill_the_memory(rig: Rig) -> None:
    peers = [SpeakingPeer(10 * MIB - 20 + number) for number in range(20)]
    rig.greet(*peers)
    assert sum(bool(peer.take()) for peer in peers) <= MAX_HELD // (9 * MIB)


def test_invented_sizes_shut_nobody_out_even_when_those_who_claimed_them_have_gone(rig: Rig) -> None:
    """Five strangers that claim 10 MiB each take all the memory there is; whoever claims less gets some of it."""
    liars = [SpeakingPeer(10 * MIB - number) for number in range(5)]
    rig.greet(*liars)
    for liar in liars:
        rig.answer(liar, 0, bytes(METADATA_PIECE), total=liar.hello.metadata_size or 0)
    rig.fetcher.left(liars[0])  # type: ignore[arg-type]
    honest = SpeakingPeer()
    rig.greet(honest)
    for piece in honest.take():
        rig.answer(honest, piece)
    assert rig.metadata == [INFO]


def test_an_attempt_that_had_to_make_room_does_not_push_out_the_smaller_one(rig: Rig) -> None:
    liars = [SpeakingPeer(10 * MIB - number) for number in range(5)]
    rig.greet(*liars)
    honest = SpeakingPeer()
    rig.greet(honest)
    rig.greet(*liars)
    rig.fetcher.tick(rig.clock())
    for piece in range(PIECES):
        rig.answer(honest, piece)
    assert rig.metadata == [INFO]


def test_a_peer_that_left_is_forgotten_but_its_pieces_stay(rig: Rig) -> None:
    first, second = SpeakingPeer(), SpeakingPeer()
    rig.greet(first)
    rig.answer(first, 0)
    rig.fetcher.left(first)  # type: ignore[arg-type]
    rig.greet(second)
    assert sorted(second.take()) == [1, 2]


def test_we_reject_requests_while_we_have_nothing(rig: Rig) -> None:
    peer = SpeakingPeer()
    rig.fetcher.received(peer, MetadataMessage(MetadataKind.REQUEST, 0).encode())  # type: ignore[arg-type]
    assert peer.sent == [MetadataMessage(MetadataKind.REJECT, 0)]


def test_who_asks_again_and_again_is_left(rig: Rig) -> None:
    """By those who have the metadata, and by those who have not; a megabyte of requests comes in one read."""
    server, request = MetadataServer(INFO), MetadataMessage(MetadataKind.REQUEST, PIECES).encode()
    for asked in (server, rig.fetcher):
        peer = SpeakingPeer()
        for _ in range(MAX_REFUSALS):
            asked.received(peer, request)  # type: ignore[arg-type]
        with pytest.raises(ProtocolViolation, match="again and again"):
            asked.received(peer, request)  # type: ignore[arg-type]
        asked.left(peer)  # type: ignore[arg-type]
        asked.received(peer, request)  # type: ignore[arg-type]


def test_the_server_gives_every_piece_and_rejects_others() -> None:
    server, peer = MetadataServer(INFO), SpeakingPeer()
    for piece in (0, 1, 2, 3):
        server.received(peer, MetadataMessage(MetadataKind.REQUEST, piece).encode())  # type: ignore[arg-type]
    assert b"".join(message.data for message in peer.sent[:3]) == INFO
    assert {message.total_size for message in peer.sent[:3]} == {len(INFO)}
    assert peer.sent[3] == MetadataMessage(MetadataKind.REJECT, 3)


def test_a_peer_that_asks_and_does_not_read_gets_no_more_until_it_does() -> None:
    """What waits for it is in our memory, and the metadata may have 10 MiB."""
    server, peer = MetadataServer(INFO), SpeakingPeer()
    request = MetadataMessage(MetadataKind.REQUEST, 0).encode()
    for peer.waiting in (MAX_WAITING - 1, MAX_WAITING, 0):
        server.received(peer, request)  # type: ignore[arg-type]
    assert [message.kind for message in peer.sent] == [MetadataKind.DATA, MetadataKind.REJECT, MetadataKind.DATA]


def test_the_server_does_not_serve_a_flood() -> None:
    server, peer = MetadataServer(INFO), SpeakingPeer()
    for _ in range(50):
        server.received(peer, MetadataMessage(MetadataKind.REQUEST, 0).encode())  # type: ignore[arg-type]
    assert sum(message.kind is MetadataKind.DATA for message in peer.sent) == TIMES_SERVED * PIECES
    server.left(peer)  # type: ignore[arg-type]
