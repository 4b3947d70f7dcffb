"""The state file: what it remembers, when it is believed, and that no damage to it does harm."""

import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_peer import torrent_of
from tests.support import payload
from torrent_client import resume
from torrent_client.bitfield import Bitfield
from torrent_client.errors import StorageError
from torrent_client.resume import ResumeData, ResumeFile, format_ranges, parse_ranges
from torrent_client.storage import Storage
from torrent_client.torrent_parser import TorrentFile

PIECE = 1000
FIELDS = ["info_hash", "pieces", "completed", "files", "boot", "synced", "uploaded", "downloaded"]
TORRENT = torrent_of({"one": payload(2500), "empty": b"", "two": payload(2500, 1)}, piece_length=PIECE, name="d")


class Place:
    """A torrent's output directory and state file."""

    def __init__(self, folder: Path, torrent: TorrentFile = TORRENT, output: str = "out") -> None:
        self.storage = Storage(folder / output, torrent.files, torrent.piece_length)
        self.state = ResumeFile(folder / "state", torrent, folder / output)

    def save(self, *pieces: int, synced: bool = True) -> None:
        """Save these pieces as complete."""
        bits = sum(1 << index for index in pieces)
        self.state.save(Bitfield(TORRENT.piece_count, bits), self.storage, 111, 222, synced=synced)

    def load(self) -> ResumeData:
        """Load a state that must be there."""
        state = self.state.load()
        assert state is not None
        return state

    def change(self, **changes: object) -> None:
        """Change fields of the saved state."""
        value = json.loads(self.state.path.read_text())
        self.state.path.write_text(json.dumps(value | changes))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place with the torrent's files in it."""
    place = Place(tmp_path)
    place.storage.preallocate()
    place.storage.close()
    return place


# --- what it remembers ------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(place: Place) -> None:
    """Pieces, totals, and the stamp of every file, empty ones too."""
    place.save(0, 1, 4)
    state = place.load()
    assert list(state.completed) == [0, 1, 4]
    assert (state.uploaded, state.downloaded, state.trusted) == (111, 222, True)
    assert state.stamps == {str(file.path): place.storage.stamp(file) for file in TORRENT.files}


def test_there_is_no_state_before_the_first_save(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A new download is no reason for a warning."""
    assert place.state.load() is None
    assert not caplog.records


def test_a_file_that_is_missing_has_no_stamp(place: Place) -> None:
    """It is simply not in the list, so that it never looks unchanged."""
    place.storage.path(TORRENT.files[0]).unlink()
    place.save(3)
    assert set(place.load().stamps) == {"d/empty", "d/two"}


def test_each_output_directory_has_its_own_state(tmp_path: Path) -> None:
    """The same torrent downloaded to two places is two downloads."""
    first, second = Place(tmp_path, output="a"), Place(tmp_path, output="b")
    first.save(0)
    second.save(1)
    assert list(first.load().completed) == [0]
    assert list(second.load().completed) == [1]


def test_the_same_directory_by_another_name_has_the_same_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute, through a link: resuming works however the directory is written."""
    Place(tmp_path).save(2)
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(tmp_path / "out")
    for output in (Path(), Path("../out"), tmp_path / "link"):
        state = ResumeFile(tmp_path / "state", TORRENT, output).load()
        assert state is not None
        assert list(state.completed) == [2]


# --- when it is believed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synced", "boot_now", "trusted"),
    [(True, "same", True), (True, "another", True), (False, "same", True), (False, "another", False)],
)
def test_unsynced_data_is_not_trusted_after_a_restart_of_the_computer(
    place: Place, monkeypatch: pytest.MonkeyPatch, synced: bool, boot_now: str, trusted: bool
) -> None:
    """A power cut may have lost data that the state says is there; after a mere crash of ours it is there."""
    monkeypatch.setattr(resume, "_boot_id", lambda: "same")
    place.save(0, synced=synced)
    monkeypatch.setattr(resume, "_boot_id", lambda: boot_now)
    assert place.load().trusted is trusted


def test_the_boot_id_is_the_systems() -> None:
    """It stays the same while the computer runs."""
    assert resume._boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_state_of_another_torrent_is_ignored(place: Place) -> None:
    """Whoever copies or renames state files harms nobody."""
    place.save(0)
    place.change(info_hash="00" * 20)
    assert place.state.load() is None


def test_a_state_with_another_number_of_pieces_is_ignored(place: Place) -> None:
    """The same hash with other pieces cannot be."""
    place.save(0)
    place.change(pieces=6)
    assert place.state.load() is None


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"completed": "0-9"},
        {"completed": "3-1"},
        {"completed": "-1"},
        {"completed": "x"},
        {"completed": 5},
        {"completed": ["0"]},
        {"files": 5},
        {"files": [["a", 1]]},
        {"files": [["a", 1, None]]},
        {"files": [[1, "x", 2]]},
        {"files": [["a", 1e400, 0]]},
        {"uploaded": "much"},
        {"uploaded": None},
        {"downloaded": float("inf")},
        {"downloaded": float("nan")},
    ],
)
def test_fields_of_a_wrong_kind_make_a_state_unusable(
    place: Place, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    """The files are hashed again, which is told; nothing crashes."""
    place.save(0)
    place.change(**change)
    assert place.state.load() is None
    assert "hashed again" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"[" * 100_000, b'{"info_hash": 1' + b"0" * 5000 + b"}"],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_state_is_ignored(place: Place, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """Cut short, other JSON, other bytes, nested without end."""
    place.save(0)
    place.state.path.write_bytes(content)
    assert place.state.load() is None
    assert "hashed again" in caplog.text


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_makes_a_state_unusable(place: Place, field: str) -> None:
    """Whichever it is, unless the data needs no trust."""
    place.save(0, synced=False)
    value = json.loads(place.state.path.read_text())
    del value[field]
    place.state.path.write_text(json.dumps(value))
    assert place.state.load() is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(field=st.sampled_from(FIELDS), value=json_values)
def test_any_value_in_any_field_is_survived(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    """A state or None, whatever stands in the file."""
    place = Place(tmp_path_factory.getbasetemp() / "any value")
    place.save(0)
    place.change(**{field: value})
    logging.disable()
    try:
        state = place.state.load()
    finally:
        logging.disable(logging.NOTSET)
    assert state is None or state.completed.size == TORRENT.piece_count


# --- saving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_last_one(place: Place, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The disk is full: the old state is still whole, and the error says what failed."""

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place.save(0)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match="cannot save the state"):
        place.save(0, 1)
    monkeypatch.undo()
    assert list(place.load().completed) == [0]
    assert [path.suffix for path in place.state.path.parent.iterdir()] == [".json"]


@pytest.mark.parametrize("synced", [False, True])
def test_a_state_is_forced_to_the_disk_if_it_is_to_outlive_a_power_cut(
    place: Place, monkeypatch: pytest.MonkeyPatch, synced: bool
) -> None:
    """One that will not be believed after it need not be waited for."""
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", forced.append)
    place.save(0, synced=synced)
    assert bool(forced) is synced
    assert place.load().synced is synced


def test_a_state_that_cannot_be_written_anywhere_is_a_storage_error(tmp_path: Path) -> None:
    """There is a file where the directory of states should be."""
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StorageError, match="cannot save the state"):
        Place(tmp_path).save(0)


# --- ranges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "text"),
    [([], ""), ([0], "0"), ([0, 1], "0-1"), ([0, 1, 4], "0-1,4"), ([1, 3, 5, 6, 7], "1,3,5-7"), (range(9), "0-8")],
)
def test_ranges_are_short_text(pieces: list[int], text: str) -> None:
    """Neighbours become one range."""
    bitfield = Bitfield(9, sum(1 << index for index in pieces))
    assert format_ranges(bitfield) == text
    assert parse_ranges(text, 9) == bitfield


@given(st.integers(0, 200).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, 2**size - 1))))
def test_every_set_of_pieces_survives_the_round_trip(case: tuple[int, int]) -> None:
    """Format and parse are inverse."""
    bitfield = Bitfield(*case)
    assert parse_ranges(format_ranges(bitfield), bitfield.size) == bitfield


@pytest.mark.parametrize("text", ["9", "0-9", "2-1", "-1", ",", "0,,1", "a", "0-1-2", "0x1"])
def test_what_are_no_ranges_is_refused(text: str) -> None:
    """Pieces that do not exist, and text that means nothing."""
    with pytest.raises(ValueError, match=r"."):
        parse_ranges(text, 9)


def test_many_ranges_take_linear_time() -> None:
    """Every other one of 200,000 pieces, the worst case; it takes 0.05 s of processor, and quadratic time 1 s."""
    bitfield = Bitfield(200_000, int("01" * 100_000, 2))
    text = format_ranges(bitfield)
    begin = time.thread_time()
    assert parse_ranges(text, 200_000) == bitfield
    assert time.thread_time() - begin < 0.5
