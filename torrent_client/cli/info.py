"""The `info` command: what is in a torrent.

Standard output has the lines that coursework checks; standard error has the rest, for people.

Spec: BEP 3 (metainfo files).
Thread: main.
Lock: none.
"""

import json
import sys
from argparse import Namespace
from typing import Any

from torrent_client.magnet import MagnetLink
from torrent_client.text import format_size, printable
from torrent_client.torrent_parser import TorrentFile

FILES_SHOWN = 20
"""Files listed on standard error; `--json` lists all."""


def show_info(options: Namespace) -> int:
    """Print a torrent's facts; return the exit code."""
    torrent = TorrentFile.from_file(options.torrent)
    if options.json:
        print(json.dumps(facts(torrent)))
        return 0
    print_lines(torrent)
    if not options.quiet:
        sys.stdout.flush()
        print("\n".join(_summary(torrent)), file=sys.stderr)
    return 0


def print_lines(torrent: TorrentFile) -> None:
    """Print the lines that coursework checks."""
    print(f"Tracker URL: {printable(torrent.announce or '')}")
    print(f"Length: {torrent.total_length}")
    print(f"Info Hash: {torrent.info_hash.hex()}")
    print(f"Piece Length: {torrent.piece_length}")
    print("Piece Hashes:")
    for start in range(0, len(torrent.piece_hashes), 20):
        print(torrent.piece_hashes[start : start + 20].hex())


def facts(torrent: TorrentFile) -> dict[str, Any]:
    """Return everything as values that JSON knows."""
    return {
        "name": torrent.name,
        "info_hash": torrent.info_hash.hex(),
        "magnet": str(MagnetLink.of(torrent)),
        "length": torrent.total_length,
        "piece_length": torrent.piece_length,
        "pieces": torrent.piece_count,
        "trackers": torrent.trackers,
        "web_seeds": torrent.web_seeds,
        "http_seeds": torrent.http_seeds,
        "nodes": torrent.nodes,
        "private": torrent.is_private,
        "hybrid": torrent.is_hybrid,
        "comment": torrent.comment,
        "created_by": torrent.created_by,
        "creation_date": torrent.creation_date.isoformat() if torrent.creation_date else None,
        "source": torrent.source,
        "files": [
            {"path": str(file.path), "length": file.length, "padding": file.is_padding} for file in torrent.files
        ],
    }


def _summary(torrent: TorrentFile) -> list[str]:
    """Return the lines for people."""
    files = [file for file in torrent.files if not file.is_padding]
    pieces = f"{torrent.piece_count:,} pieces of {format_size(torrent.piece_length)}"
    lines = [
        "",
        f"name:     {printable(torrent.name)}",
        f"hash:     {torrent.info_hash.hex()}",
        f"magnet:   {printable(str(MagnetLink.of(torrent)), 4000)}",
        f"size:     {format_size(torrent.total_length)} in {pieces}",
    ]
    for number, tier in enumerate(torrent.trackers, 1):
        lines.append(f"tier {number}:   {', '.join(printable(url) for url in tier)}")
    optional = {
        "web seeds": ", ".join((*torrent.web_seeds, *torrent.http_seeds)),
        "comment": torrent.comment,
        "made by": torrent.created_by,
        "made on": torrent.creation_date and f"{torrent.creation_date:%Y-%m-%d %H:%M} UTC",
        "source": torrent.source,
        "private": "yes: peers come from its trackers alone" if torrent.is_private else None,
        "version": "v1 and v2 (hybrid)" if torrent.is_hybrid else None,
    }
    lines += [f"{label + ':':<9} {printable(str(value))}" for label, value in optional.items() if value]
    lines.append(f"files:    {len(files):,}")
    lines += [f"  {format_size(file.length):>10}  {file.path}" for file in files[:FILES_SHOWN]]
    if len(files) > FILES_SHOWN:
        lines.append(f"  and {len(files) - FILES_SHOWN:,} more")
    lines += [f"renamed:  {printable(str(renamed))}" for renamed in torrent.renamed[:FILES_SHOWN]]
    return lines
