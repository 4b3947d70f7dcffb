"""A .torrent file: what it says, checked field by field, and the torrent's identity.

    d                                                             a bencoded dictionary
      8:announce      33:http://tracker.example/announce          where to ask for peers
      13:announce-list ll...eel...ee                              more of them, in tiers (BEP 12)
      4:info  d                                                   <- SHA-1 of these raw bytes is the
        4:name           10:debian.iso                                info_hash, the torrent's identity
        12:piece length  i262144e
        6:pieces         20:....................                  SHA-1 of each piece, 20 bytes each
        6:length         i5000000e                                one file, or
        5:files          ld6:lengthi5e4:pathl3:dir5:a.txteee      several, laid end to end
      e
    e

The info hash is taken of the bytes as they stand in the file, never of a re-encoding: a torrent with
unsorted keys keeps the hash that everybody else computes. Called by the command line, before anything
else; everything after it works with the `TorrentFile` that comes out.

Spec: BEP 3 (metainfo files), 5 (nodes), 12 (announce-list), 17 (httpseeds), 19 (url-list), 27 (private),
47 (pad files), 52 (v2 and hybrid torrents); the guide's Tasks 2 and 3.
Thread: the caller's; the results are immutable.
Lock: none.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha1
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from torrent_client.config import MAX_FILES, MAX_PIECES, MAX_TORRENT_SIZE
from torrent_client.errors import BencodeError, MetainfoError
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_decode_spans
from torrent_client.safe_paths import Renamed, safe_paths

__all__ = ["FileEntry", "TorrentFile", "bencode_decode"]

Dictionary = dict[bytes, BencodeValue]

MAX_PIECE_LENGTH: Final = 512 * 1024 * 1024
"""Bytes of a piece at most: a piece is verified in memory. libtorrent's limit is the same."""

MAX_TOTAL_LENGTH: Final = 1 << 50
"""Bytes of a torrent at most, 1 PiB: keeps every sum and offset within what a file system takes."""


class FileEntry(NamedTuple):
    """One file of a torrent.

    Attributes:
        path: where it goes, relative to the output directory; safe and unique.
        length: bytes.
        offset: bytes of the torrent before it.
        is_padding: filler between files that is zeros and never written (BEP 47).
    """

    path: PurePosixPath
    length: int
    offset: int
    is_padding: bool = False


class _Fields(NamedTuple):
    """The fields of a `TorrentFile`."""

    info_hash: bytes
    name: str
    piece_length: int
    piece_hashes: bytes
    files: tuple[FileEntry, ...]
    is_multi_file: bool = False
    trackers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()
    http_seeds: tuple[str, ...] = ()
    nodes: tuple[tuple[str, int], ...] = ()
    is_private: bool = False
    is_hybrid: bool = False
    comment: str | None = None
    created_by: str | None = None
    creation_date: datetime | None = None
    source: str | None = None
    renamed: tuple[Renamed, ...] = ()
    info: bytes = b""


class TorrentFile(_Fields):
    """A torrent's facts.

    Attributes:
        info_hash: 20 bytes, the SHA-1 of the raw `info` dictionary.
        name: the file's or the directory's name, as the torrent gives it.
        piece_length: bytes of every piece but the last.
        piece_hashes: 20 bytes for each piece.
        files: in the order in which their bytes follow each other.
        is_multi_file: whether the files lie in a directory called `name`.
        trackers: announce URLs in tiers, the best first (BEP 12).
        web_seeds: URLs of HTTP servers with the same files (BEP 19).
        http_seeds: URLs of scripts that give pieces (BEP 17).
        nodes: addresses of DHT nodes (BEP 5).
        is_private: peers may come from the trackers alone (BEP 27).
        is_hybrid: it is a v2 torrent as well, and we use its v1 side (BEP 52).
        comment, created_by, creation_date, source: what its maker said.
        renamed: files whose path was not safe or not unique, with what we made of it.
        info: the raw bytes of the `info` dictionary.
    """

    @classmethod
    def from_file(cls, path: str | Path) -> "TorrentFile":
        """Read a .torrent file.

        Raises:
            MetainfoError: it cannot be read, or is no torrent that we can download; says why.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_TORRENT_SIZE + 1)
        except OSError as error:
            if str(path).lower().startswith("magnet:"):
                raise MetainfoError("that needs a .torrent file: --metadata-only makes one of a magnet link") from error
            raise MetainfoError(f"cannot read {path}: {error.strerror}") from error
        try:
            return cls.from_bytes(data)
        except MetainfoError as error:
            raise MetainfoError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> "TorrentFile":
        """Read the contents of a .torrent file.

        Raises:
            MetainfoError: it is no torrent that we can download; names the field.
        """
        if not data:
            raise MetainfoError("not a .torrent file: it is empty")
        if len(data) > MAX_TORRENT_SIZE:
            raise MetainfoError(f"larger than {MAX_TORRENT_SIZE:,} bytes: surely not a .torrent file")
        for beginning, what in _OTHER_FILES.items():
            if data.lstrip()[: len(beginning)].lower() == beginning:
                raise MetainfoError(f"not a .torrent file: it is {what}")
        try:
            root, spans = bencode_decode_spans(data)
        except BencodeError as error:
            raise MetainfoError(f"not a .torrent file: {error}") from error
        if not isinstance(root, dict):
            raise MetainfoError("not a .torrent file: it is no dictionary")
        if b"info" not in root:
            raise MetainfoError("not a .torrent file: there is no 'info' in it")
        start, end = spans[b"info"]
        return _Reader(root, data[start:end]).torrent()

    @property
    def announce(self) -> str | None:
        """The first tracker's URL."""
        return self.trackers[0][0] if self.trackers else None

    @property
    def piece_count(self) -> int:
        """Number of pieces."""
        return len(self.piece_hashes) // 20

    @cached_property
    def total_length(self) -> int:
        """Bytes of all files, padding included."""
        return sum(file.length for file in self.files)

    @cached_property
    def content_length(self) -> int:
        """Bytes of the files that are written."""
        return sum(file.length for file in self.files if not file.is_padding)

    def with_trackers(self, tiers: Sequence[tuple[str, ...]]) -> "TorrentFile":
        """Return the torrent with more tiers of trackers, behind those that it has."""
        return self._replace(trackers=(*self.trackers, *tiers))

    def stored_as(self, name: str) -> "TorrentFile":
        """Return the torrent with its file, or its directory, under another name on disk.

        Args:
            name: one path component, the user's own choice.
        """
        files = (file._replace(path=PurePosixPath(name, *file.path.parts[1:])) for file in self.files)
        return self._replace(files=tuple(files))


_OTHER_FILES: Final = {
    b"<": "a web page",
    b"\x1f\x8b": "compressed; unpack it with gunzip",
    b"pk\x03\x04": "a zip archive; unpack it",
    b"magnet:": "a magnet link",
}
"""What people take for a torrent, by its first bytes."""


class _Reader:
    """Reads the fields of one torrent; every refusal names the field.

    Args:
        root: the whole dictionary.
        info: raw bytes of its `info` value.
    """

    def __init__(self, root: Dictionary, info: bytes) -> None:
        self.root = root
        self.raw_info = info
        self.info = _dictionary(root[b"info"], "info")

    def torrent(self) -> TorrentFile:
        """Return the facts, all checked."""
        is_v2 = self.info.get(b"meta version") == 2
        if is_v2 and b"pieces" not in self.info:
            raise MetainfoError(
                "this is a v2-only torrent (BEP 52), and this client knows v1: "
                "look for a v1 or hybrid torrent of the same files"
            )
        name = self._name(self.info, "name", "info.name") or "unnamed"
        raw_files, is_multi_file = self._raw_files()
        piece_length, piece_hashes = self._pieces(sum(length for _, length, _ in raw_files))
        files, renamed = _lay_out(name, raw_files, is_multi_file)
        return TorrentFile(
            info_hash=sha1(self.raw_info).digest(),
            name=name,
            piece_length=piece_length,
            piece_hashes=piece_hashes,
            files=files,
            is_multi_file=is_multi_file,
            trackers=self._trackers(),
            web_seeds=self._web_seeds("url-list"),
            http_seeds=self._web_seeds("httpseeds"),
            nodes=self._nodes(),
            is_private=self.info.get(b"private") == 1,
            is_hybrid=is_v2,
            comment=self._name(self.root, "comment", "comment"),
            created_by=self._name(self.root, "created by", "created by"),
            creation_date=self._creation_date(),
            source=self._name(self.info, "source", "info.source"),
            renamed=renamed,
            info=self.raw_info,
        )

    def _pieces(self, total_length: int) -> tuple[int, bytes]:
        """Return the piece length and the piece hashes, which must agree with the files' length."""
        piece_length = _integer(self.info.get(b"piece length"), "info.piece length", 1, MAX_PIECE_LENGTH)
        pieces = self.info.get(b"pieces")
        if not isinstance(pieces, bytes):
            raise MetainfoError("info.pieces: missing, or not a string")
        if len(pieces) % 20:
            raise MetainfoError(f"info.pieces: {len(pieces)} bytes, which is no multiple of 20")
        count = len(pieces) // 20
        if count > MAX_PIECES:
            raise MetainfoError(f"info.pieces: {count:,} pieces; the limit is {MAX_PIECES:,}")
        if total_length > MAX_TOTAL_LENGTH:
            raise MetainfoError(f"info.length: {total_length:,} bytes; the limit is {MAX_TOTAL_LENGTH:,}")
        if count != -(-total_length // piece_length):
            raise MetainfoError(
                f"info.pieces: {count:,} hashes, but {total_length:,} bytes in pieces of {piece_length:,} "
                f"are {-(-total_length // piece_length):,} pieces"
            )
        return piece_length, pieces

    def _raw_files(self) -> tuple[list[tuple[list[str], int, bool]], bool]:
        """Return (path components, bytes, is padding) of each file, and whether there is a directory."""
        files = self.info.get(b"files")
        if files is None:
            return [([], _length(self.info, "info.length"), False)], False
        if not isinstance(files, list) or not files:
            raise MetainfoError("info.files: not a list of files")
        if len(files) > MAX_FILES:
            raise MetainfoError(f"info.files: {len(files):,} files; the limit is {MAX_FILES:,}")
        return [self._raw_file(entry, f"info.files[{number}]") for number, entry in enumerate(files)], True

    def _raw_file(self, value: BencodeValue, where: str) -> tuple[list[str], int, bool]:
        entry = _dictionary(value, where)
        path = entry.get(b"path.utf-8", entry.get(b"path"))
        if not isinstance(path, list) or not path:
            raise MetainfoError(f"{where}.path: missing, or not a list of names")
        components = [_text(component, f"{where}.path") for component in path]
        attributes = entry.get(b"attr")
        is_padding = isinstance(attributes, bytes) and b"p" in attributes
        return components, _length(entry, f"{where}.length"), is_padding

    def _name(self, where: Dictionary, key: str, field: str) -> str | None:
        """Return a text field, the `.utf-8` variant of it first."""
        value = where.get(f"{key}.utf-8".encode(), where.get(key.encode()))
        return None if value is None else _text(value, field)

    def _trackers(self) -> tuple[tuple[str, ...], ...]:
        """Return the tiers; `announce` counts only when there is no announce-list (BEP 12)."""
        tiers: list[tuple[str, ...]] = []
        announce_list = self.root.get(b"announce-list")
        for tier in announce_list if isinstance(announce_list, list) else []:
            urls = tuple(dict.fromkeys(_urls(tier)))
            if urls:
                tiers.append(urls)
        if not tiers:
            tiers = [(url,) for url in _urls(self.root.get(b"announce"))]
        return tuple(tiers)

    def _web_seeds(self, key: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_urls(self.root.get(key.encode()))))

    def _nodes(self) -> tuple[tuple[str, int], ...]:
        nodes = self.root.get(b"nodes")
        found = []
        for node in nodes if isinstance(nodes, list) else []:
            match node:
                case [bytes(host), int(port)] if host and 1 <= port <= 65_535:
                    found.append((host.decode("utf-8", "replace"), port))
        return tuple(found)

    def _creation_date(self) -> datetime | None:
        """Return the date; one that no calendar holds is left out, for nothing depends on it."""
        seconds = self.root.get(b"creation date")
        try:
            return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) else None
        except (OverflowError, OSError, ValueError):
            return None


def _lay_out(
    name: str, raw_files: list[tuple[list[str], int, bool]], is_multi_file: bool
) -> tuple[tuple[FileEntry, ...], tuple[Renamed, ...]]:
    """Give each file its safe path and its offset; return also what had to be renamed."""
    paths, renamed = safe_paths(name, [components for components, _, _ in raw_files] if is_multi_file else ())
    files = []
    offset = 0
    for path, (_, length, is_padding) in zip(paths, raw_files, strict=True):
        files.append(FileEntry(path, length, offset, is_padding))
        offset += length
    return tuple(files), tuple(renamed)


def _dictionary(value: BencodeValue | None, field: str) -> Dictionary:
    if not isinstance(value, dict):
        raise MetainfoError(f"{field}: not a dictionary")
    return value


def _integer(value: BencodeValue | None, field: str, low: int, high: int) -> int:
    if not isinstance(value, int):
        raise MetainfoError(f"{field}: missing, or not an integer")
    if not low <= value <= high:
        raise MetainfoError(f"{field}: {value} is not between {low} and {high:,}")
    return value


def _length(where: Dictionary, field: str) -> int:
    return _integer(where.get(b"length"), field, 0, MAX_TOTAL_LENGTH)


def _text(value: BencodeValue, field: str) -> str:
    """Return a string as text; bytes that are not UTF-8 show as U+FFFD rather than being refused."""
    if not isinstance(value, bytes):
        raise MetainfoError(f"{field}: not a string")
    return value.decode("utf-8", "replace")


def _urls(value: BencodeValue | None) -> list[str]:
    """Return the URLs of a string or a list of strings; a wrong one is no reason to refuse a torrent.

    One with control characters is wrong: URLs are shown, and would write escape codes onto the terminal.
    """
    values = value if isinstance(value, list) else [value]
    texts = [item.decode("utf-8", "replace").strip() for item in values if isinstance(item, bytes)]
    return [text for text in texts if text and text.isprintable()]
