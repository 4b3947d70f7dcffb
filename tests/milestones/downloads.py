"""Running a student's DownloadManager: in the checks' own process, or in one that can be killed.

As a program: `python -m tests.milestones.downloads TORRENT OUTPUT WORK ROOT...` downloads and ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.milestones.child import ROOT, use_modules_of
from tests.milestones.lesson import Torrent
from tests.milestones.student import Later, Student


def manager_of(student: Student, torrent_path: Path, output: Path) -> Any:
    """Return the student's DownloadManager of a torrent, which writes into a directory."""
    output.mkdir(exist_ok=True)
    kind = student.find("torrent_parser", "TorrentFile")
    parsed = student.call(getattr(kind, "from_file", kind), path=str(torrent_path))

    def peers() -> Any:
        """Ask the tracker with the student's TrackerClient, for a manager that wants to be given peers."""
        make = student.find("tracker_client", "TrackerClient")
        names = {"announce": "announce", "info_hash": "info_hash", "length": "length"}
        facts = {key: student.attribute(parsed, name) for key, name in names.items()}
        client = student.call(make, torrent=parsed, peer_id=student.peer_id(), port=6881, **facts)
        return student.method(client, "get_peers")()

    return student.call(
        student.find("download_manager", "DownloadManager"),
        path=str(torrent_path),
        torrent=parsed,
        output=str(output),
        output_file=str(output / torrent_path.stem),
        peer_id=student.peer_id(),
        port=6881,
        peers=Later(peers),
    )


def run(student: Student, torrent_path: Path, output: Path) -> object:
    """Download with the student's DownloadManager; return what its method returned."""
    manager = manager_of(student, torrent_path, output)
    try:
        return student.method(manager, "download", "start", "run", "download_all")()
    finally:
        for name in ("stop", "close", "shutdown"):
            if callable(getattr(manager, name, None)):
                with suppress(Exception):
                    getattr(manager, name)()
                break


def expect_download(student: Student, torrent: Torrent, output: Path, result: object = None) -> None:
    """Fail, inside a rule, unless the files are there, or `download()` returned all bytes of a single file."""
    if len(torrent.files) == 1 and isinstance(result, bytes | bytearray) and bytes(result) == torrent.data:
        return
    missing = wrong(torrent, output)
    if missing:
        student.wait(lambda: not wrong(torrent, output))  # a start() that returns at once is still at work
        missing = wrong(torrent, output)
    student.expect(not missing, f"after the download {missing}")


def wrong(torrent: Torrent, output: Path) -> str:
    """Say what is wrong with the files below a directory; nothing if all is well."""
    found = [path for path in output.rglob("*") if path.is_file()]
    for name, data in torrent.files.items():
        parts = Path(name).parts
        endings = {parts, parts[1:] or parts}
        places = [path for path in found if path.relative_to(output).parts[-len(parts) :] in endings]
        places = places or [path for path in found if path.parts[-len(parts[1:] or parts) :] == (parts[1:] or parts)]
        if not places:
            return f"there is no file {name}"
        contents = [path.read_bytes() for path in places]
        if data not in contents:
            return f"{name} {difference(contents[0], data)}"
    return ""


def difference(got: bytes, wanted: bytes) -> str:
    """Say where bytes differ."""
    if len(got) != len(wanted):
        return f"has {len(got)} bytes instead of {len(wanted)}"
    offset = next(at for at, (one, other) in enumerate(zip(got, wanted, strict=True)) if one != other)
    return f"differs from the original from byte {offset} on"


@contextmanager
def in_another_process(student: Student, torrent: Torrent, output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Download in a process of its own, which is killed when the block ends."""
    module = [sys.executable, "-m", "tests.milestones.downloads"]
    command = [*module, torrent.path, output, student.folder, *student.roots]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    torrent_path, output_path, work, *root_paths = map(Path, sys.argv[1:])
    use_modules_of(root_paths)
    run(Student(root_paths, work, work / "printed"), torrent_path, output_path)
    sys.stdout.flush()
    os._exit(0)
