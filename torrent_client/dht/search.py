"""A search for the peers of a torrent, as those see it who asked for it.

Spec: BEP 5 (get_peers, announce_peer).
Thread: made and cancelled on any; callbacks on the DHT's.
Lock: none; `cancel` sets a flag.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from torrent_client.protocol.krpc import Endpoint


class Hop(NamedTuple):
    """One node that was asked on the way.

    Attributes:
        endpoint: its address.
        node_id: its id; empty if it never said.
        depth: how many nodes led to it.
        round_trip: seconds until it answered; None if it did not.
        nodes: nodes that it named.
        values: peers that it named.
        error: why it counts for nothing; empty for a good answer.
    """

    endpoint: Endpoint
    node_id: bytes
    depth: int
    round_trip: float | None = None
    nodes: int = 0
    values: int = 0
    error: str = ""


class SearchResult(NamedTuple):
    """How a search ended.

    Attributes:
        asked: nodes that were asked.
        answered: those that answered.
        peers: different peers that were found.
        announced: nodes that took our announcement.
    """

    asked: int = 0
    answered: int = 0
    peers: int = 0
    announced: int = 0


OnPeers: TypeAlias = Callable[[Sequence[Endpoint]], None]
OnHop: TypeAlias = Callable[[Hop], None]
OnDone: TypeAlias = Callable[[SearchResult], None]


class Search:
    """A search in one address family.

    Args:
        info_hash: 20 bytes.
        on_peers: is given peers as they are found, each once.
        announce_port: our TCP port, to be announced at the end; None for no announcement.
        on_hop: is told of every node that was asked.
        on_done: is told how the search ended, unless it was cancelled.
    """

    def __init__(
        self,
        info_hash: bytes,
        on_peers: OnPeers,
        announce_port: int | None = None,
        on_hop: OnHop | None = None,
        on_done: OnDone | None = None,
    ) -> None:
        """Begin with nothing found."""
        self.info_hash = info_hash
        self.announce_port = announce_port
        self.is_cancelled = False
        self._on_peers = on_peers
        self._on_hop = on_hop
        self._on_done = on_done
        self._found: set[Endpoint] = set()

    def cancel(self) -> None:
        """End it; nothing is told any more."""
        self.is_cancelled = True

    def found(self, peers: Sequence[Endpoint]) -> None:
        """Pass on those peers that are new."""
        new = [peer for peer in dict.fromkeys(peers) if peer not in self._found]
        self._found.update(new)
        if new and not self.is_cancelled:
            self._on_peers(new)

    def passed(self, hop: Hop) -> None:
        """Tell of a node that was asked."""
        if self._on_hop and not self.is_cancelled:
            self._on_hop(hop)

    def done(self, asked: int, answered: int, announced: int) -> None:
        """Tell that it is over."""
        if self._on_done and not self.is_cancelled:
            self._on_done(SearchResult(asked, answered, len(self._found), announced))
