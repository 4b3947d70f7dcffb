"""The `check` command: climb the guide's tasks, with this project's modules or a student's.

The checks themselves are `tests/milestones`, which pytest runs as well; each task runs in a process of its own, because
what a student writes may loop, crash or exit.

Spec: the guide.
Thread: main.
Lock: none.
"""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from torrent_client.errors import TorrentError

ROOT = Path(__file__).parents[2]


def check(options: Namespace) -> int:
    """Run the checks; return the exit code, 0 when all are passed.

    Raises:
        TorrentError: the checks are not there.
    """
    if not (ROOT / "tests" / "milestones" / "__main__.py").is_file():
        raise TorrentError(f"the checks are not in {ROOT / 'tests'}: run this in a clone of the project")
    arguments: list[str] = []
    if options.student is not None:
        arguments += ["--student", str(options.student.absolute())]
    if options.task is not None:
        arguments += ["--task", str(options.task)]
    arguments += [f"--{name}" for name in ("all", "json", "verbose") if getattr(options, name)]
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, "-m", "tests.milestones", *arguments], cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl-C reaches the checks too, which end by themselves
            continue
