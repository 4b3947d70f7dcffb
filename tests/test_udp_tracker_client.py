"""UDP trackers on loopback: honest ones, and silent, lying, flooding and dead ones."""

import socket
import threading
import time
from collections.abc import Iterable
from random import Random
from struct import pack
from typing import Any

import pytest

from tests.fake_peer import closed_port
from tests.fake_udp_tracker import CONNECTION_ID, FakeUdpTracker, announced, connected, error, honest
from tests.support import FakeClock, wait_until
from torrent_client import udp_tracker_client
from torrent_client.abort import Abort
from torrent_client.config import MAX_UDP_TRACKER_RESPONSE, Config
from torrent_client.errors import TrackerError, TrackerSilent
from torrent_client.tracker_answers import AnnounceResponse, PeerAddress, Progress, ScrapeCounts
from torrent_client.tracker_client import TrackerClient
from torrent_client.udp_tracker_client import MAX_STRAY_DATAGRAMS, UdpTrackerClient

HASH, PEER_ID = bytes(range(20)), b"-PC0100-abcdefghijkl"
PROGRESS = Progress(uploaded=1, downloaded=22, left=333)
QUICK = Config(udp_tracker_timeout=0.2)
PEERS = b"\x0a\x00\x00\x01\x1a\xe1" + b"\x0a\x00\x00\x02\x00\x50" + b"\x0a\x00\x00\x01\x1a\xe1"


def client(url: str, **options: Any) -> UdpTrackerClient:  # noqa: ANN401  # passed on
    """Return a client that does not wait long."""
    return UdpTrackerClient(url, HASH, PEER_ID, 6881, key=7, **{"config": QUICK} | options)


def refusal(url: str, **options: Any) -> TrackerError:  # noqa: ANN401  # passed on
    """Return the error of an announce."""
    with pytest.raises(TrackerError) as caught:
        client(url, **options).announce(PROGRESS)
    return caught.value


def test_an_announce_connects_first() -> None:
    """Two questions, and everything that the second answer says; who is named twice is one peer."""
    with FakeUdpTracker(lambda datagram: honest(datagram, PEERS)) as tracker:
        answer = client(tracker.url).announce(PROGRESS, "started", num_want=50)
    assert answer == AnnounceResponse(
        peers=(PeerAddress("10.0.0.1", 6881), PeerAddress("10.0.0.2", 80)), interval=1800.0, seeders=3, leechers=2
    )
    connect, announce = tracker.seen
    assert connect[:12].hex() == "0000041727101980" + "00000000"
    assert announce[:8] == CONNECTION_ID.to_bytes(8, "big")
    assert announce[16:56] == HASH + PEER_ID
    assert announce[80:84] == b"\0\0\0\x02"
    assert announce[88:98].hex() == "00000007" + "00000032" + "1ae1"
    assert announce[98:] == b"\x02\x09/announce"


def test_get_peers_asks_udp_trackers_too() -> None:
    """The door takes the URL of any tracker."""
    with FakeUdpTracker(lambda datagram: honest(datagram, PEERS)) as tracker:
        assert TrackerClient(tracker.url, HASH, PEER_ID, 6881).get_peers()[0] == PeerAddress("10.0.0.1", 6881)


def test_get_peers_survives_a_lost_datagram() -> None:
    """It asks once more."""
    lost: list[bytes] = []

    def loses_one(datagram: bytes) -> Iterable[bytes]:
        if not lost:
            lost.append(datagram)
            return []
        return honest(datagram, PEERS)

    with FakeUdpTracker(loses_one) as tracker:
        assert TrackerClient(tracker.url, HASH, PEER_ID, 6881, config=QUICK).get_peers()
    assert len(lost) == 1


def test_ipv6_trackers_answer_with_ipv6_peers() -> None:
    """18 bytes each; which kind it is follows from the address that was asked."""
    peer = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + b"\x1a\xe1"
    with FakeUdpTracker(lambda datagram: honest(datagram, peer), host="::1") as tracker:
        asking = client(tracker.url)
        assert asking.families() == (socket.AF_INET6,)
        assert asking.announce(PROGRESS).peers == (PeerAddress("2001:db8::7", 6881),)


def test_a_connection_id_is_used_for_a_minute(clock: FakeClock) -> None:
    """And not longer."""
    with FakeUdpTracker() as tracker:
        asking = client(tracker.url, clock=clock)
        for _ in range(2):
            asking.announce(PROGRESS)
            clock.advance(59)
        clock.advance(2)
        asking.announce(PROGRESS)
    assert tracker.actions == [0, 1, 1, 0, 1]


def test_a_forgotten_connection_is_made_again() -> None:
    """A tracker that was started again refuses the id that it had given; nobody need notice."""
    asked: list[int] = []

    def forgets(datagram: bytes) -> Iterable[bytes]:
        asked.append(datagram[11])
        return [error(datagram, b"bad connection id")] if asked == [0, 1, 1] else honest(datagram)

    with FakeUdpTracker(forgets) as tracker:
        asking = client(tracker.url)
        asking.announce(PROGRESS)
        assert asking.announce(PROGRESS).seeders == 3
    assert tracker.actions == [0, 1, 1, 0, 1]


# --- silence ----------------------------------------------------------------------------------------------


def test_a_silent_tracker_is_asked_again_after_15_times_2_to_the_n_seconds() -> None:
    """BEP 15: from one question to the next 15, 30, 60 ... 3840 s, of which the call itself waits 15."""
    with FakeUdpTracker(lambda _: []) as tracker:
        asking = client(tracker.url, config=Config(udp_tracker_timeout=0.02))
        waits = []
        for _ in range(11):
            with pytest.raises(TrackerSilent, match="no answer in") as caught:
                asking.announce(PROGRESS)
            assert caught.value.retry_in is not None
            waits.append(caught.value.retry_in / 0.02 + 1)
        assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256])
        tracker.answer = honest
        asking.announce(PROGRESS)
        tracker.answer = lambda _: []
        with pytest.raises(TrackerSilent) as caught:
            asking.announce(PROGRESS)
        assert caught.value.retry_in == 0.0
    assert Config().udp_tracker_timeout == 15.0


def test_a_time_limit_is_kept() -> None:
    """A goodbye waits shorter, and says nothing about when to ask again."""
    with FakeUdpTracker(lambda _: []) as tracker:
        asking = client(tracker.url, config=Config())
        begin = time.monotonic()
        with pytest.raises(TrackerSilent):
            asking.announce(PROGRESS, "stopped", time_limit=0.1)
        assert time.monotonic() - begin < 5


def test_a_wait_ends_at_once_when_it_is_aborted() -> None:
    """Fifteen seconds are too long for the end of a program."""
    abort = Abort()
    with FakeUdpTracker(lambda _: []) as tracker:
        asking = client(tracker.url, config=Config())
        errors: list[Exception] = []

        def announce() -> None:
            with pytest.raises(TrackerError, match="stopping") as caught:
                asking.announce(PROGRESS, abort=abort)
            errors.append(caught.value)

        thread = threading.Thread(target=announce)
        thread.start()
        wait_until(lambda: bool(tracker.seen))
        abort.set()
        thread.join(5)
        assert errors


def test_each_address_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a dead address and a good one: the second question goes to the other one."""
    with FakeUdpTracker(lambda _: []) as silent, FakeUdpTracker() as good:
        real = udp_tracker_client.endpoints
        both = [real(silent.url)[0], real(good.url)[0]]
        monkeypatch.setattr(udp_tracker_client, "endpoints", lambda _url, _family: both)
        asking = client(silent.url)
        with pytest.raises(TrackerSilent):
            asking.announce(PROGRESS)
        assert asking.announce(PROGRESS).seeders == 3


# --- lies and floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", bytes(16), b"\xff" * 1500],
    ids=["empty", "a byte", "another transaction", "noise"],
)
def test_what_is_no_answer_is_ignored(garbage: bytes) -> None:
    """The answer that follows counts."""
    with FakeUdpTracker(lambda datagram: [garbage, *honest(datagram)]) as tracker:
        assert client(tracker.url, config=Config()).announce(PROGRESS).seeders == 3


def test_an_oversize_datagram_is_ignored() -> None:
    """Even with the right transaction."""

    def oversize(datagram: bytes) -> Iterable[bytes]:
        if datagram[11] == 1:
            yield announced(datagram, bytes(MAX_UDP_TRACKER_RESPONSE), seeders=66)
        yield from honest(datagram)

    with FakeUdpTracker(oversize) as tracker:
        assert client(tracker.url, config=Config()).announce(PROGRESS).seeders == 3


def test_a_flood_is_given_up() -> None:
    """It must not cost a processor for a quarter of a minute."""
    with FakeUdpTracker(lambda _: (bytes(16) for _ in range(100 * MAX_STRAY_DATAGRAMS))) as tracker:
        begin = time.monotonic()
        assert "answer nothing" in str(refusal(tracker.url, config=Config()))
        assert time.monotonic() - begin < 10


def test_only_the_asked_address_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else who guesses the transaction is not let through by the system."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger, FakeUdpTracker(lambda _: []) as tracker:
        stranger.bind(("127.0.0.1", 0))

        rng = Random(1)
        guessed = Random(1).getrandbits(32)
        asking = client(tracker.url, rng=rng)
        ports: list[int] = []
        real = socket.socket.connect

        def spoof(sock: socket.socket, address: Any) -> None:  # noqa: ANN401
            real(sock, address)
            ports.append(sock.getsockname()[1])
            stranger.sendto(pack(">IIQ", 0, guessed, 1), ("127.0.0.1", ports[0]))

        monkeypatch.setattr(socket.socket, "connect", spoof)
        with pytest.raises(TrackerSilent):
            asking.announce(PROGRESS)
    assert tracker.actions == [0]
    assert ports


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda datagram: [error(datagram, b"go away")], "refused: go away"),
        (lambda datagram: [announced(datagram)], "another question"),
        (lambda datagram: [connected(datagram)[:12]], "12 bytes instead of 16"),
    ],
)
def test_a_wrong_answer_is_a_tracker_error(answer: Any, reason: str) -> None:  # noqa: ANN401
    """In words."""
    with FakeUdpTracker(answer) as tracker:
        assert reason in str(refusal(tracker.url, config=Config()))


def test_nothing_listens() -> None:
    """The system says so, and nobody waits 15 s."""
    assert str(refusal(f"udp://127.0.0.1:{closed_port()}")) == "connection refused: nothing listens there"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("udp://127.0.0.1:9/admin", "must be at /announce"),
        ("udp://localhost:9/?a=/announce", "must be at /announce"),
        ("udp://127.0.0.1", "no port"),
        ("udp://:6969", "no host"),
    ],
)
def test_what_is_no_tracker_is_not_asked(url: str, reason: str) -> None:
    """Nothing that a torrent chooses is sent to services on this machine."""
    assert reason in str(refusal(url))


def test_an_unknown_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""

    def nobody(*_arguments: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert str(refusal("udp://tracker.example:6969")) == "its host name is not known"
    assert client("udp://tracker.example:6969").families() == (None,)


# --- scrape -----------------------------------------------------------------------------------------------


def test_a_scrape_asks_for_74_torrents_at_a_time() -> None:
    """And gives the numbers of all, in the order of the answer: seeders, completed, leechers."""
    hashes = [bytes([number]) * 20 for number in range(100)]
    with FakeUdpTracker() as tracker:
        counts = client(tracker.url).scrape(hashes)
    assert tracker.actions == [0, 2, 2]
    assert [len(datagram) for datagram in tracker.seen[1:]] == [16 + 74 * 20, 16 + 26 * 20]
    assert counts[hashes[3]] == ScrapeCounts(seeders=30, completed=31, leechers=32)
    assert counts[hashes[99]] == ScrapeCounts(seeders=250, completed=251, leechers=252)
