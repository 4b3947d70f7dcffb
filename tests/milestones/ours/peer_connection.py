"""This project's peer connection, under the guide's names."""

import random
import time
from collections import deque

from torrent_client import peer_connection
from torrent_client.bitfield import Bitfield
from torrent_client.config import Config
from torrent_client.piece_manager import PieceManager
from torrent_client.piece_picker import WantedPieces
from torrent_client.protocol import messages
from torrent_client.tracker_client import PeerAddress


class PeerConnection(peer_connection.PeerConnection):
    """`torrent_client.peer_connection.PeerConnection`, with a method for each message."""

    def __init__(self, ip: str, port: int, info_hash: bytes, peer_id: bytes, piece_count: int) -> None:
        """Connect to nobody yet."""
        super().__init__(PeerAddress(ip, port), info_hash, peer_id)
        self._came: deque[messages.Message] = deque()
        self._owned = Bitfield(piece_count)

    def send_choke(self) -> None:
        """Send choke."""
        self.send(messages.Choke())

    def send_unchoke(self) -> None:
        """Send unchoke."""
        self.send(messages.Unchoke())

    def send_interested(self) -> None:
        """Send interested."""
        self.send(messages.Interested())

    def send_not_interested(self) -> None:
        """Send not interested."""
        self.send(messages.NotInterested())

    def send_have(self, index: int) -> None:
        """Send have."""
        self.send(messages.Have(index))

    def send_bitfield(self, bitfield: bytes) -> None:
        """Send a bitfield."""
        self.send(messages.BitfieldMessage(bitfield))

    def send_request(self, index: int, begin: int, length: int) -> None:
        """Ask for a block."""
        self.send(messages.Request(index, begin, length))

    def send_piece(self, index: int, begin: int, block: bytes) -> None:
        """Send a block."""
        self.send_encoded(messages.Piece(index, begin, block).encode())

    def receive_message(self) -> tuple[int | None, bytes]:
        """Return the next message as id and payload."""
        while not self._came:
            self._came.extend(self.receive())
        message = self._came.popleft()
        match message:
            case messages.BitfieldMessage(bits):
                self._owned = Bitfield.from_bytes(bits, self._owned.size)
            case messages.Have(index):
                self._owned = Bitfield(self._owned.size, self._owned.bits | 1 << index)
        encoded = message.encode()
        return (encoded[4], encoded[5:]) if len(encoded) > 4 else (None, b"")

    def has_piece(self, index: int) -> bool:
        """Tell whether the peer has a piece."""
        return index in self._owned

    def download_piece(self, index: int, piece_length: int) -> bytes:
        """Download one piece, whatever its hash is."""
        pieces = PieceManager(
            bytes(20) * (index + 1),
            piece_length,
            piece_length * (index + 1),
            Config(),
            random.Random(),
            wanted=WantedPieces((1 << index,)),
        )
        pieces.add_peer(self)
        pieces.peer_has(self, index)
        self.send(messages.Interested())
        while True:
            for message in self.receive():
                if isinstance(message, messages.Unchoke):
                    pieces.peer_unchoked(self)
                    self.send_encoded(messages.encode_requests(pieces.next_requests(self, 8, time.monotonic())))
                if isinstance(message, messages.Piece):
                    for piece in pieces.receive_blocks(self, [message], time.monotonic()).full:
                        return bytes(piece.data)

    def close(self, reason: str = "closed by us") -> None:
        """End the connection, and leave nothing behind."""
        super().close(reason)
        if self._writer:
            self.finish()
