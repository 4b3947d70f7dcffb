"""A magnet link from its text to its files: first the metadata, then a download like any other.

    METADATA  --info dictionary--> DownloadManager --> CHECKING, DOWNLOADING, COMPLETE ...
              (from the state directory, where an earlier run left it, or from peers)

From outside it looks like a `DownloadManager` all the time; what both stages share is the search for peers,
so that trackers see one client, and the places among the session's connections.

Spec: BEP 9, 27 (a private torrent is searched for through trackers alone, as soon as that is known), 53.
Thread: `metadata`, until the download begins; public methods from any.
Lock: `_handover`, a leaf, around the change from one stage to the next.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import Final

from torrent_client.announcer import TrackerStatus
from torrent_client.config import MAX_TORRENT_SIZE, Config
from torrent_client.discovery import Discovery
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.encryption import PeerSocket
from torrent_client.errors import MetainfoError, StorageError, TorrentError
from torrent_client.file_selection import FileSelection
from torrent_client.magnet import MagnetLink, metainfo
from torrent_client.metadata_download import MetadataDownload
from torrent_client.protocol.messages import Handshake
from torrent_client.rate_limiter import Limits
from torrent_client.stats import PeerStats, TorrentState, TorrentStats, waiting_reason
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

logger = logging.getLogger(__name__)

MakeManager = Callable[[TorrentFile, DownloadOptions, Discovery], DownloadManager]
"""Makes the second stage; may raise what adding a torrent to a session raises."""

JOIN_LIMIT: Final = 2.5
"""Seconds that stopping waits for the first stage."""

PUBLIC_SOURCES: Final = ("dht", "pex", "lsd")
"""Where peers of a private torrent must not come from (BEP 27); that it is one, its metadata tells."""

MAX_NAME_BYTES: Final = 230
"""Bytes of a saved torrent's name without `.torrent`: file systems take 255."""


class MagnetDownload:
    """Downloads what a magnet link names.

    Args:
        link: which torrent.
        options: where to, and how.
        peer_id: 20 bytes, ours.
        port: TCP port that we listen on.
        config: limits.
        discovery: looks for peers, in both stages.
        make_manager: makes the second stage.
        slots: one for each connection that all torrents of a session may have together.
        changed: is set when the download ends, in whatever way.
        limits: bytes per second of this torrent.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        link: MagnetLink,
        options: DownloadOptions,
        peer_id: bytes,
        port: int,
        config: Config,
        discovery: Discovery,
        make_manager: MakeManager,
        slots: BoundedSemaphore,
        changed: Event,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the first stage; `start` brings it to life."""
        self.link = link
        self.options = _with_link(options, link)
        self.torrent: TorrentFile | None = None
        self.saved_as: Path | None = None  # the .torrent file, if one was asked for
        self._discovery = discovery
        self._make_manager = make_manager
        self._changed = changed
        self.limits = limits
        self._clock = clock
        self._started_at = clock()
        self._stage = MetadataDownload(
            link.info_hash, peer_id, port, config, discovery, self.options.given_peers, slots, limits, clock
        )
        self._thread = Thread(target=self._run, name="metadata", daemon=True)
        self._handover = Lock()
        self._manager: DownloadManager | None = None
        self._stopping = False
        self._is_satisfied = False  # the metadata was all that was wanted, and is there
        self._error: TorrentError | None = None

    # --- what a download has -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def begin_stop(self, reason: str = "we are stopping") -> None:
        """Leave the swarm, and say so to the tracker; returns at once, and `stop` does the rest."""
        with self._handover:
            self._stopping = True
            manager = self._manager
        if manager:
            manager.begin_stop(reason)
        else:
            self._stage.stop()
            self._discovery.begin_stop()

    def stop(self) -> None:
        """Save, say goodbye, and leave no thread, socket or file behind; within about 3 seconds."""
        self.begin_stop()
        if self._thread.ident is not None:
            self._thread.join(JOIN_LIMIT)
        if self._manager:
            self._manager.stop()
        else:
            self._discovery.finish_stop()

    def accept(self, sock: PeerSocket, address: PeerAddress, handshake: Handshake) -> bool:
        """Take over a connection that the listener accepted; False when there is no room for it."""
        return (self._manager or self._stage).accept(sock, address, handshake)

    @property
    def state(self) -> TorrentState:
        """What the torrent is doing."""
        if self._manager:
            return self._manager.state
        if self._error:
            return TorrentState.ERROR
        if self._is_satisfied:
            return TorrentState.COMPLETE
        return TorrentState.STOPPED if self._stopping else TorrentState.METADATA

    @property
    def error(self) -> TorrentError | None:
        """What ended the download, if something did."""
        return self._manager.error if self._manager else self._error

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        if self._manager:
            return self._manager.is_over
        return self._stopping or self._is_satisfied or self._error is not None

    @property
    def goal_reached(self) -> str | None:
        """Which seeding goal was reached, in words."""
        return self._manager.goal_reached if self._manager else None

    @property
    def seconds(self) -> float:
        """Seconds from the first tick to completion, or to now."""
        return self._manager.seconds if self._manager else self._clock() - self._started_at

    def stats(self) -> TorrentStats:
        """Return a snapshot of everything."""
        if self._manager:
            return self._manager.stats()
        swarm = self._stage.swarm
        known, banned = swarm.pool.counts()
        progress = self._stage.progress()
        peers = tuple(peer.stats(0, 0) for peer in swarm.peers())
        trackers = tuple(self._discovery.trackers())
        return TorrentStats(
            name=self.torrent.name if self.torrent else self.link.display_name,
            info_hash=self.link.info_hash.hex(),
            state=self.state,
            checked=progress.pieces_done,
            to_check=progress.pieces_total,
            known_peers=known,
            connecting=swarm.connecting,
            banned=banned,
            peers=peers,
            trackers=trackers,
            waiting_for=None if progress.offers else self._waiting_for(peers, trackers),
            error=str(self._error) if self._error else None,
            dht_state=self._discovery.dht_state(),
            local_network=self._discovery.local_state(),
            max_download_rate=self.limits.download.rate,
            max_upload_rate=self.limits.upload.rate,
        )

    def _waiting_for(self, peers: tuple[PeerStats, ...], trackers: tuple[TrackerStatus, ...]) -> str | None:
        """Return why the metadata does not come, while it should."""
        if self.state is not TorrentState.METADATA:
            return None
        if peers:
            return f"none of {len(peers)} connected peers has the metadata yet"
        swarm, now = self._stage.swarm, self._clock()
        next_dial = swarm.pool.next_dial_time()
        next_dial_in = None if next_dial is None else next_dial - now
        known, blame = swarm.pool.counts()[0], (swarm.last_failure, swarm.obstacle, self._discovery.dht_state())
        return waiting_reason(peers, trackers, swarm.connecting, known, next_dial_in, now, (), *blame)

    # --- from one stage to the next ----------------------------------------------------------------------

    def _run(self) -> None:
        """Get the metadata, and begin the download."""
        try:
            if kept := self._kept_info():
                self._go_on(kept)
            elif fetched := self._stage.run():
                self._go_on(fetched, is_new=True)
        except TorrentError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the metadata stage failed")
            self._fail(TorrentError(f"internal error: {error!r}; -v with --log-file FILE tells more"))

    def _go_on(self, info: bytes, *, is_new: bool = False) -> None:
        """Begin the second stage, with what the first one found; what is new is kept for the next run."""
        data = metainfo(info, [[url] for url in self.link.trackers], self.link.web_seeds)
        torrent = TorrentFile.from_bytes(data)
        if is_new:
            self._keep(data)
        if self.options.save_torrent:
            self.saved_as = _save_torrent(self.options.output, torrent, data)
        self.torrent = torrent
        if self.options.metadata_only:
            self._is_satisfied = True
            self._changed.set()
            return
        if torrent.is_private:
            self._discovery.restrict()
        manager = self._make_manager(torrent, self.options, self._discovery)
        manager.swarm.pool.ban_as(self._stage.swarm.pool)  # who lied about the metadata
        for address, source in self._stage.swarm.pool.addresses().items():
            if not torrent.is_private or source not in PUBLIC_SOURCES:
                manager.swarm.pool.add([address], source)
        with self._handover:
            if self._stopping:
                return
            self._manager = manager
            manager.start()

    def _fail(self, error: TorrentError) -> None:
        self._error = error
        logger.info("%s", error)  # whoever waits for the end tells the user
        self._discovery.begin_stop()
        self._changed.set()

    # --- metadata on disk ----------------------------------------------------------------------------------

    def _kept_path(self) -> Path | None:
        directory = self.options.state_directory
        return directory / f"{self.link.info_hash.hex()}.torrent" if directory else None

    def _kept_info(self) -> bytes | None:
        """Return the `info` dictionary that an earlier run kept, if it is good."""
        path = self._kept_path()
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                info = TorrentFile.from_bytes(file.read(MAX_TORRENT_SIZE + 1)).info
        except FileNotFoundError:
            return None
        except (OSError, MetainfoError) as error:
            logger.warning("the metadata kept in %s is not usable (%s): it is fetched again", path, error)
            return None
        return info if sha1(info).digest() == self.link.info_hash else None

    def _keep(self, data: bytes) -> None:
        """Keep the metadata for the next run; a failure costs no more than fetching it again."""
        path = self._kept_path()
        if path is None:
            return
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # another process may keep the same metadata now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            logger.warning("cannot keep the metadata in %s: %s", path, error.strerror)
            with suppress(OSError):
                temporary.unlink()


def _with_link(options: DownloadOptions, link: MagnetLink) -> DownloadOptions:
    """Return the options with what the link says; the user's own word about files counts more."""
    files = options.files
    if link.selected and not files.selected:
        files = FileSelection(link.selected, files.priorities, files.first_last)
    peers = tuple(dict.fromkeys((*options.given_peers, *link.peers)))
    return options._replace(files=files, given_peers=peers)


def _save_torrent(directory: Path, torrent: TorrentFile, data: bytes) -> Path:
    """Write the .torrent file beside the data, under a name that is free.

    Raises:
        StorageError: it cannot be written.
    """
    name = torrent.files[0].path.parts[0].encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    path = directory / f"{name}.torrent"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return path
        number = 0
        while True:
            try:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                    file.write(data)
                return path
            except FileExistsError:
                number += 1
                path = directory / f"{name}.{number}.torrent"
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
