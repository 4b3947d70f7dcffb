"""Task 14: Implement Resume Capability."""

from pathlib import Path

from tests.milestones.downloads import expect_download, in_another_process, run
from tests.milestones.lesson import Seeder, Torrent, Tracker, made_up, make_torrent
from tests.milestones.student import Student, Task, limit

TASK = Task(
    14,
    "Implement Resume Capability",
    "Resume interrupted downloads",
    "Ability to pause and resume downloads",
    """\
download_manager.py
    A second DownloadManager(torrent, output_dir) of the same torrent goes on where the first one was stopped, even by
    `kill -9`. Its state file lies in output_dir, or wherever a new process finds it.""",
    "After each piece, write the list of complete pieces to a JSON file: to another name first, then "
    "os.replace(). At the "
    "start read it, read each of these pieces from disk, and mark complete those whose hash is good.",
)

RESUME = "the guide, Task 14, steps"
VERIFY = "the guide, Task 14, verification on resume"

PIECES = 24


def interrupted(student: Student, torrent: Torrent, tracker: Tracker, output: Path) -> set[int]:
    """Download about half with the student's code in another process, kill it, and return the pieces it got."""
    output.mkdir()
    with Seeder(torrent, delay=0.01, blocks=PIECES) as seeder:  # half of the blocks
        tracker.peers = [seeder.address]
        with in_another_process(student, torrent, output) as process:
            student.wait(lambda: seeder.served.total() >= PIECES or process.poll() is not None, 10)
            count = seeder.served.total()
            student.expect(count >= PIECES, f"it ended, or stood still for 10 s, after {count} blocks of {2 * PIECES}")
            student.wait(lambda: False, 0.4)  # what has come is written to disk now
        return seeder.whole_pieces


@limit(30)
def test_complete_pieces_are_not_downloaded_again(student: Student) -> None:
    """After kill -9 half way, the next run gets the other half."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(PIECES * 32768), tracker.url)
        output = student.folder / "out"
        with student.rule("a download can be interrupted", RESUME):
            had = interrupted(student, torrent, tracker, output)
        with Seeder(torrent) as seeder:
            tracker.peers = [seeder.address]
            with student.rule("the second run completes the download", RESUME):
                run(student, torrent.path, output)
                expect_download(student, torrent, output)
        again = sorted(had & set(seeder.served))
        with student.rule(
            f"the pieces that the first run completed, here {len(had)}, are not downloaded again", RESUME
        ):
            student.expect(len(again) <= max(2, len(had) // 3), f"{len(again)} of them were asked for again: {again}")


@limit(30)
def test_pieces_on_disk_are_verified(student: Student) -> None:
    """A piece that was damaged meanwhile is found and downloaded again."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(PIECES * 32768), tracker.url)
        output = student.folder / "out3"
        with student.rule("a download can be interrupted", RESUME):
            had = interrupted(student, torrent, tracker, output)
        with student.rule("the file is in the output directory while it is downloaded", RESUME):
            files = [path for path in output.rglob("*") if path.is_file() and path.stat().st_size >= 32768]
            student.expect(files, "there is none")
        victim = sorted(had)[len(had) // 2]
        with max(files, key=lambda path: path.stat().st_size).open("r+b") as file:
            file.seek(victim * 32768 + 5)
            file.write(b"damaged")
        with (
            Seeder(torrent) as seeder,
            student.rule(
                f"pieces on disk are verified before they are believed; piece {victim} was damaged meanwhile", VERIFY
            ),
        ):
            tracker.peers = [seeder.address]
            run(student, torrent.path, output)
            expect_download(student, torrent, output)
