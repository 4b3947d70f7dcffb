"""Torrents to measure with: a file of reproducible random bytes, its metainfo, and the check of a copy.

The metainfo is encoded here, in a few lines and apart from the client's own code, so that a client under
test does not make its own examination paper.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20  # bytes generated or read at a time
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SEED = 2026

Bencodable = int | bytes | str | list["Bencodable"] | dict[str, "Bencodable"]


@dataclass(frozen=True, slots=True)
class Payload:
    """A file to share, with the facts that its torrent states."""

    path: Path
    size: int
    piece_length: int
    hashes: bytes  # 20 bytes a piece

    @property
    def info(self) -> dict[str, Bencodable]:
        """The torrent's info dictionary."""
        return {
            "length": self.size,
            "name": self.path.name,
            "piece length": self.piece_length,
            "pieces": self.hashes,
        }

    @property
    def info_hash(self) -> bytes:
        """The torrent's 20-byte name in the swarm."""
        return hashlib.sha1(bencode(self.info)).digest()

    @property
    def piece_count(self) -> int:
        """How many pieces there are."""
        return len(self.hashes) // 20

    def write_torrent(self, path: Path, announce: str = "") -> Path:
        """Write the metainfo, with a tracker when there is one, and return its path."""
        metainfo: dict[str, Bencodable] = {"info": self.info}
        if announce:
            metainfo["announce"] = announce
        path.write_bytes(bencode(metainfo))
        return path

    def matches(self, copy: Path) -> bool:
        """Return whether the file is there and every byte of it is right."""
        return copy.is_file() and hash_pieces(copy, self.piece_length) == self.hashes


def bencode(value: Bencodable) -> bytes:
    """Encode a value as BEP 3 says, keys sorted."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def hash_pieces(path: Path, piece_length: int) -> bytes:
    """Return the SHA-1 of every piece, joined."""
    digests = bytearray()
    buffer = memoryview(bytearray(piece_length))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(buffer):
            digests += hashlib.sha1(buffer[:length]).digest()
    return bytes(digests)


def make_payload(path: Path, size: int, piece_length: int) -> Payload:
    """Write size bytes, the same ones every time, and return them as a payload."""
    generator = random.Random(SEED)
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(generator.randbytes(min(CHUNK, size - start)))
    return Payload(path, size, piece_length, hash_pieces(path, piece_length))


def parse_size(text: str) -> int:
    """Read ``256KiB``, ``1GiB``, ``1M`` or plain bytes; ValueError for anything else."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    return int(match[1]) * UNITS[match[2].upper()]


def format_size(size: int) -> str:
    """Write a number of bytes the way that parse_size reads it, in the largest unit that divides it."""
    for unit in ("G", "M", "K"):
        if size % UNITS[unit] == 0 and size:
            return f"{size // UNITS[unit]} {unit}iB"
    return f"{size} B"
