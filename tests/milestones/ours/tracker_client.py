"""This project's tracker client, under the guide's names."""

from torrent_client import tracker_client
from torrent_client.tracker_client import PeerAddress, Progress, generate_peer_id

__all__ = ["TrackerClient", "generate_peer_id"]


class TrackerClient:
    """`torrent_client.tracker_client.TrackerClient`, which also keeps the interval."""

    def __init__(self, url: str, info_hash: bytes, peer_id: bytes, port: int, length: int) -> None:
        """Send nothing yet."""
        self._client = tracker_client.TrackerClient(url, info_hash, peer_id, port)
        self._length = length
        self.interval = 0.0

    def get_peers(self) -> list[PeerAddress]:
        """Announce, and return the peers."""
        response = self._client.announce(Progress(0, 0, self._length), "started")
        self.interval = response.interval
        return list(response.peers)
