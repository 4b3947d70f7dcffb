"""Task 12: Write Pieces to Disk."""

from contextlib import suppress

from tests.milestones.downloads import expect_download, manager_of, run
from tests.milestones.lesson import Seeder, Torrent, Tracker, made_up, make_torrent
from tests.milestones.student import Student, Task, limit

TASK = Task(
    12,
    "Write Pieces to Disk",
    "Assemble and save the downloaded file",
    "Method to write completed pieces to disk",
    """\
download_manager.py
    class DownloadManager:
        def write_piece(self, index, data):
            '''Write a piece to where it belongs: output_dir/name, or output_dir/name/path of several files.'''""",
    "The offset of a piece is index x piece length, and with several files it counts through all of them, one "
    "after the "
    "other. Open with mode 'r+b' (make the file first) and seek(); a piece may end in one file and go on in the next.",
)

OFFSETS = "the guide, Task 12, offset calculation"
FILES = 'BEP 3, section "metainfo files" (files)'

ALBUM = {
    "a first.txt": made_up(10, 1),
    "disc/one.bin": made_up(50_000, 2),
    "disc/empty": b"",
    "disc/deep/two.bin": made_up(70_000, 3),
    "z.bin": made_up(5, 4),
}


def write(student: Student, torrent: Torrent) -> None:
    """Write all pieces with the student's DownloadManager, the last one first."""
    out = student.folder / "out"
    manager = manager_of(student, torrent.path, out)
    method = student.method(manager, "write_piece", "write_piece_to_disk", "save_piece")
    for index in reversed(range(torrent.piece_count)):
        method(index, torrent.piece(index))
    for name in ("close", "flush"):
        with suppress(AttributeError):
            getattr(manager, name)()
    expect_download(student, torrent, out)


def test_a_single_file_out_of_order(student: Student) -> None:
    """Pieces that arrive last first are written at their offsets."""
    torrent = make_torrent(student.folder, made_up(5 * 32768 + 99))
    with student.rule("piece i lies at offset i x piece length, in whatever order pieces come", OFFSETS):
        write(student, torrent)


def test_several_files(student: Student) -> None:
    """Pieces that reach across files, in folders that must be made."""
    torrent = make_torrent(student.folder, ALBUM, name="album")
    with student.rule("several files are one string of bytes, cut into pieces that reach across files", FILES):
        write(student, torrent)


@limit(20)
def test_a_folder_is_downloaded(student: Student) -> None:
    """The guide's test: download completely, and compare with the original."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, ALBUM, tracker.url, name="album")
        with Seeder(torrent) as seeder, student.rule("after download() all files are as the originals", FILES):
            tracker.peers = [seeder.address]
            run(student, torrent.path, student.folder / "out2")
            expect_download(student, torrent, student.folder / "out2")
