"""Keeps a torrent announced: `started`, then at the tracker's interval, `completed`, and `stopped`.

    tier 1   [A, B]     A is asked, and B when A fails, or says nothing for 3 s; who answers moves to the front
    tier 2   [C]        asked at the same time as tier 1

Within a tier the order is that of BEP 12. All tiers are asked at once, although BEP 12 would ask the second one
only when all of the first have failed: torrents and magnet links name independent trackers in a tier each, and one
that answers may know nobody. Transmission and qBittorrent do the same. A private torrent has one tracker at a
time, in the strict order (BEP 27), and is announced once, for some sites ban those who appear twice.

Every tracker that is asked has a thread for as long as that takes, so that none holds up another. Each has its
own back-off, 5 + 12.5 n^2 seconds after n failures in a row (over UDP the waits of BEP 15), and its own line in
the display: what it said last, and when it is asked next. One that has an IPv4 and an IPv6 address is asked at
both: peers of each kind come from there, and find us there (BEP 7).

Spec: BEP 3 (events), 7 (IPv6), 12 (tiers), 15 (retries), 24 (our address), 27 (private torrents).
Thread: one per torrent, `announce`, decides who is asked; an `ask-tracker` for each tracker that is being asked.
Lock: `_wake` (a Condition), a leaf, around the trackers' states, and what the other threads ask of it.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from socket import AddressFamily
from threading import Condition, Thread
from typing import Final, NamedTuple

from torrent_client.abort import Abort
from torrent_client.config import MAX_TRACKERS, Config
from torrent_client.errors import TrackerError, TrackerSilent
from torrent_client.tracker_answers import AnnounceResponse, PeerAddress, Progress, Tracker

logger = logging.getLogger(__name__)

ASKED_AT_ONCE: Final = 16
"""Trackers of one torrent that are being asked at the same time: each has a thread, and most torrents name fewer."""

LAST_WORD: Final = 0.4
"""Seconds that a tracker has, when we stop, to answer what it is being asked: then it is told that we go."""

JOIN_GRACE: Final = 0.3
"""Seconds beyond the time for goodbyes in which the thread has to end."""

KEY_INTERVAL: Final = 5.0
"""Seconds before which a tracker that failed is not asked again, however often the user asks for it."""


class TrackerStatus(NamedTuple):
    """What is known of one tracker.

    Attributes:
        url: its announce URL.
        state: `waiting`, `asking`, `working` or `failing`.
        error: what went wrong last, None after a success.
        warning: what the tracker wants the user to read.
        failures: in a row.
        next_announce: monotonic time before which it is not asked again.
        peers: addresses in its last answer.
        seeders, leechers: how many it knows, if it says.
        tier: which tier it is in, from 1 on.
        external_ip: the address that it sees us at, if it says (BEP 24).
    """

    url: str
    state: str = "waiting"
    error: str | None = None
    warning: str | None = None
    failures: int = 0
    next_announce: float = 0.0
    peers: int = 0
    seeders: int | None = None
    leechers: int | None = None
    tier: int = 1
    external_ip: str | None = None


class _Tracker:
    """A tracker with its status and what it gave us to keep."""

    def __init__(self, client: Tracker, tier: int) -> None:
        self.client = client
        self.status = TrackerStatus(client.url, tier=tier)
        self.tracker_id: bytes | None = None
        self.event: str | None = "started"  # what it is to be told when it is asked next
        self.knows_us_by: list[AddressFamily | None] = []  # the addresses at which `stopped` is owed
        self.is_busy = False  # somebody asks it at this moment
        self.asked_at = -math.inf
        self.earliest = -math.inf  # it wants not to be asked before


def retry_delay(failures: int, config: Config) -> float:
    """Return the seconds to wait after so many failures in a row (libtorrent's rule)."""
    return min(5.0 + 12.5 * failures**2, config.max_announce_interval)


def start_thread(work: Callable[[], None]) -> None:
    """Do something on a thread of its own."""
    # A daemon: a tracker that does not answer must not hold up the end of the program.
    Thread(target=work, name="ask-tracker", daemon=True).start()


class Announcer:
    """Announces one torrent to its trackers until it is stopped.

    Args:
        tiers: tracker clients, in tiers.
        progress: returns the current totals.
        on_peers: is given the addresses that came, on any thread.
        config: intervals and time-outs.
        rng: shuffles each tier once (BEP 12).
        clock: monotonic seconds.
        is_private: one tracker at a time, and once.
        spawn: does some work on a thread of its own.
    """

    def __init__(
        self,
        tiers: Sequence[Sequence[Tracker]],
        progress: Callable[[], Progress],
        on_peers: Callable[[Sequence[PeerAddress]], None],
        config: Config,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_private: bool = False,
        spawn: Callable[[Callable[[], None]], None] = start_thread,
    ) -> None:
        """Shuffle the tiers; nothing is sent before `start`."""
        self._tiers = _shuffled(tiers, rng)
        self._progress = progress
        self._on_peers = on_peers
        self._config = config
        self._clock = clock
        self._is_private = is_private
        self._spawn = spawn
        self._abort = Abort()
        self._wake = Condition()
        self._has_news = False  # it is worth while to look who is to be asked
        self._stopping = False
        self._completed = False
        self._goodbyes = 0  # being said
        self._stop_by: float | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to announce, on a thread of its own."""
        if self._tiers:
            self._thread = Thread(target=self._run, name="announce", daemon=True)
            self._thread.start()

    def restrict(self) -> None:
        """Ask one tracker at a time from now on: the torrent has turned out to be private."""
        self._is_private = True

    def completed(self) -> None:
        """The download is complete: tell the trackers soon."""
        with self._wake:
            self._completed = True
            self._wake.notify_all()

    def announce_now(self) -> None:
        """Ask every tracker again, as soon as it allows that: the user wants more peers."""
        now = self._clock()
        with self._wake:
            for tracker in self._all():
                status = tracker.status
                is_failing = status.state == "failing"
                earliest = tracker.asked_at + KEY_INTERVAL if is_failing else tracker.earliest
                next_announce = min(status.next_announce, max(now, earliest))
                tracker.status = status._replace(next_announce=next_announce)
            self._tell_news()

    def begin_stop(self) -> None:
        """Let the thread announce `stopped` where it is owed, and end; returns at once."""
        with self._wake:
            if self._stop_by is None:
                self._stop_by = self._clock() + self._config.tracker_stop_timeout
            self._stopping = True
            self._wake.notify_all()

    def finish_stop(self) -> None:
        """Wait for the thread to end, for as long as stopping may take from `begin_stop` on."""
        if self._thread and self._stop_by is not None:
            self._thread.join(max(0.0, self._stop_by + JOIN_GRACE - self._clock()))

    def statuses(self) -> list[TrackerStatus]:
        """Return each tracker's status, in the order in which they are asked."""
        with self._wake:
            return [tracker.status for tracker in self._all()]

    # --- the announce thread: who is asked -------------------------------------------------------------

    def _run(self) -> None:
        """Ask, wait, ask; at the end say goodbye."""
        try:
            while True:
                next_round = self.announce_round(self._take_completed())
                if self._wait_until(next_round):
                    break
            self._say_stopped()
        except Exception:
            logger.exception("the announce thread failed")

    def announce_round(self, event: str | None = None) -> float:
        """Have the trackers asked whose turn it is; return when to look again, unless one answers before.

        Args:
            event: what those that know of us have to hear: who works now, the others when they are asked next.
        """
        if event:
            self._owe(event)
        while not self._stopping:
            with self._wake:
                self._has_news = False
                chosen, look_again = self._choose(self._clock())
            if not chosen:
                return look_again
            for tracker in chosen:
                self._have_asked(tracker)
        return self._clock()

    def _choose(self, now: float) -> tuple[list[_Tracker], float]:
        """Return whom to ask now, who counts as being asked from now on, and when to look again; under the lock."""
        groups = [self._tiers] if self._is_private else [[tier] for tier in self._tiers]
        chosen: list[_Tracker] = []
        look_again = math.inf
        room = ASKED_AT_ONCE - sum(tracker.is_busy for tracker in self._all())
        for group in groups:
            tracker, when = self._turn([tracker for tier in group for tracker in tier], now)
            look_again = min(look_again, when)
            if tracker and len(chosen) < room:
                chosen.append(tracker)
                tracker.is_busy, tracker.asked_at = True, now
                tracker.status = tracker.status._replace(state="asking")
        return chosen, look_again

    def _turn(self, trackers: Sequence[_Tracker], now: float) -> tuple[_Tracker | None, float]:
        """Return who of those that stand in for each other is to be asked now, and when to look again."""
        look_again = math.inf
        has_untried = any(tracker.status.state == "waiting" for tracker in trackers)
        for tracker in trackers:
            status = tracker.status
            if status.state == "asking":
                silent_at = math.inf if self._is_private else tracker.asked_at + self._config.tracker_patience
                if silent_at > now:
                    return None, min(look_again, silent_at)
            elif tracker.is_busy:
                return None, look_again  # it has answered at one of its addresses, and is asked at the other
            elif status.next_announce <= now and not (status.failures and has_untried):
                return tracker, look_again
            elif status.state == "working":
                return None, status.next_announce
            else:
                look_again = min(look_again, status.next_announce)
        return None, look_again

    def _have_asked(self, tracker: _Tracker) -> None:
        try:
            self._spawn(lambda: self._ask(tracker))
        except RuntimeError as error:  # the system has no more threads
            self._failed(tracker, TrackerError(str(error)))
            self._done(tracker)

    def _all(self) -> Iterator[_Tracker]:
        return (tracker for tier in self._tiers for tracker in tier)

    def _owe(self, event: str) -> None:
        """Note down what those that know of us have to hear; who works hears it now."""
        with self._wake:
            for tracker in self._all():
                if tracker.knows_us_by:
                    tracker.event = event
                    if tracker.status.state == "working":
                        tracker.status = tracker.status._replace(next_announce=self._clock())

    def _take_completed(self) -> str | None:
        with self._wake:
            event = "completed" if self._completed else None
            self._completed = False
            return event

    def _wait_until(self, when: float) -> bool:
        """Wait for a time or news; tell whether to stop."""
        timeout = None if when == math.inf else max(0.0, when - self._clock())
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._completed or self._has_news, timeout)
            return self._stopping

    def _tell_news(self) -> None:
        self._has_news = True
        self._wake.notify_all()

    # --- threads that ask ------------------------------------------------------------------------------

    def _ask(self, tracker: _Tracker) -> None:
        """Ask one tracker at each of its addresses, and note down what it says."""
        try:
            problem = self._announce(tracker)
            if problem:
                self._failed(tracker, problem)
        except TrackerError as error:
            self._failed(tracker, error)
        except Exception as error:  # a bug must not silence the tracker for ever
            logger.exception("an announce to %s failed", tracker.client.url)
            self._failed(tracker, TrackerError(f"internal error: {error!r}"))
        finally:
            self._done(tracker)

    def _announce(self, tracker: _Tracker) -> TrackerError | None:
        """Announce; return what went wrong if it did so everywhere."""
        problem: TrackerError | None = None
        event, has_answered = tracker.event, False
        families = (None,) if self._is_private else tracker.client.families()
        for family in families:
            if self._stopping:
                break
            try:
                response = tracker.client.announce(
                    self._progress(), event, tracker_id=tracker.tracker_id, family=family, abort=self._abort
                )
            except TrackerError as error:
                problem = problem or error
                continue
            if family not in tracker.knows_us_by:
                tracker.knows_us_by.append(family)
            if tracker.event == event:  # else there is other news for it since
                tracker.event = None
            self._answered(tracker, response, is_first=not has_answered)
            has_answered = True
            self._on_peers(response.peers)
        return None if has_answered else problem

    def _answered(self, tracker: _Tracker, response: AnnounceResponse, *, is_first: bool) -> None:
        """Note down an answer: the first one, or the same tracker's from another address."""
        least = max(response.min_interval, self._config.min_announce_interval)
        tracker.tracker_id = response.tracker_id or tracker.tracker_id
        logger.info("%s: %d peers", tracker.client.url, len(response.peers))
        if response.warning:
            logger.warning("%s: %s", tracker.client.url, response.warning)
        with self._wake:
            status, now = tracker.status, self._clock()
            peers = len(response.peers) + (0 if is_first else status.peers)
            tracker.status = status._replace(peers=peers)
            if is_first:
                longest = self._config.max_announce_interval
                tracker.earliest = now + min(least, longest)
                tracker.status = TrackerStatus(
                    status.url,
                    "working",
                    warning=response.warning,
                    next_announce=now + min(max(response.interval, least), longest),
                    peers=peers,
                    seeders=response.seeders,
                    leechers=response.leechers,
                    tier=status.tier,
                    external_ip=response.external_ip,
                )
                tier = self._tiers[status.tier - 1]
                tier.remove(tracker)
                tier.insert(0, tracker)
            self._tell_news()

    def _failed(self, tracker: _Tracker, error: TrackerError) -> None:
        with self._wake:
            failures = tracker.status.failures + 1
            delay = error.retry_in or 0.0
            if not isinstance(error, TrackerSilent):
                delay = max(retry_delay(failures, self._config), delay)
            tracker.status = tracker.status._replace(
                state="failing", error=str(error), failures=failures, next_announce=self._clock() + delay
            )
        log = logger.warning if failures == 1 and not self._stopping else logger.debug
        log("tracker %s: %s; next try in %.0f s", tracker.client.url, error, delay)

    def _done(self, tracker: _Tracker) -> None:
        with self._wake:
            tracker.is_busy = False
            if tracker.status.state == "asking":  # we are stopping, and did not ask after all
                state = "working" if tracker.knows_us_by else "waiting"
                tracker.status = tracker.status._replace(state=state)
            if tracker.event and tracker.knows_us_by and tracker.status.state == "working":
                tracker.status = tracker.status._replace(next_announce=self._clock())  # it completed meanwhile
            self._tell_news()

    # --- the end ---------------------------------------------------------------------------------------

    def _say_stopped(self) -> None:
        """Tell every tracker that knows of us what it is owed and that we go, all within the time for stopping."""
        deadline = self._stop_by or self._clock() + self._config.tracker_stop_timeout
        with self._wake:
            self._wake.wait_for(self._is_quiet, min(LAST_WORD, self._config.tracker_stop_timeout))
        self._abort.set()
        with self._wake:
            self._wake.wait_for(self._is_quiet, LAST_WORD)
            known = [tracker for tracker in self._all() if tracker.knows_us_by and not tracker.is_busy]
            self._goodbyes = len(known)
        if completed := self._take_completed():
            self._owe(completed)
        for tracker in known:
            self._have_left(tracker, deadline)
        with self._wake:
            self._wake.wait_for(lambda: not self._goodbyes, max(0.0, deadline - self._clock()))

    def _is_quiet(self) -> bool:
        return not any(tracker.is_busy for tracker in self._all())

    def _have_left(self, tracker: _Tracker, deadline: float) -> None:
        try:
            self._spawn(lambda: self._leave(tracker, deadline))
        except RuntimeError as error:  # the system has no more threads
            logger.debug("tracker %s is not told that we go: %s", tracker.client.url, error)

    def _leave(self, tracker: _Tracker, deadline: float) -> None:
        """Say to one tracker what it is owed, and `stopped`."""
        try:
            for event in filter(None, (tracker.event, "stopped")):
                for family in tracker.knows_us_by:
                    left = deadline - self._clock()
                    if left <= 0:
                        return
                    tracker.client.announce(
                        self._progress(),
                        event,
                        num_want=0,
                        tracker_id=tracker.tracker_id,
                        time_limit=left,
                        family=family,
                    )
        except TrackerError as error:
            logger.debug("tracker %s, at the end: %s", tracker.client.url, error)
        except Exception:
            logger.exception("tracker %s, at the end", tracker.client.url)
        finally:
            with self._wake:
                self._goodbyes -= 1
                self._wake.notify_all()


def _shuffled(tiers: Sequence[Sequence[Tracker]], rng: Random) -> list[list[_Tracker]]:
    """Return the tiers in random order within, each URL once, and no more than there is any use for."""
    seen: set[str] = set()
    shuffled: list[list[_Tracker]] = []
    for clients in tiers:
        tier = []
        for client in rng.sample(clients, len(clients)):
            if client.url not in seen and len(seen) < MAX_TRACKERS:
                seen.add(client.url)
                tier.append(_Tracker(client, len(shuffled) + 1))
        if tier:
            shuffled.append(tier)
    return shuffled
