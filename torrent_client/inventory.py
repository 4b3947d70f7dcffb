"""What of a torrent is on disk: found out at the start, and written down for the next start.

    state file --believed--> complete pieces <--good-- hashed <--doubtful-- files on disk
                                   |
                                   +--> files made, strangers' files set aside --> the download may begin
                                   +--> state file, now and then, and at the end

A state is good for ever if the data was *synced* before, forced to the disk itself; else until the computer is started
again. A sync takes a disk a second for a gigabyte, or ten, and the process cannot end before it has: so data is synced
when the system has written nearly all of it by itself, now and then once the torrent is done, and at the end.

Called by `download_manager`, which does nothing else before this is done.

Spec: the guide's Tasks 12 and 14.
Thread: housekeeping, and `check` threads while files are hashed; at the end whoever stops the torrent.
Lock: none; one of them at a time.
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from torrent_client.bitfield import Bitfield
from torrent_client.config import KIB, MIB
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import DataIncomplete, StorageError
from torrent_client.file_claim import FileClaim
from torrent_client.hash_check import CHECKS_AT_ONCE, check_pieces, judge_files
from torrent_client.piece_manager import PieceManager
from torrent_client.resume import ResumeFile, format_ranges
from torrent_client.storage import Storage
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import Progress

logger = logging.getLogger(__name__)

QUICKLY_SYNCED = 32 * MIB
"""Bytes that the system may have yet to write when we sync: a hard disk takes 0.3 s for them."""


class Inventory:
    """Knows what is on disk, and keeps it in the state file.

    Args:
        torrent: which one.
        options: where its files are.
        storage: reads them.
        pieces: is told which pieces are complete.
        is_stopping: tells whether to leave off.

    Attributes:
        checked: pieces hashed so far, of `to_check`.
        earlier: bytes sent and received in earlier runs.
        is_taken: it is known what is on disk, so that there is something to save.
    """

    def __init__(
        self,
        torrent: TorrentFile,
        options: DownloadOptions,
        storage: Storage,
        pieces: PieceManager,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Find the state file's name; nothing is read yet."""
        self.checked = 0
        self.to_check = 0
        self.earlier = Progress(0, 0, 0)
        self.is_taken = False
        self._torrent = torrent
        self._read_only = options.read_only
        self._storage = storage
        self._pieces = pieces
        self._is_stopping = is_stopping
        directory = options.state_directory
        self._resume = ResumeFile(directory, torrent, options.output) if directory else None
        self._saved: tuple[int, int, bool] | None = None  # pieces, bytes sent, whether synced, as saved last
        self._has_failed = False  # the last attempt to save
        first = next((file for file in storage.content() if file.length), None)
        self._claim = FileClaim(storage.path(first)) if first and not options.read_only else None

    def take(self, on_checking: Callable[[], None]) -> None:
        """Find out which pieces are on disk, and make room for the others.

        Args:
            on_checking: is called if files have to be hashed, which takes its time.

        Raises:
            StorageError: files cannot be made, or there is no room for them.
            DataIncomplete: what is only to be served is not all there.
            TorrentConflict: another process writes the files.
        """
        if self._claim:
            self._claim.take()
        state = self._resume.load() if self._resume else None
        self._storage.find_parts()
        believed, doubtful = judge_files(state, self._storage, self._torrent.piece_count)
        if state:
            self.earlier = Progress(state.uploaded, state.downloaded, 0)
        if doubtful or (state and believed and not state.synced):
            self._storage.doubt_sync()
        for index in believed:
            self._pieces.mark_complete(index)
        if not self._read_only:
            self._storage.check_free_space(self._storage.bytes_to_allocate())
        if doubtful:
            on_checking()
            self._check(doubtful)
        if not self._is_stopping():
            self._make_ready(doubtful)

    def close(self) -> None:
        """Let other processes have the files."""
        if self._claim:
            self._claim.release()

    def _make_ready(self, doubtful: Bitfield) -> None:
        """Make the files that are to be written, or see that all are there."""
        if not self._read_only:
            self._set_strangers_aside(doubtful)
            self._storage.preallocate(stopped=self._is_stopping)
            self._storage.remove_empty_part_file()
            if self._claim:
                self._claim.take()  # now that it is there
        elif not self._pieces.is_complete:
            raise DataIncomplete(self._what_is_missing())
        for file in self._storage.oversized():
            logger.warning("%s is longer than the torrent says; it is left so", self._storage.path(file))
        if not self._is_stopping():
            self._storage.stamps()
            self.is_taken = True

    def _set_strangers_aside(self, doubtful: Bitfield) -> None:
        """Rename files that only happen to have our files' names: not one of their pieces is good."""
        good = self._pieces.bitfield.bits
        for file in self._torrent.files:
            indices = self._storage.pieces_of(file)
            pieces = (1 << indices.stop) - (1 << indices.start)
            if pieces & doubtful.bits and not pieces & good:
                kept = self._storage.set_aside(file)
                if kept:
                    logger.warning("%s was there and is something else; it is kept as %s", file.path, kept.name)

    def _check(self, doubtful: Bitfield) -> None:
        """Hash pieces that may be on disk."""
        self.to_check = len(doubtful)
        logger.info("checking %d pieces on disk", len(doubtful))

        def on_checked(_index: int, _good: bool) -> None:
            self.checked += 1

        with ThreadPoolExecutor(min(CHECKS_AT_ONCE, os.cpu_count() or 1), thread_name_prefix="check") as executor:
            check_pieces(self._pieces, self._storage, doubtful, executor, on_checked, self._is_stopping)

    def _what_is_missing(self) -> str:
        """Return how much of the data that is only to be served is not good."""
        good = self._pieces.bitfield
        missing = Bitfield(self._torrent.piece_count, Bitfield.full(self._torrent.piece_count).bits & ~good.bits)
        place = self._storage.root / self._torrent.files[0].path.parts[0]
        return (
            f"the data in {place} is not complete: {len(good):,} of {self._torrent.piece_count:,} pieces are good; "
            f"missing or bad: {format_ranges(missing)}"
        )

    def save(self, uploaded: int) -> None:
        """Write the state file, now and then; a failure is told once and holds nothing up.

        Args:
            uploaded: bytes sent in this run.
        """
        if self._pieces.is_done:
            self._sync_within(0)  # the next time it will have been done
        self._save(uploaded)

    def save_at_end(self, uploaded: int, seconds: float) -> None:
        """Write the state file for the last time.

        Args:
            uploaded: bytes sent in this run.
            seconds: how long to wait for the disk at most.
        """
        self._sync_within(seconds)
        self._save(uploaded)

    def _sync_within(self, seconds: float) -> None:
        """Sync what there is to sync, if it will not take long; do not wait longer than this for it."""
        is_of_use = self._resume and self.is_taken and not self._storage.is_synced
        if is_of_use and (self._storage.is_syncing or unwritten_bytes() <= QUICKLY_SYNCED):
            self._storage.sync_within(seconds)

    def _save(self, uploaded: int) -> None:
        if self._resume is None or not self.is_taken:
            return
        completed = self._pieces.bitfield
        synced = self._storage.is_synced  # asked after the pieces: one that is written now makes it false
        state = completed.bits, uploaded, synced
        if self._saved == state:
            return
        downloaded = self.earlier.downloaded + self._pieces.useful_bytes
        try:
            self._resume.save(completed, self._storage, self.earlier.uploaded + uploaded, downloaded, synced=synced)
            self._saved = state
            self._has_failed = False
        except StorageError as error:
            if not self._has_failed:
                logger.warning("%s; an interrupted download will be hashed again", error)
            self._has_failed = True


def unwritten_bytes() -> int:
    """Return the bytes in memory that Linux has yet to write to disks; 0 where the system does not tell."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return sum(int(line.split()[1]) * KIB for line in lines if line.startswith(("Dirty:", "Writeback:")))
    return 0
