"""Chosen files, fetched from a real peer: nothing else is left on disk, and later runs go on from there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.real_peers import MadeTorrent, libtorrent_seeder, make_torrent
from tests.support import ClientProcess, payload, running_client

PIECE_LENGTH = 32768
TIMEOUT = 40.0  # seconds
MAIN = Path(__file__).parents[2] / "main.py"
SIZES = {"one.bin": 300_001, "sub/two.bin": 400_003, "three.bin": 500_007}


@pytest.fixture
def three_files(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of three files that share pieces with each other."""
    return make_torrent(
        tmp_path, {name: payload(size, seed) for seed, (name, size) in enumerate(SIZES.items())}, PIECE_LENGTH
    )


def listing(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(torrent: MadeTorrent, tmp_path: Path, downloads: Path, *options: str) -> ClientProcess:
    """Download from a seeder until our client ends, which must be well."""
    with (
        libtorrent_seeder(tmp_path, torrent) as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", peer.address, *options) as client,
    ):
        assert client.wait(TIMEOUT) == 0, client.log_tail()
    return client


@pytest.mark.parametrize("without_state", [False, True])
def test_the_middle_file_of_three_and_then_the_rest(
    three_files: MadeTorrent, tmp_path: Path, downloads: Path, without_state: bool
) -> None:
    """Only that file is there after the first run; the second one completes it all and fetches nothing twice."""
    names = list(three_files.files)
    middle = next(name for name in names if name.endswith("two.bin"))
    number = names.index(middle) + 1
    client = run(three_files, tmp_path, downloads, "--select-file", str(number))
    report = client.last_report()
    assert report["type"] == "complete"
    assert report["bytes_done"] == report["size"] == len(three_files.files[middle])
    assert (report["files_wanted"], report["files_total"]) == (1, 3)
    assert report["total_size"] == three_files.size
    found = listing(downloads)
    part = f".{three_files.info_hash.hex()}.unwanted"
    assert found.keys() == {middle, part}
    assert found[middle] == three_files.files[middle]
    assert report["downloaded"] < len(three_files.files[middle]) + 2 * PIECE_LENGTH
    if without_state:
        for path in (tmp_path / "state").iterdir():
            path.unlink()
    client = run(three_files, tmp_path, downloads)
    three_files.assert_content_in(downloads)
    again = client.last_report()
    assert again["bytes_done"] == again["size"] == three_files.size
    assert report["downloaded"] + again["downloaded"] == three_files.size


def test_another_selection_goes_on_from_the_first(three_files: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """File after file, with a part file as long as something is apart and no longer."""
    done = 0
    for number, name in enumerate(three_files.files, 1):
        client = run(three_files, tmp_path, downloads, "--select-file", str(number), "--first-last")
        done += client.last_report()["downloaded"]
        assert (downloads / name).read_bytes() == three_files.files[name]
    three_files.assert_content_in(downloads)
    assert done == three_files.size


def test_verify_finds_what_is_apart(three_files: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """The pieces on the edges of the chosen file are good, wherever the rest of them lies."""
    wanted = run(three_files, tmp_path, downloads, "--select-file", "2").last_report()["pieces_wanted"]
    command = [sys.executable, MAIN, "verify", three_files.path, "-o", downloads, "--state-dir", tmp_path / "state"]
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert ended.returncode == 6
    assert json.loads(ended.stdout)["pieces_done"] == wanted


def test_files_are_listed(three_files: MadeTorrent, tmp_path: Path) -> None:
    """For people and for scripts, with the numbers that --select-file takes; nothing is downloaded."""
    command = [sys.executable, MAIN, three_files.path, "--list-files"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["1", "2", "3"]
    assert [line.split()[-1] for line in shown.splitlines()] == list(three_files.files)
    command.append("--json")
    lines = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"type": "file", "index": number, "length": len(data), "path": name}
        for number, (name, data) in enumerate(three_files.files.items(), 1)
    ]
    assert not (tmp_path / three_files.name).exists()


def test_a_number_that_is_no_files_is_wrong_usage(three_files: MadeTorrent, tmp_path: Path, downloads: Path) -> None:
    """Exit code 2 and a sentence, before anything is made."""
    with running_client(tmp_path, three_files.path, downloads, "--select-file", "2-4") as client:
        assert client.wait(TIMEOUT) == 2
    assert "there is no file 4: the torrent has 3" in client.log.read_text()
    assert listing(downloads) == {}
