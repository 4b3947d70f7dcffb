"""The token bucket, in virtual time."""

import heapq
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import FakeClock
from torrent_client.config import BLOCK_SIZE, KIB, MIB
from torrent_client.rate_limiter import MAX_QUANTUM, SAVED_SECONDS, Limits, RateLimiter


def run(
    limiter: RateLimiter, clock: FakeClock, callers: dict[str, int], seconds: float
) -> list[tuple[float, str, int]]:
    """Let callers book their amounts again and again, each as soon as it may; return (time, who, bytes)."""
    end = clock.now + seconds
    waiting = [(clock.now + limiter.book(amount), name) for name, amount in callers.items()]
    heapq.heapify(waiting)
    used = []
    while waiting and waiting[0][0] <= end:
        when, name = heapq.heappop(waiting)
        clock.advance(max(0.0, when - clock.now))
        used.append((clock.now, name, callers[name]))
        heapq.heappush(waiting, (clock.now + limiter.book(callers[name]), name))
    return used


def test_without_a_limit_nobody_waits(clock: FakeClock) -> None:
    """0 means no limit, and books nothing."""
    limiter = RateLimiter(clock=clock)
    assert not limiter.is_limited
    assert limiter.book(1 << 40) == 0.0
    assert limiter.quantum() == MAX_QUANTUM


@pytest.mark.parametrize("rate", [10 * KIB, 500 * KIB, 8 * MIB])
@pytest.mark.parametrize("callers", [1, 7])
def test_ten_seconds_bring_what_the_rate_says(clock: FakeClock, rate: int, callers: int) -> None:
    """Within five per cent, for one caller and for many."""
    limiter = RateLimiter(rate, clock=clock)
    amount = min(limiter.quantum(), rate // 20)
    used = run(limiter, clock, {str(number): amount for number in range(callers)}, 10.0)
    assert sum(count for _, _, count in used) == pytest.approx(10 * rate, rel=0.05)


def test_no_second_brings_twice_the_rate(clock: FakeClock) -> None:
    """Not even the first one after a long pause: little can be saved up."""
    limiter = RateLimiter(1 * MIB, clock=clock)
    clock.advance(3600)
    start = clock.now
    used = run(limiter, clock, {"a": 64 * KIB, "b": 64 * KIB}, 5.0)
    for second in range(5):
        there = [count for when, _, count in used if second <= when - start < second + 1]
        assert sum(there) <= (1 + SAVED_SECONDS) * MIB + 128 * KIB


def test_equal_callers_get_equal_shares(clock: FakeClock) -> None:
    """Bookings are served in their order, so that nobody is starved."""
    limiter = RateLimiter(1 * MIB, clock=clock)
    used = run(limiter, clock, dict.fromkeys("abcde", BLOCK_SIZE), 10.0)
    shares = Counter(name for _, name, _ in used)
    assert max(shares.values()) - min(shares.values()) <= 1


def test_the_narrower_of_two_nested_limits_holds(clock: FakeClock) -> None:
    """A torrent's limit lies within the session's."""
    session = RateLimiter(1 * MIB, clock=clock)
    narrow = RateLimiter(256 * KIB, parent=session, clock=clock)
    wide = RateLimiter(8 * MIB, parent=session, clock=clock)
    assert sum(count for _, _, count in run(narrow, clock, {"a": 16 * KIB}, 10.0)) == pytest.approx(2.5 * MIB, rel=0.05)
    assert sum(count for _, _, count in run(wide, clock, {"a": 16 * KIB}, 10.0)) == pytest.approx(10 * MIB, rel=0.05)


def test_two_torrents_share_the_session_limit(clock: FakeClock) -> None:
    """Together they do not exceed it."""
    session = Limits(upload=RateLimiter(1 * MIB, clock=clock))
    first, second = session.nested(), session.nested()
    delays = [limits.upload.book(512 * KIB) for limits in (first, second)]
    assert delays == [pytest.approx(0.5), pytest.approx(1.0)]
    assert not first.download.is_limited
    assert first.upload.is_limited


def test_a_new_rate_holds_at_once_and_forgives_debts(clock: FakeClock) -> None:
    """Whoever raises a limit does not wait for what was booked under the old one."""
    limiter = RateLimiter(1 * KIB, clock=clock)
    assert limiter.book(100 * KIB) == pytest.approx(100.0)
    limiter.set_rate(1 * MIB)
    assert limiter.rate == 1 * MIB
    assert limiter.book(512 * KIB) == pytest.approx(0.5)
    limiter.set_rate(0)
    assert limiter.book(1 << 30) == 0.0


def test_what_is_given_back_can_be_booked_again(clock: FakeClock) -> None:
    """A cancelled block costs nothing."""
    limiter = RateLimiter(1 * MIB, clock=clock)
    limiter.book(1 * MIB)
    limiter.give_back(1 * MIB)
    assert limiter.book(256 * KIB) == pytest.approx(0.25)


@given(rate=st.integers(1, 1 << 34))
def test_a_quantum_is_whole_blocks_within_its_bounds(rate: int) -> None:
    """At least one block, so that something is sent; at most what fills a system call."""
    quantum = RateLimiter(rate).quantum()
    assert quantum % BLOCK_SIZE == 0
    assert BLOCK_SIZE <= quantum <= MAX_QUANTUM
