"""The `scrape` command: how many peers each tracker of a torrent knows, without taking part.

All trackers are asked at once, and each about all torrents that name it in one request.

Spec: BEP 48 (HTTP), BEP 15 (UDP).
Thread: main, and a `scrape` for each tracker.
Lock: none; answers come through a queue.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import NamedTuple

from torrent_client.cli.exit_codes import ExitCode
from torrent_client.cli.get import read_torrent
from torrent_client.config import MAX_TRACKERS, Config
from torrent_client.errors import MetainfoError, TrackerError, TrackerSilent
from torrent_client.magnet import MagnetLink
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import ScrapeCounts, TrackerClient, generate_peer_id

ASKED_AT_ONCE = 16
"""Trackers that are asked at the same time; a thread each."""


class Answer(NamedTuple):
    """What one tracker said: the numbers of the torrents that it knows, or why there are none."""

    url: str
    counts: Mapping[bytes, ScrapeCounts]
    error: str | None


def scrape(options: Namespace) -> int:
    """Ask the trackers; return 0 if at least one of them answered.

    Raises:
        MetainfoError: a torrent cannot be read, or none names a tracker.
    """
    torrents = [read_torrent(source).with_trackers(options.tracker) for source in options.torrent]
    names = {torrent.info_hash: _name(torrent) for torrent in torrents}
    trackers: dict[str, list[bytes]] = {}
    for torrent in torrents:
        for url in _urls(torrent):
            hashes = trackers.setdefault(url, [])
            if torrent.info_hash not in hashes:
                hashes.append(torrent.info_hash)
    if not trackers:
        raise MetainfoError("no tracker to ask: the torrent names none, and none was given with --tracker")
    has_answered = False
    for answer in ask_all(dict(list(trackers.items())[:MAX_TRACKERS]), Config(proxy=options.proxy or "")):
        has_answered = has_answered or answer.error is None
        for info_hash in trackers[answer.url]:
            _show(answer, info_hash, names[info_hash], options, is_one_of_several=len(names) > 1)
    return ExitCode.OK if has_answered else ExitCode.ERROR


def ask_all(trackers: Mapping[str, Sequence[bytes]], config: Config) -> Iterator[Answer]:
    """Ask trackers about torrents, all at the same time; give each one's answer when it comes.

    Args:
        trackers: info hashes, by announce URL.
        config: time-outs, and the proxy.
    """
    answers: SimpleQueue[Answer] = SimpleQueue()
    room = Semaphore(ASKED_AT_ONCE)

    def ask(url: str, hashes: Sequence[bytes]) -> None:
        with room:
            answers.put(ask_one(url, hashes, config))

    for url, hashes in trackers.items():
        # Daemons: a tracker that hangs must not hold up the end after Ctrl-C.
        Thread(target=ask, args=(url, hashes), name="scrape", daemon=True).start()
    for _ in trackers:
        yield answers.get()


def ask_one(url: str, hashes: Sequence[bytes], config: Config) -> Answer:
    """Ask one tracker; over UDP twice if need be, for a datagram may get lost."""
    client = TrackerClient(url, hashes[0], generate_peer_id(), 0, config=config)
    try:
        try:
            return Answer(url, client.scrape(hashes), None)
        except TrackerSilent:
            return Answer(url, client.scrape(hashes), None)
    except TrackerError as error:
        return Answer(url, {}, str(error))


def _urls(torrent: TorrentFile | MagnetLink) -> Sequence[str]:
    if isinstance(torrent, MagnetLink):
        return torrent.trackers
    return [url for tier in torrent.trackers for url in tier]


def _name(torrent: TorrentFile | MagnetLink) -> str:
    return torrent.display_name if isinstance(torrent, MagnetLink) else torrent.name


def _show(answer: Answer, info_hash: bytes, name: str, options: Namespace, *, is_one_of_several: bool) -> None:
    """Print a line for a torrent at a tracker."""
    counts = answer.counts.get(info_hash)
    error = answer.error or (None if counts else "it does not know the torrent")
    if options.json:
        numbers = counts._asdict() if counts else dict.fromkeys(ScrapeCounts._fields)
        value = {"type": "scrape", "url": answer.url, "info_hash": info_hash.hex(), "name": name, "error": error}
        print(json.dumps(value | numbers), flush=True)
        return
    prefix = f"{printable(name, 40)}: " if is_one_of_several else ""
    url = printable(answer.url, 200)
    if counts:
        numbers_text = f"{counts.seeders:>6,} seeds {counts.leechers:>6,} others {counts.completed:>8,} completed"
        print(f"{numbers_text}   {prefix}{url}", flush=True)
    elif not options.quiet:
        print(f"{prefix}{url}: {error}", file=sys.stderr)
