"""The doctor calls peers: each kind of peer gives a line that fits, and an advice."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from tests.fake_peer import (
    LOOPBACK,
    FakePeer,
    FakeServer,
    black_hole,
    closed_port,
    fake_id,
    greet,
    seeder,
    torrent_of,
)
from tests.fake_proxy import SocksProxy
from tests.support import payload
from torrent_client.config import Config
from torrent_client.doctor.diagnosis import Finding, Outcome, Supply
from torrent_client.doctor.peer_probe import Contact, Patience, PeerProbe
from torrent_client.misbehaving_peers import BEHAVIOURS, Gallery
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.protocol.messages import (
    RESERVED_EXTENSIONS,
    Extended,
    Have,
    Interested,
    Request,
    Unchoke,
    reserved_bits,
)
from torrent_client.protocol.metadata import METADATA_EXTENSION, MetadataKind, MetadataMessage
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

PIECE = 64 * 1024
DATA = payload(5 * PIECE)
TORRENT = torrent_of(DATA, piece_length=PIECE)
ALL = (1 << TORRENT.piece_count) - 1
OUR_ID = b"-PC0000-us0000000000"
QUICK = Patience(connect=1.5, handshake=1.5, pieces=1.5, unchoke=1.5, block=1.5)  # seconds that a busy machine has


def call(
    address: PeerAddress, torrent: TorrentFile | None = TORRENT, encryption: str = "off", *, whole: bool = True
) -> Finding:
    """Return what the doctor says of a peer."""
    config = Config(encryption=encryption)
    contact = Contact(address, "given")
    return PeerProbe(contact, TORRENT.info_hash, OUR_ID, torrent, config, QUICK, fetches_whole=whole).run()


@contextmanager
def gallery(name: str) -> Iterator[PeerAddress]:
    """Run a misbehaving peer."""

    def read_block(index: int, begin: int, length: int) -> bytes:
        start = index * PIECE + begin
        return DATA[start : start + length]

    peer = Gallery(TORRENT, read_block, BEHAVIOURS[name], rng=Random(name))
    peer.start()
    try:
        yield PeerAddress(LOOPBACK, peer.port)
    finally:
        peer.stop()


EXPECTED = {
    "good": (Outcome.OK, "gave a piece", "gave a good piece"),
    "corrupt": (Outcome.BAD, "corrupt", "gave a corrupt piece"),
    "stall": (Outcome.BAD, "stalled", "sent no block in 2 s"),
    "choke": (Outcome.OK, "gave a piece", "(and choked us again"),
    "liar": (Outcome.BAD, "rejected all", "rejects every request"),
    "flood": (Outcome.BAD, "flooded us", "sends what nobody asked for"),
    "garbage": (Outcome.BAD, "broke the protocol", "breaks the protocol: a message of 4,294,967,295 bytes"),
    "silent": (Outcome.BAD, "silent", "takes the call, and never answers"),
    "impostor": (Outcome.BAD, "with another torrent", "answers for another torrent"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_peer_of_the_gallery_gives_a_fitting_line(name: str) -> None:
    outcome, result, words = EXPECTED[name]
    with gallery(name) as address:
        finding = call(address)
    assert (finding.outcome, finding.facts["result"]) == (outcome, result), finding
    assert words in finding.text
    assert bool(finding.advice) is (outcome is not Outcome.OK)
    assert finding.seconds is not None


def test_the_slow_peer_stalls_or_gives() -> None:
    """A block takes it 16 s on average: luck decides which of the two is seen."""
    with gallery("slow") as address:
        finding = call(address, whole=False)
    assert finding.facts["result"] in ("stalled", "gave a block")
    assert finding.supply in (Supply.STALLS, Supply.GIVES)


def test_every_peer_of_the_gallery_is_expected() -> None:
    assert {*EXPECTED, "slow"} == set(BEHAVIOURS)


def test_a_seeder_supplies_all_pieces_and_a_block_of_it_may_do() -> None:
    with FakeServer(seeder(TORRENT, DATA)) as server:
        whole, block = call(server.address), call(server.address, whole=False)
    assert (whole.supply, whole.pieces, whole.facts["has"]) == (Supply.GIVES, ALL, 100)
    assert (block.supply, block.pieces, block.facts["result"]) == (Supply.GIVES, ALL, "gave a block")
    assert "gave 16.0 KiB" in block.text
    assert [request.begin for request in server.peers[1].requests()] == [0]


def test_a_peer_that_never_unchokes_waits_and_keeps_its_pieces() -> None:
    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT, pieces=[0, 2])
        peer.read_until_gone()

    with FakeServer(script) as server:
        finding = call(server.address)
    assert finding.facts["result"] == "choked us"
    assert "has 40 % of the pieces, and has not unchoked us" in finding.text
    assert (finding.outcome, finding.supply, finding.pieces) == (Outcome.NOTE, Supply.WAITS, 0b101)


def test_a_peer_without_pieces_has_nothing_and_is_not_asked() -> None:
    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash)
        peer.read_until_gone()

    with FakeServer(script) as server:
        finding = call(server.address)
    assert finding.facts["result"] == "has nothing"
    assert finding.supply is Supply.NOTHING
    assert not [message for message in server.transcript if isinstance(message, Interested)]


def test_pieces_told_one_by_one_count() -> None:
    """As a super-seeder tells them."""

    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash)
        peer.send(Have(1))
        peer.expect(Interested)
        peer.send(Unchoke())
        peer.expect_many(Request, PIECE // 16384)

    with FakeServer(script) as server:
        finding = call(server.address)
    assert finding.facts["result"] == "hung up"
    assert (finding.supply, finding.pieces) == (Supply.WAITS, 0b10)
    assert {request.piece_index for request in server.requests} == {1}


def test_nobody_listening_is_refused() -> None:
    finding = call(PeerAddress(LOOPBACK, closed_port()))
    assert (finding.facts["result"], finding.facts["connected"]) == ("refused", False)


def test_an_address_that_swallows_calls_times_out() -> None:
    with black_hole() as address:
        assert call(address).facts["result"] == "timed out"


def test_a_peer_that_hangs_up_on_the_handshake_is_told_from_a_silent_one() -> None:
    with FakeServer(lambda _peer: None) as server:
        finding = call(server.address)
    assert finding.facts["result"] == "hung up"
    assert "--encryption" in finding.advice


def test_who_insists_on_encryption_is_told_that_it_may_be_that() -> None:
    with FakeServer(lambda _peer: None) as server:
        finding = call(server.address, encryption="require")
    assert finding.facts["result"] == "hung up"
    assert "--encryption require" in finding.advice


def test_a_proxy_that_cannot_get_there_is_not_taken_for_the_peer() -> None:
    with SocksProxy(answer=5) as proxy:
        config = Config(proxy=proxy.url())
        probe = PeerProbe(Contact(PeerAddress("192.0.2.1", 1), "given"), TORRENT.info_hash, OUR_ID, TORRENT, config)
        finding = probe.run()
    assert finding.facts["result"] == "not reached"
    assert finding.text.startswith("the proxy cannot connect to it")


def test_ourselves_is_no_trouble() -> None:
    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash, OUR_ID)

    with FakeServer(script) as server:
        assert call(server.address).outcome is Outcome.OFF


def test_something_else_than_a_peer_is_told() -> None:
    with FakeServer(lambda peer: peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)) as server:
        finding = call(server.address)
    assert finding.facts["result"] == "no peer"
    assert "HTTP/1.1" in finding.text


def test_a_name_that_writes_escape_codes_does_not_reach_the_terminal() -> None:
    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash, fake_id("x"), reserved_bits(RESERVED_EXTENSIONS))
        peer.send(Extended(EXTENDED_HANDSHAKE_ID, b"d1:md11:ut_metadatai1ee1:v9:\x1b[31mevile"))
        peer.read_until_gone()

    with FakeServer(script) as server:
        finding = call(server.address)
    assert finding.text.isprintable()
    assert "evil" in finding.text


def test_closing_ends_a_call_and_what_was_seen_is_said() -> None:
    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT)
        peer.expect(Interested)
        probe.close()
        peer.read_until_gone()

    with FakeServer(script) as server:
        patience = Patience(pieces=60, unchoke=60)
        probe = PeerProbe(Contact(server.address, "dht"), TORRENT.info_hash, OUR_ID, TORRENT, Config(), patience)
        finding = probe.run()
    assert finding.facts["result"] == "choked us"
    assert finding.facts["source"] == "dht"


# --- magnet links -----------------------------------------------------------------------------------------


def metadata_script(size: int | None, info: bytes = TORRENT.info) -> object:
    """Return a peer that gives metadata, or none if it says no size."""

    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash, reserved=reserved_bits(RESERVED_EXTENSIONS))
        hello = ExtendedHandshake({METADATA_EXTENSION: 3}, client="Fake 1.0", metadata_size=size)
        peer.send(Extended(EXTENDED_HANDSHAKE_ID, hello.encode()))
        peer.expect(Extended)  # the other hello
        request = MetadataMessage.decode(bytes(peer.expect(Extended).payload))
        assert request
        answer = MetadataMessage(MetadataKind.DATA, request.piece, total_size=len(info), data=info)
        peer.send(Extended(1, answer.encode()))
        peer.read_until_gone()

    return script


def test_of_a_magnet_link_the_doctor_says_who_has_the_metadata() -> None:
    with FakeServer(metadata_script(len(TORRENT.info))) as server:  # type: ignore[arg-type]
        finding = call(server.address, None)
    assert finding.text.startswith("Fake 1.0: gave us the metadata")
    assert (finding.supply, finding.pieces) == (Supply.GIVES, 1)


def test_a_peer_without_the_metadata_is_told() -> None:
    with FakeServer(metadata_script(None)) as server:  # type: ignore[arg-type]
        finding = call(server.address, None)
    assert finding.facts["result"] == "without metadata"
    assert finding.supply is Supply.NOTHING


def test_metadata_of_another_torrent_breaks_the_protocol() -> None:
    with FakeServer(metadata_script(5, b"d1:xe")) as server:  # type: ignore[arg-type]
        assert call(server.address, None).facts["result"] == "broke the protocol"


def test_a_name_that_is_none_cannot_be_called() -> None:
    finding = call(PeerAddress("a" * 300, 6881))
    assert finding.facts["result"] == "not reached"
