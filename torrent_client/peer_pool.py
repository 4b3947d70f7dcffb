"""The addresses that we know: where each came from, when to dial it next, and which are banned.

    new --next_to_dial--> dialled --connected--> connected --disconnected--> waiting (10 s, 2 min, ...)
                             +------- failed -------------------------------> waiting

Of those that have not been tried, those that the user gave come first, and then those of the highest peer priority, as
soon as it is known how others see our own address.

Spec: BEP 40 (the order); Transmission's redial delays.
Thread: any; the announce thread adds, housekeeping dials, peers' readers report.
Lock: `_lock`, a leaf.
"""

import heapq
import ipaddress
import math
from collections.abc import Iterable
from threading import Lock
from typing import Final

from torrent_client.config import Config
from torrent_client.protocol.peer_priority import peer_priority
from torrent_client.tracker_client import PeerAddress

GIVEN_PRIORITY: Final = 1 << 32
"""Above every priority of BEP 40, which have 32 bits: the user knows better."""


class _Known:
    """One address and our luck with it."""

    __slots__ = ("busy", "failures", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.failures = 0
        self.busy = False  # being dialled, or connected


class PeerPool:
    """Known peer addresses of one torrent.

    Args:
        config: how many to keep, and the redial delays.
    """

    def __init__(self, config: Config) -> None:
        """Begin with none."""
        self._config = config
        self._lock = Lock()
        self._known: dict[PeerAddress, _Known] = {}
        self._queue: list[tuple[float, int, int, PeerAddress]] = []  # heap of (dial at, -priority, tie, address)
        self._added = 0
        self._own: tuple[PeerAddress, ...] = ()
        self._banned: set[str] = set()

    def add(self, addresses: Iterable[PeerAddress], source: str, *, not_before: float = 0.0) -> int:
        """Take note of addresses that were not known; return how many those were.

        When the pool is full, each takes the place of one that failed before, the worst first.

        Args:
            addresses: where peers are said to listen.
            source: who said so, for the display: `tracker`, `given`, ...
            not_before: when to dial them (monotonic); at once by default.
        """
        with self._lock:
            added = 0
            evictable: list[PeerAddress] | None = None  # made once: a tracker may name 300,000 addresses
            evicted: set[PeerAddress] = set()
            for address in addresses:
                if (
                    address in self._known
                    or address in evicted
                    or not _can_be_dialled(address)
                    or _ban_key(address) in self._banned
                ):
                    continue
                if len(self._known) >= self._config.known_peers:
                    evictable = self._evictable() if evictable is None else evictable
                    if not evictable:
                        break
                    evicted.add(evictable[-1])
                    del self._known[evictable.pop()]
                self._known[address] = _Known(source)
                self._push(address, not_before)
                added += 1
            if evicted:
                self._queue = [entry for entry in self._queue if entry[-1] not in evicted]
                heapq.heapify(self._queue)
            return added

    def priority(self, address: PeerAddress) -> int:
        """Return an address's priority for us (BEP 40), 0 while we do not know how others see us."""
        return max((peer_priority(own, address) or 0 for own in self._own), default=0)

    def prefer(self, own: tuple[PeerAddress, ...]) -> None:
        """Order the addresses anew.

        Args:
            own: our addresses, as others see them; one of IPv4 and one of IPv6 at most.
        """
        if own == self._own:
            return
        self._own = own
        with self._lock:
            self._queue = [(when, -self._rank(address), tie, address) for when, _, tie, address in self._queue]
            heapq.heapify(self._queue)

    def met(self, address: PeerAddress, now: float, *, useful: bool) -> None:
        """A peer that called us has gone: take note of where it listens, and dial it later if it was not known.

        Args:
            address: where it says that it listens.
            now: the clock.
            useful: it sent good data; else it is not dialled as soon.
        """
        delays = self._config.redial_delays
        self.add([address], "incoming", not_before=now + delays[0 if useful else min(1, len(delays) - 1)])

    def next_to_dial(self, now: float) -> PeerAddress | None:
        """Return an address whose time has come, and count it as being dialled; None when there is none."""
        with self._lock:
            while self._queue and self._queue[0][0] <= now:
                *_, address = heapq.heappop(self._queue)
                known = self._known.get(address)
                if known and not known.busy and _ban_key(address) not in self._banned:
                    known.busy = True
                    return address
            return None

    def next_dial_time(self) -> float | None:
        """Return when the next address may be dialled (monotonic), or None when there is none."""
        with self._lock:
            return self._queue[0][0] if self._queue else None

    def source(self, address: PeerAddress) -> str:
        """Return where an address came from; `incoming` when the peer called us."""
        with self._lock:
            known = self._known.get(address)
            return known.source if known else "incoming"

    def ended(self, address: PeerAddress, now: float, *, useful: bool) -> None:
        """A dialled address failed or its connection ended: dial it again later.

        Args:
            address: as `next_to_dial` gave it; others are ignored.
            now: the clock.
            useful: it sent good data, so that its failures are forgiven.
        """
        with self._lock:
            known = self._known.get(address)
            if known is None or not known.busy:
                return
            known.busy = False
            known.failures = 1 if useful else known.failures + 1
            delays = self._config.redial_delays
            self._push(address, now + delays[min(known.failures, len(delays)) - 1])

    def ban(self, address: PeerAddress) -> None:
        """Never dial or accept this peer again."""
        with self._lock:
            self._banned.add(_ban_key(address))

    def ban_as(self, other: "PeerPool") -> None:
        """Ban whom another pool has banned: that of a magnet link's first stage."""
        with other._lock:
            banned = set(other._banned)
        with self._lock:
            self._banned |= banned

    def is_banned(self, address: PeerAddress) -> bool:
        """Tell whether a peer is banned."""
        with self._lock:
            return _ban_key(address) in self._banned

    def forget(self, address: PeerAddress) -> None:
        """Never dial this address again: it is our own, or the peer is connected another way."""
        with self._lock:
            known = self._known.get(address)
            if known:
                known.busy = True

    def addresses(self) -> dict[PeerAddress, str]:
        """Return all addresses that may be dialled, each with who said so; the lucky ones first."""
        with self._lock:
            known = sorted(self._known.items(), key=lambda item: item[1].failures)
            return {address: entry.source for address, entry in known if _ban_key(address) not in self._banned}

    def counts(self) -> tuple[int, int]:
        """Return how many addresses are known and how many are banned."""
        with self._lock:
            return len(self._known), len(self._banned)

    def _evictable(self) -> list[PeerAddress]:
        """Return the addresses that may make room for new ones: banned, or failed and not in use; the worst last."""
        failures = {
            address: math.inf if _ban_key(address) in self._banned else known.failures
            for address, known in self._known.items()
            if not known.busy
        }
        return sorted((address for address in failures if failures[address]), key=failures.__getitem__)

    def _push(self, address: PeerAddress, when: float) -> None:
        self._added += 1  # a tie-breaker: of two that are due the older one is dialled first
        heapq.heappush(self._queue, (when, -self._rank(address), self._added, address))

    def _rank(self, address: PeerAddress) -> int:
        """Return what decides between addresses whose time has come."""
        known = self._known.get(address)
        return GIVEN_PRIORITY if known and known.source == "given" else self.priority(address)


def _ban_key(address: PeerAddress) -> str:
    """Return what a ban applies to: the host, but for this machine, where many peers share one."""
    try:
        is_loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        is_loopback = False
    return str(address) if is_loopback else address.host


def _can_be_dialled(address: PeerAddress) -> bool:
    """Refuse addresses that are no single host: a tracker must not make us talk to a whole network."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return bool(address.host)  # a host name
    ip = getattr(ip, "ipv4_mapped", None) or ip
    # Of IPv6 much is "reserved" that is in use, ::1 and NAT64 among it.
    is_reserved = ip.version == 4 and ip.is_reserved
    return 0 < address.port < 65_536 and not (ip.is_multicast or ip.is_unspecified or is_reserved)
