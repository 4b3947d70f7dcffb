"""Who is unchoked: by reciprocation, by luck and in turn; over hours of virtual time, and for any input."""

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torrent_client.choker import (
    MAX_SLOTS,
    MIN_SLOTS,
    NEW_PEER_AGE,
    NEW_PEER_TICKETS,
    OPTIMISTIC_TURN,
    ROUND,
    SEED_QUOTA,
    SEED_TURN,
    Choker,
    PeerView,
    slots_for,
)

KB = 1000
HOUR = 3600
TICK = 2


class Referee:
    """Asks a choker, as its caller does, and checks each answer against what must always hold."""

    def __init__(self, choker: Choker, start: float = 0.0) -> None:
        self.choker = choker
        self.now = start
        self.unchoked: set[Hashable] = set()
        self.began: dict[Hashable, float] = {}  # when each peer was unchoked, or got interested while it was
        self.choked: dict[Hashable, float] = {}  # when each peer lost its slot
        self.sent: Counter[str] = Counter()
        self.changes: Counter[Hashable] = Counter()  # chokes and unchokes of each peer

    def choose(self, views: Sequence[PeerView], *, seeding: bool = False) -> set[Hashable]:
        """Return who is unchoked now."""
        chosen = self.choker.choose(views, self.now, seeding=seeding)
        present = {view.key: view for view in views}
        wanting = {key for key, view in present.items() if view.interested}
        for known in (self.began, self.choked):
            for key in known.keys() - present.keys():
                del known[key]
        self.unchoked &= present.keys()
        assert chosen <= present.keys()
        assert len(chosen) <= self.choker.slots
        for key in chosen - self.unchoked:
            assert key in wanting, "unchoked without being interested"
            assert self.now - self.choked.get(key, -math.inf) >= ROUND, "unchoked soon after it was choked"
        for key in (self.unchoked - chosen) & wanting:
            assert self.now - self.began[key] >= ROUND, "choked soon after it was unchoked"
        self._note(chosen, wanting)
        resting = {key for key, when in self.choked.items() if self.now - when < ROUND}
        assert len(chosen) == self.choker.slots or wanting <= chosen | resting, "a slot is free and a peer waits"
        return chosen

    def _note(self, chosen: set[Hashable], wanting: set[Hashable]) -> None:
        self.changes.update(chosen ^ self.unchoked)
        for key in self.unchoked - chosen:
            self.choked[key] = self.now
        for key in chosen:
            if key not in self.unchoked or key not in wanting:
                self.began[key] = self.now
        self.unchoked = set(chosen)

    def at(self, now: float, rates: Sequence[float], *, idle: str = "", seeding: bool = False) -> str:
        """Ask later, when peers a, b, c ... have sent us bytes at these rates since the last time.

        Args:
            now: seconds.
            rates: bytes/s of each peer; negative for one that is not there.
            idle: those that are not interested.
            seeding: we are a seed.

        Returns:
            The names of those that are unchoked, in order.
        """
        seconds, self.now = now - self.now, now
        views = []
        for name, rate in zip(ascii_lowercase, rates, strict=False):
            self.sent[name] += round(max(0, rate) * seconds)
            if rate >= 0:
                views.append(PeerView(name, interested=name not in idle, downloaded=self.sent[name]))
        return "".join(sorted(map(str, self.choose(views, seeding=seeding))))


class Remote:
    """A simulated peer.

    Args:
        sends: bytes/s it sends us when it serves us.
        takes: bytes/s it can receive.
        reciprocates: it serves us for as long as we serve it, and now and then for luck; else always.
    """

    def __init__(self, sends: float = 0.0, takes: float = math.inf, *, reciprocates: bool = True) -> None:
        self.sends = sends
        self.takes = takes
        self.reciprocates = reciprocates
        self.interested = True
        self.downloaded = 0
        self.uploaded = 0
        self.turns: list[tuple[int, int]] = []  # (begin, end) of each turn, in seconds

    def view(self) -> PeerView:
        """Return what the choker sees of it."""
        return PeerView(
            self,
            interested=self.interested,
            downloaded=self.downloaded,
            uploaded=self.uploaded,
        )

    @property
    def served(self) -> int:
        """Seconds for which it had a slot."""
        return sum(end - begin for begin, end in self.turns)

    def waits(self, until: int) -> list[int]:
        """Return for how long it was choked each time, from second 0."""
        edges = [0, *(second for turn in self.turns for second in turn), until]
        return [end - begin for begin, end in list(pairwise(edges))[::2]]


class Swarm:
    """Our peers, tick by tick (of two seconds), with the bytes that flow.

    Args:
        choker: decides.
        rng: source of wavering rates and of the peers' own optimistic slots.
        link: bytes/s that we can upload.
        seeding: we only upload.
    """

    def __init__(self, choker: Choker, rng: random.Random, *, link: float, seeding: bool) -> None:
        self.referee = Referee(choker)
        self.rng = rng
        self.link = link
        self.seeding = seeding
        self.second = 0
        self.peers: list[Remote] = []

    def ask(self) -> None:
        """Let the choker decide."""
        self.referee.now = self.second
        self.referee.choose([peer.view() for peer in self.peers], seeding=self.seeding)

    def run(self, seconds: int, each_tick: Callable[[], None] = lambda: None) -> None:
        """Let time pass."""
        for _ in range(0, seconds, TICK):
            each_tick()
            self.ask()
            self._flow()
            self.second += TICK

    def _flow(self) -> None:
        """Move one tick's bytes."""
        takers = [peer for peer in self.peers if peer in self.referee.unchoked and peer.interested]
        rest = self.link * TICK
        for place, peer in enumerate(sorted(takers, key=lambda taker: taker.takes)):
            share = min(peer.takes * TICK, rest / (len(takers) - place))
            rest -= share
            peer.uploaded += int(share)
            goes_on = peer.turns and peer.turns[-1][1] == self.second
            begin = peer.turns.pop()[0] if goes_on else self.second
            peer.turns.append((begin, self.second + TICK))
        for place, peer in enumerate(self.peers):
            is_lucky = self.second // 30 % 20 == place % 20
            if peer in takers or not peer.reciprocates or is_lucky:
                peer.downloaded += int(peer.sends * TICK * self.rng.uniform(0.5, 1.5))


def fixed_choker(rng: random.Random, slots: int = 4) -> Choker:
    """Return a choker whose number of slots does not depend on the link."""
    return Choker(rng, slots=slots, max_slots=slots)


@pytest.fixture
def referee(rng: random.Random) -> Referee:
    """Return a referee of a choker with four slots."""
    return Referee(fixed_choker(rng))


# --- leeching: regular slots ------------------------------------------------------------------------------


def test_those_who_send_us_most_hold_the_regular_slots(referee: Referee) -> None:
    """Three of four slots are earned, whoever had them before."""
    referee.at(0, [0] * 10)
    for now in range(10, 200, 10):
        chosen = referee.at(now, [0, 0, 0, 0, 0, 300, 200, 100, 50, 25])
        assert len(chosen) == 4
        assert {"f", "g", "h"} <= set(chosen)


def test_nobody_is_displaced_between_two_rounds(referee: Referee) -> None:
    """A much better peer waits for the round."""
    before = referee.at(0, [0] * 4)
    for now in range(1, 10):
        assert referee.at(now, [1, 1, 1, 1, 900]) == before
    assert "e" in referee.at(10, [1, 1, 1, 1, 900])


def test_rates_that_waver_move_no_regular_slot(referee: Referee) -> None:
    """Another peer must be clearly faster, not just a little."""
    for now in range(0, 300, 10):
        referee.at(now, [100, 100, 100, 0])
    for now in range(300, 600, 10):
        assert referee.at(now, [100, 100, 100, 0, 0, 120])[:3] == "abc"
    rounds = [referee.at(now, [100, 100, 100, 0, 0, 130]) for now in range(600, 630, 10)]
    assert "f" in rounds[-1]


def test_an_optimistic_peer_that_sends_becomes_regular_and_another_gets_its_luck(referee: Referee) -> None:
    """This is how better partners are found."""
    rates = [200, 200, 100, 0, 0, 0]
    for now in range(0, 100, 10):
        referee.at(now, rates)
    lucky = referee.at(100, rates)[3]
    rates["abcdef".index(lucky)] = 900
    rounds = [referee.at(now, rates) for now in range(110, 200, 10)]
    assert {"a", "b", lucky} < set(rounds[-1])
    seen = {name for now in range(200, 330, 10) for name in referee.at(now, rates)}
    assert seen == set("abcdef")


def test_a_peer_that_snubs_us_loses_its_regular_slot(referee: Referee) -> None:
    """However much it had sent: after two rounds of silence it gets what those get who send nothing."""
    for now in range(0, 100, 10):
        referee.at(now, [900, 10, 10, 10, *[0] * 16])
    rounds = [referee.at(now, [0, 10, 10, 10, *[0] * 16]) for now in range(100, 2 * HOUR, 10)]
    assert "a" in rounds[0]
    assert all("bcd" in chosen for chosen in rounds[3:])
    assert 0 < sum("a" in chosen for chosen in rounds) / len(rounds) < 0.1


def test_slots_that_nobody_earns_are_optimistic(referee: Referee) -> None:
    """Anti-snubbing: when the partners stop sending, more than one new one is tried at a time."""
    rounds = [referee.at(now, [100, 100, 100, *[0] * 16]) for now in range(0, 100, 10)]
    assert rounds[-1][:3] == "abc"
    seen = {name for now in range(100, 260, 10) for name in referee.at(now, [0] * 19)}
    assert len(seen - set("abc")) == 16


def test_whoever_was_just_unchoked_keeps_its_slot_at_a_round(referee: Referee) -> None:
    """A regular peer that comes back waits for the next round."""
    for now in range(0, 100, 10):
        assert referee.at(now, [300, 200, 100, 0]) == "abcd"
    assert referee.at(101, [300, 200, 100, 0], idle="c") == "abcd"
    assert referee.at(102, [300, 200, 100, 0, 0], idle="c") == "abde"  # e has the place of c
    assert referee.at(103, [300, 200, 100, -1, 0, 0], idle="c") == "abef"
    assert referee.at(110, [300, 200, 100, -1, 0, 0]) == "abef"
    assert referee.at(120, [300, 200, 100, -1, 0, 0])[:3] == "abc"


# --- leeching: optimistic slots ---------------------------------------------------------------------------


def test_the_optimistic_slot_moves_every_thirty_seconds(referee: Referee) -> None:
    """Three rounds for each, to everybody in turn before anybody has a second one."""
    rates = [100, 100, 100, *[0] * 8]
    for now in range(0, 300, 10):
        referee.at(now, rates)
    turns = [referee.at(now, rates)[3:] for now in range(300, 300 + 24 * 30, 10)]
    each = [turns[place : place + 3] for place in range(0, len(turns), 3)]
    assert all(first == second == third for first, second, third in each)
    assert Counter(turn[0] for turn in each) == dict.fromkeys("defghijk", 3)


def test_an_optimistic_turn_goes_on_while_nobody_waits(referee: Referee) -> None:
    """Nobody is choked for the sake of a clock."""
    for now in range(0, 600, 10):
        assert referee.at(now, [100, 100, 100, 0]) == "abcd"


def test_new_peers_are_three_times_as_likely(rng: random.Random) -> None:
    """Where 8 wait and 4 are new, a new one is drawn in 12 cases of 20."""
    old = [PeerView(key, interested=True) for key in range(8)]
    new = [PeerView(key, interested=True) for key in range(8, 12)]
    holder = PeerView("holder", interested=True)
    drawn = Counter[Hashable]()
    for _ in range(3000):
        choker = fixed_choker(rng, slots=1)
        choker.choose([holder], 0, seeding=False)
        choker.choose([holder, *old], 1, seeding=False)
        drawn.update(choker.choose([*old, *new], 1 + NEW_PEER_AGE, seeding=False))
    for key in range(8, 12):
        assert drawn[key] / 3000 == pytest.approx(NEW_PEER_TICKETS / (4 * NEW_PEER_TICKETS + 8), abs=0.025)
    assert drawn[0] == 3000 - sum(drawn[key] for key in range(8, 12))  # of the others the longest waiting


def test_a_peer_is_new_for_its_first_turn_only(rng: random.Random) -> None:
    """Soon after its turn it has one ticket, where one that comes then has three."""
    a, b, c = (PeerView(key, interested=True) for key in "abc")
    drawn = Counter[Hashable]()
    for _ in range(1000):
        choker = fixed_choker(rng, slots=1)
        choker.choose([a], 0, seeding=False)
        assert choker.choose([a, b], 30, seeding=False) == {"b"}
        drawn.update(choker.choose([a, c], 45, seeding=False))
    assert drawn["c"] / 1000 == pytest.approx(NEW_PEER_TICKETS / (NEW_PEER_TICKETS + 1), abs=0.04)


def test_all_who_wait_have_a_turn_before_anybody_has_a_second_one(referee: Referee) -> None:
    """Also where all slots are optimistic."""
    turns = [set(referee.at(now, [0] * 12)) for now in (0, 30, 60)]
    assert set.union(*turns) == set("abcdefghijkl")


def test_newcomers_do_not_shut_out_those_who_wait(rng: random.Random) -> None:
    """A stream of them, one each ten seconds, takes its share of turns and no more."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    residents = [Remote(takes=100 * KB) for _ in range(20)]
    swarm.peers += residents

    def replace_the_oldest_newcomer() -> None:
        if swarm.second % 10 == 0:
            swarm.peers = [*residents, *swarm.peers[20:][-20:], Remote(takes=100 * KB)]

    swarm.run(2 * HOUR, replace_the_oldest_newcomer)
    assert min(peer.served for peer in residents) > 0.7 * 2 * HOUR * 4 / 41
    assert max(max(peer.waits(swarm.second)) for peer in residents) < 20 * 60


def test_free_riders_get_optimistic_turns_only(rng: random.Random) -> None:
    """Among twenty peers that reciprocate, a peer that sends nothing gets less than a third of their service."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    traders = [Remote(sends=(20 + 10 * place) * KB) for place in range(20)]
    riders = [Remote(), Remote()]
    swarm.peers = [*riders, *traders]
    swarm.run(4 * HOUR)
    best = sorted(traders, key=lambda peer: peer.uploaded)[-3:]
    everything = sum(peer.uploaded for peer in swarm.peers)
    for rider in riders:
        assert rider.turns
        assert all(end - begin == OPTIMISTIC_TURN for begin, end in rider.turns)
        assert rider.uploaded / everything < 1 / 60  # one slot of four, shared with the 18 that are not regular
        assert max(rider.waits(swarm.second)) < 20 * 60
    assert sum(peer.uploaded for peer in best) / everything > 0.6
    assert {peer.sends for peer in best} <= {peer.sends for peer in traders[-6:]}


# --- who wants nothing ------------------------------------------------------------------------------------


def test_a_free_slot_is_given_away_at_once(referee: Referee) -> None:
    """To a peer that comes, that gets interested, or that has waited when another leaves or wants no more."""
    assert referee.at(0, [0, 0]) == "ab"
    assert referee.at(0.1, [0, 0, 0, 0], idle="d") == "abc"
    assert referee.at(0.2, [0, 0, 0, 0]) == "abcd"
    assert referee.at(0.3, [0, 0, 0, 0, 0, 0]) == "abcd"
    assert referee.at(0.4, [-1, 0, 0, 0, 0, 0])[:3] == "bcd"
    assert referee.at(0.5, [-1, 0, 0, 0, 0, 0], idle="b") == "cdef"


def test_the_best_sender_gets_a_free_regular_slot(referee: Referee) -> None:
    """Luck decides about the optimistic slot only."""
    rounds = [referee.at(now, [100, 100, 100, 0, 30, 20, 0, 0]) for now in range(0, 200, 10)]
    assert rounds[-1][:3] == "abc"
    assert "e" in referee.at(200, [100, 100, -1, 0, 30, 20, 0, 0])


def test_a_peer_that_loses_interest_stays_unchoked_while_nobody_wants_its_place(referee: Referee) -> None:
    """A partner whose interest comes and goes with every piece is told nothing each time."""
    for now in range(0, 600, 3):
        referee.at(now, [0] * 4, idle="abcd"[now % 4 :][:2] if now else "")
    assert referee.changes == dict.fromkeys("abcd", 1)


def test_of_those_without_interest_the_best_sender_goes_last(referee: Referee) -> None:
    """It is the likeliest to be unchoked again."""
    for now in range(0, 50, 10):
        referee.at(now, [10, 30, 20, 40])
    assert referee.at(51, [10, 30, 20, 40], idle="abcd") == "abcd"
    assert referee.at(52, [10, 30, 20, 40, 0], idle="abcd") == "bcde"
    assert referee.at(53, [10, 30, 20, 40, 0, 0], idle="abcd") == "bdef"
    assert referee.at(54, [10, 30, 20, 40, 0, 0, 0], idle="abcd") == "defg"


@pytest.mark.parametrize("seeding", [False, True])
def test_a_turn_begins_with_interest(referee: Referee, seeding: bool) -> None:
    """What a peer did not use of its slot is not counted."""
    referee.at(0, [0], seeding=seeding)
    for now in range(1, 500, 7):
        referee.at(now, [0], idle="a", seeding=seeding)
    for now in range(500, 525, 5):
        assert "a" in referee.at(now, [0] * 20, seeding=seeding)


def test_nobody_is_unchoked_without_slots(rng: random.Random) -> None:
    """A user may want to serve nobody."""
    choker = Choker(rng, slots=0)
    for now in range(0, 100, 10):
        assert choker.choose([PeerView(0, interested=True, uploaded=now << 30)], now, seeding=True) == set()


# --- seeding ----------------------------------------------------------------------------------------------


def test_a_seed_serves_everybody_evenly(rng: random.Random) -> None:
    """Forty leechers, four slots, three hours: the same bytes for all, and never longer than ten turns to wait."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=True)
    swarm.peers = [Remote() for _ in range(40)]
    swarm.run(3 * HOUR)
    got = [peer.uploaded for peer in swarm.peers]
    assert max(got) / min(got) < 1.1
    assert max(max(peer.waits(swarm.second)) for peer in swarm.peers) <= 9 * SEED_TURN
    assert max(swarm.referee.changes.values()) <= 3 * HOUR / (10 * SEED_TURN) * 2 + 2


def test_a_seed_gives_slow_peers_time_and_fast_peers_bytes(rng: random.Random) -> None:
    """The slow ones hold no slot for longer than a minute, the fast ones for no more than the quota."""
    swarm = Swarm(fixed_choker(rng), rng, link=8000 * KB, seeding=True)
    slow, fast = [Remote(takes=5 * KB) for _ in range(20)], [Remote(takes=1500 * KB) for _ in range(20)]
    swarm.peers = [*slow, *fast]
    swarm.run(2 * HOUR)
    for peer in slow:
        assert {end - begin for begin, end in peer.turns[:-1]} == {SEED_TURN}
    for peer in fast:
        assert {end - begin for begin, end in peer.turns[:-1]} == {math.ceil(SEED_QUOTA / (1500 * KB) / ROUND) * ROUND}
    for alike in (slow, fast):
        turns = [len(peer.turns) for peer in alike]
        assert max(turns) - min(turns) <= 1
    assert max(max(peer.waits(swarm.second)) for peer in swarm.peers) < 10 * SEED_TURN


def test_a_seed_serves_on_when_nobody_waits(referee: Referee) -> None:
    """A turn that is used up ends when another peer wants one, at the next round, the longest first."""
    referee.at(0, [0], seeding=True)
    for now in range(5, 300, 5):
        assert referee.at(now, [0] * 4, seeding=True) == "abcd"
    assert referee.at(299, [0] * 5, seeding=True) == "abcd"
    assert referee.at(300, [0] * 5, seeding=True) == "bcde"


def test_a_download_that_becomes_a_seed_lets_turns_go_on(referee: Referee) -> None:
    """Completion itself chokes nobody."""
    before = referee.at(0, [0] * 8)
    for now in range(10, 60, 10):
        assert referee.at(now, [0] * 8, seeding=True) == before
    assert not set(referee.at(60, [0] * 8, seeding=True)) & set(before)


def test_a_turn_at_a_seed_lasts_a_round_at_least(rng: random.Random) -> None:
    """However fast the quota is reached: a round that comes a second after the unchoke ends nothing."""
    referee = Referee(fixed_choker(rng, slots=1))
    a, b = PeerView("a", interested=True), PeerView("b", interested=True)
    assert referee.choose([a], seeding=True) == {"a"}
    referee.now = 9
    assert referee.choose([b], seeding=True) == {"b"}
    for now, expected in ((10, "b"), (19, "b"), (20, "a")):
        referee.now = now
        served = PeerView("b", interested=True, uploaded=2 * SEED_QUOTA)
        assert referee.choose([served, PeerView("a", interested=True)], seeding=True) == {expected}


# --- how many ---------------------------------------------------------------------------------------------


def test_slots_grow_with_the_square_root_of_the_rate() -> None:
    """Ten KiB/s more for each of them with each one more."""
    rates = [0, 10, 160, 249, 250, 640, 1000, 4000, 1e6]
    assert [slots_for(rate * 1024) for rate in rates] == [4, 4, 4, 4, 5, 8, 10, 20, 20]
    assert slots_for(1e9, least=30) == 30
    assert slots_for(1e9, least=2, most=3) == 3


def test_a_fast_link_opens_more_slots_and_a_lull_does_not_close_them_at_once(rng: random.Random) -> None:
    """A seed with 1 MB/s and forty leechers serves nine at a time, and still so after a minute without any."""
    swarm = Swarm(Choker(rng), rng, link=1000 * KB, seeding=True)
    leechers = [Remote() for _ in range(40)]
    swarm.peers = list(leechers)
    swarm.run(20)
    assert swarm.referee.choker.slots == len(swarm.referee.unchoked) == 9
    for peer in leechers:
        peer.interested = False
    swarm.run(60)
    assert swarm.referee.choker.slots >= 8
    swarm.run(HOUR)
    assert swarm.referee.choker.slots == MIN_SLOTS


def test_slots_do_not_close_on_those_who_just_got_them(rng: random.Random) -> None:
    """The link is slow by now, but all who are served have come a second before the round."""
    referee = Referee(Choker(rng))
    for referee.now in (0, 10):
        referee.choose([PeerView("fast", interested=True, uploaded=int(referee.now * 1000 * KB))], seeding=True)
    views: list[PeerView] = []
    for now in range(20, HOUR, 10):
        views = [PeerView((now, place), interested=True) for place in range(9)]
        for referee.now in (now - 1, now):
            assert len(referee.choose(views, seeding=True)) == 9
    referee.now = HOUR
    assert len(referee.choose(views, seeding=True)) == MIN_SLOTS


def test_a_slow_link_keeps_its_four_slots(rng: random.Random) -> None:
    """More would give each peer too little."""
    swarm = Swarm(Choker(rng), rng, link=100 * KB, seeding=True)
    swarm.peers = [Remote() for _ in range(40)]
    swarm.run(HOUR)
    assert swarm.referee.choker.slots == MIN_SLOTS


def test_of_twenty_slots_four_are_optimistic(rng: random.Random) -> None:
    """More slots look for more partners."""
    referee = Referee(fixed_choker(rng, slots=20))
    rounds = [referee.at(now, [*range(100, 2500, 100), 0, 0]) for now in range(0, 600, 10)][10:]
    assert {len(chosen) for chosen in rounds} == {20}
    assert set.intersection(*map(set, rounds)) == set("ijklmnopqrstuvwx")
    assert set.union(*map(set, rounds)) == set(ascii_lowercase)


# --- long runs --------------------------------------------------------------------------------------------


def busy_swarm(seed: int, seconds: int, *, seeding: bool) -> tuple[Swarm, list[Remote]]:
    """Return a swarm after a time of coming, going and changing minds, and all who ever were in it."""
    rng = random.Random(seed)
    swarm = Swarm(Choker(rng), rng, link=600 * KB, seeding=seeding)
    everybody: list[Remote] = []

    def live() -> None:
        if rng.random() < TICK / 30 and len(swarm.peers) < 50:
            peer = Remote(sends=rng.choice([0, 20, 50, 200]) * KB, takes=rng.choice([30, 300, 3000]) * KB)
            peer.reciprocates = rng.random() < 0.7
            swarm.peers.append(peer)
            everybody.append(peer)
            swarm.ask()
        if rng.random() < TICK / 40 and swarm.peers:
            swarm.peers.pop(rng.randrange(len(swarm.peers)))
            swarm.ask()
        for peer in swarm.peers:
            if rng.random() < (TICK / 200 if peer.interested else TICK / 20):
                peer.interested = not peer.interested
                swarm.ask()

    swarm.run(seconds, live)
    return swarm, everybody


@pytest.mark.parametrize("seeding", [False, True])
def test_hours_of_a_busy_swarm_break_no_rule(seeding: bool) -> None:
    """Two hours with hundreds of peers; the referee looks at every answer, here only at how many changed."""
    swarm, everybody = busy_swarm(7, 2 * HOUR, seeding=seeding)
    assert len(everybody) > 200
    assert len(swarm.peers) > 20
    assert sum(swarm.referee.changes.values()) / (2 * HOUR) < 0.5  # messages a second, to all peers together


def test_the_same_luck_makes_the_same_choices() -> None:
    """Nothing but the arguments decides, so that a bug can be seen again."""
    runs = [[peer.turns for peer in busy_swarm(3, HOUR // 2, seeding=False)[1]] for _ in range(2)]
    assert runs[0] == runs[1]


def test_equal_partners_are_not_exchanged_all_the_time(rng: random.Random) -> None:
    """Ten peers that send alike, whatever we do: their wavering rates move few slots."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    swarm.peers = [Remote(sends=100 * KB, reciprocates=False) for _ in range(10)]
    swarm.run(2 * HOUR)
    optimistic = 2 * 2 * HOUR / OPTIMISTIC_TURN
    assert sum(swarm.referee.changes.values()) < 2 * optimistic  # without the incumbents' bonus more than 4


def test_in_a_swarm_of_ourselves_those_who_give_more_get_more(rng: random.Random) -> None:
    """Twelve peers, each with our choker: tit for tat emerges, and free riders live on luck."""
    links = [200 * KB] * 4 + [50 * KB] * 4 + [0] * 4
    everyone = range(len(links))
    referees = [Referee(fixed_choker(random.Random(rng.random()))) for _ in everyone]
    sent = [[0] * len(links) for _ in everyone]  # sent[a][b]: bytes from a to b
    for now in range(0, HOUR, TICK):
        for me, referee in enumerate(referees):
            others = [other for other in everyone if other != me]
            views = [PeerView(other, interested=True, downloaded=sent[other][me]) for other in others]
            referee.now = now
            for other in sorted(referee.choose(views), key=str):
                sent[me][int(str(other))] += links[me] * TICK // 4
    got = [sum(row[me] for row in sent) / HOUR for me in everyone]
    fast, slow, riders = got[:4], got[4:8], got[8:]
    assert min(fast) > 2.5 * max(slow)
    assert min(slow) > 1.25 * max(riders)
    assert min(riders) > 20 * KB


# --- any input --------------------------------------------------------------------------------------------

_views = st.builds(
    PeerView,
    key=st.integers(0, 7),
    interested=st.sampled_from([True, True, True, False]),
    downloaded=st.integers(0, 1000),
    uploaded=st.integers(0, 3 * SEED_QUOTA),
)
_steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.4, 1.0, 3.0, 9.9, 10.0, 70.0]),
        st.lists(_views, unique_by=lambda view: view.key, min_size=2, max_size=8),
        st.booleans(),
    ),
    min_size=5,
    max_size=20,
)


@settings(max_examples=70)
@given(steps=_steps, slots=st.integers(0, 4), more=st.integers(0, 3), seed=st.integers(0, 9))
def test_any_input_breaks_no_rule(
    steps: list[tuple[float, list[PeerView], bool]], slots: int, more: int, seed: int
) -> None:
    """Whatever peers do and whenever it is asked; and being asked again changes nothing."""
    referee = Referee(Choker(random.Random(seed), slots=slots, max_slots=slots + more), start=1000.0)
    for seconds, views, seeding in steps:
        referee.now += seconds
        chosen = referee.choose(views, seeding=seeding)
        assert slots <= referee.choker.slots <= slots + more
        assert referee.choose(views, seeding=seeding) == chosen


@given(rates=st.lists(st.floats(0, 1e12), min_size=2, max_size=10))
def test_a_faster_link_never_has_fewer_slots(rates: list[float]) -> None:
    """And the number stays between its limits."""
    counts = [slots_for(rate) for rate in sorted(rates)]
    assert counts == sorted(counts)
    assert MIN_SLOTS <= counts[0] <= counts[-1] <= MAX_SLOTS
