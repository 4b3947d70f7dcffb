"""The state file: which pieces are on disk, so that the next run need not hash them again.

    {"info_hash": "d69f...", "name": "debian.iso", "directory": "/home/ann/Downloads",
     "pieces": 6, "completed": "0-1,4", "uploaded": 0, "downloaded": 98304,
     "files": [["debian.iso", 2147483648, 1700000000123456789]], "boot": "4f2a...", "synced": true}

Which files were wanted is not in it: every run says that anew, and complete pieces stay complete.
It is believed file by file: where size and time of change agree with what is on disk, the pieces are
taken as they stand; every other file is hashed again. After a power cut the system may have written the
state but not the data, so that it is believed only if the data was synced, or the computer has not been
started since. It is written beside and renamed, so that there is always a whole one.

Spec: the guide's Task 14.
Thread: housekeeping; when that has ended, whoever stops the torrent.
Lock: none; one writer at a time.
"""

import json
import logging
import os
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from torrent_client.bitfield import Bitfield
from torrent_client.errors import StorageError
from torrent_client.storage import FileStamp, Storage
from torrent_client.torrent_parser import TorrentFile

logger = logging.getLogger(__name__)

MAX_STATE_SIZE = 64 * 1024 * 1024
"""Bytes of a state file that we read at most: 200,000 files need some 20 MB."""


class ResumeData(NamedTuple):
    """What is known of a torrent from earlier runs.

    Attributes:
        completed: pieces on disk.
        stamps: size and time of change of each file, by its path, when that was true.
        uploaded, downloaded: bytes in all runs.
        synced: the data is on the disk itself.
        trusted: it is there as far as the state says: synced, or the computer has not been started since.
    """

    completed: Bitfield
    stamps: dict[str, FileStamp]
    uploaded: int = 0
    downloaded: int = 0
    synced: bool = True
    trusted: bool = True


class ResumeFile:
    """The state file of one torrent in one output directory.

    Args:
        directory: where state files lie.
        torrent: whose state it is.
        output: the torrent's output directory.
    """

    def __init__(self, directory: Path, torrent: TorrentFile, output: Path) -> None:
        """Find the file's name; nothing is read yet."""
        self._torrent = torrent
        self._output = str(output.resolve())
        place = sha1(os.fsencode(self._output)).hexdigest()[:8]
        self.path = directory / f"{torrent.info_hash.hex()}-{place}.json"

    def load(self) -> ResumeData | None:
        """Return the saved state, or None when there is none that fits this torrent."""
        try:
            with self.path.open("rb") as file:
                value = json.loads(file.read(MAX_STATE_SIZE))
            return self._parse(value)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            logger.warning("the state file %s is not usable (%r): files are hashed again", self.path, error)
            return None

    def save(self, completed: Bitfield, storage: Storage, uploaded: int, downloaded: int, *, synced: bool) -> None:
        """Write the state, all or nothing.

        Args:
            completed: pieces on disk.
            storage: tells the stamps of the files as we left them.
            uploaded: bytes sent in all runs.
            downloaded: bytes received in all runs.
            synced: the files were synced after the last of these pieces was written. A state of others is
                believed only until the computer is started again, so that it need not outlive a power cut, either.

        Raises:
            StorageError: it cannot be written.
        """
        value = {
            "info_hash": self._torrent.info_hash.hex(),
            "name": self._torrent.name,
            "directory": self._output,
            "pieces": self._torrent.piece_count,
            "completed": format_ranges(completed),
            "uploaded": uploaded,
            "downloaded": downloaded,
            "files": [[path, *stamp] for path, stamp in storage.stamps().items()],
            "boot": _boot_id(),
            "synced": synced,
        }
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as file:
                json.dump(value, file)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise StorageError(f"cannot save the state to {self.path}: {error.strerror}") from error

    def _parse(self, value: dict[str, Any]) -> ResumeData | None:
        """Check a decoded state; any of the errors that `load` expects when it is none."""
        if value["info_hash"] != self._torrent.info_hash.hex() or value["pieces"] != self._torrent.piece_count:
            return None
        stamps = {str(path): FileStamp(int(size), int(mtime)) for path, size, mtime in value["files"]}
        return ResumeData(
            completed=parse_ranges(value["completed"], self._torrent.piece_count),
            stamps=stamps,
            uploaded=max(0, int(value["uploaded"])),
            downloaded=max(0, int(value["downloaded"])),
            synced=bool(value["synced"]),
            trusted=bool(value["synced"]) or (value["boot"] != "" and value["boot"] == _boot_id()),
        )


def format_ranges(pieces: Bitfield) -> str:
    """Return a set of pieces as text: `0-1,4`."""
    ranges: list[list[int]] = []
    for index in pieces:
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in ranges)


def parse_ranges(text: str, size: int) -> Bitfield:
    """Read what `format_ranges` wrote.

    Raises:
        ValueError: it is something else, or names pieces that do not exist.
    """
    digits = bytearray(b"0") * size  # one a piece: adding range after range to an integer takes quadratic time
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < size:
            raise ValueError(f"pieces {part!r} of {size}")
        digits[low : high + 1] = b"1" * (high + 1 - low)
    return Bitfield(size, int(digits[::-1] or b"0", 2))


def _boot_id() -> str:
    """Return what changes each time the computer starts; empty where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
