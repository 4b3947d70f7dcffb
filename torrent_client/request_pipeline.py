"""How many requests to keep in flight to one peer.

Too few and the line idles for a round trip after every block; too many and a slow peer sits on blocks
that others could bring. So: slow start (one more for each block received, which doubles the depth every
round trip) until the rate stops growing, then as many as the peer delivers in three seconds.

    rate in steps of one second    1   2   4   8   8.2      then depth = 3 s x rate / 16 KiB
    state                          slow start ......| steady

Spec: the guide's Task 10 (pipelining); libtorrent's rule.
Thread: `received` in the peer's reader, `measure` in housekeeping; a lost update costs one request.
Lock: none.
"""

from torrent_client.config import BLOCK_SIZE, Config


class RequestPipeline:
    """The request depth of one peer.

    Args:
        config: limits and time constants.
    """

    GROWTH = 1.1
    """A second that brought less than this times the second before ends the slow start."""

    def __init__(self, config: Config) -> None:
        """Begin in slow start."""
        self._config = config
        self._limit = min(config.max_queue_depth, config.default_reqq)
        self._slow_start = True
        self._last_rate = 0.0
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

    def measure(self, rate: float) -> None:
        """Adjust to the bytes per second of the last second."""
        if self.snubbed or not rate:
            return
        if self._slow_start and rate < self._last_rate * self.GROWTH:
            self._slow_start = False
        self._last_rate = rate
        if not self._slow_start:
            wanted = int(self._config.queue_seconds * rate / BLOCK_SIZE)
            self.depth = min(max(wanted, self._config.min_queue_depth), self._limit)

    def snub(self) -> None:
        """The peer keeps us waiting: ask for one block at a time until something comes."""
        self.snubbed = True
        self.depth = 1

    def _restart(self) -> None:
        """Begin again from a small depth."""
        self._slow_start = True
        self._last_rate = 0.0
        self.depth = min(self._config.initial_queue_depth, self._limit)
