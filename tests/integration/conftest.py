"""Every test in this folder talks to other programs: it says so, and it leaves none of them running."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, so that `-m "not real_peer"` leaves them out."""
    only_linux = pytest.mark.skipif(sys.platform != "linux", reason="peers need all of 127.0.0.0/8, as on Linux")
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.real_peer)
            item.add_marker(only_linux)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail the test that leaves a program running."""
    us = psutil.Process()
    before = set(us.children(recursive=True))
    yield
    if left := set(us.children(recursive=True)) - before:
        pytest.fail(f"left running by this test: {sorted(map(str, left))}", pytrace=False)


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Return an empty folder to download to."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder
