"""The tracker of WebTorrent's people, npm's `bittorrent-tracker`, on the loopback interface.

(cd tests/integration/npm && npm ci --ignore-scripts --omit=optional)      once, to install it
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.integration.real_peers import Tracker, free_port, missing, require_program, wait_until_ready
from tests.support import running

_FOLDER = Path(__file__).with_name("npm")


@contextlib.contextmanager
def npm_tracker(tmp_path: Path, host: str = "127.0.0.1") -> Iterator[Tracker]:
    """Track every torrent, over UDP on loopback, and over HTTP on this address of it."""
    node = require_program("node")
    if not (_FOLDER / "node_modules" / "bittorrent-tracker").is_dir():
        missing("bittorrent-tracker is not installed: see tests/integration/npm_tracker.py")
    port = free_port()
    log = tmp_path / "npm-tracker.log"
    with running([node, str(_FOLDER / "tracker.mjs"), host, str(port)], log) as process:
        tracker = Tracker("bittorrent-tracker", host, port, process, log)
        wait_until_ready(tracker, lambda: _listens(host, port))
        yield tracker


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
