"""Runs jobs, several at a time, each in a process of its own: `python -m tests.milestones.batch PLAN`.

A job is a fork of this process, which has loaded the checker already: a hundred solutions are judged without starting
Python a hundred times. Each is the leader of a session, so that all that it starts can be ended with it.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tests.milestones import child

TIME_LIMIT = 120.0
"""Seconds for all checks of a task, if a student's code keeps even the watchdog from running."""

running: dict[int, tuple[Path, float]] = {}  # by process id: the job's folder, and its end at the latest


def main(plan: Path) -> None:
    """Run the jobs of a plan, a JSON file with `at_once` and `jobs`, the arguments of `child.main`."""
    signal.signal(signal.SIGTERM, _stop)
    content = json.loads(plan.read_text(encoding="utf-8"))
    for number in {int(arguments[0]) for arguments in content["jobs"]}:
        importlib.import_module(child.module_name(number))  # once, and not again in every job
    for arguments in content["jobs"]:
        while len(running) >= content["at_once"]:
            _reap()
        running[_start(arguments)] = Path(arguments[1]), time.monotonic() + TIME_LIMIT
    while running:
        _reap()


def _start(arguments: list[str]) -> int:
    """Begin a job; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        printed = os.open(Path(arguments[1], "printed"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as on a terminal
        child.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _reap() -> None:
    """Take note of jobs that have ended, or whose time is over, and leave nothing of them."""
    for pid, (folder, deadline) in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended and time.monotonic() < deadline:
            continue
        _kill(pid)
        if not ended:
            _, status = os.waitpid(pid, 0)
        (folder / "code").write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
        del running[pid]
    time.sleep(0.005)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End all jobs at once."""
    for pid in running:
        _kill(pid)
    os._exit(1)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
