"""The messages by which peers give each other a torrent's `info` dictionary, in pieces of 16 KiB.

    request   d8:msg_typei0e5:piecei0ee
    data      d8:msg_typei1e5:piecei0e10:total_sizei34256ee xxxxxxxx...    the piece follows the dictionary
    reject    d8:msg_typei2e5:piecei0ee

They travel as extended messages called `ut_metadata`.

Spec: BEP 9.
Thread: pure.
Lock: none.
"""

from enum import IntEnum
from typing import Final, NamedTuple

from torrent_client.config import BLOCK_SIZE
from torrent_client.errors import BencodeError, ProtocolViolation
from torrent_client.protocol.bencode import bencode_decode_prefix, bencode_encode

METADATA_EXTENSION: Final = "ut_metadata"

METADATA_PIECE: Final = BLOCK_SIZE
"""Bytes of every piece of the metadata but the last (BEP 9)."""

MAX_REFUSALS: Final = 1000
"""Requests of a peer that are refused before it is left: 10 MiB of metadata has 640 pieces, and to read a megabyte of
such requests, which come in one read, takes a second."""

MAX_ITEMS: Final = 100
"""Tokens in a message's dictionary at most; real ones have 8."""


class MetadataKind(IntEnum):
    """The values of `msg_type`."""

    REQUEST = 0
    DATA = 1
    REJECT = 2


class MetadataMessage(NamedTuple):
    """One message of the three kinds.

    Attributes:
        kind: which.
        piece: its number, from 0.
        total_size: bytes of the whole metadata, in `data`.
        data: up to 16,384 bytes, in `data`.
    """

    kind: MetadataKind
    piece: int
    total_size: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the payload of the extended message, without its id byte."""
        fields = {"msg_type": int(self.kind), "piece": self.piece}
        if self.kind is MetadataKind.DATA:
            fields["total_size"] = self.total_size
        return bencode_encode(fields) + self.data

    @classmethod
    def decode(cls, payload: bytes) -> "MetadataMessage | None":
        """Read a payload; None for a kind that we do not know, which BEP 9 says to ignore.

        Raises:
            ProtocolViolation: it is no such message.
        """
        try:
            fields, end = bencode_decode_prefix(payload, max_items=MAX_ITEMS)
        except BencodeError as error:
            raise ProtocolViolation(f"metadata message: {error} (BEP 9)") from error
        if not isinstance(fields, dict):
            raise ProtocolViolation("metadata message: not a dictionary (BEP 9)")
        kind, piece = fields.get(b"msg_type"), fields.get(b"piece")
        if not isinstance(kind, int) or not isinstance(piece, int) or piece < 0:
            raise ProtocolViolation("metadata message: no msg_type or no piece (BEP 9)")
        if kind not in (MetadataKind.REQUEST, MetadataKind.DATA, MetadataKind.REJECT):
            return None
        total_size = fields.get(b"total_size")
        data = payload[end:] if kind == MetadataKind.DATA else b""
        return cls(MetadataKind(kind), piece, total_size if isinstance(total_size, int) else 0, data)


def metadata_pieces(size: int) -> int:
    """Return the number of pieces of metadata of `size` bytes."""
    return -(-size // METADATA_PIECE)
