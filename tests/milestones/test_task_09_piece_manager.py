"""Task 9: Implement Piece Manager."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tests.milestones.lesson import Torrent, made_up, make_torrent, shown
from tests.milestones.student import Student, Surprise, Task

TASK = Task(
    9,
    "Implement Piece Manager",
    "Track download progress and piece integrity",
    "PieceManager class tracking all pieces",
    """\
piece_manager.py
    class PieceManager:
        def __init__(self, ...): ...       # any of: torrent, hashes, piece_length, length
        def add_peer(self, peer, pieces): ...   # a new peer, any name such as "A", and the indexes that it has
        def get_next_piece(self, peer):
            '''Return the index of the rarest missing piece that the peer has, now downloading; else None.'''
        def verify_piece(self, index, data): ...    # does its SHA-1 agree?
        def mark_complete(self, index): ...""",
    "Keep a status for each piece and a set of peers for each piece. Of the missing pieces that the peer has, "
    "`min(candidates, key=lambda index: len(self.peers_of[index]))` is the rarest.",
)

RAREST = 'the guide, Task 9, rarest first algorithm, and BEP 3, section "peer messages"'
HASHES = 'BEP 3, section "metainfo files" (pieces)'


PIECES = 5


def manager_of(student: Student, torrent: Torrent, peers: Mapping[str, Sequence[int]]) -> Any:
    """Return the student's PieceManager, which knows some peers."""
    manager = student.call(
        student.find("piece_manager", "PieceManager"),
        path=str(torrent.path),
        torrent=student.torrent(torrent),
        hashes=list(torrent.hashes),
        piece_length=torrent.piece_length,
        length=len(torrent.data),
        piece_count=torrent.piece_count,
    )
    for peer, pieces in peers.items():
        add_peer = student.method(manager, "add_peer", "update_peer", "add_peer_pieces", "set_peer_pieces", "peer_has")
        parameters = list(inspect.signature(add_peer).parameters)
        if len(parameters) > 1 and add_peer.__name__ != "peer_has":
            add_peer(peer, _peer_as(parameters[1], list(pieces), pieces))
            continue
        if add_peer.__name__ != "peer_has":
            add_peer(peer)
        for index in pieces:
            student.method(manager, "peer_has", "add_peer_piece")(peer, index)
    return manager


def _peer_as(parameter: str, usual: object, pieces: Sequence[int]) -> object:
    """Return what a parameter's name asks for: a list of True and False, a set of indexes, or the usual."""
    if "bitfield" in parameter:
        return [index in pieces for index in range(PIECES)]
    return set(pieces) if "pieces" in parameter or "available" in parameter else usual


def next_piece(student: Student, manager: Any, peer: str, pieces: Sequence[int] = range(5)) -> int | None:
    """Ask the student's PieceManager what to download next from a peer, which has these pieces."""
    method = student.method(manager, "get_next_piece")
    parameters = list(inspect.signature(method).parameters)
    got = method(_peer_as(parameters[0], peer, pieces)) if parameters else method()
    if got is not None and not isinstance(got, int):
        got = getattr(got, "index", got)
    if got is not None and not isinstance(got, int):
        raise Surprise(f"get_next_piece() gave {shown(got)}, which is no index")
    return got


def five_pieces(student: Student) -> Torrent:
    """Return a torrent of five pieces, the last one short."""
    return make_torrent(student.folder, made_up(4 * 32768 + 100))


def test_the_rarest_piece_is_first(student: Student) -> None:
    """Of the pieces that a peer has, the one that fewest peers have."""
    peers = {"A": [0, 1, 2, 3, 4], "B": [0, 1, 3, 4], "C": [0, 3], "D": [0, 3, 4]}
    with student.rule(
        "the piece that fewest peers have comes first: here 2 (one peer), then 1 (two), then 4 (three)", RAREST
    ):
        manager = manager_of(student, five_pieces(student), peers)
        got = [next_piece(student, manager, "A") for _ in range(3)]
        student.expect(got == [2, 1, 4], f"get_next_piece() gave {got}")


def test_no_piece_is_given_twice(student: Student) -> None:
    """What is being downloaded is not given to another peer, and what is left is nothing."""
    with student.rule("a piece that is being downloaded from one peer is not given to another one", RAREST):
        manager = manager_of(student, five_pieces(student), {"A": range(5), "B": range(5)})
        got = [next_piece(student, manager, "A" if number % 2 else "B") for number in range(5)]
        student.expect(sorted(x for x in got if x is not None) == [0, 1, 2, 3, 4], f"get_next_piece() gave {got}")
    with student.rule("when every piece is downloading or complete there is no next one: None", RAREST):
        last = next_piece(student, manager, "A")
        student.expect(last is None, f"get_next_piece() gave {last}")


def test_only_pieces_that_the_peer_has(student: Student) -> None:
    """A peer is asked for what it has."""
    with student.rule("a peer can give only the pieces that its bitfield and haves name, here 3 and then none", RAREST):
        manager = manager_of(student, five_pieces(student), {"A": [3], "B": range(5)})
        got = [next_piece(student, manager, "A", [3]) for _ in range(2)]
        student.expect(got == [3, None], f"get_next_piece('A') gave {got}")


def test_the_hash_decides(student: Student) -> None:
    """verify_piece compares SHA-1, for the short last piece too."""
    torrent = five_pieces(student)
    with student.rule("a piece is good if its SHA-1 is the one in the torrent", HASHES):
        manager = manager_of(student, torrent, {"A": range(5)})
        verify = student.method(manager, "verify_piece")
        for index in range(5):
            good = torrent.piece(index)
            student.expect(verify(index, good) is not False and verify(index, good), f"good piece {index} was refused")
            for bad, which in ((bytes([good[0] ^ 1]) + good[1:], "a wrong byte"), (good[:-1], "a byte missing")):
                student.expect(not verify(index, bad), f"verify_piece({index}) accepted a piece with {which}")


def test_complete_pieces_are_done(student: Student) -> None:
    """What is marked complete is never given again."""
    torrent = five_pieces(student)
    with student.rule("a piece that is complete is not downloaded again", "the guide, Task 9"):
        manager = manager_of(student, torrent, {"A": range(5)})
        for index in (0, 2):
            mark_complete = student.method(manager, "mark_complete")
            wants_data = len(inspect.signature(mark_complete).parameters) == 2
            mark_complete(index, torrent.piece(index)) if wants_data else mark_complete(index)
        got = [next_piece(student, manager, "A") for _ in range(4)]
        student.expect(sorted(x for x in got if x is not None) == [1, 3, 4], f"after 0 and 2 were complete: {got}")
