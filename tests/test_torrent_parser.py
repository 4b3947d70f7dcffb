"""Torrent files: what is read, what is refused and in which words, and that no file leaves its directory."""

from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_peer import metainfo
from torrent_client import torrent_parser
from torrent_client.config import MAX_TORRENT_SIZE
from torrent_client.errors import MetainfoError
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.torrent_parser import MAX_PIECE_LENGTH, MAX_TOTAL_LENGTH, FileEntry, TorrentFile

HASH = bytes(range(20))
ABSENT = object()


def single(**changes: object) -> dict[str, object]:
    """Return the info dictionary of one file of 30 bytes in 2 pieces; `changes` replace or leave out fields."""
    info: dict[str, object] = {"name": "a.bin", "piece_length": 16, "pieces": 2 * HASH, "length": 30} | changes
    return {key.replace("_", " "): value for key, value in info.items() if value is not ABSENT}


def multi(*files: object, **changes: object) -> dict[str, object]:
    """Return the info dictionary of several files, which have 30 bytes in all."""
    return single(length=ABSENT, files=list(files), name="dir", **changes)


def file(length: object, *path: str | bytes, **more: object) -> dict[str, object]:
    """Return an entry of `files`."""
    return {"length": length, "path": list(path), **more}


def parse(info: object, **top: object) -> TorrentFile:
    """Parse a torrent with this info dictionary and these other fields."""
    return TorrentFile.from_bytes(bencode_encode({"info": info, **top}))


def paths(torrent: TorrentFile) -> list[str]:
    """Return the paths of the files."""
    return [str(entry.path) for entry in torrent.files]


def refusal(info: object, **top: object) -> str:
    """Return why a torrent is refused."""
    with pytest.raises(MetainfoError) as caught:
        parse(info, **top)
    return str(caught.value)


# --- what is read -----------------------------------------------------------------------------------------


def test_a_single_file_is_read() -> None:
    """One file lies directly in the output directory; what the torrent does not say is empty."""
    info = single()
    torrent = parse(info, announce="http://tracker.example/announce")
    assert torrent.info_hash == sha1(bencode_encode(info)).digest()
    assert torrent.info == bencode_encode(info)
    assert (torrent.name, torrent.piece_length, torrent.piece_hashes) == ("a.bin", 16, 2 * HASH)
    assert torrent.files == (FileEntry(PurePosixPath("a.bin"), 30, 0),)
    assert (torrent.piece_count, torrent.total_length, torrent.content_length) == (2, 30, 30)
    assert torrent.announce == "http://tracker.example/announce"
    assert not torrent.is_multi_file
    assert not torrent.is_private
    assert not torrent.is_hybrid
    assert not torrent.renamed + torrent.web_seeds + torrent.nodes
    assert {torrent.comment, torrent.created_by, torrent.creation_date, torrent.source} == {None}


def test_several_files_follow_each_other_in_a_directory() -> None:
    """Files lie below the torrent's name, at offsets that add up."""
    torrent = parse(multi(file(10, "one"), file(0, "sub", "empty"), file(20, "sub", "two")))
    assert torrent.files == (
        FileEntry(PurePosixPath("dir/one"), 10, 0),
        FileEntry(PurePosixPath("dir/sub/empty"), 0, 10),
        FileEntry(PurePosixPath("dir/sub/two"), 20, 10),
    )
    assert torrent.is_multi_file
    assert torrent.total_length == 30


def test_one_file_in_a_list_still_lies_in_a_directory() -> None:
    """`files` with a single entry makes a directory, as other clients do."""
    assert paths(parse(multi(file(30, "only")))) == ["dir/only"]


def test_all_optional_fields_are_read() -> None:
    """Comment, maker, date, source, the private flag, web seeds and DHT nodes."""
    torrent = parse(
        single(private=1, source="SITE"),
        comment="Hello",
        **{"created by": "mktorrent", "creation date": 1_700_000_000},
        **{"url-list": ["http://a.example/", b"http://a.example/", "", "http://b.example/"]},
        httpseeds="http://c.example/seed.php",
        nodes=[["router.example", 6881], ["::1", 1], ["", 1], ["x", 0], ["x", 65_536], ["x"], 7, [7, 7]],
    )
    assert (torrent.comment, torrent.created_by, torrent.source) == ("Hello", "mktorrent", "SITE")
    assert torrent.creation_date == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert torrent.is_private
    assert torrent.web_seeds == ("http://a.example/", "http://b.example/")
    assert torrent.http_seeds == ("http://c.example/seed.php",)
    assert torrent.nodes == (("router.example", 6881), ("::1", 1))


def test_utf8_fields_come_before_the_others() -> None:
    """`name.utf-8` and `path.utf-8` are right where the plain fields are in some old code page."""
    entry = {"length": 30, "path": [b"\x8f\x90"], "path.utf-8": ["日本", "é.txt"]}
    torrent = parse(multi(entry, **{"name.utf-8": "名"}), **{"comment": b"\xff", "comment.utf-8": "ü"})
    assert torrent.name == "名"
    assert paths(torrent) == ["名/日本/é.txt"]
    assert torrent.comment == "ü"


def test_text_that_is_not_utf8_is_shown_and_not_refused() -> None:
    """Old torrents are in code pages: bad bytes become U+FFFD."""
    torrent = parse(single(name=b"caf\xe9.txt"), comment=b"\xe9")
    assert torrent.name == "caf\ufffd.txt"
    assert torrent.comment == "\ufffd"


@pytest.mark.parametrize("name", [ABSENT, ""])
def test_a_torrent_without_a_name_gets_one(name: object) -> None:
    """The name is only a suggestion (BEP 3): nothing depends on it."""
    assert paths(parse(single(name=name))) == ["unnamed"]


@pytest.mark.parametrize("date", [10**19, -(10**19), "yesterday", [1]])
def test_a_date_that_no_calendar_has_is_left_out(date: object) -> None:
    """Nothing depends on the date, so a bad one refuses nothing."""
    assert parse(single(), **{"creation date": date}).creation_date is None


@pytest.mark.parametrize("private", [0, 2, "1", b"\x01"])
def test_only_the_number_1_makes_a_torrent_private(private: object) -> None:
    """BEP 27 knows one value."""
    assert not parse(single(private=private)).is_private


# --- trackers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "tiers"),
    [
        ({}, ()),
        ({"announce": "http://a/"}, (("http://a/",),)),
        ({"announce": ""}, ()),
        ({"announce": 5}, ()),
        ({"announce": " http://a/ \n"}, (("http://a/",),)),
        ({"announce": "http://x/", "announce-list": [["http://a/", "http://b/"], ["http://c/"]]},
         (("http://a/", "http://b/"), ("http://c/",))),
        ({"announce": "http://a/", "announce-list": []}, (("http://a/",),)),
        ({"announce": "http://a/", "announce-list": [[], [5], [""]]}, (("http://a/",),)),
        ({"announce": "http://a/", "announce-list": "http://b/"}, (("http://a/",),)),
        ({"announce-list": ["http://a/", ["http://b/", 5, "http://b/"], 7]}, (("http://a/",), ("http://b/",))),
    ],
)  # fmt: skip
def test_trackers_are_read_in_tiers(fields: dict[str, Any], tiers: tuple[tuple[str, ...], ...]) -> None:
    """The announce-list replaces `announce` unless nothing in it can be used (BEP 12); oddities are skipped."""
    torrent = parse(single(), **fields)
    assert torrent.trackers == tiers
    assert torrent.announce == (tiers[0][0] if tiers else None)


def test_a_url_with_control_characters_is_no_url() -> None:
    """URLs are shown: one that could write escape codes onto a terminal is left out."""
    torrent = parse(
        single(),
        **{
            "announce-list": [["http://a/\x1b[2J", "http://b/"], ["http://c/\x9b1m"]],
            "url-list": "http://d/\x07",
        },
    )
    assert torrent.trackers == (("http://b/",),)
    assert torrent.web_seeds == ()


# --- padding, versions ------------------------------------------------------------------------------------


def test_pad_files_count_as_bytes_but_not_as_content() -> None:
    """BEP 47: padding keeps its place between the files."""
    torrent = parse(multi(file(10, "a"), file(6, ".pad", "6", attr="p"), file(14, "b", attr="x")))
    assert [entry.is_padding for entry in torrent.files] == [False, True, False]
    assert [entry.offset for entry in torrent.files] == [0, 10, 16]
    assert (torrent.total_length, torrent.content_length) == (30, 24)


def test_a_hybrid_torrent_is_used_by_its_v1_side() -> None:
    """BEP 52: with both kinds of hashes in it, the v1 fields are all that is needed."""
    tree = {"a": {"": {"length": 30, "pieces root": bytes(32)}}}
    info = single(meta_version=2) | {"file tree": tree}
    torrent = parse(info)
    assert torrent.is_hybrid
    assert torrent.info_hash == sha1(bencode_encode(info)).digest()
    assert paths(torrent) == ["a.bin"]


def test_a_v2_only_torrent_is_refused_in_words() -> None:
    """The user is told what it is and what to look for instead."""
    tree = {"a": {"": {"length": 30, "pieces root": bytes(32)}}}
    message = refusal({"name": "a", "piece length": 16384, "meta version": 2, "file tree": tree})
    assert "v2-only" in message
    assert "hybrid" in message


# --- the info hash ----------------------------------------------------------------------------------------


def test_the_info_hash_is_of_the_raw_bytes() -> None:
    """Unsorted and duplicate keys, which an encoder would change, still give the hash that others compute."""
    info = b"d6:pieces20:" + HASH + b"12:piece lengthi16e6:lengthi9e4:name1:b4:name1:ae"
    torrent = TorrentFile.from_bytes(b"d4:zzzzi1e4:info" + info + b"8:announce8:http://ae")
    assert torrent.info == info
    assert torrent.info_hash == sha1(info).digest()
    assert torrent.name == "b"
    assert torrent.announce == "http://a"


def test_of_two_info_dictionaries_the_first_counts_for_everything() -> None:
    """Contents and hash come from the same one: two clients must not see two torrents in one file."""
    first, second = (bencode_encode(single(name=name)) for name in ("first", "second"))
    torrent = TorrentFile.from_bytes(b"d4:info" + first + b"4:info" + second + b"e")
    assert torrent.name == "first"
    assert torrent.info_hash == sha1(first).digest()


# --- sizes ------------------------------------------------------------------------------------------------


def test_a_torrent_of_nothing_has_no_pieces() -> None:
    """A file of zero bytes needs no hash."""
    torrent = parse(single(length=0, pieces=b""))
    assert (torrent.piece_count, torrent.total_length) == (0, 0)
    assert torrent.files == (FileEntry(PurePosixPath("a.bin"), 0, 0),)


def test_empty_files_alone_make_a_torrent() -> None:
    """Several files of zero bytes, too."""
    torrent = parse(multi(file(0, "a"), file(0, "b"), pieces=b""))
    assert (torrent.piece_count, paths(torrent)) == (0, ["dir/a", "dir/b"])


@pytest.mark.parametrize(("length", "count"), [(16, 1), (17, 2), (31, 2), (32, 2), (33, 3)])
def test_the_number_of_hashes_must_fit_the_length(length: int, count: int) -> None:
    """Exactly as many pieces as the bytes need; one more or one less is refused."""
    assert parse(single(length=length, pieces=count * HASH)).piece_count == count
    for wrong in (count - 1, count + 1):
        assert refusal(single(length=length, pieces=wrong * HASH)).startswith("info.pieces: ")


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "field"),
    [
        ([], "info"),
        (single(piece_length=ABSENT), "info.piece length"),
        (single(piece_length="16"), "info.piece length"),
        (single(piece_length=0), "info.piece length"),
        (single(piece_length=-16), "info.piece length"),
        (single(piece_length=MAX_PIECE_LENGTH + 1), "info.piece length"),
        (single(pieces=ABSENT), "info.pieces"),
        (single(pieces=[HASH]), "info.pieces"),
        (single(pieces=HASH + b"x"), "info.pieces"),
        (single(length=ABSENT), "info.length"),
        (single(length="30"), "info.length"),
        (single(length=-1), "info.length"),
        (single(length=MAX_TOTAL_LENGTH + 1), "info.length"),
        (single(name=5), "info.name"),
        (single(source=5), "info.source"),
        (single(files={}), "info.files"),
        (single(files=[]), "info.files"),
        (multi("a"), "info.files[0]"),
        (multi(file(30, "a"), {"length": 0}), "info.files[1].path"),
        (multi({"length": 30, "path": "a"}), "info.files[0].path"),
        (multi({"length": 30, "path": []}), "info.files[0].path"),
        (multi({"length": 30, "path": ["a", 5]}), "info.files[0].path"),
        (multi({"path": ["a"]}), "info.files[0].length"),
        (multi(file(-1, "a")), "info.files[0].length"),
        (multi(file(MAX_TOTAL_LENGTH, "a"), file(MAX_TOTAL_LENGTH, "b")), "info.length"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(info: object, field: str) -> None:
    """Every refusal begins with the field that it is about."""
    assert refusal(info).startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["comment", "created by"])
def test_a_bad_field_outside_the_info_dictionary_is_named(field: str) -> None:
    """The same for text at the top level."""
    assert refusal(single(), **{field: [1]}).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a .torrent file"),
        (b"<!DOCTYPE html>", "not a .torrent file"),
        (b"i1e", "no dictionary"),
        (b"de", "no 'info'"),
        (metainfo(b"x") + b"x", "after the value"),
        (metainfo(b"x")[:-1], "not a .torrent file"),
    ],
)
def test_what_is_no_torrent_is_refused(data: bytes, reason: str) -> None:
    """Other files, web pages saved by mistake, torrents cut short or with something after them."""
    with pytest.raises(MetainfoError, match=reason):
        TorrentFile.from_bytes(data)


def test_limits_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of files and pieces have limits, which the refusal tells."""
    monkeypatch.setattr(torrent_parser, "MAX_FILES", 2)
    monkeypatch.setattr(torrent_parser, "MAX_PIECES", 2)
    files = [file(10, name) for name in "abc"]
    assert parse(multi(*files[:2], pieces=2 * HASH)).piece_count == 2
    assert refusal(multi(*files)) == "info.files: 3 files; the limit is 2"
    assert refusal(single(pieces=3 * HASH)) == "info.pieces: 3 pieces; the limit is 2"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """Somebody who names a film instead of its torrent gets a sentence, and no gigabytes are read."""
    path = tmp_path / "film.mkv"
    with path.open("wb") as sparse:
        sparse.truncate(100 * MAX_TORRENT_SIZE)
    with pytest.raises(MetainfoError, match="surely not a"):
        TorrentFile.from_file(path)


# --- reading the file -------------------------------------------------------------------------------------


def test_a_file_is_read_from_disk(tmp_path: Path) -> None:
    """`from_file` gives what `from_bytes` gives."""
    path = tmp_path / "a.torrent"
    path.write_bytes(metainfo(b"x" * 100))
    assert TorrentFile.from_file(str(path)) == TorrentFile.from_bytes(path.read_bytes())


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_errors_name_the_file(tmp_path: Path, content: bytes | None) -> None:
    """Whether it is missing or bad, the message says which file."""
    path = tmp_path / "a.torrent"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MetainfoError, match=r"a\.torrent"):
        TorrentFile.from_file(path)


def test_a_directory_is_no_torrent(tmp_path: Path) -> None:
    """The system's reason is in the message."""
    with pytest.raises(MetainfoError, match="Is a directory"):
        TorrentFile.from_file(tmp_path)


# --- paths ------------------------------------------------------------------------------------------------

hostile_components = st.sampled_from(["..", ".", "", "/", "/etc", "a/../..", "..\\..", "C:\\x", "\0", "ok"]) | st.text(
    max_size=6
)


@given(name=hostile_components, files=st.lists(st.lists(hostile_components, min_size=1, max_size=4), max_size=5))
def test_hostile_paths_end_up_inside(name: str, files: list[list[str]]) -> None:
    """Whatever a torrent calls its files, each stays below the output directory, and no two are one."""
    info = multi(*[file(0, *path) for path in files], pieces=b"") if files else single(length=0, pieces=b"")
    torrent = parse(info | {"name": name})
    for entry in torrent.files:
        assert not entry.path.is_absolute()
        assert not {"", ".", ".."} & set(entry.path.parts)
        assert "\0" not in str(entry.path)
    assert len(set(paths(torrent))) == max(1, len(files))


def test_changed_paths_are_told_of() -> None:
    """A renamed file is reported with what the torrent wanted."""
    torrent = parse(multi(file(10, "..", "..", "etc", "passwd"), file(10, "Good"), file(10, "good")))
    assert paths(torrent) == ["dir/_/_/etc/passwd", "dir/Good", "dir/good (1)"]
    assert [(renamed.file_index, str(renamed.path)) for renamed in torrent.renamed] == [
        (0, "dir/_/_/etc/passwd"),
        (2, "dir/good (1)"),
    ]
