"""What becomes of everything that passes, once somebody traces: lines, events, packets.

    trace (who tells) --> Tracer --> lines on the screen        --trace
                                 --> events, one JSON a line    --trace-file X.jsonl
                                 --> packets for Wireshark      --trace-pcap X.pcap

Spec: none; the events say where each message is specified.
Thread: any.
Lock: `Tracer._lock`, around the writing of one event, so that events do not mix.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Any, Final, Protocol, TextIO
from urllib.parse import urlsplit, urlunsplit

from torrent_client.errors import HandshakeError, ProtocolViolation
from torrent_client.protocol.describe import (
    Description,
    describe,
    describe_handshake,
    describe_http_answer,
    describe_http_request,
    describe_krpc,
    describe_udp_tracker,
    extension_numbers,
)
from torrent_client.protocol.messages import HANDSHAKE_LENGTH, Handshake, MessageReader
from torrent_client.text import printable

logger = logging.getLogger(__name__)

HTTP_END: Final = ("127.0.0.1", 40_000)
"""Our end of an HTTP exchange in a capture: the library does not tell, and any will do."""

MAX_MESSAGE: Final = 1 << 24
"""Bytes of a message that is still taken for one; a trace follows what the connection accepted already."""


MAX_TIME: Final = 1e11
"""Seconds since 1970 in a trace file at most: year 5138, which clocks can still show."""

MAX_TEXT: Final = 10_000
"""Characters of a text in a trace file that are shown."""


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
        """Read a line of a trace file, which may be a stranger's: what cannot be shown is replaced.

        Raises:
            ValueError: it is no such line.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            fields = [(_shown(name), _shown(words), _shown(data)) for name, words, data in value.pop("fields")]
            clock, size = float(value.pop("time")), int(value.pop("size", 0))
            texts = {name: _shown(words) for name, words in value.items()}
            if not 0 <= clock < MAX_TIME:
                raise ValueError(f"the time {clock}")
            return cls(time=clock, size=size, fields=fields, **texts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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

    def datagram(self, kind: str, ours: tuple[str, int], theirs: tuple[str, int], data: bytes, *, sent: bool) -> None:
        """Tell of a UDP datagram.

        Args:
            kind: `tracker` or `dht`.
            ours: our address and port.
            theirs: those of the other side.
            data: all of it.
            sent: by us.
        """
        what = describe_krpc(data) if kind == "dht" else describe_udp_tracker(data, is_request=sent)
        self.emit(kind, f"{theirs[0]}:{theirs[1]}", "sent" if sent else "received", what)
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

    def http(self, url: str, status: str, body: bytes) -> None:
        """Tell of a request over HTTP and its answer.

        Args:
            url: that was asked.
            status: `200 OK`.
            body: of the answer.
        """
        parts = urlsplit(url)
        remote = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        self.emit("tracker", remote, "sent", describe_http_request(parts.path, parts.query, len(request)))
        self.emit("tracker", remote, "received", describe_http_answer(status, body))
        stream = object()

        def keep(packets: Packets) -> None:
            packets.opened(stream, HTTP_END, (parts.hostname or "", parts.port or 80), outgoing=True)
            packets.data(stream, request, sent=True)
            packets.data(stream, answer, sent=False)
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


def _shown(text: object) -> str:
    return printable(str(text), MAX_TEXT)


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
