"""Everything that runs in one process: torrents, and the port on which peers call them.

Spec: none.
Thread: the main thread.
Lock: none; the listener and the torrents have their own.
"""

import random
from types import TracebackType
from typing import Self

from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager, DownloadOptions
from torrent_client.listener import Listener
from torrent_client.rate_limiter import Limits, RateLimiter
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import generate_peer_id


class Session:
    """The torrents of this process.

    Args:
        config: limits.
        rng: source of randomness; a seeded one makes a lesson repeatable.
    """

    def __init__(self, config: Config, rng: random.Random | None = None) -> None:
        """Bind the port.

        Raises:
            TorrentError: no port is free.
        """
        self.config = config
        self.peer_id = generate_peer_id(rng)
        self.limits = Limits(RateLimiter(config.max_download_rate), RateLimiter(config.max_upload_rate))
        self._rng = rng
        self._listener = Listener(config)
        self._torrents: list[DownloadManager] = []

    @property
    def port(self) -> int:
        """The TCP port that peers can call us on."""
        return self._listener.port

    def start(self) -> None:
        """Begin to accept peers."""
        self._listener.start()

    def add(self, torrent: TorrentFile, options: DownloadOptions) -> DownloadManager:
        """Start a torrent."""
        manager = DownloadManager(
            torrent, options, self.peer_id, self.port, self.config, self.limits.nested(), self._rng
        )
        self._torrents.append(manager)
        self._listener.serve(torrent.info_hash, manager.accept)
        manager.start()
        return manager

    def stop(self) -> None:
        """Stop the listener and every torrent; save, and leave nothing behind."""
        self._listener.stop()
        for manager in self._torrents:
            manager.stop()

    def __enter__(self) -> Self:
        """Start the session for a `with` block."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it at the end of the block."""
        self.stop()
