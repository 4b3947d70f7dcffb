"""The table of open files: what is kept, what is closed and when, and that no link leads out of the root."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from torrent_client.errors import StorageError
from torrent_client.open_files import SHARES, Access, OpenFiles, share_out
from torrent_client.torrent_parser import FileEntry

FILES = [FileEntry(PurePosixPath(f"d/e/{number}"), 10, 10 * number) for number in range(5)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where the files lie; nothing is there yet."""
    return tmp_path / "deep" / "out"


@pytest.fixture
def table(root: Path) -> Iterator[OpenFiles]:
    """Return a table for five files of which two are kept open."""
    files = OpenFiles(root, FILES, 2)
    yield files
    files.close()


def make(table: OpenFiles, *numbers: int) -> None:
    """Make files that are there."""
    for number in numbers:
        with table.lend(number, Access.CREATE):
            pass


def open_below(folder: Path) -> list[str]:
    """Return the names of the files that this process has open below a folder, in order."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    targets = (os.readlink(link) for link in links if os.path.lexists(link))
    return sorted(os.path.relpath(target, folder) for target in targets if target.startswith(str(folder)))


def test_files_are_made_with_their_directories_and_the_root(table: OpenFiles, root: Path) -> None:
    """Only when asked for; no descriptor of a directory stays behind."""
    with pytest.raises(FileNotFoundError), table.lend(0, Access.WRITE):
        pass
    assert not root.exists()
    make(table, 0)
    with pytest.raises(FileNotFoundError), table.lend(1, Access.WRITE):
        pass
    assert open_below(root) == ["d/e/0"]


def test_the_least_recently_used_file_falls_out(table: OpenFiles, root: Path) -> None:
    """To use a file counts, not to open it."""
    make(table, 0, 1, 0, 2)
    assert open_below(root) == ["d/e/0", "d/e/2"]


def test_the_process_limit_is_shared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process may have few files, a torrent keeps fewer than it is allowed."""
    for soft, kept in ((3 * SHARES + 1, 3), (resource.RLIM_INFINITY, 5)):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, soft=soft: (soft, 1_000_000))
        table = OpenFiles(root, FILES, 500)
        make(table, 0, 1, 2, 3, 4)
        assert open_below(root) == [f"d/e/{number}" for number in range(5 - kept, 5)]
        table.close()


@pytest.mark.parametrize(
    ("soft", "hard", "torrents", "asked", "share"),
    [
        (1024, 1_000_000, 1, [(4000, 1_000_000)], 500),
        (1024, resource.RLIM_INFINITY, 1, [(4000, resource.RLIM_INFINITY)], 500),
        (1024, 2048, 1, [(2048, 2048)], 256),
        (1024, 1024, 4, [], 128),
        (1024, 1024, 32, [], 16),
        (1024, 1_000_000, 32, [(32_000, 1_000_000)], 500),
        (20_000, 20_000, 8, [], 500),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 8, [], 500),
    ],
)
def test_the_process_limit_is_raised_as_far_as_needed_and_allowed_and_shared_out(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, torrents: int, asked: list[tuple[int, int]], share: int
) -> None:
    """It is never lowered, and however many torrents there are, half of it is left for peers."""
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: done[-1] if done else (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: done.append(limits))
    assert share_out(500, torrents) == share
    assert done == asked


def test_a_system_that_gives_no_more_files_leaves_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have limits above the limits."""

    def refuse(_kind: int, _limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert share_out(500, 1) == 32


def test_too_many_open_files_close_those_that_nobody_uses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has too many; the one in use stays, and the second attempt succeeds."""
    table = OpenFiles(root, FILES, 5)
    make(table, 0, 1, 2)
    system_open, failures = os.open, [OSError(errno.EMFILE, "Too many open files")]

    def fail_once(*arguments: Any, **options: Any) -> int:  # noqa: ANN401  # handed on as they are
        if failures:
            raise failures.pop()
        return system_open(*arguments, **options)

    used = table.borrow(1, Access.READ)
    monkeypatch.setattr(os, "open", fail_once)
    make(table, 3)
    assert open_below(root) == ["d/e/1", "d/e/3"]
    table.give_back(used)
    table.close()


def test_too_many_open_files_of_others_are_an_error(table: OpenFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is nothing of ours to close, it is told."""

    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        table.borrow(0, Access.CREATE)


def test_a_file_that_is_forgotten_while_in_use_is_closed_by_its_last_user(table: OpenFiles, root: Path) -> None:
    """And not before."""
    make(table, 0)
    first, second = table.borrow(0, Access.READ), table.borrow(0, Access.READ)
    table.forget(0)
    table.give_back(first)
    assert open_below(root) == ["d/e/0"]
    table.give_back(second)
    assert not open_below(root)


def test_whether_a_file_still_has_a_name(table: OpenFiles, root: Path) -> None:
    """Both of open files and of others; to ask opens nothing."""
    make(table, 0, 1, 2)
    assert [table.exists(number) for number in range(4)] == [True, True, True, False]
    for number in range(3):
        (root / "d" / "e" / str(number)).unlink()
    (root / "d" / "e" / "2").write_bytes(b"another one")
    assert [table.exists(number) for number in range(3)] == [False, False, False]
    table.close()
    assert table.exists(2)


def test_what_is_only_to_be_read_is_not_written(root: Path) -> None:
    """Whatever a bug elsewhere asks for."""
    table = OpenFiles(root, FILES, 2, read_only=True)
    for access in (Access.WRITE, Access.CREATE):
        with pytest.raises(StorageError, match="only to be read"):
            table.borrow(0, access)
    assert not root.exists()


def test_a_link_that_stays_within_the_root_is_the_users(table: OpenFiles, root: Path) -> None:
    """A directory that was moved to another place in the output directory is found there."""
    (root / "moved").mkdir(parents=True)
    (root / "d").symlink_to("moved")
    make(table, 0)
    assert (root / "moved" / "e" / "0").is_file()


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("name", ["d", "d/e"])
def test_a_directory_that_becomes_a_link_while_a_file_is_opened_leads_nowhere(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, name: str, access: Access
) -> None:
    """Somebody exchanges a directory at the worst moment: nothing is made or opened where the link leads."""
    outside = tmp_path / "outside"
    (outside / "e").mkdir(parents=True)
    (outside / "0").write_bytes(b"precious")
    (outside / "e" / "0").write_bytes(b"precious")
    (root / "d" / "e").mkdir(parents=True)
    realpath, asked = os.path.realpath, []

    def exchange_afterwards(path: Path) -> str:
        """Say where a path leads, and make that untrue."""
        asked.append(path)
        real = realpath(path)
        if len(asked) == 1:
            (root / "good").rename(root / "old")
            (root / "good").symlink_to(outside)
        return real

    monkeypatch.setattr(os.path, "realpath", exchange_afterwards)
    (root / name).rename(root / "good")
    (root / name).symlink_to(root / "good")
    table = OpenFiles(root, FILES, 2)
    with pytest.raises((OSError, StorageError)):
        table.borrow(0, access)
    assert asked
    assert sorted(path.name for path in outside.rglob("*")) == ["0", "0", "e"]
    assert not open_below(tmp_path)
