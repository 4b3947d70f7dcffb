"""Task 6: Establish Peer Connection."""

import time

from tests.milestones.lesson import PROTOCOL, Gone, Link, Seeder, made_up, make_torrent, shown
from tests.milestones.student import Student, Task

TASK = Task(
    6,
    "Establish Peer Connection",
    "Connect to peers using TCP sockets",
    "PeerConnection class with `handshake()` method",
    """\
peer_connection.py
    class PeerConnection:
        def __init__(self, ...): ...       # any of: ip, port (or address), info_hash, peer_id, piece_count
        def connect(self): ...             # unless the constructor or handshake() does it
        def handshake(self):
            '''Send ours, read the peer's 68 bytes; raise or return False if its info hash is another.'''
        def close(self): ...""",
    "`struct.pack('>B19s8s20s20s', 19, b'BitTorrent protocol', bytes(8), info_hash, peer_id)`. `recv(68)` may "
    "return fewer "
    "bytes: read in a loop until all are there, and an empty result means that the peer has closed.",
)

HANDSHAKE = 'BEP 3, section "peer protocol" (the handshake)'


def test_our_68_bytes(student: Student) -> None:
    """The handshake that is sent: 19, protocol, reserved, info hash, peer id."""
    torrent = make_torrent(student.folder, made_up(100_000))
    with Seeder(torrent) as seeder:
        with student.rule("a handshake is 68 bytes, and both sides send one", HANDSHAKE):
            try:
                student.connect(torrent, seeder.address)
            except Exception:
                if not student.wait(lambda: seeder.handshakes, 0.5) or len(seeder.handshakes[0]) == 68:
                    raise
            came = len(seeder.handshakes[0]) if student.wait(lambda: seeder.handshakes) else 0
            student.expect(came == 68, f"{came} bytes came to the peer, and then nothing")
        sent = seeder.handshakes[0]
        for part, wanted, name in (
            (sent[:20], PROTOCOL, "the byte 19 and the text `BitTorrent protocol`"),
            (sent[28:48], torrent.info_hash, "after 8 reserved bytes, the info hash"),
            (sent[48:], student.peer_id(), "the 20 bytes of the peer id at the end"),
        ):
            with student.rule(f"a handshake has {name}", HANDSHAKE):
                student.expect(part == wanted, f"{shown(part)} came to the peer instead of {shown(wanted)}")


def test_a_handshake_that_comes_in_parts(student: Student) -> None:
    """The peer's 68 bytes may come in several pieces."""
    torrent = make_torrent(student.folder, made_up(100_000))

    def slowly(link: Link) -> None:
        whole = PROTOCOL + bytes(8) + torrent.info_hash + seeder.peer_id
        for part in (whole[:1], whole[1:30], whole[30:]):
            link.send(part)
            time.sleep(0.05)
        link.exactly(68)
        raise Gone

    with (
        Seeder(torrent, before=slowly) as seeder,
        student.rule(
            "TCP is a stream, so the 68 bytes of a handshake may come in several parts and must all be read", HANDSHAKE
        ),
    ):
        student.connect(torrent, seeder.address)


def test_a_peer_with_another_torrent(student: Student) -> None:
    """A handshake with another info hash is refused."""
    torrent = make_torrent(student.folder, made_up(100_000))
    with (
        Seeder(torrent, wrong_hash=True) as seeder,
        student.rule(
            "a peer whose handshake has another info hash is left: handshake() raises or returns False", HANDSHAKE
        ),
    ):
        connection = student.peer_connection(torrent, seeder.address)
        student.refuses(student.method(connection, "handshake"), "handshake()")


def test_a_peer_that_hangs_up(student: Student) -> None:
    """A peer that closes instead of a handshake is no endless loop."""
    torrent = make_torrent(student.folder, made_up(100_000))

    def hang_up(link: Link) -> None:
        link.exactly(68)
        raise Gone

    with (
        Seeder(torrent, before=hang_up) as seeder,
        student.rule(
            "a peer may close at any time, and recv() then returns b'': handshake() raises or returns False", HANDSHAKE
        ),
    ):

        def shake_hands() -> object:
            return student.method(student.peer_connection(torrent, seeder.address), "handshake")()

        student.refuses(shake_hands, "handshake()")
