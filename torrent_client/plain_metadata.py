"""A torrent's `info` dictionary from one peer, asked for in the simplest way: what a magnet link lacks.

    us                                                     the peer
    handshake, extension bit 00 00 00 00 00 10 00 00 ----> the same bit
    extended 0   d1:md11:ut_metadatai1eee   -------------> d1:md11:ut_metadatai123ee13:metadata_sizei34256ee
    extended 123 d8:msg_typei0e5:piecei0ee  -------------> extended 1  d8:msg_typei1e5:piecei0e...ee + 16 KiB
    extended 123 d8:msg_typei0e5:piecei1ee  -------------> ...

One question at a time, nothing before it and nothing between: a lesson's peer reads exactly that. What the peer says
meanwhile (its bitfield, say) is kept for whoever downloads from it afterwards, on the same connection. Called by the
milestone commands; `metadata_download` asks many peers at once.

Spec: BEP 9 (metadata), BEP 10 (extension handshake).
Thread: the caller's.
Lock: none.
"""

import time
from collections import deque
from hashlib import sha1
from typing import Final

from torrent_client.config import Config
from torrent_client.errors import PeerError, ProtocolViolation
from torrent_client.peer_connection import PeerConnection
from torrent_client.plain_client import METADATA_ID, ReadyPeer, say_hello
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.protocol.messages import Extended, Message
from torrent_client.protocol.metadata import METADATA_EXTENSION, MetadataKind, MetadataMessage, metadata_pieces
from torrent_client.tracker_client import PeerAddress

TIME_LIMIT: Final = 30.0
"""Seconds that one peer may take for all of it; the course allows 10 for a command."""

MAX_KEPT: Final = 100_000
"""Messages kept for later at most: a peer may announce its pieces one by one."""


class MetadataPeer:
    """A connection on which the metadata is asked for.

    Args:
        address: the peer.
        info_hash: 20 bytes, the magnet link's.
        peer_id: 20 bytes, ours.
        config: time-outs.
    """

    def __init__(self, address: PeerAddress, info_hash: bytes, peer_id: bytes, config: Config) -> None:
        """Connect to nobody yet."""
        self.connection = PeerConnection(address, info_hash, peer_id, extensions=True, config=config)
        self.hello = ExtendedHandshake()
        self._info_hash = info_hash
        self._unread: deque[Message] = deque()
        self._kept: list[Message] = []
        self._deadline = 0.0

    def meet(self) -> int:
        """Connect and exchange both handshakes.

        Returns:
            The id under which the peer takes requests for metadata, 1 to 255.

        Raises:
            PeerError: it cannot be reached, or does not give metadata.
        """
        self._deadline = time.monotonic() + TIME_LIMIT
        self.connection.connect()
        if not self.connection.handshake().supports_extensions:
            raise PeerError("it does not speak the extension protocol (BEP 10)")
        say_hello(self.connection)
        self.hello = ExtendedHandshake.decode(self._next_payload(EXTENDED_HANDSHAKE_ID))
        number = self.hello.extensions.get(METADATA_EXTENSION)
        if number is None:
            raise PeerError("it gives no metadata (BEP 9)")
        return number

    def fetch(self) -> bytes:
        """Ask for the whole metadata, after `meet`, and return the raw `info` dictionary.

        Raises:
            PeerError: the peer does not give it, or it has another hash than the link.
        """
        number, size = self.hello.extensions[METADATA_EXTENSION], self.hello.metadata_size
        if size is None:
            raise PeerError("it does not have the metadata itself (no metadata_size, BEP 9)")
        info = b""
        for piece in range(metadata_pieces(size)):
            self.connection.send(Extended(number, MetadataMessage(MetadataKind.REQUEST, piece).encode()))
            info += self._next_piece(piece)
        if sha1(info).digest() != self._info_hash:
            raise ProtocolViolation("its metadata has another hash than the magnet link (BEP 9)")
        return info

    def ready(self) -> ReadyPeer:
        """Give the connection away, with what came on it that was not asked for."""
        return ReadyPeer(self.connection, [*self._kept, *self._unread])

    def _next_piece(self, piece: int) -> bytes:
        """Wait for the answer to a request."""
        while True:
            message = MetadataMessage.decode(self._next_payload(METADATA_ID))
            if message and message.kind is MetadataKind.REJECT:
                raise PeerError(f"it refuses piece {piece} of the metadata (BEP 9)")
            if message and message.kind is MetadataKind.DATA and message.piece == piece:
                return message.data

    def _next_payload(self, extension_id: int) -> bytes:
        """Wait for an extended message with this id; keep what else comes."""
        while True:
            while self._unread:
                message = self._unread.popleft()
                if isinstance(message, Extended) and message.extension_id == extension_id:
                    return message.payload
                self._kept.append(message)
            if time.monotonic() > self._deadline or len(self._kept) > MAX_KEPT:
                raise PeerError("it does not come to the point")
            self._unread.extend(self.connection.receive())
