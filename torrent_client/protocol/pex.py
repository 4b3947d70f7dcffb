r"""Peer exchange: the message in which a peer tells whom it is connected to, and whom not any more.

    d5:added12:\xc0\x00\x02\x01\x1a\xe1 ...  7:added.f2:\x12\x00  6:added6 ...  7:dropped6: ...  e
               6 bytes a peer: IPv4 address 4, port 2        a byte a peer: its flags

It travels as an extended message called `ut_pex`.

Spec: BEP 11.
Thread: pure.
Lock: none.
"""

import ipaddress
from collections.abc import Iterable
from enum import IntFlag
from struct import iter_unpack, pack
from typing import Final, NamedTuple

from torrent_client.errors import BencodeError, ProtocolViolation
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_encode

PEX_EXTENSION: Final = "ut_pex"

MAX_MESSAGE: Final = 16 * 1024
"""Bytes of a message at most: 50 peers of either kind added and as many dropped, the most that BEP 11 allows, take
some 3 KB; a first message may have more."""

MAX_ITEMS: Final = 100
"""Tokens in a message at most; the six fields make 14."""

IPV4_BYTES: Final = 4
IPV6_BYTES: Final = 16


class PexFlags(IntFlag):
    """What is known of a peer that is told; bits without a name are kept."""

    NONE = 0
    PREFERS_ENCRYPTION = 0x01
    UPLOAD_ONLY = 0x02
    UTP = 0x04
    HOLEPUNCH = 0x08
    REACHABLE = 0x10


class PexContact(NamedTuple):
    """A peer that is told.

    Attributes:
        host: IPv4 or IPv6 address as text.
        port: the TCP port that it listens on.
        flags: what is known of it.
    """

    host: str
    port: int
    flags: PexFlags = PexFlags.NONE


class PexMessage(NamedTuple):
    """What has changed among the peers that somebody is connected to.

    Attributes:
        added: those who came.
        dropped: those who went; their flags mean nothing.
    """

    added: tuple[PexContact, ...] = ()
    dropped: tuple[PexContact, ...] = ()

    def encode(self) -> bytes:
        """Return the payload of the extended message, without its id byte; fields that would be empty are left out."""
        value: dict[bytes, BencodeValue] = {}
        for suffix, size in ((b"", IPV4_BYTES), (b"6", IPV6_BYTES)):
            if added := _of_size(self.added, size):
                value[b"added" + suffix] = b"".join(compact for compact, _ in added)
                value[b"added" + suffix + b".f"] = bytes(flags & 0xFF for _, flags in added)
            if dropped := _of_size(self.dropped, size):
                value[b"dropped" + suffix] = b"".join(compact for compact, _ in dropped)
        return bencode_encode(value)

    @classmethod
    def decode(cls, payload: bytes) -> "PexMessage":
        """Read a payload. Flags that are not one for each peer are none: they are hints, and nothing is lost.

        Raises:
            ProtocolViolation: it is no such message, or too large.
        """
        if len(payload) > MAX_MESSAGE:
            raise ProtocolViolation(f"peer exchange: {len(payload):,} bytes")
        try:
            value = bencode_decode(payload, max_items=MAX_ITEMS)
        except BencodeError as error:
            raise ProtocolViolation(f"peer exchange: {error}") from error
        if not isinstance(value, dict):
            raise ProtocolViolation("peer exchange: not a dictionary (BEP 11)")
        return cls(
            added=(
                *_contacts(value.get(b"added"), IPV4_BYTES, value.get(b"added.f")),
                *_contacts(value.get(b"added6"), IPV6_BYTES, value.get(b"added6.f")),
            ),
            dropped=(
                *_contacts(value.get(b"dropped"), IPV4_BYTES),
                *_contacts(value.get(b"dropped6"), IPV6_BYTES),
            ),
        )


def _of_size(contacts: Iterable[PexContact], size: int) -> list[tuple[bytes, PexFlags]]:
    """Return the contacts whose addresses have `size` bytes, in the compact form, with their flags."""
    addresses = ((ipaddress.ip_address(contact.host).packed, contact) for contact in contacts)
    return [
        (address + pack(">H", contact.port), contact.flags) for address, contact in addresses if len(address) == size
    ]


def _contacts(
    compact: BencodeValue | None, address_size: int, flags: BencodeValue | None = None
) -> Iterable[PexContact]:
    """Read one field, which need not be there.

    Raises:
        ProtocolViolation: it is no string of whole peers.
    """
    if compact is None:
        return []
    size = address_size + 2
    if not isinstance(compact, bytes) or len(compact) % size:
        raise ProtocolViolation(f"peer exchange: peers that are not {size} bytes each (BEP 11)")
    count = len(compact) // size
    known = flags if isinstance(flags, bytes) and len(flags) == count else bytes(count)
    return [
        PexContact(str(ipaddress.ip_address(address)), port, PexFlags(flag))
        for (address, port), flag in zip(iter_unpack(f">{address_size}sH", compact), known, strict=True)
    ]
