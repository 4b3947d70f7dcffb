"""Processes: the one that is measured, and the helpers beside it.

`measure` runs a client through ``launch.py`` and returns what it cost. `Helper` is a seeder or a tracker:
started before, killed after, its CPU time read while it lives. `Reporter` is a helper that prints how it is
getting on, `Marked` one that creates a file when it is done.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from thesis.benchmarks import machine

LAUNCHER = Path(__file__).with_name("launch.py")
POLL = 0.02  # seconds between looks for a client's mark; the mark's own time counts, not the look's
GRACE = 5.0  # seconds for a client to leave after SIGTERM
LOG_TAIL = 500  # characters of a failed client's output to show


def users_environment() -> dict[str, str]:
    """Return our environment without settings of Python, as most users have it.

    PYTHONDONTWRITEBYTECODE, for one, makes a client in Python compile all its modules at each start: 0.15 s.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class RunFailed(Exception):
    """A run gave no measurement; the message says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a client took: seconds and bytes."""

    wall: float
    user: float
    system: float
    peak_rss: int

    @property
    def cpu(self) -> float:
        """User and system seconds."""
        return self.user + self.system


def measure(
    command: list[str], scratch: Path, timeout: float, mark: Path | None = None, prefix: Sequence[str] = ()
) -> Cost:
    """Run a client to its exit, or until it creates the mark, and return its cost; RunFailed if neither comes.

    The prefix is a command that starts another one elsewhere, such as in a namespace; what it takes does not count.
    """
    result, log = scratch / "launch.json", scratch / "client.log"
    launcher = [*prefix, sys.executable, "-I", "-S", str(LAUNCHER), str(result), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=scratch,
            env=users_environment(),
            start_new_session=True,
        )
    try:
        in_time = wait_for_exit(process, timeout, mark)
    finally:
        kill_group(process)
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-LOG_TAIL:]
    if not in_time:
        raise RunFailed(f"not done in {timeout:.0f} s: {said}")
    if not result.exists():
        raise RunFailed(f"did not start: {said}")
    measured = json.loads(result.read_text(encoding="ascii"))
    marked = mark is not None and mark.exists()
    if measured["status"] != 0 and not marked:
        raise RunFailed(f"exit status {measured['status']}: {said}")
    wall = mark.stat().st_mtime - measured["started"] if mark is not None and marked else measured["wall"]
    return Cost(wall, measured["user"], measured["system"], measured["peak_rss"])


def wait_for_exit(process: subprocess.Popen[bytes], timeout: float, mark: Path | None) -> bool:
    """Wait for the process, asking it to leave once the mark is there; False when time runs out first."""
    deadline = time.monotonic() + timeout
    if mark is not None:
        while process.poll() is None and not mark.exists() and time.monotonic() < deadline:
            time.sleep(POLL)
        if mark.exists():
            ask_to_leave(process)
            deadline = time.monotonic() + GRACE
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def ask_to_leave(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the whole group; the launcher stays to count the cost."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the process's group behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Helper:
    """A process beside the measured one."""

    def __init__(self, command: list[str], scratch: Path, name: str) -> None:
        """Start it, with its error messages in a file of the scratch directory."""
        self._log = scratch / f"{name}.log"
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=users_environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def first_line(self) -> str:
        """Wait for the first line that it prints; RunFailed when it ends without one."""
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise RunFailed(f"helper ended: {self.complaint()}")
        return line.decode().strip()

    def alive(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def complaint(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace").strip()[-LOG_TAIL:]

    def cpu(self) -> float:
        """Return its CPU seconds so far; RunFailed when it has died."""
        if not self.alive():
            raise RunFailed(f"helper ended: {self.complaint()}")
        return machine.cpu_seconds(self._process.pid)

    def peak_rss(self) -> int:
        """Return its largest resident size so far, in bytes."""
        return machine.resident(self._process.pid, "VmHWM")

    def rss(self) -> int:
        """Return its resident size, in bytes."""
        return machine.resident(self._process.pid, "VmRSS")

    def ask_to_leave(self) -> None:
        """Send SIGTERM."""
        ask_to_leave(self._process)

    def stop(self) -> None:
        """Kill it."""
        kill_group(self._process)
        if self._process.stdout is not None:
            self._process.stdout.close()


H = TypeVar("H", bound=Helper)


class Reporter(Helper):
    """A helper that prints JSON lines with its ``state``, ``uploaded`` and ``wasted`` bytes."""

    def __init__(self, command: list[str], scratch: Path, name: str) -> None:
        """Start it, and a thread that reads its lines: when a line comes is part of what it says."""
        super().__init__(command, scratch, name)
        self._last: dict[str, Any] = {}
        self._completed_at: float | None = None
        self._completed_or_ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Keep the last line, and the time of the first one that says "complete"."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now, self._last = time.monotonic(), json.loads(line)
            if self._completed_at is None and self._last.get("state") == "complete":
                self._completed_at = now
                self._completed_or_ended.set()
        self._completed_or_ended.set()

    def wait_until_complete(self, deadline: float) -> float:
        """Return when it said that it was complete, by the monotonic clock; RunFailed when it does not in time."""
        self._completed_or_ended.wait(max(0.0, deadline - time.monotonic()))
        if self._completed_at is None:
            state = "not complete in time" if self.alive() else "ended"
            raise RunFailed(f"{state}, {self._last.get('pieces_done', 0)} pieces: {self.complaint()}")
        return self._completed_at

    def last_report(self) -> dict[str, Any]:
        """Return its last line, once it has ended; RunFailed when it does not end."""
        self._reader.join(GRACE)
        if self._reader.is_alive():
            raise RunFailed(f"still there {GRACE:.0f} s after SIGTERM: {self.complaint()}")
        return self._last

    def stop(self) -> None:
        """Kill it."""
        kill_group(self._process)
        self._reader.join()  # the end of its output; before that, the pipe is the reader's
        super().stop()


class Marked(Helper):
    """A helper that creates a file when it is complete, and says nothing."""

    def __init__(self, command: list[str], scratch: Path, name: str, mark: Path) -> None:
        """Start it."""
        super().__init__(command, scratch, name)
        self._mark = mark

    def wait_until_complete(self, deadline: float) -> float:
        """As `Reporter.wait_until_complete`; the time is the file's."""
        while not self._mark.exists():
            if not self.alive() or time.monotonic() > deadline:
                raise RunFailed(f"{'not complete in time' if self.alive() else 'ended'}: {self.complaint()}")
            time.sleep(POLL)
        return self._mark.stat().st_mtime - time.time() + time.monotonic()

    def last_report(self) -> dict[str, Any]:
        """Wait for its end; it knows nothing of bytes."""
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.stop()
        return {}


@contextlib.contextmanager
def running(process: H) -> Iterator[H]:
    """Stop a helper at the end of a with block."""
    try:
        yield process
    finally:
        process.stop()


def helper(command: list[str], scratch: Path, name: str) -> contextlib.AbstractContextManager[Helper]:
    """Run a helper for the length of a with block."""
    return running(Helper(command, scratch, name))
