"""What `requests` lacks: connections to addresses that were checked, and that another thread can end.

`requests` bounds each wait for bytes, never the whole: a server that sends a byte of its header now and then
keeps it for ever. And it looks the name up itself, so that a name could lead elsewhere than when it was checked.

Spec: none.
Thread: the caller's.
Lock: none.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from torrent_client.config import Config
from torrent_client.proxy import requests_proxies
from torrent_client.tracker_url import Endpoint


class WatchedAdapter(HTTPAdapter):
    """Connects for one request.

    Args:
        endpoints: the addresses to try; a proxy has its own.
        watch: is given each socket before it connects, a copy which it has to close.
        connect_timeout: seconds for each address.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], watch: Callable[[socket.socket], None], connect_timeout: float
    ) -> None:
        """Keep the facts."""
        super().__init__()
        self._endpoints = endpoints
        self._watch = watch
        self._connect_timeout = connect_timeout

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> HTTPConnectionPool:
        """Return a pool whose connections are ours."""
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        assert isinstance(pool, HTTPConnectionPool)
        connect = None if select_proxy(request.url or "", dict(proxies or {})) else self._connect
        pool.ConnectionCls = _watched(pool.ConnectionCls, connect, self._watch)
        return pool

    def _connect(self) -> socket.socket:
        """Connect to the first address that lets us."""
        problem: OSError | None = None
        for endpoint in self._endpoints:
            try:
                sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
            except OSError as error:  # IPv6 that the system does not have
                problem = error
                continue
            try:
                self._watch(sock.dup())
                sock.settimeout(self._connect_timeout)
                sock.connect(endpoint.address)
            except OSError as error:
                sock.close()
                problem = error
                continue
            return sock
        raise problem or socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def is_proxied(url: str, config: Config) -> bool:
    """Tell whether a URL is asked for through a proxy, the user's choice or the environment's."""
    return select_proxy(url, requests_proxies(config) or get_environ_proxies(url)) is not None


def _watched(
    kind: Any,  # noqa: ANN401  # urllib3's classes for HTTP, HTTPS and SOCKS, and its protocol for them
    connect: Callable[[], socket.socket] | None,
    watch: Callable[[socket.socket], None],
) -> type[HTTPConnection]:
    """Return a kind of connection that opens its sockets as we want it."""

    class Watched(kind):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            if connect:
                return connect()
            sock: socket.socket = super()._new_conn()
            watch(sock.dup())
            return sock

    return Watched
