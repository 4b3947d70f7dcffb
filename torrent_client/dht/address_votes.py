"""What is our own address? Each node that answers says under which one it saw us; the majority is believed.

Spec: BEP 42 (bootstrapping: `ip`).
Thread: the DHT's.
Lock: none.
"""

from collections import Counter, OrderedDict
from typing import Final

from torrent_client.dht.node_id import is_public

VOTERS: Final = 30
"""Hosts whose last word counts."""

VOTES_NEEDED: Final = 5
"""Votes without which nothing is believed: a few liars among the first to answer must not name us."""


class AddressVotes:
    """Counts the votes of hosts, one each."""

    def __init__(self) -> None:
        """Begin with none."""
        self._votes: OrderedDict[str, str] = OrderedDict()

    def add(self, voter: str, address: str) -> None:
        """Take a vote; only the internet votes, and only for its own addresses."""
        if is_public(voter) and is_public(address):
            self._votes.pop(voter, None)
            self._votes[voter] = address
            if len(self._votes) > VOTERS:
                self._votes.popitem(last=False)

    def elected(self) -> str | None:
        """Return the address that more than half of all voters, and enough of them, have seen."""
        [(address, votes)] = Counter(self._votes.values()).most_common(1) or [("", 0)]
        return address if votes >= VOTES_NEEDED and 2 * votes > len(self._votes) else None
