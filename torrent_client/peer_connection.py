"""One peer: connect, shake hands, then exchange messages until somebody closes.

    our side                                   the peer
    connect ---------------------------------> accept
    handshake 68 bytes ----------------------> same info_hash?
    same info_hash? another peer id? <-------- handshake 68 bytes
    bitfield, interested --------------------> bitfield, unchoke
    request request request request ... -----> piece, piece, piece ...

A connection has two threads. The *reader* is the caller of `receive`: it alone reads, and it owns the
socket. The *writer* (`peer_writer`) sends. `close` may be called from anywhere, any number of times:
it shuts the socket down, which wakes both; the reader then calls `finish`, which joins the writer and
closes the socket, the only place that does.

    with PeerConnection(address, info_hash, our_id) as peer:     a whole client, for a lesson
        peer.connect()
        peer.handshake()
        peer.send(Interested())
        for message in peer.receive():
            ...

Called by `download_manager`, which runs one of these in each of its workers.

Spec: BEP 3 (peer protocol), BEP 6 and 10 (their bits in the handshake); the guide's Tasks 6 to 8.
Thread: `receive`, `handshake`, `connect`, `finish` on the reader; the rest on any.
Lock: none of its own; the outbox has one.
"""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from types import TracebackType
from typing import Self, cast

from torrent_client import trace
from torrent_client.config import MAX_MESSAGE_LENGTH, Config
from torrent_client.dialing import open_peer_socket
from torrent_client.encryption import DIALS, EncryptedSocket, PeerSocket, dial_encrypted
from torrent_client.errors import HandshakeError, PeerDisconnected, PeerError, StorageError
from torrent_client.peer_writer import PeerWriter
from torrent_client.protocol.messages import (
    HANDSHAKE_LENGTH,
    PROTOCOL,
    RESERVED_DHT,
    RESERVED_EXTENSIONS,
    RESERVED_FAST,
    AllowedFast,
    Handshake,
    Message,
    Request,
    reserved_bits,
)
from torrent_client.protocol.mse import Crypto
from torrent_client.protocol.scatter import Arrival, Places, ScatterReader, nowhere
from torrent_client.rate_limiter import Limits
from torrent_client.tracker_client import PeerAddress


def _serve_nothing(_request: Request) -> bytes:
    """Stand in for storage where a connection only downloads."""
    raise StorageError("this connection serves nothing")


class PeerConnection:
    """A connection to one peer, outgoing or incoming.

    Args:
        address: where the peer is.
        info_hash: 20 bytes, the torrent's.
        peer_id: 20 bytes, ours.
        sock: an accepted socket; without one, `connect` makes it.
        remote_handshake: the peer's, where the listener has read it already.
        extensions: announce the extension protocol (BEP 10).
        fast: announce the Fast extension (BEP 6).
        dht: announce a DHT node (BEP 5).
        max_message_length: bytes; a torrent with many pieces needs more than the default for a bitfield.
        read_block: returns the bytes of a request that we serve.
        limits: bytes per second that we take and give.
        config: time-outs.
    """

    def __init__(
        self,
        address: PeerAddress,
        info_hash: bytes,
        peer_id: bytes,
        *,
        sock: PeerSocket | None = None,
        remote_handshake: Handshake | None = None,
        extensions: bool = False,
        fast: bool = False,
        dht: bool = False,
        max_message_length: int = MAX_MESSAGE_LENGTH,
        read_block: Callable[[Request], bytes] = _serve_nothing,
        limits: Limits | None = None,
        config: Config | None = None,
    ) -> None:
        """Keep the facts; nothing is sent yet."""
        self.address = address
        self.outgoing = sock is None
        self.remote = remote_handshake
        self.peer_choking = True
        self.peer_interested = False
        self.close_reason: str | None = None
        features = [RESERVED_EXTENSIONS] * extensions + [RESERVED_FAST] * fast + [RESERVED_DHT] * dht
        self._handshake = Handshake(info_hash, peer_id, reserved_bits(*features))
        self._config = config or Config()
        self._read_block = read_block
        self._limits = limits or Limits()
        self._closing = Event()
        self._reader = ScatterReader(max_message_length)
        self._sock: PeerSocket | None = sock
        self._writer: PeerWriter | None = None
        self._trace: trace.StreamTrace | None = None

    # --- opening -------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the TCP connection (`dialing`).

        Raises:
            PeerDisconnected: nothing answers there, or `close` was called meanwhile.
        """
        self._sock = open_peer_socket(self.address, self._config, self._opening)

    def _opening(self, sock: socket.socket) -> None:
        """Take note of a socket before it connects: `close` then shuts it down."""
        self._sock = sock
        if self.close_reason is not None:
            sock.close()
            raise PeerDisconnected(self.close_reason)

    def handshake(self) -> Handshake:
        """Exchange handshakes and start the writer.

        Returns:
            The peer's handshake.

        Raises:
            HandshakeError: it is no BitTorrent peer, has another torrent, or is ourselves.
            PeerDisconnected: it closed, or took too long.
        """
        assert self._sock is not None, "connect() comes first"
        try:
            self.remote = self._dialled() if self.outgoing else self._exchange(self._sock, None)
        except OSError as error:
            raise PeerDisconnected(f"no handshake: {error.strerror or error}") from error
        if self.remote.info_hash != self._handshake.info_hash:
            raise HandshakeError(f"it has another torrent, {self.remote.info_hash.hex()}")
        if self.remote.peer_id == self._handshake.peer_id:
            raise HandshakeError("it is ourselves")
        self._trace = trace.follow(self._sock, self.address, outgoing=self.outgoing)
        if self._trace:
            self._trace.shook_hands(self._handshake.encode(), self.remote.encode(), outgoing=self.outgoing)
        self._prepare_socket(self._sock)
        self._writer = PeerWriter(
            self._sock,
            self._read_block,
            self.close,
            self._config,
            self._limits.upload,
            fast=self.fast,
            trace=self._trace,
        )
        self._writer.start()
        return self.remote

    def _dialled(self) -> Handshake:
        """Exchange handshakes on a connection that we made; where the peer hangs up, once more the other way."""
        assert isinstance(self._sock, socket.socket)
        first, *second = DIALS[self._config.encryption]
        try:
            return self._exchange(self._sock, first)
        except (PeerError, ConnectionError):
            if not second or self.close_reason is not None:
                raise
        self._sock.close()
        self.connect()
        return self._exchange(self._sock, second[0])

    def _exchange(self, sock: PeerSocket, offered: Crypto | None) -> Handshake:
        """Exchange handshakes, in plaintext or (`encryption`) with an offer to encrypt."""
        hello, timeout = self._handshake.encode(), self._config.handshake_timeout
        if offered and isinstance(sock, socket.socket):
            sock = self._sock = dial_encrypted(sock, self._handshake.info_hash, offered, hello, timeout)
        else:
            sock.settimeout(timeout)
            sock.sendall(hello)
        return self.remote or read_handshake(sock, timeout)

    @property
    def is_encrypted(self) -> bool:
        """Whether RC4 was negotiated."""
        return isinstance(self._sock, EncryptedSocket) and self._sock.is_encrypted

    def _prepare_socket(self, sock: PeerSocket) -> None:
        """Let every call block in the kernel for a tick at most: a Python time-out would poll each time."""
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = int(self._config.socket_tick)
        tick = struct.pack("ll", seconds, int((self._config.socket_tick - seconds) * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    # --- receiving -----------------------------------------------------------------------------------

    def receive(self) -> list[Message]:
        """Wait for messages and return all that are whole, in order, at least one.

        Blocks in them are views into the receive buffer: use them before the next call.

        Raises:
            PeerDisconnected: the peer closed or was silent for too long, or we closed.
            ProtocolViolation: it sent what no correct client sends.
        """
        return cast("list[Message]", self.receive_in_place(nowhere))

    def receive_in_place(self, places: Places) -> list[Arrival]:
        """Receive as `receive` does, but blocks that are expected straight to where they belong.

        Args:
            places: tells where that is; it is asked before each read.

        Returns:
            In the order in which they came, at least one: messages, and runs of blocks that are in their places.

        Raises:
            PeerDisconnected: the peer closed or was silent for too long, or we closed.
            ProtocolViolation: it sent what no correct client sends.
        """
        assert self._sock is not None
        silence = 0.0
        while self.close_reason is None:
            try:
                buffers, flags = self._next_read(places)
                count = self._sock.recvmsg_into(buffers, 0, flags)[0]
            except BlockingIOError:  # a tick passed
                silence += self._config.socket_tick
                if silence >= self._config.idle_timeout:
                    raise PeerDisconnected(f"silent for {silence:.0f} s") from None
                continue
            except OSError as error:
                raise PeerDisconnected(error.strerror or str(error)) from error
            if not count:
                break
            silence = 0.0
            if self._trace:
                self._trace.received(buffers[0][:count])
            self._pay(count)
            messages = self._reader.received(count)
            if messages:
                return messages
        raise PeerDisconnected(self.close_reason or "it closed the connection")

    def _next_read(self, places: Places) -> tuple[list[memoryview], int]:
        """Return buffers and flags for the next read; where a limit holds a small buffer, so that reading is smooth."""
        limit = self._limits.download
        if not limit.is_limited and not self._trace:
            buffers = self._reader.writable(places)
            return buffers, socket.MSG_WAITALL if self._reader.wants_all else 0
        first, *_ = self._reader.writable(nowhere)
        return [first[: limit.quantum()] if limit.is_limited else first], 0

    def _pay(self, count: int) -> None:
        """Book what was read, and wait until it has been earned: TCP then slows the sender down."""
        delay = self._limits.download.book(count)
        if delay:
            self._closing.wait(delay)

    # --- sending -------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue one message; returns at once.

        Args:
            message: what to say. Choke, Unchoke, Interested and NotInterested also change our side's
                flags, and are left out when they would change nothing.
        """
        if self._writer:
            self._writer.send_message(message)

    @property
    def fast(self) -> bool:
        """Whether both sides speak the Fast extension (BEP 6)."""
        return self.remote is not None and self.remote.supports_fast and self._handshake.supports_fast

    @property
    def am_choking(self) -> bool:
        """Whether we answer none of the peer's requests."""
        return self._writer is None or self._writer.am_choking

    @property
    def am_interested(self) -> bool:
        """Whether we want something that the peer has."""
        return self._writer is not None and self._writer.am_interested

    def send_encoded(self, data: bytes) -> None:
        """Queue whole messages that are encoded already."""
        if self._writer:
            self._writer.send(data)

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent, blocks not among them."""
        return self._writer.waiting if self._writer else 0

    def upload(self, *requests: Request) -> int:
        """Queue blocks that the peer asked for; return how many are queued."""
        return self._writer.upload(*requests) if self._writer else 0

    def allow_fast(self, index: int, size: int) -> None:
        """Serve a piece even while the peer is choked, and tell the peer so (BEP 6).

        Args:
            index: the piece.
            size: bytes of it that are served so: once is enough for a newcomer.
        """
        if self._writer and index not in self._writer.allowed_fast:
            self._writer.allowed_fast[index] = size
            self.send(AllowedFast(index))

    def serves(self, request: Request) -> bool:
        """Tell whether a request for a block that we have would be answered now; reader only."""
        if self._writer is None or not self._writer.am_choking:
            return self._writer is not None
        left = self._writer.allowed_fast.get(request.piece_index, 0)
        if left < request.length:
            return False
        self._writer.allowed_fast[request.piece_index] = left - request.length
        return True

    def cancel_upload(self, request: Request) -> None:
        """Take a queued block back."""
        if self._writer:
            self._writer.cancel(request)

    @property
    def uploaded(self) -> int:
        """Bytes of blocks sent to the peer."""
        return self._writer.uploaded if self._writer else 0

    # --- closing -------------------------------------------------------------------------------------

    def close(self, reason: str = "closed by us") -> None:
        """End the connection from any thread, any number of times; the first reason counts."""
        if self.close_reason is None:
            self.close_reason = reason
        self._closing.set()
        if self._writer:
            self._writer.close()
        if self._sock:
            with suppress(OSError):  # not connected any more, or closed by the reader
                self._sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Join the writer and close the socket; the reader's last act."""
        self.close()
        if self._writer:
            self._writer.join()
        if self._sock:
            self._sock.close()
        if self._trace:
            self._trace.closed(self.close_reason or "")

    def __enter__(self) -> Self:
        """Use the connection in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it at the end of the block."""
        self.finish()


def read_handshake(sock: PeerSocket, timeout: float, begun: bytes = b"") -> Handshake:
    """Read the peer's 68 bytes.

    Args:
        sock: connected; its time-out is changed.
        timeout: seconds for all of it, so that a byte now and then does not keep us for ever.
        begun: what was read of them before.

    Raises:
        HandshakeError: they are no BitTorrent handshake.
        PeerDisconnected: the peer closed before it was whole.
        OSError: the socket's error, or its time-out.
    """
    deadline = time.monotonic() + timeout
    data = begun
    while len(data) < HANDSHAKE_LENGTH:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        sock.settimeout(left)
        part = sock.recv(HANDSHAKE_LENGTH - len(data))
        if not part:
            raise PeerDisconnected("it closed the connection instead of a handshake")
        data += part
        if not PROTOCOL.startswith(data[: len(PROTOCOL)]):
            break  # no need to wait for the rest of something else
    return Handshake.decode(data)
