"""Making torrents, compared with libtorrent and with hashes made the simple way."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import payload
from torrent_client import __version__, torrent_creator
from torrent_client.config import KIB, MIB
from torrent_client.errors import BencodeError, MetainfoError, StorageError
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_decode_spans
from torrent_client.torrent_creator import Content, choose_piece_length, create_torrent, find_content

PIECE = 16 * KIB

Files = Mapping[str, bytes]


def write(root: Path, content: Files | bytes) -> Path:
    """Write one file, or a directory of files."""
    if isinstance(content, bytes):
        root.write_bytes(content)
        return root
    root.mkdir()
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def decoded(torrent: bytes) -> tuple[dict[bytes, BencodeValue], dict[bytes, BencodeValue]]:
    """Return a torrent's top level and its info dictionary."""
    metainfo = bencode_decode(torrent)
    assert isinstance(metainfo, dict)
    info = metainfo[b"info"]
    assert isinstance(info, dict)
    return metainfo, info


def listed_files(info: dict[bytes, BencodeValue]) -> list[tuple[str, int]]:
    """Return path and length of each file of a torrent of several files."""
    files = info[b"files"]
    assert isinstance(files, list)
    result = []
    for file in files:
        assert isinstance(file, dict)
        path, length = file[b"path"], file[b"length"]
        assert isinstance(path, list)
        assert isinstance(length, int)
        result.append(("/".join(part.decode() for part in path if isinstance(part, bytes)), length))
    return result


def names(content: Content) -> list[str]:
    """Return the paths of what was found, in the torrent's order."""
    return ["/".join(file.components) for file in content.files]


def simple_hashes(data: bytes, piece_length: int) -> bytes:
    """Hash pieces without threads and without buffers."""
    starts = range(0, len(data), piece_length)
    return b"".join(hashlib.sha1(data[start : start + piece_length]).digest() for start in starts)


# --- content ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 10 * PIECE + 1, 100 * PIECE - 1, 3 * MIB + 12345]
)
def test_single_file(tmp_path: Path, size: int) -> None:
    """Every size gives the right pieces, those of exactly a number of pieces and of one byte more too."""
    data = payload(size)
    _, info = decoded(create_torrent(write(tmp_path / "a.bin", data), piece_length=PIECE))
    assert info == {
        b"length": size,
        b"name": b"a.bin",
        b"piece length": PIECE,
        b"pieces": simple_hashes(data, PIECE),
    }


def test_pieces_reach_across_files(tmp_path: Path) -> None:
    """Empty files, files smaller than a piece, and boundaries inside and between files."""
    sizes = [0, 5, PIECE, 0, 3 * PIECE - 6, PIECE + 1, 1, 0]
    content = {f"{number}.bin": payload(size, number) for number, size in enumerate(sizes)}
    _, info = decoded(create_torrent(write(tmp_path / "many", content), piece_length=PIECE))
    assert listed_files(info) == [(f"{number}.bin", size) for number, size in enumerate(sizes)]
    assert info[b"pieces"] == simple_hashes(b"".join(content.values()), PIECE)


def test_pieces_larger_than_the_content(tmp_path: Path) -> None:
    """One short piece of all files."""
    content = {"a": b"one", "b": b"", "c": b"two"}
    _, info = decoded(create_torrent(write(tmp_path / "small", content)))
    assert info[b"pieces"] == hashlib.sha1(b"onetwo").digest()
    assert info[b"piece length"] == PIECE


def test_few_buffers_give_the_same_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers are used again and again; with one of them, reading and hashing take turns."""
    data = payload(40 * PIECE + 7)
    path = write(tmp_path / "a.bin", data)
    for budget, read_size in ((PIECE, MIB), (2 * PIECE, 1000), (3 * PIECE, PIECE)):
        monkeypatch.setattr(torrent_creator, "BUFFER_BUDGET", budget)
        monkeypatch.setattr(torrent_creator, "READ_SIZE", read_size)
        _, info = decoded(create_torrent(path, piece_length=PIECE))
        assert info[b"pieces"] == simple_hashes(data, PIECE)


def test_files_are_sorted_by_the_bytes_of_their_paths(tmp_path: Path) -> None:
    """Not by locale or case, and with the slash as a byte like others, as in mktorrent and libtorrent."""
    names = ["b", "a/z", "a-b", "a/b/c", "B", "é", "ä/x", "a/b.txt", "a.txt", "Z/1", "10", "9"]
    content = {name: name.encode() for name in names}
    _, info = decoded(create_torrent(write(tmp_path / "t", content)))
    expected = ["10", "9", "B", "Z/1", "a-b", "a.txt", "a/b.txt", "a/b/c", "a/z", "b", "ä/x", "é"]
    assert [name for name, _ in listed_files(info)] == expected


def test_a_directory_with_one_file_is_no_single_file_torrent(tmp_path: Path) -> None:
    """The directory's name is the torrent's name, and the file is inside."""
    _, info = decoded(create_torrent(write(tmp_path / "t", {"a": b"x"})))
    assert info[b"name"] == b"t"
    assert listed_files(info) == [("a", 1)]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """Neither the time nor the order in which files were made matters."""
    content = {name: name.encode() for name in ("a", "b", "c/d", "c/e")}
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first = write(tmp_path / "1" / "t", content)
    second = write(tmp_path / "2" / "t", dict(reversed(content.items())))
    os.utime(second / "a", (1, 1))
    assert create_torrent(first) == create_torrent(second)


def test_links_and_special_files_are_left_out(tmp_path: Path) -> None:
    """Links to files and to directories, also to outside and to themselves, and pipes; the caller learns it."""
    root = write(tmp_path / "t", {"a": b"x", "d/b": b"y"})
    write(tmp_path / "secret", b"secret")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "missing")
    os.mkfifo(root / "pipe")
    content = find_content(root)
    assert names(content) == ["a", "d/b"]
    assert dict(content.left_out) == {
        "file": "symbolic link",
        "up": "symbolic link",
        "loop": "symbolic link",
        "nowhere": "symbolic link",
        "pipe": "special file",
    }
    assert sorted(content.left_out_summary().split(", ")) == ["special file (1)", "symbolic link (4)"]


def test_hidden_files_and_backups_are_in(tmp_path: Path) -> None:
    """What a name looks like is no reason to leave a file out."""
    wanted = [".git/config", ".hidden", "#a#", "Thumbs.db", "a.bak", "a~"]
    content = find_content(write(tmp_path / "t", dict.fromkeys(wanted, b"x")))
    assert names(content) == sorted(wanted)
    assert content.left_out_summary() == ""


@pytest.mark.parametrize(
    ("patterns", "excluded"),
    [
        (["*~"], {"a~", "doc/deep/b~"}),
        ([".git"], {".git/x"}),
        (["a.*", "a?"], {"a.tmp", "a~", "doc/a.tmp", "doc/deep/a.tmp"}),
        (["doc/*.tmp"], {"doc/a.tmp", "doc/deep/a.tmp"}),
        (["doc/deep"], {"doc/deep/a.tmp", "doc/deep/b~"}),
        (["deep/", "index/", "[.]git/"], {".git/x", "doc/deep/a.tmp", "doc/deep/b~"}),
        (["DOC", "A*"], set()),
    ],
)
def test_exclude(tmp_path: Path, patterns: list[str], excluded: set[str]) -> None:
    """By name at any depth, or by path with a slash; a slash at the end asks for a directory; case counts."""
    files = {".git/x", "a.tmp", "a~", "doc/a.tmp", "doc/deep/a.tmp", "doc/deep/b~", "doc/index", "index"}
    root = write(tmp_path / "t", dict.fromkeys(files, b"x"))
    assert set(names(find_content(root, patterns))) == files - excluded


def test_exclude_tells_what_it_did(tmp_path: Path) -> None:
    """A directory counts once; patterns that nothing matched are named, for they may be misspelt."""
    root = write(tmp_path / "t", {"a~": b"x", "b~": b"x", "d/1": b"x", "d/2": b"x", "c": b"x"})
    content = find_content(root, ["*~", "b?", "d", "x", "1"])
    assert sorted(content.left_out) == [("a~", "matching '*~'"), ("b~", "matching '*~'"), ("d", "matching 'd'")]
    assert content.left_out_summary().count("matching '*~' (2)") == 1
    assert content.unused_patterns == ("x", "1")


def test_exclude_does_not_mean_the_path_itself(tmp_path: Path) -> None:
    """Who names a file wants it, whatever the patterns say."""
    content = find_content(write(tmp_path / "a~", b"x"), ["*~"])
    assert [file.components for file in content.files] == [()]
    assert content.unused_patterns == ("*~",)


def test_the_torrent_itself_is_left_out(tmp_path: Path) -> None:
    """Otherwise the second torrent of a directory would have another info hash than the first."""
    root = write(tmp_path / "t", {"a": b"x", "t.torrent": b"old", "d/t.torrent": b"another"})
    content = find_content(root, leave_out=root / "d" / ".." / "t.torrent")
    assert names(content) == ["a", "d/t.torrent"]
    assert content.left_out == (("t.torrent", "earlier torrent of it"),)


def test_content_that_was_found_is_what_is_hashed(tmp_path: Path) -> None:
    """The second step takes what the first one gave."""
    root = write(tmp_path / "t", {"a": b"one", "b": b"two", "c~": b"three"})
    content = find_content(root, ["*~"])
    (root / "new").write_bytes(b"x")
    assert (content.name, content.is_directory, content.size) == ("t", True, 6)
    _, info = decoded(create_torrent(content))
    assert listed_files(info) == [("a", 3), ("b", 3)]
    assert info[b"pieces"] == hashlib.sha1(b"onetwo").digest()


def test_the_path_itself_may_be_a_link(tmp_path: Path) -> None:
    """What the user typed is followed, and gives the name."""
    write(tmp_path / "real", {"a": b"x"})
    (tmp_path / "link").symlink_to("real")
    _, info = decoded(create_torrent(tmp_path / "link"))
    assert info[b"name"] == b"link"
    assert listed_files(info) == [("a", 1)]


def test_the_current_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` and `d/..` are looked up."""
    monkeypatch.chdir(write(tmp_path / "t", {"d/a": b"x"}))
    for path in (Path(), Path("."), Path("d/..")):
        _, info = decoded(create_torrent(path))
        assert info[b"name"] == b"t"


# --- the other fields -------------------------------------------------------------------------------------


def test_a_bare_torrent_has_no_other_fields(tmp_path: Path) -> None:
    """Nothing that the caller did not ask for but the program's name."""
    path = write(tmp_path / "a", b"x")
    metainfo, info = decoded(create_torrent(path))
    assert metainfo.keys() == {b"created by", b"info"}
    assert metainfo[b"created by"] == f"torrent-client {__version__}".encode()
    assert info.keys() == {b"length", b"name", b"piece length", b"pieces"}
    assert decoded(create_torrent(path, created_by=None))[0].keys() == {b"info"}


def test_all_fields(tmp_path: Path) -> None:
    """Each argument ends up under its key; `private` and `source` in the info dictionary."""
    metainfo, info = decoded(
        create_torrent(
            write(tmp_path / "a", b"x"),
            trackers=[["http://1/announce", "http://2/announce"], [], ["udp://3:1/announce"]],
            private=True,
            comment="Grüße",
            source="MARK",
            web_seeds=["http://4/a"],
            creation_date=0,
            created_by="a test",
        )
    )
    assert info[b"private"] == 1
    assert info[b"source"] == b"MARK"
    del metainfo[b"info"]
    assert metainfo == {
        b"announce": b"http://1/announce",
        b"announce-list": [[b"http://1/announce", b"http://2/announce"], [b"udp://3:1/announce"]],
        b"comment": "Grüße".encode(),
        b"created by": b"a test",
        b"creation date": 0,
        b"url-list": [b"http://4/a"],
    }


def test_a_single_tracker_needs_no_list(tmp_path: Path) -> None:
    """`announce-list` is for several trackers; without any there is no `announce` either."""
    path = write(tmp_path / "a", b"x")
    metainfo, _ = decoded(create_torrent(path, trackers=[["http://1/announce"]]))
    assert metainfo[b"announce"] == b"http://1/announce"
    assert b"announce-list" not in metainfo
    assert b"announce" not in decoded(create_torrent(path, trackers=[[]]))[0]


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    """Once per piece, in order, in bytes."""
    calls: list[tuple[int, int]] = []
    total = 3 * PIECE + 1
    path = write(tmp_path / "a", bytes(total))
    create_torrent(path, piece_length=PIECE, progress=lambda *call: calls.append(call))
    assert calls == [(PIECE, total), (2 * PIECE, total), (3 * PIECE, total), (total, total)]


def test_progress_can_end_the_call(tmp_path: Path) -> None:
    """What it raises comes out, also an OSError, which is not taken for one of the disk."""

    def stop(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        create_torrent(write(tmp_path / "a", bytes(100 * PIECE)), piece_length=PIECE, progress=stop)


# --- piece length -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (1, 16 * KIB),
        (2000 * 16 * KIB, 16 * KIB),
        (2000 * 16 * KIB + 1, 32 * KIB),
        (700 * MIB, 512 * KIB),
        (4096 * MIB, 4 * MIB),
        (10**14, 16 * MIB),
    ],
)
def test_piece_length_follows_the_size(total: int, expected: int) -> None:
    """About 1,500 pieces, within the limits."""
    assert choose_piece_length(total) == expected


def test_piece_count_is_near_the_aim() -> None:
    """Between 1,000 and 2,000 wherever the limits allow it."""
    for exponent in range(24, 34):
        for factor in (1.0, 1.3, 1.7, 1.99):
            total = int(2**exponent * factor)
            assert 1000 <= total / choose_piece_length(total) <= 2000


@pytest.mark.parametrize("length", [0, -1, 1, 8 * KIB, 16 * KIB + 1, 48 * KIB, 32 * MIB])
def test_unusable_piece_lengths_are_refused(tmp_path: Path, length: int) -> None:
    """Powers of two from 16 KiB to 16 MiB only."""
    with pytest.raises(MetainfoError, match="piece length"):
        create_torrent(write(tmp_path / "a", b"x"), piece_length=length)


# --- what cannot be shared --------------------------------------------------------------------------------


def test_nothing_to_share_is_refused(tmp_path: Path) -> None:
    """An empty file, an empty directory, and directories with only empty files."""
    for path in (
        write(tmp_path / "file", b""),
        write(tmp_path / "empty", {}),
        write(tmp_path / "files", {"a": b"", "d/b": b""}),
    ):
        with pytest.raises(MetainfoError, match=r"nothing to share.*no file with a byte in it$"):
            create_torrent(path)


def test_what_was_left_out_explains_why_there_is_nothing(tmp_path: Path) -> None:
    """Somebody with a directory of links should see at once what is wrong."""
    root = write(tmp_path / "t", {"a~": b"x"})
    (root / "link").symlink_to("a~")
    with pytest.raises(MetainfoError, match="and left out: ") as raised:
        find_content(root, ["*~"])
    assert "symbolic link (1)" in str(raised.value)
    assert "matching '*~' (1)" in str(raised.value)


def test_missing_and_special_paths_are_refused(tmp_path: Path) -> None:
    """With the path in the message."""
    with pytest.raises(StorageError, match=r"cannot read .*missing: No such file"):
        create_torrent(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MetainfoError, match="pipe is neither a file nor a directory"):
        create_torrent(tmp_path / "pipe")
    with pytest.raises(MetainfoError, match="no name"):
        create_torrent(Path("/"))
    with pytest.raises(StorageError, match=r"cannot read .*: No such file"):
        create_torrent(tmp_path / "missing" / "..")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match=r"loop: Too many levels of symbolic links"):
        create_torrent(tmp_path / "loop")


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    """The message can be printed, and says what to do."""
    root = write(tmp_path / "t", {"a": b"x"})
    name = os.fsdecode(b"b\xff")
    (root / name).write_bytes(b"y")
    with pytest.raises(MetainfoError, match=re.escape(r"'b\udcff' is not UTF-8")):
        create_torrent(root)
    with pytest.raises(MetainfoError, match="not UTF-8"):
        create_torrent(root / name)
    assert names(find_content(root, ["b*"])) == ["a"]


def test_directories_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    """With the path to the first file in one, so that it can be found; what is excluded does not matter."""
    root = write(tmp_path / "t", {"a": b"x", "d/" + os.fsdecode(b"e\xff") + "/f": b"y"})
    with pytest.raises(MetainfoError, match=re.escape(r"'d/e\udcff/f' is not UTF-8")):
        create_torrent(root)
    assert names(find_content(root, [os.fsdecode(b"e\xff")])) == ["a"]


def test_more_files_than_clients_take_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are counted, and not after an hour of hashing."""
    monkeypatch.setattr(torrent_creator, "MAX_FILES", 3)
    root = write(tmp_path / "t", dict.fromkeys(("a", "b", "d/c"), b"x"))
    assert len(find_content(root).files) == 3
    (root / "d" / "e").write_bytes(b"x")
    with pytest.raises(MetainfoError, match=r"t has more files than clients take \(3\)"):
        find_content(root)
    assert len(find_content(root, ["d"]).files) == 2


def test_a_torrent_that_clients_refuse_is_not_made(tmp_path: Path) -> None:
    """It is found out before anything is read: half a million pieces of 20 bytes are 10 MB."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(PIECE * 524_288)
    with pytest.raises(MetainfoError, match="larger pieces"):
        create_torrent(path, piece_length=PIECE)


def test_bad_text_is_found_before_hashing(tmp_path: Path) -> None:
    """Nobody waits an hour to learn that the comment cannot be encoded."""
    calls: list[tuple[int, int]] = []
    path = write(tmp_path / "a", b"x")
    with pytest.raises(BencodeError):
        create_torrent(path, comment="\ud800", progress=lambda *call: calls.append(call))
    assert calls == []


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "delete", "link"])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path, change: str) -> None:
    """The second file changes while the first one is hashed."""
    root = write(tmp_path / "t", {"a": bytes(50 * PIECE), "b": bytes(PIECE)})
    victim = root / "b"

    def meddle(done: int, total: int) -> None:
        if done != PIECE:
            return
        if change == "grow":
            victim.write_bytes(bytes(PIECE + 1))
        elif change == "shrink":
            victim.write_bytes(b"")
        elif change == "rewrite":
            victim.write_bytes(bytes(PIECE))
            os.utime(victim, (1, 1))
        else:
            victim.unlink()
            if change == "link":
                victim.symlink_to(root / "a")

    with pytest.raises(StorageError, match=f"{victim}"):
        create_torrent(root, piece_length=PIECE, progress=meddle)


def test_an_unreadable_file_is_found_before_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run as root, which may read everything, so the system is faked."""
    root = write(tmp_path / "t", {"a": b"x", "b": b"y"})
    monkeypatch.setattr(os, "access", lambda path, _mode: path.name != "b")
    with pytest.raises(StorageError, match=r"cannot read .*b: Permission denied"):
        find_content(root)
    assert names(find_content(root, ["b"])) == ["a"]


def test_an_unreadable_directory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torrent that silently lacks a directory would be worse; tests run as root, so the system is faked."""
    root = write(tmp_path / "t", {"a": b"x", "locked/b": b"y"})
    scandir = os.scandir

    def refuse(path: Path) -> "os._ScandirIterator[str]":
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="locked: Permission denied"):
        create_torrent(root)


# --- libtorrent -------------------------------------------------------------------------------------------


@pytest.mark.real_peer
@pytest.mark.parametrize(
    ("content", "piece_length"),
    [
        (payload(1), 16 * KIB),
        (payload(5 * PIECE), 16 * KIB),
        (payload(700_001), 32 * KIB),
        ({"a": payload(PIECE), "b": payload(PIECE + 1, 1)}, 16 * KIB),
        ({"empty": b"", "x/é.txt": payload(70_000), "x/y/z": payload(1), "z": b""}, 16 * KIB),
        ({f"dir{number % 7}/{number}": payload(number * 97, number) for number in range(120)}, 64 * KIB),
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_info_hash_is_that_of_libtorrent(
    tmp_path: Path, content: Files | bytes, piece_length: int, private: bool
) -> None:
    """From the same files both make the same info dictionary, and libtorrent accepts ours."""
    lt = pytest.importorskip("libtorrent")
    path = write(tmp_path / "t", content)
    ours = create_torrent(path, piece_length=piece_length, private=private)
    _, spans = bencode_decode_spans(ours)
    info_hash = hashlib.sha1(ours[slice(*spans[b"info"])]).hexdigest()
    (tmp_path / "t.torrent").write_bytes(ours)
    assert str(lt.load_torrent_file(str(tmp_path / "t.torrent")).info_hashes.v1) == info_hash

    _, info = decoded(ours)
    files = [("t", info[b"length"])] if b"length" in info else listed_files(info)
    entries = [lt.create_file_entry(name if name == "t" else f"t/{name}", size) for name, size in files]
    creator = lt.create_torrent(entries, piece_length, lt.create_torrent.v1_only)
    creator.set_priv(private)
    lt.set_piece_hashes(creator, str(tmp_path))
    (tmp_path / "theirs.torrent").write_bytes(lt.bencode(creator.generate()))
    assert str(lt.load_torrent_file(str(tmp_path / "theirs.torrent")).info_hashes.v1) == info_hash
