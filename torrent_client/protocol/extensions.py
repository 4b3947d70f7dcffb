"""The extension protocol's handshake: a dictionary in which peers tell what they speak, their limits and names.

    | length 4 | 20 | 0 | d1:md11:ut_metadatai2e6:ut_pexi1ee4:reqqi2000e1:v20:torrent-client 0.1.0e |

After it, each extension's messages go to the other side under the number that the other side gave it in `m`:

    | length 4 | 20 | number | payload |

Spec: BEP 10, 9 (metadata_size), 21 (upload_only).
Thread: pure.
Lock: none.
"""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from torrent_client.config import MAX_TORRENT_SIZE
from torrent_client.errors import BencodeError, ProtocolViolation
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_encode
from torrent_client.text import printable

EXTENDED_HANDSHAKE_ID = 0
MAX_HANDSHAKE_LENGTH = 64 * 1024
"""Bytes of a handshake at most; real ones have some 200. A message of 1 MiB, sent again and again, would keep a
processor busy for 0.3 s each time."""

MAX_HANDSHAKE_ITEMS = 1000
"""Tokens in a handshake at most; real ones have some 40."""

MAX_EXTENSIONS = 200
"""Extensions of a peer that are remembered, over all its handshakes; real clients have some ten."""

MAX_EXTENSION_NAME = 64
"""Bytes of an extension's name at most; the longest in use, `lt_donthave`, has 11."""

MAX_CLIENT_NAME = 64
"""Characters of a peer's client name that are kept: it is shown in a table."""


class ExtendedHandshake(NamedTuple):
    """What a peer says of itself; every field may be missing.

    Attributes:
        extensions: name of each extension it speaks, with the id (1-255) to send it under.
        client: name and version (`v`).
        port: TCP port it listens on (`p`).
        request_queue: requests it will queue for one peer (`reqq`).
        upload_only: it wants nothing from anybody (BEP 21).
        metadata_size: bytes of the `info` dictionary, if it has that (BEP 9).
        your_ip: the other side's address as seen by the sender, 4 or 16 bytes (`yourip`).
        switched_off: extensions that it speaks no more, in a later handshake.
        prefers_encryption: it would rather be dialled with message stream encryption (`e`, BEP 11).
    """

    extensions: Mapping[str, int] = MappingProxyType({})
    client: str | None = None
    port: int | None = None
    request_queue: int | None = None
    upload_only: bool = False
    metadata_size: int | None = None
    your_ip: bytes | None = None
    switched_off: frozenset[str] = frozenset()
    prefers_encryption: bool = False

    def updated_by(self, later: "ExtendedHandshake") -> "ExtendedHandshake":
        """Return what holds after a later handshake, which need only say what has changed (BEP 10)."""
        kept = {name: number for name, number in self.extensions.items() if name not in later.switched_off}
        known = islice({**kept, **later.extensions}.items(), MAX_EXTENSIONS)  # it may say a thousand new ones each time
        return later._replace(
            extensions=dict(known),
            client=later.client or self.client,
            port=later.port or self.port,
            request_queue=later.request_queue or self.request_queue,
            metadata_size=later.metadata_size or self.metadata_size,
            your_ip=later.your_ip or self.your_ip,
        )

    def encode(self) -> bytes:
        """Return the payload of the extended message, without its id byte."""
        value: dict[bytes, BencodeValue] = {
            b"m": {name.encode(): number for name, number in self.extensions.items()},
        }
        if self.client is not None:
            value[b"v"] = self.client.encode()
        if self.port is not None:
            value[b"p"] = self.port
        if self.request_queue is not None:
            value[b"reqq"] = self.request_queue
        if self.upload_only:
            value[b"upload_only"] = 1
        if self.metadata_size is not None:
            value[b"metadata_size"] = self.metadata_size
        if self.your_ip is not None:
            value[b"yourip"] = self.your_ip
        if self.prefers_encryption:
            value[b"e"] = 1
        return bencode_encode(value)

    @classmethod
    def decode(cls, payload: bytes) -> "ExtendedHandshake":
        """Read the payload; fields of a wrong type or size are left out rather than refused.

        Raises:
            ProtocolViolation: it is not a bencoded dictionary, or too large.
        """
        if len(payload) > MAX_HANDSHAKE_LENGTH:
            raise ProtocolViolation(f"extension handshake: {len(payload):,} bytes")
        try:
            value = bencode_decode(payload, max_items=MAX_HANDSHAKE_ITEMS)
        except BencodeError as error:
            raise ProtocolViolation(f"extension handshake: {error}") from error
        if not isinstance(value, dict):
            raise ProtocolViolation("extension handshake: not a dictionary (BEP 10)")
        numbers = _extension_ids(value.get(b"m"))
        return cls(
            extensions={name: number for name, number in numbers.items() if number},
            switched_off=frozenset(name for name, number in numbers.items() if not number),
            client=_client_name(value.get(b"v")),
            port=_number(value.get(b"p"), 1, 65_535),
            request_queue=_number(value.get(b"reqq"), 1, 1_000_000),
            upload_only=value.get(b"upload_only") == 1,
            metadata_size=_number(value.get(b"metadata_size"), 1, MAX_TORRENT_SIZE),
            your_ip=_address(value.get(b"yourip")),
            prefers_encryption=value.get(b"e") == 1,
        )


def _extension_ids(value: BencodeValue | None) -> dict[str, int]:
    """Keep the numbers of extensions that have a byte; 0 means off (BEP 10)."""
    if not isinstance(value, dict):
        return {}
    return {
        name.decode("utf-8", "replace"): number
        for name, number in value.items()
        if isinstance(number, int) and 0 <= number <= 255 and len(name) <= MAX_EXTENSION_NAME
    }


def _client_name(value: BencodeValue | None) -> str | None:
    """Keep a printable name: a peer must not write control characters onto our terminal."""
    if not isinstance(value, bytes):
        return None
    return printable(value, MAX_CLIENT_NAME).strip() or None


def _number(value: BencodeValue | None, low: int, high: int) -> int | None:
    """Keep an integer within its range."""
    return value if isinstance(value, int) and low <= value <= high else None


def _address(value: BencodeValue | None) -> bytes | None:
    """Keep the bytes of an IPv4 or IPv6 address."""
    return value if isinstance(value, bytes) and len(value) in (4, 16) else None
