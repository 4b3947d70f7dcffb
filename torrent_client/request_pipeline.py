"""How many requests to keep in flight to one peer.

Too few and the line idles for a round trip after every block; too many and a slow peer sits on blocks
that others could bring. So: slow start (one more for each block received, which doubles the depth every
round trip) until the rate stops growing, then as many as the peer delivers in a second and four times its latency.

    rate in steps of one second    1   2   4   8   8.2    8.1      5             6      8
    state                          slow start ......| steady       it has fallen        steady
    queue                          grows              1.2 s        3 s           3 s    1.2 s

A short queue leaves the choice for later, when more is known: in a young swarm everybody asks the seed, and what others
have got from it meanwhile need not be asked of it again. But latency is known from a quiet moment. Where the way has
become longer than the queue, the rate falls with it, and would fall with every second: so a rate that has fallen, from
whatever cause, brings the long queue back.

Spec: the guide's Task 10 (pipelining); the long queue is libtorrent's rule.
Thread: `received` in the peer's reader, `measure` in housekeeping; a lost update costs one request.
Lock: none.
"""

import math

from torrent_client.config import BLOCK_SIZE, Config


class RequestPipeline:
    """The request depth of one peer.

    Args:
        config: limits and time constants.
    """

    GROWTH = 1.1
    """A second that brought less than this times the second before ends the slow start."""

    LATENCIES = 4
    """How many times its latency a peer's queue holds, beside `Config.least_queue_seconds`: lines become slower when
    they are busy."""

    FALLEN = 0.7
    """A rate below this times the best of late may have fallen because our queue is too short."""

    MEMORY = 0.95
    """What remains of the best rate a second later: half of it after 14 seconds."""

    def __init__(self, config: Config) -> None:
        """Begin in slow start."""
        self._config = config
        self._limit = min(config.max_queue_depth, config.default_reqq)
        self._slow_start = True
        self._last_rate = 0.0
        self._best_rate = 0.0  # of late
        self.snubbed = False
        self.depth = config.initial_queue_depth

    def peer_accepts(self, request_queue: int) -> None:
        """Obey the peer's own limit (BEP 10 `reqq`)."""
        self._limit = min(self._config.max_queue_depth, request_queue)
        self.depth = min(self.depth, self._limit)

    def received(self, blocks: int) -> None:
        """Take note of `blocks` that came."""
        if self.snubbed:
            self.snubbed = False
            self._restart()
        if self._slow_start:
            self.depth = min(self.depth + blocks, self._limit)

    def measure(self, rate: float, latency: float = math.inf) -> None:
        """Adjust to the last second.

        Args:
            rate: its bytes per second.
            latency: seconds, the shortest in which the peer answered; with infinity the queue is always long.
        """
        if self.snubbed or not rate:
            return
        if self._slow_start and rate < self._last_rate * self.GROWTH:
            self._slow_start = False
        self._last_rate = rate
        self._best_rate = max(rate, self._best_rate * self.MEMORY)
        if not self._slow_start:
            wanted = int(self._queue_seconds(latency) * rate / BLOCK_SIZE)
            self.depth = min(max(wanted, self._config.min_queue_depth), self._limit)

    def _queue_seconds(self, latency: float) -> float:
        """Return for how many seconds of its rate a peer is asked."""
        if self._last_rate < self._best_rate * self.FALLEN:
            return self._config.queue_seconds
        return min(self._config.queue_seconds, self._config.least_queue_seconds + self.LATENCIES * latency)

    def snub(self) -> None:
        """The peer keeps us waiting: ask for one block at a time until something comes."""
        self.snubbed = True
        self.depth = 1

    def _restart(self) -> None:
        """Begin again from a small depth."""
        self._slow_start = True
        self._last_rate = 0.0
        self.depth = min(self._config.initial_queue_depth, self._limit)
