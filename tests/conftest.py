"""Fixtures for every test, and the guard that no test leaves a thread, a socket or a file behind.

Exceptions in threads and in destructors need no fixture: pytest turns them into warnings when the test that
they belong to ends, and pyproject.toml turns every warning into a failure.
"""

import gc
import random
import signal
import zlib
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests.support import FakeClock, OpenResources, leaks_since, payload
from torrent_client.errors import PortMappingError
from torrent_client.local_discovery import LocalDiscovery
from torrent_client.port_mapping import Gateway

# A loaded machine makes single examples slow; pytest-timeout is what stops a test that hangs.
hypothesis.settings.register_profile("repository", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("repository")

# A shell's background jobs ignore Ctrl-C, and so would every program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the directory whose modules `tests/milestones` checks, instead of this project's own."""
    parser.addoption("--student", metavar="DIR", help="check the modules in this directory against the guide's tasks")


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test that leaves a thread, a socket or a file open; runs after its other fixtures ended."""
    before = OpenResources.now()
    yield
    # Young garbage only, which is what one test makes: an unclosed socket in a reference cycle is then
    # reported for this test and not for one that runs later. Under 1 ms; a full collection takes 20 ms.
    gc.collect(1)
    if leaks := leaks_since(before):
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def no_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test ask the router of the network that it runs in."""

    def none(_interface: str) -> Gateway:
        raise PortMappingError("none in tests")

    for module in ("session", "doctor.examination"):
        monkeypatch.setattr(f"torrent_client.{module}.find_upnp_gateway", none)


@pytest.fixture(autouse=True)
def idle_disk(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system have nothing to write, whatever other processes of this machine do; undone before `no_leaks`."""
    monkeypatch.setattr("torrent_client.inventory.unwritten_bytes", lambda: 0)


class QuietDiscovery(LocalDiscovery):
    """Neither announces nor listens."""

    def start(self) -> None:
        """Join no group."""


@pytest.fixture(autouse=True)
def no_local_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test tell the network that it runs in of its torrents."""
    monkeypatch.setattr("torrent_client.local_discovery.LocalDiscovery", QuietDiscovery)


@pytest.fixture(autouse=True)
def no_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test ask the public DHT."""
    monkeypatch.setattr("torrent_client.dht.node.DHT_ROUTERS", ())


@pytest.fixture(name="payload")
def payload_fixture() -> Callable[[int, int], bytes]:
    """Return `payload(size, seed=0)`, the maker of repeatable pseudo-random bytes."""
    return payload


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return a random generator with a seed of this test's own, shown when the test fails."""
    seed = zlib.crc32(request.node.nodeid.encode())
    request.node.add_report_section("setup", "rng", f"random.Random({seed})")
    return random.Random(seed)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that only the test moves."""
    return FakeClock()
