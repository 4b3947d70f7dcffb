"""Announcing over hours and days of a clock that the test moves: tiers, back-off, events, and goodbye."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from socket import AddressFamily

import pytest

from tests.support import FakeClock, wait_until
from torrent_client.abort import Abort
from torrent_client.announcer import ASKED_AT_ONCE, Announcer, TrackerStatus, retry_delay, start_thread
from torrent_client.config import MAX_TRACKERS, Config
from torrent_client.errors import TrackerError, TrackerSilent
from torrent_client.tracker_client import AnnounceResponse, PeerAddress, Progress

CONFIG = Config(tracker_stop_timeout=0.5)
PEERS = (PeerAddress("10.0.0.1", 6881), PeerAddress("10.0.0.2", 6881))
HOUR = 3600.0


@dataclass
class Announce:
    """One announce that a fake tracker got."""

    at: float
    event: str | None
    progress: Progress
    num_want: int | None
    tracker_id: bytes | None
    time_limit: float | None
    family: AddressFamily | None
    abort: Abort | None


@dataclass
class FakeTracker:
    """Stands in for a TrackerClient.

    Attributes:
        url: its name.
        clock: the test's.
        reply: what the next announces get; an error is raised.
        log: what it was told.
        during: is called while it is being asked.
        has: the kinds of addresses that it has.
    """

    url: str
    clock: FakeClock
    reply: AnnounceResponse | Exception = field(default_factory=lambda: AnnounceResponse(PEERS, 1800.0))
    log: list[Announce] = field(default_factory=list)
    during: Callable[[], object] = lambda: None
    has: tuple[AddressFamily | None, ...] = (None,)

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,
        time_limit: float | None = None,
        family: AddressFamily | None = None,
        abort: Abort | None = None,
    ) -> AnnounceResponse:
        """Note down the announce, and give the reply."""
        self.log.append(Announce(self.clock.now, event, progress, num_want, tracker_id, time_limit, family, abort))
        self.during()
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def families(self) -> Sequence[AddressFamily | None]:
        """Return the kinds of addresses that it has."""
        return self.has

    @property
    def times(self) -> list[float]:
        """When it was asked, in seconds since the clock's beginning."""
        return [announce.at - 1000.0 for announce in self.log]

    @property
    def events(self) -> list[str | None]:
        """The events that it was told."""
        return [announce.event for announce in self.log]

    def fail(self, reason: str = "down", retry_in: float | None = None) -> None:
        """Fail from now on."""
        self.reply = TrackerError(reason, retry_in)

    def recover(self, interval: float = 1800.0) -> None:
        """Answer from now on."""
        self.reply = AnnounceResponse(PEERS, interval)


class NoShuffle(random.Random):
    """Leaves tiers in their order."""

    def sample(self, population: Sequence[FakeTracker], k: int) -> list[FakeTracker]:  # type: ignore[override]
        """Return all, as they are."""
        return list(population)[:k]


@pytest.fixture
def trackers(clock: FakeClock) -> list[FakeTracker]:
    """Return trackers a, b, c, d."""
    return [FakeTracker(f"http://{name}/announce", clock) for name in "abcd"]


class Rig:
    """An announcer with what it told its owner."""

    def __init__(
        self,
        tiers: Sequence[Sequence[FakeTracker]],
        clock: FakeClock,
        config: Config = CONFIG,
        *,
        is_private: bool = False,
    ) -> None:
        self.clock = clock
        self.found: list[PeerAddress] = []
        self.progress = Progress(0, 0, 500)
        self.announcer = Announcer(
            tiers,  # type: ignore[arg-type]  # a fake is all that it needs
            lambda: self.progress,
            self.found.extend,
            config,
            NoShuffle(),
            clock,
            is_private=is_private,
            spawn=lambda work: work(),
        )

    def run(self, seconds: float) -> None:
        """Let the announcer do what it would do in so much time."""
        end = self.clock.now + seconds
        rounds = 0
        while True:
            due = self.announcer.announce_round()
            rounds += 1
            assert rounds < 10_000, "the announcer does not wait between its rounds"
            if due > end:
                self.clock.advance(end - self.clock.now)
                return
            self.clock.advance(max(0.0, due - self.clock.now))

    def status(self, number: int) -> TrackerStatus:
        """Return the status of the tracker that is asked as number `number`."""
        return self.announcer.statuses()[number]


# --- one tracker ------------------------------------------------------------------------------------------


def test_a_tracker_is_asked_at_its_interval(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """`started` once, then without event, every half hour for a day."""
    rig = Rig([trackers[:1]], clock)
    rig.run(24 * HOUR)
    assert trackers[0].times == [1800.0 * number for number in range(49)]
    assert trackers[0].events == ["started"] + [None] * 48
    assert rig.found == list(PEERS) * 49


@pytest.mark.parametrize(
    ("interval", "min_interval", "waited"),
    [
        (1800, 0, 1800),
        (1, 0, 60),
        (0, 0, 60),
        (30, 100, 100),
        (900, 300, 900),
        (10**9, 0, 3600),
        (60, 10**9, 3600),
    ],
)
def test_intervals_have_limits(
    trackers: list[FakeTracker], clock: FakeClock, interval: float, min_interval: float, waited: float
) -> None:
    """A tracker's typo becomes neither a flood nor a silence; its minimum counts within these limits."""
    trackers[0].reply = AnnounceResponse((), interval, min_interval)
    rig = Rig([trackers[:1]], clock)
    assert rig.announcer.announce_round() == clock.now + waited


def test_failures_are_retried_later_and_later(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """5 + 12.5 n^2 seconds, at most an hour: a day of failing costs a tracker few requests."""
    trackers[0].fail()
    Rig([trackers[:1]], clock).run(24 * HOUR)
    gaps = [after - before for before, after in zip(trackers[0].times, trackers[0].times[1:], strict=False)]
    assert gaps[:4] == [17.5, 55.0, 117.5, 205.0]
    assert gaps == sorted(gaps)
    assert gaps[-1] == HOUR
    assert len(gaps) < 50
    assert set(trackers[0].events) == {"started"}


def test_the_back_off_has_an_end() -> None:
    """After any number of failures."""
    assert [retry_delay(number, CONFIG) for number in (1, 2, 17, 1000)] == [17.5, 55.0, 3600.0, 3600.0]


def test_a_success_ends_the_back_off(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """And the first announce that gets through is the `started` one."""
    tracker = trackers[0]
    tracker.fail()
    rig = Rig([[tracker]], clock)
    rig.run(100)
    assert (rig.status(0).state, rig.status(0).failures, rig.status(0).error) == ("failing", 3, "down")
    tracker.recover()
    rig.run(100)
    assert tracker.events == ["started"] * 4
    assert (rig.status(0).state, rig.status(0).failures, rig.status(0).error) == ("working", 0, None)
    tracker.fail()
    rig.run(1801)
    assert rig.status(0).failures == 1
    assert tracker.events[4:] == [None]


def test_a_tracker_may_ask_for_more_time(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """BEP 31: `retry in` counts when it is later than our own back-off, and is never earlier."""
    trackers[0].fail(retry_in=600.0)
    rig = Rig([trackers[:1]], clock)
    assert rig.announcer.announce_round() == clock.now + 600.0
    trackers[0].fail(retry_in=1.0)
    clock.advance(600)
    assert rig.announcer.announce_round() == clock.now + 55.0


def test_the_tracker_id_is_given_back(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """To the tracker that gave it, also after answers without one."""
    first, second = trackers[:2]
    rig = Rig([[first], [second]], clock)
    first.reply = AnnounceResponse((), 60.0, tracker_id=b"\x01")
    rig.run(60)
    first.recover(60.0)
    rig.run(60)
    first.fail()
    rig.run(60)
    assert [announce.tracker_id for announce in first.log[:4]] == [None, b"\x01", b"\x01", b"\x01"]
    assert second.log[0].tracker_id is None


def test_progress_is_told_as_it_is_then(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Each announce has the totals of its moment."""
    rig = Rig([trackers[:1]], clock)
    rig.run(10)
    rig.progress = Progress(7, 8, 9)
    rig.run(1800)
    assert [announce.progress for announce in trackers[0].log] == [Progress(0, 0, 500), Progress(7, 8, 9)]


def test_the_status_tells_what_the_tracker_said(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Number of peers, counts, warning, and the next time: nobody has to guess what goes on."""
    trackers[0].reply = AnnounceResponse(PEERS, 900.0, seeders=3, leechers=4, warning="update your client")
    rig = Rig([trackers[:1]], clock)
    assert rig.status(0) == TrackerStatus("http://a/announce")
    states: list[str] = []
    trackers[0].during = lambda: states.append(rig.status(0).state)
    rig.run(10)
    assert states == ["asking"]
    assert rig.status(0) == TrackerStatus(
        "http://a/announce",
        state="working",
        warning="update your client",
        next_announce=1900.0,
        peers=2,
        seeders=3,
        leechers=4,
    )


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), ZeroDivisionError("a bug")])
def test_any_error_is_a_failure_of_that_tracker(
    trackers: list[FakeTracker], clock: FakeClock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is logged; the next tracker is asked, and this one later; its goodbye does not hinder that of others."""
    trackers[0].reply = error
    rig = Rig([trackers[:1], trackers[1:2]], clock)
    rig.announcer.announce_round()
    assert trackers[1].events == ["started"]
    assert (rig.status(0).state, rig.status(0).failures) == ("failing", 1)
    assert caplog.text.count("Traceback") == 1
    trackers[0].recover()
    rig.run(1800)
    trackers[0].reply = error
    rig.announcer._say_stopped()
    assert trackers[0].events[-1] == trackers[1].events[-1] == "stopped"
    assert caplog.text.count("Traceback") == 2


def test_an_error_of_ours_with_the_peers_does_not_end_announcing(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """The tracker has accepted the event, and is not told again."""
    rig = Rig([trackers[:1]], clock)
    rig.announcer._on_peers = lambda _: 1 / 0  # type: ignore[assignment,return-value]
    rig.run(20)
    assert trackers[0].events == ["started", None]


# --- tiers ------------------------------------------------------------------------------------------------


def test_the_next_tracker_is_asked_only_when_one_fails(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """While the first one of a private torrent answers, nobody else is bothered."""
    Rig([trackers[:2], trackers[2:]], clock, is_private=True).run(24 * HOUR)
    assert [len(tracker.log) for tracker in trackers] == [49, 0, 0, 0]


def test_the_tracker_that_answers_comes_first_in_its_tier(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """BEP 12: b moves before a, and stays there when a is back; tier 2 of a private torrent is not asked."""
    a, b, c, _ = trackers
    a.fail()
    rig = Rig([[a, b], [c]], clock, is_private=True)
    rig.run(1)
    assert [status.url for status in rig.announcer.statuses()] == [b.url, a.url, c.url]
    a.recover()
    rig.run(24 * HOUR)
    assert (len(a.log), len(b.log), len(c.log)) == (1, 49, 0)


def test_the_second_tier_is_asked_when_all_of_the_first_fail(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """At once, without waiting for a back-off, also where only one tracker is to be asked at a time."""
    a, b, c, d = trackers
    a.fail()
    b.fail()
    c.fail()
    rig = Rig([[a, b], [c, d]], clock, is_private=True)
    rig.run(1)
    assert [tracker.times for tracker in trackers] == [[0.0]] * 4
    assert [status.url for status in rig.announcer.statuses()] == [a.url, b.url, d.url, c.url]
    assert rig.found == list(PEERS)


def test_a_better_tier_is_tried_again(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """When the first tier of a private torrent is back, it is found again, and the second is left alone."""
    a, b, *_ = trackers
    a.fail()
    rig = Rig([[a], [b]], clock, is_private=True)
    rig.run(HOUR)
    assert len(b.log) == 3
    a.recover()
    rig.run(24 * HOUR)
    assert a.events[-48:] == ["started"] + [None] * 47
    assert len(b.log) == 3


def test_all_trackers_failing_are_asked_for_ever(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Each at its own pace; one that comes back after two days is noticed within an hour."""
    for tracker in trackers:
        tracker.fail()
    rig = Rig([trackers[:2], trackers[2:]], clock)
    rig.run(48 * HOUR)
    assert not rig.found
    trackers[3].recover()
    rig.run(HOUR)
    assert rig.found[:2] == list(PEERS)


def test_tiers_are_shuffled_once(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """BEP 12: within a tier in random order, so that the load spreads; tiers keep their order."""

    def order(seed: int) -> list[str]:
        tiers = [trackers[:3], trackers[3:]]
        announcer = Announcer(tiers, lambda: Progress(0, 0, 1), print, CONFIG, random.Random(seed), clock)  # type: ignore[arg-type]
        return [status.url for status in announcer.statuses()]

    orders = {tuple(order(seed)) for seed in range(50)}
    assert len(orders) == 6
    assert {tier[-1] for tier in orders} == {trackers[3].url}


def test_all_tiers_are_asked_at_once(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """The first one may know nobody: each tier has a tracker that works."""
    rig = Rig([trackers[:2], trackers[2:3], trackers[3:]], clock)
    rig.run(24 * HOUR)
    assert [len(tracker.log) for tracker in trackers] == [49, 0, 49, 49]
    assert [status.tier for status in rig.announcer.statuses()] == [1, 1, 2, 3]


def test_a_url_is_asked_once_however_often_it_is_named(clock: FakeClock) -> None:
    """In several tiers; and of a hundred thousand a few."""
    same = [FakeTracker("http://a/announce", clock) for _ in range(3)]
    rig = Rig([same[:2], same[2:]], clock)
    assert len(rig.announcer.statuses()) == 1
    many = [FakeTracker(f"http://a{number}/announce", clock) for number in range(MAX_TRACKERS + 50)]
    assert len(Rig([[tracker] for tracker in many], clock).announcer.statuses()) == MAX_TRACKERS


class Parallel(Rig):
    """A rig whose announcer asks on threads of its own."""

    def __init__(
        self,
        tiers: Sequence[Sequence[FakeTracker]],
        clock: FakeClock,
        config: Config = CONFIG,
        *,
        is_private: bool = False,
    ) -> None:
        super().__init__(tiers, clock, config, is_private=is_private)
        self.announcer._spawn = start_thread


@pytest.fixture
def hanging(trackers: list[FakeTracker]) -> Iterator[FakeTracker]:
    """Return tracker a, which does not answer before the test ends, or it is aborted."""
    release = threading.Event()

    def hang() -> None:
        abort = trackers[0].log[-1].abort
        while not release.wait(0.01):
            if abort and abort.is_set:
                raise TrackerError("aborted")

    trackers[0].during = hang
    yield trackers[0]
    release.set()


def test_a_tracker_that_hangs_does_not_hold_up_other_tiers(
    hanging: FakeTracker, trackers: list[FakeTracker], clock: FakeClock
) -> None:
    """The download starts on the first answer; the stop does not wait for it either."""
    rig = Parallel([[hanging], trackers[1:2], trackers[2:3]], clock)
    rig.announcer.start()
    wait_until(lambda: len(rig.found) == 4)
    assert rig.status(0).state == "asking"
    stop(rig)
    assert [tracker.events for tracker in trackers[:3]] == [["started"], ["started", "stopped"], ["started", "stopped"]]


def test_a_tracker_that_hangs_does_not_hold_up_its_tier(
    hanging: FakeTracker, trackers: list[FakeTracker], clock: FakeClock
) -> None:
    """After a few seconds the next one is asked as well; who answers comes first."""
    rig = Parallel([trackers[:3]], clock, Config(tracker_stop_timeout=0.5, tracker_patience=0.05))
    rig.announcer.start()
    wait_until(lambda: bool(hanging.log))
    assert not trackers[1].log
    clock.advance(0.1)
    wait_until(lambda: bool(rig.found))
    stop(rig)
    assert not trackers[2].log
    assert rig.announcer.statuses()[0].url == trackers[1].url


def test_a_private_torrent_has_one_tracker_at_a_time(
    hanging: FakeTracker, trackers: list[FakeTracker], clock: FakeClock
) -> None:
    """Some sites ban those who are seen twice: nobody else is asked before this one has failed."""
    rig = Parallel([trackers[:1], trackers[1:2]], clock, is_private=True)
    hanging.has = (AddressFamily.AF_INET, AddressFamily.AF_INET6)
    rig.announcer.start()
    wait_until(lambda: bool(hanging.log))
    clock.advance(100)
    assert rig.announcer._turn([tracker for tier in rig.announcer._tiers for tracker in tier], clock.now)[0] is None
    stop(rig)
    assert not trackers[1].log
    assert [announce.family for announce in hanging.log] == [None]


def test_a_torrent_that_turns_out_to_be_private_is_treated_so(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """A magnet link does not say it."""
    rig = Rig([trackers[:1], trackers[1:2]], clock)
    rig.announcer.restrict()
    rig.run(HOUR)
    assert not trackers[1].log


def test_no_more_than_a_few_are_asked_at_once(clock: FakeClock) -> None:
    """A thread each: the others wait for their turn, and get it."""
    release = threading.Event()
    many = [FakeTracker(f"http://a{number}/announce", clock) for number in range(ASKED_AT_ONCE + 4)]
    for tracker in many:
        tracker.during = lambda: release.wait(10)
    rig = Parallel([[tracker] for tracker in many], clock)
    rig.announcer.start()
    wait_until(lambda: sum(len(tracker.log) for tracker in many) == ASKED_AT_ONCE)
    assert sum(status.state == "asking" for status in rig.announcer.statuses()) == ASKED_AT_ONCE
    release.set()
    wait_until(lambda: all(tracker.log for tracker in many))
    stop(rig)
    assert all(tracker.events == ["started", "stopped"] for tracker in many)


def test_a_thread_that_cannot_be_had_is_a_failure(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """It is tried again later."""
    rig = Rig([trackers[:1]], clock)

    def refuse(work: object) -> None:
        raise RuntimeError("can't start new thread")

    rig.announcer._spawn = refuse
    rig.run(1)
    assert (rig.status(0).state, rig.status(0).error) == ("failing", "can't start new thread")
    rig.announcer._spawn = lambda work: work()
    rig.run(20)
    assert trackers[0].events == ["started"]


def test_a_tracker_that_is_silent_over_udp_has_waits_of_its_own(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """BEP 15's, not our back-off; who has not been asked at all goes before the retry."""

    def say_nothing() -> None:
        clock.advance(15)
        trackers[0].reply = TrackerSilent("no answer", 15.0 * (2 ** (len(trackers[0].log) - 1) - 1))

    trackers[0].during = say_nothing
    trackers[1].fail()
    Rig([trackers[:2]], clock).run(200)
    assert trackers[0].times[:4] == [0.0, 15.0, 45.0, 105.0]
    assert trackers[1].times[0] == 15.0


# --- two kinds of addresses -------------------------------------------------------------------------------

BOTH = (AddressFamily.AF_INET, AddressFamily.AF_INET6)


def test_a_tracker_is_asked_at_both_kinds_of_addresses(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """BEP 7: with the same event; its peers are counted together, and both hear that we go."""
    trackers[0].has = BOTH
    rig = Rig([trackers[:1]], clock)
    rig.run(1)
    rig.announcer._say_stopped()
    assert [(announce.family, announce.event) for announce in trackers[0].log] == [
        (BOTH[0], "started"),
        (BOTH[1], "started"),
        (BOTH[0], "stopped"),
        (BOTH[1], "stopped"),
    ]
    assert rig.status(0).peers == 4


@pytest.mark.parametrize("bad", BOTH)
def test_one_kind_of_address_is_enough(trackers: list[FakeTracker], clock: FakeClock, bad: AddressFamily) -> None:
    """Many a machine has no IPv6: the tracker works, and there is no goodbye where nobody knows us."""
    tracker = trackers[0]
    tracker.has = BOTH

    def answer() -> None:
        tracker.fail("unreachable") if tracker.log[-1].family == bad else tracker.recover()

    tracker.during = answer
    rig = Rig([[tracker]], clock)
    rig.run(1)
    assert (rig.status(0).state, rig.status(0).error, rig.status(0).peers) == ("working", None, 2)
    rig.announcer._say_stopped()
    assert [announce.family for announce in tracker.log if announce.event == "stopped"] == [
        family for family in BOTH if family != bad
    ]


# --- the user asks for more -------------------------------------------------------------------------------


def test_the_user_can_have_trackers_asked_again(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Sooner than they said, not sooner than they allow; one that failed at once, but not all the time."""
    trackers[0].reply = AnnounceResponse((), 1800.0, min_interval=300.0)
    trackers[1].fail()
    rig = Rig([trackers[:1], trackers[1:2]], clock)
    rig.run(1)
    for _ in range(3):
        rig.announcer.announce_now()
        rig.run(1)
    assert trackers[1].times == [0.0, 5.0][: len(trackers[1].times)]
    rig.run(400)
    assert trackers[0].times == [0.0, 300.0]
    assert trackers[1].times[:2] == [0.0, 5.0]


# --- events -----------------------------------------------------------------------------------------------


def test_completed_is_told_at_once(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """In the middle of an interval, to the tracker that works."""
    rig = Rig([trackers[:2]], clock)
    rig.run(100)
    rig.announcer.announce_round("completed")
    assert trackers[0].events == ["started", "completed"]
    assert not trackers[1].log


def test_completed_is_told_when_the_tracker_is_back(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Private trackers count completions: a failed announce is made up for, once."""
    rig = Rig([trackers[:1]], clock)
    rig.run(10)
    trackers[0].fail()
    rig.announcer.announce_round("completed")
    trackers[0].recover()
    rig.run(HOUR)
    assert trackers[0].events == ["started", "completed", "completed", None]


def test_every_tracker_that_knows_us_hears_of_the_completion(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """The one that answers now at once, one that was asked before it when it is asked next."""
    rig = Rig([trackers[:1], trackers[1:2]], clock)
    rig.run(10)
    trackers[0].fail()
    rig.run(1800)
    rig.announcer.announce_round("completed")
    assert trackers[1].events[-1] == "completed"
    trackers[0].recover()
    rig.run(HOUR)
    assert trackers[0].events[-2:] == ["completed", None]


def test_a_tracker_that_does_not_know_us_is_told_started_first(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """`completed` from a stranger would make no sense to it."""
    rig = Rig([trackers[:2]], clock)
    rig.run(100)
    trackers[0].fail()
    rig.announcer.announce_round("completed")
    assert trackers[0].events == ["started", "completed"]
    assert trackers[1].events == ["started"]


# --- the thread -------------------------------------------------------------------------------------------


@pytest.fixture
def running(trackers: list[FakeTracker], clock: FakeClock) -> Rig:
    """Return an announcer of a then b, whose clock stands still, after its first round."""
    rig = Rig([trackers[:2]], clock)
    rig.announcer.start()
    wait_until(lambda: bool(trackers[0].log))
    return rig


def stop(rig: Rig) -> None:
    """Stop the announcer as its owner does."""
    rig.announcer.begin_stop()
    rig.announcer.finish_stop()


def test_the_thread_announces_and_says_goodbye(running: Rig, trackers: list[FakeTracker]) -> None:
    """`stopped` goes to the tracker that knows us, wants no peers and has a time limit; to no other."""
    stop(running)
    assert trackers[0].events == ["started", "stopped"]
    assert trackers[0].log[1].num_want == 0
    assert trackers[0].log[1].time_limit == CONFIG.tracker_stop_timeout
    assert not trackers[1].log


def test_completion_wakes_the_thread(running: Rig, trackers: list[FakeTracker]) -> None:
    """Nobody waits half an hour to tell that the download is complete."""
    running.announcer.completed()
    wait_until(lambda: len(trackers[0].log) == 2)
    stop(running)
    assert trackers[0].events == ["started", "completed", "stopped"]


def test_completed_and_stopped_at_once_are_both_told(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """A download without seeding completes and stops in the same moment; trackers count the completion."""
    rig = Rig([trackers[:1]], clock)
    first = threading.Event()
    trackers[0].during = lambda: first.wait(5)
    rig.announcer.start()
    wait_until(lambda: bool(trackers[0].log))
    rig.announcer.completed()
    rig.announcer.begin_stop()
    first.set()
    rig.announcer.finish_stop()
    assert trackers[0].events == ["started", "completed", "stopped"]


def test_a_stop_in_the_moment_of_completion_loses_neither(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """The thread has taken note of the completion, and is stopped before it could tell."""
    rig = Rig([trackers[:1]], clock)
    rig.run(10)
    rig.announcer.begin_stop()
    rig.announcer.announce_round("completed")
    rig.announcer._say_stopped()
    assert trackers[0].events == ["started", "completed", "stopped"]


def test_the_time_for_stopping_runs_from_its_beginning(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """What else took its time while the owner stopped is not waited for again."""
    release = threading.Event()
    trackers[0].during = lambda: release.wait(10)
    rig = Rig([trackers[:1]], clock, Config(tracker_stop_timeout=30.0))
    rig.announcer.start()
    wait_until(lambda: bool(trackers[0].log))
    rig.announcer.begin_stop()
    clock.advance(40)
    rig.announcer.begin_stop()
    begin = time.monotonic()
    rig.announcer.finish_stop()
    assert time.monotonic() - begin < 5
    release.set()


def test_every_tracker_that_knows_us_gets_a_goodbye(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """Also the one that worked before the present one; a failed goodbye holds nobody up."""
    rig = Rig([trackers[:1], trackers[1:2]], clock, is_private=True)
    rig.run(10)
    trackers[0].fail()
    clock.advance(1800)
    rig.announcer.start()
    wait_until(lambda: rig.status(1).state == "working")
    stop(rig)
    assert trackers[0].events == ["started", None, "stopped"]
    assert trackers[1].events == ["started", "stopped"]


def test_goodbyes_share_one_time_limit(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """The second tracker gets what the first one left of it, and nothing when nothing is left."""
    rig = Rig([trackers[:1], trackers[1:2], trackers[2:3]], clock)
    for number in range(3):
        rig.run(10)
        trackers[number].fail()
        clock.advance(1800)
    trackers[0].during = lambda: clock.advance(0.3)
    trackers[1].during = lambda: clock.advance(0.3)
    rig.announcer.start()
    wait_until(lambda: all(rig.status(number).state == "failing" for number in range(3)))
    stop(rig)
    limits = [tracker.log[-1].time_limit for tracker in trackers[:2]]
    assert limits == [0.5, pytest.approx(0.2)]
    assert "stopped" not in trackers[2].events


def test_completed_and_stopped_share_one_time_limit(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """What telling of the completion took, the goodbye does not get."""
    rig = Rig([trackers[:1]], clock)
    rig.run(10)
    rig.announcer.completed()
    trackers[0].during = lambda: clock.advance(0.3)
    rig.announcer._say_stopped()
    assert trackers[0].events == ["started", "completed", "stopped"]
    assert [announce.time_limit for announce in trackers[0].log[1:]] == [0.5, pytest.approx(0.2)]


def test_a_tracker_that_hangs_does_not_hold_up_the_end(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """`finish_stop` waits as long as stopping may take and no longer; the thread ends when it can."""
    release = threading.Event()
    trackers[0].during = lambda: release.wait(10)
    rig = Rig([trackers[:1]], clock, Config(tracker_stop_timeout=0.1))
    rig.announcer.start()
    wait_until(lambda: bool(trackers[0].log))
    stop(rig)
    assert trackers[0].events == ["started"]
    release.set()


def test_nothing_is_asked_without_trackers(clock: FakeClock) -> None:
    """A torrent with peers of its own needs no thread."""
    rig = Rig([], clock)
    rig.announcer.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "announce"]
    stop(rig)
    assert rig.announcer.statuses() == []


def test_stopping_before_starting_is_harmless(trackers: list[FakeTracker], clock: FakeClock) -> None:
    """And a thread that starts after that ends without a word."""
    rig = Rig([trackers[:1]], clock)
    rig.announcer.begin_stop()
    rig.announcer.start()
    rig.announcer.finish_stop()
    assert not trackers[0].log


def test_a_bug_in_the_thread_is_logged(
    trackers: list[FakeTracker], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with a traceback in the log, not in silence."""
    trackers[0].reply = ZeroDivisionError("oops")
    rig = Rig([trackers[:1]], clock)
    rig.announcer.start()
    wait_until(lambda: "oops" in caplog.text)
    stop(rig)
    assert "Traceback" in caplog.text
