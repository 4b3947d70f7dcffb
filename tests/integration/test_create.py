"""Torrents made by our client, as a user makes them, compared with those of mktorrent and libtorrent."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.real_peers import lt, require_program
from tests.support import payload
from torrent_client.config import KIB
from torrent_client.protocol.bencode import bencode_decode

MAIN = Path(__file__).parent.parent.parent / "main.py"

Files = Mapping[str, bytes]

TREE: Files = {
    "README": payload(100, 1),
    "a/nested/deep/er.bin": payload(70_001, 2),
    "a/nested/empty": b"",
    "a.txt": payload(5, 3),
    "a-b": payload(1, 4),
    "a b/c": payload(16 * KIB, 5),
    "B": payload(16 * KIB - 1, 6),
    "b": payload(16 * KIB + 1, 7),
    "Ärger/日本語.txt": payload(33, 8),
    "emoji 🎵/song.flac": payload(200_003, 9),
    "e\N{COMBINING ACUTE ACCENT}": payload(3, 10),
    "\N{LATIN SMALL LETTER E WITH ACUTE}": payload(4, 11),
    ".hidden": payload(7, 12),
    ".git/config": payload(9, 13),
    "notes~": payload(11, 14),
    "#notes#": payload(12, 15),
    "10": payload(13, 16),
    "9": payload(14, 17),
    "zz empty": b"",
}

CONTENTS = {
    "one byte": payload(1),
    "exactly one piece": payload(32 * KIB),
    "one byte more": payload(32 * KIB + 1),
    "many pieces": payload(1_000_003),
    "a directory of one file": {"only": payload(50_000)},
    "a tree": TREE,
    "many files": {f"dir{number % 7}/{number}": payload(number * 97, number) for number in range(120)},
    "ends with empty files": {"a": payload(32 * KIB), "b": b"", "c/d": b""},
}


@pytest.fixture(params=CONTENTS)
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a file or a directory."""
    return write(tmp_path / "Ünïcode name", CONTENTS[request.param])


def write(root: Path, content: Files | bytes) -> Path:
    """Write one file, or a directory of files; nothing is executable, which libtorrent alone would note."""
    files = {".": content} if isinstance(content, bytes) else content
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def ours(content: Path, *options: str) -> dict[str, Any]:
    """Make a torrent with our client; return the object that it prints."""
    command = [sys.executable, str(MAIN), "create", str(content), "--json", *options]
    process = subprocess.run(command, cwd=content.parent, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, process.stderr
    facts = json.loads(process.stdout)
    assert isinstance(facts, dict)
    return facts


def mktorrent(content: Path, *options: str) -> Path:
    """Make a torrent with mktorrent; return its path."""
    path = content.parent / "mktorrent.torrent"
    command = [require_program("mktorrent"), *options, "-o", str(path), str(content)]
    process = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert process.returncode == 0, process.stdout + process.stderr
    return path


def info_hash(path: Path) -> str:
    """Return a torrent's info hash as libtorrent reads it, in hexadecimal."""
    return str(lt.load_torrent_file(str(path)).info_hashes.v1)


def decoded(path: Path) -> dict[bytes, Any]:
    """Return what is in a torrent."""
    value = bencode_decode(path.read_bytes())
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(("words", "theirs"), [([], []), (["--private", "--source", "X é"], ["-p", "-s", "X é"])])
def test_info_hash_is_that_of_mktorrent(content: Path, words: list[str], theirs: list[str]) -> None:
    """With the same pieces, and with what is in the info dictionary beside them."""
    made = ours(content, "--piece-size", "32K", *words)
    assert made["info_hash"] == info_hash(content.parent / made["path"])
    assert made["info_hash"] == info_hash(mktorrent(content, "-l", "15", *theirs))


@pytest.mark.parametrize("private", [False, True])
def test_info_hash_is_that_of_libtorrent(content: Path, private: bool) -> None:
    """Libtorrent takes the files as the disk gives them, so that they are sorted for it."""
    files = sorted(lt.list_files(str(content)), key=lambda entry: os.fsencode(entry.filename))
    creator = lt.create_torrent(files, 64 * KIB, lt.create_torrent.v1_only)
    creator.set_priv(private)
    lt.set_piece_hashes(creator, str(content.parent))
    path = content.parent / "libtorrent.torrent"
    path.write_bytes(lt.bencode(creator.generate()))
    made = ours(content, "--piece-size", "64K", *(["--private"] if private else []))
    assert made["info_hash"] == info_hash(path)


def test_order_of_files_is_libtorrents_own(tmp_path: Path) -> None:
    """Asked for its canonical order, libtorrent sorts a tree as we and mktorrent do."""
    content = write(tmp_path / "tree", TREE)
    creator = lt.create_torrent(lt.list_files(str(content)), 16 * KIB, lt.create_torrent.canonical_files)
    lt.set_piece_hashes(creator, str(tmp_path))
    (tmp_path / "theirs.torrent").write_bytes(lt.bencode(creator.generate()))
    files = decoded(tmp_path / "theirs.torrent")[b"info"][b"files"]
    theirs = [file[b"path"] for file in files if file.get(b"attr") != b"p"]
    made = ours(content)
    assert [file[b"path"] for file in decoded(tmp_path / made["path"])[b"info"][b"files"]] == theirs


def test_the_rest_is_as_in_mktorrent(tmp_path: Path) -> None:
    """Tiers, web seeds and the comment: one option of mktorrent is one of ours, in the same letters."""
    content = write(tmp_path / "tree", TREE)
    tiers = ["-a", "http://1.example/a,http://2.example/a", "-a", "udp://3.example:1/a"]
    options = [*tiers, "-w", "http://4.example/,http://5.example/", "-c", "Grüße", "-d"]
    made = decoded(tmp_path / ours(content, *options)["path"])
    theirs = decoded(mktorrent(content, *options))
    for different in (b"info", b"created by"):
        del made[different], theirs[different]
    assert made == theirs


def test_libtorrent_reads_everything(tmp_path: Path) -> None:
    """What another program makes of the torrent is what was asked for."""
    content = write(tmp_path / "tree", TREE)
    words = ["-t", "http://1.example/a,http://2.example/a", "-t", "udp://3.example:1/a", "-w", "http://4.example/"]
    made = ours(content, *words, "--private", "--comment", "Grüße")
    loaded = lt.load_torrent_file(str(tmp_path / made["path"]))
    info = loaded.ti
    assert info is not None
    assert str(loaded.info_hashes.v1) == made["info_hash"]
    assert (info.num_pieces(), info.piece_length(), info.total_size()) == (
        made["pieces"],
        made["piece_length"],
        made["size"],
    )
    assert info.num_files() == made["files"] == len(TREE)
    assert info.priv()
    assert loaded.trackers == ["http://1.example/a", "http://2.example/a", "udp://3.example:1/a"]
    assert loaded.tracker_tiers == [0, 0, 1]
    assert loaded.url_seeds == ["http://4.example/"]


def test_our_own_client_finds_every_piece(tmp_path: Path) -> None:
    """Made and then verified: what the summary says about seeding is true."""
    # Without the two names that not every system can hold beside others of the tree: downloading changes them.
    alike = {"B", "e\N{COMBINING ACUTE ACCENT}"}
    content = write(tmp_path / "tree", {name: data for name, data in TREE.items() if name not in alike})
    made = ours(content)
    command = [sys.executable, str(MAIN), "verify", made["path"], "-o", ".", "--state-dir", str(tmp_path / "state")]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, process.stdout + process.stderr
