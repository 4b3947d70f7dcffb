"""Known addresses: which are taken, when each is dialled, and who is never dialled again."""

import pytest

from tests.support import FakeClock
from torrent_client.config import Config
from torrent_client.peer_pool import PeerPool
from torrent_client.tracker_client import PeerAddress

CONFIG = Config(known_peers=5, redial_delays=(10.0, 120.0, 900.0))
A, B, C = (PeerAddress(f"192.0.2.{number}", 6881) for number in (1, 2, 3))


@pytest.fixture
def pool() -> PeerPool:
    """Return an empty pool."""
    return PeerPool(CONFIG)


def due(pool: PeerPool, now: float) -> list[PeerAddress]:
    """Take all addresses whose time has come."""
    taken = []
    while (address := pool.next_to_dial(now)) is not None:
        taken.append(address)
    return taken


def test_new_addresses_are_dialled_at_once_in_their_order(pool: PeerPool) -> None:
    """Each once: it is then being dialled."""
    assert pool.next_dial_time() is None
    assert pool.add([B, A, C], "tracker") == 3
    assert pool.next_dial_time() == 0.0
    assert due(pool, now=0.0) == [B, A, C]
    assert pool.next_dial_time() is None


def test_an_address_is_taken_once(pool: PeerPool) -> None:
    """Trackers name the same peers every time; what was known keeps its source and its time."""
    assert pool.add([A, A], "tracker") == 1
    assert pool.add([A, B], "pex") == 1
    assert (pool.source(A), pool.source(B)) == ("tracker", "pex")
    assert due(pool, now=0.0) == [A, B]
    assert pool.add([A], "tracker") == 0
    assert due(pool, now=0.0) == []
    assert pool.counts() == (2, 0)


def test_of_new_addresses_those_of_high_priority_come_first(pool: PeerPool) -> None:
    """As soon as we know our own address, also of those that were known before (BEP 40)."""
    own = PeerAddress("123.213.32.10", 6881)
    far, near = PeerAddress("98.76.54.32", 1), PeerAddress("123.213.32.234", 1)
    name = PeerAddress("peer.example", 1)
    pool.add([near, name], "tracker")
    pool.prefer((own, PeerAddress("2001:db8::1", 6881)))
    pool.add([far], "pex")
    assert (pool.priority(far), pool.priority(near), pool.priority(name)) == (0xEC2D7224, 0x99568189, 0)
    assert due(pool, now=0.0) == [far, near, name]


def test_those_that_the_user_gave_come_before_all_others(pool: PeerPool) -> None:
    """Whatever their priority."""
    far, near = PeerAddress("98.76.54.32", 1), PeerAddress("123.213.32.234", 1)
    pool.prefer((PeerAddress("123.213.32.10", 6881),))
    pool.add([far], "tracker")
    pool.add([near], "given")
    assert due(pool, now=0.0) == [near, far]


def test_priority_does_not_make_anybody_wait_longer(pool: PeerPool) -> None:
    """Those whose time came earlier are dialled earlier."""
    far, near = PeerAddress("98.76.54.32", 1), PeerAddress("123.213.32.234", 1)
    pool.prefer((PeerAddress("123.213.32.10", 6881),))
    pool.add([far, near], "tracker")
    due(pool, now=0.0)
    pool.ended(near, now=5.0, useful=False)
    pool.ended(far, now=6.0, useful=False)
    assert due(pool, now=20.0) == [near, far]


def test_a_peer_that_called_us_can_be_dialled_when_it_has_gone(pool: PeerPool) -> None:
    """Where it says that it listens; after ten seconds if it was of use, else later."""
    pool.met(A, now=0.0, useful=True)
    pool.met(B, now=0.0, useful=False)
    assert pool.source(A) == "incoming"
    assert due(pool, now=9.0) == []
    assert due(pool, now=10.0) == [A]
    assert due(pool, now=120.0) == [B]


def test_meeting_a_known_peer_changes_nothing(pool: PeerPool) -> None:
    """It keeps its source and its time; who is banned stays out."""
    pool.add([A], "tracker")
    pool.ban(B)
    pool.met(A, now=100.0, useful=True)
    pool.met(B, now=100.0, useful=True)
    assert pool.source(A) == "tracker"
    assert due(pool, now=0.0) == [A]
    assert due(pool, now=1e6) == []


def test_who_called_us_is_incoming(pool: PeerPool) -> None:
    """An address that nobody named."""
    assert pool.source(A) == "incoming"


def test_a_hostile_tracker_cannot_fill_the_memory(pool: PeerPool) -> None:
    """Beyond the limit nothing is taken, and those known stay."""
    addresses = [PeerAddress("192.0.2.9", port) for port in range(1, 100)]
    assert pool.add(addresses, "tracker") == 5
    assert pool.counts() == (5, 0)
    assert due(pool, now=0.0) == addresses[:5]


def test_a_full_pool_makes_room_for_new_addresses(pool: PeerPool) -> None:
    """The one that failed most often goes first; those in use and those never tried stay."""
    once, twice, connected, untried, waiting = (A._replace(port=port) for port in range(1, 6))
    pool.add([twice, once, connected], "tracker")
    due(pool, now=0.0)
    pool.ended(twice, 0.0, useful=False)
    pool.ended(once, 0.0, useful=False)
    assert pool.next_to_dial(10.0) == twice
    pool.ended(twice, 10.0, useful=False)
    pool.add([untried, waiting], "tracker")
    assert pool.add([B, twice], "pex") == 1
    assert (pool.source(twice), pool.source(once)) == ("incoming", "tracker")
    assert pool.add([twice, C], "pex") == 1
    assert pool.source(once) == "incoming"
    assert pool.counts() == (5, 0)
    assert due(pool, now=0.0) == [untried, waiting, B, twice]
    assert due(pool, now=1e6) == []


def test_banned_addresses_do_not_fill_the_pool_for_ever(pool: PeerPool) -> None:
    """A host that was named with many ports, and then banned."""
    pool.add([A._replace(port=port) for port in range(1, 6)], "tracker")
    pool.ban(A)
    assert pool.add([B], "tracker") == 1
    assert due(pool, now=0.0) == [B]


def test_a_failing_address_is_tried_at_longer_and_longer_intervals(pool: PeerPool, clock: FakeClock) -> None:
    """10 s, 2 min, 15 min, and from then on the last of the delays."""
    pool.add([A], "tracker")
    for delay in (10.0, 120.0, 900.0, 900.0, 900.0):
        assert due(pool, clock()) == [A]
        pool.ended(A, clock(), useful=False)
        assert pool.next_dial_time() == clock() + delay
        clock.advance(delay - 0.1)
        assert due(pool, clock()) == []
        clock.advance(0.1)


def test_a_useful_peer_is_soon_dialled_again(pool: PeerPool, clock: FakeClock) -> None:
    """Good data makes up for all failures before it, and the next failure is the second."""
    pool.add([A], "tracker")
    for _ in range(3):
        clock.advance(1000.0)
        assert due(pool, clock()) == [A]
        pool.ended(A, clock(), useful=False)
    clock.advance(1000.0)
    assert due(pool, clock()) == [A]
    pool.ended(A, clock(), useful=True)
    clock.advance(10.0)
    assert due(pool, clock()) == [A]
    pool.ended(A, clock(), useful=False)
    assert pool.next_dial_time() == clock() + 120.0


def test_addresses_that_are_due_come_in_the_order_of_their_times(pool: PeerPool) -> None:
    """The one that waits longest first, whatever the order of the calls."""
    pool.add([A, B], "tracker")
    due(pool, now=0.0)
    pool.ended(B, now=7.0, useful=False)
    pool.ended(A, now=5.0, useful=False)
    pool.add([C], "tracker")
    assert due(pool, now=15.0) == [C, A]
    assert due(pool, now=17.0) == [B]


def test_the_end_of_what_was_not_dialled_means_nothing(pool: PeerPool) -> None:
    """An unknown address, or one that is waiting already, is not queued twice."""
    pool.ended(A, now=0.0, useful=False)
    assert pool.next_dial_time() is None
    pool.add([A], "tracker")
    pool.ended(A, now=0.0, useful=False)
    assert due(pool, now=1e6) == [A]
    pool.ended(A, now=0.0, useful=False)
    pool.ended(A, now=0.0, useful=False)
    assert pool.next_dial_time() == 10.0  # one failure
    assert due(pool, now=1e6) == [A]


def test_a_banned_peer_is_never_dialled_nor_taken_again(pool: PeerPool) -> None:
    """On no port of its host, be it queued, waiting or new."""
    pool.add([A, B], "tracker")
    assert not pool.is_banned(A)
    pool.ban(A)
    assert pool.is_banned(A)
    assert pool.is_banned(A._replace(port=1))
    assert due(pool, now=0.0) == [B]
    assert pool.add([A._replace(port=1)], "tracker") == 0
    assert pool.counts() == (2, 1)
    pool.ban(B)
    pool.ended(B, now=0.0, useful=True)
    assert due(pool, now=1e6) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_ban_on_this_machine_is_for_one_port(host: str) -> None:
    """Many peers share the loopback address, in tests and behind proxies."""
    pool = PeerPool(CONFIG)
    pool.ban(PeerAddress(host, 1))
    assert pool.is_banned(PeerAddress(host, 1))
    assert not pool.is_banned(PeerAddress(host, 2))


def test_a_host_name_can_be_banned(pool: PeerPool) -> None:
    """It need not be an address."""
    pool.ban(PeerAddress("peer.example", 1))
    assert pool.is_banned(PeerAddress("peer.example", 2))


def test_a_forgotten_address_is_not_dialled_again(pool: PeerPool) -> None:
    """It is our own, or that peer is connected another way; what is unknown cannot be forgotten."""
    pool.add([A, B], "tracker")
    pool.forget(A)
    pool.forget(C)
    assert due(pool, now=0.0) == [B]
    assert pool.add([A, C], "tracker") == 1
    assert due(pool, now=0.0) == [C]


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",
        "10.0.0.1",
        "127.0.0.1",
        "2001:db8::1",
        "fe80::1%eth0",
        "::1",
        "64:ff9b::192.0.2.1",  # IPv4 through NAT64
        "::ffff:192.0.2.1",  # IPv4 as IPv6 writes it
        "peer.example",
    ],
)
def test_single_hosts_can_be_dialled(host: str) -> None:
    """Public or private, IPv4 or IPv6, or a name."""
    pool = PeerPool(CONFIG)
    assert pool.add([PeerAddress(host, 65_535)], "given") == 1


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("224.0.0.1", 6881),  # multicast
        ("ff02::1", 6881),
        ("::ffff:224.0.0.1", 6881),
        ("0.0.0.0", 6881),  # "this host": a connection to ourselves
        ("::", 6881),
        ("::ffff:0.0.0.0", 6881),
        ("255.255.255.255", 6881),  # broadcast
        ("240.0.0.1", 6881),
        ("192.0.2.1", 0),
        ("192.0.2.1", 65_536),
        ("192.0.2.1", -1),
        ("", 6881),
    ],
)
def test_what_is_no_single_host_is_not_taken(host: str, port: int) -> None:
    """A tracker must not make us talk to a whole network, or to nothing."""
    pool = PeerPool(CONFIG)
    assert pool.add([PeerAddress(host, port)], "tracker") == 0
    assert pool.next_to_dial(0.0) is None
    assert pool.counts() == (0, 0)


def test_the_limit_and_the_delays_come_from_the_config(clock: FakeClock) -> None:
    """Another configuration, other numbers."""
    pool = PeerPool(CONFIG._replace(known_peers=1, redial_delays=(3.0,)))
    assert pool.add([A, B], "tracker") == 1
    assert due(pool, clock()) == [A]
    pool.ended(A, clock(), useful=False)
    assert pool.next_dial_time() == clock() + 3.0
