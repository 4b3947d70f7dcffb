"""Task 8: Parse Bitfield."""

import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from tests.milestones.lesson import BITFIELD, HAVE, Link, Seeder, Torrent, made_up, make_torrent, message
from tests.milestones.student import Student, Surprise, Task

TASK = Task(
    8,
    "Parse Bitfield",
    "Understand which pieces each peer has",
    "Method to track peer's available pieces",
    """\
peer_connection.py
    class PeerConnection:
        def has_piece(self, index):
            '''Tell whether the peer has a piece, after receive_message() has read its bitfield and haves.'''
        # or an attribute `pieces`: a set of indexes, or a list of True and False""",
    "The first byte's highest bit is piece 0: piece i is `byte[i // 8] >> (7 - i % 8) & 1`. Let "
    "receive_message() take note "
    "of every bitfield (id 5) and have (id 4) that it reads.",
)

BITFIELDS = 'BEP 3, section "peer messages" (bitfield, have)'


def known(connection: Any, index: int) -> bool:
    """Tell whether the student's connection says that its peer has a piece."""
    for name in ("has_piece", "peer_has_piece", "peer_has"):
        if callable(getattr(connection, name, None)):
            return bool(getattr(connection, name)(index))
    for name in ("pieces", "available_pieces", "peer_pieces", "bitfield", "peer_bitfield"):
        value = getattr(connection, name, None)
        if isinstance(value, set | frozenset):
            return index in value
        if isinstance(value, list | tuple):
            is_flags = set(value) <= {True, False}
            return index < len(value) and bool(value[index]) if is_flags else index in value
        if isinstance(value, dict):
            return bool(value.get(index))
    raise Surprise("PeerConnection has neither has_piece() nor `pieces`")


def check(student: Student, torrent: Torrent, messages: bytes, count: int, pieces: Collection[int], rule: str) -> None:
    """Send messages, and compare what the student knows then."""

    def talk(seeder: Seeder, link: Link) -> None:
        link.send(messages)
        while True:
            seeder.heard(link)

    with Seeder(torrent, script=talk) as seeder, student.rule(rule, BITFIELDS):
        connection = student.connect(torrent, seeder.address)
        for _ in range(count):
            student.receive(connection)
        got = [index for index in range(torrent.piece_count) if known(connection, index)]
        student.expect(got == sorted(pieces), f"the peer is said to have {got} and not {sorted(pieces)}")
        with suppress(IndexError):
            student.expect(not known(connection, torrent.piece_count), "it is said to have a piece beyond the last")


def test_the_guides_example(student: Student) -> None:
    """11010110 11000000 is pieces 0, 1, 3, 5, 6, 8, 9."""
    torrent = make_torrent(student.folder, made_up(10 * 16384), piece_length=16384)
    rule = "the highest bit of a bitfield's first byte is piece 0, so 11010110 11000000 is 0, 1, 3, 5, 6, 8, 9"
    check(student, torrent, message(BITFIELD, b"\xd6\xc0"), 1, [0, 1, 3, 5, 6, 8, 9], rule)


def test_haves_add_to_it(student: Student) -> None:
    """A have adds a piece to the bitfield, or to nothing."""
    torrent = make_torrent(student.folder, made_up(10 * 16384), piece_length=16384)
    haves = message(HAVE, struct.pack(">I", 4)) + message(HAVE, struct.pack(">I", 9))
    rule = "`have` adds a piece to what the peer's bitfield says"
    check(student, torrent, message(BITFIELD, b"\x80\x00") + haves, 3, [0, 4, 9], rule)
    check(student, torrent, haves, 2, [4, 9], "a peer without pieces may send no bitfield, only `have` later")
