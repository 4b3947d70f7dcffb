"""The first stage of a magnet link: a swarm in which nothing is asked for but the metadata.

    trackers, DHT ... --> Swarm --> extension handshake --> MetadataFetcher --> info dictionary

When the metadata is there, this swarm ends; the download begins with the addresses that this one found.

Spec: BEP 9, 10, 11.
Thread: `run` on the caller's; peers' workers.
Lock: none; the parts have theirs.
"""

import time
from collections.abc import Callable, Sequence
from random import Random
from threading import BoundedSemaphore, Event
from typing import Final

from torrent_client.config import Config
from torrent_client.discovery import Discovery
from torrent_client.encryption import PeerSocket
from torrent_client.errors import DownloadStalled
from torrent_client.metadata_fetcher import MetadataFetcher, MetadataProgress
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_exchange import PeerExchange
from torrent_client.peer_extensions import Extension, PeerExtensions
from torrent_client.protocol.messages import Extended, Handshake, HaveNone, Port
from torrent_client.protocol.scatter import Arrival
from torrent_client.rate_limiter import Limits
from torrent_client.swarm import PeerCallbacks, Swarm
from torrent_client.tracker_client import PeerAddress, Progress

UNKNOWN_LEFT: Final = 16 * 1024
"""Bytes that trackers are told we lack while nobody knows how many there are: 0 would make us a seed. libtorrent."""

JOIN_LIMIT: Final = 2.0
"""Seconds that the end of the swarm is waited for: a name look-up cannot be interrupted."""


class MetadataDownload:
    """Finds peers and gets the metadata from them.

    Args:
        info_hash: 20 bytes.
        peer_id: 20 bytes, ours.
        port: TCP port that we listen on, told to peers.
        config: limits.
        discovery: looks for peers.
        given_peers: addresses to ask at once.
        slots: one for each connection that all torrents of a session may have together.
        limits: bytes per second of this torrent.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        info_hash: bytes,
        peer_id: bytes,
        port: int,
        config: Config,
        discovery: Discovery,
        given_peers: Sequence[PeerAddress],
        slots: BoundedSemaphore | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the parts; `run` brings them to life."""
        self._info_hash = info_hash
        self._peer_id = peer_id
        self._config = config
        self._discovery = discovery
        self._limits = limits
        self._clock = clock
        self._metadata: bytes | None = None
        self._wake = Event()
        self._stopping = False
        self._fetcher = MetadataFetcher(info_hash, self._on_metadata, self._on_liar, clock)
        extensions: list[Extension] = [self._fetcher]
        if config.pex:
            extensions.append(PeerExchange(self._connected, self._on_hearsay, clock, Random()))
        self._extensions = PeerExtensions(extensions, port, config)
        callbacks = PeerCallbacks(self._joined, self._received, self._left)
        self.swarm = Swarm(peer_id, config, callbacks, self._new_connection, clock, slots, port)
        self.swarm.add_addresses(given_peers, "given")

    def run(self) -> bytes | None:
        """Return the raw `info` dictionary, or None when `stop` was called first.

        Raises:
            DownloadStalled: nothing came for as long as the user wanted to wait.
        """
        began = last_news = self._clock()
        last_progress = self.progress()
        self._discovery.attach(self.swarm.add_addresses, lambda: Progress(0, 0, UNKNOWN_LEFT))
        self.swarm.open(dials=True)
        try:
            self._discovery.start()
            while self._metadata is None and not self._stopping:
                now = self._clock()
                self._discovery.tick(now, len(self.swarm.peers()))
                self.swarm.tick(now)
                self._extensions.tick(now)
                if self.progress() != last_progress:
                    last_progress, last_news = self.progress(), now
                if 0 < self._config.stop_after_idle <= now - last_news:
                    raise DownloadStalled(f"nobody gave the metadata in {now - began:.0f} s")
                self._wake.wait(self._config.housekeeping_interval)
                self._wake.clear()
        finally:
            self.swarm.close("this stage is over")
            self.swarm.join(JOIN_LIMIT)
        return self._metadata

    def stop(self) -> None:
        """End `run`, from any thread; returns at once."""
        self._stopping = True
        self._wake.set()
        self.swarm.close("we are stopping")

    def accept(self, sock: PeerSocket, address: PeerAddress, handshake: Handshake) -> bool:
        """Take over a connection that the listener accepted; False when there is no room for it."""
        return self.swarm.accept(sock, address, handshake)

    def progress(self) -> MetadataProgress:
        """Return how far it is."""
        return self._fetcher.progress()

    # --- peers, on their workers -------------------------------------------------------------------------

    def _new_connection(
        self, address: PeerAddress, sock: PeerSocket | None, remote: Handshake | None
    ) -> PeerConnection:
        return PeerConnection(
            address,
            self._info_hash,
            self._peer_id,
            sock=sock,
            remote_handshake=remote,
            extensions=True,
            fast=True,
            dht=self._discovery.uses_dht,
            limits=self._limits,
            config=self._config,
        )

    def _connected(self) -> list[Peer]:
        return self.swarm.peers()

    def _on_hearsay(self, addresses: Sequence[PeerAddress], source: str) -> None:
        self.swarm.add_addresses(addresses, source)

    def _joined(self, peer: Peer) -> None:
        if peer.connection.fast:
            peer.connection.send(HaveNone())
        self._extensions.greet(peer)
        self._discovery.greet(peer.connection)

    def _received(self, peer: Peer, batch: Sequence[Arrival]) -> None:
        """Read extended messages; what peers have, and whether they choke us, matters later."""
        for message in batch:
            if isinstance(message, Extended):
                self._extensions.received(peer, message)
            elif isinstance(message, Port):
                self._discovery.told_port(peer.connection, message)

    def _left(self, peer: Peer | None) -> None:
        if peer:
            self._extensions.left(peer)

    def _on_metadata(self, metadata: bytes) -> None:
        self._metadata = metadata
        self._wake.set()

    def _on_liar(self, peer: Peer) -> None:
        self.swarm.ban([peer.connection.address], "it sent metadata with a wrong hash")
