"""Safe paths: hostile, illegal, too long and equal names, and that good names are left alone."""

import time
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.safe_paths import (
    MAX_COMPONENT_BYTES,
    MAX_PATH_BYTES,
    safe_component,
    safe_path,
    safe_paths,
)

DEVICES = {"CON", "PRN", "AUX", "NUL", *(port + digit for port in ("COM", "LPT") for digit in "0123456789")}

# Few different letters, so that names meet; every kind of trouble, and lone surrogates among them.
awkward_names = st.text(
    st.sampled_from("aAäÄ\u0308ßs\u017fKk\u212a.. /\\:*\0\n\x9b\u202e\u200d()1\ud800😀"), max_size=8
)
special_names = ["", ".", "..", "CON", "nul.txt", "com1 .x", "a" * 300, "é" * 200 + ".txt", "a (1)", "A (1)"]
any_names = awkward_names | st.text(max_size=20) | st.sampled_from(special_names)
any_files = st.lists(st.lists(any_names, max_size=4), max_size=12)

good_names = st.text(st.sampled_from("abcXYZ019 -_.äé中😀(){}&'!"), min_size=1, max_size=12).filter(
    lambda name: name.rstrip(" .") == name
)


def fold(text: str) -> str:
    """Return what a file system without case or normal forms compares."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def saved(name: str, files: Sequence[Sequence[str]]) -> list[str]:
    """Return the paths of a torrent as text."""
    return [str(path) for path in safe_paths(name, files).paths]


# --- one name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "_"),
        (".", "_"),
        ("..", "_"),
        ("...", "_"),
        (" ", "_"),
        ("/", "_"),
        ("/etc/passwd", "_etc_passwd"),
        ("..\\..\\boot.ini", ".._.._boot.ini"),
        ("C:\\autoexec.bat", "C__autoexec.bat"),
        ('<>:"|?*', "_______"),
        ("nul\0byte", "nul_byte"),
        ("new\nline\r\x1b[31m\x7f\x9b", "new_line__[31m__"),
        ("what?", "what_"),
        ("Vol. 1.", "Vol. 1"),
        ("trailing . . ", "trailing"),
        ("exe.\u202egpj.scr", "exe._gpj.scr"),
        ("lone\udcff", "lone_"),
        ("\ud83d", "_"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Aux .tar.gz", "_Aux .tar.gz"),
        ("LPT9", "_LPT9"),
        ("com\u00b9", "_com\u00b9"),
        ("CONIN$", "_CONIN$"),
        ("NUL:", "NUL_"),
        ("NUL...", "_NUL"),
    ],
)
def test_unsafe_names_become_safe_ones(name: str, expected: str) -> None:
    """Each rule, alone: what is unsafe becomes an underscore, what ends a name on Windows is cut off."""
    assert safe_component(name) == expected
    assert safe_component(expected) == expected


@pytest.mark.parametrize(
    "name",
    [
        "a",
        ".hidden",
        "..hidden",
        "file.tar.gz",
        " leading space",
        "CONSOLE",
        "COM",
        "COM10",
        "xCON",
        "icon.png",
        "cafe\u0301",  # not in NFC, as macOS writes it
        "café",
        "日本語.mkv",
        "\U0001f469\u200d\U0001f680.png",  # joined by a zero-width joiner
        "a" * 255,
        "é" * 127,
        "100% (really) & [more] {x} #1 'q' ~!@$^;,=+`",
    ],
)
def test_good_names_are_untouched(name: str) -> None:
    """Other clients' downloads are found under the names that the torrent gives."""
    assert safe_component(name) == name
    assert safe_paths(name).renamed == []
    assert safe_paths("t", [[name, name]]).paths == [PurePosixPath("t", name, name)]


def test_long_names_keep_their_extension() -> None:
    """A video without `.mkv` would not be recognised."""
    assert safe_component("x" * 300 + ".mkv") == "x" * 251 + ".mkv"
    assert safe_component("x" * 300) == "x" * 255
    assert safe_component("x" * 200 + ". " + "y" * 100) == "x" * 200 + ". " + "y" * 53
    assert safe_component("x" * 10 + "." + "y" * 300) == "x" * 10 + "." + "y" * 244


def test_long_names_are_not_cut_inside_a_character() -> None:
    """A half of a UTF-8 sequence would be a name that no program can decode."""
    for letter in "éह😀":
        for shift in range(5):
            name = safe_component("a" * shift + letter * 200 + ".mkv")
            assert name.encode().decode() == name
            assert 250 < len(name.encode()) <= MAX_COMPONENT_BYTES
            assert name == "a" * shift + letter * name.count(letter) + ".mkv"


def test_what_a_cut_leaves_behind_is_safe_too() -> None:
    """Cutting can lay bare spaces, a device's name, or nothing."""
    assert safe_component(" " * 300 + "x") == "_"
    assert safe_component("CON" + " " * 300 + "x") == "_CON"
    assert len(safe_component("CON." + "x" * 251)) == MAX_COMPONENT_BYTES


@given(any_names | st.text(min_size=200, max_size=400))
def test_any_text_gives_a_name_that_is_legal_everywhere(name: str) -> None:
    """Short enough, one component on POSIX and Windows, no device; and cleaning it again changes nothing."""
    cleaned = safe_component(name)
    assert 1 <= len(cleaned.encode()) <= MAX_COMPONENT_BYTES
    assert PurePosixPath(cleaned).parts == PureWindowsPath(cleaned).parts == (cleaned,)
    assert cleaned.split(".")[0].rstrip().upper() not in DEVICES
    assert cleaned not in ("..", ".")
    assert not set('<>:"|?*\0\n') & set(cleaned)
    assert safe_component(cleaned) == cleaned


# --- one path ---------------------------------------------------------------------------------------------


def test_a_path_cannot_climb_out() -> None:
    """Directories up, absolute and empty components stay where they are, as underscores."""
    assert safe_path(["t", "..", "..", "etc", "passwd"]) == ("t", "_", "_", "etc", "passwd")
    assert safe_path(["/", "", ".", "x"]) == ("_", "_", "_", "x")
    assert safe_path([]) == ("_",)


def test_a_path_that_is_too_long_keeps_its_ends() -> None:
    """The torrent's name and the file's name stay; files of one directory stay together."""
    deep = ["é" * 100] * 10
    first = safe_path(["t", *deep, "a.txt"])
    assert first[0] == "t"
    assert first[-1] == "a.txt"
    assert len(first) == 3
    assert safe_path(first) == first
    assert safe_path(["t", *deep, "b.txt"])[:2] == first[:2]
    assert safe_path(["t", *deep, "more", "a.txt"])[:2] != first[:2]
    assert safe_path(["x"] * 10_000) == ("x", safe_path(["x"] * 10_000)[1], "x")


# --- a whole torrent --------------------------------------------------------------------------------------


def test_a_single_file_torrent_has_one_path() -> None:
    """Its name is the file."""
    assert saved("a.iso", []) == ["a.iso"]
    assert saved("../a.iso", []) == [".._a.iso"]


def test_files_without_a_path_get_one() -> None:
    """An empty `path` list is illegal, but no reason to refuse the torrent."""
    assert saved("t", [[], []]) == ["t/_", "t/_ (1)"]


def test_equal_names_get_numbers() -> None:
    """The first one keeps its name, and the number comes before the extension."""
    assert saved("t", [["a.txt"], ["a.txt"], ["a.txt"]]) == ["t/a.txt", "t/a (1).txt", "t/a (2).txt"]
    assert saved("t", [["x", ".rc"], ["x", ".rc"]]) == ["t/x/.rc", "t/x/.rc (1)"]
    assert saved("t", [["x", "a"], ["y", "a"]]) == ["t/x/a", "t/y/a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Readme", "README"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("straße", "STRASSE"),
        ("K", "\u212a"),
        ("\u017f", "S"),
        ("a\u200d", "A"),
        ("\u03c3", "\u03c2"),
    ],
)
def test_names_that_some_file_system_takes_for_equal_get_numbers(first: str, second: str) -> None:
    """Windows and macOS ignore case, macOS normal forms as well: the second file would replace the first."""
    assert saved("t", [[first], [second]]) == [f"t/{first}", f"t/{second} (1)"]
    assert saved("t", [[first, "x"], [second, "x"]]) == [f"t/{first}/x", f"t/{second}/x (1)"]
    assert saved("t", [[first, "x"], [second, "y"]]) == [f"t/{first}/x", f"t/{second}/y"]


def test_a_file_cannot_be_the_directory_of_another() -> None:
    """The file moves, whichever comes first; also when only the case differs, and also if it is numbered."""
    assert saved("t", [["a"], ["a", "b"]]) == ["t/a (1)", "t/a/b"]
    assert saved("t", [["a", "b", "c"], ["A"]]) == ["t/a/b/c", "t/A (1)"]
    assert saved("t", [["a"], ["a"], ["a (1)", "b"]]) == ["t/a", "t/a (2)", "t/a (1)/b"]
    assert saved("t", [["a"], ["a!", "b"], ["a-b"]]) == ["t/a", "t/a!/b", "t/a-b"]


def test_good_names_win_over_cleaned_and_numbered_ones() -> None:
    """A file whose own name is good is not pushed aside by one that had to be renamed, if earlier."""
    assert saved("t", [["a?"], ["a_"]]) == ["t/a_ (1)", "t/a_"]
    assert saved("t", [["a"], ["a"], ["a (1)"]]) == ["t/a", "t/a (2)", "t/a (1)"]


def test_numbers_fit_into_the_longest_names() -> None:
    """The number takes the place of letters, not of the extension, and never makes the name too long."""
    name = "é" * 125 + ".mkv"
    paths = safe_paths("t", [[name]] * 1200).paths
    assert paths[0] == PurePosixPath("t", name)
    assert paths[1100] == PurePosixPath("t", "é" * 119 + " (1100).mkv")
    assert len(set(paths)) == len(paths)


def test_the_user_can_be_told_what_was_renamed() -> None:
    """Only what was renamed is listed, and its line holds nothing that a terminal would obey."""
    result = safe_paths("t", [["ok"], ["bad\x1b[2J\u202e", "ü?"], ["OK"]])
    assert [(renamed.file_index, renamed.wanted, renamed.path) for renamed in result.renamed] == [
        (1, ("t", "bad\x1b[2J\u202e", "ü?"), PurePosixPath("t/bad_[2J_/ü_")),
        (2, ("t", "OK"), PurePosixPath("t/OK (1)")),
    ]
    assert str(result.renamed[0]) == r"'t/bad\x1b[2J\u202e/\xfc?' is saved as 't/bad_[2J_/ü_'"
    assert len(safe_paths("t/", [["a"], ["b"]]).renamed) == 2


@given(any_names, any_files)
def test_any_torrent_gets_paths_that_are_unique_and_inside(name: str, files: list[list[str]]) -> None:
    """The whole promise, for names that Hypothesis finds awkward."""
    result = safe_paths(name, files)
    assert len(result.paths) == max(1, len(files))
    folded = [tuple(fold(part) for part in path.parts) for path in result.paths]
    assert len(set(folded)) == len(folded)
    directories = {path[:depth] for path in folded for depth in range(1, len(path))}
    assert not directories & set(folded)
    for path in result.paths:
        assert not path.is_absolute()
        assert not PureWindowsPath(str(path)).drive
        assert len(str(path).encode()) <= MAX_PATH_BYTES
        assert path.parts[0] == safe_component(name) or not files
        for part in path.parts:
            assert safe_component(part) == part
    assert safe_paths(name, files) == result
    unchanged = set(range(len(files))) - {renamed.file_index for renamed in result.renamed}
    for index in unchanged:
        assert result.paths[index].parts == (name, *files[index])


@given(any_names, any_files.filter(bool))
def test_safe_paths_are_good_names_themselves(name: str, files: list[list[str]]) -> None:
    """Making a torrent's paths safe twice changes nothing the second time."""
    paths = safe_paths(name, files).paths
    again = safe_paths(paths[0].parts[0], [path.parts[1:] for path in paths])
    assert again.paths == paths
    assert again.renamed == []


@given(
    good_names,
    st.lists(st.tuples(good_names, good_names), max_size=8, unique_by=lambda path: fold("/".join(path))),
)
def test_good_torrents_are_untouched(name: str, files: list[tuple[str, str]]) -> None:
    """Names that are legal and do not meet are kept to the byte."""
    result = safe_paths(name, files)
    assert result.renamed == []
    if files:
        assert [path.parts for path in result.paths] == [(name, *file) for file in files]


@pytest.mark.parametrize(
    "files",
    [
        [[f"dir{i % 300}", f"file {i}.txt"] for i in range(100_000)],
        [["a.txt"]] * 100_000,
        [[f"a ({i}).txt"] for i in range(1, 50_000)] + [["a.txt"]] * 50_000,
        [["x" * 250 + f"{i // 2}.txt"] for i in range(100_000)],
        [[str(i), *["a"] * 385] for i in range(2_000)],
    ],
    ids=["ordinary", "all the same", "numbers taken", "long and in pairs", "deep"],
)
def test_large_torrents_take_seconds(files: list[list[str]]) -> None:
    """Names chosen to make numbering quadratic do not: 100,000 files take about a second."""
    started = time.process_time()
    result = safe_paths("t", files)
    assert time.process_time() - started < 30
    assert len(set(result.paths)) == len(files)
