"""The life of one torrent: find out what is there, get the rest from many peers, serve what we have.

                        announce thread ---- addresses ----> PeerPool
                                                                | dial (housekeeping)
    +----------------- a worker for each peer (ThreadPoolExecutor) -----------------+
    | reader: receive -> blocks into PieceManager -> next requests -> outbox        |---- writer
    +-------------------------------------------------------------------------------+
                  | full piece
                  v
    worker or verifier: hash -> Storage.write_piece -> mark_complete -> `have` to every peer that lacks it

The anatomy of one block: the worker asks `PieceManager.next_requests` what to ask the peer for and puts
the requests into its outbox; the block comes with others in one read, straight into its piece, and
`receive_blocks` takes note; the worker sends the next requests *first*, so that the line stays busy, and
sees to a piece that became full *after* that. What peers say and hear is `conversation`'s business.

Called by `session`, which makes one for each torrent; `cli.get` looks at its `stats`.

Spec: BEP 3, 6, 10; the guide's Tasks 11, 14 and 15.
Thread: housekeeping (one a torrent), peers' workers, verifiers; public methods from any thread.
Lock: none; the parts have theirs.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import BoundedSemaphore, Event, Thread
from typing import Final

from torrent_client.active_piece import ActivePiece
from torrent_client.config import MAX_MESSAGE_LENGTH, Config
from torrent_client.conversation import Conversation
from torrent_client.discovery import Discovery, Services
from torrent_client.download_options import DownloadOptions
from torrent_client.encryption import PeerSocket
from torrent_client.errors import DownloadStalled, FileVanished, StorageError, TooManyFiles, TorrentError
from torrent_client.file_selection import FileSelection, wanted_pieces
from torrent_client.inventory import Inventory
from torrent_client.metadata_server import MetadataServer
from torrent_client.part_file import part_file_name
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_exchange import PeerExchange
from torrent_client.peer_extensions import Extension, PeerExtensions
from torrent_client.piece_manager import PieceManager
from torrent_client.piece_picker import WantedPieces
from torrent_client.piece_verifier import PieceVerifier, VerifierCallbacks
from torrent_client.protocol import messages
from torrent_client.rate_limiter import Limits
from torrent_client.seeding_goals import share_ratio
from torrent_client.smart_ban import SourceAddress
from torrent_client.speed_meter import SpeedMeter
from torrent_client.stats import TorrentState, TorrentStats, seeding_reason, waiting_reason
from torrent_client.storage import Storage
from torrent_client.swarm import PeerCallbacks, Swarm
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, Progress
from torrent_client.web_seed import WebSeedCallbacks
from torrent_client.web_seeds import WebSeeds

logger = logging.getLogger(__name__)

HAVE_INTERVAL: Final = 0.1
"""Seconds between two looks for pieces that others are to be told of: ten wake-ups a second and peer at most, however
fast pieces come, and soon enough for a swarm, in which to fetch a piece takes longer."""

EVENT_PAUSE: Final = 0.02
"""Seconds in which news for the choker are gathered; short beside the round trip that an unchoke takes."""

STOP_LIMIT: Final = 2.5
"""Seconds that stopping waits, in all: users press Ctrl-C again after three."""


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
        discovery: looks for peers already; by default one is made that asks the torrent's trackers.

    Raises:
        SelectionError: files were chosen that the torrent does not have.
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
        discovery: Discovery | None = None,
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
        self._priorities = options.files.resolve(torrent.files)
        self.storage = Storage(
            options.output,
            torrent.files,
            torrent.piece_length,
            config.max_open_files,
            wanted=[priority > 0 for priority in self._priorities],
            part_name=part_file_name(torrent.info_hash),
            read_only=options.read_only,
        )
        self.pieces = PieceManager(
            torrent.piece_hashes,
            torrent.piece_length,
            torrent.total_length,
            config,
            rng,
            sequential=options.sequential,
            wanted=self._wanted_pieces(options.files),
        )
        self._attention = Event()  # housekeeping should look at the choker before its next tick
        self.discovery = discovery or self._own_discovery(rng)
        self.conversation = Conversation(
            torrent.info_hash,
            self.pieces,
            self._connected,
            self._verify,
            self._attention.set,
            self._extensions(rng),
            config,
            rng,
            clock,
            metadata_size=len(torrent.info),
            super_seed=options.super_seed,
            discovery=self.discovery,
        )
        talk = self.conversation
        callbacks = PeerCallbacks(talk.joined, talk.received, talk.left, self.pieces.places)
        self.swarm: Swarm = Swarm(peer_id, config, callbacks, self._new_connection, clock, slots, port)
        self._verifier = PieceVerifier(
            self.pieces,
            self.storage,
            VerifierCallbacks(self._on_good_piece, self._ban, self._complete, self._fail),
            max(1, config.verifier_backlog // torrent.piece_length),
        )
        web_callbacks = WebSeedCallbacks(self.conversation.store, partial(self._on_good_piece, None))
        self.web_seeds = WebSeeds(
            torrent, options.web_seeds, self.pieces, web_callbacks, self.limits.download, config, clock
        )
        self.discovery.attach(self.swarm.add_addresses, self._progress)
        self._housekeeping = Thread(target=self._run, name="housekeeping", daemon=True)
        self._state = TorrentState.STARTING
        self._error: TorrentError | None = None
        self._stopping = Event()
        self._inventory = Inventory(torrent, options, self.storage, self.pieces, self._stopping.is_set)
        self._changed = changed or Event()
        self._ended = Event()  # complete, failed or stopped
        self._started_at = clock()
        self._ended_at: float | None = None
        self._download = SpeedMeter()
        self._upload = SpeedMeter()
        self._had_everything = False
        self._is_ending = False  # `stop` was called, and saves itself
        self.goal_reached: str | None = None  # which seeding goal, in words

    def _extensions(self, rng: random.Random) -> PeerExtensions:
        """Return what we speak with peers; a private torrent has peers of its trackers alone (BEP 27)."""
        extensions: list[Extension] = [MetadataServer(self.torrent.info)]
        if self._config.pex and not self.torrent.is_private:
            extensions.append(PeerExchange(self._connected, self._on_hearsay, self._clock, rng, self._is_seed))
        return PeerExtensions(extensions, self._port, self._config)

    def _own_discovery(self, rng: random.Random) -> Discovery:
        torrent = self.torrent
        return Discovery(
            torrent.info_hash, torrent.trackers, self._peer_id, self._port, Services(), self._config, rng, self._clock
        )

    # --- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        self._housekeeping.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the download is complete, has failed or was stopped; tell whether it is so."""
        return self._ended.wait(timeout)

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
        self._attention.set()
        self.discovery.begin_stop()
        self.web_seeds.close()
        self.swarm.close(reason)

    def stop(self) -> None:
        """Save, say goodbye, and leave no thread, socket or file behind; within about 3 seconds.

        What cannot be interrupted, such as a name look-up or a disk that hangs, is left behind after that.
        """
        deadline = time.monotonic() + STOP_LIMIT
        self._is_ending = True
        self.begin_stop()
        if self._housekeeping.ident is not None:
            self._housekeeping.join(_left(deadline))
        self.web_seeds.join(deadline)
        self.swarm.join(_left(deadline))
        self._verifier.finish()
        self._inventory.save_at_end(self.swarm.uploaded, _left(deadline))
        self.storage.close()
        self._inventory.close()
        self.discovery.finish_stop()
        if self._state is not TorrentState.ERROR and not self.pieces.is_done:
            self._state = TorrentState.STOPPED
        self._end()

    def select_files(self, files: FileSelection) -> None:
        """Choose other files while the torrent runs; what is under way of files not wanted any more may still come.

        Raises:
            SelectionError: files were chosen that the torrent does not have.
            StorageError: there is no room for them, or they cannot be made; the choice stays as it was.
        """
        priorities = files.resolve(self.torrent.files)
        wanted = [priority > 0 for priority in priorities]
        self.storage.check_free_space(self.storage.bytes_to_allocate(wanted))
        self.storage.preallocate(wanted)
        self._priorities = priorities
        self.pieces.set_wanted(self._wanted_pieces(files))
        if self._stopping.is_set():
            return
        if self._state is TorrentState.COMPLETE and not self.pieces.is_done:
            self._state, self._ended_at = TorrentState.DOWNLOADING, None
            self._ended.clear()
            self.swarm.open(dials=True)
            self.web_seeds.start()
        elif self._state is TorrentState.DOWNLOADING and self.pieces.is_done:
            self._complete()
        self._changed.set()  # peers hear of it within a second: see `Conversation.tick`

    def accept(self, sock: PeerSocket, address: PeerAddress, handshake: messages.Handshake) -> bool:
        """Take over a connection that the listener accepted; False when there is no room for it."""
        return self.swarm.accept(sock, address, handshake)

    # --- housekeeping ------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Prepare, then tick once a second until we stop."""
        try:
            self._inventory.take(self._on_checking)
            if self._stopping.is_set():
                return
            self._open()
            self.swarm.add_addresses(self.options.given_peers, "given")
            self.discovery.start()
            if not self.pieces.is_done:
                self.web_seeds.start()
            self._tick_until_stopped()
        except TorrentError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("housekeeping failed")
            self._fail(TorrentError(f"internal error: {error!r}; -v with --log-file FILE tells more"))
        if not self._is_ending:
            self._inventory.save(self.swarm.uploaded)  # the process goes on with other torrents

    def _on_checking(self) -> None:
        self._state = TorrentState.CHECKING

    def _open(self) -> None:
        """Let the download begin, or, if all is there, end at once."""
        self._had_everything = self.pieces.is_complete
        self._state = TorrentState.DOWNLOADING
        self.swarm.open(dials=not self.pieces.is_done or self.options.seed)
        if self.pieces.is_done:
            self._complete()

    def _tick_until_stopped(self) -> None:
        """Dial, measure, time out and save, at their intervals."""
        last_tick = last_save = last_bytes = self._clock()
        while not self._wait_for_tick(last_tick + self._config.housekeeping_interval):
            seconds, last_tick = self._clock() - last_tick, self._clock()
            self._measure(seconds)
            self.discovery.tick(last_tick, len(self.swarm.peers()))
            self.swarm.tick(last_tick)
            self.conversation.tick(last_tick)
            if self._download.last_second or self._state is not TorrentState.DOWNLOADING:
                last_bytes = last_tick
            self._give_up_if_idle(last_tick - last_bytes)
            self._pursue_goals(last_tick)
            if last_tick - last_save >= self._config.resume_interval:
                self._inventory.save(self.swarm.uploaded)
                last_save = last_tick

    def _wait_for_tick(self, when: float) -> bool:
        """Wait until it is time to tick, and see to the choker meanwhile; tell whether we are stopping instead."""
        while not self._stopping.is_set():
            self.conversation.rechoke()
            if not self._wait_for_attention(when):
                return False
            self._attention.clear()
            self._stopping.wait(EVENT_PAUSE)  # a peer that changes its mind all the time must not keep us busy
        return True

    def _wait_for_attention(self, when: float) -> bool:
        """Wait until the choker is wanted, and tell peers of new pieces meanwhile; False when it is time to tick."""
        while True:
            pieces_come = self._state is TorrentState.DOWNLOADING  # before: when the last one has come, it is told now
            self.conversation.announce_pieces()
            left = when - self._clock()
            if left <= 0:
                return False
            if self._attention.wait(min(left, HAVE_INTERVAL) if pieces_come else left):
                return True

    def _measure(self, seconds: float) -> None:
        """Take the speeds of peers and of the torrent."""
        peers = self.swarm.peers()
        for peer in peers:
            peer.tick(seconds, self.pieces.latency(peer))
            self.pieces.set_rate(peer, peer.download.smoothed)
        self.web_seeds.tick(seconds)
        self._download.total = self.pieces.useful_bytes
        self._upload.total = self.swarm.uploaded
        self._download.tick(seconds)
        self._upload.tick(seconds)

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
            self.begin_stop("the seeding goal is reached")
            self._changed.set()
            return
        uploaded = self._inventory.earlier.uploaded + self.swarm.uploaded
        self.goal_reached = self.options.goals.reached(
            uploaded, self.pieces.wanted_progress().size, now - self._ended_at
        )

    def _fail(self, error: TorrentError) -> None:
        """End the download with an error; what is verified stays, and housekeeping saves the state."""
        if self._error is None:
            self._error = error
            logger.info("%s", error)  # whoever waits for the end tells the user
            self._state = TorrentState.ERROR
        self.conversation.stop_asking()
        self.begin_stop("the download has failed")
        self._end()

    def _complete(self) -> None:
        """The last wanted piece is on disk; to trackers that is completion only if no other is lacking."""
        if not self.pieces.is_done:
            return  # other files were chosen meanwhile
        try:
            self.storage.refuse_deleted()
        except StorageError as error:
            self._fail(error)
            return
        self._state = TorrentState.COMPLETE
        if self.pieces.is_complete and not self._had_everything:
            self._had_everything = True
            self.discovery.completed()
        for peer in self.swarm.peers():
            self.conversation.update_interest(peer)
        self._end()

    def _end(self) -> None:
        """Wake everybody who waits for the end."""
        self._ended_at = self._ended_at or self._clock()
        self._ended.set()
        self._changed.set()

    # --- peers -------------------------------------------------------------------------------------------

    def _connected(self) -> list[Peer]:
        return self.swarm.peers()

    def _on_hearsay(self, addresses: Sequence[PeerAddress], source: str) -> None:
        self.swarm.add_addresses(addresses, source)

    def _is_seed(self, peer: Peer) -> bool:
        pieces, _ = self.pieces.peer_progress(peer)
        return pieces == self.torrent.piece_count

    def _new_connection(
        self, address: PeerAddress, sock: PeerSocket | None, remote: messages.Handshake | None
    ) -> PeerConnection:
        return PeerConnection(
            address,
            self.torrent.info_hash,
            self._peer_id,
            sock=sock,
            remote_handshake=remote,
            extensions=True,
            fast=True,
            dht=self.discovery.uses_dht,
            max_message_length=max(MAX_MESSAGE_LENGTH, self.torrent.piece_count // 8 + 2),
            read_block=self._read_block,
            limits=self.limits,
            config=self._config,
        )

    # --- pieces ------------------------------------------------------------------------------------------

    def _verify(self, piece: ActivePiece) -> None:
        self._verifier.verify(piece)

    def _ban(self, sources: Iterable[SourceAddress], reason: str) -> None:
        """Ban those who sent bad data for good."""
        sources = set(sources)
        self.web_seeds.ban(sources, reason)
        self.swarm.ban((address for address in sources if isinstance(address, PeerAddress)), reason)

    def _on_good_piece(self, index: int | None) -> None:
        """Tell those who lack it of a new piece (None: it was bad), and ask those who had nothing to do."""
        if index is not None:
            self.conversation.got_piece(index)
        self.conversation.feed_hungry(self._clock())

    # --- uploading ---------------------------------------------------------------------------------------

    def _read_block(self, request: messages.Request) -> bytes:
        """Read a block to upload, on the peer's writer.

        A file that is gone ends the torrent, which goes on when it is back. What cannot be read otherwise, such as a
        piece on a bad sector, is offered to nobody any more, and fetched again unless the data is not ours to repair.
        """
        try:
            return self.storage.read_block(request.piece_index, request.begin, request.length)
        except FileVanished as error:
            self._fail(error)
            raise
        except TooManyFiles:
            raise  # the connection ends, which makes room; the piece is as good as before
        except StorageError as error:
            logger.warning("piece %d is lost: %s", request.piece_index, error)
            self.pieces.mark_missing(request.piece_index)
            if self.options.read_only:
                self.conversation.stop_asking()
            raise

    def _wanted_pieces(self, files: FileSelection) -> WantedPieces:
        """Return the wanted pieces; in order to be played, files need their ends first."""
        ends_first = files.first_last or self.options.sequential
        return wanted_pieces(self.torrent.files, self._priorities, self.torrent.piece_length, first_last=ends_first)

    # --- numbers -----------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        """Return what trackers are told."""
        left = self.torrent.total_length - self.pieces.complete_bytes
        return Progress(self.swarm.uploaded, self.pieces.useful_bytes, left)

    def stats(self) -> TorrentStats:
        """Return a snapshot of everything."""
        now = self._clock()
        peers = tuple(peer.stats(*self.pieces.peer_progress(peer)) for peer in self.swarm.peers())
        trackers = tuple(self.discovery.trackers())
        web_seeds = self.web_seeds.stats()
        known, banned = self.swarm.pool.counts()
        connecting = self.swarm.connecting
        wanted = self.pieces.wanted_progress()
        left = wanted.size - wanted.bytes_done
        rate = self._download.smoothed
        downloading = self._state is TorrentState.DOWNLOADING
        files = zip(self.torrent.files, self._priorities, strict=True)
        content = [priority for file, priority in files if not file.is_padding]
        waiting_for = None
        nothing_came = not self._download.last_second and self.pieces.useful_bytes == self._download.total
        if downloading and nothing_came and not self._stopping.is_set():
            next_dial = self.swarm.pool.next_dial_time()
            next_dial_in = None if next_dial is None else next_dial - now
            blame = self.swarm.last_failure, self.swarm.obstacle, self.discovery.dht_state()
            waiting_for = waiting_reason(peers, trackers, connecting, known, next_dial_in, now, web_seeds, *blame)
        elif self._state is TorrentState.COMPLETE and self.options.seed and not peers and not self._stopping.is_set():
            waiting_for = self.swarm.obstacle or seeding_reason(trackers, self._port, self.discovery.dht_state())
        return TorrentStats(
            name=self.torrent.name,
            info_hash=self.torrent.info_hash.hex(),
            state=self._state,
            size=wanted.size,
            bytes_done=wanted.bytes_done,
            pieces_done=wanted.pieces_done,
            pieces_wanted=wanted.pieces,
            pieces_total=self.torrent.piece_count,
            files_wanted=sum(priority > 0 for priority in content),
            files_total=len(content),
            total_size=self.torrent.total_length,
            downloaded=self.pieces.useful_bytes,
            uploaded=self.swarm.uploaded,
            wasted=self.pieces.wasted_bytes,
            hash_failures=self.pieces.hash_failures,
            download_rate=rate,
            upload_rate=self._upload.smoothed,
            eta=left / rate if downloading and rate else None,
            checked=self._inventory.checked,
            to_check=self._inventory.to_check,
            known_peers=known,
            connecting=connecting,
            banned=banned,
            peers=peers,
            trackers=trackers,
            web_seeds=web_seeds,
            piece_states=self.pieces.states(),
            waiting_for=waiting_for,
            error=str(self._error) if self._error else None,
            ratio=share_ratio(
                self._inventory.earlier.uploaded + self.swarm.uploaded, self.pieces.wanted_progress().size
            ),
            seeding=self._state is TorrentState.COMPLETE and self.options.seed and not self._stopping.is_set(),
            dht_state=self.discovery.dht_state(),
            local_network=self.discovery.local_state(),
            max_download_rate=self.limits.download.rate,
            max_upload_rate=self.limits.upload.rate,
        )


def _left(deadline: float) -> float:
    """Return the seconds until a deadline, 0 if it has passed."""
    return max(0.0, deadline - time.monotonic())
