"""Remotes that follow a script, over real sockets, and torrents for them to have.

    FakePeer      one end of a connection: sends what the test says, even nonsense, and keeps what our side sends
    FakeServer    listens on a loopback port and runs a script for each connection that our side makes
    seeder(...)   the script of a peer that serves blocks, well or badly

Every read has a time-out, so that a test that fails does so within seconds and never hangs.
"""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha1
from types import TracebackType
from typing import Self, TypeVar

from torrent_client.bitfield import Bitfield
from torrent_client.config import BLOCK_SIZE
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.protocol.messages import (
    HANDSHAKE_LENGTH,
    BitfieldMessage,
    Handshake,
    Message,
    MessageReader,
    Piece,
    Request,
    Unchoke,
)
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

LOOPBACK = "127.0.0.1"
TIMEOUT = 10.0  # seconds that a fake waits for our side before its test fails
PIECE_LENGTH = 2 * BLOCK_SIZE

M = TypeVar("M", bound=Message)


class Gone(Exception):
    """Our side has closed the connection."""


def fake_id(name: str) -> bytes:
    """Return a peer id of 20 bytes, another one for each name."""
    return f"-FK0001-{name}".encode().ljust(20, b"-")[:20]


# --- torrents ---------------------------------------------------------------------------------------------


def metainfo(
    content: bytes | Mapping[str, bytes], piece_length: int = PIECE_LENGTH, name: str = "file.bin", **top: object
) -> bytes:
    """Return the bytes of a .torrent.

    Args:
        content: the bytes of the one file, or those of each file by its path.
        piece_length: bytes.
        name: of the file or of the directory.
        top: top-level fields, `announce` say.
    """
    data = content if isinstance(content, bytes) else b"".join(content.values())
    hashes = [sha1(data[start : start + piece_length]).digest() for start in range(0, len(data), piece_length)]
    info: dict[str, object] = {"name": name, "piece length": piece_length, "pieces": b"".join(hashes)}
    if isinstance(content, bytes):
        info["length"] = len(content)
    else:
        info["files"] = [{"length": len(part), "path": path.split("/")} for path, part in content.items()]
    return bencode_encode({"info": info, **top})


def torrent_of(
    content: bytes | Mapping[str, bytes], piece_length: int = PIECE_LENGTH, name: str = "file.bin", **top: object
) -> TorrentFile:
    """Return a torrent; the arguments are those of `metainfo`."""
    return TorrentFile.from_bytes(metainfo(content, piece_length, name, **top))


# --- sockets ----------------------------------------------------------------------------------------------


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection: unlike a `socketpair`, they know TCP's options."""
    with socket.create_server((LOOPBACK, 0)) as server:
        near = socket.create_connection(server.getsockname(), TIMEOUT)
        far, _ = server.accept()
    near.settimeout(None)
    return near, far


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


class FakePeer:
    """One end of a connection; the other one is ours.

    Args:
        sock: connected; the fake closes it.
        timeout: seconds that a read waits.

    Attributes:
        transcript: every message that our side sent after its handshake, as far as the fake has read.
        handshake_seen: our side's handshake, once it was read.
    """

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT) -> None:
        sock.settimeout(timeout)
        self.sock = sock
        self.transcript: list[Message] = []
        self.handshake_seen: Handshake | None = None
        self._reader = MessageReader()
        self._unread: deque[Message] = deque()

    @classmethod
    def dial(cls, port: int) -> Self:
        """Connect to a port on which our side listens."""
        return cls(socket.create_connection((LOOPBACK, port), TIMEOUT))

    # --- sending ---

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone from error

    def send(self, *messages: Message) -> None:
        """Send messages in one piece."""
        self.send_raw(b"".join(message.encode() for message in messages))

    def shake_hands(self, info_hash: bytes, peer_id: bytes | None = None, reserved: bytes = bytes(8)) -> Handshake:
        """Send a handshake, wait for the other side's, and return that."""
        self.send_raw(Handshake(info_hash, peer_id or fake_id("peer"), reserved).encode())
        return self.read_handshake()

    # --- receiving ---

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes, before any message is read."""
        data = b""
        while len(data) < count:
            data += self._recv(count - len(data))
        return data

    def read_handshake(self) -> Handshake:
        """Read our side's handshake."""
        self.handshake_seen = Handshake.decode(self.read_exactly(HANDSHAKE_LENGTH))
        return self.handshake_seen

    def next_message(self) -> Message:
        """Wait for one message.

        Raises:
            Gone: the connection was closed instead.
            TimeoutError: nothing came.
        """
        while not self._unread:
            data = self._recv(64 * 1024)
            while data:
                free = self._reader.writable()
                part, data = data[: len(free)], data[len(free) :]
                free[: len(part)] = part
                for message in self._reader.received(len(part)):
                    kept = message._replace(block=bytes(message.block)) if isinstance(message, Piece) else message
                    self.transcript.append(kept)
                    self._unread.append(kept)
        return self._unread.popleft()

    def expect(self, kind: type[M]) -> M:
        """Wait for a message of one kind, passing over the others."""
        while True:
            message = self.next_message()
            if isinstance(message, kind):
                return message

    def expect_many(self, kind: type[M], count: int) -> list[M]:
        """Wait for several messages of one kind."""
        return [self.expect(kind) for _ in range(count)]

    def read_until_gone(self) -> list[Message]:
        """Read until our side closes; return everything that came after the last read."""
        messages = []
        with contextlib.suppress(Gone):
            while True:
                messages.append(self.next_message())
        return messages

    def read_until_quiet(self, seconds: float = 0.1) -> None:
        """Read until nothing came for so long."""
        timeout = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while True:
                self.next_message()
        self.sock.settimeout(timeout)

    def requests(self) -> list[Request]:
        """Return all requests so far."""
        return [message for message in self.transcript if isinstance(message, Request)]

    def _recv(self, size: int) -> bytes:
        try:
            data = self.sock.recv(size)
        except ConnectionResetError as error:
            raise Gone from error
        if not data:
            raise Gone
        return data

    # --- closing ---

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Script = Callable[[FakePeer], None]


class FakeServer:
    """Listens on a loopback port and runs a script, in a thread, for each connection.

    A script may end at any time; `Gone` is one way to. What else it raises fails the test at the end of the
    `with` block.

    Args:
        script: is called with the connection; it closes when the script returns.
    """

    def __init__(self, script: Script) -> None:
        self.peers: list[FakePeer] = []
        self._script = script
        self._errors: list[Exception] = []
        self._stopping = False
        self._server = socket.create_server((LOOPBACK, 0))
        self._threads = [threading.Thread(target=self._accept, name="fake-server", daemon=True)]
        self.address = PeerAddress(LOOPBACK, self._server.getsockname()[1])

    @property
    def port(self) -> int:
        """The TCP port."""
        return self.address.port

    @property
    def requests(self) -> list[Request]:
        """All requests of all connections so far."""
        return [request for peer in self.peers for request in peer.requests()]

    @property
    def transcript(self) -> list[Message]:
        """All messages of all connections so far."""
        return [message for peer in self.peers for message in peer.transcript]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            peer = FakePeer(sock)
            self.peers.append(peer)
            thread = threading.Thread(target=self._run, args=(peer,), name="fake-peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, peer: FakePeer) -> None:
        try:
            self._script(peer)
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001  # raised again at the end of the test
            if not self._stopping:
                self._errors.append(error)
        finally:
            peer.close()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._server.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):  # closed by its script
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        if self._errors and error is None:
            raise self._errors[0]


# --- scripts ----------------------------------------------------------------------------------------------


def seeder(
    torrent: TorrentFile,
    data: bytes,
    *,
    name: str = "seeder",
    pieces: Collection[int] | None = None,
    corrupt: Collection[int] = (),
    blocks: int | None = None,
) -> Script:
    """Return the script of a peer that says what it has, unchokes, and serves.

    Args:
        torrent: which one.
        data: its bytes.
        name: makes its peer id.
        pieces: those that it has; all by default.
        corrupt: pieces of which it sends bad bytes.
        blocks: how many it serves before it falls silent; all that are asked for by default.
    """

    def script(peer: FakePeer) -> None:
        greet(peer, torrent, name=name, pieces=pieces)
        peer.send(Unchoke())
        serve(peer, torrent, data, corrupt=corrupt, blocks=blocks)

    return script


def greet(peer: FakePeer, torrent: TorrentFile, *, name: str = "seeder", pieces: Collection[int] | None = None) -> None:
    """Shake hands and say which pieces the fake has; all by default."""
    peer.shake_hands(torrent.info_hash, fake_id(name))
    owned = Bitfield.full(torrent.piece_count)
    if pieces is not None:
        owned = Bitfield(torrent.piece_count, sum(1 << index for index in pieces))
    peer.send(BitfieldMessage(owned.to_bytes()))


def serve(
    peer: FakePeer, torrent: TorrentFile, data: bytes, *, corrupt: Collection[int] = (), blocks: int | None = None
) -> None:
    """Answer requests until our side closes; after `blocks` of them only read."""
    served = 0
    while True:
        request = peer.expect(Request)
        if blocks is None or served < blocks:
            peer.send(block_of(torrent, data, request, corrupt=request.piece_index in corrupt))
            served += 1


def block_of(torrent: TorrentFile, data: bytes, request: Request, *, corrupt: bool = False) -> Piece:
    """Return the answer to a request; a corrupt one has its first byte wrong."""
    start = request.piece_index * torrent.piece_length + request.begin
    block = data[start : start + request.length]
    if corrupt:
        block = bytes([block[0] ^ 1]) + block[1:]
    return Piece(request.piece_index, request.begin, block)


@contextlib.contextmanager
def serving(*scripts: Script) -> Iterator[list[FakeServer]]:
    """Run a server for each script for the length of a `with` block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeServer(script)) for script in scripts]


def is_connecting(sock: socket.socket | None) -> bool:
    """Tell whether a socket waits for the answer to its SYN."""
    return sock is not None and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 2  # TCP_SYN_SENT


@contextlib.contextmanager
def black_hole() -> Iterator[PeerAddress]:
    """Give an address that answers no connection attempt: a listener whose queue is full and stays so."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((LOOPBACK, 0))
        server.listen(0)
        for _ in range(4):  # the queue takes one or two
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield PeerAddress(LOOPBACK, server.getsockname()[1])
