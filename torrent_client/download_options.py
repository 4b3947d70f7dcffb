"""What the user may choose for one torrent.

Spec: none.
Thread: none (immutable).
Lock: none.
"""

from pathlib import Path
from typing import NamedTuple

from torrent_client.file_selection import ALL_FILES, FileSelection
from torrent_client.seeding_goals import SeedingGoals
from torrent_client.tracker_client import PeerAddress


class DownloadOptions(NamedTuple):
    """What the user may choose for one torrent.

    Attributes:
        output: directory that the files go to.
        state_directory: where the state file goes; None for no state file.
        sequential: pieces in order.
        seed: go on serving when complete.
        super_seed: show each peer one piece at a time, so that each is sent once (BEP 16).
        files: which files, and in which order.
        given_peers: addresses to dial at once.
        web_seeds: URLs of servers that have the files (BEP 19), beside those that the torrent names.
        goals: what ends seeding.
        max_download_rate, max_upload_rate: bytes per second of this torrent, within the session's; 0 for no limit.
        read_only: only serve what is there, and change nothing of it; an error if it is not complete.
        save_torrent: write the .torrent file of a magnet link into `output`.
        metadata_only: of a magnet link, get the metadata and no more.
    """

    output: Path
    state_directory: Path | None = None
    sequential: bool = False
    seed: bool = False
    super_seed: bool = False
    files: FileSelection = ALL_FILES
    given_peers: tuple[PeerAddress, ...] = ()
    web_seeds: tuple[str, ...] = ()
    goals: SeedingGoals = SeedingGoals()
    max_download_rate: float = 0.0
    max_upload_rate: float = 0.0
    read_only: bool = False
    save_torrent: bool = False
    metadata_only: bool = False
