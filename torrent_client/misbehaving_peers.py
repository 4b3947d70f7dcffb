"""A gallery of peers that misbehave, each in one way: for lessons, and to see what a client makes of them.

    Behaviour            serves a whole torrent as it should: the base of all others
      +-- Corrupt        sends wrong bytes           +-- Liar      promises pieces, and refuses each request
      +-- Stall          lets us wait for ever       +-- Flood     sends what nobody asked for
      +-- Choke          changes its mind all the    +-- Garbage   stops speaking the protocol
      |                  time                        +-- Silent    accepts the call and says nothing
      +-- Slow           sends a kilobyte a second   +-- Impostor  answers for another torrent

Each is a loop on a thread of its own over a blocking socket: the smallest seeder that there can be, and so also
an example to read.

Spec: BEP 3, 6.
Thread: `gallery` accepts; a thread for each caller.
Lock: `_lock`, around the table of callers' sockets.
"""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, Final

from torrent_client.config import BLOCK_SIZE
from torrent_client.errors import TorrentError
from torrent_client.peer_connection import read_handshake
from torrent_client.protocol import messages
from torrent_client.protocol.messages import Handshake, Message, MessageReader, Request
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import generate_peer_id

ReadBlock = Callable[[int, int, int], bytes]
"""Returns the bytes of a block: piece, begin, length."""

TICK: Final = 0.1
"""Seconds after which a behaviour may do something of its own accord."""

HANDSHAKE_LIMIT: Final = 10.0
"""Seconds that a caller has for its handshake."""

BACKLOG: Final = 16
"""Callers that the system keeps waiting for us."""


class Talk:
    """A conversation with one caller.

    Args:
        sock: connected, handshakes exchanged.
        torrent: which torrent it is about.
        read_block: returns the torrent's bytes.
        rng: luck.
        fast: both sides speak the fast extension.
    """

    def __init__(
        self, sock: socket.socket, torrent: TorrentFile, read_block: ReadBlock, rng: random.Random, *, fast: bool
    ) -> None:
        """Begin with nothing said."""
        self.sock = sock
        self.torrent = torrent
        self.rng = rng
        self.fast = fast
        self.sent_blocks = 0
        self._read_block = read_block
        self._reader = MessageReader()

    def send(self, *what: Message) -> None:
        """Send messages; waits until the system has taken them."""
        self.sock.sendall(b"".join(message.encode() for message in what))

    def send_block(self, request: Request, change: Callable[[bytes], bytes] = bytes) -> None:
        """Answer a request.

        Args:
            request: what was asked for.
            change: makes something else of the block.
        """
        block = self._read_block(*request)
        self.sock.sendall(messages.Piece(request.piece_index, request.begin, change(block)).encode())
        self.sent_blocks += 1

    def receive(self) -> list[Message]:
        """Return what came within a tick, perhaps nothing.

        Raises:
            OSError: the caller has gone.
        """
        self.sock.settimeout(TICK)
        try:
            count = self.sock.recv_into(self._reader.writable())
        except TimeoutError:
            return []
        finally:
            self.sock.settimeout(None)
        if not count:
            raise ConnectionResetError("the caller hung up")
        return self._reader.received(count)


class Behaviour:
    """A seeder that does all as it should."""

    name: ClassVar[str] = "good"
    does: ClassVar[str] = "has every piece, and answers every request"
    advice: ClassVar[str] = "A good client asks for several blocks at a time, and gets them."
    speaks_fast: ClassVar[bool] = True

    def shakes_hands(self, sock: socket.socket, ours: Handshake) -> None:
        """Answer the caller's handshake, which has come."""
        sock.sendall(ours.encode())

    def greet(self, talk: Talk) -> None:
        """Say what we have, before anything else."""
        talk.send(messages.HaveAll() if talk.fast else bitfield_of(talk.torrent))

    def interested(self, talk: Talk) -> None:
        """The caller wants something."""
        talk.send(messages.Unchoke())

    def requested(self, talk: Talk, request: Request) -> None:
        """The caller asks for a block that exists."""
        talk.send_block(request)

    def tick(self, talk: Talk) -> None:
        """A moment has passed."""


class Corrupt(Behaviour):
    """Sends wrong bytes."""

    name = "corrupt"
    does = "answers every request, with one bit of each block turned over"
    advice = (
        "A good client hashes each piece before it writes it, throws bad ones away, and bans the peer whose block it "
        "was, even if others gave the rest of the piece (BEP 3)."
    )

    def requested(self, talk: Talk, request: Request) -> None:
        """Turn one bit over."""
        talk.send_block(request, lambda block: bytes([block[0] ^ 1]) + block[1:])


class Stall(Behaviour):
    """Lets the caller wait for ever."""

    name = "stall"
    does = "unchokes at once, takes every request, and sends nothing"
    advice = (
        "A good client does not wait for ever: after some 20 s it asks others for the same blocks, and this peer for "
        "one at a time (snubbing)."
    )

    def requested(self, talk: Talk, request: Request) -> None:
        """Do nothing."""


class Choke(Behaviour):
    """Changes its mind all the time."""

    name = "choke"
    does = "sends two blocks, chokes, unchokes again, and forgets what was asked before"
    advice = (
        "A good client knows that a choke cancels its requests: it asks others for them, asks again after the unchoke, "
        "and never counts a block as on its way that is not (BEP 3)."
    )
    speaks_fast = False

    def requested(self, talk: Talk, request: Request) -> None:
        """Answer, and change our mind after every second block."""
        talk.send_block(request)
        if talk.sent_blocks % 2 == 0:
            talk.send(messages.Choke())
            talk.receive()  # what was asked for is forgotten
            talk.send(messages.Unchoke())


class Slow(Behaviour):
    """Sends a kilobyte a second."""

    name = "slow"
    does = "answers every request, at 1 KiB/s"
    advice = (
        "A good client takes what comes, and does not let the slowest peer decide when the download ends: in the end "
        "game it asks a fast peer for the same blocks, and takes its requests here back."
    )

    def __init__(self) -> None:
        self._waiting: list[tuple[Talk, Request]] = []

    def requested(self, talk: Talk, request: Request) -> None:
        """Put it off."""
        self._waiting.append((talk, request))

    def tick(self, talk: Talk) -> None:
        """Send the next 102 bytes, more or less: a block in 16 s."""
        if self._waiting and talk.rng.random() < TICK * 1024 / BLOCK_SIZE:
            talk.send_block(self._waiting.pop(0)[1])


class Liar(Behaviour):
    """Promises pieces, and refuses each request."""

    name = "liar"
    does = "says that it has every piece, and rejects every request"
    advice = (
        "A good client asks others for what was rejected, and does not ask this peer for the same block again and "
        "again, as fast as it can refuse (BEP 6)."
    )

    def requested(self, talk: Talk, request: Request) -> None:
        """Refuse; without the fast extension silence says so."""
        if talk.fast:
            talk.send(messages.Reject(*request))


class Flood(Behaviour):
    """Sends what nobody asked for."""

    name = "flood"
    does = "sends blocks that nobody asked for, and the same `have` again and again"
    advice = (
        "A good client throws away what it did not ask for, counts it as wasted, and hangs up on a peer that goes on; "
        "its memory does not grow."
    )

    def greet(self, talk: Talk) -> None:
        """Begin with it, before a quick caller has got what it wants and gone."""
        super().greet(talk)
        self.tick(talk)

    def tick(self, talk: Talk) -> None:
        """Send sixteen blocks at once, and a hundred haves."""
        length = min(BLOCK_SIZE, talk.torrent.total_length)
        for _ in range(16):
            talk.send(messages.Piece(talk.rng.randrange(talk.torrent.piece_count), 0, talk.rng.randbytes(length)))
        talk.send(*[messages.Have(0)] * 100)


class Garbage(Behaviour):
    """Stops speaking the protocol."""

    name = "garbage"
    does = "shakes hands, and goes on with a message of 4 GiB that is random bytes"
    advice = (
        "A good client looks at the length before it takes memory for the message, and hangs up: nothing behind a "
        "length that is wrong can be understood any more (BEP 3)."
    )

    def greet(self, talk: Talk) -> None:
        """Send garbage."""
        talk.sock.sendall(b"\xff\xff\xff\xff" + talk.rng.randbytes(100_000))


class Silent(Behaviour):
    """Accepts the call and says nothing."""

    name = "silent"
    does = "accepts the connection, and never answers the handshake"
    advice = "A good client has a time limit for the handshake, and meanwhile talks to others on other threads."

    def shakes_hands(self, sock: socket.socket, _ours: Handshake) -> None:
        """Wait until the caller has had enough."""
        while sock.recv(1024):
            pass
        raise ConnectionResetError("the caller hung up")


class Impostor(Behaviour):
    """Answers for another torrent."""

    name = "impostor"
    does = "answers the handshake with another info hash"
    advice = "A good client compares the info hash, and hangs up: bytes of another torrent are of no use (BEP 3)."

    def shakes_hands(self, sock: socket.socket, ours: Handshake) -> None:
        """Turn the info hash over."""
        sock.sendall(ours._replace(info_hash=ours.info_hash[::-1]).encode())


BEHAVIOURS: Final[dict[str, type[Behaviour]]] = {
    behaviour.name: behaviour
    for behaviour in (Behaviour, Corrupt, Stall, Choke, Slow, Liar, Flood, Garbage, Silent, Impostor)
}


def bitfield_of(torrent: TorrentFile) -> messages.BitfieldMessage:
    """Return the bitfield of a seeder."""
    count = torrent.piece_count
    return messages.BitfieldMessage(((1 << count) - 1 << -count % 8).to_bytes(-(-count // 8), "big"))


class Gallery:
    """Listens on a port, and treats everybody who calls in one way.

    Args:
        torrent: what it claims to seed.
        read_block: returns the torrent's bytes.
        behaviour: made anew for each caller.
        host: address to listen on.
        port: TCP port; 0 for any.
        say: is told what happens, for people.
        rng: luck.
    """

    def __init__(
        self,
        torrent: TorrentFile,
        read_block: ReadBlock,
        behaviour: type[Behaviour],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        say: Callable[[str], None] = lambda _text: None,
        rng: random.Random | None = None,
    ) -> None:
        """Bind the port.

        Raises:
            TorrentError: it is taken.
        """
        self._torrent = torrent
        self._read_block = read_block
        self._behaviour = behaviour
        self._say = say
        self._rng = rng or random.Random()
        self._peer_id = generate_peer_id(rng)
        self._lock = threading.Lock()
        self._callers: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        try:
            self._sock = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            raise TorrentError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="gallery", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody, and close the port."""
        self._stopping = True
        with self._lock:
            sockets = [self._sock, *self._callers]
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()
        self._sock.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, address = self._sock.accept()
            except OSError:
                return
            with self._lock:
                self._callers.add(sock)
            name = f"{address[0]}:{address[1]}"
            thread = threading.Thread(target=self._serve, args=(sock, name), name=f"gallery {name}", daemon=True)
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]
            thread.start()

    def _serve(self, sock: socket.socket, name: str) -> None:
        """Live through one conversation."""
        began = time.monotonic()
        talk = None
        self._say(f"{name} calls")
        reason = "it hung up"
        try:
            with sock, self._listed(sock):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                behaviour = self._behaviour()
                talk = self._talk(sock, behaviour)
                self._converse(talk, behaviour)
        except (BrokenPipeError, ConnectionResetError):
            reason = "the caller hung up"
        except (OSError, TorrentError) as error:  # the caller's doing, or data that cannot be read any more
            reason = str(error)
        sent = f", {talk.sent_blocks} blocks sent" if talk else ""
        self._say(f"{name} after {time.monotonic() - began:.1f} s{sent}: {reason}")

    @contextmanager
    def _listed(self, sock: socket.socket) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._callers.discard(sock)

    def _talk(self, sock: socket.socket, behaviour: Behaviour) -> Talk:
        """Exchange handshakes."""
        theirs = read_handshake(sock, HANDSHAKE_LIMIT)
        sock.settimeout(None)
        features = [messages.RESERVED_FAST] * behaviour.speaks_fast
        ours = Handshake(self._torrent.info_hash, self._peer_id, messages.reserved_bits(*features))
        behaviour.shakes_hands(sock, ours)
        fast = behaviour.speaks_fast and theirs.supports_fast
        return Talk(sock, self._torrent, self._read_block, self._rng, fast=fast)

    def _converse(self, talk: Talk, behaviour: Behaviour) -> None:
        """Say what the behaviour says, until the caller has gone."""
        behaviour.greet(talk)
        while not self._stopping:
            for message in talk.receive():
                match message:
                    case messages.Interested():
                        behaviour.interested(talk)
                    case Request(index, begin, length) if self._exists(index, begin, length):
                        behaviour.requested(talk, message)
            behaviour.tick(talk)

    def _exists(self, index: int, begin: int, length: int) -> bool:
        """Tell whether a block is one of the torrent's; nothing else is answered."""
        torrent = self._torrent
        start = index * torrent.piece_length + begin
        return index < torrent.piece_count and 0 < length <= 8 * BLOCK_SIZE and start + length <= torrent.total_length
