"""What the doctor looks at: a torrent or a magnet link, and how a download of it would be run.

Spec: BEP 27 (private torrents).
Thread: pure.
Lock: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torrent_client.config import Config
from torrent_client.magnet import MagnetLink
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress


@dataclass(frozen=True, slots=True)
class Patient:
    """A download that does not begin.

    Attributes:
        source: the torrent, or the magnet link.
        config: how it would be run.
        output: the directory that it would write to.
        state_directory: where earlier runs have left DHT nodes; it is only read.
        given_peers: addresses that the user knows.
        given_web_seeds: URLs that the user knows.
    """

    source: TorrentFile | MagnetLink
    config: Config
    output: Path
    state_directory: Path | None = None
    given_peers: Sequence[PeerAddress] = ()
    given_web_seeds: Sequence[str] = ()

    @property
    def torrent(self) -> TorrentFile | None:
        """The torrent; None for a magnet link."""
        return self.source if isinstance(self.source, TorrentFile) else None

    @property
    def info_hash(self) -> bytes:
        """Its identity, 20 bytes."""
        return self.source.info_hash

    @property
    def trackers(self) -> list[str]:
        """All announce URLs, each once."""
        if isinstance(self.source, MagnetLink):
            return list(self.source.trackers)
        return list(dict.fromkeys(url for tier in self.source.trackers for url in tier))

    @property
    def peers(self) -> list[PeerAddress]:
        """The addresses that are known from the beginning."""
        linked = self.source.peers if isinstance(self.source, MagnetLink) else ()
        return list(dict.fromkeys((*self.given_peers, *linked)))

    @property
    def web_seeds(self) -> dict[str, bool]:
        """The URL of each web seed, and whether it is a script that gives pieces (BEP 17)."""
        servers = dict.fromkeys((*self.given_web_seeds, *self.source.web_seeds), False)
        return servers | (dict.fromkeys(self.source.http_seeds, True) if isinstance(self.source, TorrentFile) else {})

    @property
    def is_private(self) -> bool:
        """Whether peers may come from the trackers alone; of a magnet link nobody knows yet."""
        return isinstance(self.source, TorrentFile) and self.source.is_private

    @property
    def wanted(self) -> int:
        """The pieces as a set of bits; of a magnet link bit 0, which is the metadata."""
        return (1 << self.source.piece_count) - 1 if isinstance(self.source, TorrentFile) else 1

    @property
    def left(self) -> int:
        """Bytes that trackers are told we lack."""
        return self.source.total_length if isinstance(self.source, TorrentFile) else 1
