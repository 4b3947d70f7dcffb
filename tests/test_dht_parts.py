"""The DHT's pure parts: ids, tokens, stored peers, limits, routing table, walks, votes, saved nodes."""

import json
import random
from pathlib import Path

import pytest

from tests.support import FakeClock
from torrent_client.dht import saved_nodes
from torrent_client.dht.address_votes import AddressVotes
from torrent_client.dht.lookup import AT_ONCE, MAX_ASKED, Contact, Lookup
from torrent_client.dht.node_id import (
    common_bits,
    crc32c,
    distance,
    fits_address,
    id_for_address,
    may_tell,
    random_id,
)
from torrent_client.dht.peer_store import LIFETIME, MAX_PEERS_OF_HOST, MAX_PEERS_OF_TORRENT, PeerStore
from torrent_client.dht.query_guard import HOST_BURST, HOST_RATE, TOTAL_BURST, QueryGuard
from torrent_client.dht.routing_table import BUCKET_SIZE, GOOD_FOR, REFRESH_AFTER, RoutingTable
from torrent_client.dht.tokens import ROTATION, Tokens
from torrent_client.protocol.krpc import Endpoint, NodeInfo

OWN = bytes(20)


def node(number: int, *, first_byte: int = 0x80, host: str | None = None) -> NodeInfo:
    """Return a node, by default of the farther half, with an address of its own."""
    host = host or f"45.{number >> 8 & 255}.{number & 255}.9"
    return NodeInfo(bytes([first_byte]) + number.to_bytes(19), Endpoint(host, 6881))


# --- ids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "node_id"),
    [
        ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
        ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
        ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
        ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
        ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
    ],
)
def test_the_vectors_of_bep_42(host: str, node_id: str) -> None:
    """Each id fits its address, and no longer when one of the first 21 bits or r is another one."""
    good = bytes.fromhex(node_id)
    assert fits_address(good, host)
    assert not fits_address(bytes([good[0] ^ 1]) + good[1:], host)
    assert not fits_address(good[:-1] + bytes([good[-1] ^ 1]), host)


@pytest.mark.parametrize("host", ["84.124.73.14", "2a00:1450:4001:82a::200e"])
def test_an_id_made_for_an_address_fits_it(host: str, rng: random.Random) -> None:
    """Of IPv6 the first half of the address counts."""
    ids = {id_for_address(host, rng) for _ in range(20)}
    assert len(ids) == 20
    assert all(fits_address(node_id, host) for node_id in ids)


def test_local_addresses_need_no_fitting_id(rng: random.Random) -> None:
    """BEP 42 exempts them."""
    for host in ("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.1.1", "::1", "fe80::1"):
        assert fits_address(random_id(rng), host)


def test_the_checksum_is_castagnolis() -> None:
    """The usual check value."""
    assert crc32c(b"123456789") == 0xE3069283


def test_random_ids_share_the_bits_asked_for(rng: random.Random) -> None:
    """As many as asked for, and not one more."""
    own = rng.randbytes(20)
    for bits in (0, 1, 7, 8, 100, 159):
        assert common_bits(random_id(rng, own, bits), own) == bits
    assert common_bits(own, own) == 160


@pytest.mark.parametrize(
    ("teller", "host", "believed"),
    [
        ("45.1.1.1", "45.2.2.2", True),
        ("45.1.1.1", "192.168.1.1", False),
        ("45.1.1.1", "127.0.0.1", False),
        ("45.1.1.1", "::1", False),
        ("45.1.1.1", "224.0.0.1", False),
        ("192.168.1.5", "192.168.1.1", True),
        ("192.168.1.5", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "45.1.1.1", True),
        ("127.0.0.1", "0.0.0.0", False),
        ("127.0.0.1", "255.255.255.255", False),
        ("::1", "::1", True),
    ],
)
def test_strangers_cannot_send_us_to_local_addresses(teller: str, host: str, *, believed: bool) -> None:
    """A node speaks of its own kind of address, or of more public ones."""
    assert may_tell(teller, host) is believed


# --- tokens -----------------------------------------------------------------------------------------------


def test_a_token_is_good_for_its_host_for_five_to_ten_minutes(rng: random.Random, clock: FakeClock) -> None:
    """BEP 5: secrets change every five minutes, and the one before is accepted."""
    tokens = Tokens(rng, clock)
    token = tokens.token("45.1.1.1")
    assert not tokens.is_valid(token, "45.1.1.2")
    assert not tokens.is_valid(b"", "45.1.1.1")
    clock.advance(ROTATION)
    assert tokens.is_valid(token, "45.1.1.1")
    clock.advance(ROTATION)
    assert not tokens.is_valid(token, "45.1.1.1")


def test_tokens_after_a_long_sleep_are_new(rng: random.Random, clock: FakeClock) -> None:
    """Nobody asked for a week: no old secret is left."""
    tokens = Tokens(rng, clock)
    token = tokens.token("45.1.1.1")
    clock.advance(7 * 86_400)
    assert not tokens.is_valid(token, "45.1.1.1")
    assert tokens.is_valid(tokens.token("45.1.1.1"), "45.1.1.1")


# --- stored peers -----------------------------------------------------------------------------------------


def test_peers_are_forgotten_unless_announced_again(rng: random.Random, clock: FakeClock) -> None:
    """A client that went away should not be dialled for hours."""
    store = PeerStore(rng, clock)
    old, new = Endpoint("45.1.1.1", 1), Endpoint("45.1.1.2", 2)
    store.add(OWN, old)
    store.add(OWN, new)
    clock.advance(LIFETIME / 2)
    store.add(OWN, new)
    clock.advance(LIFETIME / 2)
    assert store.peers(OWN, 9) == [new]
    assert len(store) == 2
    store.expire()
    assert (len(store), store.torrents) == (1, 1)


def test_a_torrent_keeps_its_newest_peers(rng: random.Random, clock: FakeClock) -> None:
    """The oldest goes when there are too many; an answer holds some of them, by lot."""
    store = PeerStore(rng, clock)
    for number in range(MAX_PEERS_OF_TORRENT + 1):
        assert store.add(OWN, Endpoint(f"45.1.1.{number}", 1))
    peers = store.peers(OWN, 1000)
    assert len(peers) == len(store) == MAX_PEERS_OF_TORRENT
    assert Endpoint("45.1.1.0", 1) not in peers
    assert len(set(store.peers(OWN, 8))) == 8


def test_one_host_cannot_fill_the_store(rng: random.Random, clock: FakeClock) -> None:
    """It gets so many places and no more; others still get in."""
    store = PeerStore(rng, clock)
    taken = [store.add(number.to_bytes(20), Endpoint("45.1.1.1", 1)) for number in range(MAX_PEERS_OF_HOST + 50)]
    assert taken.count(True) == MAX_PEERS_OF_HOST
    assert store.add(OWN, Endpoint("45.1.1.2", 1))


# --- limits -----------------------------------------------------------------------------------------------


def test_a_flooding_host_is_answered_at_a_low_rate(clock: FakeClock) -> None:
    """Whoever forges a victim's address reaches the victim with a trickle."""
    guard = QueryGuard(clock)
    assert sum(guard.admit("45.1.1.1") for _ in range(1000)) == HOST_BURST
    assert guard.admit("45.1.1.2")
    clock.advance(1.0)
    assert sum(guard.admit("45.1.1.1") for _ in range(1000)) == HOST_RATE
    assert guard.dropped == 2000 - HOST_BURST - HOST_RATE


def test_all_hosts_together_are_limited(clock: FakeClock) -> None:
    """Thousands of forged addresses do not make us send without end; this machine is exempt."""
    guard = QueryGuard(clock)
    admitted = sum(guard.admit(f"45.{number >> 8}.{number & 255}.1") for number in range(5000))
    assert admitted == TOTAL_BURST
    assert all(guard.admit("127.0.0.1") for _ in range(1000))


def test_a_network_of_ipv6_counts_as_one_host(clock: FakeClock) -> None:
    """Everybody there has 2^64 addresses."""
    guard = QueryGuard(clock)
    assert sum(guard.admit(f"2a00:1450:1:1::{number:x}") for number in range(200)) == HOST_BURST


# --- routing table ----------------------------------------------------------------------------------------


def test_far_buckets_keep_eight_nodes_and_near_ones_split(clock: FakeClock) -> None:
    """The table knows more of its own neighbourhood."""
    table = RoutingTable(OWN, clock)
    for number in range(100):
        table.answered(node(number))
        table.answered(node(number + 1000, first_byte=number + 1))
    far = [known for known in table if known.info.node_id[0] & 0x80]
    assert len(far) == BUCKET_SIZE
    assert len(table) > 3 * BUCKET_SIZE
    target = bytes([3]) + bytes(19)
    closest = table.closest(target)
    assert closest == sorted(closest, key=lambda info: distance(info.node_id, target))
    everybody = sorted((known.info for known in table), key=lambda info: distance(info.node_id, target))
    assert closest == everybody[:BUCKET_SIZE]


def test_good_nodes_stay_and_a_spare_replaces_a_bad_one(clock: FakeClock) -> None:
    """Old nodes that answer are better than newcomers; two failures make room."""
    table = RoutingTable(OWN, clock)
    for number in range(BUCKET_SIZE):
        assert table.answered(node(number))
    table.answered(node(100, first_byte=0x01))  # so that the bucket has been split
    for number in range(BUCKET_SIZE, 2 * BUCKET_SIZE):
        assert not table.answered(node(number))
    kept = {known.info for known in table}
    assert {node(number) for number in range(BUCKET_SIZE)} <= kept
    table.failed(node(3))
    assert node(3) in {known.info for known in table}
    table.failed(node(3))
    kept = {known.info for known in table}
    assert node(3) not in kept
    assert node(2 * BUCKET_SIZE - 1) in kept  # the spare that was heard of last


def test_silent_nodes_become_questionable_and_are_given_last(clock: FakeClock) -> None:
    """After 15 minutes without a word; a query of theirs counts as a word."""
    table = RoutingTable(OWN, clock)
    table.answered(node(1))
    table.answered(node(2))
    clock.advance(GOOD_FOR - 1)
    assert table.asked_us(node(2))
    clock.advance(2)
    assert table.closest(node(1).node_id) == [node(2), node(1)]
    table.failed(node(1))
    table.failed(node(1))
    assert table.closest(node(1).node_id) == [node(2)]


def test_a_questionable_node_is_asked_when_another_waits_for_its_place(clock: FakeClock) -> None:
    """The one heard of the longest ago first."""
    table = RoutingTable(OWN, clock)
    for number in range(BUCKET_SIZE):
        table.answered(node(number))
        clock.advance(1)
    table.answered(node(300, first_byte=0x01))
    assert table.doubtful() == []
    clock.advance(GOOD_FOR)
    assert table.doubtful() == []  # nobody waits
    table.answered(node(50))
    assert table.doubtful() == [node(0)]


def test_one_host_of_the_internet_has_one_place(clock: FakeClock) -> None:
    """Whatever ports and ids it invents; on a local network many nodes may share an address."""
    table = RoutingTable(OWN, clock)
    for number in range(20):
        table.answered(NodeInfo(node(number).node_id, Endpoint("45.1.1.1", 1000 + number)))
    assert len(table) == 1
    for number in range(20, 25):
        table.answered(NodeInfo(node(number).node_id, Endpoint("127.0.0.1", 1000 + number)))
    assert len(table) == 6


def test_nobody_takes_over_the_id_of_a_node_that_is_alive(clock: FakeClock) -> None:
    """A second address for a known id is believed only when the first one is bad."""
    table = RoutingTable(OWN, clock)
    honest, thief = node(1), node(1, host="45.66.66.66")
    table.answered(honest)
    assert not table.answered(thief)
    assert table.closest(OWN) == [honest]
    table.failed(honest)
    table.failed(honest)
    assert table.answered(thief)
    assert table.closest(OWN) == [thief]


def test_a_node_that_began_anew_gets_its_new_place(clock: FakeClock) -> None:
    """The same address with another id: the first entry is gone."""
    table = RoutingTable(OWN, clock)
    table.answered(node(1))
    table.answered(NodeInfo(node(2).node_id, node(1).endpoint))
    assert [known.info.node_id for known in table] == [node(2).node_id]


def test_buckets_without_a_change_are_refreshed_once(clock: FakeClock, rng: random.Random) -> None:
    """With an id in their range."""
    table = RoutingTable(OWN, clock)
    for number in range(BUCKET_SIZE + 1):
        table.answered(node(number, first_byte=0x80 if number else 0x01))
    assert table.stale(rng) == []
    clock.advance(REFRESH_AFTER)
    targets = table.stale(rng)
    assert sorted(common_bits(target, OWN) for target in targets) == [0, 1]
    assert table.stale(rng) == []


def test_a_new_own_id_keeps_the_nodes(clock: FakeClock) -> None:
    """They are sorted anew."""
    table = RoutingTable(OWN, clock)
    for number in range(BUCKET_SIZE):
        table.answered(node(number))
    table.move_to(b"\x80" + bytes(19))
    assert len(table) == BUCKET_SIZE
    assert len(table.closest(OWN)) == BUCKET_SIZE


# --- walks ------------------------------------------------------------------------------------------------


def test_a_walk_ends_when_the_eight_nearest_have_answered() -> None:
    """It asks nearer ones first, a few at once, and nobody twice."""
    target = bytes(20)
    everybody = [node(number, first_byte=0) for number in range(1, 60)]
    lookup = Lookup(target, everybody[-3:])
    asked: list[Contact] = []
    while not lookup.is_done:
        contacts = lookup.next_contacts()
        assert 0 < len(contacts) <= AT_ONCE
        asked += contacts
        for contact in contacts:
            number = int.from_bytes(contact.node_id)
            lookup.answered(contact, contact.node_id, [n for n in everybody if int.from_bytes(n.node_id) >= number - 9])
    assert len({contact.endpoint for contact in asked}) == len(asked) < 60
    assert [contact.node_id for contact in lookup.closest()] == [info.node_id for info in everybody[:8]]


def test_a_silent_node_delays_and_does_not_end_a_walk() -> None:
    """Slow: others are asked meanwhile. Failed: it does not count."""
    lookup = Lookup(bytes(20), [node(number, first_byte=0) for number in range(1, 9)])
    first = lookup.next_contacts()
    assert len(first) == AT_ONCE
    assert lookup.next_contacts() == []
    for contact in first:
        lookup.slow(contact)
    rest = lookup.next_contacts()
    assert len(rest) == 8 - AT_ONCE
    for contact in rest:
        lookup.answered(contact, contact.node_id, [])
    states = [lookup.is_done]
    lookup.answered(first[0], first[0].node_id, [])  # late, and welcome
    for contact in first[1:]:
        lookup.failed(contact)
    assert [*states, lookup.is_done] == [False, True]
    assert len(lookup.closest()) == 4


def test_a_liar_who_invents_ever_nearer_nodes_is_given_up() -> None:
    """Each answer names nodes that are nearer: an end comes all the same."""
    lookup = Lookup(bytes(20), [node(1 << 140, first_byte=0)])
    number = 1 << 20
    while not lookup.is_done:
        for contact in lookup.next_contacts():
            number -= 9
            invented = [node(number + index, first_byte=0) for index in range(9)]
            lookup.answered(contact, contact.node_id, invented)
    assert lookup.asked <= MAX_ASKED


def test_nobody_is_announced_to_at_a_stepping_stone() -> None:
    """A router shows the way; an address without an id gets the one that it says."""
    router, other = Endpoint("45.1.1.1", 6881), Endpoint("45.1.1.2", 6881)
    lookup = Lookup(bytes(20), [], [router, other], frozenset({router}))
    for contact in lookup.next_contacts():
        lookup.answered(contact, node(int(contact.endpoint.host[-1])).node_id, [], b"token")
    assert lookup.is_done
    assert [contact.endpoint for contact in lookup.closest()] == [other]


# --- votes and saved nodes --------------------------------------------------------------------------------


def test_our_address_is_what_most_of_enough_hosts_say() -> None:
    """One host has one vote, and a few liars are outvoted."""
    votes = AddressVotes()
    for _ in range(20):
        votes.add("45.1.1.1", "45.66.6.6")
    elected = [votes.elected()]
    for number in range(5):
        votes.add(f"45.1.2.{number}", "84.124.73.14")
        elected.append(votes.elected())
    votes.add("127.0.0.1", "127.0.0.1")
    votes.add("45.1.2.0", "192.168.1.1")
    assert [*elected, votes.elected()] == [None] * 5 + ["84.124.73.14"] * 2


def test_saved_nodes_come_back_and_the_id_only_on_its_port(tmp_path: Path) -> None:
    """Two clients side by side have different ports, and must not be one node."""
    nodes = [node(1), node(2)]
    saved_nodes.save(tmp_path, 6881, {4: (OWN, nodes), 6: (OWN, [])})
    assert saved_nodes.load(tmp_path, 6881)[4] == saved_nodes.SavedNodes(OWN, tuple(nodes))
    assert saved_nodes.load(tmp_path, 6882)[4] == saved_nodes.SavedNodes(None, tuple(nodes))
    assert [path.name for path in tmp_path.iterdir()] == [saved_nodes.FILE_NAME]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"port": 1, "ipv4": {"id": "zz", "nodes": []}}', '{"port": 1, "ipv4": 7}']
)
def test_a_damaged_file_costs_nothing_but_the_nodes(tmp_path: Path, text: str) -> None:
    """The next run begins anew."""
    (tmp_path / saved_nodes.FILE_NAME).write_text(text)
    assert saved_nodes.load(tmp_path, 1) == {4: saved_nodes.SavedNodes(), 6: saved_nodes.SavedNodes()}


def test_saved_nodes_are_checked_one_by_one(tmp_path: Path) -> None:
    """Of the wrong family, or without a port: left out."""
    rows = [[OWN.hex(), "45.1.1.1", 6881], [OWN.hex(), "::1", 6881], [OWN.hex(), "45.1.1.2", 0]]
    value = {"port": 1, "ipv4": {"id": OWN.hex(), "nodes": rows}}
    (tmp_path / saved_nodes.FILE_NAME).write_text(json.dumps(value))
    assert saved_nodes.load(tmp_path, 1)[4].nodes == (NodeInfo(OWN, Endpoint("45.1.1.1", 6881)),)
