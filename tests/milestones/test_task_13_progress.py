"""Task 13: Add Progress Display."""

import re
import threading

from tests.milestones.downloads import run
from tests.milestones.lesson import Seeder, Tracker, made_up, make_torrent, shown
from tests.milestones.student import Student, Task, limit

TASK = Task(
    13,
    "Add Progress Display",
    "Show download statistics",
    "Real-time progress updates in terminal",
    """\
what download() prints, at least once a second, such as
    [#####.....] 50.0%  pieces 12/24  1.5 MB/s  peers 3  ETA 0:05""",
    "Let the main thread wait in a loop of `time.sleep(0.5)` while peers' threads download, and print a line each time "
    "(`print(line, flush=True)`). Speed is the bytes since the last line by the seconds since then.",
)

DISPLAY = "the guide, Task 13, display"

PIECES = 24


@limit(25)
def test_statistics_are_printed_while_it_downloads(student: Student) -> None:
    """Percentage, speed, pieces, peers and time left, again and again."""
    before = len(student.printed())
    half = ""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(PIECES * 32768), tracker.url)
        with Seeder(torrent, delay=0.055) as seeder:
            tracker.peers = [seeder.address]
            late = threading.Event()

            def watch() -> None:
                nonlocal half
                if seeder.served.total() >= PIECES * 2 * 0.85 and not late.is_set():
                    late.set()
                    half = student.printed()[before:]

            seeder.on_block = watch
            with student.rule("the download goes on while its progress is shown", DISPLAY):
                run(student, torrent.path, student.folder / "out")
    text = student.printed()[before:]
    with student.rule("the percentage is printed while the download runs, about once a second", DISPLAY):
        percentages = set(re.findall(r"(\d+(?:\.\d+)?) ?%", half))
        student.expect(len(percentages) >= 2, f"at 85 % of the download there was {shown(half[-200:], 220)}")
    for pattern, what in (
        (r"\d\s*[kKMG]?i?[bB](yte)?s?/s", "the download speed, such as 512 KB/s,"),
        (rf"\d+\s*(/|of)\s*{PIECES}\b", f"how many pieces of all are complete, such as 6/{PIECES},"),
        (r"(?i)peer", "how many peers are connected, such as `peers 1`,"),
        (r"(?i)\b(eta|left|remaining)\b", "an estimate of the time that is left, such as `ETA 0:05`,"),
    ):
        with student.rule(f"{what} is printed", DISPLAY):
            student.expect(re.search(pattern, text), f"there was {shown(text[-200:], 220)}")
