"""Task 7: Implement Message Protocol."""

import struct
import time

from tests.milestones.lesson import (
    BITFIELD,
    CHOKE,
    HAVE,
    INTERESTED,
    NAMES,
    NOT_INTERESTED,
    PIECE,
    REQUEST,
    UNCHOKE,
    Link,
    Seeder,
    made_up,
    make_torrent,
    message,
    shown,
)
from tests.milestones.student import Student, Task

TASK = Task(
    7,
    "Implement Message Protocol",
    "Send and receive peer wire protocol messages",
    "Methods to send/receive each message type",
    """\
peer_connection.py
    class PeerConnection:
        def send_choke(self): ...          # also send_unchoke, send_interested, send_not_interested
        def send_have(self, index): ...
        def send_bitfield(self, bitfield): ...              # bytes
        def send_request(self, index, begin, length): ...
        def send_piece(self, index, begin, block): ...
        def receive_message(self):
            '''Return the next message as (id, payload); (None, b"") for a keep-alive.'''""",
    "Every message is `struct.pack('>IB', 1 + len(payload), id) + payload`. To receive, read exactly 4 bytes, "
    "then exactly "
    "as many as they say; no bytes at all is a keep-alive.",
)

MESSAGES = 'BEP 3, section "peer messages"'


def test_interested_is_answered_with_unchoke(student: Student) -> None:
    """The guide's test: send interested, receive unchoke."""
    torrent = make_torrent(student.folder, made_up(100_000))
    with (
        Seeder(torrent) as seeder,
        student.rule("a peer that hears `interested` (id 2) may unchoke us (id 1)", MESSAGES),
    ):
        connection = student.connect(torrent, seeder.address)
        student.method(connection, "send_interested", "interested")()
        got = []
        while not got or got[-1][0] != UNCHOKE:
            student.expect(len(got) < 3, f"receive_message() gave {shown(got)}")
            got.append(student.receive(connection))


def test_the_messages_that_are_sent(student: Student) -> None:
    """Each message type as bytes: length, id, payload."""
    torrent = make_torrent(student.folder, made_up(100_000))
    block = made_up(500)

    def listen(seeder: Seeder, link: Link) -> None:
        while True:
            seeder.heard(link)

    for number, method, arguments, payload in (
        (CHOKE, "send_choke", (), b""),
        (UNCHOKE, "send_unchoke", (), b""),
        (INTERESTED, "send_interested", (), b""),
        (NOT_INTERESTED, "send_not_interested", (), b""),
        (HAVE, "send_have", (3,), struct.pack(">I", 3)),
        (BITFIELD, "send_bitfield", (b"\xf0",), b"\xf0"),
        (REQUEST, "send_request", (3, 16384, 1696), struct.pack(">III", 3, 16384, 1696)),
        (PIECE, "send_piece", (1, 16384, block), struct.pack(">II", 1, 16384) + block),
    ):
        # A client may leave out what would only repeat its state (it begins choking and not interested).
        prelude = {CHOKE: "send_unchoke", NOT_INTERESTED: "send_interested"}.get(number)
        shape = f"4 bytes of length, the byte {number} and {len(payload)} bytes of payload"
        with (
            Seeder(torrent, script=listen) as seeder,
            student.rule(f"`{NAMES[number]}` is {shape}, numbers with the high byte first", MESSAGES),
        ):
            connection = student.connect(torrent, seeder.address)
            if prelude:
                student.method(connection, prelude)()
            student.method(connection, method)(*arguments)
            heard = seeder.said
            student.wait(lambda heard=heard, number=number: any(kind == number for kind, _ in heard), 1)
            student.expect(heard and heard[-1] == (number, payload), f"{method}() sent {shown(heard)}")
            student.close()


def test_the_messages_that_are_received(student: Student) -> None:
    """Each message type from bytes, also several at once and one in parts."""
    torrent = make_torrent(student.folder, made_up(100_000))
    block = made_up(16384)
    wanted = [
        (BITFIELD, b"\xf0"),
        (UNCHOKE, b""),
        (HAVE, struct.pack(">I", 2)),
        (CHOKE, b""),
        (INTERESTED, b""),
        (NOT_INTERESTED, b""),
        (REQUEST, struct.pack(">III", 1, 0, 16384)),
        (PIECE, struct.pack(">II", 1, 0) + block),
        (UNCHOKE, b""),
    ]

    def talk(seeder: Seeder, link: Link) -> None:
        data = b"".join(message(*one) for one in wanted)
        for part in (data[:40], data[40:9000], data[9000:]):  # cut anywhere, as TCP does
            link.send(part)
            time.sleep(0.03)
        while True:
            seeder.heard(link)

    with Seeder(torrent, script=talk) as seeder:
        with student.rule("handshakes come before messages", MESSAGES):
            connection = student.connect(torrent, seeder.address)
        for kind, payload in wanted:
            shape = f"(id {kind}, {len(payload)} bytes of payload)"
            with student.rule(f"the peer sent `{NAMES[kind]}` {shape} as the next of a stream of messages", MESSAGES):
                got = student.receive(connection)
                student.expect(got == (kind, payload), f"receive_message() gave {shown(got)}")


def test_keep_alives(student: Student) -> None:
    """A message of length 0 is a keep-alive, and no end."""
    torrent = make_torrent(student.folder, made_up(100_000))

    def talk(seeder: Seeder, link: Link) -> None:
        link.send(bytes(4), bytes(4), message(UNCHOKE))
        while True:
            seeder.heard(link)

    with (
        Seeder(torrent, script=talk) as seeder,
        student.rule("a message of length 0 is a keep-alive, which has no id and means nothing", MESSAGES),
    ):
        connection = student.connect(torrent, seeder.address)
        got = [student.receive(connection)]
        while got[-1][0] is None and len(got) < 3:
            got.append(student.receive(connection))
        student.expect(
            got[-1] == (UNCHOKE, b""), f"after two keep-alives and an unchoke receive_message() gave {shown(got)}"
        )


def test_a_peer_that_leaves(student: Student) -> None:
    """The end of the connection is an exception, and no endless loop."""
    torrent = make_torrent(student.folder, made_up(100_000))

    def talk(_seeder: Seeder, link: Link) -> None:
        link.send(struct.pack(">IB", 5, HAVE) + b"\0\0")  # cut off in the middle

    with (
        Seeder(torrent, script=talk) as seeder,
        student.rule(
            "a peer may close in the middle of a message, and receive_message() then raises or returns None", MESSAGES
        ),
    ):
        connection = student.connect(torrent, seeder.address)

        def receive() -> object:
            kind, _ = student.receive(connection)
            return kind

        student.refuses(receive, "receive_message()")
