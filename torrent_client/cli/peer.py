"""The `peer` command: a seeder that misbehaves in a chosen way, for lessons.

Spec: BEP 3, 6.
Thread: main waits for Ctrl-C; the gallery has its own.
Lock: none.
"""

import sys
import threading
from argparse import Namespace

from torrent_client.cli.get import Interruption
from torrent_client.cli.seed import find_data
from torrent_client.errors import TorrentError
from torrent_client.misbehaving_peers import BEHAVIOURS, Gallery
from torrent_client.storage import Storage
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile

MAX_OPEN_FILES = 16


def run_peer(options: Namespace) -> int:
    """Misbehave until Ctrl-C; return the exit code."""
    if options.behave == "list":
        for name, behaviour in BEHAVIOURS.items():
            print(f"{name:<10} {behaviour.does}\n{'':<10} {behaviour.advice}")
        return 0
    if options.torrent is None or options.data is None:
        raise TorrentError("`peer` needs a torrent and its data: peer FILE.torrent --data PATH --behave HOW")
    torrent = TorrentFile.from_file(options.torrent)
    data = find_data(torrent, options.data)
    torrent = torrent.stored_as(data.name)
    behaviour = BEHAVIOURS[options.behave]
    storage = Storage(data.parent, torrent.files, torrent.piece_length, MAX_OPEN_FILES, read_only=True)
    interruption = Interruption()
    say = _silence if options.quiet else _tell
    gallery = Gallery(torrent, storage.read_block, behaviour, host=options.host, port=options.port, say=say)
    with interruption.handled():
        gallery.start()
        say(f"{behaviour.name}: {behaviour.does}")
        say(behaviour.advice)
        say(f"try it:  python main.py {printable(str(options.torrent), 500)} --peer {options.host}:{gallery.port}")
        try:
            while interruption.signal is None:
                threading.Event().wait(0.1)
        finally:
            gallery.stop()
            storage.close()
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silence(_text: str) -> None:
    """Say nothing: for --quiet."""
