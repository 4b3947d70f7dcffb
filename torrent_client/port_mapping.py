"""Asks the router to let peers in: our port, TCP for peers and UDP for the DHT, on the router's public address.

    us                                  router (UPnP internet gateway)
    who is a gateway? (multicast) ---->
    <---------------------------------- I am, see http://192.168.1.1:5000/root.xml
    AddPortMapping 6881 TCP, UDP ----->                                            198.51.100.7:6881 --> us
      ... again before an hour has passed ...
    DeletePortMapping ---------------->                                            as it was

Nothing waits for it: without a gateway the client works as before, and peers that cannot call us are called by us.
The search takes some seconds in a C library and cannot be interrupted; a stop leaves it behind.

Spec: UPnP InternetGatewayDevice, through `miniupnpc`, which need not be installed.
Thread: `portmap`, one a session; public methods from any.
Lock: none; the status is one value, which is replaced.
"""

import ipaddress
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Final, NamedTuple, Protocol

from torrent_client.errors import PortMappingError
from torrent_client.text import printable

logger = logging.getLogger(__name__)

PROTOCOLS: Final = ("TCP", "UDP")

LEASE: Final = 3600
"""Seconds after which the router forgets a mapping by itself, should we have no time to say so. libtorrent 3600."""

RENEW_AFTER: Final = LEASE * 0.75
"""Seconds after which it is asked again: a router that was restarted has forgotten earlier, but not for long."""

RETRY_DELAYS: Final = (60.0, 600.0, 3600.0)
"""Seconds before the next search after the first, second ... that found nothing."""

SEARCH_MILLISECONDS: Final = 2000
"""How long routers have to answer a search; the UPnP standard lets them wait for up to three seconds, few do."""

UNMAP_LIMIT: Final = 1.5
"""Seconds that the end of the program waits for the router. What it then keeps it forgets when the lease is over."""

DOUBLE_NAT: Final = "that is no public address: the router is behind another one, and peers may not get through"

DESCRIPTION: Final = "torrent-client"


class PortMapStatus(NamedTuple):
    """What is known of the mapping.

    Attributes:
        state: `off`, `searching`, `mapped`, `no gateway` or `failing`.
        external_port: on the router, once mapped.
        external_address: the router's own, once mapped.
        error: why not, or what is wrong although it is mapped.
    """

    state: str = "off"
    external_port: int | None = None
    external_address: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        """Return it in words, for the display."""
        if self.state == "mapped":
            text = f"mapped to {self.external_address or 'the router'}:{self.external_port}"
            return f"{text}; {self.error}" if self.error else text
        if self.state in ("no gateway", "failing"):
            return f"not mapped: {self.error}"
        return {"searching": "looking for a router", "off": "not mapped"}[self.state]

    def as_values(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""
        return self._asdict()


class Gateway(Protocol):
    """A router that maps ports; every method may take seconds and raise PortMappingError."""

    def external_address(self) -> str:
        """Return its public address."""

    def map(self, port: int, protocol: str, lease: int) -> None:
        """Lead a port, `TCP` or `UDP`, to the same port of ours, for `lease` seconds."""

    def unmap(self, port: int, protocol: str) -> None:
        """Take that back."""


class PortMapper:
    """Keeps one port mapped until it is stopped.

    Args:
        port: ours, and the router's.
        find: searches for a gateway; takes its time, and raises PortMappingError.
        clock: monotonic seconds.
    """

    def __init__(self, port: int, find: Callable[[], Gateway], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing; `start` begins to search."""
        self.status = PortMapStatus()
        self._port = port
        self._find = find
        self._clock = clock
        self._gateway: Gateway | None = None
        self._mapped: list[str] = []
        self._failures = 0
        self._stopping = Event()
        self._stop_by = 0.0
        self._thread = Thread(target=self._run, name="portmap", daemon=True)

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self.status = PortMapStatus("searching")
        self._thread.start()

    def begin_stop(self) -> None:
        """Let the thread take the mapping back and end; returns at once."""
        self._stop_by = self._clock() + UNMAP_LIMIT
        self._stopping.set()
        if not self._mapped:
            self.status = PortMapStatus()

    def finish_stop(self) -> None:
        """Wait for that, unless there is nothing to take back, and not for long."""
        if self._mapped and self._thread.ident is not None:
            self._thread.join(max(0.0, self._stop_by - self._clock()))

    # --- its thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        """Map, wait, map again; at the end take it back."""
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self.attempt())
            self._unmap()
        except Exception as error:
            logger.exception("port mapping failed")
            self.status = PortMapStatus("failing", error=f"internal error: {error!r}")

    def attempt(self) -> float:
        """Map the port, or renew that; return the seconds until the next attempt."""
        try:
            self._gateway = self._gateway or self._find()
            error = None if self._stopping.is_set() else self._map(self._gateway)
        except PortMappingError as failure:
            self._failures += 1
            state = "failing" if self._gateway else "no gateway"
            log = logger.info if self._failures == 1 else logger.debug
            log("port %d is not mapped: %s", self._port, failure)
            self.status = PortMapStatus(state, error=str(failure))
            self._gateway = None
            return RETRY_DELAYS[min(self._failures, len(RETRY_DELAYS)) - 1]
        self._failures = 0
        if self._mapped:
            address = self._external_address()
            if address and not ipaddress.ip_address(address).is_global:
                error = error or DOUBLE_NAT
            self.status = PortMapStatus("mapped", self._port, address, error)
        return RENEW_AFTER

    def _map(self, gateway: Gateway) -> str | None:
        """Map for all protocols; peers need TCP, and without UDP return what is wrong with it."""
        error = None
        for protocol in PROTOCOLS:
            try:
                gateway.map(self._port, protocol, LEASE)
            except PortMappingError as failure:
                if protocol == "TCP":
                    raise
                error = f"without UDP: {failure}"
                continue
            if protocol not in self._mapped:
                self._mapped.append(protocol)
                logger.info("port %d is mapped for %s", self._port, protocol)
        return error

    def _external_address(self) -> str | None:
        assert self._gateway is not None
        with suppress(PortMappingError, ValueError):
            return str(ipaddress.ip_address(self._gateway.external_address()))
        return None

    def _unmap(self) -> None:
        """Take all mappings back."""
        for protocol in self._mapped:
            if self._gateway:
                with suppress(PortMappingError):
                    self._gateway.unmap(self._port, protocol)
        self._mapped.clear()
        self.status = PortMapStatus()


class UpnpGateway:
    """A UPnP internet gateway.

    Args:
        client: miniupnpc's, after it has chosen a device.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401  # the library has no types
        self._client = client

    def external_address(self) -> str:
        """Return its public address.

        Raises:
            PortMappingError: it does not say.
        """
        return str(_asked(self._client.externalipaddress))

    def map(self, port: int, protocol: str, lease: int) -> None:
        """Lead a port to the same port of ours; for ever, where it knows no leases.

        Raises:
            PortMappingError: it refuses, because the port is another machine's, say.
        """
        arguments = (port, protocol, self._client.lanaddr, port, DESCRIPTION, "")
        try:
            _asked(self._client.addportmapping, *arguments, lease)
        except PortMappingError as error:
            if "OnlyPermanentLeases" not in str(error):
                raise
            _asked(self._client.addportmapping, *arguments, 0)

    def unmap(self, port: int, protocol: str) -> None:
        """Take that back.

        Raises:
            PortMappingError: it refuses.
        """
        _asked(self._client.deleteportmapping, port, protocol)


def find_upnp_gateway(interface: str = "") -> UpnpGateway:
    """Search the local network for a router.

    Args:
        interface: address of the interface to search on; the system chooses by default.

    Raises:
        PortMappingError: there is none, or the library is not installed.
    """
    try:
        import miniupnpc  # here, because it is optional
    except ImportError as error:
        raise PortMappingError("miniupnpc is not installed; pip install miniupnpc") from error
    options = {"multicastif": interface} if interface else {}
    client = miniupnpc.UPnP(discoverdelay=SEARCH_MILLISECONDS, **options)
    try:
        client.discover()
        client.selectigd()
    except Exception as error:  # the library raises nothing more telling: `Success`, for one
        raise PortMappingError("no router that maps ports (UPnP) was found") from error
    return UpnpGateway(client)


def _asked(method: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401  # passed on
    """Ask the router, and turn what the library raises into an error of ours."""
    try:
        answer = method(*arguments)
    except Exception as error:
        reason = _REASONS.get(str(error), printable(str(error), 100))
        raise PortMappingError(f"the router refuses: {reason}") from error
    if not answer:
        raise PortMappingError("the router refuses, and does not say why")
    return answer


_REASONS: Final = {
    "ConflictInMappingEntry": "the port is mapped to another machine; --port chooses another one",
    "Action Not Authorized": "it allows nobody to map ports",
    "Not Authorized": "it allows nobody to map ports",
}
