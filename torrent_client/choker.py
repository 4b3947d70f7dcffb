"""Who may download from us: tit for tat while we download ourselves, everybody in turn once we seed.

    leeching                                       seeding
    +-------------------------------------+        +------------------------+
    | A 900 kB/s   B 400 kB/s   C 90 kB/s |        |    A    B    C    D    |
    |  regular slots: what they send us   |        +----^--------------|----+
    +-------------------------------------+             |              | 16 MiB or 60 s
    | X  optimistic slot: 30 s to show    |             |              v
    |    what it sends when it is served  |             E <- F <- G <- back of the queue
    +-------------------------------------+
        ^ the longest waiting of the others, or, with three times its chance, a newcomer

Every ten seconds a *round* asks who has the best claim to a slot; in between only free slots are given
away, and those at once. A round is one list of all peers that want something, the best claim first, and
the first `slots` of it are unchoked:

    leeching   1. has its slot for less than 10 s      seeding   1. has its slot for less than 10 s
               2. sends us most (regular)                        2. has not used up its turn
               3. has its slot for less than 30 s                3. waits, the longest first
               4. waits, by lot (optimistic)                     4. has used up its turn
               5. has its slot for longer

A peer that has sent us nothing for two rounds has no claim to a regular slot: it has nothing for us, it
rides free, or it *snubs* us. All slots that nobody earns are optimistic, then: the fewer good peers we have,
the harder we look for others. That is Cohen's anti-snubbing; where nobody sends us anything, all take turns.

A seed has nothing to trade. BEP 3 lets it serve those that take most; then a few get everything and the
others nothing. Turns give every peer some pieces to trade, which is what a swarm needs from its seed;
Mainline and libtorrent came to the same.

No *fibrillation*: TCP needs seconds to get up to speed, so who is unchoked stays so for a round at least
unless it loses interest, and who is choked stays so for a round, even beside a free slot.

A peer that is not interested has no claim. It is not choked before somebody else wants its place, though:
in a small swarm interest comes and goes with every piece, and a choke would cost the peer a round trip
each time. BEP 3 also unchokes, beyond the slots, all uninterested peers that send us more than the slowest
regular one. We do not (nor do libtorrent and rain): it would spare such a peer, should it get interested,
half a round of waiting on average; the price is that the number of unchoked peers has no limit, which
whoever requests without being interested can use, and that others are choked in the middle of a round.

Spec: BEP 3 (choking, optimistic unchoking, fibrillation); Cohen, "Incentives Build Robustness in BitTorrent",
2003 (anti-snubbing).
Thread: any, one at a time; its owner sees to that.
Lock: none.
"""

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from math import isqrt
from random import Random
from typing import Final, NamedTuple

from torrent_client.config import KIB, MIB

ROUND: Final = 10.0
"""Seconds between two rounds, and the least that an unchoke or a choke lasts. BEP 3 and Transmission 10 s,
libtorrent 15 s: TCP must get up to speed before its rate tells anything."""

OPTIMISTIC_TURN: Final = 30.0
"""Seconds that an unearned slot lasts. BEP 3 30 s: enough for our upload to get up to speed, for the peer to
reciprocate, and for what it sends to get up to speed."""

NEW_PEER_AGE: Final = 60.0
"""Seconds after which a peer that has not had a slot is no longer new: two optimistic turns, so that it
takes part in two draws at least, while a stream of newcomers cannot shut out those who wait."""

NEW_PEER_TICKETS: Final = 3
"""Chance of a new peer in a draw, where a waiting one has 1: it has nothing to trade yet. BEP 3."""

MEASURED_ROUNDS: Final = 2
"""Rounds during which what a peer sent us counts: 20 s, Mainline's `max_rate_period`. A peer that has sent
nothing for so long snubs us; Cohen waited a minute for that, Mainline 30 s, libtorrent 20 s."""

INCUMBENT_BONUS: Final = 1.25
"""How many times more than a regular peer another must send to take its slot. Transmission prefers the
unchoked of two equals; that is not enough, as rates waver. Measured (tests/test_choker.py) with ten peers that
send alike, +-50 % each two seconds: 2,000 changes in two hours without a bonus, 840 with this one, of which
480 are optimistic turns; with a factor of 2 clearly worse peers keep their slots."""

MIN_SLOTS: Final = 4
"""Peers unchoked at once on any link. BEP 3: four."""

MAX_SLOTS: Final = 20
"""Peers unchoked at once on the fastest link; beyond it each one's share grows instead. qBittorrent
20 in all, Transmission 8 a torrent."""

SLOTS_PER_OPTIMISTIC: Final = 5
"""One slot of so many, but at least one, cannot be earned. libtorrent 5; with four slots BEP 3's one."""

SLOT_RATE_STEP: Final = 10 * KIB
"""Bytes/s more for each slot that there is one slot more: n slots carry n x 10 KiB/s each. libtorrent's
rate-based choker has steps of 2 KiB/s and Mainline's formula amounts to 1.7, for the links of 2005-2010;
thinner slots would lose us the others' regular slots."""

LINK_MEMORY: Final = 0.97
"""What remains, a round later, of the upload rate that the link has shown to carry: half in four minutes.
A lull, or slow downloaders, do not make the link slow."""

SEED_QUOTA: Final = 16 * MIB
"""Bytes that a peer gets from a seed in one turn. libtorrent 20 pieces, 5 to 80 MiB. At 280 kB/s
it takes as long as `SEED_TURN`."""

SEED_TURN: Final = 60.0
"""Seconds that a turn at a seed lasts at most, so that slow peers do not hold slots for hours. libtorrent
at least 60 s; Mainline replaces two of four every 30 s, which amounts to the same."""

_NEVER: Final = float("-inf")


class PeerView(NamedTuple):
    """What the choker looks at.

    Attributes:
        key: the peer; a new connection is a new key.
        interested: it wants something from us.
        downloaded: bytes of blocks it has sent us in all.
        uploaded: bytes of blocks we have sent it in all.
    """

    key: Hashable
    interested: bool
    downloaded: int = 0
    uploaded: int = 0


class _Known:
    """A peer, and what we remember of it."""

    def __init__(self, view: PeerView, now: float) -> None:
        self.view = view
        self.since = now  # when we first saw it
        self.waiting_since = now  # when it lost its slot, else when we first saw it
        self.downloaded_before = view.downloaded  # until the last round
        self.uploaded_before = view.uploaded
        self.received: tuple[int, ...] = (0,) * MEASURED_ROUNDS  # bytes in each of the last rounds
        self.unchoked_at: float | None = None
        self.uploaded_before_turn = 0
        self.had_turn = False
        self.is_regular = False  # it holds its slot by what it sends us

    @property
    def is_unchoked(self) -> bool:
        """Whether it has a slot."""
        return self.unchoked_at is not None

    def held_for(self, now: float) -> float:
        """Return for how many seconds it has had its slot."""
        assert self.unchoked_at is not None
        return now - self.unchoked_at

    def is_secure(self, now: float) -> bool:
        """Tell whether it uses a slot that it got too recently to lose it."""
        return self.view.interested and self.is_unchoked and self.held_for(now) < ROUND

    def may_begin(self, now: float) -> bool:
        """Tell whether it is choked, and not only just."""
        return not self.is_unchoked and not (self.had_turn and now - self.waiting_since < ROUND)

    def is_new(self, now: float) -> bool:
        """Tell whether it counts as a newcomer in a draw."""
        return not self.had_turn and now - self.since < NEW_PEER_AGE

    def used_up_turn(self, now: float) -> bool:
        """Tell whether it got from a seed what one gets at a time."""
        return self.held_for(now) >= SEED_TURN or self.view.uploaded - self.uploaded_before_turn >= SEED_QUOTA

    def measure(self) -> int:
        """Take note of what it sent us since the last round; return what we sent it."""
        sent = self.view.uploaded - self.uploaded_before
        self.received = (self.view.downloaded - self.downloaded_before, *self.received[:-1])
        self.downloaded_before, self.uploaded_before = self.view.downloaded, self.view.uploaded
        return sent

    def merit(self) -> float:
        """Return what its claim to a regular slot is worth: bytes that we owe it, as it were."""
        return sum(self.received) * (INCUMBENT_BONUS if self.is_regular else 1.0)

    def unchoke(self, now: float) -> None:
        """Begin its turn."""
        self.unchoked_at = now
        self.uploaded_before_turn = self.view.uploaded
        self.had_turn = True

    def choke(self, now: float) -> None:
        """End its turn."""
        self.unchoked_at = None
        self.waiting_since = now


class Choker:
    """Decides who is unchoked; the caller brings snapshots and tells the peers.

    Args:
        rng: source of optimistic luck.
        slots: peers unchoked at once, at least; 0 to serve nobody.
        max_slots: the same on a fast link; as `slots` for a fixed number.
    """

    def __init__(self, rng: Random, *, slots: int = MIN_SLOTS, max_slots: int = MAX_SLOTS) -> None:
        """Begin with nobody."""
        self.slots = slots
        self._rng = rng
        self._min_slots = slots
        self._max_slots = max_slots if slots else 0
        self._peers: dict[Hashable, _Known] = {}
        self._last_round = _NEVER
        self._link_rate = 0.0

    def choose(self, peers: Sequence[PeerView], now: float, *, seeding: bool) -> set[Hashable]:
        """Return the keys of the peers that shall be unchoked from now on; all others are choked.

        Call it once a second, and when a peer has come, has left or has changed its interest: it knows
        itself when a round is due. To call it more often changes nothing.

        Args:
            peers: all connected peers.
            now: monotonic seconds.
            seeding: we want nothing from anybody.
        """
        self._meet(peers, now)
        is_round = now - self._last_round >= ROUND
        if is_round:
            self._measure(now)
        chosen = list(islice(self._claims(now, seeding=seeding, is_round=is_round), self.slots))
        chosen += self._idle()[: self.slots - len(chosen)]
        self._settle(set(chosen), now)
        return {peer.view.key for peer in chosen}

    # --- who is there ------------------------------------------------------------------------------------

    def _meet(self, views: Sequence[PeerView], now: float) -> None:
        """Take the new snapshots; forget who has left."""
        before, self._peers = self._peers, {}
        for view in views:
            known = before.get(view.key) or _Known(view, now)
            known.view = view
            self._peers[view.key] = known

    def _measure(self, now: float) -> None:
        """Begin a round: see what came and went, and how many slots the link is worth."""
        sent = sum(peer.measure() for peer in self._peers.values())
        self._link_rate = max(sent / (now - self._last_round), self._link_rate * LINK_MEMORY)
        self._last_round = now
        secure = sum(peer.is_secure(now) for peer in self._peers.values())
        self.slots = max(secure, slots_for(self._link_rate, self._min_slots, self._max_slots))

    def _settle(self, chosen: set[_Known], now: float) -> None:
        """Remember who has a slot since when; the turn of one that wants nothing has not begun."""
        for peer in self._peers.values():
            if peer in chosen:
                if not peer.is_unchoked or not peer.view.interested:
                    peer.unchoke(now)
            elif peer.is_unchoked:
                peer.choke(now)

    # --- who has the best claim --------------------------------------------------------------------------

    def _claims(self, now: float, *, seeding: bool, is_round: bool) -> Iterator[_Known]:
        """Yield all who want a slot, the best claim first; between rounds all who have one come first."""
        wanting = [peer for peer in self._peers.values() if peer.view.interested]
        secure = [peer for peer in wanting if (peer.is_secure(now) if is_round else peer.is_unchoked)]
        yield from secure
        others = [peer for peer in wanting if peer not in secure]
        yield from self._claims_to_a_seed(others, now) if seeding else self._claims_to_a_leecher(wanting, others, now)

    def _claims_to_a_seed(self, others: list[_Known], now: float) -> Iterator[_Known]:
        """Yield who goes on, who waits, and who has had enough: of those the longest served is last."""
        holders = [peer for peer in others if peer.is_unchoked]
        yield from (peer for peer in holders if not peer.used_up_turn(now))
        yield from sorted((peer for peer in others if peer.may_begin(now)), key=_waiting_since)
        yield from sorted((peer for peer in holders if peer.used_up_turn(now)), key=lambda peer: peer.held_for(now))

    def _claims_to_a_leecher(self, wanting: list[_Known], others: list[_Known], now: float) -> Iterator[_Known]:
        """Yield who earned a slot, whose optimistic turn is not over, who waits, and whose turn is over."""
        regular = self._regular(wanting, now)
        for peer in self._peers.values():
            peer.is_regular = peer in regular
        yield from (peer for peer in regular if peer in others)
        others = [peer for peer in others if peer not in regular]
        holders = sorted((peer for peer in others if peer.is_unchoked), key=lambda peer: peer.held_for(now))
        yield from (peer for peer in holders if peer.held_for(now) < OPTIMISTIC_TURN)
        yield from self._by_lot([peer for peer in others if peer.may_begin(now)], now)
        yield from (peer for peer in holders if peer.held_for(now) >= OPTIMISTIC_TURN)

    def _regular(self, wanting: list[_Known], now: float) -> list[_Known]:
        """Return those who earn a slot by what they send us, the best first."""
        places = self.slots - max(1, self.slots // SLOTS_PER_OPTIMISTIC)
        earning = [peer for peer in wanting if peer.merit() and (peer.is_unchoked or peer.may_begin(now))]
        return sorted(earning, key=_Known.merit, reverse=True)[:places]

    def _by_lot(self, waiting: list[_Known], now: float) -> Iterator[_Known]:
        """Yield the waiting peers in the order of optimistic turns.

        Each draw is among all tickets, and all tickets of those who are not new belong to the one who has
        waited longest. By chance alone, one in eleven of fifty peers would get nothing for an hour.
        """
        new = [peer for peer in waiting if peer.is_new(now)]
        old = sorted((peer for peer in waiting if not peer.is_new(now)), key=_waiting_since)
        while new or old:
            tickets = NEW_PEER_TICKETS * len(new)
            if self._rng.random() * (tickets + len(old)) < tickets:
                yield new.pop(self._rng.randrange(len(new)))
            else:
                yield old.pop(0)

    def _idle(self) -> list[_Known]:
        """Return the unchoked peers that want nothing, those that send us most first."""
        idle = [peer for peer in self._peers.values() if peer.is_unchoked and not peer.view.interested]
        return sorted(idle, key=_Known.merit, reverse=True)


def slots_for(link_rate: float, least: int = MIN_SLOTS, most: int = MAX_SLOTS) -> int:
    """Return how many peers a link serves well at once: the square root of its rate in steps.

    Few slots leave a fast link idle when the peers are slow; many slots on a slow link give each peer too
    little to be worth a regular slot of theirs. 160 KiB/s make 4 slots, 1 MiB/s 10, 4 MiB/s 20.

    Args:
        link_rate: bytes/s that we upload when we can.
        least: the fewest.
        most: the most.
    """
    return max(least, min(most, isqrt(int(link_rate / SLOT_RATE_STEP))))


def _waiting_since(peer: _Known) -> float:
    return peer.waiting_since
