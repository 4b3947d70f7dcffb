"""When the data of a torrent is synced, and what its state file says of that."""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_peer import torrent_of
from tests.support import payload, wait_until
from torrent_client import inventory
from torrent_client.config import Config
from torrent_client.download_options import DownloadOptions
from torrent_client.inventory import QUICKLY_SYNCED, Inventory
from torrent_client.piece_manager import PieceManager
from torrent_client.storage import Storage

PIECE = 1000
DATA = payload(3 * PIECE)
TORRENT = torrent_of(DATA, piece_length=PIECE)
MEMINFO = inventory.unwritten_bytes  # before `idle_disk`


class Run:
    """One run of the client, as far as it concerns what is on disk."""

    def __init__(self, folder: Path) -> None:
        options = DownloadOptions(folder / "out", state_directory=folder / "state")
        self.storage = Storage(options.output, TORRENT.files, PIECE)
        self.pieces = PieceManager(TORRENT.piece_hashes, PIECE, len(DATA), Config(), random.Random(1))
        self.inventory = Inventory(TORRENT, options, self.storage, self.pieces, lambda: False)
        self.inventory.take(lambda: None)
        self._states = folder / "state"

    def write(self, *indices: int) -> None:
        """Get pieces."""
        for index in indices:
            self.storage.write_piece(index, DATA[index * PIECE : (index + 1) * PIECE])
            self.pieces.mark_complete(index)

    def says_synced(self) -> bool:
        """Tell what the state file says."""
        [path] = self._states.glob("*.json")
        value = json.loads(path.read_text())["synced"]
        assert isinstance(value, bool)
        return value

    def end(self) -> None:
        """Save, and leave nothing open."""
        self.inventory.save_at_end(0, 10)
        self.storage.close()
        self.inventory.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a first run, which has nothing yet."""
    run = Run(tmp_path)
    yield run
    run.end()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the system have much to write."""
    monkeypatch.setattr(inventory, "unwritten_bytes", lambda: QUICKLY_SYNCED + 1)
    return monkeypatch


def test_the_end_syncs_what_the_system_has_nearly_written(run: Run) -> None:
    """So that the state holds after a power cut."""
    run.write(0)
    run.inventory.save_at_end(0, 10)
    assert run.says_synced()


def test_the_end_does_not_wait_for_a_gigabyte(run: Run, busy: pytest.MonkeyPatch) -> None:
    """The state says that it is not synced; it is believed until the next start of the computer."""
    run.write(0, 1, 2)
    busy.setattr(os, "fsync", lambda _descriptor: pytest.fail("synced"))
    run.inventory.save_at_end(0, 10)
    assert not run.says_synced()


def test_a_torrent_that_is_done_is_synced_when_the_system_has_nearly_written_it(
    run: Run, busy: pytest.MonkeyPatch
) -> None:
    """In the background; the save after that says so, though no piece and no byte is new."""
    run.write(0, 1, 2)
    run.inventory.save(0)
    assert not run.storage.is_syncing
    busy.setattr(inventory, "unwritten_bytes", lambda: QUICKLY_SYNCED)
    run.inventory.save(0)
    wait_until(lambda: run.storage.is_synced)
    assert not run.says_synced()
    run.inventory.save(0)
    assert run.says_synced()


def test_a_download_under_way_is_not_synced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next piece would undo it."""
    run.write(0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: pytest.fail("synced"))
        run.inventory.save(0)
    assert not run.says_synced()


def test_a_sync_under_way_is_waited_for_at_the_end(run: Run, busy: pytest.MonkeyPatch) -> None:
    """For the process could not end before it anyway."""
    run.write(0, 1, 2)
    run.storage.sync_within(0)
    run.inventory.save_at_end(0, 10)
    assert run.storage.is_synced
    assert run.says_synced()


def test_what_an_earlier_run_did_not_sync_is_synced_by_this_one(tmp_path: Path, busy: pytest.MonkeyPatch) -> None:
    """To have believed a state does not make it safe."""
    first = Run(tmp_path)
    first.write(0, 1, 2)
    first.end()
    second = Run(tmp_path)
    assert second.pieces.is_complete
    assert not second.storage.is_synced
    busy.setattr(inventory, "unwritten_bytes", lambda: 0)
    second.end()
    assert second.says_synced()
    third = Run(tmp_path)
    assert third.storage.is_synced
    third.end()


def test_a_first_run_looks_at_no_file_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing that anybody wrote before; with many files each look would hold up the start."""
    monkeypatch.setattr(Storage, "doubt_sync", lambda _storage: pytest.fail("looked"))
    Run(tmp_path).end()


def test_files_that_were_hashed_count_as_unsynced(tmp_path: Path) -> None:
    """Somebody may have copied them there a moment ago."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TORRENT.files[0].path).write_bytes(DATA)
    run = Run(tmp_path)
    assert run.pieces.is_complete
    assert not run.storage.is_synced
    run.end()
    assert run.says_synced()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what it has yet to write")
def test_what_is_yet_to_be_written_is_what_the_system_says() -> None:
    """In kilobytes of 1,024 bytes, of which it has some at nearly all times."""
    assert 0 <= MEMINFO() < 1 << 45
    assert MEMINFO() % 1024 == 0


def test_a_system_that_does_not_tell_has_nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the time limit of the end is what holds."""

    def fail(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert MEMINFO() == 0
