"""The demo, as the README begins with it: the whole swarm, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

MAIN = Path(__file__).parent.parent / "main.py"


def test_the_demo_downloads_from_its_seeders_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Three seeders read one file; the download is compared with it."""
    result = subprocess.run(
        [sys.executable, MAIN, "demo", "--size", "1", "--json"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["type"], last["bytes_done"]) == ("complete", 1024 * 1024)
    assert last["trackers"][0]["seeders"] >= 3
    assert "equals the original, byte for byte" in result.stderr
    assert list(tmp_path.iterdir()) == []
