"""The web seeds of one torrent: those that it names, and those that the user or a magnet link adds.

Spec: BEP 19 (url-list), BEP 17 (httpseeds).
Thread: any; each seed has a thread of its own.
Lock: none; the seeds are the same from the beginning to the end.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from torrent_client.config import Config
from torrent_client.piece_manager import PieceManager
from torrent_client.rate_limiter import RateLimiter
from torrent_client.smart_ban import SourceAddress
from torrent_client.stats import WebSeedStats
from torrent_client.torrent_parser import TorrentFile
from torrent_client.web_seed import WebSeed, WebSeedCallbacks


class WebSeeds:
    """Starts, stops and measures web seeds.

    Args:
        torrent: what they have.
        more: URLs of servers with its files, beside those that it names.
        pieces: the truth about pieces.
        callbacks: what to do with blocks.
        limiter: bytes per second of the torrent's downloads.
        config: limits.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        torrent: TorrentFile,
        more: Sequence[str],
        pieces: PieceManager,
        callbacks: WebSeedCallbacks,
        limiter: RateLimiter,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make them; nothing is sent before `start`."""
        servers = dict.fromkeys((*more, *torrent.web_seeds), False)
        scripts = dict.fromkeys(torrent.http_seeds, True)
        self._seeds = [
            WebSeed(url, torrent, pieces, callbacks, limiter, config, clock, by_piece=by_piece)
            for url, by_piece in [*servers.items(), *scripts.items()][: config.max_web_seeds]
        ]

    def start(self) -> None:
        """Begin to fetch, unless that has been done."""
        for seed in self._seeds:
            seed.start()

    def close(self) -> None:
        """End them all; returns at once."""
        for seed in self._seeds:
            seed.close()

    def join(self, deadline: float) -> None:
        """Wait for the end of seeds that were closed, until `deadline` (monotonic) at most."""
        for seed in self._seeds:
            seed.join(max(0.0, deadline - time.monotonic()))

    def ban(self, addresses: Iterable[SourceAddress], reason: str) -> None:
        """Never ask those again whose URLs are among `addresses`."""
        banned = set(addresses)
        for seed in self._seeds:
            if seed.url in banned:
                seed.ban(reason)

    def tick(self, seconds: float) -> None:
        """Measure their speeds; called once a second."""
        for seed in self._seeds:
            seed.tick(seconds)

    def stats(self) -> tuple[WebSeedStats, ...]:
        """Return a snapshot of each."""
        return tuple(seed.stats() for seed in self._seeds)
