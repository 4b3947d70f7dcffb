r"""The datagrams of UDP trackers: a question and an answer for each of connect, announce and scrape.

    connect    >  magic 8 (0x41727101980) | action 4 (0) | transaction 4
               <  action 4 (0) | transaction 4 | connection id 8
    announce   >  connection id 8 | action 4 (1) | transaction 4 | info hash 20 | peer id 20 | downloaded 8 | left 8
                  | uploaded 8 | event 4 | IP 4 (0: the sender's) | key 4 | num want 4 | port 2 | options (BEP 41)
               <  action 4 (1) | transaction 4 | interval 4 | leechers 4 | seeders 4 | (IP 4 or 16 | port 2) *
    scrape     >  connection id 8 | action 4 (2) | transaction 4 | info hash 20 *
               <  action 4 (2) | transaction 4 | (seeders 4 | completed 4 | leechers 4) *
    error      <  action 4 (3) | transaction 4 | message

Everything is big-endian. The connection id proves to the tracker that we receive what is sent to our address,
so that nobody can announce others; the transaction id proves to us that an answer is one to our question.
Whether peers have IPv4 or IPv6 addresses follows from how the tracker was asked, not from the bytes.

Spec: BEP 15 (UDP trackers), BEP 41 (options: the URL's path and query).
Thread: pure.
Lock: none.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import iter_unpack, pack, unpack_from
from typing import Final, NamedTuple

from torrent_client.errors import TrackerError
from torrent_client.text import printable

CONNECT_MAGIC: Final = 0x41727101980
"""What stands for the connection id in a connect request."""

MAX_SCRAPE_HASHES: Final = 74
"""Info hashes in one scrape; BEP 15: about as many as fit into a datagram that no router cuts up."""

MAX_MESSAGE_LENGTH: Final = 200
"""Characters of a tracker's error message that are shown."""

_HEADER_SIZE: Final = 8
_URL_DATA: Final = 2
_MAX_OPTION: Final = 255


class Action(IntEnum):
    """What a datagram is about."""

    CONNECT = 0
    ANNOUNCE = 1
    SCRAPE = 2
    ERROR = 3


EVENTS: Final = {None: 0, "completed": 1, "started": 2, "stopped": 3}


class AnnounceRequest(NamedTuple):
    """What an announce says.

    Attributes:
        info_hash: 20 bytes.
        peer_id: 20 bytes.
        downloaded, left, uploaded: bytes.
        event: `started`, `completed`, `stopped`, or None.
        key: 32 bits that stay the same when our address changes.
        num_want: peers wanted; -1 leaves it to the tracker.
        port: TCP port that we listen on.
        url_data: path and query of the tracker's URL; empty for none.
    """

    info_hash: bytes
    peer_id: bytes
    downloaded: int
    left: int
    uploaded: int
    event: str | None
    key: int
    num_want: int
    port: int
    url_data: bytes = b""

    def encode(self, connection_id: int, transaction_id: int) -> bytes:
        """Return the datagram: 98 bytes, and the URL's path and query if it has any."""
        return pack(
            ">QII20s20sQQQIIIiH",
            connection_id,
            Action.ANNOUNCE,
            transaction_id,
            self.info_hash,
            self.peer_id,
            self.downloaded,
            self.left,
            self.uploaded,
            EVENTS[self.event],
            0,  # our address is the one that the tracker sees
            self.key,
            self.num_want,
            self.port,
        ) + url_options(self.url_data)


class AnnounceAnswer(NamedTuple):
    """A tracker's answer to an announce.

    Attributes:
        interval: seconds after which to announce again.
        leechers, seeders: how many peers the tracker knows.
        peers: packed address (4 or 16 bytes) and port of each.
    """

    interval: int
    leechers: int
    seeders: int
    peers: tuple[tuple[bytes, int], ...]


class ScrapeEntry(NamedTuple):
    """What a tracker knows of one torrent: complete peers, completed downloads, incomplete peers."""

    seeders: int
    completed: int
    leechers: int


def connect_request(transaction_id: int) -> bytes:
    """Return the datagram, 16 bytes, that asks for a connection id."""
    return pack(">QII", CONNECT_MAGIC, Action.CONNECT, transaction_id)


def scrape_request(connection_id: int, transaction_id: int, info_hashes: Sequence[bytes]) -> bytes:
    """Return the datagram that asks for the numbers of up to `MAX_SCRAPE_HASHES` torrents."""
    return pack(">QII", connection_id, Action.SCRAPE, transaction_id) + b"".join(info_hashes)


def url_options(url_data: bytes) -> bytes:
    """Return path and query as options of up to 255 bytes each; together they are read as one (BEP 41)."""
    parts = [url_data[start : start + _MAX_OPTION] for start in range(0, len(url_data), _MAX_OPTION)]
    return b"".join(bytes([_URL_DATA, len(part)]) + part for part in parts)


def is_answer(datagram: bytes, transaction_id: int) -> bool:
    """Tell whether a datagram answers the question with this transaction id."""
    return len(datagram) >= _HEADER_SIZE and bool(unpack_from(">I", datagram, 4)[0] == transaction_id)


def is_error(datagram: bytes) -> bool:
    """Tell whether an answer is an error message."""
    return bool(unpack_from(">I", datagram)[0] == Action.ERROR)


def parse_connect(datagram: bytes) -> int:
    """Return the connection id of an answer to `connect_request`.

    Raises:
        TrackerError: it is an error message, or malformed.
    """
    _check(datagram, Action.CONNECT, 16)
    return int(unpack_from(">Q", datagram, 8)[0])


def parse_announce(datagram: bytes, address_size: int) -> AnnounceAnswer:
    """Read an answer to an announce; a cut address at its end is left out.

    Args:
        datagram: its bytes.
        address_size: 4 if the tracker was asked over IPv4, 16 over IPv6.

    Raises:
        TrackerError: it is an error message, or malformed.
    """
    _check(datagram, Action.ANNOUNCE, 20)
    interval, leechers, seeders = unpack_from(">III", datagram, 8)
    entry_size = address_size + 2
    end = 20 + (len(datagram) - 20) // entry_size * entry_size
    peers = tuple((address, port) for address, port in iter_unpack(f">{address_size}sH", datagram[20:end]) if port)
    return AnnounceAnswer(interval, leechers, seeders, peers)


def parse_scrape(datagram: bytes, count: int) -> list[ScrapeEntry]:
    """Read an answer to a scrape of `count` torrents: an entry for each, in the order of the question.

    Raises:
        TrackerError: it is an error message, or has fewer entries.
    """
    _check(datagram, Action.SCRAPE, 8 + 12 * count)
    return [ScrapeEntry(*entry) for entry in iter_unpack(">III", datagram[8 : 8 + 12 * count])]


def _check(datagram: bytes, action: Action, size: int) -> None:
    """Refuse errors, another action, and answers that are too short."""
    (found,) = unpack_from(">I", datagram)
    if found == Action.ERROR:
        raise TrackerError(f"refused: {printable(datagram[8:].rstrip(bytes(1)), MAX_MESSAGE_LENGTH)}")
    if found != action:
        raise TrackerError(f"the answer is to another question (action {found} instead of {action:d})")
    if len(datagram) == 8 and action != Action.CONNECT:  # opentracker's way to refuse
        raise TrackerError("the answer is empty; perhaps the tracker does not serve this torrent")
    if len(datagram) < size:
        raise TrackerError(f"the answer has {len(datagram)} bytes instead of {size}")
