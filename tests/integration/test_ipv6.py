"""Our client and libtorrent over IPv6 alone, both ways."""

import socket
from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Peer,
    free_port,
    has_everything,
    libtorrent_leech,
    libtorrent_seeder,
    make_torrent,
    wait_until_ready,
)
from tests.support import payload, running_client, running_command

TIMEOUT = 30.0  # seconds


@pytest.fixture(autouse=True)
def needs_ipv6() -> None:
    """Look for an address of this machine that is IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 on its loopback interface")


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of one file with an odd last piece."""
    return make_torrent(tmp_path, payload(1_000_003), 32768)


@pytest.mark.parametrize("encryption", ["", "rc4"])
def test_downloads_over_ipv6(encryption: str, torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """From an address in brackets, which is how it is shown, too."""
    with (
        libtorrent_seeder(tmp_path, torrent, host="::1", encryption=encryption) as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", f"[::1]:{peer.port}") as client,
    ):
        assert client.wait(TIMEOUT) == 0, client.log_tail()
    torrent.assert_content_in(downloads)
    addresses = {one["address"] for report in client.reports() for one in report["peers"]}
    assert addresses <= {f"[::1]:{peer.port}"}


def test_a_name_with_both_kinds_of_address_is_dialled_at_the_one_that_answers(
    torrent: MadeTorrent, tmp_path: Path, downloads: Path
) -> None:
    """`localhost` is both, and the seeder listens on one of them only."""
    families = {family for family, *_ in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}
    for host in ("127.0.0.1", "::1") if socket.AF_INET6 in families else ("127.0.0.1",):
        target = downloads / host.strip(":")
        with (
            libtorrent_seeder(tmp_path, torrent, host=host) as peer,
            running_client(tmp_path, torrent.path, target, "--peer", f"localhost:{peer.port}") as client,
        ):
            assert client.wait(TIMEOUT) == 0, client.log_tail()
        torrent.assert_content_in(target)


def test_seeds_over_ipv6(torrent: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """One port for both kinds of address; libtorrent calls on ::1."""
    port = free_port()
    data = torrent.directory / torrent.name
    with running_command(tmp_path, "seed", torrent.path, "--data", data, "--port", str(port)) as client:
        ours = Peer("our client", "::1", port, client.process, client.log)
        wait_until_ready(ours, lambda: has_everything(ours, torrent))
        libtorrent_leech(tmp_path, torrent, downloads, [ours.address], host="::1")
    torrent.assert_content_in(downloads)
    addresses = {one["address"] for report in client.reports() for one in report["peers"] if one["uploaded"]}
    assert all(address.startswith("[::1]:") for address in addresses)
