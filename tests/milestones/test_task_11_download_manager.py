"""Task 11: Implement Download Manager."""

from contextlib import ExitStack

from tests.milestones.downloads import expect_download, run
from tests.milestones.lesson import Seeder, Torrent, Tracker, made_up, make_torrent
from tests.milestones.student import Student, Task, limit

TASK = Task(
    11,
    "Implement Download Manager",
    "Coordinate downloading from multiple peers",
    "DownloadManager class orchestrating downloads",
    """\
download_manager.py
    class DownloadManager:
        def __init__(self, torrent, output_dir): ...
        def download(self):
            '''Ask the tracker for peers, download every piece from them, return when all is done.'''
        # the file goes to output_dir/name; before Task 12, download() may return the bytes instead""",
    "Start a thread for each peer: it connects, and takes one piece after the other from the PieceManager "
    "(which needs a "
    "lock now). When a peer is lost, the piece that it was asked for must be missing again.",
)

SEVERAL = "the guide, Task 11, requirements"


def torrent_of(student: Student, tracker: Tracker, pieces: int = 24) -> Torrent:
    """Return a torrent whose last piece is short."""
    return make_torrent(student.folder, made_up((pieces - 1) * 32768 + 1000), tracker.url)


@limit(20)
def test_the_whole_file_from_three_peers(student: Student) -> None:
    """The guide's test: download an entire file from multiple peers, all of which take part."""
    with Tracker() as tracker, ExitStack() as stack:
        torrent = torrent_of(student, tracker)
        seeders = [stack.enter_context(Seeder(torrent, delay=0.02)) for _ in range(3)]
        tracker.peers = [seeder.address for seeder in seeders]
        with student.rule("download() gets every piece of the torrent", SEVERAL):
            result = run(student, torrent.path, student.folder / "out")
            expect_download(student, torrent, student.folder / "out", result)
        with student.rule("the pieces are distributed across the peers that the tracker knows, here three", SEVERAL):
            counts = [seeder.served.total() for seeder in seeders]
            student.expect(min(counts) > 0, f"they served {counts} blocks")


@limit(20)
def test_peers_that_have_only_a_part(student: Student) -> None:
    """Each peer is asked for what it has."""
    with Tracker() as tracker, ExitStack() as stack:
        torrent = torrent_of(student, tracker)
        parts = [range(8), range(8, 16), range(16, 24)]
        seeders = [stack.enter_context(Seeder(torrent, pieces=part)) for part in parts]
        tracker.peers = [seeder.address for seeder in seeders]
        with student.rule("three peers that each have a third of the pieces have all of them together", SEVERAL):
            expect_download(
                student, torrent, student.folder / "out", run(student, torrent.path, student.folder / "out")
            )
        with student.rule("a peer is asked only for pieces that its bitfield names", 'BEP 3, section "peer messages"'):
            complaints = [complaint for seeder in seeders for complaint in seeder.complaints]
            student.expect(not complaints, "; ".join(complaints[:1]))


@limit(20)
def test_a_peer_that_drops(student: Student) -> None:
    """The pieces of a lost peer are assigned to others, and a dead address is no end."""
    with Tracker() as tracker, ExitStack() as stack:
        torrent = torrent_of(student, tracker)
        dead = Seeder(torrent)
        with dead:
            pass
        drops = stack.enter_context(Seeder(torrent, blocks=3, delay=0.01))
        stays = stack.enter_context(Seeder(torrent, delay=0.01))
        tracker.peers = [dead.address, drops.address, stays.address]
        with student.rule("when a peer is lost, or cannot be reached, its pieces are downloaded from others", SEVERAL):
            expect_download(
                student, torrent, student.folder / "out", run(student, torrent.path, student.folder / "out")
            )
