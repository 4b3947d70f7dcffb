"""What the coursework's checker calls right is right in the world: its solution downloads from real programs."""

from pathlib import Path

import pytest

from tests.integration.real_peers import aria2_seeder, libtorrent_seeder, make_torrent, opentracker
from tests.integration.test_milestones import Seeder
from tests.milestones.downloads import in_another_process
from tests.milestones.lesson import Torrent
from tests.milestones.runner import HERE
from tests.milestones.student import Student
from tests.support import payload


@pytest.mark.parametrize("seeder", [libtorrent_seeder, aria2_seeder])
def test_the_right_solution_downloads_from_a_real_peer(seeder: Seeder, tmp_path: Path, downloads: Path) -> None:
    """A folder, from a tracker and a seeder that nobody wrote for a lesson."""
    torrent = make_torrent(tmp_path, {"a/one": payload(200_000), "two": payload(10, 1), "empty": b""}, 32768)
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
        with seeder(tmp_path, tracked):
            tracker.wait_for_seeders(tracked)
            student = Student([HERE / "right"], tmp_path, tmp_path / "printed")
            described = Torrent(tracked.path, tracked.name, b"", {}, 32768, (), tracked.info_hash, "")
            with in_another_process(student, described, downloads) as process:
                assert process.wait(30) == 0
    for state in downloads.glob("*.state.json"):
        state.unlink()
    tracked.assert_content_in(downloads)
