"""Ids of nodes: how far they are from each other, and how an id follows from an address.

    distance     the exclusive or of two ids, read as a number: ids that begin with the same bits are near
    id           | 21 bits of a checksum of the address and r | random bits | last byte: r in its low 3 bits |

An id that follows from the address keeps somebody with one address from settling right beside any info hash
that he wants to watch. It is a rule among strangers: on a local network nobody asks.

Spec: BEP 5 (distance), 42 (ids from addresses).
Thread: pure.
Lock: none.
"""

import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

ID_BITS: Final = 160

_MASKS: Final = {4: 0x030F3FFF, 8: 0x0103070F1F3F7FFF}
"""Which bits of an address count, by the bytes of it that are looked at: all of IPv4, the network half of IPv6."""

_CRC32C_POLYNOMIAL: Final = 0x82F63B78


def distance(first: bytes, second: bytes) -> int:
    """Return how far two ids of 20 bytes are apart."""
    return int.from_bytes(first) ^ int.from_bytes(second)


def common_bits(first: bytes, second: bytes) -> int:
    """Return how many bits two ids of 20 bytes have in common at their beginning, 0 to 160."""
    return ID_BITS - distance(first, second).bit_length()


def random_id(rng: random.Random, near: bytes = b"", bits: int = 0) -> bytes:
    """Return a random id.

    Args:
        rng: source of randomness.
        near: an id with which it is to have exactly `bits` bits in common, 0 to 159; empty for any.
        bits: see above.
    """
    value = rng.getrandbits(ID_BITS)
    if near:
        rest = ID_BITS - bits - 1
        value = (int.from_bytes(near) ^ (1 << rest)) >> rest << rest | value & (1 << rest) - 1
    return value.to_bytes(ID_BITS // 8)


def id_for_address(host: str, rng: random.Random) -> bytes:
    """Return a new id that fits an address, as everybody else sees it."""
    r = rng.getrandbits(8)
    middle = rng.getrandbits(ID_BITS)
    prefix = _prefix(host, r)
    value = middle & (1 << 139) - 1 & ~0xFF | prefix << 139 | r
    return value.to_bytes(ID_BITS // 8)


def fits_address(node_id: bytes, host: str) -> bool:
    """Tell whether a node's id follows from its address; always true on local networks."""
    if not is_public(host):
        return True
    return int.from_bytes(node_id) >> 139 == _prefix(host, node_id[-1])


def is_public(host: str) -> bool:
    """Tell whether an address is one of the internet, and not of a local network or of this machine."""
    return ip_address(host).is_global and not ip_address(host).is_multicast


def may_tell(teller: str, host: str) -> bool:
    """Tell whether a node at one address may speak of another: of its own kind, or of a more public one.

    A stranger on the internet that names 192.168.1.1 wants us to send something to our own router.
    """
    return _reach(host) >= _reach(teller)


def _reach(host: str) -> int:
    """Return how far an address reaches: this machine 1, a local network 2, the internet 3, nowhere 0."""
    address: IPv4Address | IPv6Address = ip_address(host)
    if address.is_multicast or address.is_unspecified or host == "255.255.255.255":
        return 0
    if address.is_loopback:
        return 1
    return 3 if address.is_global else 2


def _prefix(host: str, r: int) -> int:
    """Return the 21 bits with which the id of a node at an address begins."""
    packed = ip_address(host).packed
    looked_at = packed if len(packed) == 4 else packed[:8]
    size = len(looked_at)
    masked = int.from_bytes(looked_at) & _MASKS[size] | (r & 7) << (8 * size - 3)
    return crc32c(masked.to_bytes(size)) >> 11


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
