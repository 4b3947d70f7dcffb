"""Which piece of a torrent's metadata to ask which peer for, and whom to believe.

    sizes claimed     34,256 by A, B, C       9,000,000 by D
    34,256 bytes      | A | B | .... |        16 KiB from each, until the SHA-1 of all is the info hash
    9,000,000         | D | .... 549 |        a wrong size fails at its end, and costs nobody else anything

Peers may lie about the size and about the bytes, so that those who claim different sizes never share an attempt. An
attempt that fails was spoilt by one of its suppliers: if there was only one, that is the liar; else from then on each
peer has to give all the pieces itself.

Spec: BEP 9.
Thread: peers' workers, and whoever calls `tick`.
Lock: `_lock`, a leaf, around all of it; messages are sent after it was released.
"""

import time
from collections.abc import Callable, Hashable
from hashlib import sha1
from threading import Lock
from typing import Final, NamedTuple, TypeAlias

from torrent_client.config import MIB
from torrent_client.errors import ProtocolViolation
from torrent_client.peer import Peer
from torrent_client.protocol.metadata import (
    MAX_REFUSALS,
    METADATA_EXTENSION,
    METADATA_PIECE,
    MetadataKind,
    MetadataMessage,
    metadata_pieces,
)

REQUESTS_PER_PEER: Final = 4
"""Pieces asked of one peer at a time: hides the round trip, and leaves some for the others."""

ANSWER_LIMIT: Final = 10.0
"""Seconds after which a piece is asked of somebody else. libtorrent 3 s, which slow lines do not make."""

PAUSE_AFTER_REJECT: Final = 30.0
"""Seconds for which a peer is left alone that refused, or did not answer; it may have the metadata later."""

MAX_HELD: Final = 48 * MIB
"""Bytes that all attempts together may need: a size may be 10 MiB, and each of fifty peers may claim another. Beyond
that the largest attempt makes room for a smaller one, for whoever wants to shut others out has to claim much."""

Attempt: TypeAlias = Hashable
"""What an attempt is known by: the size, or size and peer where peers are not trusted together any more."""


class MetadataProgress(NamedTuple):
    """How far the best attempt is: pieces that came, pieces in all, and peers that offer metadata."""

    pieces_done: int
    pieces_total: int
    offers: int


class _Assembly:
    """One attempt to put the metadata together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pieces: dict[int, bytes] = {}
        self.suppliers: set[Peer] = set()

    @property
    def count(self) -> int:
        return metadata_pieces(self.size)

    def length(self, piece: int) -> int:
        return min(METADATA_PIECE, self.size - piece * METADATA_PIECE)


class MetadataFetcher:
    """Gets the metadata from the peers that have it.

    Args:
        info_hash: 20 bytes, the SHA-1 that the metadata must have.
        on_metadata: is given the raw `info` dictionary, once.
        on_liar: is given each peer that sent wrong bytes.
        clock: monotonic seconds.
    """

    name = METADATA_EXTENSION

    def __init__(
        self,
        info_hash: bytes,
        on_metadata: Callable[[bytes], None],
        on_liar: Callable[[Peer], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with no offers."""
        self._info_hash = info_hash
        self._on_metadata = on_metadata
        self._on_liar = on_liar
        self._clock = clock
        self._lock = Lock()
        self._sizes: dict[Peer, int] = {}  # what each peer claims
        self._attempts: dict[Attempt, _Assembly] = {}
        self._spoilt: set[int] = set()  # sizes of which a shared attempt has failed
        self._asked: dict[Peer, dict[int, float]] = {}  # piece, and when
        self._not_before: dict[Peer, float] = {}
        self._refused: dict[Peer, int] = {}  # requests; each count has one writer, the peer's worker
        self._is_done = False

    def progress(self) -> MetadataProgress:
        """Return how far it is."""
        with self._lock:
            best = max(self._attempts.values(), key=lambda attempt: len(attempt.pieces), default=None)
            if best is None:
                return MetadataProgress(0, 0, len(self._sizes))
            return MetadataProgress(len(best.pieces), best.count, len(self._sizes))

    # --- what peers say ------------------------------------------------------------------------------------

    def greeted(self, peer: Peer) -> None:
        """A peer speaks the extension; if it tells the size, it has the metadata."""
        size = peer.hello.metadata_size if peer.hello else None
        if size is None:
            return
        with self._lock:
            if self._sizes.get(peer) not in (None, size):
                raise ProtocolViolation("it says another metadata size than before")
            self._sizes[peer] = size
            requests = self._next_requests(peer)
        _send(peer, requests)

    def received(self, peer: Peer, payload: bytes) -> None:
        """Take a piece, a rejection, or a request, which we cannot answer.

        Raises:
            ProtocolViolation: it is no message of BEP 9, not the piece that was asked for, or a request too many.
        """
        message = MetadataMessage.decode(payload)
        if message is None:
            return
        if message.kind is MetadataKind.REQUEST:
            self._refused[peer] = self._refused.get(peer, 0) + 1
            if self._refused[peer] > MAX_REFUSALS:
                raise ProtocolViolation("it asks for metadata again and again")
            peer.send_extended(self.name, MetadataMessage(MetadataKind.REJECT, message.piece).encode())
            return
        metadata, liar = None, None
        with self._lock:
            if self._asked.get(peer, {}).pop(message.piece, None) is None:
                return  # nobody asked, or not any more
            if message.kind is MetadataKind.REJECT:
                self._not_before[peer] = self._clock() + PAUSE_AFTER_REJECT
            else:
                metadata, liar = self._store(peer, message)
            requests = [] if liar else self._next_requests(peer)
        if liar:
            self._on_liar(liar)
        elif metadata is not None:
            self._on_metadata(metadata)
        _send(peer, requests)

    def left(self, peer: Peer) -> None:
        """Forget a peer; what it sent stays, for it may well be good."""
        with self._lock:
            size = self._sizes.pop(peer, None)
            self._asked.pop(peer, None)
            self._not_before.pop(peer, None)
            self._refused.pop(peer, None)
            self._attempts.pop((size, peer), None)

    def tick(self, now: float) -> None:
        """Ask others for what did not come; called once a second (monotonic)."""
        with self._lock:
            for peer, asked in self._asked.items():
                late = [piece for piece, since in asked.items() if now - since >= ANSWER_LIMIT]
                if late:
                    self._not_before[peer] = now + PAUSE_AFTER_REJECT
                    for piece in late:
                        del asked[piece]
            requests = [(peer, self._next_requests(peer)) for peer in self._sizes]
        for peer, messages in requests:
            _send(peer, messages)

    # --- with the lock held --------------------------------------------------------------------------------

    def _attempt(self, peer: Peer) -> Attempt:
        """Return which attempt a peer takes part in."""
        size = self._sizes[peer]
        return (size, peer) if size in self._spoilt else size

    def _next_requests(self, peer: Peer) -> list[MetadataMessage]:
        """Choose what to ask a peer for, and take note of it."""
        now = self._clock()
        if self._is_done or peer not in self._sizes or self._not_before.get(peer, 0.0) > now:
            return []
        key = self._attempt(peer)
        assembly = self._attempts.get(key)
        if assembly is None:
            assembly = _Assembly(self._sizes[peer])
            if not self._make_room(assembly.size):
                return []
            self._attempts[key] = assembly
        ours = self._asked.setdefault(peer, {})
        missing = [piece for piece in range(assembly.count) if piece not in assembly.pieces and piece not in ours]
        elsewhere = {piece for other, asked in self._asked.items() if self._attempt(other) == key for piece in asked}
        fresh = [piece for piece in missing if piece not in elsewhere]
        # When all that is left was asked of others, it is asked twice: 16 KiB more cost less than a slow peer.
        chosen = (fresh or missing)[: max(0, REQUESTS_PER_PEER - len(ours))]
        ours.update(dict.fromkeys(chosen, now))
        return [MetadataMessage(MetadataKind.REQUEST, piece) for piece in chosen]

    def _make_room(self, size: int) -> bool:
        """See that there is room for another attempt, at the expense of larger ones; tell whether there is."""
        while sum(attempt.size for attempt in self._attempts.values()) + size > MAX_HELD:
            largest = max(self._attempts, key=lambda key: self._attempts[key].size)
            if self._attempts[largest].size <= size:
                return False
            del self._attempts[largest]
        return True

    def _store(self, peer: Peer, message: MetadataMessage) -> tuple[bytes | None, Peer | None]:
        """Keep a piece; return the metadata if that was the last one and all is good, or the liar if it is known."""
        assembly = self._attempts.get(self._attempt(peer))
        if self._is_done or assembly is None:
            return None, None
        if message.total_size != assembly.size or len(message.data) != assembly.length(message.piece):
            raise ProtocolViolation("a metadata piece of another size than it told (BEP 9)")
        if message.piece not in assembly.pieces:
            assembly.pieces[message.piece] = message.data
            assembly.suppliers.add(peer)
        if len(assembly.pieces) < assembly.count:
            return None, None
        metadata = b"".join(assembly.pieces[piece] for piece in range(assembly.count))
        if sha1(metadata).digest() == self._info_hash:
            self._is_done = True
            self._attempts.clear()
            return metadata, None
        del self._attempts[self._attempt(peer)]
        self._spoilt.add(assembly.size)
        return None, peer if assembly.suppliers == {peer} else None


def _send(peer: Peer, messages: list[MetadataMessage]) -> None:
    for message in messages:
        peer.send_extended(METADATA_EXTENSION, message.encode())
