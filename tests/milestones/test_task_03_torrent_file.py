"""Task 3: Torrent File Parser."""

from tests.milestones.lesson import made_up, make_torrent, shown
from tests.milestones.student import Student, Task, as_files, as_hash

TASK = Task(
    3,
    "Torrent File Parser",
    "Extract metadata from .torrent files",
    "TorrentFile class with parsed metadata",
    """\
torrent_parser.py
    class TorrentFile:
        def __init__(self, path): ...      # or the class method TorrentFile.from_file(path)
        announce        tracker URL
        name            file or folder name
        piece_length    bytes of each piece
        pieces          the SHA-1 hashes, a list of 20 bytes each (or one string of all)
        length          bytes of all files together
        files           in multi-file mode: a list of {"length": 5, "path": ["dir", "a.txt"]}
        info_hash       20 bytes""",
    "Read the file in binary mode and decode it. The info hash is the SHA-1 of the bytes of the value of `info` "
    "exactly as "
    "they stand in the file: remember where that value begins and ends, or encode all of it again, unknown keys too.",
)

METAINFO = 'BEP 3, section "metainfo files"'


def test_the_tracker_the_name_and_the_pieces(student: Student) -> None:
    """announce, name, piece length, pieces, length."""
    torrent = make_torrent(student.folder, made_up(100_000))
    with student.rule("TorrentFile(path) reads a .torrent file", "the guide, Task 3"):
        parsed = student.torrent(torrent)
    for names, value, means in (
        (("announce", "announce_url", "tracker"), torrent.announce.encode(), "is the tracker's URL"),
        (("name",), torrent.name.encode(), "is the file's name"),
        (("piece_length", "piece_size"), torrent.piece_length, "is the bytes of each piece"),
        (("length", "total_length", "total_size", "size"), len(torrent.data), "is the bytes of the file"),
    ):
        with student.rule(f"`{names[0]}` {means}", METAINFO):
            student.equal(student.attribute(parsed, *names), value, f"TorrentFile.{names[0]}")
    with student.rule("`pieces` is cut into hashes of 20 bytes, one for each piece", METAINFO):
        pieces = student.attribute(parsed, "pieces", "piece_hashes", "hashes")
        hashes = [as_hash(one) for one in pieces] if isinstance(pieces, list | tuple) else as_hash(pieces)
        is_right = hashes in (list(torrent.hashes), b"".join(torrent.hashes))
        student.expect(is_right, f"TorrentFile.pieces is {shown(pieces)}")


def test_the_info_hash(student: Student) -> None:
    """The info hash, of a simple torrent and of one with keys that nobody knows."""
    plain = make_torrent(student.folder, made_up(100_000))
    odd = make_torrent(
        student.folder, made_up(70_000), name="odd.bin", extra_info={"private": 1, "x-unknown": ["a", 7]}
    )
    for torrent, which in ((plain, "a torrent"), (odd, "a torrent with further keys in `info`")):
        with student.rule("the info hash is the SHA-1 of all of `info` as it is bencoded in the file", METAINFO):
            got = student.attribute(student.torrent(torrent), "info_hash", "infohash")
            what = f"for {which} whose info hash is {torrent.info_hash.hex()} it is {shown(got)}"
            student.expect(as_hash(got) == torrent.info_hash, what)


def test_several_files(student: Student) -> None:
    """Multi-file mode: the files' paths and lengths, and the length of all."""
    content = {"readme.txt": made_up(10), "disc 1/one.bin": made_up(40_000, 1), "disc 1/deep/two.bin": made_up(5, 2)}
    torrent = make_torrent(student.folder, content, name="album")
    with student.rule("`files` in `info` lists the path and the length of each file", METAINFO):
        parsed = student.torrent(torrent)
        got = student.attribute(parsed, "files")
        wanted = [(path, len(data)) for path, data in content.items()]
        student.expect(as_files(got, torrent.name) == wanted, f"TorrentFile.files is {shown(got, 300)}")
    with student.rule("the length of a torrent with several files is their sum", METAINFO):
        got = student.attribute(parsed, "length", "total_length", "total_size", "size")
        student.equal(got, len(torrent.data), "TorrentFile.length")
