"""Task 15: Error Handling & Edge Cases."""

from contextlib import ExitStack

from tests.milestones.downloads import expect_download, run
from tests.milestones.lesson import BITFIELD, UNCHOKE, Link, Seeder, Tracker, made_up, make_torrent, message
from tests.milestones.student import Student, Task, limit

TASK = Task(
    15,
    "Error Handling & Edge Cases",
    "Make client robust",
    "Stable client that handles errors gracefully",
    """\
download_manager.py, tracker_client.py
    download() goes on when a peer disconnects, sends a piece with a bad hash or a malformed message, or says nothing at
    all, and asks a tracker that fails again, after 1 s, 2 s ...""",
    "Put one try/except around everything that a peer's thread does: whatever happens there costs this peer and "
    "no other. "
    "Give sockets a time-out (`sock.settimeout(5)`), and compare every length with what is allowed before you read.",
)

ERRORS = "the guide, Task 15, error types"
HASHES = 'BEP 3, section "metainfo files" (pieces)'
MESSAGES = 'BEP 3, section "peer messages"'


def complete(student: Student, rule: str, read: str, *seeders: Seeder, tracker: Tracker) -> None:
    """Download from these peers; all have the same torrent."""
    with ExitStack() as stack:
        tracker.peers = [stack.enter_context(seeder).address for seeder in seeders]
        with student.rule(rule, read):
            result = run(student, seeders[0].torrent.path, student.folder / "out")
            expect_download(student, seeders[0].torrent, student.folder / "out", result)


@limit(25)
def test_a_piece_with_a_bad_hash(student: Student) -> None:
    """A bad piece is discarded and downloaded again."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(12 * 32768), tracker.url)
        liar, honest = Seeder(torrent, corrupt=range(12), delay=0.01), Seeder(torrent, delay=0.01)
        rule = "a piece whose hash is wrong is thrown away and downloaded again, from another peer if need be"
        complete(student, rule, HASHES, liar, honest, tracker=tracker)


@limit(25)
def test_a_peer_that_disconnects_and_is_there_again(student: Student) -> None:
    """The only peer hangs up in the middle; it is dialled again."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(12 * 32768), tracker.url)
        rule = "a peer that disconnects is dialled again, and gives what it owes"
        complete(student, rule, ERRORS, Seeder(torrent, drops_first=7), tracker=tracker)


@limit(25)
def test_malformed_messages(student: Student) -> None:
    """A peer that sends nonsense is closed; the others go on."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(12 * 32768), tracker.url)

        def nonsense(seeder: Seeder, link: Link) -> None:
            link.send(message(BITFIELD, torrent.bitfield()), message(UNCHOKE), b"\xff\xff\xff\xff" + bytes(1000))
            while True:
                seeder.heard(link)

        def cut(_seeder: Seeder, link: Link) -> None:
            link.send(message(BITFIELD, torrent.bitfield()), message(UNCHOKE), message(7, b"\0\0"))
            link.message()

        rule = "a peer that sends a message of an impossible length costs its own connection and nothing else"
        peers = [Seeder(torrent, script=nonsense), Seeder(torrent, script=cut), Seeder(torrent, delay=0.01)]
        complete(student, rule, MESSAGES, *peers, tracker=tracker)


@limit(30)
def test_a_peer_that_says_nothing(student: Student) -> None:
    """A peer that accepts and is silent holds nobody up."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(12 * 32768), tracker.url)

        def silent(link: Link) -> None:
            link.sock.settimeout(60)
            link.exactly(1000)

        rule = "a peer that never answers is given up after a time-out, and meanwhile the others go on"
        complete(student, rule, ERRORS, Seeder(torrent, before=silent), Seeder(torrent, delay=0.01), tracker=tracker)


@limit(30)
def test_a_tracker_that_fails_at_first(student: Student) -> None:
    """A tracker's failure is no end: it is asked again, with a pause."""
    with Tracker(failures=1) as tracker:
        torrent = make_torrent(student.folder, made_up(4 * 32768), tracker.url)
        rule = "a tracker that fails is asked again after a while (1 s, then 2 s ...)"
        complete(student, rule, ERRORS, Seeder(torrent), tracker=tracker)
        with student.rule("between two attempts there is a pause, so that a tracker in trouble is not flooded", ERRORS):
            pause = tracker.times[1] - tracker.times[0]
            student.expect(pause >= 0.5, f"the second request came after {pause:.2f} s")
