"""Keeps a torrent announced: `started`, then at the tracker's interval, `completed`, and `stopped`.

    tier 1   [A, B]     A fails -> B answers -> B moves to the front of its tier; tier 2 is not asked
    tier 2   [C]        asked only when all of tier 1 failed

Each tracker has its own back-off, 5 + 12.5 n^2 seconds after n failures in a row, and its own line in
the display: what it said last, and when it is asked next.

Spec: BEP 3 (events), BEP 12 (tiers).
Thread: one per torrent, `announce`; it alone talks to trackers.
Lock: `_wake` (a Condition), a leaf, around what the other threads ask of it and its status lines.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from threading import Condition, Thread

from torrent_client.config import Config
from torrent_client.errors import TrackerError, TrackerSilent
from torrent_client.tracker_client import AnnounceResponse, PeerAddress, Progress, TrackerClient

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrackerStatus:
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


class _Tracker:
    """A tracker with its status and what it gave us to keep."""

    def __init__(self, client: TrackerClient) -> None:
        self.client = client
        self.status = TrackerStatus(client.url)
        self.tracker_id: bytes | None = None
        self.event: str | None = "started"  # what it is to be told when it is asked next
        self.has_started = False  # it knows of us, so that `stopped` is owed to it


def retry_delay(failures: int, config: Config) -> float:
    """Return the seconds to wait after so many failures in a row (libtorrent's rule)."""
    return min(5.0 + 12.5 * failures**2, config.max_announce_interval)


class Announcer:
    """Announces one torrent to its trackers until it is stopped.

    Args:
        tiers: tracker clients, in tiers.
        progress: returns the current totals.
        on_peers: is given the addresses that came.
        config: intervals and time-outs.
        rng: shuffles each tier once (BEP 12).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tiers: Sequence[Sequence[TrackerClient]],
        progress: Callable[[], Progress],
        on_peers: Callable[[Sequence[PeerAddress]], None],
        config: Config,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Shuffle the tiers; nothing is sent before `start`."""
        self._tiers = [[_Tracker(client) for client in rng.sample(tier, len(tier))] for tier in tiers]
        self._progress = progress
        self._on_peers = on_peers
        self._config = config
        self._clock = clock
        self._wake = Condition()
        self._stopping = False
        self._completed = False
        self._stop_by = 0.0
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to announce, on a thread of its own."""
        if self._tiers:
            # A daemon: a tracker that does not answer must not hold up the end of the program.
            self._thread = Thread(target=self._run, name="announce", daemon=True)
            self._thread.start()

    def completed(self) -> None:
        """The download is complete: tell the tracker soon."""
        with self._wake:
            self._completed = True
            self._wake.notify()

    def begin_stop(self) -> None:
        """Let the thread announce `stopped` where it is owed, and end; returns at once."""
        with self._wake:
            if not self._stopping:
                self._stop_by = self._clock() + self._config.tracker_stop_timeout + 0.3
            self._stopping = True
            self._wake.notify()

    def finish_stop(self) -> None:
        """Wait for the thread to end, for as long as stopping may take from `begin_stop` on."""
        if self._thread:
            self._thread.join(max(0.0, self._stop_by - self._clock()))

    def statuses(self) -> list[TrackerStatus]:
        """Return a copy of each tracker's status, in the order in which they are asked."""
        with self._wake:
            return [dataclasses.replace(tracker.status) for tier in self._tiers for tracker in tier]

    # --- the announce thread -----------------------------------------------------------------------

    def _run(self) -> None:
        """Announce, wait, announce; at the end say goodbye."""
        try:
            while True:
                next_round = self.announce_round(self._take_completed())
                if self._wait_until(next_round):
                    break
            self._say_stopped()
        except Exception:
            logger.exception("the announce thread failed")

    def announce_round(self, event: str | None = None) -> float:
        """Ask the trackers that are due, tier by tier, until one answers; return when to ask again.

        Args:
            event: what those that know of us have to hear: the first one now, the others, and it too if that
                fails, when they are asked next.
        """
        if event:
            self._owe(event)
        for tier in self._tiers:
            for tracker in list(tier):
                if self._stopping:
                    return self._clock()
                if event is None and tracker.status.next_announce > self._clock():
                    if tracker.status.state == "working":
                        return tracker.status.next_announce
                    continue
                if self._announce(tracker):
                    with self._wake:
                        tier.remove(tracker)
                        tier.insert(0, tracker)
                    return tracker.status.next_announce
        return min(tracker.status.next_announce for tier in self._tiers for tracker in tier)

    def _known(self) -> list[_Tracker]:
        """Return the trackers that know of us."""
        return [tracker for tier in self._tiers for tracker in tier if tracker.has_started]

    def _owe(self, event: str) -> None:
        for tracker in self._known():
            tracker.event = event

    def _announce(self, tracker: _Tracker) -> bool:
        """Ask one tracker; tell whether it answered."""
        with self._wake:
            tracker.status.state = "asking"
        try:
            response = tracker.client.announce(self._progress(), tracker.event, tracker_id=tracker.tracker_id)
            tracker.has_started, tracker.event = True, None
            self._answered(tracker, response)
            self._on_peers(response.peers)
        except TrackerError as error:
            self._failed(tracker, error)
            return False
        except Exception as error:  # a bug must not silence the other trackers, nor this one for ever
            logger.exception("an announce to %s failed", tracker.client.url)
            self._failed(tracker, TrackerError(f"internal error: {error!r}"))
            return False
        return True

    def _answered(self, tracker: _Tracker, response: AnnounceResponse) -> None:
        wanted = max(response.interval, response.min_interval, self._config.min_announce_interval)
        tracker.tracker_id = response.tracker_id or tracker.tracker_id
        logger.info("%s: %d peers", tracker.client.url, len(response.peers))
        if response.warning:
            logger.warning("%s: %s", tracker.client.url, response.warning)
        with self._wake:
            status = tracker.status
            status.state, status.error, status.failures = "working", None, 0
            status.warning, status.peers = response.warning, len(response.peers)
            status.seeders, status.leechers = response.seeders, response.leechers
            status.next_announce = self._clock() + min(wanted, self._config.max_announce_interval)

    def _failed(self, tracker: _Tracker, error: TrackerError) -> None:
        with self._wake:
            status = tracker.status
            status.state, status.error = "failing", str(error)
            status.failures += 1
            delay = error.retry_in or 0.0
            if not isinstance(error, TrackerSilent):
                delay = max(retry_delay(status.failures, self._config), delay)
            status.next_announce = self._clock() + delay
        log = logger.warning if status.failures == 1 else logger.debug
        log("tracker %s: %s; next try in %.0f s", tracker.client.url, error, delay)

    def _take_completed(self) -> str | None:
        with self._wake:
            event = "completed" if self._completed else None
            self._completed = False
            return event

    def _wait_until(self, when: float) -> bool:
        """Wait for a time or a call; tell whether to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._completed, max(0.0, when - self._clock()))
            return self._stopping

    def _say_stopped(self) -> None:
        """Tell every tracker that knows of us what it is owed and that we go, all within the time for stopping."""
        if completed := self._take_completed():
            self._owe(completed)
        deadline = self._clock() + self._config.tracker_stop_timeout
        for tracker in self._known():
            for event in filter(None, (tracker.event, "stopped")):
                left = deadline - self._clock()
                if left <= 0:
                    return
                try:
                    tracker.client.announce(
                        self._progress(), event, num_want=0, tracker_id=tracker.tracker_id, time_limit=left
                    )
                except TrackerError as error:
                    logger.debug("tracker %s, %s: %s", tracker.client.url, event, error)
                    break
                except Exception:
                    logger.exception("tracker %s, %s", tracker.client.url, event)
                    break
