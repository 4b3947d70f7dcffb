"""A traced download from a real peer: the file that Wireshark's dissector reads, and the diagram."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.real_peers import libtorrent_seeder, make_torrent, require_program
from tests.support import payload

MAIN = Path(__file__).parents[2] / "main.py"
SIZE = 200_003  # bytes


def test_wireshark_dissects_a_download_as_bittorrent(tmp_path: Path) -> None:
    """Handshake, requests and pieces are found, and every block is there."""
    tshark = require_program("tshark")
    torrent = make_torrent(tmp_path, payload(SIZE), 32768)
    capture, events = tmp_path / "x.pcap", tmp_path / "x.jsonl"
    options = ["--trace", "--trace-pcap", str(capture), "--trace-file", str(events), "--port", "0"]
    with libtorrent_seeder(tmp_path, torrent) as peer:
        places = ["-o", str(tmp_path / "out"), "--state-dir", str(tmp_path / "state"), "--peer", peer.address]
        command = [sys.executable, str(MAIN), str(torrent.path), *places, *options]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    torrent.assert_content_in(tmp_path / "out")
    assert "Asks for `length` bytes" in result.stdout
    fields = ["-T", "fields", "-e", "bittorrent.msg.type", "-e", "bittorrent.msg.length"]
    dissected = subprocess.run(
        [tshark, "-r", str(capture), "-Y", "bittorrent", *fields], capture_output=True, text=True, check=True
    )
    types = ",".join(line.split("\t")[0] for line in dissected.stdout.splitlines()).split(",")
    blocks = -(-SIZE // 16384)
    assert types.count("6") == types.count("7") == blocks, types
    kept = [json.loads(line) for line in events.read_text().splitlines()]
    assert sum(event["name"] == "piece" for event in kept) == blocks
    assert [event["name"] for event in kept[1:3]] == ["handshake", "handshake"]


@pytest.mark.parametrize("option", ["--trace-file", "--trace-pcap"])
def test_a_trace_that_cannot_be_written_is_an_error_before_anything_begins(tmp_path: Path, option: str) -> None:
    """The user would otherwise find out after the lesson."""
    torrent = make_torrent(tmp_path, payload(1000), 32768)
    command = [sys.executable, str(MAIN), str(torrent.path), "-o", str(tmp_path / "out"), option, "/nowhere/at/all"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "/nowhere/at/all" in result.stderr
