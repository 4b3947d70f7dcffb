"""The blocks of one piece: sizes, who was asked, who sent them, and buffers that are used again."""

import pytest

from tests.support import payload
from torrent_client.active_piece import ActivePiece, BufferPool, PieceBuffer
from torrent_client.config import BLOCK_SIZE
from torrent_client.protocol.messages import piece_header


def piece_with_buffer(length: int, owner: str | None = "a") -> ActivePiece:
    """Return a piece that blocks can be stored in."""
    piece = ActivePiece(7, length, owner)
    piece.buffer = PieceBuffer(length)
    return piece


def ask(piece: ActivePiece, *peers: str) -> None:
    """Ask one peer after the other for the next block."""
    for peer in peers:
        piece.requesters[piece.unrequested.pop()] = peer


@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (1, [1]),
        (BLOCK_SIZE - 1, [BLOCK_SIZE - 1]),
        (BLOCK_SIZE, [BLOCK_SIZE]),
        (BLOCK_SIZE + 1, [BLOCK_SIZE, 1]),
        (2 * BLOCK_SIZE, [BLOCK_SIZE, BLOCK_SIZE]),
        (40_000, [BLOCK_SIZE, BLOCK_SIZE, 7232]),
    ],
)
def test_a_piece_is_cut_into_blocks_of_16_kib_and_a_rest(length: int, lengths: list[int]) -> None:
    """Every byte is in exactly one block, and no block is empty."""
    piece = ActivePiece(0, length, None)
    assert list(piece.block_lengths.values()) == lengths
    assert list(piece.block_lengths) == [number * BLOCK_SIZE for number in range(len(lengths))]
    assert piece.remaining == piece.block_count == len(lengths)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_piece_knows_which_one_it_is_and_whose(exclusive: bool) -> None:
    """Anybody may help with it, unless it was begun as one peer's alone."""
    assert not ActivePiece(7, 1, None).exclusive
    piece = ActivePiece(7, 1, "a", exclusive=exclusive)
    assert (piece.index, piece.owner, piece.exclusive) == (7, "a", exclusive)


def test_blocks_are_taken_in_order() -> None:
    """The stack gives the lowest block first."""
    piece = ActivePiece(0, 3 * BLOCK_SIZE, "a")
    assert [piece.unrequested.pop() for _ in range(3)] == [0, 1, 2]


def test_blocks_make_the_piece_in_whatever_order_they_come() -> None:
    """Each goes to its place, the short last one too."""
    data = payload(2 * BLOCK_SIZE + 5)
    piece = piece_with_buffer(len(data))
    for block, left in ((2, 2), (0, 1), (1, 0)):
        begin = block * BLOCK_SIZE
        piece.store(block, memoryview(data)[begin : begin + BLOCK_SIZE], f"peer {block}")
        assert piece.remaining == left
    assert piece.data == data
    assert list(piece.received) == [1, 1, 1]
    suppliers = [(peer, bytes(block)) for peer, block in piece.suppliers()]
    assert suppliers == [
        ("peer 0", data[:BLOCK_SIZE]),
        ("peer 1", data[BLOCK_SIZE : 2 * BLOCK_SIZE]),
        ("peer 2", data[2 * BLOCK_SIZE :]),
    ]


def test_the_supplier_counts_and_not_who_was_asked() -> None:
    """A block that somebody else brought is put to that peer's account."""
    piece = piece_with_buffer(BLOCK_SIZE)
    ask(piece, "a")
    piece.store(0, payload(BLOCK_SIZE), "b")
    assert [peer for peer, _ in piece.suppliers()] == ["b"]


def test_a_block_given_up_by_its_only_requester_is_free_again() -> None:
    """It lies on top of the stack: the next peer gets it first."""
    piece = ActivePiece(0, 3 * BLOCK_SIZE, "a")
    ask(piece, "a", "a")
    assert piece.give_up(0, "a") is True
    assert piece.requesters == [None, "a", None]
    assert piece.unrequested == [2, 0]


def test_a_block_given_up_by_one_of_two_stays_asked_for() -> None:
    """Whoever of the two remains is the only one asked, be it the first or the second."""
    for leaver, remaining in (("a", "b"), ("b", "a")):
        piece = ActivePiece(0, BLOCK_SIZE, "a")
        ask(piece, "a")
        piece.second_requesters[0] = "b"
        assert piece.give_up(0, leaver) is False
        assert piece.requesters == [remaining]
        assert piece.second_requesters == {}
        assert piece.unrequested == []


def test_a_block_is_not_given_up_for_somebody_who_was_not_asked() -> None:
    """Those who were asked still are."""
    piece = ActivePiece(0, BLOCK_SIZE, "a")
    ask(piece, "a")
    piece.second_requesters[0] = "b"
    assert piece.give_up(0, "c") is False
    assert piece.requesters == ["a"]
    assert piece.second_requesters == {0: "b"}
    del piece.second_requesters[0]
    assert piece.give_up(0, "c") is False
    assert piece.requesters == ["a"]
    assert piece.second_requesters == {}


def test_its_workers_are_its_owner_and_those_who_owe_it_blocks() -> None:
    """Who has brought what it was asked for is no worker any more; None stands for blocks nobody is asked for."""
    piece = piece_with_buffer(4 * BLOCK_SIZE, owner="a")
    ask(piece, "b", "c", "d")
    piece.second_requesters[1] = "e"
    piece.store(0, payload(BLOCK_SIZE), "b")
    assert piece.workers() == {"a", "c", "d", "e", None}
    ask(piece, "c")
    assert piece.workers() == {"a", "c", "d", "e"}


def test_buffers_are_used_again() -> None:
    """The pool makes a new one only when none is free."""
    pool = BufferPool(100)
    first, second = pool.take(100), pool.take(100)
    assert (len(first.data), len(second.data)) == (100, 100)
    assert first is not second
    pool.give_back(first)
    assert pool.take(100) is first
    assert pool.take(100) not in (first, second)


def test_the_last_pieces_buffer_is_as_short_as_the_piece() -> None:
    """It is not kept for the other pieces, which it would not hold."""
    pool = BufferPool(100)
    last = pool.take(40)
    assert len(last.data) == 40
    pool.give_back(last)
    assert len(pool.take(100).data) == 100
    pool.give_back(PieceBuffer(100))
    assert len(pool.take(40).data) == 40


def test_a_buffer_has_a_view_of_each_block() -> None:
    """What is written through it is in the data."""
    buffer = PieceBuffer(BLOCK_SIZE + 4)
    assert [len(block) for block in buffer.blocks] == [BLOCK_SIZE, 4]
    buffer.blocks[1][1:3] = b"ab"
    assert bytes(buffer.data[-3:-1]) == b"ab"


def test_blocks_that_are_in_their_places_are_not_copied() -> None:
    """The tenant's reads go to the very memory of the piece, and to room for the headers."""
    data = payload(2 * BLOCK_SIZE + 5)
    piece = ActivePiece(7, len(data), "a")
    piece.move_in("a", PieceBuffer(len(data)))
    run = piece.run(1, 2)
    assert (run.piece_index, run.first, [len(part) for part in run.parts]) == (7, 1, [13, BLOCK_SIZE, 13, 5])
    assert run.headers == piece_header(7, BLOCK_SIZE, BLOCK_SIZE) + piece_header(7, 2 * BLOCK_SIZE, 5)
    for part, begin in zip(run.parts[1::2], (BLOCK_SIZE, 2 * BLOCK_SIZE), strict=True):
        part[:] = data[begin:][: len(part)]
    run.heads[:] = run.headers
    assert b"".join(run.parts[::2]) == run.headers
    assert piece.is_in_place(run)
    piece.store_run(1, 2)
    piece.store(0, data[:BLOCK_SIZE], "a")
    assert piece.data == data
    assert piece.remaining == 0


def test_what_has_come_moves_out_of_the_tenants_reach() -> None:
    """Whatever the tenant still reads goes to the old memory, and the piece has no tenant any more."""
    piece = ActivePiece(7, 2 * BLOCK_SIZE, "a")
    old, new = PieceBuffer(2 * BLOCK_SIZE), PieceBuffer(2 * BLOCK_SIZE)
    piece.move_in("a", old)
    run = piece.run(0, 2)
    piece.store(0, payload(BLOCK_SIZE), "a")
    piece.move_out(new)
    old.data[:] = b"?" * len(old.data)
    piece.store(1, payload(BLOCK_SIZE), "b")
    assert piece.data == 2 * payload(BLOCK_SIZE)
    assert (piece.tenant, piece.was_shared) == (None, True)
    assert not piece.is_in_place(run)


def test_a_piece_that_is_disowned_is_anybodys() -> None:
    """Neither its owner nor the owner's parole keeps others from finishing it."""
    piece = ActivePiece(0, BLOCK_SIZE, "a", exclusive=True)
    piece.disown()
    assert (piece.owner, piece.exclusive) == (None, False)


def test_one_supplier_is_told_from_several() -> None:
    """It decides whether a bad piece convicts."""
    for second, is_alone in (("a", True), ("b", False)):
        piece = piece_with_buffer(2 * BLOCK_SIZE)
        piece.store(0, bytes(BLOCK_SIZE), "a")
        piece.store(1, bytes(BLOCK_SIZE), second)
        assert piece.has_one_supplier is is_alone
