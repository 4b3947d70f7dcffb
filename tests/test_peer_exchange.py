"""Who is told of whom, how often, and what is believed; the clock is moved by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import cast

import pytest

from tests.support import FakeClock
from torrent_client.config import Config
from torrent_client.errors import ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.peer_connection import PeerConnection
from torrent_client.peer_exchange import FIRST_DELAY, MAX_TAKEN, MAX_TOLD, MAX_UNTIMELY, SEND_INTERVAL, PeerExchange
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import Extended, Handshake, Message
from torrent_client.protocol.pex import PexContact, PexFlags, PexMessage
from torrent_client.tracker_client import PeerAddress

THEIR_NUMBER = 7  # under which the peers take `ut_pex`


@dataclass(eq=False)
class FakeConnection:
    """Stands for a PeerConnection; keeps what is sent."""

    address: PeerAddress
    outgoing: bool
    remote: Handshake
    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        """Write it down."""
        self.sent.append(message)


class Room:
    """A swarm, as far as peer exchange sees it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.peers: list[Peer] = []
        self.complete: set[Peer] = set()
        self.heard: list[tuple[Sequence[PeerAddress], str]] = []
        self.exchange = PeerExchange(
            lambda: self.peers,
            lambda addresses, source: self.heard.append((addresses, source)),
            clock,
            Random(1),
            self.complete.__contains__,
        )

    def join(
        self,
        host: str,
        *,
        outgoing: bool = True,
        hello: ExtendedHandshake | None = None,
        speaks: bool = True,
    ) -> Peer:
        """Let a peer in, from port 6881 if we dialled it; it speaks peer exchange unless told otherwise."""
        extensions = {"ut_pex": THEIR_NUMBER} if speaks else {}
        address = PeerAddress(host, 6881 if outgoing else 50_000)
        connection = FakeConnection(address, outgoing, Handshake(b"h" * 20, b"-XX0001-%012d" % len(self.peers)))
        peer = Peer(cast(PeerConnection, connection), "given", Config())
        peer.introduce(hello or ExtendedHandshake(extensions))
        self.peers.append(peer)
        if speaks:
            self.exchange.greeted(peer)
        return peer

    def leave(self, peer: Peer) -> None:
        """Let a peer go."""
        self.peers.remove(peer)
        self.exchange.left(peer)

    def tick(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.exchange.tick(self.clock())

    def told(self, peer: Peer) -> list[PexMessage]:
        """Return what a peer was told since it was asked last."""
        connection = cast(FakeConnection, peer.connection)
        messages, connection.sent = connection.sent, []
        assert all(isinstance(message, Extended) and message.extension_id == THEIR_NUMBER for message in messages)
        return [PexMessage.decode(message.payload) for message in messages if isinstance(message, Extended)]

    def say(self, peer: Peer, *hosts: str, port: int = 6881) -> None:
        """Let a peer tell of others."""
        self.exchange.received(peer, PexMessage(tuple(PexContact(host, port) for host in hosts)).encode())


@pytest.fixture
def room(clock: FakeClock) -> Room:
    """Return a swarm with nobody in it."""
    return Room(clock)


def hosts(contacts: Sequence[PexContact]) -> list[str]:
    """Return who is told of, in order."""
    return sorted(contact.host for contact in contacts)


# --- telling ----------------------------------------------------------------------------------------------


def test_peers_are_told_of_each_other_and_not_of_themselves(room: Room) -> None:
    """Soon after they came, where they can be reached."""
    one, two, three = (room.join(f"192.0.2.{number}") for number in (1, 2, 3))
    room.tick(FIRST_DELAY - 1)
    assert room.told(one) == []
    room.tick(1)
    assert [hosts(message.added) for message in room.told(one)] == [["192.0.2.2", "192.0.2.3"]]
    assert [hosts(message.added) for message in room.told(two)] == [["192.0.2.1", "192.0.2.3"]]
    assert [message.dropped for message in room.told(three)] == [()]


def test_after_that_only_changes_are_told_once_a_minute(room: Room) -> None:
    """Who came and went in between is not mentioned, and a minute without changes brings nothing."""
    one, two = room.join("192.0.2.1"), room.join("192.0.2.2")
    room.tick(10)
    assert len(room.told(one)) == 1
    room.leave(two)
    room.join("192.0.2.3")
    room.leave(room.join("192.0.2.4"))
    room.tick(SEND_INTERVAL - 8)
    (message,) = room.told(one)
    assert (hosts(message.added), hosts(message.dropped)) == (["192.0.2.3"], ["192.0.2.2"])
    room.tick(3 * SEND_INTERVAL)
    assert room.told(one) == []
    room.join("192.0.2.5")
    room.tick(1)
    assert [hosts(message.added) for message in room.told(one)] == [["192.0.2.5"]]


def test_no_message_has_more_than_fifty_of_a_kind(room: Room) -> None:
    """The rest comes a minute later, nobody twice, and the same for those who have gone (BEP 11)."""
    one = room.join("192.0.2.1")
    others = [room.join(f"198.51.100.{number}") for number in range(1, 121)]
    room.tick(SEND_INTERVAL * 3)
    messages = room.told(one)
    assert [len(message.added) for message in messages] == [MAX_TOLD, MAX_TOLD, 20]
    assert len({contact for message in messages for contact in message.added}) == 120
    for other in others:
        room.leave(other)
    room.tick(SEND_INTERVAL * 3)
    assert [len(message.dropped) for message in room.told(one)] == [MAX_TOLD, MAX_TOLD, 20]


def test_who_called_us_is_told_with_the_port_that_it_names(room: Room) -> None:
    """The port that it called from is nobody's business; who names none cannot be dialled."""
    one = room.join("192.0.2.1")
    room.join("192.0.2.2", outgoing=False, hello=ExtendedHandshake(port=51_413))
    room.join("192.0.2.3", outgoing=False)
    room.tick(10)
    (message,) = room.told(one)
    assert message.added == (PexContact("192.0.2.2", 51_413),)


def test_flags_say_what_is_known_of_a_peer(room: Room) -> None:
    """Reached by us, a seed by its word or by its pieces, fond of encryption."""
    one = room.join("192.0.2.1")
    room.join("192.0.2.2", hello=ExtendedHandshake(upload_only=True))
    room.complete.add(room.join("192.0.2.3", outgoing=False, hello=ExtendedHandshake(port=1)))
    room.join("192.0.2.4", hello=ExtendedHandshake(prefers_encryption=True))
    room.tick(10)
    (message,) = room.told(one)
    assert {contact.host: contact.flags for contact in message.added} == {
        "192.0.2.2": PexFlags.REACHABLE | PexFlags.UPLOAD_ONLY,
        "192.0.2.3": PexFlags.UPLOAD_ONLY,
        "192.0.2.4": PexFlags.REACHABLE | PexFlags.PREFERS_ENCRYPTION,
    }


def test_who_does_not_speak_it_is_told_nothing_but_told_of(room: Room) -> None:
    """It is as good a peer as any other."""
    one, mute = room.join("192.0.2.1"), room.join("192.0.2.2", speaks=False)
    room.tick(10)
    assert room.told(mute) == []
    assert [hosts(message.added) for message in room.told(one)] == [["192.0.2.2"]]


def test_a_peer_that_switches_it_off_hears_no_more(room: Room) -> None:
    """It may say so in a later handshake (BEP 10)."""
    one = room.join("192.0.2.1")
    room.join("192.0.2.2")
    one.introduce(ExtendedHandshake(switched_off=frozenset({"ut_pex"})))
    room.tick(10)
    assert room.told(one) == []


def test_nobody_hears_of_what_lies_nearer_to_us_than_itself(room: Room) -> None:
    """Addresses of our network mean nothing on the internet, and those of this machine nothing on our network."""
    far, near, here = room.join("1.2.3.4"), room.join("10.0.0.2"), room.join("127.0.0.1")
    room.join("2606:4700::1")
    room.join("10.0.0.3")
    room.join("127.0.0.2")
    room.join("fe80::1")
    room.join("peer.example")
    room.tick(10)
    assert [hosts(message.added) for message in room.told(far)] == [["2606:4700::1"]]
    assert [hosts(message.added) for message in room.told(near)] == [["1.2.3.4", "10.0.0.3", "2606:4700::1"]]
    assert len(room.told(here)[0].added) == 5


# --- being told -------------------------------------------------------------------------------------------


def test_addresses_go_to_the_swarm(room: Room) -> None:
    """With the word for who said so."""
    room.say(room.join("192.0.2.1"), "192.0.2.2", "2001:db8::3")
    assert room.heard == [([PeerAddress("192.0.2.2", 6881), PeerAddress("2001:db8::3", 6881)], "pex")]


def test_who_goes_from_somewhere_else_is_no_news(room: Room) -> None:
    """It may be here still, or be dialled."""
    peer = room.join("192.0.2.1")
    room.exchange.received(peer, PexMessage(dropped=(PexContact("192.0.2.2", 6881),)).encode())
    assert room.heard == []


def test_a_message_a_minute_is_obeyed(room: Room) -> None:
    """Ten seconds less are forgiven: networks are not exact. What comes sooner is not even read."""
    peer = room.join("192.0.2.1")
    room.say(peer, "192.0.2.2")
    room.clock.advance(49)
    room.say(peer, "192.0.2.3")
    room.exchange.received(peer, b"nonsense")
    room.clock.advance(1)
    room.say(peer, "192.0.2.4")
    assert [addresses[0].host for addresses, _ in room.heard] == ["192.0.2.2", "192.0.2.4"]


def test_a_flood_ends_the_connection(room: Room) -> None:
    """Who goes on and on does not do so by mistake; another peer is not to blame for it."""
    peer, other = room.join("192.0.2.1"), room.join("192.0.2.2")
    for _ in range(1 + MAX_UNTIMELY):
        room.say(peer, "192.0.2.3")
        room.clock.advance(1)
    room.say(other, "192.0.2.3")
    with pytest.raises(ProtocolViolation, match="one message a minute"):
        room.say(peer, "192.0.2.3")


def test_of_one_message_only_so_much_is_taken(room: Room) -> None:
    """Nobody is to choose all whom we dial."""
    room.say(room.join("192.0.2.1"), *(f"198.51.{number}.1" for number in range(101, 101 + MAX_TAKEN + 20)))
    assert [len(addresses) for addresses, _ in room.heard] == [MAX_TAKEN]


def test_of_each_host_one_port_is_taken(room: Room) -> None:
    """Many ports of one host are how a swarm is sent to knock at a stranger's door; this machine is exempt."""
    contacts = tuple(PexContact("192.0.2.9", port) for port in range(1, 40))
    room.exchange.received(room.join("192.0.2.1"), PexMessage(contacts).encode())
    assert room.heard == [([PeerAddress("192.0.2.9", 1)], "pex")]
    contacts = tuple(PexContact("127.0.0.1", port) for port in range(1, 40))
    room.exchange.received(room.join("127.0.0.1"), PexMessage(contacts).encode())
    assert len(room.heard[1][0]) == 39


@pytest.mark.parametrize(
    ("teller", "believed"),
    [
        ("1.2.3.4", ["8.8.8.8"]),
        ("::ffff:1.2.3.4", ["8.8.8.8"]),
        ("10.0.0.1", ["8.8.8.8", "10.0.0.9"]),
        ("127.0.0.1", ["8.8.8.8", "10.0.0.9", "127.0.0.9", "::ffff:127.0.0.9"]),
        ("fe80::1%eth0", ["8.8.8.8"]),
        ("peer.example", ["8.8.8.8"]),
    ],
)
def test_strangers_do_not_make_us_dial_our_own_network(room: Room, teller: str, believed: list[str]) -> None:
    """Nor this machine, whichever way it is written, nor what is no single host."""
    told = ["8.8.8.8", "10.0.0.9", "127.0.0.9", "::ffff:127.0.0.9", "fe80::9", "224.0.0.1", "0.0.0.0", "::"]
    room.say(room.join(teller), *told)
    addresses, _ = room.heard[0]
    assert [ip_address(address.host) for address in addresses] == [ip_address(host) for host in believed]


def test_a_message_before_the_handshake_is_obeyed_too(room: Room) -> None:
    """We said that we understand it; the peer need not take any itself."""
    room.say(room.join("192.0.2.1", speaks=False), "192.0.2.2")
    assert len(room.heard) == 1


def test_port_zero_is_no_address(room: Room) -> None:
    """Nothing listens there."""
    room.say(room.join("192.0.2.1"), "192.0.2.2", port=0)
    assert room.heard == []


def test_who_comes_back_is_told_from_the_beginning(room: Room) -> None:
    """A new connection knows nothing."""
    one, _two = room.join("192.0.2.1"), room.join("192.0.2.2")
    room.tick(10)
    room.leave(one)
    again = room.join("192.0.2.1")
    room.tick(10)
    assert [hosts(message.added) for message in room.told(again)] == [["192.0.2.2"]]
