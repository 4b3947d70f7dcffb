"""A trace of everything that passes: peer messages, trackers, DHT; for lessons, and for looking into a bug.

    socket --> PeerConnection --+
    socket <-- PeerWriter ------+--> Tracer --> lines on the screen        --trace
    TrackerClient --------------+           --> events, one JSON a line    --trace-file X.jsonl
    DHT, UDP trackers ----------+           --> packets for Wireshark      --trace-pcap X.pcap

Like logging it is there for the whole process: `tracing` switches it on, and whoever has something to tell asks
`active()` once, at the beginning of a connection. While it is off, that is all it costs.

Spec: none; the events say where each message is specified.
Thread: any.
Lock: `Tracer._lock`, around the writing of one event, so that events do not mix.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Any, Final, Protocol, TextIO

from torrent_client.errors import HandshakeError, ProtocolViolation
from torrent_client.protocol.bencode import BencodeValue
from torrent_client.protocol.describe import Description, describe, describe_handshake, extension_numbers, show_value
from torrent_client.protocol.messages import HANDSHAKE_LENGTH, Handshake, MessageReader
from torrent_client.text import printable

logger = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1 << 24
"""Bytes of a message that is still taken for one; a trace follows what the connection accepted already."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that passed.

    Attributes:
        time: seconds since 1970.
        kind: `peer`, `tracker` or `dht`.
        remote: `host:port`, or the tracker's URL.
        direction: `sent` or `received`; `opened` and `closed` for the ends of a connection.
        name: of the message.
        fields: name, value in words and bytes in hex of each.
        meaning: a sentence.
        spec: where it is specified.
        size: bytes on the wire.
    """

    time: float
    kind: str
    remote: str
    direction: str
    name: str
    fields: list[tuple[str, str, str]] = field(default_factory=list)
    meaning: str = ""
    spec: str = ""
    size: int = 0

    @classmethod
    def from_json(cls, text: str) -> "TraceEvent":
        """Read a line of a trace file.

        Raises:
            ValueError: it is no such line.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            fields = [(str(name), str(shown), str(data)) for name, shown, data in value.pop("fields")]
            return cls(**value, fields=fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a trace event: {error}") from error


class Packets(Protocol):
    """Takes what passed as it would have been on the wire: see `trace_pcap`."""

    def opened(self, stream: object, ours: tuple[str, int], theirs: tuple[str, int], *, outgoing: bool) -> None:
        """A TCP connection."""

    def data(self, stream: object, data: bytes, *, sent: bool) -> None:
        """Bytes on it."""

    def closed(self, stream: object) -> None:
        """Its end."""

    def datagram(self, ours: tuple[str, int], theirs: tuple[str, int], data: bytes, *, sent: bool) -> None:
        """A UDP datagram."""


class Tracer:
    """Gives each event to those who want it.

    Args:
        sinks: called with each event.
        packets: takes the bytes themselves.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        sinks: Sequence[Callable[[TraceEvent], None]],
        packets: Packets | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing passed."""
        self._sinks = list(sinks)
        self._packets = packets
        self._clock = clock
        self._lock = Lock()

    def emit(self, kind: str, remote: str, direction: str, what: Description) -> None:
        """Tell of something that passed."""
        fields = [(name, shown, data.hex()) for name, shown, data in what.fields]
        self._give(
            TraceEvent(self._clock(), kind, remote, direction, what.name, fields, what.meaning, what.spec, what.size)
        )

    def note(self, kind: str, remote: str, direction: str, name: str, meaning: str = "") -> None:
        """Tell of the beginning or the end of something."""
        self._give(TraceEvent(self._clock(), kind, remote, direction, name, meaning=meaning))

    def dictionary(
        self,
        kind: str,
        remote: str,
        *,
        sent: bool,
        name: str,
        value: Mapping[bytes, BencodeValue] | Mapping[str, str],
        size: int,
        spec: str,
    ) -> None:
        """Tell of a message that is a bencoded dictionary, or a few named values.

        Args:
            kind: `tracker` or `dht`.
            remote: `host:port`, or a URL.
            sent: by us.
            name: of the message.
            value: its fields.
            size: bytes on the wire.
            spec: where it is specified.
        """
        fields = [
            (
                printable(key, 40),
                printable(item, 300) if isinstance(item, str) else show_value(item),
                "",
            )
            for key, item in value.items()
        ]
        direction = "sent" if sent else "received"
        self._give(TraceEvent(self._clock(), kind, remote, direction, name, fields, "", spec, size))

    def datagram(self, ours: tuple[str, int], theirs: tuple[str, int], data: bytes, *, sent: bool) -> None:
        """Keep a UDP datagram for Wireshark."""
        self._keep(lambda packets: packets.datagram(ours, theirs, data, sent=sent))

    def stream(self, remote: str, ours: tuple[str, int], theirs: tuple[str, int], *, outgoing: bool) -> "StreamTrace":
        """Begin to follow a connection to a peer.

        Args:
            remote: what to call the peer.
            ours: our address and port.
            theirs: those of the peer.
            outgoing: whether we dialled.
        """
        self.note("peer", remote, "opened", "connection", "we dialled" if outgoing else "it dialled us")
        trace = StreamTrace(self, remote)
        self._keep(lambda packets: packets.opened(trace, ours, theirs, outgoing=outgoing))
        return trace

    def http(self, url: str, theirs: tuple[str, int], request: bytes, response: bytes) -> None:
        """Keep an HTTP exchange for Wireshark."""
        stream, ours = object(), ("0.0.0.0", _port_of(url))

        def keep(packets: Packets) -> None:
            packets.opened(stream, ours, theirs, outgoing=True)
            packets.data(stream, request, sent=True)
            packets.data(stream, response, sent=False)
            packets.closed(stream)

        self._keep(keep)

    def stream_data(self, trace: "StreamTrace", data: bytes, *, sent: bool) -> None:
        """Keep bytes of a connection for Wireshark."""
        self._keep(lambda packets: packets.data(trace, data, sent=sent))

    def stream_closed(self, trace: "StreamTrace", remote: str, reason: str) -> None:
        """Tell of the end of a connection."""
        self.note("peer", remote, "closed", "connection", reason)
        self._keep(lambda packets: packets.closed(trace))

    def _keep(self, write: Callable[[Packets], None]) -> None:
        """Let packets be written, if there is a capture."""
        with self._lock:
            self._write_packets(write)

    def _give(self, event: TraceEvent) -> None:
        with self._lock:
            self._write_event(event)

    # What cannot be written any more, because nobody reads it or the disk is full, is given up: the client goes on.

    def _write_packets(self, write: Callable[[Packets], None]) -> None:
        if self._packets:
            try:
                write(self._packets)
            except OSError as error:
                logger.warning("the capture ends: %s", error.strerror)
                self._packets = None

    def _write_event(self, event: TraceEvent) -> None:
        for sink in list(self._sinks):
            try:
                sink(event)
            except OSError as error:
                logger.warning("the trace ends: %s", error.strerror)
                self._sinks.remove(sink)


class _Direction:
    """The messages of one direction of a connection, cut out of its bytes."""

    def __init__(self) -> None:
        self._handshake = b""
        self._reader = MessageReader(MAX_MESSAGE)
        self._is_broken = False

    def describe(
        self, data: bytes, extensions: dict[int, str], on_numbers: Callable[[dict[int, str]], None]
    ) -> Iterator[Description]:
        """Give what is whole now."""
        if len(self._handshake) < HANDSHAKE_LENGTH:
            missing = HANDSHAKE_LENGTH - len(self._handshake)
            self._handshake, data = self._handshake + data[:missing], data[missing:]
            if len(self._handshake) < HANDSHAKE_LENGTH:
                return
            try:
                yield describe_handshake(Handshake.decode(self._handshake))
            except HandshakeError:
                self._is_broken = True
        position = 0
        while position < len(data) and not self._is_broken:
            room = self._reader.writable()
            part = data[position : position + len(room)]
            room[: len(part)] = part
            position += len(part)
            try:
                whole = self._reader.received(len(part))
            except ProtocolViolation:
                self._is_broken = True  # the connection ends for the same reason
                return
            for message in whole:
                numbers = extension_numbers(message)
                if numbers is not None:
                    on_numbers(numbers)
                yield describe(message, extensions)


class StreamTrace:
    """Follows one connection; the reader and the writer each tell their own direction."""

    def __init__(self, tracer: Tracer, remote: str) -> None:
        """Begin before the handshake."""
        self._tracer = tracer
        self._remote = remote
        self._directions = {"sent": _Direction(), "received": _Direction()}
        self._numbers: dict[str, dict[int, str]] = {"sent": {}, "received": {}}  # as the receiver wants them

    def shook_hands(self, ours: bytes, theirs: bytes, *, outgoing: bool) -> None:
        """Tell of both handshakes, in the order in which they passed."""
        for is_ours in (outgoing, not outgoing):
            if is_ours:
                self.sent(ours)
            else:
                self.received(theirs)

    def sent(self, *buffers: bytes | memoryview) -> None:
        """Tell of bytes that go out."""
        self._follow("sent", "received", b"".join(buffers))

    def received(self, data: bytes | memoryview) -> None:
        """Tell of bytes that came."""
        self._follow("received", "sent", bytes(data))

    def closed(self, reason: str) -> None:
        """Tell that the connection has ended."""
        self._tracer.stream_closed(self, self._remote, reason)

    def _follow(self, direction: str, back: str, data: bytes) -> None:
        def on_numbers(numbers: dict[int, str]) -> None:
            self._numbers[back].update(numbers)

        self._tracer.stream_data(self, data, sent=direction == "sent")
        for what in self._directions[direction].describe(data, self._numbers[direction], on_numbers):
            self._tracer.emit("peer", self._remote, direction, what)


class Ends(Protocol):
    """A connected socket, or what stands in its place: it knows both its ends."""

    def getsockname(self) -> tuple[str, int]:
        """Return our end."""

    def getpeername(self) -> tuple[str, int]:
        """Return the other end."""


def follow(sock: Ends, address: object, *, outgoing: bool) -> StreamTrace | None:
    """Begin to follow a connection to a peer; None while nobody traces.

    Args:
        sock: connected.
        address: what to call the peer.
        outgoing: whether we dialled.
    """
    if _active is None:
        return None
    ours, theirs = sock.getsockname()[:2], sock.getpeername()[:2]
    return _active.stream(str(address), ours, theirs, outgoing=outgoing)


_active: Tracer | None = None


def active() -> Tracer | None:
    """Return the tracer, or None while nobody traces."""
    return _active


@contextmanager
def tracing(tracer: Tracer | None) -> Iterator[None]:
    """Trace everything that begins inside the block; None traces nothing."""
    global _active  # noqa: PLW0603 - there is one trace, as there is one log
    before, _active = _active, tracer
    try:
        yield
    finally:
        _active = before


def write_jsonl(file: TextIO) -> Callable[[TraceEvent], None]:
    """Return a sink that writes each event as a line of JSON."""

    def write(event: TraceEvent) -> None:
        file.write(json.dumps(asdict(event)) + "\n")

    return write


def write_lines(file: TextIO) -> Callable[[TraceEvent], None]:
    """Return a sink that writes each event for people."""

    def write(event: TraceEvent) -> None:
        file.write(line_of(event) + "\n")
        file.flush()

    return write


def line_of(event: TraceEvent) -> str:
    """Return an event in two lines: what passed, and what it means."""
    arrow = {"sent": "-->", "received": "<--"}.get(event.direction, "   ")
    clock = time.strftime("%H:%M:%S", time.localtime(event.time)) + f".{int(event.time * 1000) % 1000:03}"
    fields = "  ".join(
        f"{name} {shown}" + (f" [{data}{'…' if len(data) >= 32 and name in LONG_FIELDS else ''}]" if data else "")
        for name, shown, data in event.fields
    )
    name = f"{event.direction} {event.name}" if arrow == "   " else event.name
    head = f"{clock} {arrow} {printable(event.remote, 80):<22} {name}"
    first = f"{head:<62} {fields}".rstrip()
    spec = f"({event.spec})" if event.spec and event.spec not in event.meaning else ""
    about = "  ".join(filter(None, (event.meaning, spec)))
    return f"{first}\n{'':<16} {about}" if about else first


LONG_FIELDS: Final = frozenset({"bits", "block", "dictionary", "data", "payload"})
"""Fields of which only the first bytes are kept."""


def _port_of(url: str) -> int:
    return 40_000 + sum(url.encode()) % 20_000  # our side's port is not known, and any will do
