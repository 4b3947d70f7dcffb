"""The pieces that a choked peer may have at once: enough to begin to trade with.

Both sides can compute the set from the peer's address, so that a peer gains nothing by coming again.

Spec: BEP 6 (allowed fast set generation).
Thread: pure.
Lock: none.
"""

from hashlib import sha1
from ipaddress import IPv4Address

SET_SIZE = 10
"""Pieces in the set; the BEP's own proposal."""


def allowed_fast_set(address: IPv4Address, info_hash: bytes, piece_count: int, size: int = SET_SIZE) -> list[int]:
    """Return the pieces that a peer may request while it is choked, in the BEP's order.

    Args:
        address: the peer's; its last byte does not matter, so that a neighbourhood shares one set.
        info_hash: 20 bytes.
        piece_count: of the torrent.
        size: pieces wanted; all of them when the torrent has fewer.
    """
    size = min(size, piece_count)
    digest = address.packed[:3] + b"\0" + info_hash
    chosen: dict[int, None] = {}
    while len(chosen) < size:
        digest = sha1(digest).digest()
        for start in range(0, 20, 4):
            if len(chosen) < size:
                chosen[int.from_bytes(digest[start : start + 4], "big") % piece_count] = None
    return list(chosen)
