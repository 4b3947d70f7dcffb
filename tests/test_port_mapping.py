"""Asking routers for a port: what is said, what is taken back, and that nothing waits for it."""

import builtins
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import wait_until
from tests.upnp_router import LOOPBACK, Mapping, Router
from torrent_client import session as session_module
from torrent_client.cli.arguments import parse
from torrent_client.cli.get import config_of
from torrent_client.config import Config
from torrent_client.errors import PortMappingError
from torrent_client.port_mapping import LEASE, PortMapper, PortMapStatus, UpnpGateway, find_upnp_gateway
from torrent_client.session import Session

PORT = 6881
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="multicast on the loopback interface, as on Linux")


class FakeGateway:
    """A gateway in memory.

    Args:
        refuses: protocols that it does not map.
    """

    def __init__(self, *refuses: str, address: str = "8.8.4.4") -> None:
        self.refuses = set(refuses)
        self.address = address
        self.mapped: set[tuple[int, str]] = set()
        self.asked: list[str] = []

    def external_address(self) -> str:
        """Return the address, or fail for want of one."""
        if not self.address:
            raise PortMappingError("it does not say")
        return self.address

    def map(self, port: int, protocol: str, lease: int) -> None:
        """Map, or refuse."""
        self.asked.append(protocol)
        assert lease == LEASE
        if protocol in self.refuses:
            raise PortMappingError("no")
        self.mapped.add((port, protocol))

    def unmap(self, port: int, protocol: str) -> None:
        """Take it back."""
        self.mapped.remove((port, protocol))
        if protocol in self.refuses:
            raise PortMappingError("no")


def none() -> FakeGateway:
    """Find nothing."""
    raise PortMappingError("no router")


def test_tcp_and_udp_are_mapped_and_taken_back() -> None:
    """Peers come by TCP, the DHT by UDP; at the end the router is as it was."""
    gateway = FakeGateway()
    mapper = PortMapper(PORT, lambda: gateway)
    mapper.start()
    wait_until(lambda: mapper.status.state == "mapped")
    assert gateway.mapped == {(PORT, "TCP"), (PORT, "UDP")}
    assert mapper.status == PortMapStatus("mapped", PORT, "8.8.4.4")
    assert str(mapper.status) == "mapped to 8.8.4.4:6881"
    mapper.begin_stop()
    mapper.finish_stop()
    assert not gateway.mapped
    assert mapper.status == PortMapStatus("off")


def test_a_mapping_is_renewed_before_its_lease_is_over() -> None:
    """At the same gateway, which is not searched for again."""
    searches: list[FakeGateway] = []

    def find() -> FakeGateway:
        searches.append(FakeGateway())
        return searches[-1]

    mapper = PortMapper(PORT, find)
    assert mapper.attempt() < LEASE
    assert mapper.attempt() < LEASE
    assert [gateway.asked for gateway in searches] == [["TCP", "UDP"] * 2]


def test_a_gateway_that_is_lost_is_searched_for_again() -> None:
    """A router that was restarted may have another address."""
    first, second = FakeGateway(), FakeGateway()
    gateways = iter([first, second])
    mapper = PortMapper(PORT, lambda: next(gateways))
    mapper.attempt()
    first.refuses = {"TCP"}
    assert mapper.attempt() == 60
    assert mapper.status.state == "failing"
    mapper.attempt()
    assert mapper.status.state == "mapped"
    assert second.mapped


def test_without_a_gateway_it_is_looked_for_less_and_less_often() -> None:
    """A router does not appear every minute."""
    mapper = PortMapper(PORT, none)
    assert [mapper.attempt() for _ in range(4)] == [60, 600, 3600, 3600]
    assert mapper.status == PortMapStatus("no gateway", error="no router")
    assert str(mapper.status) == "not mapped: no router"


def test_without_udp_peers_still_get_in() -> None:
    """It is mapped, and said what is wrong."""
    mapper = PortMapper(PORT, lambda: FakeGateway("UDP"))
    mapper.attempt()
    assert str(mapper.status) == "mapped to 8.8.4.4:6881; without UDP: no"


@pytest.mark.parametrize("address", ["192.168.0.2", "100.64.1.1"])
def test_a_router_behind_another_one_is_told(address: str) -> None:
    """Its own address is no public one: double NAT, or the provider's."""
    mapper = PortMapper(PORT, lambda: FakeGateway(address=address))
    mapper.attempt()
    assert "the router is behind another one" in str(mapper.status)


@pytest.mark.parametrize("address", ["", "\x1b[2J"])
def test_an_address_that_is_none_is_not_shown(address: str) -> None:
    """A router is a stranger, too."""
    mapper = PortMapper(PORT, lambda: FakeGateway(address=address))
    mapper.attempt()
    assert str(mapper.status) == "mapped to the router:6881"


def test_a_refusal_at_the_end_holds_nothing_up() -> None:
    """What the router keeps it forgets when the lease is over."""
    gateway = FakeGateway()
    mapper = PortMapper(PORT, lambda: gateway)
    mapper.start()
    wait_until(lambda: mapper.status.state == "mapped")
    gateway.refuses = {"TCP"}
    mapper.begin_stop()
    mapper.finish_stop()
    assert not gateway.mapped


def test_stopping_does_not_wait_for_a_search() -> None:
    """The search goes on behind our back, and what it finds is not used."""
    searching, found = threading.Event(), threading.Event()
    gateway = FakeGateway()

    def find() -> FakeGateway:
        searching.set()
        found.wait(10)
        return gateway

    mapper = PortMapper(PORT, find)
    mapper.start()
    assert searching.wait(10)
    assert mapper.status == PortMapStatus("searching")
    started = time.monotonic()
    mapper.begin_stop()
    mapper.finish_stop()
    assert time.monotonic() - started < 1
    assert mapper.status == PortMapStatus("off")
    found.set()
    mapper._thread.join()
    assert not gateway.mapped
    assert mapper.status == PortMapStatus("off")


def test_a_bug_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """And ends the mapping alone."""

    def broken() -> FakeGateway:
        raise RuntimeError("oops")

    mapper = PortMapper(PORT, broken)
    mapper.start()
    mapper._thread.join()
    assert "oops" in str(mapper.status)
    assert "port mapping failed" in caplog.text


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional."""
    real_import: Callable[..., Any] = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401  # passed on
        if name == "miniupnpc":
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PortMappingError, match="miniupnpc is not installed"):
        find_upnp_gateway()


@pytest.mark.parametrize(("switches", "expected"), [([], True), (["--no-portmap"], False)])
@pytest.mark.parametrize("command", [["a.torrent"], ["seed", "a.torrent", "--data", "a"]])
def test_the_command_line_maps_unless_told_not_to(command: list[str], switches: list[str], expected: bool) -> None:
    """As people expect of a client; everything else has to ask for it."""
    assert config_of(parse([*command, *switches])).portmap is expected
    assert not Config().portmap


# --- through miniupnpc, with a router on the loopback interface -------------------------------------------


@pytest.fixture
def gateway() -> Callable[[Router], UpnpGateway]:
    """Return what finds the router of a test."""
    pytest.importorskip("miniupnpc")
    return lambda _router: find_upnp_gateway(LOOPBACK)


@only_linux
def test_a_router_is_found_and_maps(gateway: Callable[[Router], UpnpGateway]) -> None:
    """By multicast, as at home."""
    with Router() as router:
        found = gateway(router)
        assert found.external_address() == "8.8.4.4"
        found.map(PORT, "TCP", LEASE)
        assert router.mappings == {(PORT, "TCP"): Mapping(LOOPBACK, PORT, LEASE)}
        found.unmap(PORT, "TCP")
        assert not router.mappings
        router.only_permanent = True
        found.map(PORT, "UDP", LEASE)
        assert router.mappings == {(PORT, "UDP"): Mapping(LOOPBACK, PORT, 0)}
        router.refuses = {"TCP": (718, "ConflictInMappingEntry")}
        with pytest.raises(PortMappingError, match="another machine; --port chooses another one"):
            found.map(PORT, "TCP", LEASE)
        router.refuses = {"TCP": (606, "Action not authorized")}
        with pytest.raises(PortMappingError, match="the router refuses: "):
            found.map(PORT, "TCP", LEASE)


@only_linux
def test_a_session_maps_its_port_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From start to stop, for peers and for the DHT."""
    pytest.importorskip("miniupnpc")
    monkeypatch.setattr(session_module, "find_upnp_gateway", find_upnp_gateway)
    config = Config(listen_port=0, socket_tick=0.1, portmap=True, portmap_interface=LOOPBACK)
    with Router() as router:
        with Session(config) as session:
            wait_until(lambda: session.portmap.state == "mapped")
            assert router.mappings.keys() == {(session.port, "TCP"), (session.port, "UDP")}
            assert session.portmap.as_values() == {
                "state": "mapped",
                "external_port": session.port,
                "external_address": "8.8.4.4",
                "error": None,
            }
        assert not router.mappings


@pytest.mark.parametrize(
    "config", [Config(listen_port=0), Config(listen_port=0, portmap=True, proxy="socks5://127.0.0.1:9")]
)
def test_nothing_is_asked_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """A lesson does not touch the network, and with a proxy nothing may go past it."""
    monkeypatch.setattr(session_module, "find_upnp_gateway", lambda _interface: pytest.fail("it searches"))
    with Session(config) as session:
        assert session.portmap == PortMapStatus("off")
        assert str(session.portmap) == "not mapped"


def test_a_network_without_a_router_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library itself would say `Success`."""
    pytest.importorskip("miniupnpc")
    monkeypatch.setattr("torrent_client.port_mapping.SEARCH_MILLISECONDS", 50)
    with pytest.raises(PortMappingError, match="no router that maps ports"):
        find_upnp_gateway(LOOPBACK)
