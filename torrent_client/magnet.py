"""A magnet link: a torrent's identity, and where to begin looking for the rest.

    magnet:?xt=urn:btih:d69f91e6b2ae4c542468d1073a71d4ea13879a7f     info hash, 40 hex or 32 base32 digits
           &dn=debian.iso                                            a name to show meanwhile
           &tr=http%3A%2F%2Ftracker.example%2Fannounce               trackers, each a tier of its own
           &x.pe=192.0.2.7:6881                                      peers
           &ws=http%3A%2F%2Fmirror.example%2Fdebian.iso              web seeds
           &so=0,2,4-6                                               the files to get, counted from 0 (BEP 53)

What is missing, the `info` dictionary, comes from peers (`metadata_download`). `metainfo` puts both together
into what a .torrent file holds.

Spec: BEP 9 (magnet URI format), 53 (select only).
Thread: pure.
Lock: none.
"""

import base64
import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote

from torrent_client.config import MAX_FILES
from torrent_client.errors import MetainfoError
from torrent_client.file_selection import FileRange
from torrent_client.protocol.bencode import BencodeValue, bencode_encode
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

MAX_LENGTH: Final = 64 * 1024
"""Characters of a link at most; one with a hundred trackers has some 6,000."""

MAX_PARAMETERS: Final = 1000
"""Parameters of a link at most."""


class MagnetLink(NamedTuple):
    """What a magnet link says.

    Attributes:
        info_hash: 20 bytes.
        name: what to call the torrent until its metadata is there.
        trackers: announce URLs.
        peers: addresses to ask at once.
        web_seeds: URLs of HTTP servers with the files.
        selected: files to get, counted from 1; empty for all.
    """

    info_hash: bytes
    name: str | None = None
    trackers: tuple[str, ...] = ()
    peers: tuple[PeerAddress, ...] = ()
    web_seeds: tuple[str, ...] = ()
    selected: tuple[FileRange, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "MagnetLink":
        """Read a link; parameters that we do not know, and addresses that are none, are left out.

        Raises:
            MetainfoError: it is no magnet link of a torrent that we can download; says why.
        """
        scheme, _, query = text.strip().partition(":?")
        if scheme.lower() != "magnet":
            raise MetainfoError("not a magnet link: those begin with magnet:?")
        if len(text) > MAX_LENGTH:
            raise MetainfoError(f"a magnet link of {len(text):,} characters; the limit is {MAX_LENGTH:,}")
        try:
            parameters = parse_qsl(query, max_num_fields=MAX_PARAMETERS, separator="&")
        except ValueError as error:
            raise MetainfoError(f"magnet link: {error}") from error
        values: dict[str, list[str]] = {}
        for key, value in parameters:
            kind = re.sub(r"\.[0-9]+$", "", key.lower())  # several may be numbered: tr.1, tr.2
            values.setdefault(kind, []).append(value.strip())
        return cls(
            info_hash=_info_hash(values.get("xt", [])),
            name=next(filter(None, values.get("dn", [])), None),
            trackers=_urls(values.get("tr", [])),
            peers=tuple(dict.fromkeys(filter(None, map(_peer, values.get("x.pe", []))))),
            web_seeds=_urls(values.get("ws", [])),
            selected=_selected(values.get("so", [])),
        )

    def with_trackers(self, tiers: Sequence[Sequence[str]]) -> "MagnetLink":
        """Return the link with more trackers, behind those that it has."""
        return self._replace(trackers=tuple(dict.fromkeys([*self.trackers, *(url for tier in tiers for url in tier)])))

    @classmethod
    def of(cls, torrent: TorrentFile) -> "MagnetLink":
        """Return the link to a torrent."""
        trackers = tuple(url for tier in torrent.trackers for url in tier)
        return cls(torrent.info_hash, torrent.name, trackers, web_seeds=torrent.web_seeds)

    @property
    def display_name(self) -> str:
        """The name, or the info hash where the link gives none."""
        return self.name or self.info_hash.hex()

    def __str__(self) -> str:
        """Return the link."""
        parts = [f"xt=urn:btih:{self.info_hash.hex()}"]
        if self.name:
            parts.append(f"dn={quote(self.name, safe='')}")
        parts += [f"tr={quote(url, safe='')}" for url in self.trackers]
        parts += [f"x.pe={peer}" for peer in self.peers]
        parts += [f"ws={quote(url, safe='')}" for url in self.web_seeds]
        if self.selected:
            parts.append("so=" + ",".join(_range_text(first - 1, last - 1) for first, last in self.selected))
        return "magnet:?" + "&".join(parts)


def metainfo(info: bytes, trackers: Sequence[Sequence[str]], web_seeds: Sequence[str]) -> bytes:
    """Return the contents of a .torrent file around a raw `info` dictionary.

    Args:
        info: its bytes as they came, so that they keep their hash.
        trackers: announce URLs in tiers.
        web_seeds: URLs (BEP 19).
    """
    fields: dict[bytes, BencodeValue] = {}
    if trackers:
        fields[b"announce"] = trackers[0][0].encode()
        fields[b"announce-list"] = [[url.encode() for url in tier] for tier in trackers]
    head = bencode_encode(fields)[:-1]
    tail = b"8:url-list" + bencode_encode([url.encode() for url in web_seeds]) if web_seeds else b""
    return head + b"4:info" + info + tail + b"e"


def _info_hash(topics: Sequence[str]) -> bytes:
    """Return the v1 info hash among the exact topics."""
    for topic in topics:
        match = re.fullmatch(r"urn:btih:([0-9a-f]{40}|[a-z2-7]{32})", topic, re.IGNORECASE)
        if match and len(match[1]) == 40:
            return bytes.fromhex(match[1])
        if match:
            return base64.b32decode(match[1].upper())
    if any(topic.lower().startswith("urn:btmh:") for topic in topics):
        raise MetainfoError(
            "this is the magnet link of a v2-only torrent (BEP 52), and this client knows v1: look for a link "
            "with xt=urn:btih:"
        )
    if any(topic.lower().startswith("urn:btih:") for topic in topics):
        raise MetainfoError("magnet link: the info hash after xt=urn:btih: is not 40 hex or 32 base32 digits")
    raise MetainfoError("magnet link: it names no torrent (there is no xt=urn:btih:)")


def _urls(values: Sequence[str]) -> tuple[str, ...]:
    """Keep what may be a URL, each once: they are shown, and must not write escape codes onto the terminal."""
    return tuple(dict.fromkeys(value for value in values if "://" in value and value.isprintable()))


def _peer(text: str) -> PeerAddress | None:
    """Read `host:port` or `[IPv6]:port`; None for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        return None
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_name = name.isascii() and name.isprintable() and " " not in name
    return PeerAddress(name, int(port)) if name and is_name and (":" not in name or name != host) else None


def _selected(values: Sequence[str]) -> tuple[FileRange, ...]:
    """Read `0,2,4-6`; what is no number is left out, as BEP 53 wants unknown forms to be."""
    ranges = []
    for part in ",".join(values).split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match and int(match[1]) <= int(match[2] or match[1]) < MAX_FILES:
            ranges.append(FileRange(int(match[1]) + 1, int(match[2] or match[1]) + 1))
    return tuple(ranges)


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
