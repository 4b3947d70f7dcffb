"""Calls one peer, asks it for something, and says what it made of that.

    connect --> handshake --> pieces --> interested --> unchoke --> request --> block ... piece, hash
       |            |           |                          |            |                    |
    refused      hung up     has nothing                choked us    stalls               corrupt
    timed out    ourselves

Of a magnet link the peer is asked for the metadata instead. Every wait has a limit: a timer closes the connection, and
what was seen until then is what there is to say.

Spec: BEP 3 (peer protocol), 6 (fast extension), 9 (metadata), 10 (extension handshake).
Thread: one for each peer, the caller's of `run`; `close` from any.
Lock: none.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from threading import Timer
from typing import Final, NamedTuple

from torrent_client.bitfield import Bitfield
from torrent_client.config import BLOCK_SIZE, MAX_MESSAGE_LENGTH, MIB, Config
from torrent_client.doctor.diagnosis import Finding, Outcome, Supply
from torrent_client.errors import HandshakeError, PeerError, ProtocolViolation
from torrent_client.peer_connection import PeerConnection
from torrent_client.plain_client import say_hello
from torrent_client.plain_metadata import MetadataPeer
from torrent_client.protocol.client_names import client_name
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.protocol.messages import (
    BitfieldMessage,
    Choke,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    Message,
    Piece,
    Reject,
    Request,
    Unchoke,
)
from torrent_client.text import format_size, printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

MAX_WHOLE_PIECE: Final = MIB
"""Bytes of a piece that is fetched whole, so that its hash tells about the peer; of a larger one a block is."""

MAX_UNASKED: Final = 4
"""Blocks that were never asked for, after which a peer is left: correct clients send none."""

MAX_REJECTS: Final = 64
"""Requests in all that a peer may reject: as many blocks as the largest piece that is asked for has."""


class Patience(NamedTuple):
    """Seconds that each step may take.

    Attributes:
        connect: TCP.
        handshake: the handshake, and of a magnet link all of the metadata.
        pieces: until the peer says that it has any; one without need not say so.
        unchoke: until it lets us ask. Transmission looks around every 10 s.
        block: for each block.
    """

    connect: float = 4.0
    handshake: float = 5.0
    pieces: float = 3.0
    unchoke: float = 11.0
    block: float = 6.0


class Contact(NamedTuple):
    """A peer to call: where it is, and who told us of it."""

    address: PeerAddress
    source: str


class PeerProbe:
    """Calls one peer.

    Args:
        contact: whom.
        info_hash: 20 bytes.
        peer_id: 20 bytes, ours.
        torrent: what to ask for; None for the metadata.
        config: encryption and the proxy.
        patience: time limits.
        fetches_whole: ask for a whole piece if it is not too large, not only for a block.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        contact: Contact,
        info_hash: bytes,
        peer_id: bytes,
        torrent: TorrentFile | None,
        config: Config,
        patience: Patience | None = None,
        *,
        fetches_whole: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call nobody yet."""
        self._contact = contact
        self._torrent = torrent
        self._patience = patience or Patience()
        self._config = _hasty(config, self._patience)
        self._fetches_whole = fetches_whole
        self._clock = clock
        self._metadata_peer: MetadataPeer | None = None
        if torrent is None:
            self._metadata_peer = MetadataPeer(contact.address, info_hash, peer_id, self._config)
            self._connection = self._metadata_peer.connection
        else:
            self._connection = PeerConnection(
                contact.address,
                info_hash,
                peer_id,
                extensions=True,
                fast=True,
                max_message_length=max(MAX_MESSAGE_LENGTH, torrent.piece_count // 8 + 2),
                config=self._config,
            )
        self._timer: Timer | None = None
        self._has = 0  # pieces, as a set of bits
        self._client = ""
        self._wanted: list[Request] = []  # blocks of one piece, asked for and not here yet
        self._asked: set[Request] = set()  # all that were asked for; after a choke they may come twice
        self._blocks: dict[int, bytes] = {}  # by their place in that piece
        self._unchoked_after: float | None = None
        self._chokes = self._rejects = self._unasked = 0

    @property
    def contact(self) -> Contact:
        """Whom it calls."""
        return self._contact

    def close(self) -> None:
        """Hang up; from any thread. `run` then says what it has seen."""
        self._connection.close("time is up")

    def run(self) -> Finding:
        """Call the peer and return what came of it."""
        began = self._clock()
        try:
            with self._connection:
                try:
                    finding = self._metadata() if self._metadata_peer else self._exchange()
                finally:
                    self._allow(0)
        except PeerError as error:
            finding = self._failed(error)
        return replace(finding, seconds=self._clock() - began)

    # --- the conversation ------------------------------------------------------------------------------

    def _metadata(self) -> Finding:
        """Ask for the metadata of a magnet link."""
        assert self._metadata_peer
        self._allow(self._patience.connect + 2 * self._patience.handshake)
        self._metadata_peer.meet()
        self._client = self._name(self._metadata_peer.hello)
        size = self._metadata_peer.hello.metadata_size
        if size is None:
            return self._finding(Outcome.NOTE, "without metadata", "it does not have the metadata itself")
        if self._fetches_whole:
            self._metadata_peer.fetch()
            text = f"gave us the metadata, {format_size(size)}"
        else:
            text = f"has the metadata, {format_size(size)}"
        return self._finding(Outcome.OK, "has the metadata", text, supply=Supply.GIVES, pieces=1)

    def _exchange(self) -> Finding:
        """Shake hands, and ask for a piece."""
        connection = self._connection
        connection.connect()
        remote = connection.handshake()
        self._client = client_name(remote.peer_id)
        if connection.fast:
            connection.send(HaveNone())
        if remote.supports_extensions:
            say_hello(connection)
        self._allow(self._patience.pieces)
        began = self._clock()
        while not self._is_answered:
            for message in connection.receive():
                self._received(message, began)
        return self._conclude()

    @property
    def _is_answered(self) -> bool:
        """Whether the peer has shown what it is like."""
        if self._unasked > MAX_UNASKED or self._rejects > MAX_REJECTS:
            return True
        has_asked = bool(self._blocks) or self._rejects > 0
        return has_asked and not self._wanted

    def _received(self, message: Message, began: float) -> None:
        """Take note of a message, and go on to the next step where it is the answer to the last one."""
        match message:
            case BitfieldMessage(bits):
                self._told(Bitfield.from_bytes(bits, self._piece_count).bits)
            case HaveAll():
                self._told((1 << self._piece_count) - 1)
            case Have(index) if index < self._piece_count:
                self._told(1 << index)
            case Extended(extension_id, payload) if extension_id == EXTENDED_HANDSHAKE_ID:
                self._client = self._name(ExtendedHandshake.decode(bytes(payload)))
            case Choke():
                self._chokes += 1
            case Unchoke():
                if self._unchoked_after is None:
                    self._unchoked_after = self._clock() - began
                self._ask()
            case Piece(index, begin, block):
                self._took(Request(index, begin, len(block)), bytes(block))
            case Reject(index, begin, length):
                self._rejects += 1
                request = Request(index, begin, length)
                if request in self._wanted:
                    self._wanted.remove(request)
            case _:
                pass

    def _told(self, pieces: int) -> None:
        """The peer has pieces: ask to be let in."""
        is_first = pieces and not self._has
        self._has |= pieces
        if is_first:
            self._allow(self._patience.unchoke)
            self._connection.send(Interested())

    def _ask(self) -> None:
        """Ask for what is still to be had of one piece, which is chosen the first time."""
        if not self._wanted and not self._blocks and self._has:
            self._wanted = self._choose()
        if self._wanted:
            self._allow(self._patience.block)
            self._asked.update(self._wanted)
            for request in self._wanted:
                self._connection.send(request)

    def _choose(self) -> list[Request]:
        """Return the blocks of the last piece that the peer has: the torrent's last one is the shortest."""
        torrent = self._torrent
        assert torrent
        index = self._has.bit_length() - 1
        size = min(torrent.piece_length, torrent.total_length - index * torrent.piece_length)
        requests = [Request(index, begin, min(BLOCK_SIZE, size - begin)) for begin in range(0, size, BLOCK_SIZE)]
        return requests if self._fetches_whole and size <= MAX_WHOLE_PIECE else requests[:1]

    def _took(self, request: Request, block: bytes) -> None:
        """Keep a block that was asked for, and count the others."""
        if request not in self._wanted:
            self._unasked += request not in self._asked
            return
        self._wanted.remove(request)
        self._blocks[request.begin] = block
        if self._wanted:
            self._allow(self._patience.block)

    def _allow(self, seconds: float) -> None:
        """Hang up after so many seconds from now; 0 for never, any more."""
        if self._timer:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        if seconds:
            self._timer = Timer(seconds, self.close)
            self._timer.daemon, self._timer.name = True, "probe-limit"
            self._timer.start()

    # --- what it means ---------------------------------------------------------------------------------

    def _failed(self, error: PeerError) -> Finding:
        """Return what to say of a conversation that has ended by itself, or by our clock."""
        connection = self._connection
        reason = printable(str(error))
        if isinstance(error, ProtocolViolation):
            return self._finding(
                Outcome.BAD,
                "broke the protocol",
                f"breaks the protocol: {reason}",
                "nothing on your side: a download leaves it, and asks others",
            )
        if isinstance(error, HandshakeError):
            return self._no_handshake(reason)
        if connection.remote is None:
            return self._unreachable(error, reason)
        if self._torrent is None:
            text = "did not give the metadata in time" if connection.close_reason == "time is up" else reason
            return self._finding(
                Outcome.NOTE,
                "without metadata",
                text,
                "a magnet link needs one peer that has the metadata, and others may",
            )
        if connection.close_reason == "time is up":
            return self._conclude()
        return self._finding(
            Outcome.NOTE,
            "hung up",
            f"{self._has_words()}, and hung up: {reason}",
            "it has no place for you now, or needs nothing of you; a download calls it again later",
            supply=Supply.WAITS if self._is_partner else Supply.NOTHING,
            pieces=self._has,
        )

    @property
    def _is_partner(self) -> bool:
        """Whether the peer has something, and has not broken any rule."""
        return bool(self._has) and self._unasked <= MAX_UNASKED

    def _no_handshake(self, reason: str) -> Finding:
        if "ourselves" in reason:
            return self._finding(Outcome.OFF, "ourselves", "that is this client itself")
        if "another torrent" in reason:
            return self._finding(
                Outcome.BAD,
                "with another torrent",
                f"answers for another torrent: {reason}",
                "nothing on your side: whoever told us of it is out of date",
            )
        advice = "it is another program, or it insists on encryption of another kind: see --encryption"
        return self._finding(Outcome.BAD, "no peer", f"does not speak BitTorrent: {reason}", advice)

    def _unreachable(self, error: PeerError, reason: str) -> Finding:
        """Return what to say of a peer that never answered the handshake."""
        cause = error.__cause__
        if self._connection.close_reason == "time is up":
            return self._finding(Outcome.NOTE, "not finished", "did not answer before time was up")
        if reason.startswith("the proxy"):
            return self._finding(Outcome.BAD, "not reached", reason, "see the proxy above: peers are called through it")
        if not reason.startswith("cannot connect"):
            if isinstance(cause, TimeoutError):
                text, advice = "takes the call, and never answers", "it hangs, or is no peer any more"
                return self._finding(Outcome.BAD, "silent", text, advice)
            if "closed" in reason or isinstance(cause, ConnectionError):
                text = "hung up before it said anything"
                is_strict = self._config.encryption == "require"
                advice = "it does not have this torrent any more, is full, or "
                advice += "does not do what --encryption require wants" if is_strict else "wants --encryption prefer"
                return self._finding(Outcome.BAD, "hung up", text, advice)
            return self._finding(Outcome.BAD, "not reached", reason, "the connection broke: see your network")
        if isinstance(cause, ConnectionRefusedError):
            return self._finding(Outcome.BAD, "refused", "refused: nothing listens there", "it has gone since")
        if isinstance(cause, TimeoutError):
            text, advice = (
                "timed out",
                "it has gone, or nobody can call it (no port forwarded); if all do: your firewall",
            )
            return self._finding(Outcome.BAD, "timed out", text, advice)
        return self._finding(Outcome.BAD, "not reached", reason, "no way leads there from here: see your network")

    def _conclude(self) -> Finding:
        """Return what to say of a peer that talked to us."""
        has = self._has_words()
        if self._unasked > MAX_UNASKED:
            text = f"{has}, and sends what nobody asked for"
            advice = "nothing on your side: a download throws that away, and leaves it"
            return self._finding(Outcome.BAD, "flooded us", text, advice)
        if not self._has:
            advice = "it waits as you do: somebody with all pieces (a seeder) is missing"
            return self._finding(Outcome.NOTE, "has nothing", "has no pieces yet", advice)
        if self._unchoked_after is None:
            text = f"{has}, and has not unchoked us in {self._patience.unchoke:.0f} s"
            advice = "it is busy with others: a download waits for its turn"
            return self._finding(Outcome.NOTE, "choked us", text, advice, supply=Supply.WAITS, pieces=self._has)
        unchoked = f"{has}, unchoked us after {self._unchoked_after:.1f} s"
        if self._chokes:
            unchoked += (
                f" (and choked us again, {self._chokes} times)" if self._chokes > 1 else " (and choked us again)"
            )
        return self._of_blocks(unchoked)

    def _of_blocks(self, unchoked: str) -> Finding:
        """Return what to say of a peer that let us ask."""
        if self._rejects and not self._blocks:
            advice = "nothing on your side: it promises what it does not give; a download asks others"
            return self._finding(Outcome.BAD, "rejected all", f"{unchoked}, and rejects every request", advice)
        if not self._blocks:
            text = f"{unchoked}, and sent no block in {self._patience.block:.0f} s"
            advice = "it stalls, or is very slow: a download asks others for the same"
            return self._finding(Outcome.BAD, "stalled", text, advice, supply=Supply.STALLS, pieces=self._has)
        index, data = self._has.bit_length() - 1, b"".join(block for _, block in sorted(self._blocks.items()))
        assert self._torrent
        hashes = self._torrent.piece_hashes
        if len(data) < min(self._torrent.piece_length, self._torrent.total_length - index * self._torrent.piece_length):
            text = f"{unchoked}, gave {format_size(len(data))}"
            return self._finding(Outcome.OK, "gave a block", text, supply=Supply.GIVES, pieces=self._has)
        if sha1(data).digest() != hashes[20 * index : 20 * index + 20]:
            text = f"{unchoked}, and gave a corrupt piece"
            advice = "nothing on your side: its data is damaged, or it lies; a download bans it, and asks others"
            return self._finding(Outcome.BAD, "corrupt", text, advice)
        text = f"{unchoked}, gave a good piece"
        return self._finding(Outcome.OK, "gave a piece", text, supply=Supply.GIVES, pieces=self._has)

    def _finding(
        self,
        outcome: Outcome,
        result: str,
        text: str,
        advice: str = "",
        *,
        supply: Supply = Supply.NOTHING,
        pieces: int = 0,
    ) -> Finding:
        connection = self._connection
        connected = connection.remote is not None
        encrypted = connected and connection.is_encrypted
        client = f"{self._client}: " if self._client else ""
        facts = {
            "result": result,
            "source": self._contact.source,
            "connected": connected,
            "client": self._client or None,
            "encrypted": encrypted,
            "has": self._share if connected and self._torrent else None,
            "unchoked_after": self._unchoked_after,
        }
        words = f"{client}{text}{', encrypted' if encrypted else ''}"
        subject = printable(str(self._contact.address))
        return Finding("peer", subject, outcome, words, advice, supply=supply, pieces=pieces, facts=facts)

    @property
    def _piece_count(self) -> int:
        return self._torrent.piece_count if self._torrent else 0

    @property
    def _share(self) -> int:
        """Per cent of the pieces that the peer has, rounded down: 100 means all."""
        return 100 * self._has.bit_count() // max(1, self._piece_count)

    def _has_words(self) -> str:
        return f"has {self._share} % of the pieces"

    def _name(self, hello: ExtendedHandshake) -> str:
        """Return what the peer calls itself, or what its id says."""
        remote = self._connection.remote
        return hello.client or (client_name(remote.peer_id) if remote else "")


def _hasty(config: Config, patience: Patience) -> Config:
    """Return the settings with less time for everything."""
    return config._replace(
        connect_timeout=patience.connect,
        handshake_timeout=patience.handshake,
        proxy_timeout=min(config.proxy_timeout, 2 * patience.connect),
    )
