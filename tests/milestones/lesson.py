"""What the checks need to check against: bencode, torrents, a tracker and seeders, over real sockets.

Of the standard library alone and with no line of the client: a student's folder may be called `torrent_client` too,
and what judges a client should not be made of one.
"""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1
from itertools import count
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import unquote_to_bytes

BLOCK = 16 * 1024
PIECE_LENGTH = 2 * BLOCK
PROTOCOL = b"\x13BitTorrent protocol"
NAMES = ("choke", "unchoke", "interested", "not interested", "have", "bitfield", "request", "piece", "cancel")
CHOKE, UNCHOKE, INTERESTED, NOT_INTERESTED, HAVE, BITFIELD, REQUEST, PIECE, CANCEL = range(9)


def made_up(size: int, seed: int = 0) -> bytes:
    """Return repeatable bytes."""
    return Random(seed).randbytes(size)


def encode(value: object) -> bytes:
    """Bencode a value; dictionaries keep the order that they are given in."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case str():
            return encode(value.encode())
        case list() | tuple():
            return b"l" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"d" + b"".join(encode(key) + encode(item) for key, item in value.items()) + b"e"
    raise TypeError(value)


# --- torrents -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Torrent:
    """A torrent and what it describes."""

    path: Path
    name: str
    data: bytes
    files: Mapping[str, bytes]  # by path below the output directory
    piece_length: int
    hashes: tuple[bytes, ...]
    info_hash: bytes
    announce: str

    def piece(self, index: int) -> bytes:
        """Return the bytes of a piece."""
        return self.data[index * self.piece_length : (index + 1) * self.piece_length]

    @property
    def piece_count(self) -> int:
        """How many pieces there are."""
        return len(self.hashes)

    def bitfield(self, pieces: Collection[int] | None = None) -> bytes:
        """Return the payload of a bitfield message; all pieces by default."""
        bits = bytearray(-(-self.piece_count // 8))
        for index in range(self.piece_count) if pieces is None else pieces:
            bits[index // 8] |= 0x80 >> index % 8
        return bytes(bits)


def make_torrent(
    folder: Path,
    content: bytes | Mapping[str, bytes],
    announce: str = "http://127.0.0.1:9/announce",
    *,
    name: str = "lesson.bin",
    piece_length: int = PIECE_LENGTH,
    extra_info: Mapping[str, object] | None = None,
) -> Torrent:
    """Write a .torrent file; several files make a directory called `name`."""
    files = {name: content} if isinstance(content, bytes) else {f"{name}/{path}": content[path] for path in content}
    data = b"".join(files.values())
    hashes = tuple(sha1(data[at : at + piece_length]).digest() for at in range(0, len(data), piece_length))
    info: dict[str, object] = {"name": name, "piece length": piece_length, "pieces": b"".join(hashes)}
    if isinstance(content, bytes):
        info["length"] = len(content)
    else:
        info["files"] = [{"length": len(part), "path": path.split("/")} for path, part in content.items()]
    info = dict(sorted({**info, **(extra_info or {})}.items()))
    path = folder / f"{name}.torrent"
    path.write_bytes(encode({"announce": announce, "info": info, "url-list": "http://127.0.0.1:9/"}))
    return Torrent(path, name, data, files, piece_length, hashes, sha1(encode(info)).digest(), announce)


# --- a tracker ----------------------------------------------------------------------------------------------


class Tracker:
    """An HTTP tracker that tells everybody the same, and keeps what it was asked.

    Args:
        answer: the body, or None for one made of `peers`.
        failures: how many requests are answered with an error before the first good answer.
    """

    def __init__(self, answer: bytes | None = None, failures: int = 0) -> None:
        self.peers: list[tuple[str, int]] = []
        self.requests: list[dict[str, bytes]] = []
        self.times: list[float] = []
        self._answer = answer
        self._failures = failures
        tracker = self
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # slow to load, and most tasks need none

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = tracker._reply(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The announce URL."""
        return f"http://127.0.0.1:{self._server.server_port}/announce"

    def _reply(self, path: str) -> tuple[int, bytes]:
        query = path.partition("?")[2]
        fields = (part.partition("=") for part in query.split("&") if part)
        self.requests.append({name: unquote_to_bytes(value.replace("+", " ")) for name, _, value in fields})
        self.times.append(time.monotonic())
        if len(self.requests) <= self._failures:
            return 503, b"come back later"
        if self._answer is not None:
            return 200, self._answer
        return 200, encode({"interval": 1800, "peers": b"".join(map(compact, self.peers))})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def compact(address: tuple[str, int]) -> bytes:
    """Return the 6 bytes of an address in a compact list (BEP 23)."""
    return socket.inet_aton(address[0]) + struct.pack(">H", address[1])


# --- peers --------------------------------------------------------------------------------------------------


class Gone(Exception):
    """The other side has closed."""


class Link:
    """The checker's end of a connection: whole messages in and out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        data = b""
        while len(data) < count:
            try:
                part = self.sock.recv(count - len(data))
            except TimeoutError:
                raise
            except OSError as error:
                raise Gone from error
            if not part:
                raise Gone
            data += part
        return data

    def at_most(self, count: int) -> bytes:
        """Read so many bytes, or as many as come before the other side falls silent for a second."""
        data = b""
        with suppress(OSError):
            while len(data) < count and self.has_more(1.0) and (part := self.sock.recv(count - len(data))):
                data += part
        return data

    def message(self) -> tuple[int, bytes]:
        """Read one message that is no keep-alive: id and payload."""
        while True:
            (length,) = struct.unpack(">I", self.exactly(4))
            if length > 1 << 20:
                raise Gone  # no message: whoever sent it is beyond help
            if length:
                body = self.exactly(length)
                return body[0], body[1:]

    def send(self, *messages: bytes) -> None:
        """Send bytes in one go."""
        try:
            self.sock.sendall(b"".join(messages))
        except OSError as error:
            raise Gone from error

    def has_more(self, seconds: float) -> bool:
        """Tell whether something comes within so many seconds."""
        self.sock.settimeout(seconds)
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
        finally:
            self.sock.settimeout(30)


def message(number: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a message."""
    return struct.pack(">IB", 1 + len(payload), number) + payload


class Asked(NamedTuple):
    """A request that a seeder got."""

    index: int
    begin: int
    length: int


_numbers = count()

Script = Callable[["Seeder", Link], None]


@dataclass
class Seeder:
    """A peer that listens, and serves as well or badly as it is told.

    Attributes:
        torrent: what it has.
        pieces: those that it says it has; all by default.
        corrupt: pieces of which it sends bad bytes.
        delay: seconds before each block.
        blocks: how many it serves in all before it closes for ever; None for no end.
        drops_first: its first connection closes after so many blocks; later ones serve.
        unchoke_after: seconds between `interested` and unchoke.
        gathers: waits for more requests before it answers, and answers them in reverse.
        script: what it does instead of all this, after the handshake.
        before: what it does before it reads a handshake.
        peer_id: 20 bytes.
        wrong_hash: it answers the handshake for another torrent.
    """

    torrent: Torrent
    pieces: Collection[int] | None = None
    corrupt: Collection[int] = ()
    delay: float = 0.0
    blocks: int | None = None
    drops_first: int | None = None
    unchoke_after: float = 0.0
    gathers: bool = False
    script: Script | None = None
    before: Callable[[Link], None] | None = None
    peer_id: bytes = field(default_factory=lambda: b"-LS0001-lesson%06d" % next(_numbers))
    wrong_hash: bool = False
    handshakes: list[bytes] = field(default_factory=list)
    said: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    connections: int = 0
    most_waiting: int = 0
    served: "Counter[int]" = field(default_factory=Counter)  # blocks, by piece
    on_block: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.getsockname()
        self._links: list[Link] = []
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close everything, and be gone for good."""
        self._closing = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for link in self._links:
            with suppress(OSError):
                link.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            link = Link(sock)
            self._links.append(link)
            self.connections += 1
            threading.Thread(target=self._serve, args=(link, self.connections), daemon=True).start()

    def _serve(self, link: Link, number: int) -> None:
        with suppress(Gone, TimeoutError, OSError), link.sock:
            if self.before:
                self.before(link)
            self.handshakes.append(link.at_most(68))
            if len(self.handshakes[-1]) < 68:
                return
            info_hash = sha1(b"another").digest() if self.wrong_hash else self.torrent.info_hash
            link.send(PROTOCOL + bytes(8) + info_hash + self.peer_id)
            if self.script:
                self.script(self, link)
            else:
                self._talk(link, number)

    def _talk(self, link: Link, number: int) -> None:
        """Say what there is, unchoke who is interested, and answer."""
        link.send(message(BITFIELD, self.torrent.bitfield(self.pieces)))
        unchoked, sent = False, 0
        waiting: list[Asked] = []
        while True:
            kind, payload = self.heard(link)
            if kind == INTERESTED and not unchoked:
                if self.unchoke_after and link.has_more(self.unchoke_after):
                    self.complaints.append("it sends requests while it is choked")
                link.send(message(UNCHOKE))
                unchoked = True
            if kind != REQUEST:
                continue
            asked = self._understood(payload, unchoked)
            if asked is None:
                continue
            waiting.append(asked)
            self.most_waiting = max(self.most_waiting, len(waiting))
            if self.gathers and link.has_more(0.15):
                continue
            for request in reversed(waiting):
                if self.blocks is not None and self.served.total() >= self.blocks:
                    self.close()
                    return
                if number == 1 and self.drops_first is not None and sent >= self.drops_first:
                    return
                sent += 1
                self.answer(link, request)
            waiting = []

    def heard(self, link: Link) -> tuple[int, bytes]:
        """Read a message and keep it."""
        kind, payload = link.message()
        self.said.append((kind, payload))
        return kind, payload

    def _understood(self, payload: bytes, unchoked: bool) -> Asked | None:
        """Read a request; complain about one that no peer should send, and answer it never."""
        if len(payload) != 12:
            self.complaints.append(f"a request has 12 bytes of payload and this one has {len(payload)}")
            return None
        asked = Asked(*struct.unpack(">III", payload))
        self.asked.append(asked)
        if not unchoked:
            self.complaints.append("it sends requests before it is unchoked")
        if asked.length > BLOCK:
            self.complaints.append(f"it asks for {asked.length} bytes at once")
        elif (
            asked.index >= self.torrent.piece_count
            or not asked.length
            or (asked.begin + asked.length > len(self.torrent.piece(asked.index)))
        ):
            self.complaints.append(f"it asks for bytes that do not exist: {asked}")
        elif self.pieces is not None and asked.index not in self.pieces:
            self.complaints.append(f"it asks for piece {asked.index}, which this peer does not have")
        else:
            return asked
        return None

    def answer(self, link: Link, asked: Asked) -> None:
        """Send a block."""
        time.sleep(self.delay)
        block = self.torrent.piece(asked.index)[asked.begin : asked.begin + asked.length]
        if asked.index in self.corrupt:
            block = bytes([block[0] ^ 0xFF]) + block[1:]
        self.served[asked.index] += 1
        link.send(message(PIECE, struct.pack(">II", asked.index, asked.begin) + block))
        if self.on_block:
            self.on_block()

    @property
    def whole_pieces(self) -> set[int]:
        """The pieces of which every block was served."""
        return {index for index, count in self.served.items() if count >= -(-len(self.torrent.piece(index)) // BLOCK)}


def shown(value: Any, limit: int = 80) -> str:
    """Return what a value looks like, cut to a length that fits a sentence."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
