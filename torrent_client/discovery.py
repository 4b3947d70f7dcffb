"""Where the peers of one torrent come from: its trackers, the DHT, the local network.

    trackers        Announcer, its own threads        --+
    DHT             a look-up, now and again          --+--> on_addresses(addresses, source)
    local network   a shout, every five minutes       --+

Whoever wants the peers attaches: first the search for a magnet link's metadata, then the download itself, and
the trackers notice nothing of that. A private torrent has peers of its trackers alone, and so has every torrent
behind a proxy.

Spec: BEP 5 and 14 (when to ask), 27 (private torrents).
Thread: any; addresses come on the threads of those who found them.
Lock: none; the parts have theirs.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple, Protocol, TypeAlias

from torrent_client.announcer import Announcer, TrackerStatus
from torrent_client.config import Config
from torrent_client.peer_connection import PeerConnection
from torrent_client.protocol.messages import Port
from torrent_client.proxy import UNREACHABLE_PORT
from torrent_client.tracker_client import PeerAddress, Progress, TrackerClient

OnAddresses: TypeAlias = Callable[[Sequence[PeerAddress], str], None]
"""Takes addresses, and the word for who said so."""

DHT_INTERVAL: Final = 900.0
"""Seconds between two look-ups, each of which also announces us. libtorrent 15 min; nodes forget us after 30."""

DHT_HUNGRY_INTERVALS: Final = (5.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds between two look-ups while nobody is connected: the first ones may come before the DHT has found nodes."""

LOCAL_INTERVAL: Final = 300.0
"""Seconds between two announcements on the local network. BEP 14: 5 min; not more often than once a minute."""


class Lookup(Protocol):
    """A search that is under way."""

    def cancel(self) -> None:
        """End it; nothing is told any more."""


class PeerFinder(Protocol):
    """The DHT, as far as a torrent is concerned."""

    def find_peers(
        self, info_hash: bytes, on_peers: Callable[[Sequence[PeerAddress]], None], *, announce_port: int | None
    ) -> Lookup:
        """Look for peers, and say that we are one if a port is given; returns at once."""

    def add_node(self, host: str, port: int) -> None:
        """Get to know a node; returns at once."""

    def describe(self) -> str:
        """Return how it is, in a few words."""

    @property
    def port(self) -> int:
        """The node's UDP port, which peers are told."""


class LocalFinder(Protocol):
    """The local network, as far as a torrent is concerned."""

    def announce(self, info_hash: bytes, on_peers: Callable[[Sequence[PeerAddress]], None]) -> None:
        """Say that we are here, and from now on give peers that say so; returns at once."""

    def forget(self, info_hash: bytes) -> None:
        """Do neither any more."""

    def state(self, info_hash: bytes) -> str:
        """Return what came of it, in words."""


class Services(NamedTuple):
    """What all torrents of a session search with; None for what is off."""

    dht: PeerFinder | None = None
    local: LocalFinder | None = None


class Discovery:
    """Looks for the peers of one torrent until it is stopped.

    Args:
        info_hash: 20 bytes.
        trackers: announce URLs in tiers.
        peer_id: 20 bytes, ours.
        port: TCP port that we listen on; 0 for none.
        services: what the session has.
        config: intervals and time-outs.
        rng: shuffles trackers, and gives the key that they know us by.
        clock: monotonic seconds.
        is_private: ask the trackers alone (BEP 27).
    """

    def __init__(
        self,
        info_hash: bytes,
        trackers: Sequence[Sequence[str]],
        peer_id: bytes,
        port: int,
        services: Services,
        config: Config,
        rng: Random,
        clock: Callable[[], float],
        *,
        is_private: bool = False,
    ) -> None:
        """Make the trackers' clients; nothing is sent before `start`."""
        self._info_hash = info_hash
        self._config = config
        self._port = port
        self._services = services if config.allows_direct and not is_private else Services()
        self._on_addresses: OnAddresses = lambda _addresses, _source: None
        self._progress: Callable[[], Progress] = lambda: Progress(0, 0, 1)
        key, told = rng.getrandbits(32), port or UNREACHABLE_PORT
        clients = [
            [TrackerClient(url, info_hash, peer_id, told, key=key, config=config) for url in tier] for tier in trackers
        ]
        self._announcer = Announcer(
            clients, self._totals, self._from_trackers, config, rng, clock, is_private=is_private
        )
        self._lookup: Lookup | None = None
        self._found: set[PeerAddress] = set()  # by the DHT
        self._told: set[PeerAddress] = set()  # peers that named their node
        self._next_lookup = self._next_shout = 0.0
        self._hungry_lookups = 0
        self._is_started = False
        self._is_stopping = False

    def attach(self, on_addresses: OnAddresses, progress: Callable[[], Progress]) -> None:
        """Give addresses to somebody from now on, and tell trackers of somebody's progress.

        Args:
            on_addresses: is called on any thread, and must be quick.
            progress: returns the current totals.
        """
        self._on_addresses, self._progress = on_addresses, progress

    def restrict(self) -> None:
        """Ask the trackers alone from now on: the torrent has turned out to be private (BEP 27)."""
        self._leave_public()
        self._services = Services()
        self._announcer.restrict()

    def start(self) -> None:
        """Begin, unless that has been done."""
        if not self._is_started:
            self._is_started = True
            self._announcer.start()

    def tick(self, now: float, connected: int) -> None:
        """Do what is due, once a second.

        Args:
            now: monotonic seconds.
            connected: how many peers there are.
        """
        if self._is_stopping:  # asked for by another thread while housekeeping was under way
            return
        if self._services.dht and now >= self._next_lookup:
            self._cancel_lookup()
            self._lookup = self._services.dht.find_peers(
                self._info_hash, self._from_dht, announce_port=self._port or None
            )
            self._hungry_lookups = 0 if connected else self._hungry_lookups + 1
            hungry = DHT_HUNGRY_INTERVALS[min(self._hungry_lookups, len(DHT_HUNGRY_INTERVALS)) - 1]
            self._next_lookup = now + (DHT_INTERVAL if connected else hungry)
        if self._services.local and now >= self._next_shout:
            self._services.local.announce(self._info_hash, lambda peers: self._on_addresses(peers, "lsd"))
            self._next_shout = now + LOCAL_INTERVAL

    def completed(self) -> None:
        """Tell the trackers that the download is complete."""
        self._announcer.completed()

    def announce_now(self) -> None:
        """Ask the trackers again, as soon as they allow it."""
        self._announcer.announce_now()

    def begin_stop(self) -> None:
        """Ask for no more, and let the trackers be told that we go; returns at once."""
        self._is_stopping = True
        self._leave_public()
        self._announcer.begin_stop()

    def finish_stop(self) -> None:
        """Wait for the trackers to be told, for as long as stopping may take."""
        self._announcer.finish_stop()

    def trackers(self) -> list[TrackerStatus]:
        """Return a copy of each tracker's status."""
        return self._announcer.statuses()

    @property
    def uses_dht(self) -> bool:
        """Whether peers come from the DHT too, and are told that we have a node there."""
        return self._services.dht is not None

    def greet(self, connection: PeerConnection) -> None:
        """Tell a new peer that has a DHT node where ours is (BEP 5)."""
        if self._services.dht and connection.remote and connection.remote.supports_dht:
            connection.send(Port(self._services.dht.port))

    def told_port(self, connection: PeerConnection, message: Port) -> None:
        """Get to know the DHT node of a peer; it has one, however many ports it may name."""
        if self._services.dht and connection.address not in self._told and len(self._told) < self._config.known_peers:
            self._told.add(connection.address)
            self._services.dht.add_node(connection.address.host, message.port)

    def dht_state(self) -> str | None:
        """Return how the DHT is and what came of it, in words; None where it is not asked."""
        dht = self._services.dht
        if not dht:
            return None
        peers = f"{len(self._found)} peer{'' if len(self._found) == 1 else 's'} found"
        return f"{dht.describe()}, {peers}" if self._found else dht.describe()

    def local_state(self) -> str | None:
        """Return what came of asking the local network, in words; None where it is not asked."""
        local = self._services.local
        return local.state(self._info_hash) if local else None

    def _leave_public(self) -> None:
        """Be found by nobody but the trackers' peers."""
        self._cancel_lookup()
        if self._services.local:
            self._services.local.forget(self._info_hash)

    def _totals(self) -> Progress:
        return self._progress()

    def _from_dht(self, peers: Sequence[PeerAddress]) -> None:
        if len(self._found) < self._config.known_peers:
            self._found.update(peers)
        self._on_addresses(peers, "dht")

    def _from_trackers(self, peers: Sequence[PeerAddress]) -> None:
        self._on_addresses(peers, "tracker")

    def _cancel_lookup(self) -> None:
        lookup, self._lookup = self._lookup, None
        if lookup:
            lookup.cancel()
