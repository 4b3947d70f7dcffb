"""Accepts peers that dial us, reads their handshake, and hands each to the torrent that it names.

    accept --> handshake reader (a few threads) --> info_hash --> DownloadManager.accept
                  (encrypted: `encryption`)

The handshake comes first because it tells which torrent the peer is for; a stranger that says nothing
costs one of a few threads for ten seconds.

Spec: BEP 3.
Thread: `listener` accepts; `hello` threads read handshakes.
Lock: `_lock`, a leaf, around the table of torrents and the sockets whose handshake is being read.
"""

import errno
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from threading import Event, Lock, Thread
from typing import TypeAlias

from torrent_client.config import Config
from torrent_client.encryption import EncryptedSocket, PeerSocket, open_incoming
from torrent_client.errors import HandshakeError, PeerError, TorrentError
from torrent_client.peer_connection import read_handshake
from torrent_client.protocol.messages import Handshake
from torrent_client.protocol.mse import torrent_mark
from torrent_client.tracker_client import PeerAddress

logger = logging.getLogger(__name__)

AcceptPeer: TypeAlias = Callable[[PeerSocket, PeerAddress, Handshake], bool]
"""Takes over an accepted socket; False when there is no room for it."""

HELLO_THREADS = 8
"""Handshakes read at once."""

HELLOS_PER_HOST = 2
"""Handshakes read at once from one address, so that one stranger cannot occupy all threads. Not 1: two clients may
share a router. This machine's own address is exempt: tests, and proxies, call from it many times."""

BACKLOG = 64
"""Connections that the kernel keeps for us until we accept them."""


class Listener:
    """Listens for peers on one TCP port, IPv4 and IPv6.

    Args:
        config: the port, and time-outs.
    """

    def __init__(self, config: Config) -> None:
        """Bind the port.

        Raises:
            TorrentError: not one port is free.
        """
        self._config = config
        self._sock = _bind(config)
        self.port: int = self._sock.getsockname()[1]
        self._lock = Lock()
        self._torrents: dict[bytes, AcceptPeer] = {}
        self._marks: dict[bytes, bytes] = {}  # their info hashes, by what an encrypted handshake names them
        self._greeting: dict[socket.socket, str] = {}  # with the caller's host
        self._stopping = Event()
        self._hello = ThreadPoolExecutor(HELLO_THREADS, thread_name_prefix="hello")
        self._thread = Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def serve(self, info_hash: bytes, accept: AcceptPeer) -> None:
        """Hand peers for this torrent over to `accept`."""
        mark = torrent_mark(info_hash)
        with self._lock:
            self._torrents[info_hash] = accept
            self._marks[mark] = info_hash

    def stop(self) -> None:
        """Close the port; leave no thread or socket behind."""
        self._stopping.set()
        with self._lock:
            greeting = list(self._greeting)
        for sock in (self._sock, *greeting):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()
        self._sock.close()
        self._hello.shutdown(wait=True)

    def _run(self) -> None:
        """Accept until we stop."""
        while not self._stopping.is_set():
            try:
                sock, address = self._sock.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._stopping.is_set():
                    logger.warning("cannot accept peers: %s", error.strerror)
                    self._stopping.wait(self._config.housekeeping_interval)  # no handles left, say: let some go
                continue
            self._greet_soon(sock, _peer_address(address))

    def _greet_soon(self, sock: socket.socket, address: PeerAddress) -> None:
        """Give a caller to a handshake reader, or hang up on it where there are too many."""
        is_ours = ip_address(address.host).is_loopback
        with self._lock:
            hosts = list(self._greeting.values())
            crowded = len(hosts) >= 2 * HELLO_THREADS or (not is_ours and hosts.count(address.host) >= HELLOS_PER_HOST)
            refused = crowded or self._stopping.is_set()
            if not refused:
                self._greeting[sock] = address.host
        if refused:
            sock.close()
            return
        try:
            self._hello.submit(self._greet, sock, address)
        except RuntimeError as error:  # the system has no thread left
            logger.warning("cannot accept %s: %s", address, error)
            with self._lock:
                self._greeting.pop(sock, None)
            sock.close()

    def _greet(self, sock: socket.socket, address: PeerAddress) -> None:
        """Read one handshake and hand the socket over, or close it."""
        taken = False
        try:
            stream, handshake = self._read_handshake(sock)
            with self._lock:
                accept = self._torrents.get(handshake.info_hash)
                self._greeting.pop(sock, None)
            if accept:
                taken = accept(stream, address, handshake)
            else:
                logger.debug("%s asks for an unknown torrent", address)
        except (OSError, PeerError) as error:
            logger.debug("%s: %s", address, error)
        except Exception:
            logger.exception("%s: the listener failed", address)
        finally:
            with self._lock:
                self._greeting.pop(sock, None)
            if not taken:
                sock.close()

    def _read_handshake(self, sock: socket.socket) -> tuple[PeerSocket, Handshake]:
        """Read a handshake, after negotiating encryption where the caller wants that."""
        deadline = time.monotonic() + self._config.handshake_timeout
        stream, begun = open_incoming(sock, self._config.encryption, self._info_hash, self._config.handshake_timeout)
        handshake = read_handshake(stream, deadline - time.monotonic(), begun)
        if not isinstance(stream, EncryptedSocket):
            return stream, handshake
        if stream.info_hash != handshake.info_hash:
            raise HandshakeError("it names one torrent to encrypt, and then another one")
        return stream.settled(), handshake

    def _info_hash(self, mark: bytes) -> bytes | None:
        """Return which of our torrents an encrypted handshake is for."""
        with self._lock:
            return self._marks.get(mark)


def _bind(config: Config) -> socket.socket:
    """Bind the wanted port, the next free one, or any."""
    first = config.listen_port
    ports = [*range(first, min(first + config.listen_port_tries, 65_536)), 0] if first else [0]
    for port in ports:
        try:
            sock = _bind_port(port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or not port:
                raise TorrentError(f"cannot listen for peers: {error.strerror}") from error
            logger.info("port %d is taken", port)
            continue
        sock.settimeout(config.socket_tick)
        return sock
    raise TorrentError("cannot listen for peers: no port is free")


def _bind_port(port: int) -> socket.socket:
    """Listen on IPv6 and IPv4 together where the system can, else on IPv4."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=BACKLOG)


def _peer_address(address: tuple[str, int]) -> PeerAddress:
    """Return a peer's address, IPv4 in its usual form."""
    ip = ip_address(address[0].partition("%")[0])
    return PeerAddress(str(getattr(ip, "ipv4_mapped", None) or ip), address[1])
