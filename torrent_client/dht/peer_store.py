"""The peers that others announced to us: what this node keeps of the phone book.

    info hash --> {address: when it was announced}      at most 100 peers of a torrent, 20,000 in all

Peers announce themselves every quarter or half of an hour; what was not repeated for 45 minutes is forgotten.

Spec: BEP 5 (announce_peer).
Thread: the DHT's.
Lock: none.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from torrent_client.protocol.krpc import Endpoint

LIFETIME: Final = 2700.0
"""Seconds for which a peer is kept. Clients announce every 15 or 30 minutes; libtorrent keeps them for 45."""

MAX_PEERS: Final = 20_000
"""Peers kept in all: some 5 MB."""

MAX_PEERS_OF_TORRENT: Final = 100
"""Peers kept of one torrent: two answers full. The oldest goes."""

MAX_PEERS_OF_HOST: Final = 200
"""Announcements kept of one address, so that nobody fills the store alone."""


class PeerStore:
    """Remembers announced peers for a while.

    Args:
        rng: chooses which peers are given where there are many.
        clock: monotonic seconds.
    """

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        """Begin empty."""
        self._rng = rng
        self._clock = clock
        self._torrents: dict[bytes, dict[Endpoint, float]] = {}  # the oldest announcement first in each
        self._hosts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many peers are kept."""
        return self._hosts.total()

    @property
    def torrents(self) -> int:
        """How many torrents they are of."""
        return len(self._torrents)

    def add(self, info_hash: bytes, peer: Endpoint) -> bool:
        """Remember a peer; False when there is no room for it."""
        peers = self._torrents.get(info_hash, {})
        if peer in peers:
            self._remove(info_hash, peer)
        elif self._hosts[peer.host] >= MAX_PEERS_OF_HOST or len(self) >= MAX_PEERS:
            return False
        elif len(peers) >= MAX_PEERS_OF_TORRENT:
            self._remove(info_hash, next(iter(peers)))
        self._torrents.setdefault(info_hash, {})[peer] = self._clock()
        self._hosts[peer.host] += 1
        return True

    def peers(self, info_hash: bytes, count: int) -> list[Endpoint]:
        """Return some of a torrent's peers, other ones each time where there are more."""
        oldest = self._clock() - LIFETIME
        peers = [peer for peer, when in self._torrents.get(info_hash, {}).items() if when > oldest]
        return self._rng.sample(peers, count) if len(peers) > count else peers

    def expire(self) -> None:
        """Forget what is too old; called now and then."""
        oldest = self._clock() - LIFETIME
        for info_hash, peers in list(self._torrents.items()):
            for peer in [peer for peer, when in peers.items() if when <= oldest]:
                self._remove(info_hash, peer)

    def _remove(self, info_hash: bytes, peer: Endpoint) -> None:
        """Forget a peer."""
        peers = self._torrents[info_hash]
        del peers[peer]
        if not peers:
            del self._torrents[info_hash]
        self._hosts[peer.host] -= 1
        if not self._hosts[peer.host]:
            del self._hosts[peer.host]
