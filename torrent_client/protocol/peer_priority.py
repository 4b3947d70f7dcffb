"""Which of many peers to prefer: a number that both ends of a connection come to, and that nobody can choose.

    priority = crc32c(the two masked addresses, the smaller one first)

    us 123.213.32.10, a peer 98.76.54.32:    both & ff.ff.55.55    624c1400 7bd50000    -> ec2d7224
    in one /16: ff.ff.ff.55, in one /24: all of it

If every peer of a swarm keeps those of high priority, newcomers have as good a chance as those who came early, and who
has a thousand addresses in one network gets no more of us than that network's share.

Spec: BEP 40.
Thread: pure.
Lock: none.
"""

import ipaddress
from typing import Final

POLYNOMIAL: Final = 0x82F63B78
"""Of CRC-32C (Castagnoli), with its bits in reverse order; `zlib.crc32` has another one."""

IPV4_BYTES: Final = 2
IPV6_BYTES: Final = 6
"""Leading bytes of an address that always count in full: /16 and /48."""

PARTIAL: Final = 0x55
"""Mask of the bytes behind them: half of their bits, so that addresses of one network share few priorities."""


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = [_table_entry(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes, 32 bits."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def peer_priority(ours: tuple[str, int], theirs: tuple[str, int]) -> int | None:
    """Return the priority of a connection, 32 bits; the same from both ends.

    Args:
        ours: the address that the peer sees us at, as text, and our port.
        theirs: the peer's.

    Returns:
        None where there is none: a host name, or one address of IPv4 and one of IPv6.
    """
    try:
        one, other = (_packed(host) for host, _ in (ours, theirs))
    except ValueError:
        return None
    if len(one) != len(other):
        return None
    if one == other:
        parts = [port.to_bytes(2, "big") for _, port in (ours, theirs)]
    else:
        same = next(index for index, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)
        full = max(IPV4_BYTES if len(one) == 4 else IPV6_BYTES, same + 1)
        parts = [_masked(address, full) for address in (one, other)]
    return crc32c(b"".join(sorted(parts)))


def _packed(host: str) -> bytes:
    ip = ipaddress.ip_address(host)
    return (getattr(ip, "ipv4_mapped", None) or ip).packed


def _masked(address: bytes, full: int) -> bytes:
    """Keep the first `full` bytes, and half of the bits of those behind them."""
    return address[:full] + bytes(byte & PARTIAL for byte in address[full:])
