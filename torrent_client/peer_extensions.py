"""The extension protocol of one torrent: our handshake, each peer's, and whom an extended message is for.

    we say      m = {ut_metadata: 1, ut_pex: 2}      the numbers under which peers send to us
    they say    m = {ut_metadata: 3, ut_pex: 1}      the numbers under which we send to them (`Peer.send_extended`)

An extension is an object with a name; it hears of each peer that speaks it, of its messages, and of its end.

Spec: BEP 10.
Thread: a peer's worker; `tick` in housekeeping.
Lock: none; the numbers never change, and what a peer said is kept in the `Peer`.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from torrent_client import __version__
from torrent_client.config import Config
from torrent_client.peer import Peer
from torrent_client.protocol.extensions import EXTENDED_HANDSHAKE_ID, ExtendedHandshake
from torrent_client.protocol.messages import Extended

CLIENT_NAME: Final = f"torrent-client {__version__}"


class Extension(Protocol):
    """Something that peers may speak.

    Attributes:
        name: its key in `m`, such as `ut_pex`.
    """

    name: str

    def greeted(self, peer: Peer) -> None:
        """Take note of a peer whose handshake says that it speaks this; may be told more than once."""

    def received(self, peer: Peer, payload: bytes) -> None:
        """Handle a message, without its ids.

        Raises:
            ProtocolViolation: it is one that no correct client sends.
        """

    def left(self, peer: Peer) -> None:
        """Forget a peer."""

    def tick(self, now: float) -> None:
        """Do what is due, once a second (monotonic), in housekeeping."""


class PeerExtensions:
    """What we speak with the peers of one torrent.

    Args:
        extensions: in the order of their numbers, from 1.
        port: TCP port that we listen on, told to peers; 0 for none.
        config: how many requests we queue.
    """

    def __init__(self, extensions: Sequence[Extension], port: int, config: Config) -> None:
        """Number the extensions."""
        self._by_number = dict(enumerate(extensions, 1))
        self._port = port
        self._config = config

    def greet(self, peer: Peer, *, upload_only: bool = False, metadata_size: int | None = None) -> None:
        """Send our handshake, to a peer that can read it.

        Args:
            peer: after the BitTorrent handshake.
            upload_only: we want nothing (BEP 21).
            metadata_size: bytes of the `info` dictionary, if we have it.
        """
        connection = peer.connection
        if connection.remote is None or not connection.remote.supports_extensions:
            return
        your_ip = None
        with suppress(ValueError):  # a host name, or no address of the internet at all
            your_ip = ipaddress.ip_address(connection.address.host).packed
        hello = ExtendedHandshake(
            extensions={extension.name: number for number, extension in self._by_number.items()},
            client=CLIENT_NAME,
            port=self._port or None,
            request_queue=self._config.reqq,
            upload_only=upload_only,
            metadata_size=metadata_size,
            your_ip=your_ip,
        )
        connection.send(Extended(EXTENDED_HANDSHAKE_ID, hello.encode()))

    def received(self, peer: Peer, message: Extended) -> ExtendedHandshake | None:
        """Hand a message to its extension; return the peer's handshake if it is that.

        Raises:
            ProtocolViolation: it is one that no correct client sends.
        """
        if message.extension_id != EXTENDED_HANDSHAKE_ID:
            extension = self._by_number.get(message.extension_id)
            if extension:  # else it was sent under a number that we never gave: nothing is lost
                extension.received(peer, message.payload)
            return None
        hello = ExtendedHandshake.decode(message.payload)
        peer.introduce(hello)
        for extension in self._by_number.values():
            if peer.speaks(extension.name):
                extension.greeted(peer)
        return hello

    def left(self, peer: Peer) -> None:
        """Let every extension forget a peer."""
        for extension in self._by_number.values():
            extension.left(peer)

    def tick(self, now: float) -> None:
        """Let every extension do what is due, once a second.

        Args:
            now: monotonic seconds.
        """
        for extension in self._by_number.values():
            extension.tick(now)
