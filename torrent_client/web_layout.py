"""Where web servers keep the bytes of a torrent: from a range of the torrent to ranges of URLs.

    torrent      |--- a.txt ---|-- pad --|------- b.iso -------|       bytes 100 to 900
                        100 ................... 900
    BEP 19       <url>/name/a.txt  bytes=100-299,   zeros,   <url>/name/b.iso  bytes=0-399
    BEP 17       <url>?info_hash=...&piece=0&ranges=100-511,   <url>?info_hash=...&piece=1&ranges=0-388

BEP 19 is any web server with the torrent's files; BEP 17 is a script that knows the torrent.

Names come from the torrent as they are, byte by byte, and not as we call the files on disk.

Spec: BEP 19 (url-list), BEP 17 (httpseeds), BEP 47 (pad files).
Thread: pure.
Lock: none.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Protocol
from urllib.parse import quote_from_bytes, urlsplit, urlunsplit

from torrent_client.errors import BencodeError, WebSeedError
from torrent_client.http_rules import is_private
from torrent_client.protocol.bencode import BencodeValue, bencode_decode
from torrent_client.torrent_parser import TorrentFile


class WebRange(NamedTuple):
    """Bytes that one request brings.

    Attributes:
        url: where they are; empty for padding, whose bytes are zeros and nowhere.
        start: their place in what the URL names.
        length: how many, at least one.
        size: bytes of what the URL names.
        file: number of the file in the torrent, from 0; None where the URL names a piece.
    """

    url: str
    start: int
    length: int
    size: int
    file: int | None

    @property
    def is_whole(self) -> bool:
        """Whether these are all the bytes that the URL names."""
        return self.length == self.size


class WebLayout(Protocol):
    """How a web seed names its bytes."""

    def ranges(self, start: int, end: int) -> Iterator[WebRange]:
        """Give, in order, what to ask for in order to get the bytes `start` to `end` (excluded) of the torrent."""


class FileLayout:
    """A server that has the torrent's files (BEP 19).

    Args:
        url: of the file, or of the directory that the torrent's file or directory is in.
        torrent: what it has.
    """

    def __init__(self, url: str, torrent: TorrentFile) -> None:
        """Find the name of each file; URLs are made as they are needed."""
        self._url = url
        self._torrent = torrent
        self._numbers = [number for number, file in enumerate(torrent.files) if file.length]
        self._offsets = [torrent.files[number].offset for number in self._numbers]
        self._names = raw_names(torrent)

    def ranges(self, start: int, end: int) -> Iterator[WebRange]:
        """Give what to ask for, file by file."""
        place = bisect_right(self._offsets, start) - 1
        while start < end:
            number = self._numbers[place]
            file = self._torrent.files[number]
            length = min(end, file.offset + file.length) - start
            url = "" if file.is_padding else self.url_of(number)
            yield WebRange(url, start - file.offset, length, file.length, number)
            start += length
            place += 1

    def url_of(self, number: int) -> str:
        """Return the URL of a file: a base that ends in a slash, or any of several files, is completed."""
        parts = urlsplit(self._url)
        path = parts.path or "/"
        if self._torrent.is_multi_file and not path.endswith("/"):
            path += "/"
        if path.endswith("/"):
            path += "/".join(quote_from_bytes(name, safe="") for name in self._names[number])
        return urlunsplit(parts._replace(path=path, fragment=""))


class PieceLayout:
    """A script that gives bytes of pieces (BEP 17).

    Args:
        url: of the script.
        torrent: what it has.
    """

    def __init__(self, url: str, torrent: TorrentFile) -> None:
        """Keep the beginning of every URL."""
        parts = urlsplit(url)
        query = f"{parts.query}&" if parts.query else ""
        info_hash = quote_from_bytes(torrent.info_hash, safe="")
        self._base = urlunsplit(
            parts._replace(path=parts.path or "/", query=f"{query}info_hash={info_hash}", fragment="")
        )
        self._piece_length = torrent.piece_length

    def ranges(self, start: int, end: int) -> Iterator[WebRange]:
        """Give what to ask for, piece by piece; both ends of a range are in it."""
        while start < end:
            piece, begin = divmod(start, self._piece_length)
            length = min(end - start, self._piece_length - begin)
            url = f"{self._base}&piece={piece}&ranges={begin}-{begin + length - 1}"
            yield WebRange(url, 0, length, length, None)
            start += length


def raw_names(torrent: TorrentFile) -> list[tuple[bytes, ...]]:
    """Return the path of each file as the torrent has it, its top name included: servers know no other."""
    info: BencodeValue = {}
    with suppress(BencodeError):
        info = bencode_decode(torrent.info)
    name = info.get(b"name.utf-8", info.get(b"name")) if isinstance(info, dict) else None
    if isinstance(info, dict) and isinstance(name, bytes):
        entries = info.get(b"files")
        return [(name, *_path(entry)) for entry in entries] if isinstance(entries, list) else [(name,)]
    return [tuple(part.encode() for part in file.path.parts) for file in torrent.files]


def _path(entry: BencodeValue) -> list[bytes]:
    """Return the components of a file's path; the parser has checked them."""
    value = entry.get(b"path.utf-8", entry.get(b"path")) if isinstance(entry, dict) else None
    return [part for part in value if isinstance(part, bytes)] if isinstance(value, list) else []


def check_web_seed_url(url: str, *, looks_up: bool = True) -> None:
    """Refuse URLs by which a torrent could make us do something else than fetch a file.

    Args:
        url: of a web seed, or that one redirects to.
        looks_up: find out where the host's name leads.

    Raises:
        WebSeedError: another scheme than http and https, no host, or a query to a host that only this machine
            or its network can reach (server-side request forgery).
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WebSeedError(f"not a URL: {error}", is_lasting=True) from error
    if parts.scheme not in ("http", "https"):
        raise WebSeedError(f"{parts.scheme or 'no'} URLs are not supported, only http and https", is_lasting=True)
    if not host:
        raise WebSeedError("the URL has no host", is_lasting=True)
    if parts.query and is_private(host, looks_up=looks_up):
        raise WebSeedError("a query (what follows `?`) may not go to a private host", is_lasting=True)
