"""Task 9: which piece next."""

from collections.abc import Collection, Hashable
from hashlib import sha1
from threading import Lock


class PieceManager:
    """The state of every piece."""

    def __init__(self, hashes: list[bytes]) -> None:
        """Begin with nothing."""
        self.hashes = hashes
        self.status = ["missing"] * len(hashes)
        self.peers: dict[Hashable, set[int]] = {}
        self.lock = Lock()

    def add_peer(self, peer: Hashable, pieces: Collection[int]) -> None:
        """Take note of what a peer has."""
        with self.lock:
            self.peers[peer] = set(pieces)

    def remove_peer(self, peer: Hashable) -> None:
        """Forget a peer."""
        with self.lock:
            self.peers.pop(peer, None)

    def get_next_piece(self, peer: Hashable) -> int | None:
        """Return the rarest missing piece that the peer has."""
        with self.lock:
            candidates = [index for index in self.peers[peer] if self.status[index] == "missing"]
            if not candidates:
                return None
            rarest = min(candidates, key=lambda index: sum(index in pieces for pieces in self.peers.values()))
            self.status[rarest] = "downloading"
            return rarest

    def verify_piece(self, index: int, data: bytes) -> bool:
        """Tell whether a piece is good."""
        return sha1(data).digest() == self.hashes[index]

    def mark_complete(self, index: int) -> None:
        """Be done with a piece."""
        with self.lock:
            self.status[index] = "complete"

    def mark_missing(self, index: int) -> None:
        """Begin a piece anew."""
        with self.lock:
            self.status[index] = "missing"

    def complete(self) -> list[int]:
        """Return the pieces that are complete."""
        with self.lock:
            return [index for index, status in enumerate(self.status) if status == "complete"]
