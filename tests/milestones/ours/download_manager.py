"""This project's download manager, under the guide's names."""

import sys
import time
from pathlib import Path

from torrent_parser import TorrentFile

from torrent_client import announcer
from torrent_client.config import Config
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import TorrentError
from torrent_client.session import Session
from torrent_client.storage import Storage
from torrent_client.text import format_rate
from torrent_client.views import summary_line

announcer.retry_delay = lambda failures, _config: float(failures)  # a lesson does not wait 15 s for a tracker


class DownloadManager:
    """A `torrent_client.session.Session` with one torrent, and lines that tell of it."""

    def __init__(self, torrent: TorrentFile, output_dir: str) -> None:
        """Do nothing yet."""
        self.torrent = torrent.torrent
        self.output = Path(output_dir)

    def write_piece(self, index: int, data: bytes) -> None:
        """Write a piece as the verifier does."""
        storage = Storage(self.output, self.torrent.files, self.torrent.piece_length)
        storage.preallocate()
        storage.write_piece(index, data)
        storage.close()

    def download(self) -> None:
        """Download everything."""
        # Lessons are short: a state file at once, and lost peers are dialled again soon.
        config = Config(listen_port=0, resume_interval=0.1, redial_delays=(0.5,), housekeeping_interval=0.2)
        options = DownloadOptions(self.output, state_directory=self.output / ".state")
        with Session(config) as session:
            manager = session.add(self.torrent, options)
            while not manager.is_over:
                time.sleep(0.2)
                stats = manager.stats()
                pieces = f"pieces {stats.pieces_done}/{stats.pieces_total}"
                left = f"{pieces}, {format_rate(stats.download_rate)}, left {stats.eta or 0:.0f} s"
                print(f"{summary_line(stats)}, {left}", flush=True, file=sys.stderr)
        if manager.error:
            raise TorrentError(str(manager.error))
