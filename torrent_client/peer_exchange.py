"""Peers tell each other whom they are connected to, so that a swarm holds together without a tracker.

    once a minute, to each peer      those who came since we told it last, and those who went
    at most once a minute from each  addresses for the swarm to dial

Only live connections are told: who is told of has been spoken with, at the address that is told. What we are told
is hearsay of strangers, who might want us to dial somebody they do not like. So little is taken of each, and nobody
makes us dial addresses nearer to ourselves than he is: who is on the internet none of our own network, and who is on
our network none of this machine. That a peer is gone from somewhere else says nothing about it.

Spec: BEP 11; a private torrent has no peer exchange at all (BEP 27).
Thread: `tick` in housekeeping; the rest on the peer's worker.
Lock: none; of each peer's record one half belongs to housekeeping, the other to its worker.
"""

import ipaddress
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from torrent_client.errors import ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.protocol.pex import PEX_EXTENSION, PexContact, PexFlags, PexMessage
from torrent_client.tracker_client import PeerAddress

logger = logging.getLogger(__name__)

FIRST_DELAY: Final = 2.0
"""Seconds after a peer's handshake before it is told the first time: we are meeting others at that moment, too, and
the next message may go out only a minute later."""

SEND_INTERVAL: Final = 60.0
"""Seconds between two messages to a peer. BEP 11: no more than one a minute."""

ACCEPT_INTERVAL: Final = 50.0
"""Seconds between two messages of a peer that are obeyed: a minute, and clocks and networks are not exact."""

MAX_UNTIMELY: Final = 10
"""Messages in a row that come too soon before the peer is left. Real clients send none; libtorrent allows 6."""

MAX_TOLD: Final = 50
"""Peers added, and peers dropped, in a message. BEP 11: 50, but for the first message, of which Transmission does not
read more either."""

MAX_TAKEN: Final = 100
"""Addresses taken of one message: what libtorrent's first one has. Nobody is to choose all whom we dial."""

NOWHERE, THIS_MACHINE, OUR_NETWORK, INTERNET = range(-1, 3)  # distances of addresses


class _Record:
    """What passed between us and a peer.

    Attributes:
        told: whom it knows us to be connected to.
        next_message: when it may be told more.
        heard_at: when its last message was that we obeyed.
        untimely: how many have come since then.
    """

    def __init__(self, next_message: float) -> None:
        self.next_message = next_message
        self.told: set[PeerAddress] = set()
        self.heard_at = -math.inf
        self.untimely = 0


class PeerExchange:
    """Peer exchange in one torrent.

    Args:
        peers: returns the connected peers.
        on_addresses: takes addresses, and the word for who said so.
        clock: monotonic seconds.
        rng: chooses whom to tell of when there are many.
        is_complete: tells whether a peer has every piece.
    """

    name = PEX_EXTENSION

    def __init__(
        self,
        peers: Callable[[], list[Peer]],
        on_addresses: Callable[[Sequence[PeerAddress], str], None],
        clock: Callable[[], float],
        rng: Random,
        is_complete: Callable[[Peer], bool] = lambda _peer: False,
    ) -> None:
        """Begin with nobody told anything."""
        self._peers = peers
        self._on_addresses = on_addresses
        self._clock = clock
        self._rng = rng
        self._is_complete = is_complete
        self._records: dict[Peer, _Record] = {}

    def greeted(self, peer: Peer) -> None:
        """Have a peer told soon."""
        self._record(peer)

    def left(self, peer: Peer) -> None:
        """Forget what passed; the others are told when their time comes."""
        self._records.pop(peer, None)

    # --- telling -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Tell those whose time has come what has changed since they were told last.

        Args:
            now: monotonic seconds.
        """
        peers = self._peers()
        due = [(peer, record) for peer in peers if (record := self._records.get(peer)) and record.next_message <= now]
        if not due:
            return
        contacts = {
            PeerAddress(contact.host, contact.port): contact for contact in map(self._contact, peers) if contact
        }
        for peer, record in due:
            if peer.speaks(self.name):
                self._tell(peer, record, contacts, now)

    def _tell(self, peer: Peer, record: _Record, contacts: dict[PeerAddress, PexContact], now: float) -> None:
        """Send the difference, if there is one; what does not fit into a message comes with the next."""
        horizon = _horizon(peer.connection.address.host)
        current = {
            address for address in contacts if address != peer.listen_address and _distance(address.host) >= horizon
        }
        added = self._some(current - record.told)
        dropped = self._some(record.told - current)
        if not added and not dropped:
            return
        message = PexMessage(
            tuple(contacts[address] for address in added), tuple(PexContact(*address) for address in dropped)
        )
        peer.send_extended(self.name, message.encode())
        record.told = (record.told | added) - dropped
        record.next_message = now + SEND_INTERVAL

    def _some(self, addresses: set[PeerAddress]) -> set[PeerAddress]:
        """Return as many as a message may have."""
        return addresses if len(addresses) <= MAX_TOLD else set(self._rng.sample(sorted(addresses), MAX_TOLD))

    def _contact(self, peer: Peer) -> PexContact | None:
        """Return what others are told of a peer; None if that is nothing: who does not listen cannot be dialled."""
        address = peer.listen_address
        if address is None or _distance(address.host) == NOWHERE:
            return None
        flags = PexFlags.REACHABLE if peer.connection.outgoing else PexFlags.NONE
        if peer.hello and peer.hello.prefers_encryption:
            flags |= PexFlags.PREFERS_ENCRYPTION
        if self._is_complete(peer) or (peer.hello and peer.hello.upload_only):
            flags |= PexFlags.UPLOAD_ONLY
        return PexContact(address.host, address.port, flags)

    # --- being told --------------------------------------------------------------------------------------

    def received(self, peer: Peer, payload: bytes) -> None:
        """Take addresses for the swarm, unless the peer spoke a moment ago.

        Raises:
            ProtocolViolation: it is no message of BEP 11, or one of far too many.
        """
        record, now = self._record(peer), self._clock()
        if now < record.heard_at + ACCEPT_INTERVAL:
            record.untimely += 1
            if record.untimely > MAX_UNTIMELY:
                raise ProtocolViolation("peer exchange: more than one message a minute (BEP 11)")
            return
        record.heard_at, record.untimely = now, 0
        message = PexMessage.decode(payload)
        addresses = list(_credible(message.added, peer.connection.address.host))[:MAX_TAKEN]
        logger.debug("%s tells of %d peers", peer.connection.address, len(addresses))
        if addresses:
            self._on_addresses(addresses, "pex")

    def _record(self, peer: Peer) -> _Record:
        """Return a peer's record; it has one from its handshake on, or from its first message if that comes before."""
        return self._records.setdefault(peer, _Record(self._clock() + FIRST_DELAY))


def _distance(host: str) -> int:
    """Return how far away an address is; `NOWHERE` for what means nothing to others.

    That is a name, which they might read differently, a group, and an address that is known on one cable only.
    """
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return NOWHERE
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return THIS_MACHINE
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return NOWHERE
    return INTERNET if ip.is_global else OUR_NETWORK


def _horizon(host: str) -> int:
    """Return the distance from which on a peer and we may speak of addresses: its own."""
    distance = _distance(host)
    return INTERNET if distance == NOWHERE else distance


def _credible(contacts: Sequence[PexContact], teller: str) -> Iterator[PeerAddress]:
    """Give the addresses that are worth dialling, of each host one port; on this machine many peers share a host.

    Args:
        contacts: as told.
        teller: host of the peer that told them.
    """
    seen: set[str] = set()
    horizon = _horizon(teller)
    for contact in contacts:
        distance = _distance(contact.host)
        if distance < horizon or not contact.port or contact.host in seen:
            continue
        if distance != THIS_MACHINE:
            seen.add(contact.host)
        yield PeerAddress(contact.host, contact.port)
