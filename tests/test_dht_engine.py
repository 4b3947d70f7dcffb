"""The DHT node without sockets: dozens of them in one process, virtual time, and all kinds of bad neighbours."""

import random
from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import FakeClock
from torrent_client.dht.engine import FAILED_AFTER, RETRY_DELAYS, SLOW_AFTER, UPKEEP_INTERVAL, DhtEngine
from torrent_client.dht.node_id import fits_address
from torrent_client.dht.routing_table import GOOD_FOR
from torrent_client.dht.search import Hop, Search, SearchResult
from torrent_client.protocol.krpc import Endpoint, ErrorReply, NodeInfo, Query, Response, decode

INFO_HASH = bytes.fromhex("d69f91e6b2ae4c542468d1073a71d4ea13879a7f")
PROBE = b"probe-probe-probe-pr"


class Network:
    """Carries datagrams between engines, one at a time, and counts them."""

    def __init__(self, clock: FakeClock, seed: int = 7) -> None:
        self.clock = clock
        self.rng = random.Random(seed)
        self.engines: dict[Endpoint, DhtEngine] = {}
        self.strangers: dict[Endpoint, Callable[[bytes, Endpoint], None]] = {}
        self.sent: Counter[Endpoint] = Counter()
        self._queue: deque[tuple[bytes, Endpoint, Endpoint]] = deque()

    def add(self, host: str, *, port: int = 6881, read_only: bool = False, family: int = 4) -> DhtEngine:
        """Make a node."""
        here = Endpoint(host, port)
        rng = random.Random(self.rng.getrandbits(64))
        engine = DhtEngine(
            family, None, lambda data, to: self.send(data, here, to), rng, self.clock, read_only=read_only
        )
        self.engines[here] = engine
        return engine

    def send(self, data: bytes, sender: Endpoint, to: Endpoint) -> None:
        """Put a datagram on its way."""
        self.sent[sender] += 1
        self._queue.append((data, sender, to))

    def run(self, limit: int = 200_000) -> None:
        """Deliver until nothing is under way."""
        for _ in range(limit):
            if not self._queue:
                return
            data, sender, to = self._queue.popleft()
            if to in self.engines:
                self.engines[to].receive(data, sender)
            elif to in self.strangers:
                self.strangers[to](data, sender)
        raise AssertionError("the datagrams do not come to an end")

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for engine in self.engines.values():
                engine.tick()
            self.run()

    def populate(self, count: int) -> list[DhtEngine]:
        """Make a DHT of nodes on the internet, each of which knows only the first one."""
        first = Endpoint("45.0.0.1", 6881)
        nodes = [self.add(f"45.0.{number}.1") for number in range(count)]
        for node in nodes[1:]:
            node.bootstrap([first])
            self.run()
        self.pass_time(5)
        return nodes


def search(engine: DhtEngine, network: Network, announce_port: int | None = None) -> tuple[set[Endpoint], SearchResult]:
    """Search and wait for the end."""
    found: set[Endpoint] = set()
    results: list[SearchResult] = []
    engine.find_peers(Search(INFO_HASH, found.update, announce_port, on_done=results.append))
    network.run()
    if not results:
        network.pass_time(3 * FAILED_AFTER)
    return found, results[0]


def ask(network: Network, engine: DhtEngine, query: Query, sender: Endpoint) -> list[object]:
    """Send one query as a stranger and return what came back, our own pings left out."""
    answers: list[object] = []

    def keep(data: bytes, _sender: Endpoint) -> None:
        message = decode(data)
        if not isinstance(message, Query):
            answers.append(message)

    network.strangers[sender] = keep
    engine.receive(query.encode(), sender)
    network.run()
    return answers


@pytest.fixture
def network(clock: FakeClock) -> Network:
    """Return an empty network."""
    return Network(clock)


def test_everybody_finds_a_peer_that_one_announced(network: Network) -> None:
    """In a DHT of forty nodes, in a few steps."""
    nodes = network.populate(40)
    assert all(len(node.table) >= 8 for node in nodes)
    found, result = search(nodes[3], network, announce_port=4711)
    assert (found, result.announced) == (set(), 8)
    for node in nodes[10:]:
        found, result = search(node, network)
        assert found == {Endpoint("45.0.3.1", 4711)}
        assert result.asked < 30


def test_a_search_tells_every_step(network: Network) -> None:
    """Who was asked, how far away it was, what it knew."""
    nodes = network.populate(20)
    search(nodes[3], network, announce_port=4711)
    hops: list[Hop] = []
    nodes[9].find_peers(Search(INFO_HASH, lambda _peers: None, on_hop=hops.append))
    network.run()
    assert len(hops) >= 8
    assert all(hop.round_trip is not None and not hop.error for hop in hops)
    assert sum(hop.values for hop in hops) >= 1


def test_a_cancelled_search_tells_nothing_more(network: Network) -> None:
    """Neither peers nor an end."""
    nodes = network.populate(20)
    search(nodes[3], network, announce_port=4711)
    told: list[object] = []
    cancelled = Search(INFO_HASH, told.append, 1, told.append, told.append)
    nodes[9].find_peers(cancelled)
    cancelled.cancel()
    told.clear()  # what it knew itself
    network.run()
    network.pass_time(10)
    assert told == []


def test_silent_nodes_cost_seconds_and_not_the_result(network: Network) -> None:
    """Three of those who keep the peers have gone: a walk asks others after a second."""
    nodes = network.populate(30)
    search(nodes[3], network, announce_port=4711)
    keepers = [here for here, node in network.engines.items() if len(node.store)]
    for here in keepers[:3]:
        del network.engines[here]
    searcher = next(node for node in network.engines.values() if not len(node.store))
    found: set[Endpoint] = set()
    results: list[SearchResult] = []
    searcher.find_peers(Search(INFO_HASH, found.update, on_done=results.append))
    network.run()
    network.pass_time(3 * SLOW_AFTER)
    assert found == {Endpoint("45.0.3.1", 4711)}
    network.pass_time(4 * FAILED_AFTER)
    assert results[0].answered < results[0].asked


def test_a_bootstrap_that_reaches_nobody_is_tried_again(network: Network) -> None:
    """Later and later; and a node that comes up then is found."""
    lonely = network.add("45.9.9.9")
    lonely.bootstrap([Endpoint("45.0.0.1", 6881)])
    network.pass_time(FAILED_AFTER + 0.5)
    assert lonely.next_try is not None
    assert not lonely.is_bootstrapping
    results: list[SearchResult] = []
    network.add("45.0.0.1")
    network.pass_time(RETRY_DELAYS[0] + 1)
    assert len(lonely.table) == 1
    assert lonely.next_try is None
    assert results == []


def test_a_search_that_nobody_answers_ends(network: Network) -> None:
    """Nobody to begin with: at once; entrances that are silent: after their time."""
    lonely = network.add("45.9.9.9")
    lonely.bootstrap([])
    assert search(lonely, network) == (set(), SearchResult())
    lonely.bootstrap([Endpoint("45.0.0.1", 6881)])
    assert search(lonely, network) == (set(), SearchResult(asked=1))


def test_a_search_waits_for_the_first_node(network: Network) -> None:
    """A node that is added while a search waits is where it begins."""
    first, second = network.add("127.0.0.1", port=1), network.add("127.0.0.1", port=2)
    first.store.add(INFO_HASH, Endpoint("127.0.0.1", 4711))
    found: set[Endpoint] = set()
    second.find_peers(Search(INFO_HASH, found.update))
    network.run()
    assert not found
    second.add_node(Endpoint("127.0.0.1", 1))
    network.run()
    assert found == {Endpoint("127.0.0.1", 4711)}


def test_routers_show_the_way_and_stay_out_of_the_table(network: Network) -> None:
    """BEP 5 asks for that."""
    router, other = network.add("45.0.0.1"), network.add("45.0.0.2")
    other.bootstrap([Endpoint("45.0.0.1", 6881)])
    network.run()
    newcomer = network.add("45.0.0.3")
    newcomer.bootstrap([Endpoint("45.0.0.1", 6881)], stepping_stones=True)
    network.run()
    assert [node.info.endpoint.host for node in newcomer.table] == ["45.0.0.2"]
    assert router.queries_in > 0


def test_who_asks_us_gets_into_the_table_once_it_has_answered(network: Network) -> None:
    """A read-only node never does (BEP 43), nor does a forged sender."""
    node = network.add("45.0.0.1")
    for host, read_only in (("45.0.0.2", False), ("45.0.0.3", True)):
        network.add(host, read_only=read_only).add_node(Endpoint("45.0.0.1", 6881))
    network.run()
    ask(network, node, Query(b"t", "ping", PROBE), Endpoint("45.0.0.4", 6881))
    assert [known.info.endpoint.host for known in node.table] == ["45.0.0.2"]


def test_a_read_only_node_asks_and_does_not_answer(network: Network) -> None:
    """And still finds what it looks for."""
    nodes = network.populate(12)
    search(nodes[3], network, announce_port=4711)
    visitor = network.add("45.7.7.7", read_only=True)
    visitor.bootstrap([Endpoint("45.0.0.1", 6881)])
    found, _ = search(visitor, network)
    assert found == {Endpoint("45.0.3.1", 4711)}
    assert ask(network, visitor, Query(b"t", "ping", PROBE), Endpoint("45.0.0.9", 1)) == []
    assert all(known.info.endpoint.host != "45.7.7.7" for node in nodes for known in node.table)


def test_an_announcement_needs_the_token_of_its_host(network: Network) -> None:
    """Nobody signs up somebody else; `implied_port` means the datagram's own port."""
    node = network.add("45.0.0.1")
    sender, thief = Endpoint("45.0.0.2", 7000), Endpoint("45.0.0.3", 7000)
    [answer] = ask(network, node, Query(b"t", "get_peers", PROBE, INFO_HASH), sender)
    assert isinstance(answer, Response)
    [refusal] = ask(network, node, Query(b"t", "announce_peer", PROBE, INFO_HASH, answer.token, 1), thief)
    assert refusal == ErrorReply(b"t", 203, "Bad token")
    ask(network, node, Query(b"t", "announce_peer", PROBE, INFO_HASH, answer.token, 0), sender)
    ask(network, node, Query(b"t", "announce_peer", PROBE, INFO_HASH, answer.token, 4711), sender)
    assert set(node.store.peers(INFO_HASH, 9)) == {sender, Endpoint("45.0.0.2", 4711)}


def test_unknown_methods_and_broken_queries_are_answered_with_errors(network: Network) -> None:
    """204 and 203; a method of the future with a target is answered with nodes."""
    node = network.add("45.0.0.1")
    sender = Endpoint("45.0.0.2", 7000)
    assert ask(network, node, Query(b"t", "dance", PROBE), sender) == [ErrorReply(b"t", 204, "Method Unknown")]
    [answer] = ask(network, node, Query(b"t", "sample_infohashes", PROBE, INFO_HASH), sender)
    assert isinstance(answer, Response)
    answers: list[bytes] = []
    network.strangers[sender] = lambda data, _sender: answers.append(data)
    node.receive(b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe", sender)
    network.run()
    message = decode(answers[0])
    assert isinstance(message, ErrorReply)
    assert message.code == 203


# --- bad neighbours ---------------------------------------------------------------------------------------


def test_strangers_cannot_make_us_ask_local_addresses(network: Network) -> None:
    """A node on the internet names our router, this machine, and peers there: nothing goes to them."""
    victim = network.add("45.0.0.1")
    liar = Endpoint("45.6.6.6", 6881)
    bait = [Endpoint("192.168.1.1", 53), Endpoint("127.0.0.1", 22), Endpoint("224.0.0.1", 9), Endpoint("10.0.0.1", 80)]

    def lie(data: bytes, sender: Endpoint) -> None:
        query = decode(data)
        assert isinstance(query, Query)
        nodes = tuple(NodeInfo(bytes([number]) + INFO_HASH[1:], end) for number, end in enumerate(bait))
        response = Response(query.transaction, b"l" * 20, nodes, tuple(bait), b"token")
        network.send(response.encode(), liar, sender)

    network.strangers[liar] = lie
    victim.bootstrap([liar])
    network.run()
    found, result = search(victim, network)
    assert (found, result.asked) == (set(), 1)
    assert [node.info.endpoint for node in victim.table] == [liar]


def test_answers_with_a_wrong_transaction_or_from_another_address_count_for_nothing(network: Network) -> None:
    """Nobody can answer for a node without having seen the question."""
    victim = network.add("45.0.0.1")
    real, forger = Endpoint("45.0.0.2", 6881), Endpoint("45.0.0.3", 6881)

    def answer_wrongly(data: bytes, sender: Endpoint) -> None:
        query = decode(data)
        network.send(Response(b"xxxx", b"a" * 20).encode(), real, sender)
        network.send(Response(query.transaction, b"b" * 20).encode(), forger, sender)

    network.strangers[real] = answer_wrongly
    victim.add_node(real)
    network.run()
    assert len(victim.table) == 0
    assert victim.nonsense == 2


def test_a_node_that_changes_its_id_is_not_believed(network: Network) -> None:
    """It is told of under one id and answers with another, right at the info hash: it counts as failed."""
    nodes = network.populate(12)
    search(nodes[3], network, announce_port=4711)
    liar = Endpoint("45.6.6.6", 6881)
    count = 0

    def lie(data: bytes, sender: Endpoint) -> None:
        nonlocal count
        query = decode(data)
        if isinstance(query, Query):
            count += 1
            node_id = INFO_HASH[:18] + count.to_bytes(2)
            network.send(Response(query.transaction, node_id, token=b"x").encode(), liar, sender)

    network.strangers[liar] = lie
    for node in nodes:
        node.add_node(liar)
    network.run()
    for node in nodes[4:]:
        assert sum(known.info.endpoint == liar for known in node.table) <= 1
        assert search(node, network)[0] == {Endpoint("45.0.3.1", 4711)}


def test_a_flood_of_queries_is_answered_at_a_trickle(network: Network) -> None:
    """Whose address is on them must not be flooded by us; others are served meanwhile."""
    node = network.add("45.0.0.1")
    here, flooder, honest = Endpoint("45.0.0.1", 6881), Endpoint("45.6.6.6", 6881), Endpoint("45.0.0.2", 6881)
    query = Query(b"t", "get_peers", PROBE, INFO_HASH)
    for _ in range(2000):
        node.receive(query.encode(), flooder)
    network.run()
    assert network.sent[here] < 60
    assert len(ask(network, node, query, honest)) == 1
    assert node.dropped > 1900


def test_one_host_with_many_nodes_has_one_place(network: Network) -> None:
    """It asks from a thousand ports with ids of its choice."""
    node = network.add("45.0.0.1")
    for port in range(1, 30):
        network.add("45.6.6.6", port=port).add_node(Endpoint("45.0.0.1", 6881))
    network.run()
    assert len(node.table) == 1


# --- life -------------------------------------------------------------------------------------------------


def test_a_table_stays_fresh_for_hours_and_loses_the_dead(network: Network) -> None:
    """Half of the nodes leave; an hour later they are asked for no more."""
    nodes = network.populate(16)
    for number in range(8, 16):
        del network.engines[Endpoint(f"45.0.{number}.1", 6881)]
    network.pass_time(4 * GOOD_FOR, step=UPKEEP_INTERVAL / 2)
    for node in nodes[:8]:
        hosts = {info.endpoint.host for info in node.table.closest(INFO_HASH, 16)}
        assert hosts <= {f"45.0.{number}.1" for number in range(8)}
        assert len(hosts) >= 5


def test_the_id_follows_our_address_once_enough_nodes_name_it(network: Network) -> None:
    """BEP 42; the neighbours stay."""
    nodes = network.populate(20)
    for number, node in enumerate(nodes[1:], 1):
        assert node.votes.elected() == f"45.0.{number}.1"
        assert fits_address(node.table.own_id, f"45.0.{number}.1")
        assert len(node.table) >= 8


def test_two_families_help_each_other(network: Network) -> None:
    """A node of both asks for nodes of both when it begins (BEP 32)."""
    pairs = [(network.add(f"45.0.{n}.1"), network.add(f"2a00:1450:{n}::1", family=6)) for n in range(1, 7)]
    for four, six in pairs:
        four.sister, six.sister = six, four
    for four, six in pairs[1:]:
        four.bootstrap([Endpoint("45.0.1.1", 6881)])
        if six is not pairs[-1][1]:
            six.bootstrap([Endpoint("2a00:1450:1::1", 6881)])
        network.run()
    network.pass_time(5)
    assert len(pairs[-1][1].table) > 0


@given(st.lists(st.tuples(st.binary(max_size=120), st.integers(0, 3)), max_size=20))
def test_no_datagram_breaks_a_node(datagrams: list[tuple[bytes, int]]) -> None:
    """Whatever comes, from whomever: it still answers a ping."""
    network = Network(FakeClock())
    node = network.add("45.0.0.1")
    node.bootstrap([Endpoint("45.0.0.2", 6881)])
    for data, number in datagrams:
        node.receive(data, Endpoint(f"45.0.0.{number + 1}", 6881))
        node.receive(b"d1:ad2:id20:abcdefghij0123456789e" + data, Endpoint(f"45.0.0.{number + 1}", 6881))
        node.tick()
    assert len(ask(network, node, Query(b"t", "ping", PROBE), Endpoint("45.0.0.77", 6881))) == 1
