"""One node of the DHT of one address family, without its socket: datagrams in, datagrams out.

    datagram --> guard --> krpc.decode --+--> query ------> Responder --------------------> send
                                         |      `- who asks, and is unknown, is pinged ---> send
                                         +--> response ---> its Pending: RoutingTable, walk -> send

    bootstrap walk -> refresh walks -> ready;   nobody answered -> unreachable, tried again after 5 s, 10 s ... 10 min

It has a clock and a `send`, both given, so that a test runs dozens of nodes and hours in a moment.

Spec: BEP 5, 32 (two families), 42 (id follows the address), 43 (read-only).
Thread: the DHT's, alone.
Lock: none.
"""

import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from torrent_client.dht.address_votes import AddressVotes
from torrent_client.dht.lookup import Contact, Lookup
from torrent_client.dht.node_id import fits_address, id_for_address, is_public, may_tell
from torrent_client.dht.peer_store import PeerStore
from torrent_client.dht.query_guard import QueryGuard
from torrent_client.dht.responder import Responder
from torrent_client.dht.routing_table import BUCKET_SIZE, RoutingTable
from torrent_client.dht.search import Hop, Search
from torrent_client.dht.tokens import Tokens
from torrent_client.errors import KrpcError
from torrent_client.protocol.krpc import Endpoint, ErrorReply, NodeInfo, Query, Response, decode

logger = logging.getLogger(__name__)

SLOW_AFTER: Final = 1.0
"""Seconds after which a walk asks somebody else meanwhile. libtorrent 1 s; most answers come within 0.3 s."""

FAILED_AFTER: Final = 4.0
"""Seconds after which no answer is expected. Later ones are rare, and an announcement should not wait for them."""

RETRY_DELAYS: Final = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
"""Seconds after which a bootstrap that reached nobody is tried again."""

UPKEEP_INTERVAL: Final = 10.0
"""Seconds between two looks at the table and the store."""

MAX_PENDING: Final = 500
"""Queries under way at most."""

MAX_PINGS: Final = 10
"""Unknown nodes that asked us and are being pinged at once."""


class _Pending(NamedTuple):
    """A query that waits for its answer."""

    endpoint: Endpoint
    node_id: bytes  # empty where it is not known
    sent_at: float
    on_answer: Callable[[Response, float], None]
    on_silence: Callable[[str], None]
    on_slow: Callable[[], None] | None


class _Walk:
    """A lookup, and whom it is for."""

    def __init__(
        self,
        lookup: Lookup,
        search: Search | None = None,
        on_done: Callable[[], None] = lambda: None,
        wants: tuple[str, ...] = (),
    ) -> None:
        self.lookup = lookup
        self.search = search  # None: to fill the table
        self.on_done = on_done
        self.wants = wants


class DhtEngine:
    """A node in the IPv4 or in the IPv6 DHT.

    Args:
        family: 4 or 6.
        node_id: 20 bytes, of an earlier run; None for a new one.
        send: sends a datagram; never raises.
        rng: source of ids, tokens and transactions.
        clock: monotonic seconds.
        read_only: answer nothing, and say so (BEP 43).
    """

    def __init__(
        self,
        family: int,
        node_id: bytes | None,
        send: Callable[[bytes, Endpoint], None],
        rng: random.Random,
        clock: Callable[[], float],
        *,
        read_only: bool = False,
    ) -> None:
        """Begin alone."""
        self.family = family
        self.table = RoutingTable(node_id or rng.randbytes(20), clock)
        self.store = PeerStore(rng, clock)
        self.votes = AddressVotes()
        self.sister: DhtEngine | None = None  # the node in the other family's DHT
        self.queries_in = self.queries_out = self.nonsense = 0
        self.is_bootstrapping = False
        self.next_try: float | None = None  # when bootstrap is tried again, if it failed
        self._send = send
        self._rng = rng
        self._clock = clock
        self._read_only = read_only
        self._guard = QueryGuard(clock)
        self._responder = Responder(family, self._tables, self.store, Tokens(rng, clock))
        self._pending: dict[bytes, _Pending] = {}
        self._awaited: Counter[Endpoint] = Counter()  # of `_pending`
        self._pinged: set[Endpoint] = set()  # because they asked us
        self._walks: list[_Walk] = []
        self._waiting: list[Search] = []  # for the first node to begin at
        self._refreshes: deque[bytes] = deque()
        self._entrances: list[Endpoint] = []
        self._saved: list[NodeInfo] = []
        self._stepping_stones: frozenset[Endpoint] = frozenset()
        self._entrances_tried = 0
        self._failures = 0
        self._next_upkeep = clock() + UPKEEP_INTERVAL

    # --- what others ask of it ---------------------------------------------------------------------------

    @property
    def entrances_tried(self) -> int:
        """Addresses given to begin with that were asked by the last bootstrap."""
        return self._entrances_tried

    @property
    def dropped(self) -> int:
        """Datagrams dropped because there were too many."""
        return self._guard.dropped

    def bootstrap(
        self, entrances: Iterable[Endpoint], saved: Iterable[NodeInfo] = (), *, stepping_stones: bool = False
    ) -> None:
        """Find our place in the DHT.

        Args:
            entrances: addresses of nodes.
            saved: nodes of an earlier run.
            stepping_stones: the entrances are public routers, which only show the way.
        """
        new = [endpoint for endpoint in entrances if endpoint not in self._entrances]
        self._entrances += new
        if stepping_stones:
            self._stepping_stones |= frozenset(new)
        self._saved += saved
        self._bootstrap()

    def add_node(self, endpoint: Endpoint) -> None:
        """Ask a node whether it is there; if it answers, it gets into the table."""
        if len(self._pending) < MAX_PENDING // 2:  # strangers' nodes never push out queries of our own
            self._ping(endpoint, b"", self._start_waiting, self._begin_anew)

    def find_peers(self, search: Search) -> None:
        """Look for the peers of a torrent."""
        search.found(self.store.peers(search.info_hash, 100))
        if self._start(search):
            return
        self._waiting.append(search)
        if self.next_try is not None:
            self._give_up_waiting()

    def receive(self, data: bytes, sender: Endpoint) -> None:
        """Take a datagram."""
        is_awaited = sender in self._awaited
        if not is_awaited and not self._guard.admit(sender.host):
            return
        try:
            message = decode(data)
        except KrpcError as error:
            self.nonsense += 1
            if error.query and not self._read_only and (not is_awaited or self._guard.admit(sender.host)):
                self._send(self._responder.refuse(error.query, str(error)), sender)
            return
        if isinstance(message, Query):
            if not is_awaited or self._guard.admit(sender.host):
                self._on_query(message, sender)
        else:
            self._on_answer(message, sender)

    def tick(self) -> None:
        """Do what is due; called a few times a second."""
        now = self._clock()
        for transaction, pending in list(self._pending.items()):
            if now - pending.sent_at >= FAILED_AFTER:
                self._forget(transaction)
                if pending.node_id:
                    self.table.failed(NodeInfo(pending.node_id, pending.endpoint))
                pending.on_silence("no answer")
            elif (on_slow := pending.on_slow) and now - pending.sent_at >= SLOW_AFTER:
                self._pending[transaction] = pending._replace(on_slow=None)
                on_slow()
        if self._refreshes and not any(walk.search is None for walk in self._walks):
            self._walk(_Walk(Lookup(self._refreshes[0], self.table.closest(self._refreshes.popleft()))))
        if self.next_try is not None and now >= self.next_try:
            self._bootstrap()
        if now >= self._next_upkeep:
            self._next_upkeep = now + UPKEEP_INTERVAL
            self._keep_up()

    # --- finding our place -------------------------------------------------------------------------------

    def _bootstrap(self) -> None:
        """Walk towards ourselves: on the way we get to know our neighbours, and they us."""
        self.next_try = None
        nodes = [*self.table.closest(self.table.own_id), *self._saved]
        if self.is_bootstrapping:
            return
        self.is_bootstrapping = True
        self._entrances_tried = len(self._entrances)
        lookup = Lookup(self.table.own_id, nodes, self._entrances, self._stepping_stones)
        walk = _Walk(lookup, on_done=self._on_bootstrapped, wants=("n4", "n6") if self.sister else ())
        self._walk(walk)
        self._start_waiting()

    def _on_bootstrapped(self) -> None:
        """Fill the other buckets too; or try again later."""
        self.is_bootstrapping = False
        if len(self.table):
            self._failures = 0
            self._saved.clear()
            self._refreshes.extend(self.table.stale(self._rng, after=0.0))
            return
        if len(self._entrances) > self._entrances_tried:
            self._bootstrap()  # more names were looked up meanwhile
            return
        self.next_try = self._clock() + RETRY_DELAYS[min(self._failures, len(RETRY_DELAYS) - 1)]
        self._failures += 1
        self._give_up_waiting()

    def _begin_anew(self) -> None:
        """Bootstrap from a node that was added, if we know nobody else."""
        if len(self.table) <= 1:
            self._bootstrap()

    def _keep_up(self) -> None:
        """Keep the table fresh and the store small."""
        self.store.expire()
        for info in self.table.doubtful():
            self._ping(info.endpoint, info.node_id)
        self._refreshes.extend(self.table.stale(self._rng))
        self._walks = [walk for walk in self._walks if not (walk.search and walk.search.is_cancelled)]
        self._waiting = [search for search in self._waiting if not search.is_cancelled]
        if self.next_try is None and not any(not node.is_bad for node in self.table):
            self._bootstrap()

    def _tables(self) -> dict[int, RoutingTable]:
        tables = {self.family: self.table}
        return tables | {self.sister.family: self.sister.table} if self.sister else tables

    # --- searches ----------------------------------------------------------------------------------------

    def _start(self, search: Search) -> bool:
        """Begin a search, if there is somebody to begin with."""
        nodes = self.table.closest(search.info_hash)
        entrances = self._entrances if len(nodes) < BUCKET_SIZE else []
        lookup = Lookup(search.info_hash, nodes, entrances, self._stepping_stones)
        if nodes or entrances:
            self._walk(_Walk(lookup, search, partial(self._on_searched, lookup, search)))
        return bool(nodes or entrances)

    def _start_waiting(self) -> None:
        """Begin the searches that waited for a first node."""
        self._waiting = [search for search in self._waiting if not search.is_cancelled and not self._start(search)]

    def _give_up_waiting(self) -> None:
        """End the searches that wait: there is nobody to begin with."""
        waiting, self._waiting = self._waiting, []
        for search in waiting:
            search.done(0, 0, 0)

    def _walk(self, walk: _Walk) -> None:
        self._walks.append(walk)
        self._advance(walk)

    def _advance(self, walk: _Walk) -> None:
        """Ask whom a walk wants asked; end it when it is done."""
        if walk not in self._walks:
            return
        if walk.search and walk.search.is_cancelled:
            self._walks.remove(walk)
            return
        for contact in walk.lookup.next_contacts():
            self._ask(walk, contact)
        if walk.lookup.is_done and walk in self._walks:
            self._walks.remove(walk)
            walk.on_done()

    def _ask(self, walk: _Walk, contact: Contact) -> None:
        """Ask one node for nodes, or for peers and nodes."""

        def on_slow() -> None:
            walk.lookup.slow(contact)
            self._advance(walk)

        method = "get_peers" if walk.search else "find_node"
        query = Query(b"", method, self.table.own_id, walk.lookup.target, want=walk.wants)
        on_answer, on_silence = partial(self._on_step, walk, contact), partial(self._on_lost_step, walk, contact)
        self._query(query, contact.endpoint, contact.node_id, on_answer, on_silence, on_slow)

    def _on_step(self, walk: _Walk, contact: Contact, response: Response, round_trip: float) -> None:
        """Take a node's answer: nodes to ask next, and peers."""
        nodes = [node for node in response.nodes if self._is_believable(node, contact.endpoint)]
        four_or_six = [node for node in nodes if (":" in node.endpoint.host) == (self.family == 6)]
        if self.sister and len(four_or_six) < len(nodes):
            self.sister.get_to_know([node for node in nodes if node not in four_or_six])
        values = [value for value in response.values if may_tell(contact.endpoint.host, value.host)]
        walk.lookup.answered(contact, response.node_id, four_or_six, response.token)
        if walk.search:
            hop = Hop(contact.endpoint, response.node_id, contact.hop, round_trip, len(nodes), len(values))
            walk.search.passed(hop)
            walk.search.found(values)
        self._advance(walk)

    def _on_lost_step(self, walk: _Walk, contact: Contact, reason: str) -> None:
        """Go on without a node."""
        walk.lookup.failed(contact)
        if walk.search:
            walk.search.passed(Hop(contact.endpoint, contact.node_id, contact.hop, error=reason))
        self._advance(walk)

    def _on_searched(self, lookup: Lookup, search: Search) -> None:
        """Announce ourselves where others will look, if that is wanted."""
        contacts = [contact for contact in lookup.closest() if contact.token] if search.announce_port else []
        replies = 0
        announced = 0

        def over(taken: int, *_: object) -> None:
            nonlocal replies, announced
            replies += 1
            announced += taken
            if replies >= len(contacts):
                search.done(lookup.asked, lookup.answers, announced)

        for contact in contacts:
            port = search.announce_port or 0
            query = Query(b"", "announce_peer", self.table.own_id, lookup.target, contact.token, port)
            self._query(query, contact.endpoint, contact.node_id, partial(over, 1), partial(over, 0))
        if not contacts:
            over(0)

    def _is_believable(self, node: NodeInfo, teller: Endpoint) -> bool:
        """Tell whether a node that another one named may be asked."""
        return node.node_id != self.table.own_id and may_tell(teller.host, node.endpoint.host)

    def get_to_know(self, nodes: Iterable[NodeInfo]) -> None:
        """Ping some nodes that the other family's DHT has named, while we know few."""
        if len(self.table) < BUCKET_SIZE:
            for node in nodes:
                self._ping(node.endpoint, node.node_id, self._begin_anew)

    # --- queries and answers -----------------------------------------------------------------------------

    def _query(
        self,
        query: Query,
        endpoint: Endpoint,
        node_id: bytes,
        on_answer: Callable[[Response, float], None],
        on_silence: Callable[[str], None],
        on_slow: Callable[[], None] | None = None,
    ) -> None:
        """Send a query and keep in mind what is to be done with the answer."""
        transaction = self._rng.randbytes(4)
        if len(self._pending) >= MAX_PENDING:
            transaction = next(iter(self._pending))  # the oldest one
            oldest = self._forget(transaction)
            oldest.on_silence("too many queries under way")
        self._pending[transaction] = _Pending(endpoint, node_id, self._clock(), on_answer, on_silence, on_slow)
        self._awaited[endpoint] += 1
        self.queries_out += 1
        self._send(query._replace(transaction=transaction, read_only=self._read_only).encode(), endpoint)

    def _ping(self, endpoint: Endpoint, node_id: bytes, *then: Callable[[], None]) -> None:
        """Ping a node; what is to be done when it has answered comes after."""

        def on_answer(_response: Response, _round_trip: float) -> None:
            self._pinged.discard(endpoint)
            for action in then:
                action()

        def on_silence(_reason: str) -> None:
            self._pinged.discard(endpoint)

        self._query(Query(b"", "ping", self.table.own_id), endpoint, node_id, on_answer, on_silence)

    def _on_query(self, query: Query, sender: Endpoint) -> None:
        """Answer a query, and get to know who asked."""
        if self._read_only or query.node_id == self.table.own_id:
            return
        self.queries_in += 1
        self._send(self._responder.answer(query, sender), sender)
        info = NodeInfo(query.node_id, sender)
        if query.read_only or self.table.asked_us(info):
            return
        if sender not in self._pinged and len(self._pinged) < MAX_PINGS:
            self._pinged.add(sender)
            self._ping(sender, b"", self._start_waiting, self._begin_anew)

    def _on_answer(self, message: Response | ErrorReply, sender: Endpoint) -> None:
        """Take an answer, if it is one to a question of ours."""
        pending = self._pending.get(message.transaction)
        if not pending or pending.endpoint != sender:
            self.nonsense += 1
            return
        self._forget(message.transaction)
        if isinstance(message, ErrorReply):
            pending.on_silence(f"error {message.code}: {message.text}")
            return
        if message.node_id == self.table.own_id:
            pending.on_silence("it is ourselves")
            return
        if sender not in self._stepping_stones:
            self.table.answered(NodeInfo(message.node_id, sender))
        if message.seen_as:
            self.votes.add(sender.host, message.seen_as.host)
            self._follow_address()
        if pending.node_id and pending.node_id != message.node_id:
            pending.on_silence("it has another id than was said")
            return
        pending.on_answer(message, self._clock() - pending.sent_at)

    def _follow_address(self) -> None:
        """Take an id that fits our address on the internet, once that is known."""
        address = self.votes.elected()
        if address and is_public(address) and not fits_address(self.table.own_id, address):
            logger.info("the DHT sees us at %s: a new node id that fits it", address)
            self.table.move_to(id_for_address(address, self._rng))
            self._refreshes.append(self.table.own_id)

    def _forget(self, transaction: bytes) -> _Pending:
        """Wait no longer for an answer."""
        pending = self._pending.pop(transaction)
        self._awaited[pending.endpoint] -= 1
        if not self._awaited[pending.endpoint]:
            del self._awaited[pending.endpoint]
        return pending
