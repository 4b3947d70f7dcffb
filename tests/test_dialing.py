"""Connections to peers: every address of a host is tried, within one time-out, and each socket can be shut down."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.fake_peer import LOOPBACK, black_hole, closed_port
from torrent_client.config import Config
from torrent_client.dialing import open_peer_socket
from torrent_client.errors import PeerDisconnected
from torrent_client.tracker_client import PeerAddress

CONFIG = Config(connect_timeout=5.0)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Return a listening socket on IPv4."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def knows(monkeypatch: pytest.MonkeyPatch, *targets: PeerAddress) -> None:
    """Make every name lead to these addresses, in this order."""
    real = socket.getaddrinfo

    def looked_up(_host: str, _port: int, **more: Any) -> list[Any]:  # noqa: ANN401  # passed on
        return [real(target.host, target.port, **more)[0] for target in targets]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


def test_the_second_address_is_tried_when_the_first_refuses(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> None:
    """A host with IPv6 and IPv4 whose peer listens on IPv4 alone is reached."""
    port = server.getsockname()[1]
    knows(monkeypatch, PeerAddress(LOOPBACK, closed_port()), PeerAddress(LOOPBACK, port))
    told: list[socket.socket] = []
    with closing(open_peer_socket(PeerAddress("peer.example", 1), CONFIG, told.append)) as sock:
        assert sock.getpeername() == (LOOPBACK, port)
    assert told[-1] is sock
    assert len(told) == 2


def test_an_address_that_never_answers_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> None:
    """Each gets its share of the one time-out."""
    port = server.getsockname()[1]
    with black_hole() as dead:
        knows(monkeypatch, dead, PeerAddress(LOOPBACK, port))
        config = Config(connect_timeout=1.0)
        with closing(open_peer_socket(PeerAddress("peer.example", 1), config, lambda _: None)) as sock:
            assert sock.getpeername() == (LOOPBACK, port)


def test_ipv6_alone_is_enough() -> None:
    """An address in brackets, and a name that leads to it, are dialled."""
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server, closing(open_peer_socket(PeerAddress("::1", server.getsockname()[1]), CONFIG, lambda _: None)) as sock:
        assert sock.family == socket.AF_INET6


def test_the_error_is_that_of_the_last_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no socket is left open."""
    knows(monkeypatch, PeerAddress(LOOPBACK, closed_port()), PeerAddress(LOOPBACK, closed_port()))
    told: list[socket.socket] = []
    with pytest.raises(PeerDisconnected, match="cannot connect: Connection refused"):
        open_peer_socket(PeerAddress("peer.example", 1), CONFIG, told.append)
    assert [sock.fileno() for sock in told] == [-1, -1]


def test_who_is_told_may_give_up(server: socket.socket) -> None:
    """Then nothing is dialled."""

    def give_up(sock: socket.socket) -> None:
        sock.close()
        raise PeerDisconnected("closing")

    with pytest.raises(PeerDisconnected, match="closing"):
        open_peer_socket(PeerAddress(LOOPBACK, server.getsockname()[1]), CONFIG, give_up)
    server.settimeout(0)
    with pytest.raises(BlockingIOError):
        server.accept()
