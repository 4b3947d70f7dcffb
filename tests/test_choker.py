"""Who is unchoked: by reciprocation, by luck and in turn; over hours of virtual time, and for any input."""

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

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
from torrent_client.speed_meter import SpeedMeter

KB = 1000
HOUR = 3600


class Referee:
    """Asks a choker, as its caller does, and checks each answer against what must always hold."""

    def __init__(self, choker: Choker, start: float = 0.0) -> None:
        self.choker = choker
        self.now = start
        self.unchoked: set[Hashable] = set()
        self.began: dict[Hashable, float] = {}  # when each peer was unchoked, or got interested while it was
        self.choked: dict[Hashable, float] = {}  # when each peer lost its slot
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

    def at(self, now: float, views: Sequence[PeerView], *, seeding: bool = False) -> set[Hashable]:
        """Ask at a later time."""
        self.now = now
        return self.choose(views, seeding=seeding)


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
        self.download = SpeedMeter()
        self.upload = SpeedMeter()
        self.turns: list[tuple[int, int]] = []  # (first second, last second + 1) of each turn
        self.quiet_since = 0

    def view(self) -> PeerView:
        """Return what the choker sees of it."""
        return PeerView(
            self,
            interested=self.interested,
            download_rate=self.download.smoothed,
            upload_rate=self.upload.smoothed,
            uploaded=self.upload.total,
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
    """Our peers, second by second, with the bytes that flow.

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

    def run(self, seconds: int, each_second: Callable[[], None] = lambda: None) -> None:
        """Let time pass."""
        for _ in range(seconds):
            each_second()
            self.ask()
            self._flow()
            self.second += 1

    def _flow(self) -> None:
        """Move one second's bytes."""
        takers = [peer for peer in self.peers if peer in self.referee.unchoked and peer.interested]
        rest = self.link
        for place, peer in enumerate(sorted(takers, key=lambda taker: taker.takes)):
            share = min(peer.takes, rest / (len(takers) - place))
            rest -= share
            peer.upload.add(int(share))
            if peer.turns and peer.turns[-1][1] == self.second:
                peer.turns[-1] = (peer.turns[-1][0], self.second + 1)
            else:
                peer.turns.append((self.second, self.second + 1))
        for place, peer in enumerate(self.peers):
            is_lucky = self.second // 30 % 20 == place % 20
            if peer in takers or not peer.reciprocates or is_lucky:
                peer.download.add(int(peer.sends * self.rng.uniform(0.6, 1.4)))
            peer.download.tick(1.0)
            peer.upload.tick(1.0)


def views_of(*rates: float) -> list[PeerView]:
    """Return interested peers 0, 1, 2 ... that send us bytes at these rates."""
    return [PeerView(key, interested=True, download_rate=rate) for key, rate in enumerate(rates)]


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
    views = views_of(0, 0, 0, 0, 0, 300, 200, 100, 50, 25)
    referee.at(0, views_of(*[0] * 10))
    for now in range(10, 200, 10):
        chosen = referee.at(now, views)
        assert {5, 6, 7} <= chosen
        assert len(chosen) == 4


def test_nobody_is_displaced_between_two_rounds(referee: Referee) -> None:
    """A much better peer waits for the round."""
    before = referee.at(0, views_of(1, 1, 1, 1, 1))
    for now in range(1, 10):
        assert referee.at(now, views_of(1, 1, 1, 1, 1, 900)) == before
    assert 5 in referee.at(10, views_of(1, 1, 1, 1, 1, 900))


def test_rates_that_waver_move_no_regular_slot(referee: Referee) -> None:
    """A choked peer must be clearly faster, not just a little."""
    referee.at(0, views_of(100, 100, 100, 0))
    for now in range(10, 300, 10):
        assert {0, 1, 2} <= referee.at(now, views_of(100, 100, 100, 0, 0, 120))
    assert 5 in referee.at(300, views_of(100, 100, 100, 0, 0, 130))


def test_an_optimistic_peer_that_sends_becomes_regular_and_another_gets_its_luck(referee: Referee) -> None:
    """This is how better partners are found."""
    views = views_of(100, 100, 100, 0, 0, 0)
    (lucky,) = referee.at(0, views) - {0, 1, 2}
    rates = [100.0, 100.0, 50.0, 0.0, 0.0, 0.0]
    rates[int(str(lucky))] = 400.0
    chosen = referee.at(10, views_of(*rates))
    assert {0, 1, lucky} < chosen
    assert referee.at(40, views_of(*rates)) - {0, 1, lucky} != {2}


def test_a_peer_that_snubs_us_keeps_no_regular_slot(referee: Referee) -> None:
    """However fast it was: it gets what those get who send nothing."""
    snubbing = PeerView("snubs", interested=True, download_rate=1e6, snubs_us=True)
    views = [*views_of(*[10] * 3, *[0] * 20), snubbing]
    rounds = [referee.at(now, views) for now in range(0, 2 * HOUR, 10)]
    assert all({0, 1, 2} <= chosen for chosen in rounds)
    share = sum("snubs" in chosen for chosen in rounds) / len(rounds)
    assert 0 < share < 0.1


def test_slots_that_nobody_earns_are_optimistic(referee: Referee) -> None:
    """Anti-snubbing: when the partners stop sending, more than one new one is tried at a time."""
    good = views_of(100, 100, 100, *[0] * 16)
    for now in range(0, 100, 10):
        assert {0, 1, 2} <= referee.at(now, good)
    bad = [PeerView(view.key, interested=True, download_rate=5, snubs_us=view.key in {0, 1, 2}) for view in good[:3]]
    seen = set[Hashable]()
    for now in range(100, 230, 10):
        seen |= referee.at(now, [*bad, *good[3:]])
    assert len(seen - {0, 1, 2}) == 16


# --- leeching: optimistic slots ---------------------------------------------------------------------------


def test_the_optimistic_slot_moves_every_thirty_seconds(referee: Referee) -> None:
    """Three rounds for each, to everybody in turn before anybody has a second one."""
    views = views_of(100, 100, 100, *[0] * 8)
    turns = [referee.at(now, views) - {0, 1, 2} for now in range(0, 16 * 30, 10)]
    assert all(len(turn) == 1 for turn in turns)
    each = [turns[place : place + 3] for place in range(0, len(turns), 3)]
    assert all(first == second == third for first, second, third in each)
    assert Counter(key for turn in each for key in turn[0]) == dict.fromkeys(range(3, 11), 2)


def test_an_optimistic_turn_goes_on_while_nobody_waits(referee: Referee) -> None:
    """Nobody is choked for the sake of a clock."""
    for now in range(0, 600, 10):
        assert referee.at(now, views_of(100, 100, 100, 0)) == {0, 1, 2, 3}


def test_new_peers_are_three_times_as_likely(rng: random.Random) -> None:
    """Out of 8 waiting and 4 new ones a new one is drawn in 12 cases of 20."""
    old = views_of(*[0] * 9)
    new = [PeerView(f"new {place}", interested=True) for place in range(4)]
    drawn = Counter[bool]()
    for _ in range(3000):
        choker = fixed_choker(rng, slots=1)
        (holder,) = choker.choose(old, 0, seeding=False)
        now = NEW_PEER_AGE + 5
        (holder,) = choker.choose([*(view for view in old if view.key == holder), *old], now, seeding=False)
        waiting = [view for view in old if view.key != holder]
        (winner,) = choker.choose([*waiting, *new], now + 1, seeding=False)
        drawn[str(winner).startswith("new")] += 1
    expected = 4 * NEW_PEER_TICKETS / (4 * NEW_PEER_TICKETS + 8 - 1)  # one of the old ones has just been choked
    assert drawn[True] / 3000 == pytest.approx(expected, abs=0.03)


def test_a_peer_is_new_for_its_first_turn_only(referee: Referee) -> None:
    """Whoever had a turn queues up behind those who had none, however short it was."""
    views = views_of(*[0] * 12)
    first = referee.at(0, views)
    second = referee.at(30, views)
    third = referee.at(60, views)
    assert not first & second
    assert not (first | second) & third


def test_newcomers_do_not_shut_out_those_who_wait(rng: random.Random) -> None:
    """A stream of them, one each ten seconds, takes its share of turns and no more."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    residents = [Remote(takes=100 * KB) for _ in range(20)]
    swarm.peers += residents

    def replace_the_oldest_newcomer() -> None:
        if swarm.second % 10 == 0:
            swarm.peers = [*residents, *swarm.peers[20:][-20:], Remote(takes=100 * KB)]

    swarm.run(3 * HOUR, replace_the_oldest_newcomer)
    assert min(peer.served for peer in residents) > 0.7 * 3 * HOUR * 4 / 41
    assert max(max(peer.waits(swarm.second)) for peer in residents) < 20 * 60


def test_free_riders_get_optimistic_turns_only(rng: random.Random) -> None:
    """Among twenty peers that reciprocate, a peer that sends nothing gets less than a third of their service."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    traders = [Remote(sends=(20 + 10 * place) * KB) for place in range(20)]
    riders = [Remote(), Remote()]
    swarm.peers = [*riders, *traders]
    swarm.run(4 * HOUR)
    best = sorted(traders, key=lambda peer: peer.upload.total)[-3:]
    everything = sum(peer.upload.total for peer in swarm.peers)
    for rider in riders:
        assert rider.turns
        assert all(end - begin == OPTIMISTIC_TURN for begin, end in rider.turns)
        assert rider.upload.total / everything < 1 / 60  # one slot of four, shared with the 18 that are not regular
        assert max(rider.waits(swarm.second)) < 20 * 60
    assert sum(peer.upload.total for peer in best) / everything > 0.6
    assert {peer.sends for peer in best} <= {peer.sends for peer in traders[-6:]}


# --- who wants nothing ------------------------------------------------------------------------------------


def test_a_free_slot_is_given_away_at_once(referee: Referee) -> None:
    """To a peer that comes, that gets interested, or that has waited when another leaves or wants no more."""
    views = views_of(*[0] * 3)
    assert referee.at(0, views) == {0, 1, 2}
    assert referee.at(0.1, views_of(*[0] * 4)) == {0, 1, 2, 3}
    six = views_of(*[0] * 6)
    assert referee.at(0.2, six) == {0, 1, 2, 3}
    assert referee.at(0.3, six[1:]) - {4, 5} == {1, 2, 3}
    six[1] = PeerView(1, interested=False)
    assert referee.at(0.4, six[1:]) == {2, 3, 4, 5}


def test_the_best_sender_gets_a_free_regular_slot(referee: Referee) -> None:
    """Luck decides about the optimistic slot only."""
    referee.at(0, views_of(100, 100, 100, 0))
    assert referee.at(1, views_of(100, 100, 100, 0, 0, 30, 20, 0, 0)[1:]) == {1, 2, 3, 5}


def test_a_peer_that_loses_interest_stays_unchoked_while_nobody_wants_its_place(referee: Referee) -> None:
    """A partner whose interest comes and goes with every piece is told nothing each time."""
    for now in range(0, 600, 3):
        views = [PeerView(key, interested=(now + key) % 5 > 1) for key in range(4)]
        referee.at(now, views)
    assert referee.changes == dict.fromkeys(range(4), 1)


def test_of_those_without_interest_the_best_sender_goes_last(referee: Referee) -> None:
    """It is the likeliest to be unchoked again."""
    referee.at(0, views_of(10, 30, 20, 40))
    idle = [PeerView(key, interested=False, download_rate=rate) for key, rate in enumerate([10, 30, 20, 40])]
    assert referee.at(1, idle) == {0, 1, 2, 3}
    wanting = [PeerView(f"w{place}", interested=True) for place in range(3)]
    assert referee.at(2, [*idle, wanting[0]]) == {"w0", 1, 2, 3}
    assert referee.at(3, [*idle, *wanting[:2]]) == {"w0", "w1", 1, 3}
    assert referee.at(4, [*idle, *wanting]) == {"w0", "w1", "w2", 3}


@pytest.mark.parametrize("seeding", [False, True])
def test_a_turn_begins_with_interest(referee: Referee, seeding: bool) -> None:
    """What a peer did not use of its slot is not counted."""
    one = PeerView(0, interested=False, uploaded=5 * SEED_QUOTA)
    referee.at(0, views_of(0), seeding=seeding)
    referee.at(1, [one], seeding=seeding)
    referee.at(500, [one], seeding=seeding)
    one = PeerView(0, interested=True, uploaded=5 * SEED_QUOTA)
    for now in range(501, 529, 10):
        assert 0 in referee.at(now, [one, *views_of(*[0] * 9)[1:]], seeding=seeding)


def test_nobody_is_unchoked_without_slots(rng: random.Random) -> None:
    """A user may want to serve nobody."""
    choker = Choker(rng, slots=0)
    for now in range(0, 100, 10):
        assert choker.choose([PeerView(0, interested=True, upload_rate=1e9)], now, seeding=True) == set()


# --- seeding ----------------------------------------------------------------------------------------------


def test_a_seed_serves_everybody_evenly(rng: random.Random) -> None:
    """Forty leechers, four slots, three hours: the same bytes for all, and never longer than ten turns to wait."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=True)
    swarm.peers = [Remote() for _ in range(40)]
    swarm.run(3 * HOUR)
    got = [peer.upload.total for peer in swarm.peers]
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
    views = views_of(*[0] * 4)
    referee.at(0, views[:1], seeding=True)
    for now in range(5, 300, 5):
        assert referee.at(now, views, seeding=True) == {0, 1, 2, 3}
    assert referee.at(299, views_of(*[0] * 5), seeding=True) == {0, 1, 2, 3}
    assert referee.at(300, views_of(*[0] * 5), seeding=True) == {1, 2, 3, 4}


def test_a_download_that_becomes_a_seed_lets_turns_go_on(referee: Referee) -> None:
    """Completion itself chokes nobody."""
    before = referee.at(0, views_of(300, 200, 100, 0, 0, 0))
    assert referee.at(10, views_of(300, 200, 100, 0, 0, 0), seeding=True) == before
    assert not referee.at(60, views_of(300, 200, 100, 0, 0, 0, 0, 0), seeding=True) >= before


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


def test_a_slow_link_keeps_its_four_slots(rng: random.Random) -> None:
    """More would give each peer too little."""
    swarm = Swarm(Choker(rng), rng, link=100 * KB, seeding=True)
    swarm.peers = [Remote() for _ in range(40)]
    swarm.run(HOUR)
    assert swarm.referee.choker.slots == MIN_SLOTS


def test_of_twenty_slots_four_are_optimistic(rng: random.Random) -> None:
    """More slots look for more partners."""
    referee = Referee(fixed_choker(rng, slots=20))
    views = views_of(*range(100, 130), *[0] * 10)
    for now in range(0, 400, 10):
        chosen = referee.at(now, views)
    assert set(range(14, 30)) <= chosen
    assert len(chosen) == 20
    assert len(chosen - set(range(14, 30))) == 4


# --- long runs --------------------------------------------------------------------------------------------


def busy_swarm(seed: int, *, seeding: bool) -> tuple[Swarm, list[Remote]]:
    """Return a swarm after three hours of coming, going and changing minds, and all who ever were in it."""
    rng = random.Random(seed)
    swarm = Swarm(Choker(rng), rng, link=600 * KB, seeding=seeding)
    everybody: list[Remote] = []

    def live() -> None:
        if rng.random() < 1 / 40 and len(swarm.peers) < 50:
            peer = Remote(sends=rng.choice([0, 20, 50, 200]) * KB, takes=rng.choice([30, 300, 3000]) * KB)
            peer.reciprocates = rng.random() < 0.7
            swarm.peers.append(peer)
            everybody.append(peer)
            swarm.ask()
        if rng.random() < 1 / 50 and swarm.peers:
            swarm.peers.pop(rng.randrange(len(swarm.peers)))
            swarm.ask()
        for peer in swarm.peers:
            if rng.random() < (1 / 20 if not peer.interested else 1 / 200):
                peer.interested = not peer.interested
                swarm.ask()

    swarm.run(3 * HOUR, live)
    return swarm, everybody


@pytest.mark.parametrize("seeding", [False, True])
def test_hours_of_a_busy_swarm_break_no_rule(seeding: bool) -> None:
    """Three hours with hundreds of peers; the referee looks at every answer, here only at the sums."""
    swarm, everybody = busy_swarm(7, seeding=seeding)
    assert len(everybody) > 200
    seconds = sum(swarm.referee.changes.values())
    assert seconds / (3 * HOUR) < 0.5  # messages a second, to all peers together


def test_the_same_luck_makes_the_same_choices() -> None:
    """Nothing but the arguments decides, so that a bug can be seen again."""
    runs = [[peer.turns for peer in busy_swarm(3, seeding=False)[1]] for _ in range(2)]
    assert runs[0] == runs[1]


def test_equal_partners_are_not_exchanged_all_the_time(rng: random.Random) -> None:
    """Ten peers that send alike, whatever we do: their wavering rates move few slots."""
    swarm = Swarm(fixed_choker(rng), rng, link=400 * KB, seeding=False)
    swarm.peers = [Remote(sends=100 * KB, reciprocates=False) for _ in range(10)]
    swarm.run(2 * HOUR)
    optimistic = 2 * 2 * HOUR / OPTIMISTIC_TURN
    assert sum(swarm.referee.changes.values()) < 1.5 * optimistic


# --- any input --------------------------------------------------------------------------------------------

_views = st.builds(
    PeerView,
    key=st.integers(0, 11),
    interested=st.booleans(),
    download_rate=st.sampled_from([0.0, 10.0, 11.0, 500.0]),
    upload_rate=st.sampled_from([0.0, 1e3, 1e6]),
    uploaded=st.integers(0, 3 * SEED_QUOTA),
    snubs_us=st.booleans(),
)
_steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.4, 1.0, 3.0, 9.9, 10.0, 70.0]),
        st.lists(_views, unique_by=lambda view: view.key, max_size=12),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(steps=_steps, slots=st.integers(0, 6), more=st.integers(0, 4), seed=st.integers(0, 9))
def test_any_input_breaks_no_rule(
    steps: list[tuple[float, list[PeerView], bool]], slots: int, more: int, seed: int
) -> None:
    """Whatever peers do and whenever it is asked; and being asked again changes nothing."""
    referee = Referee(Choker(random.Random(seed), slots=slots, max_slots=slots + more), start=1000.0)
    for seconds, views, seeding in steps:
        chosen = referee.at(referee.now + seconds, views, seeding=seeding)
        assert slots <= referee.choker.slots <= slots + more
        assert referee.choose(views, seeding=seeding) == chosen


@given(rates=st.lists(st.floats(0, 1e12), min_size=2, max_size=10))
def test_a_faster_link_never_has_fewer_slots(rates: list[float]) -> None:
    """And the number stays between its limits."""
    counts = [slots_for(rate) for rate in sorted(rates)]
    assert counts == sorted(counts)
    assert MIN_SLOTS <= counts[0] <= counts[-1] <= MAX_SLOTS
