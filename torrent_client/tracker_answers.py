"""What trackers are told and what they answer, whatever they speak: HTTP or UDP.

Spec: BEP 3 (trackers), 23 (compact peers), 7 (IPv6), 24 (external address), 48 (scrape).
Thread: pure.
Lock: none.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from socket import AddressFamily
from struct import iter_unpack
from typing import NamedTuple, Protocol

from torrent_client.abort import Abort


class PeerAddress(NamedTuple):
    """Where a peer listens: an IPv4 or IPv6 address as text (or a host name) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Progress(NamedTuple):
    """What a tracker is told about us: bytes sent and received in this run, and bytes still lacking."""

    uploaded: int
    downloaded: int
    left: int


class AnnounceResponse(NamedTuple):
    """A tracker's answer.

    Attributes:
        peers: the addresses, as given.
        interval: seconds after which to announce again.
        min_interval: seconds before which not to.
        seeders, leechers: how many peers the tracker knows, if it says.
        tracker_id: to be sent back with the next announce.
        warning: a text for the user.
        external_ip: the address that the tracker sees us at, if it says (BEP 24).
    """

    peers: tuple[PeerAddress, ...]
    interval: float
    min_interval: float = 0.0
    seeders: int | None = None
    leechers: int | None = None
    tracker_id: bytes | None = None
    warning: str | None = None
    external_ip: str | None = None


class ScrapeCounts(NamedTuple):
    """What a tracker knows of a torrent: complete peers, incomplete ones, downloads that were completed."""

    seeders: int
    leechers: int
    completed: int


class Tracker(Protocol):
    """One tracker, as it is asked about one torrent."""

    @property
    def url(self) -> str:
        """The announce URL."""

    def families(self) -> Sequence[AddressFamily | None]:
        """Return the kinds of addresses to announce to, one announce each; None leaves it to the system.

        Raises:
            TrackerError: the URL is not one that we ask.
        """

    def announce(
        self,
        progress: Progress,
        event: str | None = None,
        *,
        num_want: int | None = None,
        tracker_id: bytes | None = None,
        time_limit: float | None = None,
        family: AddressFamily | None = None,
        abort: Abort | None = None,
    ) -> AnnounceResponse:
        """Tell the tracker how we are doing and get peers.

        Args:
            progress: bytes uploaded, downloaded, left.
            event: `started`, `completed`, `stopped`, or None for a regular announce.
            num_want: peers wanted; Config's number by default.
            tracker_id: what the tracker's last answer gave.
            time_limit: seconds for all of it, instead of Config's.
            family: ask the tracker at an address of this kind only.
            abort: ends the waiting at once when it is set.

        Raises:
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """

    def scrape(self, info_hashes: Sequence[bytes], *, time_limit: float | None = None) -> Mapping[bytes, ScrapeCounts]:
        """Ask for the numbers of torrents, without taking part; one that the tracker does not know may be left out.

        Raises:
            TrackerError: it cannot be reached, refused, or answered nonsense.
        """


def compact_peers(data: bytes, address_size: int) -> Iterator[PeerAddress]:
    """Read compact peers of `address_size` + 2 bytes; a cut one at the end is left out."""
    size = address_size + 2
    for address, port in iter_unpack(f">{address_size}sH", data[: len(data) // size * size]):
        if port:
            yield PeerAddress(str(ipaddress.ip_address(address)), port)
