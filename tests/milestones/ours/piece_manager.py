"""This project's piece manager, under the guide's names."""

import random
from collections.abc import Iterable

from torrent_client import piece_manager
from torrent_client.active_piece import PeerKey
from torrent_client.config import Config


class PieceManager(piece_manager.PieceManager):
    """`torrent_client.piece_manager.PieceManager`, rarest first from the first piece on."""

    def __init__(self, hashes: list[bytes], piece_length: int, length: int) -> None:
        """Begin with nothing."""
        config = Config()._replace(random_first_pieces=0)
        super().__init__(b"".join(hashes), piece_length, length, config, random.Random())

    def add_peer(self, peer: PeerKey, pieces: Iterable[int] = ()) -> None:
        """Take note of a new peer and of what it has."""
        super().add_peer(peer)
        for index in pieces:
            self.peer_has(peer, index)
