"""Keeps a second process from writing the same files: a lock on one of them, for as long as we run.

    we        open, flock ------------------------------- close, or the end of the process
    another               open, flock: it is taken -> error

The system forgets the lock with the process, however that ends, so that nothing is left to clean up. Programs
that do not ask (all but ours) are not held up, and on file systems that know no locks nobody is.

Spec: none; flock(2).
Thread: housekeeping; at the end whoever stops the torrent.
Lock: none; one of them at a time.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from torrent_client.errors import TorrentConflict
from torrent_client.text import printable


class FileClaim:
    """A claim to write a file, and with it the torrent's others.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        """Claim nothing yet."""
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Claim the file that is there now, if one is; may be called again when it may have changed.

        Raises:
            TorrentConflict: another process has claimed it.
        """
        if self._is_held():
            return
        self.release()
        with suppress(OSError):  # whoever reads or writes it will say what is wrong
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise TorrentConflict(
                f"another process of this client is using {printable(str(self._path), 1000)}: "
                "stop it, or choose another directory with -o"
            ) from error
        except OSError:  # the file system has no locks
            self.release()

    def release(self) -> None:
        """Give the claim up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_held(self) -> bool:
        """Tell whether what we have claimed is what the path leads to: the file may have been renamed."""
        if self._descriptor is None:
            return False
        ours = os.fstat(self._descriptor)
        try:
            there = os.lstat(self._path)
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
