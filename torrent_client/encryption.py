"""Encrypts connections to peers: negotiates on a new socket, and then stands in its place.

               we dial                                     we are dialled
    off        plaintext                                   plaintext only
    allow      plaintext; if hung up on, encrypted         either; encrypted, the cheaper one that is offered
    prefer     encrypted; if hung up on, plaintext         either; encrypted, RC4 if it is offered
    require    RC4                                         RC4 only

A negotiation ends with RC4 or with plaintext. For RC4 an `EncryptedSocket` takes the place of the socket: it
has the methods that `peer_connection` and `peer_writer` use, and they need not know. RC4 comes from the package
`cryptography`, which is loaded when the first peer wants it; it takes 1.2 s of CPU a GiB. A stranger costs one
exchange of keys, 0.5 ms of CPU, and the time-out of a handshake; no byte is read that is not asked for.

Spec: "Message Stream Encryption", wiki.vuze.com; its bytes are in `protocol.mse`.
Thread: negotiating: the caller's. After that one thread may receive and another send.
Lock: none; each direction has a cipher of its own.
"""

import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from torrent_client.errors import HandshakeError, PeerDisconnected
from torrent_client.protocol import mse
from torrent_client.protocol.messages import PROTOCOL
from torrent_client.protocol.mse import Crypto

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

EITHER: Final = Crypto.PLAINTEXT | Crypto.RC4

DIALS: Final[dict[str, tuple[Crypto | None, ...]]] = {
    "allow": (None, EITHER),
    "prefer": (EITHER, None),
    "require": (Crypto.RC4,),
    "off": (None,),
}
"""By `Config.encryption`: what a peer that we dial is offered, and what when it hangs up on that; None: plaintext."""

_ACCEPTS: Final = {"allow": EITHER, "prefer": EITHER, "require": Crypto.RC4}
_PREFERS: Final = {"allow": Crypto.PLAINTEXT, "prefer": Crypto.RC4, "require": Crypto.RC4}


class Ciphers:
    """The two RC4 streams of a connection."""

    def __init__(self, encrypt: "CipherContext", decrypt: "CipherContext") -> None:
        """Keep both."""
        self.encrypt = encrypt
        self.decrypt = decrypt


class EncryptedSocket:
    """A connected socket on which an encryption was negotiated, in the place of that socket.

    Args:
        sock: where the bytes go.
        ciphers: RC4; None where plaintext was negotiated.
        info_hash: 20 bytes, the torrent that both sides named.
        early: what the peer said, decrypted, during the negotiation.
    """

    def __init__(self, sock: socket.socket, ciphers: Ciphers | None, info_hash: bytes, early: bytes = b"") -> None:
        """Begin after the negotiation."""
        self.is_encrypted = ciphers is not None
        self.info_hash = info_hash
        self._sock = sock
        self._ciphers = ciphers
        self._early = early
        self._unsent = memoryview(b"")  # encrypted already

    def settled(self) -> "PeerSocket":
        """Return what to go on with: the socket itself, if nothing stands between it and its user any more."""
        return self if self._ciphers or self._early else self._sock

    def recv(self, size: int) -> bytes:
        """Receive some bytes, as a socket does."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recvmsg_into([memoryview(buffer)])[0]])

    def recvmsg_into(self, buffers: Sequence[memoryview], _ancillary: int = 0, flags: int = 0) -> tuple[int]:
        """Receive into buffers, one after the other, and decrypt there; return how many bytes came."""
        if self._early:
            count = min(len(self._early), len(buffers[0]))
            buffers[0][:count], self._early = self._early[:count], self._early[count:]
            return (count,)
        count, *_ = self._sock.recvmsg_into(buffers, 0, flags)
        if self._ciphers:
            left = count
            for buffer in buffers:
                self._ciphers.decrypt.update_into(buffer[:left], buffer[:left])
                left -= min(left, len(buffer))
                if not left:
                    break
        return (count,)

    def sendmsg(self, buffers: Iterable[bytes | memoryview], _ancillary: tuple[()] = (), flags: int = 0) -> int:
        """Send what the system takes of some buffers; return how many bytes.

        What it did not take is encrypted already: the next call must begin with these very bytes.
        """
        if not self._ciphers:
            return self._sock.sendmsg(buffers, (), flags)
        if not self._unsent:
            self._unsent = memoryview(self._ciphers.encrypt.update(b"".join(buffers)))
        sent = self._sock.send(self._unsent, flags)
        self._unsent = self._unsent[sent:]
        return sent

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._sock.sendall(self._ciphers.encrypt.update(data) if self._ciphers else data)

    def settimeout(self, seconds: float | None) -> None:
        """Do as the socket does."""
        self._sock.settimeout(seconds)

    def getsockname(self) -> tuple[str, int]:
        """Do as the socket does."""
        host, port, *_ = self._sock.getsockname()
        return host, port

    def getpeername(self) -> tuple[str, int]:
        """Do as the socket does."""
        host, port, *_ = self._sock.getpeername()
        return host, port

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Do as the socket does."""
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """Do as the socket does."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Do as the socket does."""
        self._sock.close()


PeerSocket: TypeAlias = socket.socket | EncryptedSocket


def dial_encrypted(sock: socket.socket, info_hash: bytes, offered: Crypto, hello: bytes, timeout: float) -> PeerSocket:
    """Negotiate on a connection that we made.

    Args:
        sock: connected; its time-out is changed.
        info_hash: 20 bytes, the torrent's.
        offered: what the peer may choose from.
        hello: what to say first, encrypted in any case: our handshake.
        timeout: seconds for all of it.

    Returns:
        What to go on with; the peer's answer to `hello` comes next.

    Raises:
        HandshakeError: the peer speaks something else, or does not have the torrent.
        PeerDisconnected: it closed.
        OSError: the socket's error, or its time-out.
    """
    wire = _Wire(sock, time.monotonic() + timeout)
    private = secrets.randbits(mse.PRIVATE_KEY_BITS)
    wire.send(mse.public_key(private) + _padding())
    secret = mse.shared_secret(private, wire.read(mse.KEY_LENGTH))
    keys = mse.stream_keys(secret, info_hash)
    ciphers = Ciphers(_rc4(keys.dialler), _rc4(keys.acceptor))
    offer = ciphers.encrypt.update(mse.encode_offer(offered, b"", hello))
    wire.send(mse.secret_mark(secret) + mse.mask(mse.torrent_mark(info_hash), secret) + offer)
    wire.skip_to(ciphers.decrypt.update(mse.VERIFICATION))  # zeros, encrypted with the other side's key
    answer = ciphers.decrypt.update(wire.read(mse.ANSWER_LENGTH))
    selected, padding = mse.decode_answer(answer, offered)
    ciphers.decrypt.update(wire.read(padding))
    return sock if selected is Crypto.PLAINTEXT else EncryptedSocket(sock, ciphers, info_hash)


FindTorrent: TypeAlias = Callable[[bytes], bytes | None]
"""Returns the info hash of the torrent with a mark (`mse.torrent_mark`), if it is served."""


def open_incoming(
    sock: socket.socket, mode: str, find_torrent: FindTorrent, timeout: float
) -> tuple[PeerSocket, bytes]:
    """Find out whether a peer that dialled us speaks plaintext, and negotiate if it does not.

    Args:
        sock: accepted; its time-out is changed.
        mode: `Config.encryption`.
        find_torrent: knows the torrents that we serve.
        timeout: seconds for all of it.

    Returns:
        What to go on with, and what was read of the peer's handshake already.

    Raises:
        HandshakeError: it speaks something else, or what our settings do not allow.
        PeerDisconnected: it closed.
        OSError: the socket's error, or its time-out.
    """
    wire = _Wire(sock, time.monotonic() + timeout)
    begun = b""
    while len(begun) < len(PROTOCOL) and PROTOCOL.startswith(begun):
        begun += wire.read_some(len(PROTOCOL) - len(begun))
    if begun == PROTOCOL:
        if mode == "require":
            raise HandshakeError("it does not encrypt, which is required")
        return sock, begun
    if mode == "off":
        raise HandshakeError(f"not a BitTorrent handshake: it begins with {begun!r}")
    return _accept_encrypted(wire, begun, mode, find_torrent), b""


def _accept_encrypted(wire: "_Wire", begun: bytes, mode: str, find_torrent: FindTorrent) -> EncryptedSocket:
    """Negotiate with a peer that dialled us; `begun` is what was read of its public key."""
    public = begun + wire.read(mse.KEY_LENGTH - len(begun))
    private = secrets.randbits(mse.PRIVATE_KEY_BITS)
    secret = mse.shared_secret(private, public)
    wire.send(mse.public_key(private) + _padding())
    wire.skip_to(mse.secret_mark(secret))
    info_hash = find_torrent(mse.mask(wire.read(mse.HASH_LENGTH), secret))
    if info_hash is None:
        raise HandshakeError("it asks for an unknown torrent, encrypted")
    keys = mse.stream_keys(secret, info_hash)
    ciphers = Ciphers(_rc4(keys.acceptor), _rc4(keys.dialler))

    def read(size: int) -> bytes:
        return ciphers.decrypt.update(wire.read(size))

    provided, padding = mse.decode_offer(read(mse.OFFER_LENGTH))
    read(padding)
    early = read(mse.decode_length(read(mse.LENGTH_LENGTH)))
    selected = mse.select(provided, _ACCEPTS[mode], _PREFERS[mode])
    wire.send(ciphers.encrypt.update(mse.encode_answer(selected, b"")))
    return EncryptedSocket(wire.sock, ciphers if selected is Crypto.RC4 else None, info_hash, early)


class _Wire:
    """Exact reads from a socket, all within one deadline, so that a byte now and then does not keep us for ever."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        self._set_timeout()
        self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.read_some(size - len(data))
        return data

    def read_some(self, size: int) -> bytes:
        self._set_timeout()
        data = self.sock.recv(size)
        if not data:
            raise PeerDisconnected("it closed the connection instead of a handshake")
        return data

    def skip_to(self, mark: bytes) -> None:
        """Read a padding of unknown length, and the mark after it."""
        seen = b""
        while missing := mse.bytes_until(mark, seen):
            if len(seen) + missing > mse.MAX_PADDING + len(mark):
                raise HandshakeError("its encryption is not ours")
            seen += self.read(missing)

    def _set_timeout(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self.sock.settimeout(left)


def _padding() -> bytes:
    """Return random bytes of random length, which hide how long the public key before them is."""
    return secrets.token_bytes(secrets.randbelow(mse.MAX_PADDING + 1))


def _rc4(key: bytes) -> "CipherContext":
    """Return an RC4 stream, its beginning thrown away; the same one encrypts and decrypts."""
    from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
    from cryptography.hazmat.primitives.ciphers import Cipher

    stream = Cipher(ARC4(key), mode=None).encryptor()
    stream.update(bytes(mse.DISCARDED))
    return stream
