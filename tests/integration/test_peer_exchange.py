"""Peers that know only one other find the third through it: A --> B <-- C, and then A --> C, by peer exchange alone.

The seed is slow and B is not complete, so that all three have reason to stay connected.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.fake_peer import FakePeer, FakeServer, fake_id
from tests.integration.real_peers import MadeTorrent, libtorrent_exchanging, libtorrent_seeder, make_torrent
from tests.support import ClientProcess, payload, running_client, running_command, wait_until
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import RESERVED_EXTENSIONS, Extended, reserved_bits
from torrent_client.protocol.pex import PexContact, PexMessage
from torrent_client.tracker_client import PeerAddress

SLOW = 20_000  # bytes per second
PIECE_LENGTH = 16_384
FOUND_WITHIN = 30.0  # seconds; libtorrent tells at once, we two seconds after a handshake, both then once a minute


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent that takes minutes at the seed's speed."""
    return make_torrent(tmp_path, payload(4_000_000), PIECE_LENGTH)


def sources(client: ClientProcess) -> dict[int, str]:
    """Return where the client has each of its peers from, by the ports of their addresses."""
    reports = client.reports()
    peers = reports[-1]["peers"] if reports else []
    return {int(peer["address"].rpartition(":")[2]): peer["source"] for peer in peers}


def ours(tmp_path: Path, name: str, torrent: MadeTorrent, *options: str) -> AbstractContextManager[ClientProcess]:
    """Run our client, as if on a machine of its own."""
    home = tmp_path / name
    home.mkdir()
    return running_client(home, torrent.path, home / "out", "--port", "0", *options)


def our_seed(tmp_path: Path, torrent: MadeTorrent) -> AbstractContextManager[ClientProcess]:
    """Seed slowly with our client, as if on a machine of its own."""
    home = tmp_path / "seed"
    home.mkdir()
    data = torrent.directory / torrent.name
    return running_command(home, "seed", torrent.path, "--data", data, "--port", "0", "--max-upload-rate", str(SLOW))


def port_of(client: ClientProcess) -> int:
    """Return the port that our client listens on, as it tells its user."""
    marker = "listening on port "

    def told() -> str:
        return client.log.read_text().partition(marker)[2].partition("\n")[0]

    wait_until(lambda: told().isdigit(), 10, "a port told")
    return int(told())


def test_we_find_a_peer_that_libtorrent_tells_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It is shown where the peer came from."""
    with (
        libtorrent_seeder(tmp_path, torrent, upload_limit=SLOW) as seed,
        libtorrent_exchanging(tmp_path, torrent, [seed.address]) as middle,
        ours(tmp_path, "a", torrent, "--peer", middle.address) as client,
    ):
        wait_until(lambda: sources(client).get(seed.port) == "pex", FOUND_WITHIN, "the seed found")
        assert sources(client)[middle.port] == "given"


def clients(client: ClientProcess) -> str:
    """Return the names of the client's peers."""
    reports = client.reports()
    return " ".join(peer["client"] for peer in reports[-1]["peers"]) if reports else ""


def test_libtorrent_finds_a_peer_that_we_tell_of(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It has nobody else to hear of it from; the seed is ours, too, and sees who calls."""
    with (
        our_seed(tmp_path, torrent) as seed,
        ours(tmp_path, "b", torrent, "--peer", f"127.0.0.1:{port_of(seed)}") as middle,
        libtorrent_exchanging(tmp_path, torrent, [f"127.0.0.1:{port_of(middle)}"]),
    ):
        wait_until(lambda: "libtorrent" in clients(seed), FOUND_WITHIN, "libtorrent at the seed")


def telling_of(address: str, torrent: MadeTorrent) -> Callable[[FakePeer], None]:
    """Return the script of a peer that has nothing, neither pieces nor metadata, and tells of another peer."""
    host, _, port = address.rpartition(":")

    def script(peer: FakePeer) -> None:
        peer.shake_hands(torrent.info_hash, fake_id("teller"), reserved_bits(RESERVED_EXTENSIONS))
        hello = ExtendedHandshake.decode(peer.expect(Extended).payload)
        if number := hello.extensions.get("ut_pex"):
            peer.send(Extended(number, PexMessage((PexContact(host, int(port)),)).encode()))
        peer.read_until_gone()

    return script


def magnet_client(tmp_path: Path, torrent: MadeTorrent, teller: PeerAddress) -> AbstractContextManager[ClientProcess]:
    """Run our client on a magnet link that names one peer."""
    link = f"magnet:?xt=urn:btih:{torrent.info_hash.hex()}&x.pe={teller}"
    return running_command(tmp_path, link, "-o", tmp_path / "out", "--port", "0")


def test_a_magnet_link_needs_no_more_than_a_peer_that_knows_another(tmp_path: Path, torrent: MadeTorrent) -> None:
    """The one in the link has not even the metadata."""
    with (
        libtorrent_seeder(tmp_path, torrent) as seed,
        FakeServer(telling_of(seed.address, torrent)) as teller,
        magnet_client(tmp_path, torrent, teller.address) as client,
    ):
        assert client.wait(FOUND_WITHIN) == 0
    torrent.assert_content_in(tmp_path / "out")


def test_a_private_torrent_forgets_whom_it_heard_of_before_it_was_known_to_be_private(
    tmp_path: Path, torrent: MadeTorrent
) -> None:
    """The metadata says so, and it came from a peer that we should not have asked; from there on BEP 27 holds.

    The seed is ours, since libtorrent gives nobody the metadata of a private torrent.
    """
    secret = torrent.as_private()
    with (
        our_seed(tmp_path, secret) as seed,
        FakeServer(telling_of(f"127.0.0.1:{port_of(seed)}", secret)) as teller,
        magnet_client(tmp_path, secret, teller.address) as client,
    ):
        wait_until(lambda: states(client).count("downloading") >= 3, FOUND_WITHIN, "the second stage")
        report = client.last_report()
        assert (report["known_peers"], report["downloaded"]) == (1, 0)


def states(client: ClientProcess) -> list[str]:
    """Return the client's state in each of its reports."""
    return [report["state"] for report in client.reports()]
