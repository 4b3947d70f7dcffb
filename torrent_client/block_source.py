"""Whoever sends us blocks when asked: a peer, or a web seed.

    PieceManager   counts, picks, releases    by whatever key it is given
    Conversation   asks, cancels, snubs       any BlockSource
    the verifier   suspects and bans          by the source's address

To the truth about pieces all sources are alike, so that picking, verification, bans and statistics exist once.

Spec: none.
Thread: the source's own worker, but for `cancel`, `ask` and `snub`, which may come from any.
Lock: none.
"""

from torrent_client.piece_manager import PieceManager
from torrent_client.protocol.messages import Cancel
from torrent_client.request_pipeline import RequestPipeline
from torrent_client.smart_ban import SourceAddress
from torrent_client.speed_meter import SpeedMeter


class BlockSource:
    """One source of blocks.

    Args:
        address: where it is.
        pipeline: how many blocks it may owe us.

    Attributes:
        download: the bytes of blocks that it sent and we lacked.
    """

    def __init__(self, address: SourceAddress, pipeline: RequestPipeline) -> None:
        """Begin with nothing received."""
        self.address = address
        self.pipeline = pipeline
        self.download = SpeedMeter()

    def ask(self, pieces: PieceManager, now: float, /) -> None:
        """Ask it for as many blocks as its pipeline holds, if it may be asked now; returns at once."""
        raise NotImplementedError

    def cancel(self, cancel: Cancel) -> None:
        """Take a request back: another source was quicker."""
        raise NotImplementedError

    def snub(self) -> None:
        """It kept us waiting for too long, and what it owed us goes to others."""
        raise NotImplementedError
