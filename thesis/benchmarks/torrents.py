"""Torrents to measure with: files of reproducible random bytes, its metainfo, and the check of a copy.

The metainfo is encoded here, in a few lines and apart from the client's own code, so that a client under
test does not make its own examination paper.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20  # bytes generated or read at a time
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SEED = 2026

Bencodable = int | bytes | str | list["Bencodable"] | dict[str, "Bencodable"]


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be downloaded; sizes in bytes."""

    size: int
    piece_length: int = 256 << 10
    files: int = 1

    def __str__(self) -> str:
        """Write it the way that tables have it."""
        files = f"{self.files} files of together " if self.files > 1 else ""
        return f"{files}{format_size(self.size)} in pieces of {format_size(self.piece_length)}"


@dataclass(frozen=True, slots=True)
class Payload:
    """Files to share, with the facts that their torrent states."""

    root: Path  # the directory to seed from
    name: str  # in the root: a file, or a directory of numbered files
    joined: Path  # one file with the bytes of all
    work: Work
    hashes: bytes  # 20 bytes a piece

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.work.size

    @property
    def piece_length(self) -> int:
        """Bytes of a piece, but the last."""
        return self.work.piece_length

    @property
    def info(self) -> dict[str, Bencodable]:
        """The torrent's info dictionary; private, so that nobody looks for peers elsewhere (BEP 27)."""
        info: dict[str, Bencodable] = {"name": self.name, "piece length": self.piece_length, "pieces": self.hashes}
        info["private"] = 1
        if self.work.files == 1:
            return info | {"length": self.size}
        files: list[Bencodable] = [{"length": length, "path": [name]} for name, length in file_lengths(self.work)]
        return info | {"files": files}

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

    def matches(self, directory: Path) -> bool:
        """Return whether every file is in the directory, or one of all bytes, and every byte of it is right."""
        copies, lengths = self.paths_in(directory), [length for _, length in file_lengths(self.work)]
        if (directory / self.name).is_file():
            copies, lengths = [directory / self.name], [self.size]
        if not all(copy.is_file() for copy in copies) or [copy.stat().st_size for copy in copies] != lengths:
            return False
        return hash_pieces(copies, self.piece_length) == self.hashes

    def paths_in(self, directory: Path) -> list[Path]:
        """Return where the files are in a directory."""
        top = directory / self.name
        return [top] if self.work.files == 1 else [top / name for name, _ in file_lengths(self.work)]


def file_lengths(work: Work) -> list[tuple[str, int]]:
    """Return name and length of each file, as equal as may be."""
    bounds = [work.size * number // work.files for number in range(work.files + 1)]
    return [(f"{number:04d}.bin", bounds[number + 1] - bounds[number]) for number in range(work.files)]


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


def hash_pieces(paths: Sequence[Path], piece_length: int) -> bytes:
    """Return the SHA-1 of every piece of the files' joined bytes, joined."""
    digests = bytearray()
    piece, room = hashlib.sha1(), piece_length
    buffer = memoryview(bytearray(CHUNK))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while length := file.readinto(buffer[: min(CHUNK, room)]):
                piece.update(buffer[:length])
                room -= length
                if not room:
                    digests += piece.digest()
                    piece, room = hashlib.sha1(), piece_length
    if room < piece_length:
        digests += piece.digest()
    return bytes(digests)


def make_payload(root: Path, work: Work) -> Payload:
    """Write the work's bytes, the same ones every time, below a directory, and return them as a payload."""
    root.mkdir()
    name = "payload.bin" if work.files == 1 else "payload"
    joined = root / name if work.files == 1 else root / "joined.bin"
    generator = random.Random(SEED)
    with joined.open("wb") as file:
        for start in range(0, work.size, CHUNK):
            file.write(generator.randbytes(min(CHUNK, work.size - start)))
    payload = Payload(root, name, joined, work, hash_pieces([joined], work.piece_length))
    if work.files > 1:
        split(joined, payload)
    return payload


def split(joined: Path, payload: Payload) -> None:
    """Write the single files."""
    (payload.root / payload.name).mkdir()
    with joined.open("rb") as source:
        for path, (_, length) in zip(payload.paths_in(payload.root), file_lengths(payload.work), strict=True):
            path.write_bytes(source.read(length))


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
