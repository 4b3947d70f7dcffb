"""Message stream encryption: keys that two strangers agree on, and the fields of its handshake.

    A dials                                                             B knows the torrents
    Ya 96 | PadA 0-512          --------------------------------------->
                                <---------------------------------------      Yb 96 | PadB 0-512
    HASH(req1, S) 20 | HASH(req2, SKEY) xor HASH(req3, S) 20 |
      with A's key: VC 8 | provides 4 | length 2 | PadC | length 2 | IA -->
                                <--- with B's key: VC 8 | selects 4 | length 2 | PadD
    from here on RC4 or plaintext, as B selected

Y is a public key of Diffie and Hellman's, S the secret that both then know, SKEY the torrent's info hash: who
does not have that cannot find out what is talked about. The paddings, whose lengths are not told, hide the
lengths of the first messages; the first mark after each (`HASH(req1, S)`, the encrypted VC) tells where it ends.
IA is what A says first: its BitTorrent handshake. RC4's first 1,024 bytes are thrown away. None of this proves
who the other one is, and RC4 is broken: it hides BitTorrent from traffic shapers, no more.

Spec: "Message Stream Encryption", wiki.vuze.com (there is no BEP).
Thread: pure.
Lock: none.
"""

from enum import IntFlag
from hashlib import sha1
from struct import Struct
from typing import Final, NamedTuple

from torrent_client.errors import HandshakeError

KEY_LENGTH: Final = 96
"""Bytes of a public key and of the secret: 768 bits."""

PRIVATE_KEY_BITS: Final = 160
"""Random bits of a private key; the specification: more do not make it safer, 128 are too few."""

MAX_PADDING: Final = 512
"""Bytes of each of the four paddings."""

HASH_LENGTH: Final = 20
"""Bytes of every HASH, which is SHA-1."""

DISCARDED: Final = 1024
"""Bytes of each RC4 stream that are thrown away, because they would betray the key."""

VERIFICATION: Final = bytes(8)
"""VC: zeros, which show, decrypted, that both have the same key."""

_PRIME: Final = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74"
    "020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437"
    "4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    16,
)
_GENERATOR: Final = 2

_OFFER = Struct(">8sIH")
_ANSWER = Struct(">IH")
_LENGTH = Struct(">H")

OFFER_LENGTH: Final = _OFFER.size
"""Bytes of A's encrypted part as far as PadC."""

ANSWER_LENGTH: Final = _ANSWER.size
"""Bytes of B's encrypted part between VC and PadD."""

LENGTH_LENGTH: Final = _LENGTH.size
"""Bytes of the length of IA."""


class Crypto(IntFlag):
    """What the stream after the handshake may be, or is."""

    PLAINTEXT = 1
    RC4 = 2


class StreamKeys(NamedTuple):
    """The RC4 keys, 20 bytes each, by who sends with them."""

    dialler: bytes
    acceptor: bytes


def public_key(private: int) -> bytes:
    """Return the 96 bytes that the other side may see."""
    return pow(_GENERATOR, private, _PRIME).to_bytes(KEY_LENGTH, "big")


def shared_secret(private: int, public: bytes) -> bytes:
    """Return S, 96 bytes, from our private key and the other side's public one.

    Raises:
        HandshakeError: a public key with which anybody would know the secret.
    """
    number = int.from_bytes(public, "big")
    if not 1 < number < _PRIME - 1:
        raise HandshakeError("its public key is none")
    return pow(number, private, _PRIME).to_bytes(KEY_LENGTH, "big")


def stream_keys(secret: bytes, info_hash: bytes) -> StreamKeys:
    """Return the keys of both directions."""
    return StreamKeys(*(sha1(name + secret + info_hash).digest() for name in (b"keyA", b"keyB")))


def secret_mark(secret: bytes) -> bytes:
    """Return what A says after PadA: HASH(req1, S)."""
    return sha1(b"req1" + secret).digest()


def torrent_mark(info_hash: bytes) -> bytes:
    """Return HASH(req2, SKEY), by which B finds the torrent."""
    return sha1(b"req2" + info_hash).digest()


def mask(mark: bytes, secret: bytes) -> bytes:
    """Hide a torrent's mark from those who do not have the secret, or uncover it."""
    return bytes(a ^ b for a, b in zip(mark, sha1(b"req3" + secret).digest(), strict=True))


def encode_offer(provides: Crypto, padding: bytes, initial: bytes) -> bytes:
    """Return A's part that is to be encrypted.

    Args:
        provides: what B may choose from.
        padding: PadC.
        initial: IA, at most 65,535 bytes.
    """
    head = _OFFER.pack(VERIFICATION, provides, len(padding))
    return head + padding + _LENGTH.pack(len(initial)) + initial


def decode_offer(data: bytes) -> tuple[Crypto, int]:
    """Read the `OFFER_LENGTH` bytes before PadC: what A provides, and PadC's length.

    Raises:
        HandshakeError: A has another key, or is broken.
    """
    verification, provides, length = _OFFER.unpack(data)
    if verification != VERIFICATION:
        raise HandshakeError("its encryption is not ours")
    return Crypto(provides & (Crypto.PLAINTEXT | Crypto.RC4)), _padding(length)


def decode_length(data: bytes) -> int:
    """Read the length of IA."""
    length: int = _LENGTH.unpack(data)[0]
    return length


def encode_answer(selected: Crypto, padding: bytes) -> bytes:
    """Return B's part that is to be encrypted: VC, the choice, and PadD."""
    return VERIFICATION + _ANSWER.pack(selected, len(padding)) + padding


def decode_answer(data: bytes, provided: Crypto) -> tuple[Crypto, int]:
    """Read the `ANSWER_LENGTH` bytes between VC and PadD: what B selected, and PadD's length.

    Raises:
        HandshakeError: it was not provided, or B is broken.
    """
    selected, length = _ANSWER.unpack(data)
    if selected not in (Crypto.PLAINTEXT, Crypto.RC4) or not selected & provided:
        raise HandshakeError(f"it selects encryption {selected}, which was not offered")
    return Crypto(selected), _padding(length)


def select(provided: Crypto, accepted: Crypto, preferred: Crypto) -> Crypto:
    """Return what the stream will be.

    Raises:
        HandshakeError: nothing suits both sides.
    """
    common = provided & accepted
    if not common:
        raise HandshakeError("it offers no encryption that we accept")
    return preferred if preferred in common else common


def bytes_until(mark: bytes, seen: bytes) -> int:
    """Return how many bytes must come at least until `mark` is whole; 0 where `seen` ends with it.

    So that a mark can be looked for without reading a byte of what comes after it.
    """
    begun = next(length for length in range(len(mark), -1, -1) if seen.endswith(mark[:length]))
    return len(mark) - begun


def _padding(length: int) -> int:
    """Check the length of a padding that is told."""
    if length > MAX_PADDING:
        raise HandshakeError(f"a padding of {length} bytes, more than {MAX_PADDING}")
    return length
