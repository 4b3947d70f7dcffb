"""Tasks 2 and 3: bencode, and the .torrent file."""

from hashlib import sha1
from pathlib import Path
from typing import Any


def bencode_decode(data: bytes) -> Any:
    """Return the value that the bytes are."""
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError("there is something after the value")
    return value


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value that begins at a position, and the position after it."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _value(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise ValueError("a string is cut off")
    return data[colon + 1 : end], end


def bencode_encode(value: Any) -> bytes:
    """Return a value's bytes."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(bencode_encode(item) for item in value) + b"e"
    return b"d" + b"".join(bencode_encode(key) + bencode_encode(value[key]) for key in sorted(value)) + b"e"


class TorrentFile:
    """What a .torrent file says."""

    def __init__(self, path: str) -> None:
        """Read it."""
        meta = bencode_decode(Path(path).read_bytes())
        info = meta[b"info"]
        self.announce = meta[b"announce"].decode()
        self.name = info[b"name"].decode()
        self.piece_length = info[b"piece length"]
        hashes = info[b"pieces"]
        self.pieces = [hashes[at : at + 20] for at in range(0, len(hashes), 20)]
        self.files = [
            {"length": entry[b"length"], "path": [part.decode() for part in entry[b"path"]]}
            for entry in info.get(b"files", [])
        ]
        self.length = info.get(b"length") or sum(entry["length"] for entry in self.files)
        self.info_hash = sha1(bencode_encode(info)).digest()
