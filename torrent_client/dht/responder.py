"""Answers what other nodes ask of us.

    ping           -> our id
    find_node      -> our id, nodes near the target
    get_peers      -> our id, nodes near the info hash, a token, peers that were announced to us
    announce_peer  -> our id, if the token is the one that this host was given
    another method -> like find_node if it has a target, as the extensions to come expect; else error 204

Spec: BEP 5, 32 (want), 42 (ip).
Thread: the DHT's.
Lock: none.
"""

from collections.abc import Callable
from typing import Final

from torrent_client.dht.node_id import may_tell
from torrent_client.dht.peer_store import PeerStore
from torrent_client.dht.routing_table import BUCKET_SIZE, RoutingTable
from torrent_client.dht.tokens import Tokens
from torrent_client.protocol.krpc import METHOD_UNKNOWN, PROTOCOL_ERROR, Endpoint, ErrorReply, NodeInfo, Query, Response

VALUES_IN_ANSWER: Final = {4: 40, 6: 14}
"""Peers in an answer at most, by family: with eight nodes of both families it stays below BEP 32's 1,024 bytes."""


class Responder:
    """Answers queries of one address family.

    Args:
        family: 4 or 6.
        tables: the routing tables, by family: this one, and the other one if there is one.
        store: where announced peers are kept.
        tokens: proves that who announces has asked.
    """

    def __init__(
        self, family: int, tables: Callable[[], dict[int, RoutingTable]], store: PeerStore, tokens: Tokens
    ) -> None:
        """Keep the parts."""
        self._family = family
        self._tables = tables
        self._store = store
        self._tokens = tokens

    def answer(self, query: Query, sender: Endpoint) -> bytes:
        """Return the datagram that answers a query."""
        if query.method == "announce_peer":
            return self._announce(query, sender)
        if query.method == "ping":
            return self._response(query, sender).encode()
        if not query.target:
            return ErrorReply(query.transaction, METHOD_UNKNOWN, "Method Unknown").encode()
        response = self._response(query, sender)
        families = query.want or (f"n{self._family}",)
        response = response._replace(nodes=self._nodes(query, sender, families))
        if query.method == "get_peers":
            values = self._store.peers(query.target, VALUES_IN_ANSWER[self._family])
            values = [value for value in values if may_tell(sender.host, value.host)]
            response = response._replace(values=tuple(values), token=self._tokens.token(sender.host))
        return response.encode(families=families)

    def refuse(self, transaction: bytes, reason: str) -> bytes:
        """Return the datagram that refuses a query that is none."""
        return ErrorReply(transaction, PROTOCOL_ERROR, reason).encode()

    def _announce(self, query: Query, sender: Endpoint) -> bytes:
        """Store a peer at the host that announces it."""
        if not self._tokens.is_valid(query.token, sender.host):
            return self.refuse(query.transaction, "Bad token")
        self._store.add(query.target, Endpoint(sender.host, query.port or sender.port))
        return self._response(query, sender).encode()

    def _response(self, query: Query, sender: Endpoint) -> Response:
        return Response(query.transaction, self._tables()[self._family].own_id, seen_as=sender)

    def _nodes(self, query: Query, sender: Endpoint, families: tuple[str, ...]) -> tuple[NodeInfo, ...]:
        """Return the nodes nearest to the target, without those that are none of the asker's business."""
        nodes: list[NodeInfo] = []
        for family, table in self._tables().items():
            if f"n{family}" in families:
                near = table.closest(query.target, BUCKET_SIZE + 1)
                near = [n for n in near if n.endpoint != sender and may_tell(sender.host, n.endpoint.host)]
                nodes += near[:BUCKET_SIZE]
        return tuple(nodes)
