"""A web server that follows a script, over real sockets: with ranges, without, slow, lying, redirecting.

WebServer(files)             serves files with ranges, as any good server does
WebServer(files, script)     the script answers each request, and may leave it to `exchange.serve()`
"""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import unquote

LOOPBACK = "127.0.0.1"


class Asked(NamedTuple):
    """One request: its path with the query, its range as `Exchange.range` has it, and its headers."""

    path: str
    range: tuple[int, int] | None
    headers: Message


class Exchange(BaseHTTPRequestHandler):
    """One request, and what to answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_GET(self) -> None:  # the base class wants it so
        """Note the request and follow the script."""
        self.server.owner.requests.append(Asked(self.path, self.range, self.headers))
        try:
            self.server.owner.script(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    @property
    def file(self) -> bytes | None:
        """The contents of the file that is asked for."""
        return self.server.owner.files.get(unquote(self.path.partition("?")[0]))

    @property
    def range(self) -> tuple[int, int] | None:
        """The first byte that is asked for, and the one after the last; None for all."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None

    @property
    def stopping(self) -> threading.Event:
        """Is set when the test is over; for scripts that wait."""
        return self.server.owner.stopping

    def serve(self, *, ranges: bool = True) -> None:
        """Answer as a good server does.

        Args:
            ranges: as one that knows ranges.
        """
        if self.file is None:
            self.send(404)
        elif self.range is None or not ranges:
            self.send(200, self.file)
        else:
            start, end = self.range
            self.send(206, self.file[start:end], content_range=f"bytes {start}-{end - 1}/{len(self.file)}")

    def send(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        """Send an answer.

        Args:
            status: of HTTP.
            body: the bytes.
            length: what is said to be their number; the truth by default.
            headers: more of them, with `_` for `-`.
        """
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection without another word."""
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


Script: TypeAlias = Callable[[Exchange], None]


class _Server(ThreadingHTTPServer):
    owner: "WebServer"
    daemon_threads = False  # so that they are joined

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Note the connection, so that it can be closed."""
        self.owner.connections.append(request)
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:  # type: ignore[override]
        """Keep what went wrong in a script; a client may hang up at any time."""


class WebServer:
    """A web server on a loopback port.

    Args:
        files: contents by path, which begins with a slash.
        script: answers requests; by default a good server does.

    Attributes:
        requests: all that came.
        connections: all that were made.
        stopping: is set at the end.
    """

    def __init__(self, files: Mapping[str, bytes], script: Script = Exchange.serve) -> None:
        self.files = files
        self.script = script
        self.requests: list[Asked] = []
        self.connections: list[socket.socket] = []
        self.stopping = threading.Event()
        self._server = _Server((LOOPBACK, 0), Exchange)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="web-server")

    @property
    def url(self) -> str:
        """The URL of the server, with a slash at its end."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    @property
    def paths(self) -> list[str]:
        """The paths of all requests so far."""
        return [request.path for request in self.requests]

    @property
    def ranges(self) -> list[tuple[int, int] | None]:
        """The ranges of all requests so far."""
        return [request.range for request in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
