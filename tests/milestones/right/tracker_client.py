"""Tasks 4 and 5: our peer id, and asking a tracker for peers."""

import random
import socket
import string
from urllib.parse import urlencode
from urllib.request import urlopen

from torrent_parser import TorrentFile, bencode_decode


def generate_peer_id() -> bytes:
    """Return 20 bytes."""
    return ("-PC0001-" + "".join(random.choices(string.ascii_letters + string.digits, k=12))).encode()


class TrackerClient:
    """Asks a torrent's tracker."""

    def __init__(self, torrent: TorrentFile, peer_id: bytes, port: int = 6881) -> None:
        """Send nothing yet."""
        self.torrent = torrent
        self.peer_id = peer_id
        self.port = port
        self.interval = 0

    def get_peers(self) -> list[tuple[str, int]]:
        """Announce ourselves, and return the addresses of others."""
        parameters: dict[str, str | int | bytes] = {
            "info_hash": self.torrent.info_hash,
            "peer_id": self.peer_id,
            "port": self.port,
            "uploaded": 0,
            "downloaded": 0,
            "left": self.torrent.length,
            "compact": 1,
            "event": "started",
        }
        with urlopen(f"{self.torrent.announce}?{urlencode(parameters)}", timeout=5) as reply:
            answer = bencode_decode(reply.read())
        if b"failure reason" in answer:
            raise RuntimeError(answer[b"failure reason"])
        self.interval = answer[b"interval"]
        peers = answer[b"peers"]
        parts = [peers[at : at + 6] for at in range(0, len(peers), 6)]
        return [(socket.inet_ntoa(part[:4]), int.from_bytes(part[4:], "big")) for part in parts]
