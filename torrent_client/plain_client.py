"""The smallest client that works: one torrent, BEP 3 alone, and an end.

    a worker for each peer      connect, handshake, bitfield? interested, unchoke?
                                then  requests -> blocks -> requests ...  until nothing is wanted
    the caller's thread         ten times a second: who owes us blocks for too long, who has nothing to do?

It announces no extension (unless it is told to, after a magnet link): the eight reserved bytes of its handshake are
zero, its first message is `interested`, and it sends nothing that BEP 3 does not have. So a peer written for a lesson
understands all of it, and a capture of it shows nothing but the protocol. It serves nothing and keeps no state:
`download_manager` is the real client, of the same parts. Called by the milestone commands.

Spec: BEP 3 (peer protocol); the guide's Tasks 5 to 12.
Thread: the caller's, and a worker for each peer (`peer` in its name), which all end in `fetch`.
Lock: none; the PieceManager has one, and a dictionary's single operations need none.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Final, NamedTuple

from torrent_client.active_piece import ActivePiece
from torrent_client.bitfield import Bitfield
from torrent_client.config import MAX_MESSAGE_LENGTH, Config
from torrent_client.errors import PeerError, TorrentError, TrackerError
from torrent_client.peer_connection import PeerConnection
from torrent_client.piece_manager import PieceManager
from torrent_client.piece_picker import WantedPieces
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.protocol.messages import (
    BitfieldMessage,
    Choke,
    Extended,
    Have,
    Interested,
    Message,
    Piece,
    Unchoke,
    encode_requests,
)
from torrent_client.protocol.metadata import METADATA_EXTENSION
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, Progress, TrackerClient

TICK: Final = 0.1
"""Seconds between two looks at peers that wait, or keep us waiting."""

ROUNDS: Final = 3
"""Times that each peer is tried: one that was busy with somebody else, or went away, may be there again."""

ROUND_PAUSE: Final = 1.0
"""Seconds before the second round, twice that before the third."""

GOODBYE_LIMIT: Final = 2.0
"""Seconds that taking our leave of a tracker may last; as long as `Config.tracker_stop_timeout`."""

METADATA_ID: Final = 1
"""The id under which we take metadata messages (BEP 10); any from 1 to 255 would do."""


class ReadyPeer(NamedTuple):
    """A peer with which handshakes have been exchanged, and what it has said since then."""

    connection: PeerConnection
    said: list[Message]


def say_hello(connection: PeerConnection) -> None:
    """Send the extension handshake, which says that we take metadata messages (BEP 9 and 10)."""
    hello = ExtendedHandshake({METADATA_EXTENSION: METADATA_ID})
    connection.send(Extended(EXTENDED_HANDSHAKE_ID, hello.encode()))


def find_peers(trackers: Sequence[Sequence[str]], info_hash: bytes, peer_id: bytes, left: int) -> list[PeerAddress]:
    """Ask one tracker after the other until one of them knows peers, and leave it again.

    Args:
        trackers: announce URLs in tiers.
        info_hash: 20 bytes.
        peer_id: 20 bytes, ours.
        left: bytes that we lack, more than 0.

    Raises:
        TrackerError: none of them answered; says why of each.
    """
    refusals = []
    peers: list[PeerAddress] = []
    for url in (url for tier in trackers for url in tier):
        try:
            client = TrackerClient(url, info_hash, peer_id, Config().listen_port)
            peers = client.get_peers(left)
        except TrackerError as error:
            refusals.append(f"{url}: {error}")
            continue
        with suppress(TrackerError):  # nobody listens here: others need not be told of us
            client.announce(Progress(0, 0, left), "stopped", num_want=0, time_limit=GOODBYE_LIMIT)
        if peers:
            return peers
    if refusals:
        raise TrackerError("no tracker gave peers; " + "; ".join(refusals))
    if not trackers:
        raise TrackerError("no tracker to ask for peers")
    return peers


class PlainClient:
    """Fetches pieces of one torrent.

    Args:
        torrent: which one.
        peer_id: 20 bytes, ours.
        store: is given the index and the bytes of every piece whose hash is good, by several threads.
        wanted: pieces to fetch; all by default.
        config: time-outs.
        extensions: announce the extension protocol, and send its handshake to who announces it as well.
    """

    def __init__(
        self,
        torrent: TorrentFile,
        peer_id: bytes,
        store: Callable[[int, memoryview], None],
        wanted: Iterable[int] | None = None,
        config: Config | None = None,
        *,
        extensions: bool = False,
    ) -> None:
        """Connect to nobody yet."""
        self._config = config or Config()
        self.pieces = PieceManager(
            torrent.piece_hashes,
            torrent.piece_length,
            torrent.total_length,
            self._config,
            random.Random(),
            wanted=None if wanted is None else WantedPieces((sum(1 << index for index in set(wanted)),)),
        )
        self._info_hash = torrent.info_hash
        self._peer_id = peer_id
        self._store = store
        self._extensions = extensions
        self._connections: dict[PeerAddress, PeerConnection] = {}
        self._failures: dict[PeerAddress, str] = {}
        self._error: TorrentError | None = None
        self._closing = False

    def fetch(self, addresses: Sequence[PeerAddress], ready: ReadyPeer | None = None) -> None:
        """Get every wanted piece from these peers, several at a time.

        Args:
            addresses: where they are.
            ready: one that we are connected to already; its connection is closed in the end.

        Raises:
            TorrentError: what they have or give is not all that is wanted; says why of each.
            StorageError: a piece could not be kept.
        """
        for attempt in range(ROUNDS):
            if self.pieces.is_done:
                return
            time.sleep(attempt * ROUND_PAUSE)
            self._try_all(addresses, ready if attempt == 0 else None)
            if self._error:
                raise self._error
        if not self.pieces.is_done:
            reasons = "; ".join(f"{address}: {reason}" for address, reason in self._failures.items())
            raise TorrentError(f"the peers did not give all pieces; {reasons or 'there are no peers'}")

    def _try_all(self, addresses: Sequence[PeerAddress], ready: ReadyPeer | None) -> None:
        """Talk to each peer once, until nothing is wanted any more."""
        self._closing = False
        with ThreadPoolExecutor(self._config.dials_at_once, thread_name_prefix="peer") as executor:
            talks: set[Future[None]] = {executor.submit(self._talk, ready)} if ready else set()
            known = {ready.connection.address} if ready else set()
            talks |= {
                executor.submit(self._dial, address) for address in dict.fromkeys(addresses) if address not in known
            }
            try:
                while talks and not self.pieces.is_done and not self._error:
                    ended, talks = wait(talks, TICK)
                    for talk in ended:
                        talk.result()  # what nobody foresaw shows
                    self._tick(time.monotonic())
            finally:
                self._closing = True
                executor.shutdown(wait=False, cancel_futures=True)
                for connection in list(self._connections.values()):
                    connection.close("nothing more is wanted")

    def _tick(self, now: float) -> None:
        """Leave peers that keep us waiting; ask those again that had nothing to be asked for."""
        for connection in self.pieces.stalled_peers(now):
            assert isinstance(connection, PeerConnection)
            connection.close(f"no block in {self._config.request_timeout:.0f} s")
        for connection in self.pieces.take_hungry(now):
            assert isinstance(connection, PeerConnection)
            self._request_more(connection)

    # --- one peer --------------------------------------------------------------------------------------

    def _dial(self, address: PeerAddress) -> None:
        """Connect to one peer, and do all there is to do with it."""
        connection = PeerConnection(
            address,
            self._info_hash,
            self._peer_id,
            extensions=self._extensions,
            max_message_length=max(MAX_MESSAGE_LENGTH, self.pieces.piece_count // 8 + 2),
            config=self._config,
        )
        self._talk(ReadyPeer(connection, []))

    def _talk(self, peer: ReadyPeer) -> None:
        """Talk with one peer until nothing is wanted; the error boundary of its worker."""
        connection, said = peer
        self._connections[connection.address] = connection
        try:
            with connection:
                if connection.remote is None:
                    connection.connect()
                    remote = connection.handshake()
                    if self._extensions and remote.supports_extensions:
                        say_hello(connection)
                self.pieces.add_peer(connection)
                self.pieces.peer_choked(connection, keeps_requests=False)  # every connection begins choked (BEP 3)
                self._received(connection, said)
                while not self.pieces.is_done and not self._closing:
                    self._received(connection, connection.receive())
        except PeerError as error:
            self._failures[connection.address] = str(error)
        except TorrentError as error:
            self._error = error
        finally:
            self.pieces.remove_peer(connection)
            del self._connections[connection.address]

    def _received(self, connection: PeerConnection, messages: list[Message]) -> None:
        """Take note of what came, and answer it: with interest, or with requests."""
        for message in messages:
            match message:
                case BitfieldMessage(bits):
                    has = Bitfield.from_bytes(bits, self.pieces.piece_count)
                    self.pieces.peer_has_all(connection, has.bits)
                case Have(index):
                    self.pieces.peer_has(connection, index)
                case Choke():
                    connection.peer_choking = True
                    self.pieces.peer_choked(connection, keeps_requests=False)
                case Unchoke():
                    connection.peer_choking = False
                    self.pieces.peer_unchoked(connection)
                case _:
                    pass  # blocks are seen to below, all at once; what we do not know is ignored
        if self.pieces.is_interesting(connection):
            connection.send(Interested())
        blocks = [message for message in messages if isinstance(message, Piece)]
        full = self.pieces.receive_blocks(connection, blocks, time.monotonic()).full if blocks else []
        self._request_more(connection)
        for piece in full:
            self._verify(piece)

    def _request_more(self, connection: PeerConnection) -> None:
        """Keep as many requests under way as the guide says."""
        if not connection.peer_choking:
            depth = self._config.min_queue_depth
            requests = self.pieces.next_requests(connection, depth, time.monotonic())
            if requests:
                connection.send_encoded(encode_requests(requests))

    def _verify(self, piece: ActivePiece) -> None:
        """Keep a piece whose hash is good; of a bad one, leave the peer, if it alone sent it."""
        if not self.pieces.verify_piece(piece.index, piece.data):
            has_one_supplier = piece.has_one_supplier
            self.pieces.mark_failed(piece.index, [key for key, _ in piece.suppliers()])
            if has_one_supplier:
                raise PeerError(f"it sent piece {piece.index} with a bad hash")
            return
        try:
            self._store(piece.index, piece.data)
        except TorrentError:
            self.pieces.mark_failed(piece.index, was_bad=False)
            raise
        self.pieces.mark_complete(piece.index)
