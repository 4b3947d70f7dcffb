"""Finds out who lied: compares the blocks of a piece that failed with those of the piece that passed.

When a piece with several suppliers fails its hash, nobody knows which block was bad. Its blocks' digests
are kept; once the piece passes, every supplier of a block that differs is guilty, and only they.

Spec: libtorrent's smart ban; the guide's Task 15 (invalid piece hashes).
Thread: verifiers.
Lock: `_lock`, a leaf, around the table of digests; hashing is done outside.
"""

from collections import deque
from collections.abc import Iterable
from hashlib import sha1
from itertools import chain
from threading import Lock
from typing import TypeAlias

from torrent_client.tracker_client import PeerAddress

SourceAddress: TypeAlias = PeerAddress | str
"""What a ban applies to: a peer's address, or a web seed's URL."""

MAX_PIECES_REMEMBERED = 64
"""Failed pieces whose digests are kept: 1,024 blocks of a 16 MiB piece make some 100 KB each."""

FAILURES_REMEMBERED = 2
"""Failures of one piece whose digests are kept, the last ones: a piece that is poisoned again and again would
else fill the memory."""


class SmartBan:
    """Remembers the blocks of failed pieces and convicts their suppliers."""

    def __init__(self) -> None:
        """Begin with no suspects."""
        self._lock = Lock()
        self._failed: dict[int, deque[list[tuple[int, SourceAddress, bytes]]]] = {}

    def remember(self, index: int, blocks: Iterable[tuple[SourceAddress, memoryview]]) -> None:
        """Keep the digests of a failed piece's blocks.

        Args:
            index: the piece.
            blocks: each block's supplier and bytes, in order.
        """
        digests = [(number, who, sha1(block).digest()) for number, (who, block) in enumerate(blocks)]
        with self._lock:
            if index in self._failed or len(self._failed) < MAX_PIECES_REMEMBERED:
                self._failed.setdefault(index, deque(maxlen=FAILURES_REMEMBERED)).append(digests)

    def convict(self, index: int, blocks: Iterable[memoryview]) -> set[SourceAddress]:
        """Return who sent bad blocks of a piece, now that its good bytes are known.

        Args:
            index: the piece, which has passed.
            blocks: its blocks, in order.
        """
        with self._lock:
            suspects = self._failed.pop(index, None)
        if suspects is None:
            return set()
        good = [sha1(block).digest() for block in blocks]
        return {who for number, who, digest in chain.from_iterable(suspects) if digest != good[number]}
