"""A walk through the DHT towards an id: ask the nearest nodes that we know for nearer ones, until there are none.

    not asked --ask--> asked --answer--> answered        five are asked at once; one that has not answered after a
                         |                               second no longer counts among them, but may still answer
                         +------silence / lie-> failed

The walk is over when the eight nearest nodes that did not fail have all answered. Nobody can lead it astray for
ever: it asks a bounded number of nodes, each that it hears of once, and one of a host.

Spec: BEP 5 (find_node, get_peers); Kademlia.
Thread: the DHT's.
Lock: none.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from torrent_client.dht.node_id import distance, is_public
from torrent_client.dht.routing_table import BUCKET_SIZE
from torrent_client.protocol.krpc import Endpoint, NodeInfo

AT_ONCE: Final = 5
"""Nodes asked at once (alpha). Kademlia 3, libtorrent 5: who waits for peers pays for silent nodes with a second."""

MAX_ASKED: Final = 200
"""Nodes asked at most. A walk through the public DHT takes some 30 to 80; without a limit, somebody who invents nodes
that are ever nearer would keep us busy."""

MAX_CONTACTS: Final = 100
"""Nodes remembered, those nearest to the target: the others would never be asked."""


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    ANSWERED = auto()
    FAILED = auto()


class Contact:
    """A node on the way.

    Attributes:
        endpoint: where it is.
        node_id: its id; empty for one of which only the address is known, until it answers.
        hop: how many nodes led to it.
        token: what it gave us for announcing.
        is_stepping_stone: only shows the way, as a router does: nobody announces there.
    """

    __slots__ = ("endpoint", "hop", "is_stepping_stone", "node_id", "state", "token")

    def __init__(self, endpoint: Endpoint, node_id: bytes, hop: int, *, is_stepping_stone: bool = False) -> None:
        """Keep what is known before it was asked."""
        self.endpoint = endpoint
        self.node_id = node_id
        self.hop = hop
        self.token = b""
        self.is_stepping_stone = is_stepping_stone
        self.state = _State.NEW


class Lookup:
    """One walk.

    Args:
        target: 20 bytes.
        nodes: where to begin.
        endpoints: nodes to begin at of which only the address is known.
        stepping_stones: those of them that only show the way.
    """

    def __init__(
        self,
        target: bytes,
        nodes: Iterable[NodeInfo],
        endpoints: Iterable[Endpoint] = (),
        stepping_stones: frozenset[Endpoint] = frozenset(),
    ) -> None:
        """Begin; `next_contacts` tells whom to ask."""
        self.target = target
        self.asked = self.answers = 0
        self._contacts: list[Contact] = []  # the nearest first; those without an id last
        self._seen: set[Endpoint | str] = set()
        self._add([Contact(node.endpoint, node.node_id, 0) for node in nodes])
        self._add([Contact(end, b"", 0, is_stepping_stone=end in stepping_stones) for end in endpoints])

    @property
    def is_done(self) -> bool:
        """Whether there is nobody left to ask, or to wait for, that could be among the nearest."""
        nearest = self._nearest()
        waiting = any(contact.state in (_State.ASKED, _State.SLOW) for contact in nearest)
        return not waiting and (self.asked >= MAX_ASKED or all(c.state is _State.ANSWERED for c in nearest))

    def next_contacts(self) -> list[Contact]:
        """Return who is to be asked now; they count as asked."""
        room = AT_ONCE - sum(contact.state is _State.ASKED for contact in self._contacts)
        chosen = [contact for contact in self._nearest() if contact.state is _State.NEW]
        chosen = chosen[: max(0, min(room, MAX_ASKED - self.asked))]
        for contact in chosen:
            contact.state = _State.ASKED
        self.asked += len(chosen)
        return chosen

    def answered(self, contact: Contact, node_id: bytes, nodes: Iterable[NodeInfo], token: bytes = b"") -> None:
        """Take an answer: the nodes that it names are new contacts."""
        contact.state = _State.ANSWERED
        contact.token = token
        self.answers += 1
        if not contact.node_id:
            contact.node_id = node_id
        self._add([Contact(node.endpoint, node.node_id, contact.hop + 1) for node in nodes])

    def slow(self, contact: Contact) -> None:
        """Ask somebody else meanwhile: this one has not answered for a second."""
        if contact.state is _State.ASKED:
            contact.state = _State.SLOW

    def failed(self, contact: Contact) -> None:
        """Count on this node no longer."""
        contact.state = _State.FAILED

    def closest(self) -> list[Contact]:
        """Return the nearest nodes that answered, at most eight: where peers of the target are kept."""
        answered = [c for c in self._contacts if c.state is _State.ANSWERED and not c.is_stepping_stone]
        return answered[:BUCKET_SIZE]

    def _nearest(self) -> list[Contact]:
        """Return the nearest eight that did not fail, and all whose distance is not known."""
        alive = [contact for contact in self._contacts if contact.state is not _State.FAILED]
        known = [contact for contact in alive if contact.node_id and not contact.is_stepping_stone][:BUCKET_SIZE]
        return known + [contact for contact in alive if not contact.node_id]

    def _add(self, contacts: Iterable[Contact]) -> None:
        """Add nodes of which nothing was heard before."""
        for contact in contacts:
            host = contact.endpoint.host
            place = host if is_public(host) else contact.endpoint
            if place not in self._seen:
                self._seen.add(place)
                self._contacts.append(contact)
        self._contacts.sort(key=self._distance)
        del self._contacts[MAX_CONTACTS:]

    def _distance(self, contact: Contact) -> int:
        """Return how far a contact is; farther than everybody where that is not known."""
        return distance(contact.node_id, self.target) if contact.node_id else 1 << 160
