"""Task 10: Request Blocks from Peers."""

import struct
from hashlib import sha1

from tests.milestones.lesson import (
    BITFIELD,
    BLOCK,
    HAVE,
    INTERESTED,
    REQUEST,
    UNCHOKE,
    Asked,
    Link,
    Seeder,
    Torrent,
    made_up,
    make_torrent,
    message,
    shown,
)
from tests.milestones.student import Student, Task, as_bytes

TASK = Task(
    10,
    "Request Blocks from Peers",
    "Download pieces in 16KB blocks",
    "Method to request and receive blocks",
    """\
peer_connection.py
    class PeerConnection:
        def download_piece(self, index, piece_length):
            '''Say interested, wait for unchoke, request all blocks; return the piece's bytes.'''""",
    "Keep a list of the blocks still to ask for. Send five to ten requests at once, and one more for each block "
    "that comes. "
    "Put each block where its own index and begin say; other messages may come between.",
)

REQUESTS = 'BEP 3, section "peer messages" (request, piece)'
PIPELINE = 'BEP 3, section "peer protocol" (several requests pipelined), and the guide, Task 10'
CHOKING = 'BEP 3, section "peer protocol" (choked and interested)'


def fetched(student: Student, torrent: Torrent, seeder: Seeder, index: int) -> bytes:
    """Return a piece that the student's connection downloads."""
    connection = student.connect(torrent, seeder.address)
    method = student.method(connection, "download_piece", "request_piece", "get_piece", "fetch_piece")
    value = student.call(method, index=index, piece_length=len(torrent.piece(index)), length=len(torrent.piece(index)))
    raw = as_bytes(value)
    student.expect(raw is not None, f"download_piece() gave {shown(value)}")
    return raw or b""


def expect_piece(student: Student, torrent: Torrent, index: int, got: bytes) -> None:
    """Fail, inside a rule, unless a piece has the hash that the torrent gives."""
    size = f"{len(got)} bytes of {len(torrent.piece(index))}"
    what = f"download_piece({index}) gave {size}, with the SHA-1 {sha1(got).hexdigest()}"
    student.expect(sha1(got).digest() == torrent.hashes[index], what)


def eight_blocks(student: Student) -> Torrent:
    """Return a torrent with pieces of eight blocks, and a last one of two and a bit."""
    return make_torrent(student.folder, made_up(8 * BLOCK + 2 * BLOCK + 777), piece_length=8 * BLOCK)


def test_one_complete_piece(student: Student) -> None:
    """The guide's test: download one complete piece and verify its hash, the last one too."""
    torrent = eight_blocks(student)
    for index, which in ((0, "a piece"), (1, "the last piece, which is shorter")):
        with Seeder(torrent) as seeder, student.rule(f"the blocks of {which} together have its SHA-1", REQUESTS):
            expect_piece(student, torrent, index, fetched(student, torrent, seeder, index))
        with student.rule("a request names bytes that exist, at most 16,384 of them, 2^14", REQUESTS):
            student.expect(not seeder.complaints, "; ".join(seeder.complaints[:1]))


def test_blocks_have_16_kib(student: Student) -> None:
    """Requests: piece index, offset, 16,384 bytes; the last block is what is left."""
    torrent = eight_blocks(student)
    wanted = [Asked(1, 0, BLOCK), Asked(1, BLOCK, BLOCK), Asked(1, 2 * BLOCK, 777)]
    with (
        Seeder(torrent) as seeder,
        student.rule("a piece of 33,545 bytes is blocks of 16384, 16384 and 777 bytes", REQUESTS),
    ):
        fetched(student, torrent, seeder, 1)
        student.expect(
            sorted(seeder.asked) == wanted, f"the requests were {shown([tuple(one) for one in seeder.asked], 200)}"
        )


def test_several_requests_are_under_way(student: Student) -> None:
    """A pipeline of 5 to 10 requests, whose answers may come in any order."""
    torrent = eight_blocks(student)
    with Seeder(torrent, gathers=True) as seeder:
        with student.rule(
            "each block says where it belongs, for blocks need not come in the order of the requests", REQUESTS
        ):
            expect_piece(student, torrent, 0, fetched(student, torrent, seeder, 0))
        with student.rule("5 to 10 requests are kept under way, so that the line is never idle", PIPELINE):
            student.expect(seeder.most_waiting >= 5, f"at most {seeder.most_waiting} waited for an answer at a time")


def test_nothing_is_asked_before_unchoke(student: Student) -> None:
    """interested, then wait for unchoke."""
    torrent = eight_blocks(student)
    with Seeder(torrent, unchoke_after=0.2) as seeder:
        with student.rule("a peer that is `interested` gets blocks once it is unchoked", CHOKING):
            expect_piece(student, torrent, 0, fetched(student, torrent, seeder, 0))
        with student.rule("no request is sent before the peer's `unchoke`: it would be forgotten", CHOKING):
            student.expect(not seeder.complaints, "; ".join(seeder.complaints[:1]))


def test_other_messages_may_come_between(student: Student) -> None:
    """Haves and keep-alives between blocks are no blocks."""
    torrent = eight_blocks(student)

    def talk(seeder: Seeder, link: Link) -> None:
        link.send(message(BITFIELD, torrent.bitfield()))
        while True:
            kind, payload = seeder.heard(link)
            if kind == INTERESTED:
                link.send(bytes(4), message(UNCHOKE))
            if kind == REQUEST:
                link.send(message(HAVE, struct.pack(">I", 1)), bytes(4))
                seeder.answer(link, Asked(*struct.unpack(">III", payload)))

    with (
        Seeder(torrent, script=talk) as seeder,
        student.rule("a peer may send `have` and keep-alives at any time, also between blocks", REQUESTS),
    ):
        expect_piece(student, torrent, 0, fetched(student, torrent, seeder, 0))
