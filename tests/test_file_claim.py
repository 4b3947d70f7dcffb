"""A second process that would write the same files."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.fake_peer import metainfo
from tests.support import payload, running_client, wait_until
from torrent_client.errors import TorrentConflict
from torrent_client.file_claim import FileClaim


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file."""
    file = tmp_path / "a\nb.iso"
    file.write_bytes(b"x")
    return file


def test_of_two_claims_the_second_is_refused_until_the_first_is_released(path: Path) -> None:
    """The message names the file, harmlessly, and what to do."""
    first, second = FileClaim(path), FileClaim(path)
    first.take()
    with pytest.raises(TorrentConflict, match=r"b\.iso: stop it, or choose another directory with -o") as caught:
        second.take()
    assert "\n" not in str(caught.value)
    first.release()
    second.take()
    second.release()


def test_claiming_again_keeps_the_claim(path: Path) -> None:
    """It does not open the file twice."""
    claim, other = FileClaim(path), FileClaim(path)
    claim.take()
    claim.take()
    with pytest.raises(TorrentConflict):
        other.take()
    claim.release()
    claim.release()


def test_the_file_that_is_in_its_place_now_is_what_counts(path: Path) -> None:
    """A stranger's file was renamed, and ours made in its place."""
    claim = FileClaim(path)
    claim.take()
    path.rename(path.with_name("old"))
    claim.take()
    path.write_bytes(b"new")
    claim.take()
    with pytest.raises(TorrentConflict):
        FileClaim(path).take()
    old = FileClaim(path.with_name("old"))
    old.take()
    old.release()
    claim.release()


@pytest.mark.parametrize("kind", ["missing", "link", "pipe"])
def test_what_is_no_file_is_not_claimed(tmp_path: Path, kind: str) -> None:
    """Nor waited for; the storage refuses it with a reason."""
    path = tmp_path / "odd"
    if kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(path)
    claim = FileClaim(path)
    claim.take()
    claim.release()


def test_a_file_system_without_locks_is_no_obstacle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network shares have none."""

    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    FileClaim(path).take()


def test_a_second_process_says_so_and_touches_nothing(tmp_path: Path) -> None:
    """Whatever its state directory is; when the first has ended, it may begin."""
    data = payload(100_000)
    source = tmp_path / "file.torrent"
    source.write_bytes(metainfo(data, 16_384, "file.bin"))
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    out = tmp_path / "out"
    with running_client(tmp_path / "one", source, out, "--port", "0") as first:
        wait_until((out / "file.bin").exists)
        wait_until(lambda: any(report["state"] == "downloading" for report in first.reports()))
        with running_client(tmp_path / "two", source, out, "--port", "0") as second:
            assert second.wait(20) == 2
        assert "another process of this client is using" in second.last_report()["error"]
        assert [entry.name for entry in out.iterdir()] == ["file.bin"]
    with running_client(tmp_path / "three", source, out, "--port", "0") as third:
        wait_until(lambda: any(report["state"] == "downloading" for report in third.reports()))
