"""What the program's exit code says; the README has the same table.

Spec: none.
Thread: none.
Lock: none.
"""

from enum import IntEnum

from torrent_client.errors import (
    DataIncomplete,
    DownloadStalled,
    MetainfoError,
    SelectionError,
    StorageError,
    TorrentConflict,
    TorrentError,
)


class ExitCode(IntEnum):
    """Codes for scripts; stable."""

    OK = 0
    ERROR = 1
    USAGE = 2
    BAD_TORRENT = 3
    STORAGE = 4
    STALLED = 5
    INCOMPLETE = 6
    INTERRUPTED = 130
    TERMINATED = 143


def exit_code(error: TorrentError) -> ExitCode:
    """Return the code for an error that ended the program."""
    match error:
        case MetainfoError():
            return ExitCode.BAD_TORRENT
        case StorageError():
            return ExitCode.STORAGE
        case SelectionError():
            return ExitCode.USAGE
        case DownloadStalled():
            return ExitCode.STALLED
        case DataIncomplete():
            return ExitCode.INCOMPLETE
        case TorrentConflict():
            return ExitCode.USAGE
        case _:
            return ExitCode.ERROR
