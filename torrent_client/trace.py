"""Where the other modules tell what passes, if anybody traces; `tracer` makes something of it.

    PeerConnection.handshake, .receive ---> follow(...) ---> StreamTrace.sent, .received, .closed
    PeerWriter ----------------------------------------+
    TrackerClient -------------------------> http_exchange(...)
    UdpTrackerClient, DHT -----------------> datagram(...)

Like logging it is there for the whole process. While it is off it costs one look at a variable for each connection,
and one for each datagram; the modules that describe messages are not even loaded.

Spec: none.
Thread: any.
Lock: none; the variable is set before and after everything else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol


class Ends(Protocol):
    """A connected socket, or what stands in its place: it knows both its ends."""

    def getsockname(self) -> tuple[str, int]:
        """Return our end."""

    def getpeername(self) -> tuple[str, int]:
        """Return the other end."""


class StreamTrace(Protocol):
    """Follows one connection; the reader and the writer each tell their own direction."""

    def shook_hands(self, ours: bytes, theirs: bytes, *, outgoing: bool) -> None:
        """Tell of both handshakes, in the order in which they passed."""

    def sent(self, *buffers: bytes | memoryview) -> None:
        """Tell of bytes that go out."""

    def received(self, data: bytes | memoryview) -> None:
        """Tell of bytes that came."""

    def closed(self, reason: str) -> None:
        """Tell that the connection has ended."""


class AnyTracer(Protocol):
    """What is told: see `tracer.Tracer`, which says more."""

    def stream(self, remote: str, ours: tuple[str, int], theirs: tuple[str, int], *, outgoing: bool) -> StreamTrace:
        """Begin to follow a connection to a peer."""

    def datagram(self, kind: str, ours: tuple[str, int], theirs: tuple[str, int], data: bytes, *, sent: bool) -> None:
        """Tell of a UDP datagram."""

    def http(self, url: str, status: str, body: bytes) -> None:
        """Tell of a request over HTTP and its answer."""


NOWHERE: Final = ("0.0.0.0", 0)
"""Both ends of a connection that does not know them any more."""

_active: AnyTracer | None = None


@contextmanager
def tracing(tracer: AnyTracer | None) -> Iterator[None]:
    """Trace everything that begins inside the block; None traces nothing."""
    global _active  # noqa: PLW0603 - there is one trace, as there is one log
    before, _active = _active, tracer
    try:
        yield
    finally:
        _active = before


def is_on() -> bool:
    """Tell whether anybody traces."""
    return _active is not None


def follow(sock: Ends, address: object, *, outgoing: bool) -> StreamTrace | None:
    """Begin to follow a connection to a peer; None while nobody traces.

    Args:
        sock: connected.
        address: what to call the peer.
        outgoing: whether we dialled.
    """
    if _active is None:
        return None
    try:
        ours, theirs = sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError:  # it has hung up already; what it said is still of interest
        ours, theirs = NOWHERE, NOWHERE
    return _active.stream(str(address), ours, theirs, outgoing=outgoing)


def datagram(
    kind: Literal["tracker", "dht"],
    ours: Callable[[], tuple[str, int]],
    theirs: tuple[str, int],
    data: bytes,
    *,
    sent: bool,
) -> None:
    """Tell of a UDP datagram.

    Args:
        kind: what it belongs to.
        ours: returns our address and port; asked only if anybody traces.
        theirs: address and port of the other side.
        data: all of it.
        sent: by us.
    """
    if _active is not None:
        _active.datagram(kind, ours()[:2], theirs[:2], data, sent=sent)


def http_exchange(url: str, status: str, body: bytes) -> None:
    """Tell of a request over HTTP and its answer.

    Args:
        url: that was asked.
        status: `200 OK`.
        body: of the answer.
    """
    if _active is not None:
        _active.http(url, status, body)
