"""A connected peer as the download manager sees it: its connection, our pipeline to it, its speeds.

Spec: none.
Thread: made by the peer's reader; `tick` in housekeeping; `stats` anywhere.
Lock: none; each field has one writer.
"""

from torrent_client.block_source import BlockSource
from torrent_client.config import Config
from torrent_client.peer_connection import PeerConnection
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol.client_names import client_name
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import Cancel, Extended, encode_requests
from torrent_client.request_pipeline import RequestPipeline
from torrent_client.speed_meter import SpeedMeter
from torrent_client.stats import PeerStats
from torrent_client.tracker_client import PeerAddress


class Peer(BlockSource):
    """One peer after its handshake.

    Args:
        connection: open, handshake done.
        source: where its address came from.
        config: limits of the pipeline.
    """

    def __init__(self, connection: PeerConnection, source: str, config: Config) -> None:
        """Begin with nothing sent or received."""
        assert connection.remote is not None
        super().__init__(connection.address, RequestPipeline(config))
        self.connection = connection
        self.peer_id = connection.remote.peer_id
        self.client = client_name(self.peer_id)
        self.source = source
        self.upload = SpeedMeter()
        self.idle_seconds = 0.0  # since a block came or went
        self.hello: ExtendedHandshake | None = None  # what it said of itself (BEP 10)

    def introduce(self, hello: ExtendedHandshake) -> None:
        """Take note of what the peer says of itself; it may say so again later (BEP 10)."""
        self.hello = self.hello.updated_by(hello) if self.hello else hello
        self.client = hello.client or self.client
        if hello.request_queue:
            self.pipeline.peer_accepts(hello.request_queue)

    def speaks(self, extension: str) -> bool:
        """Tell whether the peer speaks an extension."""
        return self.hello is not None and extension in self.hello.extensions

    def send_extended(self, extension: str, payload: bytes) -> None:
        """Send a message of an extension, if the peer speaks it.

        Args:
            extension: its name, such as `ut_metadata`.
            payload: the message without its ids.
        """
        if self.hello and extension in self.hello.extensions:
            self.connection.send(Extended(self.hello.extensions[extension], payload))

    @property
    def listen_address(self) -> PeerAddress | None:
        """Where others can reach the peer: where we did, or the port that it tells; None where it tells none."""
        if self.connection.outgoing:
            return self.connection.address
        port = self.hello.port if self.hello else None
        return PeerAddress(self.connection.address.host, port) if port else None

    def ask(self, pieces: PieceManager, now: float, /) -> None:
        """Fill the peer's pipeline, if it lets us."""
        may_ask = self.connection.fast or not self.connection.peer_choking
        if may_ask and self.connection.am_interested:
            requests = pieces.next_requests(self, self.pipeline.depth, now)
            if requests:
                self.connection.send_encoded(encode_requests(requests))

    def cancel(self, cancel: Cancel) -> None:
        """Take a request back: another source was quicker."""
        self.connection.send(cancel)

    def snub(self) -> None:
        """Ask for one block at a time from now on."""
        self.pipeline.snub()

    def tick(self, seconds: float, latency: float) -> None:
        """Measure both directions; called once a second.

        Args:
            seconds: since the last time.
            latency: the shortest time, in seconds, in which the peer answered a request.
        """
        self.upload.total = self.connection.uploaded
        self.download.tick(seconds)
        self.upload.tick(seconds)
        self.pipeline.measure(self.download.last_second, latency)
        is_idle = not self.download.last_second and not self.upload.last_second
        self.idle_seconds = self.idle_seconds + seconds if is_idle else 0.0

    def stats(self, pieces: int, in_flight: int) -> PeerStats:
        """Return a snapshot.

        Args:
            pieces: how many the peer has.
            in_flight: blocks that it owes us.
        """
        return PeerStats(
            address=str(self.connection.address),
            client=self.client,
            source=self.source,
            direction="out" if self.connection.outgoing else "in",
            state=self._state(in_flight),
            pieces=pieces,
            in_flight=in_flight,
            download_rate=self.download.smoothed,
            upload_rate=self.upload.smoothed,
            downloaded=self.download.total,
            uploaded=self.upload.total,
            encrypted=self.connection.is_encrypted,
        )

    def _state(self, in_flight: int) -> str:
        """Return what the peer does for us, in a word or three."""
        connection = self.connection
        if connection.am_interested:
            if connection.peer_choking:
                return "choked"
            if self.pipeline.snubbed:
                return "snubbed"
            return "sending" if in_flight else "idle"
        if connection.peer_interested and not connection.am_choking:
            return "downloading from us"
        return "nothing for us"
