"""Super-seeding: a first seed that shows each peer one piece at a time, so that it sends each piece once.

    seed --have 7--> A        A gets piece 7 ...
    seed --have 3--> B        B gets piece 3 ...
                     A --have 3--> seed        ... from B: so B has passed its piece on,
    seed --have 9--> B                         and is shown the next one

A plain seed with a slow line sends popular pieces again and again while others have not left it yet. This
one claims to have nothing; a peer learns of a piece when it is shown to it, and of another when a third
party has got the first. Who does not pass on gets no more for a while.

Spec: BEP 16.
Thread: any; peers' workers.
Lock: `_lock`, a leaf.
"""

import time
from collections.abc import Callable
from random import Random
from threading import Lock
from typing import NamedTuple

from torrent_client.active_piece import PeerKey
from torrent_client.piece_picker import PiecePicker

PATIENCE = 60.0
"""Seconds after which a peer is shown another piece anyway: those who should get the first one from it may never
fetch it, be it that they do not want that piece or that they mean to hold others up."""


class Offer(NamedTuple):
    """A piece to show to a peer."""

    peer: PeerKey
    piece_index: int


class _Leecher:
    """What one peer has and what it was shown, as sets of bits."""

    def __init__(self) -> None:
        self.pieces = 0
        self.shown = 0  # and not passed on yet
        self.shown_at = 0.0  # when it was last shown one


class SuperSeeder:
    """Decides which pieces each peer is shown.

    Args:
        piece_count: of the torrent.
        rng: source of random ties.
        clock: monotonic seconds.
    """

    def __init__(self, piece_count: int, rng: Random, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody."""
        self._lock = Lock()
        self._clock = clock
        self._everything = (1 << piece_count) - 1
        self._copies = PiecePicker(piece_count, rng, random_first=0)  # peers that have or were shown a piece
        self._leechers: dict[PeerKey, _Leecher] = {}

    def joined(self, peer: PeerKey) -> list[Offer]:
        """Take note of a new peer; return the first piece to show to it."""
        with self._lock:
            self._leechers[peer] = _Leecher()
            return self._offer(peer)

    def left(self, peer: PeerKey) -> list[Offer]:
        """Forget a peer and what it had; return what to show to those whom nobody else wants anything from now."""
        with self._lock:
            leecher = self._leechers.pop(peer, None)
            if leecher is None:
                return []
            self._copies.remove(leecher.pieces | leecher.shown)
            offers: list[Offer] = []
            for other, record in self._leechers.items():
                offers += self._passed_on(other, self._of_no_use_to_others(other, record))
            return offers

    def tick(self, now: float) -> list[Offer]:
        """Return what to show to those that have waited for long."""
        with self._lock:
            offers: list[Offer] = []
            for peer, leecher in self._leechers.items():
                if now - leecher.shown_at >= PATIENCE:
                    offers += self._offer(peer)
            return offers

    def peer_has(self, peer: PeerKey, pieces: int) -> list[Offer]:
        """Take note of pieces (bits) that a peer has; return what to show to those that passed them on."""
        with self._lock:
            leecher = self._leechers.get(peer)
            if leecher is None:
                return []
            new = pieces & ~leecher.pieces
            self._copies.add(new & ~leecher.shown)  # what was shown to it counts already
            leecher.pieces |= new
            offers: list[Offer] = []
            for other, shown_to in self._leechers.items():
                passed_on = shown_to.shown & new if other != peer else self._of_no_use_to_others(peer, leecher)
                offers += self._passed_on(other, passed_on)
            return offers

    def _passed_on(self, peer: PeerKey, passed_on: int) -> list[Offer]:
        """Take note of shown pieces (bits) that a peer owes to nobody any more; choose the next if there are any."""
        if not passed_on:
            return []
        leecher = self._leechers[peer]
        leecher.shown &= ~passed_on
        self._copies.remove(passed_on & ~leecher.pieces)
        return self._offer(peer)

    def _of_no_use_to_others(self, peer: PeerKey, leecher: _Leecher) -> int:
        """Return the pieces shown to a peer, and there, that nobody is left to get from it."""
        useless = leecher.shown & leecher.pieces
        for other, record in self._leechers.items():
            if other != peer:
                useless &= record.pieces
        return useless

    def _offer(self, peer: PeerKey) -> list[Offer]:
        """Choose the piece with the fewest copies that a peer neither has nor was shown."""
        leecher = self._leechers[peer]
        index = self._copies.pick(self._everything & ~leecher.pieces & ~leecher.shown, 0)
        if index is None:
            return []
        leecher.shown |= 1 << index
        leecher.shown_at = self._clock()
        self._copies.add(1 << index)
        return [Offer(peer, index)]
