"""Gives a torrent's `info` dictionary to peers that have only a magnet link.

Spec: BEP 9.
Thread: a peer's worker.
Lock: none; each peer's counts have one writer.
"""

from typing import Final

from torrent_client.errors import ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.protocol.metadata import (
    MAX_REFUSALS,
    METADATA_EXTENSION,
    METADATA_PIECE,
    MetadataKind,
    MetadataMessage,
    metadata_pieces,
)

TIMES_SERVED: Final = 2
"""How often a peer gets the whole metadata, in pieces of its choice; once is enough."""

MAX_WAITING: Final = 64
"""Messages that wait to be sent to a peer, above which it gets no piece more: 1 MiB. Who asks for all and reads nothing
would fill our memory, on each of its connections. libtorrent holds back from 160 KiB on."""


class MetadataServer:
    """Answers requests for metadata.

    Args:
        info: the raw bytes.
    """

    name = METADATA_EXTENSION

    def __init__(self, info: bytes) -> None:
        """Begin with nobody served."""
        self._info = info
        self._pieces = metadata_pieces(len(info))
        self._served: dict[Peer, int] = {}
        self._refused: dict[Peer, int] = {}

    def greeted(self, peer: Peer) -> None:
        """Wait for its requests."""

    def received(self, peer: Peer, payload: bytes) -> None:
        """Answer a request with data, or with a rejection.

        Raises:
            ProtocolViolation: it is no message of BEP 9, or one of far too many.
        """
        message = MetadataMessage.decode(payload)
        if message is None or message.kind is not MetadataKind.REQUEST:
            return
        served = self._served.get(peer, 0)
        has_had_enough = served >= TIMES_SERVED * self._pieces or peer.connection.waiting >= MAX_WAITING
        if message.piece >= self._pieces or has_had_enough:
            self._refused[peer] = self._refused.get(peer, 0) + 1
            if self._refused[peer] > MAX_REFUSALS:
                raise ProtocolViolation("it asks for metadata again and again")
            answer = MetadataMessage(MetadataKind.REJECT, message.piece)
        else:
            self._served[peer] = served + 1
            start = message.piece * METADATA_PIECE
            data = self._info[start : start + METADATA_PIECE]
            answer = MetadataMessage(MetadataKind.DATA, message.piece, len(self._info), data)
        peer.send_extended(self.name, answer.encode())

    def left(self, peer: Peer) -> None:
        """Forget how much it got."""
        self._served.pop(peer, None)
        self._refused.pop(peer, None)

    def tick(self, now: float) -> None:
        """Wait for requests."""
