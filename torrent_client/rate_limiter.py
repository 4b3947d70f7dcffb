"""Keeps bytes per second below a limit: a token bucket in which every caller books its turn.

    balance    +----- at most 0.2 s of the rate may be saved up
               |
         0 ----+--------------------------------------- time
               |  each booking takes its bytes at once and is told when they will have been earned

Because a booking is always granted, and only told *when*, callers are served in the order in which they
came: with equal amounts that is a fair share for each peer, and nobody is woken to find that another was
quicker. Limits nest: a torrent's limiter asks the session's as well, and the later time counts.

Spec: none; the usual token bucket.
Thread: any; peers' readers and writers.
Lock: `_lock`, a leaf; a parent is asked after it has been released.
"""

import time
from collections.abc import Callable
from threading import Lock

from torrent_client.config import BLOCK_SIZE, KIB

SAVED_SECONDS = 0.2
"""Seconds of the rate that an idle line may save up: enough to hide a late wake-up, no visible burst."""

QUANTUM_SECONDS = 0.1
"""Seconds of the rate that are sent or received in one go: ten steps a second look smooth."""

MAX_QUANTUM = 256 * KIB
"""Bytes in one go without a limit, or with a high one: what fills a system call."""


class RateLimiter:
    """A limit in bytes per second, which may change at any time.

    Args:
        rate: bytes per second; 0 for none.
        parent: a limit that covers this one and others.
        clock: monotonic seconds.
    """

    def __init__(
        self, rate: float = 0.0, parent: "RateLimiter | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with an empty bucket."""
        self._lock = Lock()
        self._rate = rate
        self._parent = parent
        self._clock = clock
        self._balance = 0.0
        self._updated = clock()

    @property
    def rate(self) -> float:
        """This limit in bytes per second, 0 for none."""
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Change the limit, in bytes per second; 0 lifts it. Debts of the old rate are forgiven."""
        with self._lock:
            self._rate = rate
            self._balance = 0.0
            self._updated = self._clock()

    @property
    def is_limited(self) -> bool:
        """Whether this limit or one above it holds."""
        return bool(self._rate) or (self._parent is not None and self._parent.is_limited)

    def quantum(self) -> int:
        """Return how many bytes to book at a time, whole blocks of 16 KiB: a tenth of a second's worth."""
        own = MAX_QUANTUM
        if self._rate:
            blocks = int(self._rate * QUANTUM_SECONDS) // BLOCK_SIZE
            own = min(max(blocks, 1) * BLOCK_SIZE, MAX_QUANTUM)
        return min(own, self._parent.quantum()) if self._parent else own

    def book(self, count: int) -> float:
        """Book `count` bytes; return the seconds after which they may be used, 0 for at once."""
        delay = self._book(count)
        return max(delay, self._parent.book(count)) if self._parent else delay

    def give_back(self, count: int) -> None:
        """Take back a booking, or a part of it, that was not used."""
        with self._lock:
            if self._rate:
                self._balance += count
        if self._parent:
            self._parent.give_back(count)

    def _book(self, count: int) -> float:
        if not self._rate:
            return 0.0
        with self._lock:
            rate = self._rate
            if not rate:
                return 0.0
            now = self._clock()
            earned = (now - self._updated) * rate
            self._updated = now
            self._balance = min(self._balance + earned, rate * SAVED_SECONDS) - count
            return max(0.0, -self._balance / rate)


class Limits:
    """The limits of both directions, none by default.

    Args:
        download: of bytes that we take.
        upload: of bytes of blocks that we give.
    """

    def __init__(self, download: RateLimiter | None = None, upload: RateLimiter | None = None) -> None:
        """Keep both."""
        self.download = download or RateLimiter()
        self.upload = upload or RateLimiter()

    def nested(self, download: float = 0.0, upload: float = 0.0) -> "Limits":
        """Return limits of their own, in bytes per second, that lie within these."""
        return Limits(RateLimiter(download, parent=self.download), RateLimiter(upload, parent=self.upload))
