"""Finding peers on our own network: the bytes, the limits, and real multicast on the loopback."""

import secrets
import socket
from collections.abc import Sequence
from typing import cast

import pytest

from tests.support import FakeClock, wait_until
from torrent_client import local_discovery
from torrent_client.config import Config
from torrent_client.errors import ProtocolViolation
from torrent_client.local_discovery import HEARD_A_SECOND, PEERS_COUNTED, ROUND_INTERVAL, LocalDiscovery
from torrent_client.protocol.local_announce import MAX_DATAGRAM, MAX_INFO_HASHES, LocalAnnounce
from torrent_client.tracker_client import PeerAddress

ONE, TWO = b"\x01" * 20, b"\xab" * 20
LOOPBACK = Config(lsd_interfaces=("lo",))
GROUP = "239.192.152.143:6771"
MESSAGE = (
    b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n"
    b"Infohash: 0101010101010101010101010101010101010101\r\n"
    b"Infohash: abababababababababababababababababababab\r\ncookie: me\r\n\r\n\r\n"
)

# --- the bytes --------------------------------------------------------------------------------------------


def test_a_message_has_the_form_of_bep_14() -> None:
    """A header for each torrent, and two empty lines in the end."""
    assert LocalAnnounce(6881, (ONE, TWO), "me").encode(GROUP) == MESSAGE
    assert LocalAnnounce.decode(MESSAGE) == LocalAnnounce(6881, (ONE, TWO), "me")


@pytest.mark.parametrize(
    "data",
    [
        MESSAGE.replace(b"Port", b"PORT").replace(b"Infohash", b"infohash").replace(b"ab", b"AB"),
        MESSAGE.replace(b"cookie", b"X-New: thing\r\ncookie"),
        MESSAGE.removesuffix(b"\r\n\r\n"),
    ],
)
def test_other_clients_may_write_it_otherwise(data: bytes) -> None:
    """Headers in any case, unknown ones, and fewer empty lines."""
    assert LocalAnnounce.decode(data) == LocalAnnounce(6881, (ONE, TWO), "me")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 50,
        MESSAGE.replace(b"BT-SEARCH", b"M-SEARCH"),
        MESSAGE.replace(b"Port: 6881\r\n", b""),
        MESSAGE.replace(b"6881", b"0"),
        MESSAGE.replace(b"6881", b"65536"),
        MESSAGE.replace(b"6881", b"-1"),
        MESSAGE.replace(b"Port", b"Port: 1\r\nPort"),
        MESSAGE.replace(b"abab", b"ab b"),
        MESSAGE.replace(b"abab", b"ab"),
        b"BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\n\r\n\r\n",
        MESSAGE.replace(b"me", b"x" * MAX_DATAGRAM),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """With the one documented error, which is logged and forgotten."""
    with pytest.raises(ProtocolViolation, match="local discovery"):
        LocalAnnounce.decode(data)


def test_a_full_message_fits_into_one_datagram() -> None:
    """BEP 14: 1,400 bytes, so that it is not cut into fragments; the longer group is that of IPv6."""
    full = LocalAnnounce(65_535, tuple(bytes([number]) * 20 for number in range(MAX_INFO_HASHES)), "12345678")
    assert len(full.encode("[ff15::efc0:988f]:6771")) <= MAX_DATAGRAM


# --- who is told, and who is believed ---------------------------------------------------------------------


class FakeChannel:
    """Stands for a group; keeps what is sent."""

    def __init__(self, networks: Sequence[str] = ("eth0",)) -> None:
        self.sent: list[LocalAnnounce] = []
        self._networks = list(networks)

    def send(self, message: LocalAnnounce) -> list[str]:
        """Write it down."""
        self.sent.append(message)
        return self._networks


class Room:
    """A local discovery without sockets, and what it gave."""

    def __init__(self, clock: FakeClock, networks: Sequence[str] = ("eth0",)) -> None:
        self.clock = clock
        self.found: list[PeerAddress] = []
        self.finder = LocalDiscovery(6881, Config(), clock)
        self.channel = FakeChannel(networks)
        self.finder._channels = [cast(local_discovery._Channel, self.channel)]

    def tick(self, seconds: float = 1.0) -> list[LocalAnnounce]:
        """Let time pass, and return what was sent then."""
        self.clock.advance(seconds)
        self.finder.tick(self.clock())
        sent, self.channel.sent = self.channel.sent, []
        return sent

    def announce(self, *info_hashes: bytes) -> None:
        """Announce torrents."""
        for info_hash in info_hashes:
            self.finder.announce(info_hash, self.found.extend)

    def hear(self, *info_hashes: bytes, host: str = "192.0.2.1", cookie: str = "other") -> None:
        """Let somebody announce torrents."""
        self.finder.hear(LocalAnnounce(51_413, info_hashes, cookie).encode(GROUP), host)


@pytest.fixture
def room(clock: FakeClock) -> Room:
    """Return one that has announced nothing."""
    return Room(clock)


def test_torrents_that_begin_together_share_a_message(room: Room) -> None:
    """And the next one waits until a minute has passed (BEP 14)."""
    assert room.tick() == []
    room.announce(ONE, TWO)
    (message,) = room.tick()
    assert (message.port, message.info_hashes) == (6881, (ONE, TWO))
    room.announce(ONE)
    assert room.tick(ROUND_INTERVAL - 1) == []
    assert [message.info_hashes for message in room.tick()] == [(ONE,)]
    assert room.tick(10 * ROUND_INTERVAL) == []


def test_many_torrents_take_turns(room: Room) -> None:
    """As many as fit in each message, the rest a minute later, none twice."""
    many = [number.to_bytes(20, "big") for number in range(MAX_INFO_HASHES + 5)]
    room.announce(*many)
    assert [message.info_hashes for message in room.tick()] == [tuple(many[:MAX_INFO_HASHES])]
    assert [message.info_hashes for message in room.tick(ROUND_INTERVAL)] == [tuple(many[MAX_INFO_HASHES:])]


def test_peers_of_torrents_that_we_announce_are_given(room: Room) -> None:
    """At the address that the datagram came from and the port that it names; others are nobody's business."""
    room.announce(ONE)
    room.hear(TWO)
    room.hear(TWO, ONE, ONE)
    room.hear(ONE, host="fe80::1%eth0")
    assert room.found == [PeerAddress("192.0.2.1", 51_413), PeerAddress("fe80::1%eth0", 51_413)]


def test_our_own_announcements_are_known_by_their_cookie(room: Room) -> None:
    """Multicast comes back to its sender."""
    room.announce(ONE)
    (ours,) = room.tick()
    room.hear(ONE, cookie=ours.cookie)
    assert room.found == []
    assert ours.cookie != Room(room.clock).finder._cookie


def test_nonsense_is_passed_over(room: Room) -> None:
    """Anybody on the network may send anything."""
    room.announce(ONE)
    room.finder.hear(b"nonsense", "192.0.2.1")
    assert room.found == []


def test_a_torrent_that_is_forgotten_is_neither_announced_nor_heard_of(room: Room) -> None:
    """It has stopped, or has turned out to be private."""
    room.announce(ONE)
    room.finder.forget(ONE)
    room.finder.forget(TWO)
    room.hear(ONE)
    assert room.tick() == []
    assert room.found == []


def test_the_state_says_what_came_of_it(room: Room) -> None:
    """For the display."""
    assert room.finder.state(ONE) == "waiting to announce, 0 peers heard"
    room.announce(ONE)
    room.hear(ONE)
    assert room.finder.state(ONE) == "waiting to announce, 1 peer heard"
    room.tick()
    room.announce(ONE)
    room.tick(ROUND_INTERVAL)
    room.hear(ONE, host="192.0.2.2")
    room.hear(ONE)
    assert room.finder.state(ONE) == "announced to 1 network, 2 peers heard"


def test_a_machine_without_multicast_says_so(clock: FakeClock) -> None:
    """Its networks take no datagram to a group."""
    room = Room(clock, networks=())
    room.announce(ONE)
    room.tick()
    assert room.finder.state(ONE) == "no network takes multicast, 0 peers heard"


def test_a_flood_of_addresses_is_not_remembered(room: Room) -> None:
    """What is counted for the display has an end."""
    room.announce(ONE)
    for number in range(PEERS_COUNTED + 10):
        room.hear(ONE, host=str(number))
    assert room.finder.state(ONE) == f"waiting to announce, {PEERS_COUNTED} peers heard"


def test_where_the_port_is_taken_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who does not share it, say; the rest of the client does not care."""

    def refuse(*_arguments: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(local_discovery, "_Channel", refuse)
    finder = LocalDiscovery(6881, Config())
    finder.start()
    finder.announce(ONE, lambda _peers: None)
    assert finder.state(ONE) == "off: Address already in use"
    finder.stop()


def test_nothing_goes_past_a_proxy() -> None:
    """It carries no multicast; the port that peers could call is not told either."""
    finder = LocalDiscovery(0, Config(proxy="socks5://127.0.0.1:9"))
    finder.start()
    finder.announce(ONE, lambda _peers: None)
    assert finder.state(ONE) == "off: the proxy carries no multicast"
    finder.stop()


# --- real multicast ---------------------------------------------------------------------------------------


def loopback_multicast() -> bool:
    """Tell whether this machine sends multicast to itself."""
    finder = LocalDiscovery(6881, LOOPBACK)
    finder.start()
    finder.announce(ONE, lambda _peers: None)
    try:
        wait_until(lambda: "waiting" not in finder.state(ONE), 5)
        return finder.state(ONE).startswith("announced")
    finally:
        finder.stop()


def test_two_clients_on_one_machine_hear_each_other() -> None:
    """Over the loopback, and only about the torrent that both have."""
    if not loopback_multicast():
        pytest.skip("no multicast on the loopback of this machine")
    shared, other = secrets.token_bytes(20), secrets.token_bytes(20)
    found: list[PeerAddress] = []
    listener, caller = LocalDiscovery(1111, LOOPBACK), LocalDiscovery(2222, LOOPBACK)
    listener.start()
    caller.start()
    try:
        listener.announce(shared, found.extend)
        caller.announce(other, lambda _peers: None)
        caller.announce(shared, lambda _peers: None)
        wait_until(lambda: bool(found), 5, "an announcement heard")
        assert set(found) == {PeerAddress("127.0.0.1", 2222)}
    finally:
        listener.stop()
        caller.stop()


def test_a_flood_is_left_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of datagrams in a moment, only so many are read in a second; stopping does not wait for that."""
    if not loopback_multicast():
        pytest.skip("no multicast on the loopback of this machine")
    monkeypatch.setattr(local_discovery, "TICK", 5.0)
    shared = secrets.token_bytes(20)
    heard: list[PeerAddress] = []
    finder = LocalDiscovery(1111, LOOPBACK)
    finder.start()
    try:
        finder.announce(shared, heard.extend)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for port in range(1, 301):
                sock.sendto(LocalAnnounce(port, (shared,)).encode(GROUP), (local_discovery.IPV4_GROUP, 6771))
        ours = 2  # our own announcement, by IPv4 and IPv6: it may be read, too, and is nobody's
        wait_until(lambda: len(heard) >= HEARD_A_SECOND - ours, 4, "as many as may be")
    finally:
        finder.stop()
    assert len(heard) <= 2 * HEARD_A_SECOND
