"""What tests of several modules share.

Repeatable bytes, a clock that is moved by hand, a leak counter, and programs that end with their test: any
program, and our own client.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_MAIN = Path(__file__).parent.parent / "main.py"
ALONE = ("--no-lsd", "--no-portmap", "--no-dht")  # a download meets those only whom a test introduces to it
_DESCRIPTORS = Path("/proc/self/fd")
# Open for reasons that have nothing to do with the test: logs of the runner, and what the interpreter opens
# once and keeps.
_HARMLESS_TARGETS = ("/dev/null", "/dev/urandom", "/dev/tty", "/dev/pts/")


def payload(size: int, seed: int = 0) -> bytes:
    """Return `size` pseudo-random bytes, the same ones for the same seed on every machine and run."""
    return random.Random(seed).randbytes(size)


class FakeClock:
    """A clock that stands still until a test moves it: pass it where `time.monotonic` is expected.

    Args:
        now: what the clock shows at first, in seconds; not zero, so that "never" and "at 0" differ.
    """

    def __init__(self, now: float = 1000.0):
        self.now = now

    def __call__(self) -> float:
        """Return the time shown, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock on by `seconds`, which cannot be negative: a monotonic clock never goes back."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back ({seconds} s)")
        self.now += seconds


def wait_until(condition: Callable[[], bool], timeout: float = 10.0, what: str = "the condition") -> None:
    """Poll `condition` until it is true.

    For what happens in other processes; what sets an Event is better waited for there.

    Args:
        condition: asked about 50 times a second.
        timeout: the longest wait, in seconds.
        what: names the condition in the failure.

    Raises:
        TimeoutError: the condition was still false after `timeout`.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true in {timeout:g} s")
        time.sleep(0.02)


class OpenResources(NamedTuple):
    """What this process holds open at one moment.

    Attributes:
        threads: the running threads.
        files: how often each target (file, socket, pipe) is open; empty where there is no /proc.
    """

    threads: frozenset[threading.Thread]
    files: Counter[str]

    @classmethod
    def now(cls) -> "OpenResources":
        """Take stock of threads, files and sockets; costs about 0.1 ms."""
        return cls(frozenset(threading.enumerate()), Counter(_open_targets()))

    def leaked_since(self, before: "OpenResources") -> list[str]:
        """Return one line for each thing that is open now and was not open `before`."""
        threads = sorted(f"thread {thread.name!r}" for thread in self.threads - before.threads)
        files = sorted(f"open {target}" for target in (self.files - before.files).elements())
        return threads + files


def leaks_since(before: OpenResources, grace: float = 2.0) -> list[str]:
    """Return what is still open of what was opened since `before`, after waiting for threads that are ending.

    Args:
        before: taken when the test began.
        grace: how long a thread or a socket may take to go away, in seconds.
    """
    deadline = time.monotonic() + grace
    while (leaks := OpenResources.now().leaked_since(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return leaks


def _open_targets() -> list[str]:
    """Return what each file descriptor of this process points to, harmless ones left out."""
    if not _DESCRIPTORS.is_dir():
        return []
    targets = []
    for descriptor in os.listdir(_DESCRIPTORS):
        try:
            target = os.readlink(_DESCRIPTORS / descriptor)
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if not target.startswith(_HARMLESS_TARGETS):
            targets.append(target)
    return targets


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    stdout: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the length of a `with` block, then kill it: its data is thrown away with the test.

    Args:
        command: the program and its arguments.
        log: the file for its stderr, and for its stdout unless that has its own.
        stdout: a file for its stdout.
        cwd: its working directory.
        env: its environment, unless it is ours.
    """
    with log.open("ab") as error_file, (stdout or log).open("ab") as output_file:
        process = subprocess.Popen(
            [*_ends_with_us(), *command],
            stdin=subprocess.DEVNULL,
            stdout=output_file,
            stderr=error_file,
            cwd=cwd,
            env=env,
            start_new_session=True,  # a Ctrl-C meant for pytest is not also meant for the program
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ends_with_us() -> list[str]:
    """Return the command prefix, where there is one, that lets no program outlive a killed test run."""
    setpriv = shutil.which("setpriv")  # Linux
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


@dataclass(frozen=True, slots=True)
class ClientProcess:
    """Our client, running as a user runs it, with `--json`.

    Attributes:
        process: its process.
        output: its stdout, one JSON object in each line.
        log: its stderr.
    """

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def reports(self) -> list[dict[str, Any]]:
        """Return the objects that it has printed so far, whole lines only."""
        lines = self.output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def last_report(self) -> dict[str, Any]:
        """Return the last object that it printed."""
        reports = self.reports()
        assert reports, f"the client printed no report\n{self.log_tail()}"
        return reports[-1]

    def wait_for_bytes(self, count: int, timeout: float = 30.0) -> None:
        """Wait until it reports `count` verified bytes, and fail when it ends before that."""
        wait_until(lambda: self._has_bytes(count), timeout, f"{count} bytes verified")

    def _has_bytes(self, count: int) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.log_tail()}"
        return any(report.get("bytes_done", 0) >= count for report in self.reports())

    def wait(self, timeout: float) -> int:
        """Wait until it ends and return its exit code; fail after `timeout` seconds, or when it crashed."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            message = f"the client still ran after {timeout:g} s\n{self.log_tail()}"
            raise AssertionError(message) from error
        assert "Traceback" not in self.log.read_text(errors="replace"), self.log_tail()
        return code

    def log_tail(self) -> str:
        """Return the end of what it printed, reports and messages."""
        tails = {self.output: tail(self.output, lines=2), self.log: tail(self.log)}
        return "\n".join(f"--- end of {path.name} ---\n{text}" for path, text in tails.items())


@contextlib.contextmanager
def running_client(tmp_path: Path, torrent: Path, directory: Path, *options: str | Path) -> Iterator[ClientProcess]:
    """Run `main.py` on a torrent until the block ends, with a home folder of its own below `tmp_path`.

    Runs with the same `tmp_path` share their state, as the runs of one user do.

    Args:
        tmp_path: for the home folder, the state and the logs.
        torrent: the .torrent file.
        directory: where to download to.
        options: more of the command line.
    """
    with running_command(tmp_path, torrent, "-o", directory, *options) as client:
        yield client


@contextlib.contextmanager
def running_command(tmp_path: Path, *arguments: str | Path) -> Iterator[ClientProcess]:
    """Run `main.py` with these arguments, `ALONE`, `--json` and a state directory; otherwise as `running_client`."""
    home, state = tmp_path / "home", tmp_path / "state"
    home.mkdir(exist_ok=True)
    number = len(list(tmp_path.glob("client-*.log"))) + 1
    log, output = tmp_path / f"client-{number}.log", tmp_path / f"client-{number}.json"
    command = [sys.executable, _MAIN, *arguments, *ALONE, "--json", "--state-dir", state]
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    with running(command, log, stdout=output, cwd=tmp_path, env=env | {"HOME": str(home)}) as process:
        yield ClientProcess(process, output, log)


def tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a text file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
