"""The life of one torrent: find out what is there, get the rest from many peers, serve what we have.

                        announce thread ---- addresses ----> PeerPool
                                                                | dial (housekeeping)
    +----------------- a worker for each peer (ThreadPoolExecutor) -----------------+
    | reader: receive -> blocks into PieceManager -> next requests -> outbox        |---- writer
    +-------------------------------------------------------------------------------+
                  | full piece
                  v
    verifier: hash -> Storage.write_piece -> mark_complete -> `have` to every peer that lacks it

The anatomy of one block: the worker asks `PieceManager.next_requests` what to ask the peer for and puts
the requests into its outbox; the block comes with others in one `recv`, `receive_blocks` copies it into
its piece; the worker sends the next requests *first*, so that the line stays busy, and hands a piece that
became full to a verifier *after* that.

Spec: BEP 3, BEP 10; the guide's Tasks 11, 14 and 15.
Thread: housekeeping (one a torrent), peers' workers, verifiers; public methods from any thread.
Lock: none; the parts have theirs.
"""

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Event, Thread
from typing import Any, Final

from torrent_client import __version__
from torrent_client.active_piece import ActivePiece
from torrent_client.announcer import Announcer
from torrent_client.bitfield import Bitfield
from torrent_client.config import MAX_MESSAGE_LENGTH, Config
from torrent_client.errors import (
    DataIncomplete,
    DownloadStalled,
    PeerDisconnected,
    ProtocolViolation,
    StorageError,
    TorrentError,
)
from torrent_client.hash_check import CHECKS_AT_ONCE, check_pieces, judge_files
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol import messages
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.rate_limiter import Limits
from torrent_client.resume import ResumeFile, format_ranges
from torrent_client.seeding_goals import SeedingGoals, share_ratio
from torrent_client.smart_ban import SmartBan
from torrent_client.speed_meter import SpeedMeter
from torrent_client.stats import TorrentState, TorrentStats, waiting_reason
from torrent_client.storage import Storage
from torrent_client.swarm import PeerCallbacks, Swarm
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, Progress, TrackerClient

logger = logging.getLogger(__name__)

CLIENT_NAME: Final = f"torrent-client {__version__}"

STOP_LIMIT: Final = 2.0
"""Seconds that stopping waits for workers; what then still hangs in a name look-up is left behind."""


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """What the user may choose for one torrent.

    Attributes:
        output: directory that the files go to.
        state_directory: where the state file goes; None for no state file.
        sequential: pieces in order.
        seed: go on serving when complete.
        given_peers: addresses to dial at once.
        goals: what ends seeding.
        read_only: only serve what is there, and change nothing of it; an error if it is not complete.
    """

    output: Path
    state_directory: Path | None = None
    sequential: bool = False
    seed: bool = False
    given_peers: tuple[PeerAddress, ...] = ()
    goals: SeedingGoals = field(default_factory=SeedingGoals)
    read_only: bool = False


class DownloadManager:
    """Downloads and serves one torrent until it is stopped.

    Args:
        torrent: what to download.
        options: where to, and how.
        peer_id: 20 bytes, ours.
        port: TCP port that we listen on, told to trackers.
        config: limits.
        limits: bytes per second of this torrent.
        rng: source of randomness.
        clock: monotonic seconds.
        slots: one for each connection that all torrents of a session may have together.
        changed: is set when the download ends, in whatever way; several torrents may share one.
    """

    def __init__(
        self,
        torrent: TorrentFile,
        options: DownloadOptions,
        peer_id: bytes,
        port: int,
        config: Config,
        limits: Limits | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        slots: BoundedSemaphore | None = None,
        changed: Event | None = None,
    ) -> None:
        """Build the parts; `start` brings them to life."""
        rng = rng or random.Random()
        self.torrent = torrent
        self.options = options
        self._peer_id = peer_id
        self._port = port
        self._config = config
        self._clock = clock
        self.limits = limits or Limits()
        self.storage = Storage(
            options.output, torrent.files, torrent.piece_length, config.max_open_files, read_only=options.read_only
        )
        self.pieces = PieceManager(
            torrent.piece_hashes,
            torrent.piece_length,
            torrent.total_length,
            config,
            rng,
            sequential=options.sequential,
            early=_early_pieces(torrent, self.storage) if options.sequential else 0,
        )
        callbacks = PeerCallbacks(joined=self._on_joined, received=self._on_messages, left=self._on_left)
        self.swarm = Swarm(peer_id, config, callbacks, self._new_connection, clock, slots)
        key = rng.getrandbits(32)
        clients = [
            [TrackerClient(url, torrent.info_hash, peer_id, port, key=key, config=config) for url in tier]
            for tier in torrent.trackers
        ]
        self.announcer = Announcer(
            clients, self._progress, partial(self.swarm.add_addresses, source="tracker"), config, rng, clock
        )
        state_directory = options.state_directory
        self._resume = ResumeFile(state_directory, torrent, options.output) if state_directory else None
        self._resume_error: str | None = None
        self._smart_ban = SmartBan()
        self._verifier = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._verifier_slots = BoundedSemaphore(max(1, config.verifier_backlog // torrent.piece_length))
        self._housekeeping = Thread(target=self._run, name="housekeeping", daemon=True)
        self._state = TorrentState.STARTING
        self._error: TorrentError | None = None
        self._stopping = Event()
        self._changed = changed or Event()
        self._ended = Event()  # complete, failed or stopped
        self._started_at = clock()
        self._ended_at: float | None = None
        self._download = SpeedMeter()
        self._upload = SpeedMeter()
        self._checked = 0
        self._to_check = 0
        self._earlier = Progress(0, 0, 0)  # totals of earlier runs
        self._had_everything = False
        self._dirty = False  # pieces were written since the last save
        self.goal_reached: str | None = None  # which seeding goal, in words

    # --- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        self._housekeeping.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the download is complete, has failed or was stopped; tell whether it is so."""
        return self._ended.wait(timeout)

    def wait_for_change(self, timeout: float) -> None:
        """Wait for `timeout` seconds, or until the state changes if that is sooner."""
        self._changed.wait(timeout)
        self._changed.clear()

    @property
    def seconds(self) -> float:
        """Seconds from the first tick to completion, or to now."""
        return (self._ended_at or self._clock()) - self._started_at

    @property
    def state(self) -> TorrentState:
        """What the torrent is doing."""
        return self._state

    @property
    def error(self) -> TorrentError | None:
        """What ended the download, if something did."""
        return self._error

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen: failed, left, or complete with nothing to stay for."""
        is_satisfied = self._state is TorrentState.COMPLETE and not self.options.seed
        return is_satisfied or self._error is not None or self._stopping.is_set()

    def begin_stop(self, reason: str = "we are stopping") -> None:
        """Leave the swarm, and say so to the tracker; returns at once, and `stop` does the rest.

        Args:
            reason: why connections are closed, for the log.
        """
        self._stopping.set()
        self.announcer.begin_stop()
        self.swarm.close(reason)

    def stop(self) -> None:
        """Save, say goodbye, and leave no thread, socket or file behind; within about 3 seconds."""
        self.begin_stop()
        if self._housekeeping.ident is not None:
            self._housekeeping.join()
        self.swarm.join(STOP_LIMIT)
        self._verifier.shutdown(wait=True)
        if self._state not in (TorrentState.STARTING, TorrentState.CHECKING, TorrentState.ERROR):
            self._save_state(synced=self._sync())
        self.storage.close()
        self.announcer.finish_stop()
        if self._state is not TorrentState.ERROR and not self.pieces.is_complete:
            self._state = TorrentState.STOPPED
        self._end()

    def accept(self, sock: socket.socket, address: PeerAddress, handshake: messages.Handshake) -> bool:
        """Take over a connection that the listener accepted; False when there is no room for it."""
        return self.swarm.accept(sock, address, handshake)

    # --- housekeeping ------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Prepare, then tick once a second until we stop."""
        try:
            self._prepare()
            if self._stopping.is_set():
                return
            self.swarm.add_addresses(self.options.given_peers, "given")
            self.announcer.start()
            self._tick_until_stopped()
        except TorrentError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("housekeeping failed")
            self._fail(TorrentError(f"internal error: {error!r}; -v with --log-file FILE tells more"))

    def _prepare(self) -> None:
        """Find out which pieces are on disk, and make room for the others."""
        state = self._resume.load() if self._resume else None
        believed, doubtful = judge_files(state, self.storage, self.torrent.piece_count)
        if state:
            self._earlier = Progress(state.uploaded, state.downloaded, 0)
        for index in believed:
            self.pieces.mark_complete(index)
        if not self.options.read_only:
            self.storage.check_free_space(self.storage.bytes_to_allocate())
            self.storage.preallocate()
        if doubtful:
            self._check(doubtful)
        if self.options.read_only and not self.pieces.is_complete and not self._stopping.is_set():
            raise DataIncomplete(self._what_is_missing())
        for file in self.storage.oversized():
            logger.warning("%s is longer than the torrent says; it is left so", self.storage.path(file))
        self._had_everything = self.pieces.is_complete
        if not self._stopping.is_set():
            self._state = TorrentState.DOWNLOADING
            self.swarm.open(dials=not self.pieces.is_complete or self.options.seed)
            if self.pieces.is_complete:
                self._complete()

    def _check(self, doubtful: Bitfield) -> None:
        """Hash pieces that may be on disk."""
        self._state = TorrentState.CHECKING
        self._to_check = len(doubtful)
        logger.info("checking %d pieces on disk", len(doubtful))

        def on_checked(_index: int, _good: bool) -> None:
            self._checked += 1

        with ThreadPoolExecutor(min(CHECKS_AT_ONCE, os.cpu_count() or 1), thread_name_prefix="check") as executor:
            check_pieces(self.pieces, self.storage, doubtful, executor, on_checked, self._stopping.is_set)
        self._dirty = True

    def _tick_until_stopped(self) -> None:
        """Dial, measure, time out and save, at their intervals."""
        now = self._clock()
        last_save = last_bytes = now
        while not self._stopping.wait(self._config.housekeeping_interval):
            before, now = now, self._clock()
            self._measure(now - before)
            self.swarm.dial()
            self._time_out(now)
            self._feed_hungry(now)
            if self._download.last_second:
                last_bytes = now
            self._give_up_if_idle(now - last_bytes)
            self._pursue_goals(now)
            if now - last_save >= self._config.resume_interval:
                self._save_state(synced=False)
                last_save = now

    def _measure(self, seconds: float) -> None:
        """Take the speeds; drop peers that are of no use to anybody."""
        peers = self.swarm.peers()
        for peer in peers:
            peer.tick(seconds)
            self.pieces.set_rate(peer, peer.download.smoothed)
            self._update_interest(peer)
        self._download.total = self.pieces.useful_bytes
        self._upload.total = self.swarm.uploaded
        self._download.tick(seconds)
        self._upload.tick(seconds)

    def _time_out(self, now: float) -> None:
        """Snub peers that keep us waiting; ask them for one block at a time."""
        for key in self.pieces.stalled_peers(now):
            assert isinstance(key, Peer)
            logger.debug("%s is snubbed: it owes us blocks and sends none", key.connection.address)
            key.pipeline.snub()
            self._request_more(key, now)

    def _feed_hungry(self, now: float) -> None:
        """Ask peers again that had nothing left to be asked for, now that there may be something."""
        for key in self.pieces.take_hungry():
            assert isinstance(key, Peer)
            self._request_more(key, now)

    def _give_up_if_idle(self, seconds: float) -> None:
        """End a download that gets nothing, if the user set a limit to that."""
        limit = self._config.stop_after_idle
        if limit and seconds >= limit and self._state is TorrentState.DOWNLOADING:
            self._fail(DownloadStalled(f"nothing came for {seconds:.0f} s: {self.stats().waiting_for}"))

    def _pursue_goals(self, now: float) -> None:
        """Leave when a seeding goal is reached: a tick later, so that what was sent last still arrives."""
        if self._state is not TorrentState.COMPLETE or not self.options.seed or self._ended_at is None:
            return
        if self.goal_reached:
            logger.info("seeding ends: %s", self.goal_reached)
            self._save_state(synced=False)
            self.begin_stop("the seeding goal is reached")
            self._changed.set()
            return
        uploaded = self._earlier.uploaded + self.swarm.uploaded
        self.goal_reached = self.options.goals.reached(uploaded, self.torrent.total_length, now - self._ended_at)

    def _what_is_missing(self) -> str:
        """Return how much of the data that is only to be served is not good."""
        good = self.pieces.bitfield
        missing = Bitfield(self.torrent.piece_count, Bitfield.full(self.torrent.piece_count).bits & ~good.bits)
        place = self.storage.path(self.torrent.files[0]) if len(self.torrent.files) == 1 else self.options.output
        return (
            f"the data in {place} is not complete: {len(good):,} of {self.torrent.piece_count:,} pieces are good; "
            f"missing or bad: {format_ranges(missing)}"
        )

    def _fail(self, error: TorrentError) -> None:
        """End the download with an error; what is verified stays and the state is saved."""
        if self._error is None:
            self._error = error
            logger.info("%s", error)  # whoever waits for the end tells the user
            if self._state not in (TorrentState.STARTING, TorrentState.CHECKING):
                self._save_state(synced=False)
            self._state = TorrentState.ERROR
        self.begin_stop("the download has failed")
        self._end()

    def _complete(self) -> None:
        """The last piece is on disk."""
        self._state = TorrentState.COMPLETE
        if not self._had_everything:
            self.announcer.completed()
        for peer in self.swarm.peers():
            self._update_interest(peer)
        self._end()

    def _end(self) -> None:
        """Wake everybody who waits for the end."""
        self._ended_at = self._ended_at or self._clock()
        self._ended.set()
        self._changed.set()

    def _save_state(self, *, synced: bool) -> None:
        """Write the state file; a failure is told once and holds nothing up."""
        if self._resume is None:
            return
        try:
            downloaded, uploaded = self._earlier.downloaded + self.pieces.useful_bytes, self.swarm.uploaded
            completed = self.pieces.bitfield
            self._resume.save(completed, self.storage, self._earlier.uploaded + uploaded, downloaded, synced=synced)
            self._resume_error = None
        except StorageError as error:
            if self._resume_error is None:
                logger.warning("%s; an interrupted download will be hashed again", error)
            self._resume_error = str(error)

    def _sync(self) -> bool:
        """Bring the files to the disk itself, if that takes no longer than stopping may; tell whether."""
        thread = Thread(target=self._try_sync, name="sync", daemon=True)
        thread.start()
        thread.join(STOP_LIMIT / 2)
        return not thread.is_alive() and not self._dirty

    def _try_sync(self) -> None:
        try:
            self.storage.sync()
            self._dirty = False
        except StorageError as error:
            logger.warning("%s", error)

    # --- peers -------------------------------------------------------------------------------------------

    def _new_connection(
        self, address: PeerAddress, sock: socket.socket | None, remote: messages.Handshake | None
    ) -> PeerConnection:
        return PeerConnection(
            address,
            self.torrent.info_hash,
            self._peer_id,
            sock=sock,
            remote_handshake=remote,
            extensions=True,
            max_message_length=max(MAX_MESSAGE_LENGTH, self.torrent.piece_count // 8 + 2),
            read_block=self._read_block,
            limits=self.limits,
            config=self._config,
        )

    def _on_left(self, peer: Peer | None) -> None:
        """Give what a peer leaves behind, its blocks and its upload slot, to others."""
        if peer:
            self.pieces.remove_peer(peer)
            self._fill_upload_slots()
            self._feed_hungry(self._clock())

    # --- messages, on the peer's worker ------------------------------------------------------------------

    def _on_joined(self, peer: Peer) -> None:
        """Say who we are and what we have, before anything else."""
        self.pieces.add_peer(peer)
        connection = peer.connection
        assert connection.remote is not None
        if self.pieces.complete_count:
            connection.send(messages.BitfieldMessage(self.pieces.bitfield.to_bytes()))
        if connection.remote.supports_extensions:
            hello = ExtendedHandshake(client=CLIENT_NAME, port=self._port or None, request_queue=self._config.reqq)
            connection.send(messages.Extended(EXTENDED_HANDSHAKE_ID, hello.encode()))

    def _on_messages(self, peer: Peer, batch: Sequence[messages.Message]) -> None:
        """Handle what one read brought, in order; neighbouring blocks together."""
        blocks: list[messages.Piece] = []
        for message in batch:
            if type(message) is messages.Piece:
                blocks.append(message)
                continue
            if blocks:
                self._on_blocks(peer, blocks)
                blocks = []
            handler = _HANDLERS.get(type(message))
            if handler:
                handler(self, peer, message)
        if blocks:
            self._on_blocks(peer, blocks)

    def _on_blocks(self, peer: Peer, blocks: Sequence[messages.Piece]) -> None:
        """Store blocks, ask for the next ones, and only then see to pieces that became full."""
        now = self._clock()
        received = self.pieces.receive_blocks(peer, blocks, now)
        peer.download.add(received.useful)
        peer.pipeline.received(len(blocks))
        for loser, cancel in received.cancels:
            assert isinstance(loser, Peer)
            loser.connection.send(cancel)
        self._request_more(peer, now)
        for piece in received.full:
            self._verify_soon(piece)

    def _on_choke(self, peer: Peer, _message: messages.Choke) -> None:
        """The peer forgets what we asked for, so that others may be asked."""
        peer.connection.peer_choking = True
        self.pieces.release_requests(peer)
        self._feed_hungry(self._clock())

    def _on_unchoke(self, peer: Peer, _message: messages.Unchoke) -> None:
        peer.connection.peer_choking = False
        self._request_more(peer, self._clock())

    def _on_interested(self, peer: Peer, _message: messages.Interested) -> None:
        peer.connection.peer_interested = True
        self._fill_upload_slots()

    def _on_not_interested(self, peer: Peer, _message: messages.NotInterested) -> None:
        peer.connection.peer_interested = False
        peer.connection.send(messages.Choke())
        self._fill_upload_slots()

    def _on_have(self, peer: Peer, message: messages.Have) -> None:
        if self.pieces.peer_has(peer, message.piece_index):
            self._on_new_pieces(peer)

    def _on_bitfield(self, peer: Peer, message: messages.BitfieldMessage) -> None:
        """Take a bitfield at any time: some clients send it late, or twice."""
        bitfield = Bitfield.from_bytes(message.bits, self.torrent.piece_count)
        if self.pieces.peer_has_all(peer, bitfield.bits):
            self._on_new_pieces(peer)
        elif bitfield.complete and self.pieces.is_complete:
            raise PeerDisconnected("both of us have everything")

    def _on_new_pieces(self, peer: Peer) -> None:
        """The peer has something for us: say so, and ask for it if we may."""
        peer.connection.send(messages.Interested())
        self._request_more(peer, self._clock())

    def _on_request(self, peer: Peer, message: messages.Request) -> None:
        """Queue a block for a peer that we have unchoked; a choked peer's requests crossed our choke."""
        size = self.pieces.piece_size(message.piece_index) if message.piece_index < self.pieces.piece_count else 0
        if not 0 < message.length <= self._config.max_request_length or message.begin + message.length > size:
            raise ProtocolViolation(f"it asks for what does not exist: {message}")
        if peer.connection.am_choking or not self.pieces.has_piece(message.piece_index):
            return
        if peer.connection.upload(message) > self._config.reqq:
            raise ProtocolViolation(f"it asks for more than {self._config.reqq} blocks at once")

    def _on_cancel(self, peer: Peer, message: messages.Cancel) -> None:
        peer.connection.cancel_upload(messages.Request(*message))

    def _on_extended(self, peer: Peer, message: messages.Extended) -> None:
        """Read the extension handshake; other extensions we did not offer, so nobody should send them."""
        if message.extension_id != EXTENDED_HANDSHAKE_ID:
            return
        hello = ExtendedHandshake.decode(message.payload)
        peer.client = hello.client or peer.client
        if hello.request_queue:
            peer.pipeline.peer_accepts(hello.request_queue)

    # --- downloading -------------------------------------------------------------------------------------

    def _request_more(self, peer: Peer, now: float) -> None:
        """Fill the peer's pipeline, if it lets us."""
        if peer.connection.peer_choking or not peer.connection.am_interested or self._error:
            return
        requests = self.pieces.next_requests(peer, peer.pipeline.depth, now)
        if requests:
            peer.connection.send_encoded(messages.encode_requests(requests))

    def _verify_soon(self, piece: ActivePiece) -> None:
        """Hand a full piece to the verifier; when that is busy, verify it here, which slows this peer down."""
        if self._verifier_slots.acquire(blocking=False):
            future = self._verifier.submit(self._finish_piece, piece)
            future.add_done_callback(lambda _: self._verifier_slots.release())
        else:
            self._finish_piece(piece)

    def _finish_piece(self, piece: ActivePiece) -> None:
        """Verify a full piece, write it, tell the swarm: a verifier's whole job, and its error boundary."""
        try:
            if self.pieces.verify_piece(piece.index, piece.data):
                self._keep_piece(piece)
            else:
                self._reject_piece(piece)
            self._feed_hungry(self._clock())
        except StorageError as error:
            self.pieces.mark_failed(piece.index, was_bad=False)
            self._fail(error)
        except Exception as error:
            logger.exception("a verifier failed")
            self._fail(TorrentError(f"internal error: {error!r}; -v with --log-file FILE tells more"))

    def _keep_piece(self, piece: ActivePiece) -> None:
        """Write a good piece and announce it to those who lack it."""
        self.storage.write_piece(piece.index, piece.data)
        self._dirty = True
        guilty = self._smart_ban.convict(piece.index, [block for _, block in piece.suppliers()])
        was_last = self.pieces.mark_complete(piece.index)
        self.swarm.ban(guilty, f"it sent bad blocks of piece {piece.index}")
        have = messages.Have(piece.index)
        for peer in self.swarm.peers():
            if self.pieces.peer_lacks(peer, piece.index):
                peer.connection.send(have, may_wait=True)
        if was_last:
            self._complete()

    def _reject_piece(self, piece: ActivePiece) -> None:
        """A bad hash: ban the only supplier, or suspect all until the smart ban knows better."""
        suppliers = {peer for peer in piece.requesters if isinstance(peer, Peer)}
        logger.warning("piece %d failed its hash; %d supplier(s)", piece.index, len(suppliers))
        if len(suppliers) == 1:
            self.pieces.mark_failed(piece.index)
            addresses = {peer.connection.address for peer in suppliers}
            self.swarm.ban(addresses, f"it alone sent piece {piece.index}, which is bad")
        else:
            blocks = [(peer.connection.address, block) for peer, block in piece.suppliers() if isinstance(peer, Peer)]
            self._smart_ban.remember(piece.index, blocks)
            self.pieces.mark_failed(piece.index, suppliers)

    def _update_interest(self, peer: Peer) -> None:
        """Tell a peer whether it has something for us, if that has changed; leave it when neither has."""
        if self.pieces.is_interesting(peer):
            peer.connection.send(messages.Interested())
            return
        peer.connection.send(messages.NotInterested())
        pieces, _ = self.pieces.peer_progress(peer)
        if self.pieces.is_complete and pieces == self.torrent.piece_count:
            peer.connection.close("both of us have everything")

    # --- uploading ---------------------------------------------------------------------------------------

    def _fill_upload_slots(self) -> None:
        """Unchoke interested peers while slots are free, the longest connected first."""
        peers = self.swarm.peers()
        free = self._config.upload_slots - sum(not peer.connection.am_choking for peer in peers)
        for peer in peers:
            if free > 0 and peer.connection.am_choking and peer.connection.peer_interested:
                peer.connection.send(messages.Unchoke())
                free -= 1

    def _read_block(self, request: messages.Request) -> bytes:
        """Read a block to upload, on the peer's writer."""
        return self.storage.read_block(request.piece_index, request.begin, request.length)

    # --- numbers -----------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        """Return what trackers are told."""
        left = self.torrent.total_length - self.pieces.complete_bytes
        return Progress(self.swarm.uploaded, self.pieces.useful_bytes, left)

    def stats(self) -> TorrentStats:
        """Return a snapshot of everything."""
        now = self._clock()
        peers = tuple(peer.stats(*self.pieces.peer_progress(peer)) for peer in self.swarm.peers())
        trackers = tuple(self.announcer.statuses())
        known, banned = self.swarm.pool.counts()
        connecting = self.swarm.connecting
        left = self.torrent.total_length - self.pieces.complete_bytes
        rate = self._download.smoothed
        downloading = self._state is TorrentState.DOWNLOADING
        waiting_for = None
        if downloading and not self._download.last_second and not self._stopping.is_set():
            next_dial = self.swarm.pool.next_dial_time()
            next_dial_in = None if next_dial is None else next_dial - now
            waiting_for = waiting_reason(peers, trackers, connecting, known, next_dial_in, now)
            if self.swarm.is_held_back and not peers:
                waiting_for = f"all {self._config.max_peers_total:,} connections are in use by other torrents"
        return TorrentStats(
            name=self.torrent.name,
            info_hash=self.torrent.info_hash.hex(),
            state=self._state,
            size=self.torrent.total_length,
            bytes_done=self.pieces.complete_bytes,
            pieces_done=self.pieces.complete_count,
            pieces_total=self.torrent.piece_count,
            downloaded=self.pieces.useful_bytes,
            uploaded=self.swarm.uploaded,
            wasted=self.pieces.wasted_bytes,
            hash_failures=self.pieces.hash_failures,
            download_rate=rate,
            upload_rate=self._upload.smoothed,
            eta=left / rate if downloading and rate else None,
            checked=self._checked,
            to_check=self._to_check,
            known_peers=known,
            connecting=connecting,
            banned=banned,
            peers=peers,
            trackers=trackers,
            piece_states=self.pieces.states(),
            waiting_for=waiting_for,
            error=str(self._error) if self._error else None,
            ratio=share_ratio(self._earlier.uploaded + self.swarm.uploaded, self.torrent.total_length),
            seeding=self._state is TorrentState.COMPLETE and self.options.seed and not self._stopping.is_set(),
        )


def _early_pieces(torrent: TorrentFile, storage: Storage) -> int:
    """Return the first and last piece of every file, as a set of bits."""
    early = 0
    for file in torrent.files:
        pieces = storage.pieces_of(file)
        if pieces and not file.is_padding:
            early |= 1 << pieces[0] | 1 << pieces[-1]
    return early


_HANDLERS: Final[dict[type, Callable[[DownloadManager, Peer, Any], None]]] = {
    messages.Choke: DownloadManager._on_choke,
    messages.Unchoke: DownloadManager._on_unchoke,
    messages.Interested: DownloadManager._on_interested,
    messages.NotInterested: DownloadManager._on_not_interested,
    messages.Have: DownloadManager._on_have,
    messages.BitfieldMessage: DownloadManager._on_bitfield,
    messages.Request: DownloadManager._on_request,
    messages.Cancel: DownloadManager._on_cancel,
    messages.Extended: DownloadManager._on_extended,
}
