"""Which files are wanted: the user's words, and the pieces that follow from them."""

from pathlib import PurePosixPath

import pytest

from torrent_client.errors import SelectionError
from torrent_client.file_selection import (
    FilePriority,
    FileSelection,
    parse_priorities,
    parse_ranges,
    wanted_pieces,
)
from torrent_client.torrent_parser import FileEntry

UNWANTED, LOW, NORMAL, HIGH = FilePriority
PIECE = 10


def entries(*sizes: int, padding: tuple[int, ...] = ()) -> list[FileEntry]:
    """Return files of these sizes; those whose number, from 1, is in `padding` are pad files."""
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    return [
        FileEntry(PurePosixPath(str(number)), size, offset, number in padding)
        for number, (size, offset) in enumerate(zip(sizes, offsets, strict=True), 1)
    ]


def members(pieces: int) -> list[int]:
    """Return a set of bits as a list."""
    return [index for index in range(pieces.bit_length()) if pieces >> index & 1]


# --- words ------------------------------------------------------------------------------------------------


def test_ranges_are_read_as_aria2_does() -> None:
    """Numbers and ranges with commas between them, blanks allowed."""
    assert parse_ranges("1,3-5, 7 ") == ((1, 1), (3, 5), (7, 7))


@pytest.mark.parametrize("text", ["", "0", "1,", "5-3", "-3", "3-", "a", "1;2", "1-2-3", "0-4", "1234567", "\u0663"])
def test_what_is_no_range_is_refused(text: str) -> None:
    """Each is a typing error, not a wish."""
    with pytest.raises(ValueError, match=r"as in 1,3-5"):
        parse_ranges(text)


def test_priorities_are_read() -> None:
    """A range and a word, with commas between them."""
    assert parse_priorities("3=high, 5-7=LOW,9=normal") == (((3, 3), HIGH), ((5, 7), LOW), ((9, 9), NORMAL))


@pytest.mark.parametrize("text", ["", "3", "3=", "=high", "3=urgent", "3=unwanted", "3=high,", "x=low", "3=high=low"])
def test_what_is_no_priority_is_refused(text: str) -> None:
    """`unwanted` too: what is wanted is --select-file's business."""
    with pytest.raises(ValueError, match="as in"):
        parse_priorities(text)


# --- files ------------------------------------------------------------------------------------------------


def test_without_a_word_everything_is_wanted() -> None:
    """Nothing selected is everything."""
    assert FileSelection().resolve(entries(1, 2, 3)) == (NORMAL, NORMAL, NORMAL)


def test_priorities_order_the_selected_files_and_add_none() -> None:
    """The last word on a file counts."""
    selection = FileSelection(parse_ranges("1,3-4"), parse_priorities("1-4=low,3=high"))
    assert selection.resolve(entries(1, 1, 1, 1, 1)) == (LOW, UNWANTED, HIGH, LOW, UNWANTED)


@pytest.mark.parametrize("text", ["4", "1-4", "9"])
def test_a_file_that_does_not_exist_is_refused(text: str) -> None:
    """The message names a number that is wrong, for a selection and for a priority."""
    number = "9" if text == "9" else "4"
    with pytest.raises(SelectionError, match=f"no file {number}: the torrent has 3"):
        FileSelection(parse_ranges(text)).resolve(entries(1, 2, 3))
    with pytest.raises(SelectionError, match=f"no file {number}: the torrent has 3"):
        FileSelection((), parse_priorities(f"{text}=high")).resolve(entries(1, 2, 3))


def test_padding_goes_with_the_file_before_it() -> None:
    """It has a number as in aria2, which neither selects nor excludes it."""
    files = entries(7, 3, 5, 5, 9, padding=(2, 4))
    assert FileSelection(parse_ranges("3,2")).resolve(files) == (UNWANTED, UNWANTED, NORMAL, NORMAL, UNWANTED)
    with pytest.raises(SelectionError, match="padding"):
        FileSelection(parse_ranges("2")).resolve(files)


# --- pieces -----------------------------------------------------------------------------------------------


def test_all_pieces_of_all_files_are_on_one_level() -> None:
    """Without a choice the levels change nothing, padding and empty files included."""
    files = entries(0, 25, 5, 0, 31, 30, padding=(3, 6))
    wanted = wanted_pieces(files, FileSelection().resolve(files), PIECE)
    assert [members(level) for level in wanted.levels] == [list(range(10))]
    assert not wanted.surplus


def test_a_torrent_of_empty_files_has_no_pieces() -> None:
    """There is no level at all then."""
    files = entries(0, 0)
    assert wanted_pieces(files, FileSelection().resolve(files), PIECE) == ((), {})


def test_pieces_on_the_edge_are_wanted_with_a_surplus() -> None:
    """A middle file of three: its first and last piece hold bytes of its neighbours."""
    files = entries(25, 20, 25)
    wanted = wanted_pieces(files, FileSelection(parse_ranges("2")).resolve(files), PIECE)
    assert [members(level) for level in wanted.levels] == [[2, 3, 4]]
    assert wanted.surplus == {2: 5, 4: 5}


def test_one_piece_may_hold_many_unwanted_files() -> None:
    """Their bytes add up."""
    files = entries(2, 2, 2, 2, 12)
    wanted = wanted_pieces(files, FileSelection(parse_ranges("3")).resolve(files), PIECE)
    assert [members(level) for level in wanted.levels] == [[0]]
    assert wanted.surplus == {0: 8}


def test_a_piece_is_as_urgent_as_its_most_urgent_file() -> None:
    """High before normal before low, each piece once."""
    files = entries(25, 20, 25)
    priorities = FileSelection((), parse_priorities("1=low,3=high")).resolve(files)
    levels = wanted_pieces(files, priorities, PIECE).levels
    assert [members(level) for level in levels] == [[4, 5, 6], [2, 3], [0, 1]]


def test_the_ends_of_wanted_files_come_first() -> None:
    """Above high priority; not those of unwanted files."""
    files = entries(40, 40, 40)
    priorities = FileSelection(parse_ranges("1,3"), parse_priorities("3=high")).resolve(files)
    levels = wanted_pieces(files, priorities, PIECE, first_last=True).levels
    assert [members(level) for level in levels] == [[0, 3, 8, 11], [9, 10], [1, 2]]
