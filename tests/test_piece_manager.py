"""The one truth about pieces: scenarios, and random histories with the books checked after every step."""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from hashlib import sha1
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support import FakeClock, payload
from torrent_client.active_piece import ActivePiece
from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH, Config
from torrent_client.errors import ProtocolViolation
from torrent_client.piece_manager import PieceManager
from torrent_client.piece_picker import PiecePicker, WantedPieces
from torrent_client.piece_table import PieceHashes, PieceState
from torrent_client.protocol.messages import Cancel, Piece, Request
from torrent_client.protocol.scatter import Arrival, BlockRun, Places, ScatterReader
from torrent_client.request_book import UNASKED_BLOCKS_TOLERATED, Received
from torrent_client.smart_ban import SmartBan

MISSING, DOWNLOADING, VERIFYING, COMPLETE = PieceState

RAREST_FIRST = Config(random_first_pieces=0)


class Lab:
    """A PieceManager together with the torrent's true bytes, so that peers can answer.

    Args:
        pieces: how many, unless `total` says it.
        blocks: blocks of a piece, unless `piece_length` says it.
        piece_length: bytes of a piece.
        total: bytes of the torrent.
        config: limits; no random first pieces by default.
        seed: of the random ties.
        options: more of the PieceManager's arguments.
    """

    def __init__(
        self,
        pieces: int = 4,
        blocks: int = 4,
        *,
        piece_length: int = 0,
        total: int = 0,
        config: Config = RAREST_FIRST,
        seed: int = 0,
        **options: Any,  # noqa: ANN401  # handed on as they are
    ):
        piece_length = piece_length or blocks * BLOCK_SIZE
        self.data = payload(total or pieces * piece_length)
        cuts = range(0, len(self.data), piece_length)
        hashes = b"".join(sha1(self.data[cut : cut + piece_length]).digest() for cut in cuts)
        self.manager = PieceManager(hashes, piece_length, len(self.data), config, Random(seed), **options)
        self.clock = FakeClock()

    def join(self, *peers: str, pieces: Iterable[int] | None = None, rate: float = 0.0) -> None:
        """Let peers connect that have some pieces, by default all."""
        indices = range(self.manager.piece_count) if pieces is None else pieces
        for peer in peers:
            self.manager.add_peer(peer)
            self.manager.peer_has_all(peer, bits(indices))
            self.manager.set_rate(peer, rate)

    def ask(self, peer: str, depth: int = 16) -> list[Request]:
        """Return what a peer is asked for now, and check the books."""
        requests = self.manager.next_requests(peer, depth, self.clock())
        check_books(self.manager)
        return requests

    def block(self, request: Request, *, corrupt: bool = False) -> Piece:
        """Return the answer to a request."""
        start = request.piece_index * self.manager.piece_length + request.begin
        data = self.data[start : start + request.length]
        return Piece(request.piece_index, request.begin, bytes(byte ^ 255 for byte in data) if corrupt else data)

    def give(self, peer: str, requests: Iterable[Request], *, corrupt: bool = False) -> Received:
        """Let a peer answer requests in one batch, and check the books."""
        return self.send(peer, *(self.block(request, corrupt=corrupt) for request in requests))

    def send(self, peer: str, *blocks: Piece) -> Received:
        """Let a peer send blocks, asked for or not, and check the books whatever comes of it."""
        try:
            return self.manager.receive_blocks(peer, blocks, self.clock())
        finally:
            check_books(self.manager)

    def keep(self, full: Iterable[ActivePiece]) -> None:
        """Verify full pieces, which must be good, and keep them."""
        for piece in full:
            assert self.manager.verify_piece(piece.index, piece.data)
            self.manager.mark_complete(piece.index)
            check_books(self.manager)

    def change_mind(self, peer: str) -> None:
        """Let a peer choke us, which releases what it was asked for, and unchoke us at once."""
        self.manager.peer_choked(peer, keeps_requests=False)
        self.manager.peer_unchoked(peer)

    def states(self) -> list[PieceState]:
        """Return the state of every piece."""
        return [PieceState(state) for state in self.manager.states()]


def bits(indices: Iterable[int]) -> int:
    """Return a set of piece indices as an integer."""
    return sum(1 << index for index in set(indices))


def blocks_of(requests: Iterable[Request]) -> list[tuple[int, int]]:
    """Return requests as (piece, block number)."""
    return [(request.piece_index, request.begin // BLOCK_SIZE) for request in requests]


def check_books(manager: PieceManager) -> None:
    """Raise AssertionError unless all tables of a manager tell the same story."""
    manager.check_invariants()
    states = manager.states()
    complete = bits(index for index, state in enumerate(states) if state == COMPLETE)
    assert manager._table.lacking == bits(range(manager.piece_count)) & ~complete
    assert manager._table.missing == bits(index for index, state in enumerate(states) if state == MISSING)
    assert manager.complete_bytes == sum(
        manager.piece_size(index) for index in range(len(states)) if complete >> index & 1
    )
    assert len(manager._book.active) <= manager._block_picker.max_active
    for index in range(manager.piece_count):
        assert manager._piece_picker.availability(index) == sum(
            peer.pieces >> index & 1 for peer in manager._book.peers.values()
        )
    for piece in manager._book.active.values():
        check_piece(manager, piece)


def check_piece(manager: PieceManager, piece: ActivePiece) -> None:
    """Raise AssertionError unless every lacking block of a begun piece can still come, and is asked for once."""
    first_number = piece.index * manager._book.blocks_per_piece
    assert piece.owner is None or piece.owner in manager._book.peers, "its owner is gone"
    for block in range(piece.block_count):
        asked = {key for key, peer in manager._book.peers.items() if first_number + block in peer.in_flight}
        booked = {piece.requesters[block], piece.second_requesters.get(block)} - {None}
        if piece.received[block]:
            assert not asked
            assert block not in piece.second_requesters
        else:
            assert asked == booked
            assert len(asked) <= 2
            assert bool(asked) != (block in piece.unrequested)
    if piece.unrequested:
        if piece.owner is None:
            assert not piece.exclusive, "nobody may ever ask for the rest of it"
        else:
            assert piece in manager._book.peers[piece.owner].own, "its owner does not know that there is a rest"
    if piece.remaining < piece.block_count:
        assert piece.buffer is not None


def download(lab: Lab, peer: str, depth: int = 16) -> dict[int, bytes]:
    """Let one peer send everything; return the pieces as they were verified."""
    pieces = {}
    while not lab.manager.is_complete:
        requests = lab.ask(peer, depth)
        assert requests, "nothing is asked for and the torrent is not complete"
        received = lab.give(peer, requests)
        for piece in received.full:
            pieces[piece.index] = bytes(piece.data)
        lab.keep(received.full)
    return pieces


# --- pieces -----------------------------------------------------------------------------------------------


def test_a_new_torrent_lacks_every_piece() -> None:
    """Nothing is complete before anything came, and no index outside the torrent ever is."""
    lab = Lab(pieces=3)
    assert lab.states() == [MISSING] * 3
    assert (lab.manager.complete_count, lab.manager.complete_bytes, lab.manager.is_complete) == (0, 0, False)
    assert not len(lab.manager.bitfield)
    assert not any(lab.manager.has_piece(index) for index in (-1, 0, 2, 3))


def test_a_torrent_without_pieces_is_complete() -> None:
    """A torrent of empty files has nothing to wait for."""
    manager = PieceManager(b"", BLOCK_SIZE, 0, Config(), Random(0))
    manager.add_peer("a")
    assert manager.is_complete
    assert manager.bitfield.to_bytes() == b""
    assert manager.next_requests("a", 16, 0.0) == []
    manager.check_invariants()


def test_a_piece_goes_through_its_states_in_order() -> None:
    """MISSING, then DOWNLOADING with the first request, VERIFYING with the last block, COMPLETE when told."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a")
    requests = lab.ask("a")
    assert lab.states() == [DOWNLOADING]
    assert lab.give("a", requests[:1]).full == []
    assert lab.states() == [DOWNLOADING]
    (piece,) = lab.give("a", requests[1:]).full
    assert lab.states() == [VERIFYING]
    assert bytes(piece.data) == lab.data
    assert lab.manager.mark_complete(0)  # it was the last one
    assert not lab.manager.mark_complete(0)
    check_books(lab.manager)
    assert lab.states() == [COMPLETE]
    assert lab.manager.is_complete
    assert lab.manager.has_piece(0)
    assert list(lab.manager.bitfield) == [0]
    assert lab.ask("a") == []


def test_get_next_piece_begins_the_rarest_piece_that_the_peer_has() -> None:
    """The guide's call makes the piece DOWNLOADING and its peer the one that is asked for it."""
    lab = Lab(pieces=4, blocks=1)
    lab.join("a", pieces=[0, 1, 2])
    lab.join("b", pieces=[0, 2, 3])
    assert lab.manager.get_next_piece("a") == 1
    check_books(lab.manager)
    assert lab.states() == [MISSING, DOWNLOADING, MISSING, MISSING]
    assert {lab.manager.get_next_piece("a"), lab.manager.get_next_piece("a")} == {0, 2}
    assert lab.manager.get_next_piece("a") is None  # 3 is missing, but it does not have that one
    assert blocks_of(lab.ask("a")) != []
    check_books(lab.manager)


def test_verify_piece_compares_with_the_hash_of_that_very_piece() -> None:
    """Good bytes of one piece are bad bytes of another; the last piece's hash is of its own length."""
    lab = Lab(piece_length=BLOCK_SIZE, total=2 * BLOCK_SIZE + 5)
    first, second, last = lab.data[:BLOCK_SIZE], lab.data[BLOCK_SIZE : 2 * BLOCK_SIZE], lab.data[-5:]
    assert lab.manager.verify_piece(0, first)
    assert lab.manager.verify_piece(1, memoryview(second))
    assert lab.manager.verify_piece(2, bytearray(last))
    assert not lab.manager.verify_piece(0, second)
    assert not lab.manager.verify_piece(2, last + b"\0")
    assert not lab.manager.verify_piece(1, second[:-1])


def test_piece_hashes_slice_one_string() -> None:
    """Hash i is bytes 20 i to 20 i + 20."""
    hashes = PieceHashes(bytes(range(60)))
    assert len(hashes) == 3
    assert [hashes[index] for index in range(3)] == [bytes(range(start, start + 20)) for start in (0, 20, 40)]


def test_a_piece_found_on_disk_is_complete_at_once_and_counted_once() -> None:
    """What the resume check finds skips the other states; telling it twice changes nothing."""
    lab = Lab(piece_length=BLOCK_SIZE, total=2 * BLOCK_SIZE + 7)
    for _ in range(2):
        assert not lab.manager.mark_complete(2)
        check_books(lab.manager)
        assert (lab.manager.complete_count, lab.manager.complete_bytes) == (1, 7)
    lab.join("a")
    assert {index for index, _ in blocks_of(lab.ask("a"))} == {0, 1}


def test_a_failed_piece_is_asked_for_again() -> None:
    """A wrong hash puts the piece back to MISSING with nothing kept of it, and counts its bytes as wasted."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a")
    (piece,) = lab.give("a", lab.ask("a"), corrupt=True).full
    assert not lab.manager.verify_piece(0, piece.data)
    lab.manager.mark_failed(0)
    check_books(lab.manager)
    assert lab.states() == [MISSING]
    assert (lab.manager.hash_failures, lab.manager.wasted_bytes) == (1, 3 * BLOCK_SIZE)
    assert download(lab, "a") == {0: lab.data}


def test_a_piece_that_was_not_written_is_asked_for_again() -> None:
    """A full disk puts the piece back to MISSING, but says nothing against its bytes."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a")
    (piece,) = lab.give("a", lab.ask("a")).full
    lab.manager.mark_failed(piece.index, was_bad=False)
    check_books(lab.manager)
    assert lab.states() == [MISSING]
    assert (lab.manager.hash_failures, lab.manager.wasted_bytes) == (0, 0)
    assert download(lab, "a") == {0: lab.data}


def test_a_piece_lost_from_disk_is_asked_for_again() -> None:
    """Only a COMPLETE piece can be lost; its bytes no longer count."""
    lab = Lab(piece_length=BLOCK_SIZE, total=BLOCK_SIZE + 7)
    lab.join("a")
    download(lab, "a")
    lab.manager.mark_missing(1)
    check_books(lab.manager)
    assert lab.states() == [COMPLETE, MISSING]
    assert (lab.manager.complete_count, lab.manager.complete_bytes) == (1, BLOCK_SIZE)
    lab.manager.mark_missing(1)
    check_books(lab.manager)
    assert lab.manager.complete_count == 1
    assert lab.manager.is_interesting("a")
    assert download(lab, "a") == {1: lab.data[-7:]}


def test_the_bitfield_is_a_copy() -> None:
    """Whoever sends it cannot change what we have."""
    lab = Lab(pieces=2)
    lab.manager.bitfield.add(0)
    assert not lab.manager.has_piece(0)
    assert not len(lab.manager.bitfield)


@pytest.mark.parametrize("depth", [1, 3, 16])
@pytest.mark.parametrize(
    ("piece_length", "total"),
    [
        (2 * BLOCK_SIZE, 4 * BLOCK_SIZE),  # nothing odd
        (2 * BLOCK_SIZE, 4 * BLOCK_SIZE + 1),  # a last piece of one byte
        (2 * BLOCK_SIZE, 5 * BLOCK_SIZE),  # a last piece of one whole block
        (2 * BLOCK_SIZE, 6 * BLOCK_SIZE - 1),  # a last piece one byte short
        (2 * BLOCK_SIZE, 5 * BLOCK_SIZE + 1),  # a last block of one byte
        (40_000, 130_000),  # no multiple of 16 KiB: every piece ends in an odd block
        (40_000, 120_001),
        (1_000, 4_321),  # pieces smaller than a block
        (1, 3),
        (2 * BLOCK_SIZE, 1),  # one piece, one byte
        (BLOCK_SIZE + 1, 3 * (BLOCK_SIZE + 1)),  # a second block of one byte in each piece
    ],
)
def test_every_shape_of_torrent_arrives_whole(piece_length: int, total: int, depth: int) -> None:
    """Odd piece lengths and odd last pieces are asked for to the byte, no more and no less."""
    lab = Lab(piece_length=piece_length, total=total)
    lab.join("a")
    pieces = download(lab, "a", depth)
    assert b"".join(pieces[index] for index in range(len(pieces))) == lab.data
    assert lab.manager.complete_bytes == total
    assert lab.manager.piece_size(len(pieces) - 1) == len(pieces[len(pieces) - 1])


def test_the_blocks_of_a_piece_are_asked_for_in_order_and_to_its_end() -> None:
    """Ascending begins, 16 KiB each, and the rest in the last one."""
    lab = Lab(piece_length=40_000, total=40_000)
    lab.join("a")
    assert lab.ask("a") == [Request(0, 0, 16_384), Request(0, 16_384, 16_384), Request(0, 32_768, 7_232)]


# --- what peers have --------------------------------------------------------------------------------------


def test_a_have_tells_whether_we_lack_the_piece() -> None:
    """It is news only while we lack the piece and did not know that the peer has it."""
    lab = Lab(pieces=3)
    lab.manager.mark_complete(2)
    lab.manager.add_peer("a")
    assert not lab.manager.is_interesting("a")
    assert lab.manager.peer_has("a", 0) is True
    assert lab.manager.peer_has("a", 0) is False
    assert lab.manager.peer_has("a", 2) is False
    assert lab.manager.is_interesting("a")
    assert lab.manager.who_lacks(bits(range(3))) == {"a": bits([1])}
    check_books(lab.manager)


@pytest.mark.parametrize("index", [3, 4, 2**32 - 1])
def test_a_have_outside_the_torrent_is_a_violation(index: int) -> None:
    """The index is checked before it becomes a number of four billion bits."""
    lab = Lab(pieces=3)
    lab.manager.add_peer("a")
    with pytest.raises(ProtocolViolation, match=f"piece {index},"):
        lab.manager.peer_has("a", index)
    check_books(lab.manager)


def test_a_piece_is_counted_once_for_a_peer() -> None:
    """A bitfield after a `have`, a repeated `have`, a second bitfield: the availability stays 1."""
    lab = Lab(pieces=3)
    lab.manager.add_peer("a")
    lab.manager.peer_has("a", 1)
    lab.manager.peer_has("a", 1)
    lab.manager.peer_has_all("a", 0b011)
    lab.manager.peer_has_all("a", 0b011)
    assert [lab.manager._piece_picker.availability(index) for index in range(3)] == [1, 1, 0]
    lab.manager.remove_peer("a")
    assert [lab.manager._piece_picker.availability(index) for index in range(3)] == [0, 0, 0]


def test_a_peer_is_interesting_until_its_last_piece_is_complete() -> None:
    """Pieces under way can still fail, so that they count as lacking."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a", pieces=[0])
    received = lab.give("a", lab.ask("a"))
    assert lab.manager.is_interesting("a")
    lab.keep(received.full)
    assert not lab.manager.is_interesting("a")


def test_an_unknown_peer_has_owes_and_gets_nothing() -> None:
    """Calls that lost a race with the peer's end do no harm."""
    lab = Lab()
    lab.manager.remove_peer("a")
    lab.manager.set_rate("a", 5.0)
    assert lab.ask("a") == []
    assert lab.send("a", Piece(99, 0, b"x")) == ([], [], 0)
    assert not lab.manager.is_interesting("a")
    assert lab.manager.who_lacks(1) == {}
    assert lab.manager.peer_progress("a") == (0, 0)


def test_progress_counts_pieces_and_blocks_owed() -> None:
    """What the display shows of a peer."""
    lab = Lab(pieces=3, blocks=2)
    lab.join("a", pieces=[0, 2])
    requests = lab.ask("a", depth=4)
    assert lab.manager.peer_progress("a") == (2, 4)
    lab.give("a", requests[:1])
    assert lab.manager.peer_progress("a") == (2, 3)


def test_what_a_peer_that_leaves_was_asked_for_goes_to_others() -> None:
    """Received blocks stay; only the rest is asked for again, and completes the piece."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b")
    requests = lab.ask("a")
    lab.give("a", requests[:2])
    assert lab.ask("b", depth=1) == requests[-1:]  # the end game: nothing else is left
    lab.manager.remove_peer("a")
    check_books(lab.manager)
    again = lab.ask("b")
    assert sorted([*again, requests[-1]]) == requests[2:]
    lab.keep(lab.give("b", [*again, requests[-1]]).full)
    assert lab.manager.is_complete


# --- what is asked for ------------------------------------------------------------------------------------


def test_the_rarest_piece_is_asked_for_first() -> None:
    """Of the pieces that a peer has, those that the fewest others have come first."""
    lab = Lab(pieces=4, blocks=1)
    lab.join("a")
    lab.join("b", pieces=[0, 1, 3])
    lab.join("c", pieces=[0, 3])
    lab.join("d", pieces=[3])
    assert [index for index, _ in blocks_of(lab.ask("a"))] == [2, 1, 0, 3]


def test_the_first_pieces_are_random() -> None:
    """Before four pieces are complete rarity does not count; afterwards it decides."""

    def first(seed: int, complete: int) -> int:
        lab = Lab(pieces=8, blocks=1, seed=seed, config=Config(random_first_pieces=4))
        for index in range(complete):
            lab.manager.mark_complete(index)
        lab.join("a")
        lab.join("b", pieces=range(7))
        return lab.ask("a", depth=1)[0].piece_index

    assert len({first(seed, complete=3) for seed in range(40)}) > 3
    assert {first(seed, complete=4) for seed in range(40)} == {7}


def test_sequential_mode_asks_in_order_and_for_the_ends_of_files_before_that() -> None:
    """Players read the first and the last piece of a file before they begin."""
    lab = Lab(pieces=6, blocks=1, sequential=True, wanted=WantedPieces((bits([2, 5]), bits([0, 1, 3, 4]))))
    lab.join("a")
    lab.join("b", pieces=[0, 1, 2, 4, 5])  # 3 is the rarest, which does not count here
    assert [index for index, _ in blocks_of(lab.ask("a"))] == [2, 5, 0, 1, 3, 4]


def test_sequential_mode_helps_with_the_lowest_open_piece() -> None:
    """Of the pieces that others have begun the one that is played first comes first."""
    lab = Lab(pieces=3, blocks=4, sequential=True)
    lab.join("a", pieces=[1])
    lab.join("b", pieces=[0])
    lab.join("c")
    assert blocks_of(lab.ask("a", depth=1)) == [(1, 0)]
    assert blocks_of(lab.ask("b", depth=1)) == [(0, 0)]
    assert blocks_of(lab.ask("c", depth=9)) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)]


def test_a_peer_goes_on_with_its_own_piece() -> None:
    """A piece that was begun is asked for to its end before another one is begun."""
    lab = Lab(pieces=9, blocks=4)
    lab.join("a")
    first = lab.ask("a", depth=2)[0].piece_index
    (piece, block), (same, following), (other, begin) = blocks_of(lab.ask("a", depth=5))
    assert (piece, block, same, following, begin) == (first, 2, first, 3, 0)
    assert other != first


def test_a_peer_is_asked_again_when_a_quarter_of_its_depth_is_free() -> None:
    """Waking the writer for each block costs more than the block; three quarters hide the round trip."""
    lab = Lab(pieces=9, blocks=4)
    lab.join("a")
    requests = lab.ask("a", depth=16)
    assert len(requests) == 16
    lab.give("a", requests[:3])
    assert lab.ask("a", depth=16) == []
    lab.give("a", requests[3:4])
    assert len(lab.ask("a", depth=16)) == 4


@pytest.mark.parametrize("depth", [1, 3])
def test_a_shallow_pipeline_is_filled_at_once(depth: int) -> None:
    """Below a depth of four a quarter is less than a block: every block is followed by a request."""
    lab = Lab(pieces=9, blocks=4)
    lab.join("a")
    requests = lab.ask("a", depth)
    assert len(requests) == depth
    lab.give("a", requests[:1])
    assert len(lab.ask("a", depth)) == 1


def test_a_pipeline_that_became_shallower_is_let_run_dry() -> None:
    """With more in flight than the new depth nothing is asked, and nothing is taken back."""
    lab = Lab(pieces=9, blocks=4)
    lab.join("a")
    requests = lab.ask("a", depth=16)
    assert lab.ask("a", depth=4) == []
    lab.give("a", requests[:13])
    assert len(lab.ask("a", depth=4)) == 1


def test_a_slow_peer_helps_with_a_piece_that_is_under_way() -> None:
    """Peers whose pipeline holds less than a piece finish pieces together, instead of holding one each."""
    lab = Lab(pieces=4, blocks=8)
    lab.join("a", "b")
    requests = lab.ask("a", depth=4)
    begun = requests[0].piece_index
    assert blocks_of(lab.ask("b", depth=7))[:4] == [(begun, block) for block in range(4, 8)]


def test_a_fast_peer_begins_a_piece_of_its_own() -> None:
    """A pipeline that holds a whole piece is worth one: the blocks of a piece then come from one peer."""
    lab = Lab(pieces=4, blocks=8)
    lab.join("a", "b")
    begun = lab.ask("a", depth=4)[0].piece_index
    requests = blocks_of(lab.ask("b", depth=8))
    assert requests == [(requests[0][0], block) for block in range(8)]
    assert requests[0][0] != begun


def test_a_fast_peer_helps_when_there_is_nothing_new() -> None:
    """With every piece begun, the rest of another peer's piece is better than waiting."""
    lab = Lab(pieces=1, blocks=8)
    lab.join("a", "b")
    lab.ask("a", depth=2)
    assert blocks_of(lab.ask("b", depth=8)) == [(0, block) for block in range(2, 8)]


def test_what_others_left_lying_comes_before_new_pieces() -> None:
    """A piece whose owner left is finished first, by fast peers too: begun pieces cost memory."""
    lab = Lab(pieces=4, blocks=8)
    lab.join("a", "b")
    begun = lab.ask("a", depth=2)[0].piece_index
    lab.manager.remove_peer("a")
    assert sorted(blocks_of(lab.ask("b", depth=8))) == [(begun, block) for block in range(8)]


def test_nothing_is_asked_of_a_peer_that_does_not_have_it() -> None:
    """Neither a new piece, nor the rest of another's, nor the end game's duplicates."""
    lab = Lab(pieces=2, blocks=4)
    lab.join("a")
    lab.join("b", pieces=[1], rate=1e6)
    lab.manager.mark_complete(1)
    lab.ask("a", depth=2)
    assert lab.ask("b") == []
    lab.manager.remove_peer("a")
    assert lab.ask("b") == []


# --- the end game -----------------------------------------------------------------------------------------


def test_the_end_game_asks_at_most_two_peers_for_a_block() -> None:
    """An idle peer is asked for one block that another one owes, the last first; a third peer never is."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a", "b", "c", "d")
    assert blocks_of(lab.ask("a")) == [(0, 0), (0, 1)]
    assert blocks_of(lab.ask("b")) == [(0, 1)]
    assert lab.ask("b") == []
    assert blocks_of(lab.ask("c")) == [(0, 0)]
    assert lab.ask("d") == []


@pytest.mark.parametrize(("winner", "loser"), [("a", "b"), ("b", "a")])
def test_the_loser_of_the_end_game_is_cancelled(winner: str, loser: str) -> None:
    """Whoever of the two brings the block first, the other one is told, and owes nothing any more."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a", "b")
    lab.give("a", lab.ask("a")[:1])
    (request,) = lab.ask("b")
    received = lab.give(winner, [request])
    assert received.cancels == [(loser, Cancel(*request))]
    assert received.useful == request.length
    assert lab.manager.peer_progress(loser) == (1, 0)
    assert lab.give(loser, [request]) == ([], [], 0)  # it crossed our cancel
    assert lab.manager.wasted_bytes == request.length
    lab.keep(received.full)
    assert lab.manager.is_complete


def test_blocks_of_one_requester_are_cancelled_with_nobody() -> None:
    """Outside the end game a block that was asked for makes no cancel, not even beside one that does."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a", "b")
    requests = lab.ask("a")
    (doubled,) = lab.ask("b")
    assert lab.give("a", [request for request in requests if request != doubled]).cancels == []
    assert lab.manager.peer_progress("b") == (1, 1)


@pytest.mark.parametrize(
    ("rate_a", "blocks_a", "rate_b", "helped"),
    [
        (100.0, 1, 10.0, "b"),  # each owes one block: the slower one will be last
        (10.0, 1, 100.0, "a"),
        (100.0, 4, 30.0, "a"),  # 4 / 100 is longer than 1 / 30
        (200.0, 4, 30.0, "b"),
    ],
)
def test_the_end_game_helps_whoever_will_be_last(rate_a: float, blocks_a: int, rate_b: float, helped: str) -> None:
    """What counts is how long a peer needs for all that it owes, not its speed alone."""
    lab = Lab(piece_length=4 * BLOCK_SIZE, total=4 * BLOCK_SIZE + 1)
    lab.join("a", pieces=[0], rate=rate_a)
    lab.join("b", pieces=[1], rate=rate_b)
    requests = lab.ask("a")
    lab.give("a", requests[blocks_a:])
    lab.ask("b")
    lab.join("c")
    assert [index for index, _ in blocks_of(lab.ask("c"))] == [0 if helped == "a" else 1]


@pytest.mark.parametrize(
    ("rate", "depth", "taken"), [(30.0, 16, 1), (30.1, 16, 3), (50.0, 16, 4), (50.0, 2, 2), (0, 16, 1)]
)
def test_a_much_faster_peer_takes_over_what_a_slow_one_owes(rate: float, depth: int, taken: int) -> None:
    """More than three times as fast: those that it brings sooner, and its pipeline holds; else a single one."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", rate=10.0)
    lab.join("b", rate=rate)
    slow = lab.ask("a")
    fast = lab.ask("b", depth)
    assert fast == slow[::-1][:taken]
    received = lab.give("b", fast)
    assert received.cancels == [("a", Cancel(*request)) for request in fast]
    assert lab.manager.peer_progress("a") == (1, 4 - taken)


@pytest.mark.parametrize(("rate", "taken"), [(30.0, 0), (31.0, 3)])
def test_a_busy_peer_duplicates_only_what_it_takes_over(rate: float, taken: int) -> None:
    """A peer that still owes blocks itself is not given one more of somebody else's, unless it is much faster."""
    lab = Lab(piece_length=4 * BLOCK_SIZE, total=4 * BLOCK_SIZE + 1)
    lab.join("a", pieces=[0], rate=10.0)
    lab.join("b", rate=rate)
    lab.ask("a")
    assert blocks_of(lab.ask("b", depth=4)) == [(1, 0)]
    assert len(lab.ask("b", depth=4)) == taken


def test_a_block_is_asked_for_twice_only_if_it_will_be_late() -> None:
    """A peer that is as fast would bring it no sooner; when it is overdue, it may never come."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a", "b", rate=10.0 * BLOCK_SIZE)
    first, second = lab.ask("a")
    lab.clock.advance(0.1)
    lab.give("a", [first])
    lab.manager._book.peers["b"].latency = 0.01
    assert lab.ask("b") == []
    lab.clock.advance(0.2)
    assert lab.ask("b") == []
    lab.clock.advance(0.2)
    assert lab.ask("b") == [second]


def test_a_slow_peer_does_not_take_the_second_place_from_a_quick_one() -> None:
    """Two are asked for a block at most: of two slow ones each would wait for the other."""
    lab = Lab(pieces=3, blocks=4)
    lab.join("a", pieces=[0], rate=10.0 * BLOCK_SIZE)
    lab.join("quick", rate=1000.0 * BLOCK_SIZE)
    lab.join("slow", rate=11.0 * BLOCK_SIZE)
    for peer in ("quick", "slow"):
        lab.manager._book.peers[peer].latency = 0.01
    lab.ask("a")
    lab.ask("quick", depth=8)
    lab.clock.advance(0.06)
    assert lab.ask("slow") == []
    assert len(lab.ask("quick", depth=12)) == 4


def test_of_what_is_left_a_part_is_asked_for_by_speed() -> None:
    """Near the end the pipelines become shorter, so that the last blocks are left for those who are quick."""
    lab = Lab(pieces=40, blocks=10)
    lab.join("fast", rate=300.0 * BLOCK_SIZE)
    lab.join("slow", rate=100.0 * BLOCK_SIZE)
    lab.ask("fast", depth=8)
    lab.ask("slow", depth=8)
    lab.clock.advance(0.1)
    for peer in ("fast", "slow"):
        lab.manager._book.peers[peer].latency = 0.01
    assert len(lab.ask("fast", depth=400)) == 150 - 8  # half of 400 blocks, three quarters of that
    assert len(lab.ask("slow", depth=400)) == 50 - 8


@pytest.mark.parametrize(("latency", "depth"), [(0.0, 4), (0.04, 10)])
def test_near_the_end_a_peer_is_kept_busy_all_the_same(latency: float, depth: int) -> None:
    """What it sends in two round trips may be in flight, and four blocks in any case."""
    lab = Lab(pieces=3, blocks=4)
    lab.join("a", "b", rate=100.0 * BLOCK_SIZE)
    lab.ask("a", depth=1)
    lab.ask("b", depth=1)
    lab.clock.advance(0.1)
    lab.manager._book.peers["a"].latency = latency
    assert len(lab.ask("a")) == depth - 1  # a half of the half of twelve blocks would be three


def test_there_is_no_end_game_while_another_peer_has_a_piece_to_begin() -> None:
    """A fast peer that has only what a slow one was asked for waits; when the last piece is begun, it helps."""
    lab = Lab(pieces=2, blocks=4)
    lab.join("seed", rate=10.0)
    lab.join("leecher", pieces=[0], rate=1000.0)
    lab.manager.peer_suggests("seed", 0)
    lab.join("other", pieces=[1])
    assert {index for index, _ in blocks_of(lab.ask("seed", depth=4))} == {0}
    assert lab.ask("leecher") == []
    assert {index for index, _ in blocks_of(lab.ask("seed", depth=8))} == {1}
    assert {index for index, _ in blocks_of(lab.ask("leecher"))} == {0}


def test_a_piece_that_nobody_has_does_not_hold_the_end_game_up() -> None:
    """All that can be got now is asked for, so that a swarm without a seed does not wait for its slowest peer."""
    lab = Lab(pieces=2, blocks=4)
    lab.join("slow", pieces=[0], rate=10.0)
    lab.join("fast", pieces=[0], rate=1000.0)
    lab.ask("slow")
    assert len(lab.ask("fast")) == 4


def test_there_is_no_end_game_for_a_peer_that_can_begin_a_piece() -> None:
    """Duplicates are waste as long as there is something new to ask for."""
    lab = Lab(pieces=4, blocks=2)
    lab.join("a", "b")
    asked = blocks_of([*lab.ask("a", depth=4), *lab.ask("b", depth=4)])
    assert len(set(asked)) == 8


# --- peers that keep us waiting ---------------------------------------------------------------------------


def test_the_blocks_of_a_silent_peer_go_to_others() -> None:
    """After 20 seconds without a block, and not before, a peer loses what it was asked for."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b")
    requests = lab.ask("a")
    lab.clock.advance(20.0)
    assert lab.manager.stalled_peers(lab.clock()) == []
    lab.clock.advance(0.1)
    assert lab.manager.stalled_peers(lab.clock()) == ["a"]
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (1, 0)
    assert lab.manager.stalled_peers(lab.clock()) == []
    assert lab.ask("b") == requests


def test_every_block_gives_a_peer_more_time() -> None:
    """Twenty seconds are counted from its last block, and from the first request after a pause."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    requests = lab.ask("a", depth=2)
    lab.clock.advance(15.0)
    lab.give("a", requests[:1])
    lab.clock.advance(15.0)
    assert lab.manager.stalled_peers(lab.clock()) == []
    lab.keep(lab.give("a", requests[1:]).full)
    lab.clock.advance(1000.0)
    assert lab.manager.stalled_peers(lab.clock()) == []  # it owes nothing
    lab.manager.mark_missing(requests[1].piece_index)
    lab.ask("a")
    lab.clock.advance(20.0)
    assert lab.manager.stalled_peers(lab.clock()) == []
    lab.clock.advance(0.1)
    assert lab.manager.stalled_peers(lab.clock()) == ["a"]


def test_asking_for_more_gives_a_silent_peer_no_more_time() -> None:
    """A peer with room in its pipeline is asked every second: that must not look like life."""
    lab = Lab(pieces=9, blocks=1)
    lab.join("a", pieces=[0])
    lab.ask("a", depth=4)
    for index in range(1, 5):
        lab.clock.advance(5.0)
        lab.manager.peer_has("a", index)
        lab.ask("a", depth=9)
    lab.clock.advance(0.1)
    assert lab.manager.stalled_peers(lab.clock()) == ["a"]


def test_a_peer_that_skips_a_block_loses_that_block_alone() -> None:
    """It keeps sending, so that it is not snubbed; but the block that it passed over is asked of another."""
    lab = Lab(pieces=9, blocks=4)
    lab.join("a", rate=BLOCK_SIZE)
    skipped, *queue = lab.ask("a", depth=4)
    for _ in range(6):
        lab.clock.advance(10.0)
        lab.give("a", [queue.pop(0)])
        queue += lab.ask("a", depth=4)
    lab.clock.advance(8.0)  # 3 x 20 s, and twice the 4 s that four blocks take
    assert lab.manager.stalled_peers(lab.clock()) == []
    assert lab.manager.peer_progress("a") == (9, 4)
    lab.clock.advance(0.1)
    assert lab.manager.stalled_peers(lab.clock()) == []
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (9, 3)
    lab.join("b")
    assert lab.ask("b", depth=16)[0] == skipped


def test_a_peer_that_chokes_us_is_asked_for_nothing_that_is_lost() -> None:
    """Its blocks go to others; what it sends all the same is welcome; unchoked, it is asked again."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b")
    requests = lab.ask("a")
    lab.manager.peer_choked("a", keeps_requests=False)
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (1, 0)
    assert lab.ask("a") == []
    assert lab.give("a", requests[:1]).useful == BLOCK_SIZE
    others = lab.ask("b", depth=2)
    lab.manager.peer_unchoked("a")
    rest = lab.ask("a")
    assert sorted([*others, *rest]) == requests[1:]


def test_the_second_peer_stays_asked_when_the_first_one_leaves() -> None:
    """In the end game the loss of one of two peers does not make the block free, and the other one's does."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("a", "b", "c")
    (request,) = lab.ask("a")
    assert lab.ask("b") == [request]
    lab.change_mind("a")
    check_books(lab.manager)
    assert lab.manager.peer_progress("b") == (1, 1)
    lab.change_mind("b")
    check_books(lab.manager)
    assert lab.ask("c") == [request]


# --- the fast extension -----------------------------------------------------------------------------------


def test_a_choking_peer_is_asked_only_for_what_it_allows() -> None:
    """BEP 6: it serves the allowed pieces that it has, choked or not, and nothing else."""
    lab = Lab(pieces=4, blocks=1)
    lab.join("a", pieces=[0, 1, 2])
    lab.manager.peer_choked("a", keeps_requests=False)
    assert lab.ask("a") == []
    assert lab.manager.peer_allows("a", 1) is True
    assert lab.manager.peer_allows("a", 3) is True  # of use is what it serves in all, not this very piece
    assert blocks_of(lab.ask("a")) == [(1, 0)]
    lab.manager.peer_unchoked("a")
    assert sorted(blocks_of(lab.ask("a"))) == [(0, 0), (2, 0)]


def test_an_allowed_piece_that_we_have_is_of_no_use() -> None:
    """Nobody need be asked for it."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    lab.manager.mark_complete(1)
    lab.manager.peer_choked("a", keeps_requests=True)
    assert lab.manager.peer_allows("a", 1) is False
    assert lab.ask("a") == []


@pytest.mark.parametrize("index", [2, 2**32 - 1])
def test_an_allowed_piece_outside_the_torrent_is_a_violation(index: int) -> None:
    """As with `have`, the index is checked before it becomes a huge number."""
    lab = Lab(pieces=2)
    lab.join("a")
    with pytest.raises(ProtocolViolation, match=f"piece {index},"):
        lab.manager.peer_allows("a", index)


def test_of_equally_rare_pieces_a_suggested_one_comes_first() -> None:
    """BEP 6: the peer has it at hand. It need not be rare, and it must still be missing."""
    lab = Lab(pieces=8, blocks=1)
    lab.join("a")
    lab.join("b", pieces=[0])
    lab.manager.peer_suggests("a", 5)
    lab.manager.peer_suggests("a", 0)  # not as rare as the others
    assert blocks_of(lab.ask("a", depth=1)) == [(5, 0)]
    assert (0, 0) not in blocks_of(lab.ask("a", depth=7))
    lab.manager.peer_suggests("b", 5)
    assert blocks_of(lab.ask("b", depth=1)) == [(0, 0)]


def test_who_prefers_runs_gets_neighbours() -> None:
    """From the first piece on, as long as they are among the rarest."""
    lab = Lab(pieces=8, blocks=2)
    lab.manager.add_peer("web", prefers_runs=True)
    lab.manager.peer_has_all("web", bits(range(8)))
    assert blocks_of(lab.ask("web", depth=6)) == [(piece, block) for piece in (0, 1, 2) for block in (0, 1)]
    lab.join("peer", pieces=[3, 4, 5, 6])
    assert {piece for piece, _ in blocks_of(lab.ask("web", depth=8))} == {7}


@pytest.mark.parametrize("index", [8, 2**32 - 1])
def test_a_suggested_piece_outside_the_torrent_is_a_violation(index: int) -> None:
    """As with `have`."""
    lab = Lab(pieces=8)
    lab.join("a")
    with pytest.raises(ProtocolViolation, match=f"piece {index},"):
        lab.manager.peer_suggests("a", index)


def test_a_choke_of_a_fast_peer_leaves_the_requests_under_way() -> None:
    """It answers or rejects each of them; but others may go on with the piece that it began."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b")
    requests = lab.ask("a", depth=2)
    lab.manager.peer_choked("a", keeps_requests=True)
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (1, 2)
    rest = lab.ask("b", depth=2)
    assert blocks_of(rest) == [(0, 2), (0, 3)]
    assert lab.ask("a") == []
    lab.give("a", requests)
    lab.keep(lab.give("b", rest).full)
    assert lab.manager.is_complete


def test_a_choke_of_a_fast_suspect_frees_its_piece() -> None:
    """A piece that nobody else may touch must not wait for a peer that chokes us."""
    lab = Lab(pieces=2, blocks=2)
    disgrace(lab)
    index = lab.manager.get_next_piece("a")
    assert index is not None
    lab.manager.peer_choked("a", keeps_requests=True)
    check_books(lab.manager)
    lab.join("c")
    assert (index, 0) in blocks_of(lab.ask("c"))


def test_a_rejected_block_goes_to_others() -> None:
    """The peer is not asked for that piece again before it unchokes us anew, and others are."""
    lab = Lab(pieces=2, blocks=2)
    lab.join("a")
    requests = lab.ask("a", depth=4)
    refused = requests[0].piece_index
    lab.manager.request_rejected("a", refused, 0)
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (2, 3)
    assert lab.ask("a", depth=8) == []
    lab.join("b", pieces=[refused])
    assert blocks_of(lab.ask("b", depth=1)) == [(refused, 0)]
    lab.manager.remove_peer("b")
    lab.manager.peer_choked("a", keeps_requests=True)
    lab.manager.peer_unchoked("a")
    assert blocks_of(lab.ask("a", depth=8)) == [(refused, 0)]


def test_a_rejected_allowed_piece_is_allowed_no_more() -> None:
    """Else a choking peer would be asked for it again and again."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a")
    lab.manager.peer_choked("a", keeps_requests=True)
    lab.manager.peer_allows("a", 0)
    (request, _) = lab.ask("a")
    lab.manager.request_rejected("a", 0, request.begin)
    check_books(lab.manager)
    assert lab.ask("a") == []


@pytest.mark.parametrize(("index", "begin"), [(0, BLOCK_SIZE), (1, 0), (0, 1), (2**32 - 1, 2**32 - 1)])
def test_a_reject_of_what_was_not_asked_for_changes_nothing(index: int, begin: int) -> None:
    """It crossed our `cancel`, or it is nonsense."""
    lab = Lab(pieces=2, blocks=2)
    lab.join("a")
    asked = lab.ask("a", depth=1)
    assert blocks_of(asked) == [(asked[0].piece_index, 0)]
    lab.manager.request_rejected("a", index ^ asked[0].piece_index, begin)
    check_books(lab.manager)
    assert lab.manager.peer_progress("a") == (2, 1)
    assert len(lab.ask("a", depth=4)) == 3


def test_a_rejected_block_is_not_expected_any_more() -> None:
    """Unlike a block that we took back, it does not count for the blocks that may come unasked."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    requests = lab.ask("a")
    for request in requests:
        lab.manager.request_rejected("a", request.piece_index, request.begin)
    lab.join("b")
    lab.keep(lab.give("b", lab.ask("b")).full)
    lab.send("a", *[lab.block(requests[0])] * UNASKED_BLOCKS_TOLERATED)
    with pytest.raises(ProtocolViolation, match="nobody asked for"):
        lab.send("a", lab.block(requests[0]))


# --- blocks that nobody asked for -------------------------------------------------------------------------


def test_an_unasked_block_that_we_lack_is_kept() -> None:
    """Bytes are bytes: those who were asked for it are told that it came, and it is not asked for again."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a", "b")
    asked = lab.ask("a", depth=1)
    unasked = [Request(0, BLOCK_SIZE, BLOCK_SIZE)]
    received = lab.give("b", [*asked, *unasked])
    assert received.useful == 2 * BLOCK_SIZE
    assert received.cancels == [("a", Cancel(*asked[0]))]
    assert blocks_of(lab.ask("a")) == [(0, 2)]


def test_an_unasked_last_block_closes_the_piece() -> None:
    """A block that was not asked for can be the one that makes a piece full."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a")
    requests = lab.ask("a", depth=1)
    (piece,) = lab.give("a", [Request(0, BLOCK_SIZE, BLOCK_SIZE), *requests]).full
    lab.keep([piece])
    assert lab.manager.is_complete


def test_what_was_asked_for_is_never_unasked() -> None:
    """However much a peer sends, and in whatever order."""
    lab = Lab(pieces=40, blocks=2)
    lab.join("a")
    requests = lab.ask("a", depth=80)
    assert len(requests) == 80
    lab.keep(lab.give("a", reversed(requests)).full)
    assert lab.manager.is_complete
    assert lab.manager.wasted_bytes == 0


def test_a_few_unasked_blocks_are_tolerated_and_many_are_not() -> None:
    """Answers that crossed our cancels come from honest peers; a flood does not."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    lab.manager.mark_complete(0)
    block = lab.block(Request(0, 0, BLOCK_SIZE))
    assert lab.send("a", *[block] * UNASKED_BLOCKS_TOLERATED) == ([], [], 0)
    assert lab.manager.wasted_bytes == UNASKED_BLOCKS_TOLERATED * BLOCK_SIZE
    with pytest.raises(ProtocolViolation, match="nobody asked for"):
        lab.send("a", block)


def test_what_we_took_back_does_not_count_as_unasked() -> None:
    """A peer may answer what it was asked for before we changed our mind, on top of the usual tolerance."""
    lab = Lab(pieces=2, blocks=8)
    lab.join("a", "b")
    requests = lab.ask("a", depth=16)
    lab.change_mind("a")
    lab.keep(lab.give("b", lab.ask("b", depth=16)).full)
    assert lab.manager.is_complete
    answers = [lab.block(request) for request in requests]
    lab.send("a", *answers, *answers[:1] * UNASKED_BLOCKS_TOLERATED)
    with pytest.raises(ProtocolViolation, match="nobody asked for"):
        lab.send("a", answers[0])


def test_what_we_cancelled_does_not_count_as_unasked() -> None:
    """The loser of an end game may send its answer all the same."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a", "b")
    requests = lab.ask("a")
    lab.give("b", lab.ask("b"))
    lab.send("a", *[lab.block(requests[1])] * (UNASKED_BLOCKS_TOLERATED + 1))
    with pytest.raises(ProtocolViolation, match="nobody asked for"):
        lab.send("a", lab.block(requests[1]))


def test_a_block_that_comes_twice_is_wasted_once() -> None:
    """The second copy is counted and not stored, be it in the same batch or a later one."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a")
    first, second = lab.ask("a")
    assert lab.send("a", lab.block(first), lab.block(first, corrupt=True)).useful == BLOCK_SIZE
    assert (lab.manager.useful_bytes, lab.manager.wasted_bytes) == (BLOCK_SIZE, BLOCK_SIZE)
    (piece,) = lab.give("a", [second]).full
    assert lab.give("a", [second], corrupt=True) == ([], [], 0)  # while it is being verified
    assert (lab.manager.useful_bytes, lab.manager.wasted_bytes) == (2 * BLOCK_SIZE, 2 * BLOCK_SIZE)
    assert lab.manager.verify_piece(0, piece.data)


def test_a_block_of_a_piece_that_was_not_begun_is_wasted() -> None:
    """It begins nothing: memory is for what was asked for."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    assert lab.give("a", [Request(1, 0, BLOCK_SIZE)]) == ([], [], 0)
    assert (lab.manager.useful_bytes, lab.manager.wasted_bytes) == (0, BLOCK_SIZE)
    assert lab.states() == [MISSING, MISSING]


@pytest.mark.parametrize(
    ("index", "begin", "size"),
    [
        (2, 0, 1),
        (2**32 - 1, 0, 0),
        (0, 2 * BLOCK_SIZE, 1),
        (0, BLOCK_SIZE, BLOCK_SIZE + 1),
        (0, 2**32 - BLOCK_SIZE, BLOCK_SIZE),
        (1, 0, BLOCK_SIZE),  # the last piece has five bytes
        (1, 5, 1),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_block_outside_the_torrent_is_a_violation(index: int, begin: int, size: int, begun: bool) -> None:
    """No honest client sends one, whether the piece is under way or not."""
    lab = Lab(piece_length=2 * BLOCK_SIZE, total=2 * BLOCK_SIZE + 5)
    lab.join("a")
    if begun:
        lab.ask("a")
    with pytest.raises(ProtocolViolation, match="outside the torrent"):
        lab.send("a", Piece(index, begin, bytes(size)))


@pytest.mark.parametrize(
    ("begin", "size"),
    [(0, 0), (0, 1), (0, BLOCK_SIZE - 1), (0, BLOCK_SIZE + 1), (0, 2 * BLOCK_SIZE), (1, BLOCK_SIZE), (BLOCK_SIZE, 0)],
)
def test_a_block_that_is_not_as_it_was_asked_for_is_not_stored(begin: int, size: int) -> None:
    """Too short, too long, misaligned or empty: it counts as unasked, and the request stays open."""
    lab = Lab(piece_length=3 * BLOCK_SIZE, total=3 * BLOCK_SIZE)
    lab.join("a")
    requests = lab.ask("a")
    assert lab.send("a", Piece(0, begin, bytes(size))) == ([], [], 0)
    assert lab.manager.wasted_bytes == size
    assert lab.manager.peer_progress("a") == (1, 3)
    lab.keep(lab.give("a", requests).full)
    with pytest.raises(ProtocolViolation, match="nobody asked for"):
        lab.send("a", *[Piece(0, begin, bytes(size))] * UNASKED_BLOCKS_TOLERATED)


@pytest.mark.parametrize("last", [Piece(7, 0, b"x"), Piece(0, 0, b"")])
def test_a_piece_made_full_in_the_same_batch_as_a_violation_is_not_lost(last: Piece) -> None:
    """The caller gets an error instead of the piece, which nobody would verify: it must be MISSING again."""
    lab = Lab(pieces=2, blocks=2)
    lab.join("a")
    requests = lab.ask("a", depth=3)
    answers = [lab.block(request) for request in requests]
    with pytest.raises(ProtocolViolation):
        lab.send("a", *answers, *[last] * (UNASKED_BLOCKS_TOLERATED + 1))
    lab.manager.remove_peer("a")
    check_books(lab.manager)
    assert lab.manager.useful_bytes == 3 * BLOCK_SIZE
    assert lab.manager.wasted_bytes >= 2 * BLOCK_SIZE  # the full piece, at least
    assert VERIFYING not in lab.states()
    lab.join("b")
    download(lab, "b")


# --- parole -----------------------------------------------------------------------------------------------


def disgrace(lab: Lab) -> None:
    """Let `a` and `b` fail a piece together, so that both are on parole."""
    lab.join("a", "b")
    first = lab.ask("a", depth=1)
    second = lab.ask("b", depth=lab.manager._book.blocks_per_piece - 1)
    assert {request.piece_index for request in second} == {first[0].piece_index}
    lab.give("a", first)
    (piece,) = lab.give("b", second, corrupt=True).full
    assert set(piece.requesters) == {"a", "b"}
    lab.manager.mark_failed(piece.index, ["a", "b", "gone"])
    check_books(lab.manager)


def test_suspects_get_pieces_of_their_own() -> None:
    """They help nobody and nobody helps them: the next bad piece has one culprit."""
    lab = Lab(pieces=3, blocks=2)
    disgrace(lab)
    lab.join("c")
    begun = [blocks_of(lab.ask(peer, depth=1))[0] for peer in ("a", "b", "c")]
    assert sorted(begun) == [(0, 0), (1, 0), (2, 0)]
    (piece_c, _) = begun[2]
    assert blocks_of(lab.ask("c", depth=16)) == [(piece_c, 1)]


def test_a_suspect_is_trusted_again_after_a_good_piece_of_its_own() -> None:
    """It then helps others as everybody does."""
    lab = Lab(pieces=3, blocks=2)
    disgrace(lab)
    lab.join("c")
    lab.keep(lab.give("a", lab.ask("a", depth=2)).full)
    begun_by_c = lab.ask("c", depth=1)[0].piece_index
    assert blocks_of(lab.ask("a", depth=1)) == [(begun_by_c, 1)]
    assert blocks_of(lab.ask("b", depth=1)) != [(begun_by_c, 1)]  # b has proved nothing


def test_a_suspect_stays_one_when_others_helped() -> None:
    """A good piece with two suppliers tells nothing of either."""
    lab = Lab(pieces=1, blocks=2)
    disgrace(lab)
    lab.join("c", rate=100.0)
    (first, _) = lab.ask("a", depth=2)
    (taken, *_) = lab.ask("c", depth=1)  # only a much faster peer may take over from a suspect
    assert taken != first
    lab.give("c", [taken])
    lab.keep(lab.give("a", [first]).full)
    assert lab.manager._book.peers["a"].on_parole


@pytest.mark.parametrize(("rate", "asked"), [(3.0, 0), (3.1, 1)])
def test_the_end_game_leaves_a_suspects_piece_alone_unless_it_is_slow(rate: float, asked: int) -> None:
    """A suspect's piece with blocks of others would prove nothing; but it must not hold up the torrent."""
    lab = Lab(pieces=1, blocks=2)
    disgrace(lab)
    lab.manager.set_rate("a", 1.0)
    lab.ask("a", depth=2)
    lab.join("c", rate=rate)
    assert len(lab.ask("c", depth=1)) == asked


@pytest.mark.parametrize("others", [[], ["b"]])
def test_a_suspect_can_finish_the_piece_that_it_had_to_drop(others: list[str]) -> None:
    """Choked in the middle of the last piece and unchoked again: with nobody else to trust, it goes on."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b")
    lab.give("a", lab.ask("a", depth=2))
    (piece,) = lab.give("b", lab.ask("b", depth=2), corrupt=True).full
    lab.manager.mark_failed(piece.index, ["a", "b"])
    if not others:
        lab.manager.remove_peer("b")
    wasted = lab.manager.wasted_bytes
    lab.give("a", lab.ask("a", depth=4)[:1])
    lab.change_mind("a")
    check_books(lab.manager)
    lab.keep(lab.give("a", lab.ask("a", depth=4)).full)
    assert lab.manager.is_complete
    assert lab.manager.wasted_bytes == wasted  # the block that had come already was its own
    assert not lab.manager._book.peers["a"].on_parole


def test_a_piece_that_a_suspect_goes_on_with_is_its_alone() -> None:
    """As if it had never dropped it."""
    lab = Lab(pieces=1, blocks=4)
    disgrace(lab)
    lab.give("a", lab.ask("a", depth=1))
    lab.change_mind("a")
    lab.join("c")
    assert len(lab.ask("a", depth=1)) == 1
    check_books(lab.manager)
    assert lab.ask("c") == []
    assert lab.ask("b") == []


def test_a_suspect_begins_anew_what_others_left_lying() -> None:
    """Their blocks are thrown away: a piece of mixed blocks that fails again would convict nobody."""
    lab = Lab(pieces=1, blocks=4)
    disgrace(lab)
    lab.join("c")
    lab.give("c", lab.ask("c", depth=4)[:3])
    assert lab.ask("a") == []  # c is at work on it
    lab.manager.remove_peer("c")
    check_books(lab.manager)
    wasted = lab.manager.wasted_bytes
    requests = lab.ask("a")
    assert blocks_of(requests) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert lab.manager.wasted_bytes == wasted + 3 * BLOCK_SIZE
    assert lab.ask("b") == []  # it is a's alone
    lab.keep(lab.give("a", requests).full)


def test_a_suspect_takes_a_piece_from_a_peer_that_keeps_us_waiting() -> None:
    """A silent peer that is asked again every 20 seconds must not keep a piece from those who would bring it."""
    lab = Lab(pieces=1, blocks=4)
    disgrace(lab)
    lab.join("mute")
    lab.ask("mute", depth=4)
    lab.clock.advance(20.1)
    assert lab.manager.stalled_peers(lab.clock()) == ["mute"]
    assert "mute" in lab.manager.take_hungry(lab.clock())
    assert len(lab.ask("mute", depth=1)) == 1  # snubbed, but it was asked before the others
    requests = lab.ask("a")
    assert blocks_of(requests) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert lab.manager.peer_progress("mute") == (1, 0)
    lab.clock.advance(1.0)
    assert "mute" in lab.manager.take_hungry(lab.clock())
    lab.keep(lab.give("a", requests).full)


def test_a_peer_that_sends_again_is_not_snubbed_any_more() -> None:
    """Its piece is not taken from it."""
    lab = Lab(pieces=1, blocks=4)
    disgrace(lab)
    lab.join("slow")
    lab.ask("slow", depth=4)
    lab.clock.advance(20.1)
    lab.manager.stalled_peers(lab.clock())
    lab.give("slow", lab.ask("slow", depth=1))
    assert len(lab.ask("slow", depth=1)) == 1
    assert lab.ask("a") == []


def test_suspects_take_no_part_in_the_end_game() -> None:
    """Their blocks among others' would make a piece that fails again prove nothing."""
    lab = Lab(pieces=1, blocks=2)
    disgrace(lab)
    lab.join("c", rate=1.0)
    lab.manager.set_rate("a", 1e6)
    assert len(lab.ask("c")) == 2
    assert lab.ask("a") == []


def test_a_suspects_piece_with_nothing_in_flight_is_free_when_it_chokes_us() -> None:
    """The piece is then anybody's, although no request of it had to be taken back."""
    lab = Lab(pieces=2, blocks=2)
    disgrace(lab)
    index = lab.manager.get_next_piece("a")
    assert index is not None
    lab.change_mind("a")
    check_books(lab.manager)
    lab.join("c")
    assert (index, 0) in blocks_of(lab.ask("c"))


# --- memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "begun"), [(0, 4), (6, 6), (100, 8)])
def test_no_more_pieces_are_begun_than_the_budget_allows(budget: int, begun: int) -> None:
    """Pieces being downloaded and verified count alike, and four are always allowed."""
    lab = Lab(pieces=8, blocks=1, config=Config(piece_buffer_budget=budget * BLOCK_SIZE + BLOCK_SIZE // 2))
    lab.join("a")
    requests = lab.ask("a")
    assert len(requests) == begun
    if begun == 8:
        return
    full = lab.give("a", requests[:2]).full
    assert lab.ask("a") == []
    assert lab.manager.get_next_piece("a") is None
    lab.keep(full[:1])
    assert len(lab.ask("a")) == 1
    lab.manager.mark_failed(full[1].index)
    assert len(lab.ask("a")) == 1


def test_buffers_are_taken_with_the_first_block_and_used_again() -> None:
    """Memory follows what has come, not what was asked for, and one buffer serves piece after piece."""
    lab = Lab(pieces=20, blocks=2)
    lab.join("a")
    buffers: list[object] = []
    while requests := lab.ask("a", depth=2):
        assert lab.manager._book.active[requests[0].piece_index].buffer is None
        (piece,) = lab.give("a", requests).full
        assert piece.buffer is not None
        buffers.append(piece.buffer)
        lab.keep([piece])
        assert piece.buffer is None
    assert len(buffers) == 20
    assert all(buffer is buffers[0] for buffer in buffers)


def test_pieces_that_nobody_can_finish_do_not_use_up_the_budget() -> None:
    """The only peers with the begun pieces are gone: others, which have other pieces, must go on."""
    lab = Lab(pieces=9, blocks=2, config=Config(piece_buffer_budget=0, random_first_pieces=0))
    lab.join("a", pieces=range(4))
    requests = lab.ask("a", depth=8)
    lab.give("a", [request for request in requests if request.begin == 0 and request.piece_index != 2])
    lab.manager.remove_peer("a")
    lab.join("b", pieces=range(4, 9))
    requests = lab.ask("b", depth=2)
    assert len(requests) == 2
    assert lab.states()[:4] == [DOWNLOADING, DOWNLOADING, MISSING, DOWNLOADING]  # the one with the least
    assert lab.manager.wasted_bytes == 0  # nothing had come of it
    requests += lab.ask("b", depth=4)
    assert lab.states()[:4].count(MISSING) == 2
    assert lab.manager.wasted_bytes == BLOCK_SIZE
    while requests:
        lab.keep(lab.give("b", requests).full)
        requests = lab.ask("b", depth=2)
    assert lab.states()[4:] == [COMPLETE] * 5
    lab.join("c")
    download(lab, "c")


def test_a_piece_that_is_being_worked_on_is_not_given_up_for_another() -> None:
    """Neither one with requests in flight nor one with an owner makes room."""
    lab = Lab(pieces=9, blocks=2, config=Config(piece_buffer_budget=0, random_first_pieces=0))
    lab.join("a", pieces=range(4))
    for _ in range(4):
        lab.manager.get_next_piece("a")
    lab.join("b", pieces=range(4, 9))
    assert lab.ask("b") == []
    lab.ask("a", depth=8)
    assert lab.ask("b") == []


def test_the_end_game_begins_when_the_budget_is_used_up() -> None:
    """Slow peers that hold the last blocks of all begun pieces would else keep fast ones from working at all."""
    lab = Lab(pieces=8, blocks=1, config=Config(piece_buffer_budget=0, random_first_pieces=0))
    lab.join("a", rate=10.0)
    lab.join("b", rate=100.0)
    requests = lab.ask("a", depth=4)
    taken = lab.ask("b", depth=4)
    assert taken == requests[::-1]
    received = lab.give("b", taken)
    assert len(received.cancels) == 4
    lab.keep(received.full)
    assert len(lab.ask("b", depth=4)) == 4


# --- peers with room for more -----------------------------------------------------------------------------


def test_a_peer_that_got_less_than_it_could_take_is_hungry_once() -> None:
    """It is asked again when there is more; one whose pipeline is full is not."""
    lab = Lab(pieces=2, blocks=2)
    lab.join("a", "b", "c")
    lab.ask("a", depth=4)
    lab.ask("b", depth=4)
    lab.manager.remove_peer("a")
    assert lab.manager.take_hungry(lab.clock()) == ["b"]
    assert lab.manager.take_hungry(lab.clock()) == []


def test_a_peer_is_hungry_until_there_is_something_that_it_has() -> None:
    """To ask it for pieces that it lacks would be work for nothing."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a", pieces=[])
    assert lab.ask("a") == []
    assert lab.manager.take_hungry(lab.clock()) == []
    lab.manager.peer_has("a", 1)
    assert lab.manager.take_hungry(lab.clock()) == ["a"]


def test_in_the_end_game_those_who_owe_nothing_are_asked_again_now_and_then() -> None:
    """Somebody may be late by then; the blocks that the others owe will remind us of them."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a", "b", rate=100.0 * BLOCK_SIZE)
    lab.ask("a", depth=3)
    lab.ask("b", depth=4)
    lab.join("c", rate=1.0)
    assert lab.ask("c") == []
    lab.clock.advance(0.06)
    assert lab.manager.take_hungry(lab.clock()) == ["c"]
    assert lab.manager.take_hungry(lab.clock()) == []
    assert lab.ask("c") == []
    assert lab.manager.take_hungry(lab.clock()) == []
    lab.clock.advance(1.0)
    assert lab.manager.take_hungry(lab.clock()) == ["c"]
    assert len(lab.ask("c")) == 1


def test_hungry_peers_come_in_the_order_in_which_they_became_hungry() -> None:
    """Whoever was served last waits longest; who keeps us waiting goes to the end."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("a", "b", "c", "d")
    for peer in ("c", "a", "d", "b"):
        lab.ask(peer)
    lab.clock.advance(20.1)
    assert lab.manager.stalled_peers(lab.clock()) == ["a", "c"]  # two were asked for the only block
    assert lab.manager.take_hungry(lab.clock()) == ["d", "b", "a", "c"]


def test_two_silent_peers_cannot_keep_the_last_block_from_a_good_one() -> None:
    """They lose it after 20 seconds, and then those are asked first who were not asked before."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("mute", "silent", "good")
    (request,) = lab.ask("mute")
    assert lab.ask("silent") == [request]
    assert lab.ask("good") == []
    lab.clock.advance(20.1)
    assert set(lab.manager.stalled_peers(lab.clock())) == {"mute", "silent"}
    asked = {peer: lab.ask(peer) for peer in lab.manager.take_hungry(lab.clock())}
    assert asked["good"] == [request]


def test_a_peer_whose_blocks_were_taken_over_is_asked_again() -> None:
    """Nothing that it sends will remind us of it: it has nothing left to send."""
    lab = Lab(piece_length=BLOCK_SIZE, total=2 * BLOCK_SIZE)
    lab.join("slow", pieces=[0], rate=1.0)
    lab.join("fast", pieces=[0], rate=100.0)
    lab.ask("slow", depth=1)
    lab.give("fast", lab.ask("fast", depth=1))
    lab.manager.peer_has("slow", 1)
    assert "slow" in lab.manager.take_hungry(lab.clock())
    assert blocks_of(lab.ask("slow", depth=1)) == [(1, 0)]


def test_nobody_is_hungry_when_there_is_nothing_more() -> None:
    """With the torrent complete nobody is woken; should a piece be lost, those who waited are."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("a", "b")
    requests = lab.ask("a")
    lab.ask("b")
    lab.keep(lab.give("a", requests).full)
    assert lab.manager.take_hungry(lab.clock()) == []
    lab.manager.mark_missing(0)
    assert set(lab.manager.take_hungry(lab.clock())) == {"a", "b"}


def test_a_peer_that_left_is_not_hungry() -> None:
    """The caller would ask somebody who is gone."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("a", "b")
    lab.ask("a")
    lab.ask("b")
    lab.manager.remove_peer("b")
    assert "b" not in lab.manager.take_hungry(lab.clock())


# --- cost -------------------------------------------------------------------------------------------------


def lines_run(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call executes: the same number on a fast and on a slow machine."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_no_message_costs_a_scan_of_pieces_or_of_peers() -> None:
    """With 100,000 pieces and 100 peers a `have`, a request and a block run dozens of lines, not thousands."""
    rng = Random(0)
    count = 100_000
    manager = PieceManager(bytes(20 * count), 4 * BLOCK_SIZE, count * 4 * BLOCK_SIZE, RAREST_FIRST, rng)
    for peer in range(100):
        manager.add_peer(peer)
        manager.peer_has_all(peer, rng.getrandbits(count))
    for peer in range(100):
        manager.next_requests(peer, 16, 0.0)
    manager.add_peer("a")
    assert lines_run(partial(manager.peer_has_all, "a", (1 << count) - 1)) < 50
    manager.add_peer("b")
    assert lines_run(partial(manager.peer_has, "b", 77_777)) < 50
    assert lines_run(partial(manager.is_interesting, "b")) < 20
    requests: list[Request] = []
    assert lines_run(lambda: requests.extend(manager.next_requests("a", 16, 0.0))) < 50 * 16
    assert len(requests) == 16
    blocks = [Piece(request.piece_index, request.begin, bytes(BLOCK_SIZE)) for request in requests]
    full: list[ActivePiece] = []
    assert lines_run(lambda: full.extend(manager.receive_blocks("a", blocks, 0.0).full)) < 50 * 16
    assert len(full) == 4
    assert lines_run(partial(manager.mark_complete, full[0].index)) < 50
    assert lines_run(partial(manager.mark_failed, full[1].index, ["a"])) < 50


def test_hashing_is_done_without_the_lock() -> None:
    """SHA-1 of 16 MiB takes 20 ms, in which every reader would stand still."""
    lab = Lab(pieces=1)
    lab.manager._lock = None  # type: ignore[assignment]  # to take it now is an error
    assert lab.manager.verify_piece(0, lab.data)


# --- places: memory that the system writes to without the lock --------------------------------------------


def fill(lab: Lab, run: BlockRun) -> BlockRun:
    """Let the system put a peer's answers to their places."""
    for piece in run.pieces():
        assert isinstance(piece.block, memoryview)
        piece.block[:] = bytes(lab.block(Request(piece.piece_index, piece.begin, len(piece.block))).block)
    return run


def blocks_in(runs: Iterable[BlockRun]) -> list[tuple[int, int]]:
    """Return places as (piece, block number)."""
    return [(run.piece_index, run.first + number) for run in runs for number in range(run.block_count)]


def test_places_are_those_of_the_blocks_asked_for_in_order() -> None:
    """As many as are wanted, neighbours in one run, each with the memory of its block."""
    lab = Lab(pieces=2, blocks=2)
    lab.join("a")
    requests = lab.ask("a", depth=4)
    runs = lab.manager.places("a", 3)
    assert [run.block_count for run in runs] == [2, 1]
    assert blocks_in(runs) == blocks_of(requests[:3])
    received = lab.manager.receive_blocks("a", [fill(lab, run) for run in runs], lab.clock())
    assert (len(received.full), received.useful) == (1, 3 * BLOCK_SIZE)
    lab.keep(received.full)
    assert blocks_in(lab.manager.places("a", 9)) == blocks_of(requests[3:])


def test_places_follow_the_requests_even_where_these_jump() -> None:
    """Blocks that were given up and asked for again come later than their neighbours."""
    lab = Lab(pieces=1, blocks=6)
    lab.join("a")
    lab.ask("a", depth=6)
    lab.manager.request_rejected("a", 0, 2 * BLOCK_SIZE)
    lab.manager.peer_unchoked("a")  # which makes it forget the rejection
    piece = lab.manager._book.active[0]
    piece.owner = "a"
    lab.ask("a", depth=6)
    runs = lab.manager.places("a", 9)
    assert [(run.first, run.block_count) for run in runs] == [(0, 2), (3, 3), (2, 1)]


def test_a_run_of_which_one_block_was_taken_back_is_counted_block_by_block() -> None:
    """What is not asked of the peer any more is one of its late answers."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a")
    lab.ask("a", depth=3)
    (run,) = lab.manager.places("a", 9)
    lab.manager.request_rejected("a", 0, BLOCK_SIZE)
    received = lab.manager.receive_blocks("a", [fill(lab, run)], lab.clock())
    check_books(lab.manager)
    assert received.useful == 3 * BLOCK_SIZE
    assert lab.manager._book.peers["a"].late_answers == UNASKED_BLOCKS_TOLERATED - 1
    lab.keep(received.full)


def read(reader: ScatterReader, places: Places, data: bytes) -> tuple[int, list[Arrival]]:
    """Let as many bytes arrive as one read takes; return how many those were, and what they are."""
    count = 0
    for buffer in reader.writable(places):
        part = data[count : count + len(buffer)]
        buffer[: len(part)] = part
        count += len(part)
    return count, reader.received(count)


def test_a_stranger_has_no_places() -> None:
    """Nor has who was asked for nothing."""
    lab = Lab()
    lab.join("a")
    assert lab.manager.places("a", 9) == []
    assert lab.manager.places("nobody", 9) == []


def test_a_piece_has_one_tenant() -> None:
    """Who helps with it sends blocks that are copied, to memory that the first one does not read into any more."""
    lab = Lab(pieces=1, blocks=3)
    lab.join("a", "b")
    first, second = lab.ask("a", depth=1), lab.ask("b", depth=1)
    (run,) = lab.manager.places("a", 9)
    assert lab.manager.places("b", 9) == []
    lab.give("b", second)
    for part in run.parts:
        part[:] = b"?" * len(part)  # what is on its way from the first one now goes nowhere
    lab.give("a", first)
    assert lab.manager.places("a", 9) == []
    (full,) = lab.give("b", lab.ask("b")).full
    lab.keep([full])


def test_memory_that_somebody_may_read_into_is_not_used_again() -> None:
    """A piece given up while its tenant waits for bytes leaves them its memory."""
    lab = Lab(pieces=3, blocks=2, config=Config(piece_buffer_budget=0, random_first_pieces=0))
    lab.join("slow")
    lab.ask("slow", depth=2)
    (run,) = lab.manager.places("slow", 9)
    piece = lab.manager._book.active[run.piece_index]
    assert piece.buffer is not None
    memory = piece.buffer.data
    lab.manager._book.abandon(piece)
    assert all(buffer.data is not memory for buffer in lab.manager._book._buffers._free)


def test_what_was_stored_is_out_of_reach_of_who_was_silent_in_the_middle_of_a_block() -> None:
    """It is timed out and asked for something else, then sends all that it owed, and begins to send a block twice."""
    lab = Lab(pieces=1, blocks=4)
    lab.join("a")
    reader, places = ScatterReader(MAX_MESSAGE_LENGTH), partial(lab.manager.places, "a")
    stream = b"".join(lab.block(request).encode() for request in lab.ask("a"))
    cut = BLOCK_SIZE + 13 + 1000  # with nothing but the begin of a block the next read would be for its rest alone
    _, blocks = read(reader, places, stream[:cut])
    lab.manager.receive_blocks("a", [each for each in blocks if isinstance(each, BlockRun)], 0)
    reader.writable(places)  # a moment of silence
    lab.clock.advance(RAREST_FIRST.request_timeout + 1)
    lab.manager.stalled_peers(lab.clock())
    lab.join("b")
    lab.ask("b", depth=1)  # the block that is half here
    again = lab.block(lab.ask("a", depth=1)[0]).encode()
    stream, full = stream[cut:] + again[:500], list[ActivePiece]()
    while stream:
        count, arrivals = read(reader, places, stream)
        stream = stream[count:]
        full += lab.manager.receive_blocks(
            "a", [each for each in arrivals if isinstance(each, BlockRun | Piece)], 0
        ).full
    for buffer in reader.writable(places):
        buffer[:] = b"?" * len(buffer)
    lab.keep(full)
    assert lab.manager.is_complete


def test_who_has_left_is_no_tenant() -> None:
    """Its reader reads no more, so that the next one may have the memory as it is."""
    lab = Lab(pieces=1, blocks=2)
    lab.join("a", "b")
    lab.give("a", lab.ask("a", depth=2)[:1])
    lab.manager.places("a", 9)
    piece = lab.manager._book.active[0]
    memory = piece.buffer
    lab.manager.remove_peer("a")
    lab.keep(lab.give("b", lab.ask("b")).full)
    assert not piece.was_shared
    assert lab.manager._book._buffers._free == [memory]


# --- any history ------------------------------------------------------------------------------------------


class Remote:
    """A peer as the test plays it; it is its own key.

    What it sends passes through a real reader, which reads blocks straight into their pieces where it may.

    Args:
        number: tells peers apart, in the same way in every run.
        kind: `good` sends true bytes, `liar` false ones, `mute` nothing of its own accord.
        depth: requests that it may have in flight.
        fast: it speaks the fast extension (BEP 6), and rejects what it will not answer.
    """

    def __init__(self, number: int, kind: str, depth: int, *, fast: bool):
        self.number = number
        self.kind = kind
        self.depth = depth
        self.fast = fast
        self.is_choking = True
        self.is_snubbed = False
        self.asked: list[Request] = []  # what it may answer: it does not know what we took back
        self.sent: list[Piece] = []
        self.reader = ScatterReader(MAX_MESSAGE_LENGTH)
        self.reads_into: list[memoryview] = []  # in this order
        self.on_the_way = b""  # sent, and not read yet

    def __hash__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"{self.kind} {self.number}"


class Histories(RuleBasedStateMachine):
    """Many peers do anything in any order; in the end a good one is left, and the torrent must complete.

    The helpers follow the conversation: who is asked again, and when, and who is banned.
    """

    lab: Lab

    def __init__(self) -> None:
        super().__init__()
        self.remotes: list[Remote] = []
        self.full: list[ActivePiece] = []
        self.smart_ban: Any = SmartBan()
        self.joined = 0

    @property
    def manager(self) -> PieceManager:
        """The manager under test."""
        return self.lab.manager

    @initialize(
        shape=st.sampled_from(
            [
                (2 * BLOCK_SIZE, 14 * BLOCK_SIZE),
                (3 * BLOCK_SIZE, 13 * BLOCK_SIZE + 1),
                (20_000, 6 * 20_000 + 1),
                (1_000, 9_999),
                (9 * BLOCK_SIZE, 10 * BLOCK_SIZE - 1),
            ]
        ),
        random_first=st.integers(0, 2),
        sequential=st.booleans(),
        seed=st.integers(0, 9),
    )
    def begin(self, shape: tuple[int, int], random_first: int, sequential: bool, seed: int) -> None:
        """Begin a torrent; four pieces at once are all that the memory allows."""
        config = Config(piece_buffer_budget=0, random_first_pieces=random_first)
        piece_length, total = shape
        self.lab = Lab(piece_length=piece_length, total=total, config=config, seed=seed, sequential=sequential)

    @invariant()
    def the_books_agree(self) -> None:
        """Nothing is lost between the tables, and every full piece is in somebody's hands."""
        if hasattr(self, "lab"):
            check_books(self.manager)
            verifying = {index for index, state in enumerate(self.manager.states()) if state == VERIFYING}
            assert verifying == {piece.index for piece in self.full}

    # --- what may happen --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.remotes) < 6)
    @rule(
        kind=st.sampled_from(["good", "good", "liar", "mute"]),
        pieces=st.integers(0, 2**10 - 1) | st.just(2**10 - 1),
        depth=st.integers(1, 20),
        fast=st.booleans(),
        unchokes=st.booleans(),
    )
    def joins(self, kind: str, pieces: int, depth: int, fast: bool, unchokes: bool) -> None:
        """A peer connects and tells what it has."""
        remote = self.connect(kind, pieces, depth, fast=fast)
        if unchokes:
            self.unchoke(remote)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), index=st.integers(0, 10))
    def has(self, data: st.DataObject, index: int) -> None:
        """A peer gets a piece, or speaks of one that does not exist."""
        remote = self.some_peer(data)
        if index < self.manager.piece_count:
            self.manager.peer_has(remote, index)
        else:
            with pytest.raises(ProtocolViolation):
                self.manager.peer_has(remote, index)
            self.disconnect(remote)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), depth=st.integers(1, 20))
    def unchokes(self, data: st.DataObject, depth: int) -> None:
        """A peer unchokes us, and its depth changes."""
        remote = self.some_peer(data)
        remote.depth = depth
        self.unchoke(remote)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data())
    def chokes(self, data: st.DataObject) -> None:
        """A peer chokes us; with the fast extension what is under way will be answered or rejected."""
        remote = self.some_peer(data)
        remote.is_choking = True
        self.manager.peer_choked(remote, keeps_requests=remote.fast)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), index=st.integers(0, 9))
    def allows(self, data: st.DataObject, index: int) -> None:
        """A peer serves a piece even while it chokes us (BEP 6)."""
        remote = self.some_peer(data)
        if remote.fast and index < self.manager.piece_count:
            self.manager.peer_allows(remote, index)
            self.ask(remote)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), index=st.integers(0, 9))
    def suggests(self, data: st.DataObject, index: int) -> None:
        """A peer has a piece at hand (BEP 6)."""
        if index < self.manager.piece_count:
            self.manager.peer_suggests(self.some_peer(data), index)

    @precondition(lambda self: any(remote.asked for remote in self.remotes))
    @rule(data=st.data(), number=st.integers(0, 30))
    def rejects(self, data: st.DataObject, number: int) -> None:
        """A peer will not answer a request (BEP 6)."""
        remote = data.draw(st.sampled_from([remote for remote in self.remotes if remote.asked]))
        self.reject(remote, remote.asked.pop(number % len(remote.asked)))

    @precondition(lambda self: any(remote.asked for remote in self.remotes))
    @rule(
        data=st.data(),
        order=st.lists(st.integers(0, 30), min_size=1, max_size=8) | st.just([0] * 8),
        asks=st.booleans(),
        late=st.just(0) | st.integers(0, 2 * BLOCK_SIZE),
    )
    def answers(self, data: st.DataObject, order: list[int], asks: bool, late: int) -> None:
        """A peer answers some of what it was ever asked for, in any order; the end of it may come later."""
        remote = data.draw(st.sampled_from([remote for remote in self.remotes if remote.asked]))
        picked = [remote.asked.pop(number % len(remote.asked)) for number in order[: len(remote.asked)]]
        self.deliver(remote, [self.answer(remote, request) for request in picked], asks=asks, late=late)

    @precondition(lambda self: any(remote.on_the_way for remote in self.remotes))
    @rule(data=st.data(), late=st.just(0) | st.integers(0, 2 * BLOCK_SIZE))
    def goes_on(self, data: st.DataObject, late: int) -> None:
        """More arrives of what a peer has sent."""
        remote = data.draw(st.sampled_from([remote for remote in self.remotes if remote.on_the_way]))
        while remote in self.remotes and len(remote.on_the_way) > late:
            self.receive(remote, self.read(remote, len(remote.on_the_way) - late))

    @precondition(lambda self: self.remotes)
    @rule(data=st.data())
    def is_silent_for_a_moment(self, data: st.DataObject) -> None:
        """A read ends without a byte, and another one begins: places may have changed meanwhile."""
        self.begin_read(self.some_peer(data))

    @precondition(lambda self: any(remote.sent for remote in self.remotes))
    @rule(data=st.data(), number=st.integers(0, 30), times=st.sampled_from([1, 2, UNASKED_BLOCKS_TOLERATED + 1]))
    def repeats(self, data: st.DataObject, number: int, times: int) -> None:
        """A peer sends a block again."""
        remote = data.draw(st.sampled_from([remote for remote in self.remotes if remote.sent]))
        self.deliver(remote, [remote.sent[number % len(remote.sent)]] * times)

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), index=st.integers(0, 10), block=st.integers(0, 4), off=st.sampled_from([0, 0, 0, 1, -1]))
    def volunteers(self, data: st.DataObject, index: int, block: int, off: int) -> None:
        """A peer sends what nobody asked for: a whole block, or one with a wrong length."""
        remote = self.some_peer(data)
        length = min(BLOCK_SIZE, max(0, self.manager.piece_size(index) - block * BLOCK_SIZE)) + off
        self.deliver(remote, [self.answer(remote, Request(index, block * BLOCK_SIZE, max(0, length)))])

    @precondition(lambda self: any(remote.asked for remote in self.remotes))
    @rule(data=st.data())
    def answers_all_and_breaks_the_rules(self, data: st.DataObject) -> None:
        """A batch that ends in a violation: what came before it must not be lost."""
        remote = data.draw(st.sampled_from([remote for remote in self.remotes if remote.asked]))
        answers = [self.answer(remote, request) for request in remote.asked]
        self.deliver(remote, [*answers, Piece(self.manager.piece_count, 0, b"x")])
        assert remote not in self.remotes

    @precondition(lambda self: self.remotes)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        """A connection ends."""
        self.disconnect(self.some_peer(data))

    @rule(seconds=st.sampled_from([0.01, 0.06, 1.0, 19.0, 21.0, 100.0]), feeds=st.booleans())
    def time_passes(self, seconds: float, feeds: bool) -> None:
        """Housekeeping looks for peers that keep us waiting."""
        self.lab.clock.advance(seconds)
        self.time_out()
        if feeds:
            self.feed_hungry()

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), rate=st.sampled_from([0.0, 10.0, 31.0, 1e6]))
    def has_a_speed(self, data: st.DataObject, rate: float) -> None:
        """A peer was measured."""
        self.manager.set_rate(self.some_peer(data), rate)

    @precondition(lambda self: self.full)
    @rule(number=st.integers(0, 9))
    def is_verified(self, number: int) -> None:
        """A verifier hashes one of the full pieces."""
        self.verify(self.full.pop(number % len(self.full)))

    @precondition(lambda self: self.full)
    @rule(number=st.integers(0, 9))
    def is_not_written(self, number: int) -> None:
        """The disk refuses a piece."""
        self.manager.mark_failed(self.full.pop(number % len(self.full)).index, was_bad=False)

    @precondition(lambda self: self.manager.complete_count)
    @rule(number=st.integers(0, 9))
    def is_lost_from_disk(self, number: int) -> None:
        """Somebody deletes a file."""
        complete = list(self.manager.bitfield)
        self.manager.mark_missing(complete[number % len(complete)])

    # --- the end ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever happened: one good peer with everything must be enough, however the others go on."""
        if not hasattr(self, "lab"):
            return
        self.unchoke(self.connect("good", 2**10 - 1, 16, fast=False))
        for _ in range(1000):
            if self.manager.is_complete:
                break
            self.second()
        else:
            raise AssertionError(f"not complete after 1000 s: {self.lab.states()}")
        assert not self.full

    def second(self) -> None:
        """Let one second pass: everybody who answers at all answers something."""
        self.lab.clock.advance(1.0)
        for remote in list(self.remotes):
            asked = [] if remote.kind == "mute" or remote not in self.remotes else remote.asked[:4]
            del remote.asked[: len(asked)]
            if not remote.is_choking:
                self.deliver(remote, [self.answer(remote, request) for request in asked], asks=True)
            elif remote.fast:
                for request in asked:
                    self.reject(remote, request)
            while self.full:
                self.verify(self.full.pop())
                self.feed_hungry()
        self.time_out()
        self.feed_hungry()

    # --- what the conversation does ---------------------------------------------------------------------

    def some_peer(self, data: st.DataObject) -> Remote:
        """Draw a connected peer."""
        return data.draw(st.sampled_from(self.remotes))

    def connect(self, kind: str, pieces: int, depth: int, *, fast: bool) -> Remote:
        """Add a peer, which begins by choking us."""
        self.joined += 1
        remote = Remote(self.joined, kind, depth, fast=fast)
        self.remotes.append(remote)
        self.manager.add_peer(remote)
        self.manager.peer_choked(remote, keeps_requests=False)
        self.manager.peer_has_all(remote, pieces & (1 << self.manager.piece_count) - 1)
        self.begin_read(remote)
        return remote

    def disconnect(self, remote: Remote) -> None:
        """Remove a peer."""
        if remote in self.remotes:
            self.remotes.remove(remote)
            self.manager.remove_peer(remote)
            self.feed_hungry()

    def unchoke(self, remote: Remote) -> None:
        """Let a peer unchoke us."""
        remote.is_choking = False
        self.manager.peer_unchoked(remote)
        self.ask(remote)

    def reject(self, remote: Remote, request: Request) -> None:
        """Let a peer reject a request."""
        self.manager.request_rejected(remote, request.piece_index, request.begin)
        self.feed_hungry()
        self.ask(remote)

    def ask(self, remote: Remote) -> None:
        """Ask a peer for more, if it may be asked."""
        if remote in self.remotes and (remote.fast or not remote.is_choking):
            depth = 1 if remote.is_snubbed else remote.depth
            requests = self.manager.next_requests(remote, depth, self.lab.clock())
            assert not any(remote in self.manager.who_lacks(1 << request.piece_index) for request in requests)
            assert not requests or self.manager.peer_progress(remote)[1] <= depth
            remote.asked += requests

    def feed_hungry(self) -> None:
        """Ask those who could take more."""
        for remote in self.manager.take_hungry(self.lab.clock()):
            assert isinstance(remote, Remote)
            self.ask(remote)

    def time_out(self) -> None:
        """Snub those who keep us waiting."""
        for remote in self.manager.stalled_peers(self.lab.clock()):
            assert isinstance(remote, Remote)
            remote.is_snubbed = True

    def answer(self, remote: Remote, request: Request) -> Piece:
        """Return what a peer would send for a request."""
        return self.lab.block(request, corrupt=remote.kind == "liar")

    def begin_read(self, remote: Remote) -> None:
        """Let a peer's reader wait: from now on the system may write where it reads to."""
        remote.reads_into = remote.reader.writable(partial(self.manager.places, remote))

    def scribble(self) -> None:
        """Let the system leave bytes of whatever peers send where their readers read to."""
        for remote in self.remotes:
            for buffer in remote.reads_into:
                buffer[:] = b"?" * len(buffer)

    def deliver(self, remote: Remote, blocks: Sequence[Piece], *, asks: bool = False, late: int = 0) -> None:
        """Let blocks arrive, but for the last `late` bytes; a violation ends the connection."""
        if not blocks:
            return
        remote.is_snubbed = False
        remote.sent += blocks
        remote.on_the_way += b"".join(block.encode() for block in blocks)
        while remote in self.remotes and len(remote.on_the_way) > late:
            self.receive(remote, self.read(remote, len(remote.on_the_way) - late))
        if asks:
            self.ask(remote)

    def read(self, remote: Remote, most: int) -> list[Piece | BlockRun]:
        """Read up to `most` bytes of what a peer has sent; return the blocks that are whole."""
        count = 0
        for buffer in remote.reads_into:
            part = remote.on_the_way[count : min(most, count + len(buffer))]
            buffer[: len(part)] = part
            count += len(part)
        remote.on_the_way = remote.on_the_way[count:]
        return [message for message in remote.reader.received(count) if isinstance(message, Piece | BlockRun)]

    def receive(self, remote: Remote, blocks: list[Piece | BlockRun]) -> None:
        """Let the manager have what was read, and read on."""
        counted = self.manager.useful_bytes + self.manager.wasted_bytes
        try:
            received = self.manager.receive_blocks(remote, blocks, self.lab.clock())
        except ProtocolViolation:
            self.disconnect(remote)
            return
        counted = self.manager.useful_bytes + self.manager.wasted_bytes - counted
        assert counted == sum(each.size if isinstance(each, BlockRun) else len(each.block) for each in blocks)
        for loser, cancel in received.cancels:
            assert isinstance(loser, Remote)
            assert loser is not remote
            assert Request(*cancel) in loser.asked or loser.on_the_way
        self.full += received.full
        self.begin_read(remote)

    def verify(self, piece: ActivePiece) -> None:
        """Keep a good piece; find out who sent a bad one."""
        self.scribble()
        suppliers: Collection[Any] = set(piece.requesters)
        is_good = self.manager.verify_piece(piece.index, piece.data)
        assert is_good != any(supplier.kind == "liar" for supplier in suppliers)
        if is_good:
            guilty = self.smart_ban.convict(piece.index, [block for _, block in piece.suppliers()])
            self.manager.mark_complete(piece.index)
        elif len(suppliers) == 1:
            guilty = set(suppliers)
            self.manager.mark_failed(piece.index)
        else:
            guilty = set()
            self.smart_ban.remember(piece.index, piece.suppliers())
            self.manager.mark_failed(piece.index, suppliers)
        for remote in guilty:
            assert remote.kind == "liar", "an honest peer was banned"
            self.disconnect(remote)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40)


# --- wanted pieces ----------------------------------------------------------------------------------------


def test_unwanted_pieces_are_never_begun() -> None:
    """Only what is wanted is asked for, and then the download is done but not complete."""
    lab = Lab(pieces=5, blocks=1, wanted=WantedPieces((bits([1, 3]),)))
    lab.join("a")
    requests = lab.ask("a")
    assert sorted(index for index, _ in blocks_of(requests)) == [1, 3]
    full = lab.give("a", requests).full
    assert lab.manager.get_next_piece("a") is None
    assert not lab.manager.is_done
    lab.keep(full)
    assert lab.manager.is_done
    assert not lab.manager.is_complete
    assert lab.ask("a") == []
    assert lab.manager.take_hungry(lab.clock()) == []


def test_only_the_last_wanted_piece_is_the_last() -> None:
    """`mark_complete` tells it once, whatever comes of unwanted pieces before and after."""
    lab = Lab(pieces=4, wanted=WantedPieces((bits([1, 2]),)))
    assert [lab.manager.mark_complete(index) for index in (0, 1, 2, 3)] == [False, False, True, False]


def test_the_most_urgent_pieces_come_first_and_the_rarest_of_them_before_others() -> None:
    """Rarity counts within a level only."""
    levels = (bits([4, 5]), bits([2, 3]), bits([0, 1]))
    lab = Lab(pieces=7, blocks=1, wanted=WantedPieces(levels))
    lab.join("a")
    lab.join("b", pieces=[0, 2, 4])  # 1, 3, 5 are rarer
    lab.join("c", pieces=[0, 1])
    assert [index for index, _ in blocks_of(lab.ask("a"))] == [5, 4, 3, 2, 1, 0]


def test_the_first_random_pieces_are_urgent_ones() -> None:
    """A newcomer takes any piece, but of the highest level."""
    for seed in range(20):
        levels = (bits([6, 7]), bits(range(6)))
        lab = Lab(pieces=8, blocks=1, seed=seed, config=Config(random_first_pieces=4), wanted=WantedPieces(levels))
        lab.join("a")
        assert lab.ask("a", depth=1)[0].piece_index in (6, 7)


def test_a_peer_without_urgent_pieces_gives_others() -> None:
    """Nobody waits for pieces that a peer does not have."""
    lab = Lab(pieces=4, blocks=1, wanted=WantedPieces((bits([0]), bits([1, 2, 3]))))
    lab.join("a", pieces=[2])
    assert blocks_of(lab.ask("a")) == [(2, 0)]


def test_a_peer_with_unwanted_pieces_alone_is_not_interesting() -> None:
    """It is as if it had nothing."""
    lab = Lab(pieces=4, wanted=WantedPieces((bits([1]),)))
    lab.manager.add_peer("a")
    assert not lab.manager.peer_has_all("a", bits([0, 2]))
    assert not lab.manager.peer_has("a", 3)
    assert not lab.manager.is_interesting("a")
    assert lab.manager.peer_has("a", 1)
    assert lab.manager.is_interesting("a")
    lab.manager.mark_complete(1)
    assert not lab.manager.is_interesting("a")


def test_the_end_game_begins_when_the_wanted_pieces_are_asked_for() -> None:
    """Unwanted pieces that are missing do not keep a fast peer from helping."""
    lab = Lab(pieces=3, blocks=2, wanted=WantedPieces((bits([1]),)))
    lab.join("slow", rate=1.0)
    lab.join("fast", rate=1000.0)
    assert blocks_of(lab.ask("slow")) == [(1, 0), (1, 1)]
    assert sorted(blocks_of(lab.ask("fast"))) == [(1, 0), (1, 1)]


def test_the_choice_may_change_while_pieces_are_under_way() -> None:
    """What was begun may still come, what is wanted now is asked for, and the books agree."""
    lab = Lab(pieces=4, blocks=2, wanted=WantedPieces((bits([0]),)))
    lab.join("a")
    begun = lab.ask("a", depth=1)
    lab.manager.set_wanted(WantedPieces((bits([2]), bits([3]))))
    check_books(lab.manager)
    later = lab.ask("a")
    assert blocks_of(later) == [(0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    lab.keep(lab.give("a", begun + later).full)
    assert lab.manager.is_done
    assert [index for index, state in enumerate(lab.states()) if state == COMPLETE] == [0, 2, 3]
    lab.manager.set_wanted(WantedPieces.all_of(4))
    assert not lab.manager.is_done
    assert lab.manager.is_interesting("a")
    assert blocks_of(lab.ask("a")) == [(1, 0), (1, 1)]


def test_an_unwanted_piece_that_failed_is_not_begun_again() -> None:
    """It goes back to MISSING and stays there."""
    lab = Lab(pieces=2, blocks=1)
    lab.join("a")
    (piece,) = lab.give("a", lab.ask("a", depth=1), corrupt=True).full
    lab.manager.set_wanted(WantedPieces((bits([1 - piece.index]),)))
    lab.manager.mark_failed(piece.index)
    check_books(lab.manager)
    assert [index for index, _ in blocks_of(lab.ask("a"))] == [1 - piece.index]


def test_an_unwanted_piece_that_is_lost_from_disk_is_not_missed() -> None:
    """It counted for nothing while it was there."""
    lab = Lab(pieces=3, wanted=WantedPieces((bits([0]),)))
    for index in range(2):
        lab.manager.mark_complete(index)
    before = lab.manager.wanted_progress()
    lab.manager.mark_missing(1)
    check_books(lab.manager)
    assert lab.manager.wanted_progress() == before
    assert lab.manager.is_done


def test_progress_counts_the_wanted_bytes_alone() -> None:
    """Of a piece that reaches into unwanted files only the rest counts; the last piece is short."""
    lab = Lab(piece_length=BLOCK_SIZE, total=4 * BLOCK_SIZE + 100)
    manager = lab.manager
    assert manager.wanted_progress() == (5, 0, 4 * BLOCK_SIZE + 100, 0)
    manager.mark_complete(0)
    manager.mark_complete(1)
    manager.set_wanted(WantedPieces((bits([1, 2, 4]),), {1: 84, 4: 10}))
    check_books(manager)
    assert manager.wanted_progress() == (3, 1, 2 * BLOCK_SIZE - 84 + 90, BLOCK_SIZE - 84)
    manager.mark_complete(4)
    check_books(manager)
    assert manager.wanted_progress() == (3, 2, 2 * BLOCK_SIZE - 84 + 90, BLOCK_SIZE - 84 + 90)
    manager.mark_missing(1)
    check_books(manager)
    assert manager.wanted_progress() == (3, 1, 2 * BLOCK_SIZE - 84 + 90, 90)


def test_the_books_notice_a_piece_on_two_levels() -> None:
    """`check_invariants` would tell of levels that have a piece in common."""
    lab = Lab(pieces=3, wanted=WantedPieces((bits([0, 1]), bits([1, 2]))))
    with pytest.raises(AssertionError, match="two levels"):
        lab.manager.check_invariants()


def test_choosing_among_100_000_pieces_takes_microseconds() -> None:
    """Levels are whole sets: picking does not depend on how many pieces there are, but for memory speed."""
    count = 100_000
    picker = PiecePicker(count, Random(1))
    picker.levels = tuple(bits_of_every(count, 4, offset) for offset in range(4))
    everything = (1 << count) - 1
    for peer in range(50):
        picker.add(bits_of_every(count, 2 + peer % 7, peer % 5))
    start = time.perf_counter()
    for _ in range(1000):
        assert picker.pick(everything, completed=100) is not None
    assert time.perf_counter() - start < 30  # 0.03 s on an idle machine; with a scan per message it would be hours


def bits_of_every(count: int, step: int, offset: int) -> int:
    """Return the set of every `step`-th piece from `offset` on."""
    return int("".join("1" if index % step == offset % step else "0" for index in range(count))[::-1], 2)


def test_an_unchoke_ends_the_wait_for_a_refused_piece() -> None:
    """What is refused after it is not asked for again any sooner than usual."""
    lab = Lab(pieces=1, blocks=1)
    lab.join("a")
    for _ in range(2):
        (request,) = lab.ask("a")
        lab.manager.request_rejected("a", request.piece_index, request.begin)
        lab.manager.stalled_peers(lab.clock())
        lab.clock.advance(15.0)
        lab.manager.stalled_peers(lab.clock())
        assert lab.ask("a") == []
        lab.manager.peer_choked("a", keeps_requests=True)
        lab.manager.peer_unchoked("a")


def test_a_refused_piece_is_asked_for_again_after_a_while() -> None:
    """The peer's queue may have been full for a moment; with one seed, never to ask again is to stall."""
    manager = PieceManager(bytes(20), BLOCK_SIZE, BLOCK_SIZE, Config(), Random(1))
    manager.add_peer("seed")
    manager.peer_has_all("seed", 1)
    (request,) = manager.next_requests("seed", 8, 0.0)
    manager.request_rejected("seed", request.piece_index, request.begin)
    assert manager.next_requests("seed", 8, 1.0) == []
    manager.take_hungry(1.0)
    manager.stalled_peers(1.0)
    manager.stalled_peers(1.0 + Config().request_timeout)
    assert manager.take_hungry(1.0 + Config().request_timeout) == ["seed"]
    assert manager.next_requests("seed", 8, 30.0) == [request]
