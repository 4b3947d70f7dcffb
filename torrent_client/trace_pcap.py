"""Writes what passed as a capture file: packets that Wireshark opens and dissects, as if it had listened.

    file header 24 | packet header 16, IP header 20 or 40, TCP header 20 or UDP header 8, data | ...

The packets are made up around the bytes that the client sent and received: in clear even where the connection was
encrypted, without retransmissions, and without checksums (as with a network card that computes them itself).

Spec: the pcap file format (LINKTYPE_RAW), RFC 791, 8200, 9293, 768.
Thread: any; one at a time, which the tracer sees to.
Lock: none.
"""

import ipaddress
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

MAGIC: Final = 0xA1B2C3D4
"""Says: microseconds, in the byte order of these four bytes."""

LINKTYPE_RAW: Final = 101
"""Packets begin with their IP header."""

MAX_SEGMENT: Final = 32 * 1024
"""Bytes of data in one made-up packet: an IP packet has 65,535 at most."""

_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_TCP, _UDP = 6, 17


@dataclass(slots=True)
class _Stream:
    """A TCP connection: both ends, and the next sequence number of each."""

    ours: tuple[str, int]
    theirs: tuple[str, int]
    sent: int = 1
    received: int = 1


class PcapWriter:
    """Writes a capture.

    Args:
        file: opened for writing, in binary.
        clock: seconds since 1970.
    """

    def __init__(self, file: BinaryIO, clock: Callable[[], float] = time.time) -> None:
        """Write the file's header."""
        self._file = file
        self._clock = clock
        self._streams: dict[object, _Stream] = {}
        file.write(struct.pack("<IHHiIII", MAGIC, 2, 4, 0, 0, 262_144, LINKTYPE_RAW))

    def opened(self, stream: object, ours: tuple[str, int], theirs: tuple[str, int], *, outgoing: bool) -> None:
        """Write the three packets that open a TCP connection."""
        state = _Stream(ours, theirs)
        self._streams[stream] = state
        self._segment(state, b"", sent=outgoing, flags=_SYN, sequence=0, acknowledged=0)
        self._segment(state, b"", sent=not outgoing, flags=_SYN | _ACK, sequence=0, acknowledged=1)
        self._segment(state, b"", sent=outgoing, flags=_ACK, sequence=1, acknowledged=1)

    def data(self, stream: object, data: bytes, *, sent: bool) -> None:
        """Write bytes of a connection, as one or more packets."""
        state = self._streams.get(stream)
        if state is None:
            return
        for start in range(0, len(data), MAX_SEGMENT):
            part = data[start : start + MAX_SEGMENT]
            sequence, acknowledged = (state.sent, state.received) if sent else (state.received, state.sent)
            self._segment(state, part, sent=sent, flags=_PSH | _ACK, sequence=sequence, acknowledged=acknowledged)
            if sent:
                state.sent += len(part)
            else:
                state.received += len(part)

    def closed(self, stream: object) -> None:
        """Write the packets that end a connection."""
        state = self._streams.pop(stream, None)
        if state:
            self._segment(state, b"", sent=True, flags=_FIN | _ACK, sequence=state.sent, acknowledged=state.received)
            self._segment(
                state, b"", sent=False, flags=_FIN | _ACK, sequence=state.received, acknowledged=state.sent + 1
            )

    def datagram(self, ours: tuple[str, int], theirs: tuple[str, int], data: bytes, *, sent: bool) -> None:
        """Write a UDP datagram."""
        source, target = (ours, theirs) if sent else (theirs, ours)
        header = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0)
        self._packet(source[0], target[0], _UDP, header + data)

    def _segment(
        self, state: _Stream, data: bytes, *, sent: bool, flags: int, sequence: int, acknowledged: int
    ) -> None:
        source, target = (state.ours, state.theirs) if sent else (state.theirs, state.ours)
        numbers = (sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF)
        header = struct.pack(">HHIIBBHHH", source[1], target[1], *numbers, 5 << 4, flags, 65_535, 0, 0)
        self._packet(source[0], target[0], _TCP, header + data)

    def _packet(self, source: str, target: str, protocol: int, payload: bytes) -> None:
        packet = _ip_header(source, target, protocol, len(payload)) + payload
        now = self._clock()
        head = struct.pack("<IIII", int(now), int(now % 1 * 1_000_000), len(packet), len(packet))
        self._file.write(head + packet)


def _ip_header(source: str, target: str, protocol: int, length: int) -> bytes:
    """Return the header of an IP packet; IPv6 if one of the ends is."""
    ends = _address(source), _address(target)
    if any(end.version == 6 for end in ends):
        packed = [end.packed if end.version == 6 else bytes(10) + b"\xff\xff" + end.packed for end in ends]
        return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + packed[0] + packed[1]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, protocol, 0) + ends[0].packed + ends[1].packed
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack(">H", checksum) + header[12:]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address; that of a host name is not known any more, and shows as 0.0.0.0."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ipaddress.IPv4Address(0)
    return getattr(address, "ipv4_mapped", None) or address
