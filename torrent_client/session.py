"""Everything that runs in one process: torrents, and the port on which peers call them.

                    +-- info hash A --> DownloadManager --+
    Listener -------+-- info hash B --> DownloadManager --+--> slots (connections), limits (bytes per second)
                    +-- info hash C --> DownloadManager --+

What torrents share is counted here: the connections of all together, first come first served, and the
rates. What they must not share is refused before anything begins: an info hash, and a file to write.

Spec: none.
Thread: the main thread; a thread for each torrent while all are stopped.
Lock: `_owners_lock`, around who owns which file; a magnet link's second stage is built inside.
"""

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

from torrent_client.config import Config
from torrent_client.discovery import Discovery, Services
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import TorrentConflict
from torrent_client.listener import Listener
from torrent_client.magnet import MagnetLink
from torrent_client.port_mapping import PortMapper, PortMapStatus, find_upnp_gateway
from torrent_client.rate_limiter import Limits, RateLimiter
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import generate_peer_id

if TYPE_CHECKING:  # these are loaded by the sessions that need them: loading all takes longer than a small download
    from torrent_client.dht.node import DhtNode, DhtStats
    from torrent_client.local_discovery import LocalDiscovery
    from torrent_client.magnet_download import MagnetDownload

Download: TypeAlias = "DownloadManager | MagnetDownload"
"""A torrent that runs, whatever it began with."""

MAX_TORRENT_NODES: Final = 20
"""DHT nodes of a torrent's `nodes` that are asked; BEP 5 speaks of eight."""


class Job(NamedTuple):
    """A torrent, or a magnet link, and what is to be done with it."""

    torrent: TorrentFile | MagnetLink
    options: DownloadOptions


class Session:
    """The torrents of this process.

    Args:
        config: limits.
        rng: source of randomness; a seeded one makes a lesson repeatable.
        state_directory: where the DHT's nodes are kept; None for nowhere.
    """

    def __init__(self, config: Config, rng: random.Random | None = None, state_directory: Path | None = None) -> None:
        """Bind the port, unless nobody may call us past a proxy.

        Raises:
            TorrentError: no port is free.
        """
        self.config = config
        self.peer_id = generate_peer_id(rng)
        self.limits = Limits(RateLimiter(config.max_download_rate), RateLimiter(config.max_upload_rate))
        self._rng = rng
        self._listener = Listener(config) if config.allows_direct else None
        self._port_mapper = PortMapper(self.port, partial(find_upnp_gateway, config.portmap_interface))
        self._local = self._local_discovery() if config.lsd else None
        self._dht = self._dht_node(state_directory) if config.dht and config.allows_direct else None
        self.services = Services(self._dht, self._local)
        self._slots = BoundedSemaphore(config.max_peers_total)
        self._changed = Event()
        self._torrents: list[Download] = []
        self._discoveries: list[Discovery] = []
        self._owners: dict[bytes | str, Job] = {}  # by info hash, and by path of each file
        self._owners_lock = Lock()

    @property
    def port(self) -> int:
        """The TCP port that peers can call us on; 0 for none, behind a proxy."""
        return self._listener.port if self._listener else 0

    @property
    def portmap(self) -> PortMapStatus:
        """What the router does about the port."""
        return self._port_mapper.status

    @property
    def dht(self) -> "DhtStats | None":
        """How our DHT node is; None where there is none."""
        return self._dht.stats() if self._dht else None

    def start(self) -> None:
        """Begin to accept peers, and ask the router to let them in."""
        if self._listener:
            self._listener.start()
            if self.config.portmap:
                self._port_mapper.start()
        if self._local:
            self._local.start()
        if self._dht:
            self._dht.start()

    def add(self, torrent: TorrentFile | MagnetLink, options: DownloadOptions) -> Download:
        """Start a torrent.

        Raises:
            TorrentConflict: it runs already, or writes a file of one that runs.
            SelectionError: files were chosen that it does not have.
        """
        return self.add_all([Job(torrent, options)])[0]

    def add_all(self, jobs: Sequence[Job]) -> list[Download]:
        """Start several torrents, or, if one cannot or they get in each other's way, none.

        Raises:
            TorrentConflict: two are the same, or would write the same file.
            SelectionError: files were chosen that a torrent does not have.
        """
        with self._owners_lock:
            owners = dict(self._owners)
            for job in jobs:
                _claim_hash(owners, job)
                if isinstance(job.torrent, TorrentFile):
                    _claim_files(owners, job, job.torrent)
            downloads = [self._download(job) for job in jobs]
            self._owners = owners  # only now: what is refused above owns nothing
        for job, download in zip(jobs, downloads, strict=True):
            self._torrents.append(download)
            if self._listener:
                self._listener.serve(job.torrent.info_hash, download.accept)
            download.start()
        return downloads

    def _download(self, job: Job) -> Download:
        torrent, options = job
        limits = self.limits.nested(options.max_download_rate, options.max_upload_rate)
        if isinstance(torrent, TorrentFile):
            if self._dht and not torrent.is_private:
                for host, port in torrent.nodes[:MAX_TORRENT_NODES]:
                    self._dht.add_node(host, port)
            discovery = self._discovery(torrent.info_hash, torrent.trackers, is_private=torrent.is_private)
            return self._manager(limits, torrent, options, discovery)
        from torrent_client.magnet_download import MagnetDownload

        trackers = [[url] for url in torrent.trackers]
        return MagnetDownload(
            torrent,
            options,
            self.peer_id,
            self.port,
            self.config,
            self._discovery(torrent.info_hash, trackers),
            partial(self._manager_of_magnet, limits),
            self._slots,
            self._changed,
            limits,
        )

    def _manager_of_magnet(
        self, limits: Limits, torrent: TorrentFile, options: DownloadOptions, discovery: Discovery
    ) -> DownloadManager:
        """Make the second stage of a magnet link, now that its files are known; on the link's own thread.

        Raises:
            TorrentConflict: another torrent writes one of these files.
            SelectionError: files were chosen that it does not have.
        """
        with self._owners_lock:
            owners = dict(self._owners)
            _claim_files(owners, Job(torrent, options), torrent)
            manager = self._manager(limits, torrent, options, discovery)
            self._owners = owners
        return manager

    def _manager(
        self, limits: Limits, torrent: TorrentFile, options: DownloadOptions, discovery: Discovery
    ) -> DownloadManager:
        return DownloadManager(
            torrent,
            options,
            self.peer_id,
            self.port,
            self.config,
            limits,
            self._rng,
            slots=self._slots,
            changed=self._changed,
            discovery=discovery,
        )

    def _local_discovery(self) -> "LocalDiscovery":
        from torrent_client.local_discovery import LocalDiscovery

        return LocalDiscovery(self.port, self.config)

    def _dht_node(self, state_directory: Path | None) -> "DhtNode":
        from torrent_client.dht.node import DhtNode  # here, for those who do without it start sooner

        return DhtNode(self.config, self.port, state_directory, self._rng)

    def _discovery(self, info_hash: bytes, trackers: Sequence[Sequence[str]], *, is_private: bool = False) -> Discovery:
        discovery = Discovery(
            info_hash,
            trackers,
            self.peer_id,
            self.port,
            self.services,
            self.config,
            self._rng or random.Random(),
            time.monotonic,
            is_private=is_private,
        )
        self._discoveries.append(discovery)
        return discovery

    def announce_now(self) -> None:
        """Ask the trackers of all torrents again, as soon as they allow it."""
        for discovery in self._discoveries:
            discovery.announce_now()

    def wait_for_change(self, timeout: float) -> bool:
        """Wait for `timeout` seconds, or until a torrent ends if that is sooner; tell whether one did."""
        has_changed = self._changed.wait(timeout)
        self._changed.clear()
        return has_changed

    def stop(self) -> None:
        """Stop the listener and every torrent, all at the same time; save, and leave nothing behind."""
        self._port_mapper.begin_stop()
        with ThreadPoolExecutor(max(1, len(self._torrents)), thread_name_prefix="stop") as executor:
            stops = [executor.submit(manager.stop) for manager in self._torrents]
            if self._listener:
                self._listener.stop()
            if self._local:
                self._local.stop()
            if self._dht:
                self._dht.begin_stop()
        self._port_mapper.finish_stop()
        if self._dht:
            self._dht.stop()
        for stop in stops:
            stop.result()  # an error shows, after all have stopped

    def __enter__(self) -> Self:
        """Start the session for a `with` block."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it at the end of the block."""
        self.stop()


def _name(job: Job) -> str:
    torrent = job.torrent
    return printable(torrent.name if isinstance(torrent, TorrentFile) else torrent.display_name)


def _claim_hash(owners: dict[bytes | str, Job], job: Job) -> None:
    """Note a torrent's info hash.

    Raises:
        TorrentConflict: it has been noted already.
    """
    if job.torrent.info_hash in owners:
        raise TorrentConflict(f"{_name(job)} is given twice: it is the same torrent")
    owners[job.torrent.info_hash] = job


def _claim_files(owners: dict[bytes | str, Job], job: Job, torrent: TorrentFile) -> None:
    """Note the files that a torrent needs for itself, unless they are only read.

    Raises:
        TorrentConflict: another one has one of them already.
    """
    options = job.options
    root = os.path.realpath(options.output)
    for file in torrent.files:
        if file.is_padding:
            continue
        path = os.path.join(root, file.path)
        other = owners.setdefault(path, job)
        if other is not job and not (options.read_only and other.options.read_only):
            raise TorrentConflict(
                f"{_name(job)} and {_name(other)} are different torrents that would write the same file, "
                f"{printable(path, 1000)}: run them one by one, each with a directory of its own (-o)"
            )
