"""Opens a TCP connection to a peer: at whichever of its addresses answers, or through the proxy.

    host name --look-up--> IPv6, IPv4 ...   each is tried, within one time-out for all
    any host  --SOCKS5---> proxy            which looks names up itself: nothing goes past it

The only place that dials peers.

Spec: RFC 6724 (the order of addresses is the system's), RFC 1928 (SOCKS5, through PySocks).
Thread: the caller's; a peer's worker.
Lock: none.
"""

import socket
import time
from collections.abc import Callable
from typing import TypeAlias

from torrent_client.config import Config
from torrent_client.errors import PeerDisconnected
from torrent_client.proxy import NO_PEERS, Proxy, parse_proxy, proxy_trouble, refused_by_proxy
from torrent_client.tracker_client import PeerAddress

Opening: TypeAlias = Callable[[socket.socket], None]
"""Is told of each socket before it connects, so that another thread can shut it down; raises to give up."""


def open_peer_socket(address: PeerAddress, config: Config, opening: Opening) -> socket.socket:
    """Connect to a peer.

    Args:
        address: where it listens.
        config: time-outs, and the proxy if there is one.
        opening: is told of each socket before it connects; each is its to close, too.

    Returns:
        A connected socket, of which `opening` was told last.

    Raises:
        PeerDisconnected: nothing answers there, or `opening` gave up.
    """
    try:
        if config.proxy:
            return _through_proxy(parse_proxy(config.proxy), address, config, opening)
        return _direct(address, config, opening)
    except OSError as error:
        trouble = proxy_trouble(config, error) or refused_by_proxy(error)
        raise PeerDisconnected(trouble or f"cannot connect: {error.strerror or error}") from error
    except UnicodeError as error:
        raise PeerDisconnected("cannot connect: its name is none that a host can have") from error


def _direct(address: PeerAddress, config: Config, opening: Opening) -> socket.socket:
    """Try the host's addresses in turn; each gets its share of the time that is left."""
    deadline = time.monotonic() + config.connect_timeout
    targets = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for tried, (family, kind, protocol, _, target) in enumerate(targets):
        share = (deadline - time.monotonic()) / (len(targets) - tried)
        if share <= 0:
            break
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # IPv6 that the system does not have
            failure = error
            continue
        try:
            opening(sock)
            sock.settimeout(share)
            sock.connect(target)
            return sock
        except OSError as error:
            failure = error
            sock.close()
    try:
        raise failure or TimeoutError("timed out")
    finally:
        failure = None  # its traceback leads back here: a reference cycle would keep the connection and its buffers


def _through_proxy(proxy: Proxy, address: PeerAddress, config: Config, opening: Opening) -> socket.socket:
    """Ask a SOCKS5 proxy for the connection."""
    import socks  # here, because few use a proxy

    if not proxy.carries_peers:
        raise PeerDisconnected(NO_PEERS)
    family = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)[0][0]
    sock = socks.socksocket(family)
    opening(sock)
    login = (proxy.user, proxy.password) if proxy.user else (None, None)
    sock.set_proxy(socks.SOCKS5, proxy.host, proxy.port, True, *login)  # True: names are looked up there
    sock.settimeout(config.proxy_timeout)
    sock.connect((address.host, address.port))
    plain = socket.socket(fileno=sock.detach())  # without the methods of PySocks, which are not needed any more
    opening(plain)
    return plain
