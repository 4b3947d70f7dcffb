"""Proxies on the loopback interface: SOCKS5 with and without a password, good and bad ones, and an HTTP one.

Names that do not exist lead where the test says: whoever looks them up here, past the proxy, finds nothing.
"""

import contextlib
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.fake_peer import LOOPBACK, TIMEOUT

_ANY = b"\x01\0\0\0\0\0\0"  # an IPv4 address and a port that nobody looks at


class _Gone(Exception):
    """The other side has hung up."""


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise _Gone
        data += part
    return data


class FakeProxy:
    """Listens on a port and serves each connection in a thread of its own.

    Args:
        names: where host names lead, as (host, port) of this machine; the port that was asked for is ignored.

    Attributes:
        asked: each (host, port) that a client wanted to be connected to.
        port: where it listens.
    """

    def __init__(self, names: Mapping[str, tuple[str, int]] | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._names = names or {}
        self._server = socket.create_server((LOOPBACK, 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="fake-proxy", daemon=True)]

    def serve(self, client: socket.socket) -> None:
        """Talk to a client."""
        raise NotImplementedError

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to where a client wants to go, and take note of that."""
        self.asked.append((host, port))
        sock = socket.create_connection(self._names.get(host, (host, port)), TIMEOUT)
        self._sockets.append(sock)
        return sock

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        """Pass bytes both ways until one side hangs up."""
        back = threading.Thread(target=self._pass_on, args=(other, one), name="fake-proxy", daemon=True)
        self._threads.append(back)
        back.start()
        self._pass_on(one, other)

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while data := source.recv(65536):
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            client.settimeout(TIMEOUT)
            self._sockets.append(client)
            thread = threading.Thread(target=self._run, args=(client,), name="fake-proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, client: socket.socket) -> None:
        with contextlib.suppress(_Gone, OSError):
            self.serve(client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._server.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for sock in self._sockets:
            sock.close()


class SocksProxy(FakeProxy):
    """A SOCKS5 proxy.

    Args:
        names: as above.
        login: user and password that it wants; None for none.
        answer: what it says instead of doing what it is asked: a number of RFC 1928's, say 5.
        hangs: it never says anything.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[str, int]] | None = None,
        *,
        login: tuple[str, str] | None = None,
        answer: int = 0,
        hangs: bool = False,
    ) -> None:
        super().__init__(names)
        self._login = login
        self._answer = answer
        self._hangs = hangs

    def url(self, login: str = "") -> str:
        """Return what `--proxy` takes."""
        return f"socks5://{login}{LOOPBACK}:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Talk to a client."""
        if self._hangs:
            while _read(client, 1):
                pass
        version, count = _read(client, 2)
        assert version == 5
        methods = _read(client, count)
        if not self._let_in(client, methods):
            return
        _, command, _, kind = _read(client, 4)
        assert command == 1
        host = self._read_host(client, kind)
        port = int.from_bytes(_read(client, 2), "big")
        if self._answer:
            self.asked.append((host, port))
            client.sendall(bytes([5, self._answer, 0]) + _ANY)
            return
        try:
            target = self.connect(host, port)
        except OSError:
            client.sendall(b"\x05\x05\0" + _ANY)  # connection refused
            return
        client.sendall(b"\x05\0\0" + _ANY)
        self.pump(client, target)

    def _let_in(self, client: socket.socket, methods: bytes) -> bool:
        """Choose a method, and check the login if it wants one."""
        method = 2 if self._login else 0
        if method not in methods:
            client.sendall(b"\x05\xff")
            return False
        client.sendall(bytes([5, method]))
        if not self._login:
            return True
        _, length = _read(client, 2)
        user = _read(client, length).decode()
        password = _read(client, _read(client, 1)[0]).decode()
        is_right = (user, password) == self._login
        client.sendall(bytes([1, not is_right]))
        return is_right

    @staticmethod
    def _read_host(client: socket.socket, kind: int) -> str:
        if kind == 3:
            return _read(client, _read(client, 1)[0]).decode()
        family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
        return socket.inet_ntop(family, _read(client, size))


class HttpProxy(FakeProxy):
    """An HTTP proxy for `http:` URLs, one request a connection.

    Args:
        names: as above.
        status: what it answers instead of passing on, such as "407 Proxy Authentication Required".
    """

    def __init__(self, names: Mapping[str, tuple[str, int]] | None = None, *, status: str = "") -> None:
        super().__init__(names)
        self._status = status

    @property
    def url(self) -> str:
        """What `--proxy` takes."""
        return f"http://{LOOPBACK}:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Pass a request on."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += _read(client, 1)
        line, _, headers = request.partition(b"\r\n")
        method, url, version = line.decode().split(" ")
        if self._status:
            client.sendall(f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        parts = urlsplit(url)
        target = self.connect(parts.hostname or "", parts.port or 80)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = headers.replace(b"Connection: keep-alive\r\n", b"Connection: close\r\n")
        target.sendall(f"{method} {path} {version}\r\n".encode() + headers)
        self.pump(client, target)
