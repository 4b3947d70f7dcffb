"""Runs the checks of a task in a process of its own, and returns what came of each."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.milestones.student import sentence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

OURS = (HERE / "ours", ROOT)
"""Where this project's own modules are, under the guide's names, and its documents."""

TASKS = range(1, 18)

TIME_LIMIT = 120.0
"""Seconds for all checks of a task, if a student's code keeps even the watchdog from running."""

PRINTED_LINES = 30
"""Lines of what a student's code printed that are shown with a failure."""


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: its name.
        passed: whether it did.
        sentence: what the protocol wants and what came, where it did not.
        trace: the Python traceback, where there is one.
    """

    check: str
    passed: bool
    sentence: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its checks as far as they ran, and what the code printed."""

    number: int
    results: Sequence[Result]
    printed: str

    @property
    def passed(self) -> bool:
        """Whether the task is done."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def first_failure(self) -> Result | None:
        """What to mend first."""
        return next((result for result in self.results if not result.passed), None)


def roots_of(student: Path | None) -> tuple[Path, ...]:
    """Return the folders to look for modules in: a student's, or this project's own."""
    return OURS if student is None else (student.resolve(),)


def run_task(number: int, roots: Sequence[Path], *, patience: float = 0.0, stops: bool = False) -> Outcome:
    """Run a task's checks.

    Args:
        number: 1 to 17.
        roots: where the modules are.
        patience: seconds for each check, instead of its own limit.
        stops: run no check after one that failed.
    """
    with tempfile.TemporaryDirectory(prefix="milestone-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [
            sys.executable,
            "-m",
            "tests.milestones.child",
            str(number),
            name,
            str(patience),
            str(int(stops)),
            *map(str, roots),
        ]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
        }
        with (folder / "printed").open("wb") as printed:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        try:
            process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        return Outcome(number, _results(folder, code), _tail(folder / "printed"))


def _results(folder: Path, code: int) -> list[Result]:
    """Read what the process wrote; a check that began and has no result is the one that ended it."""
    results: dict[str, Result] = {}
    with suppress(FileNotFoundError):
        for line in (folder / "results").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "check" in entry:
                came = f"the code ended the whole process (exit code {code})"
                unfinished = sentence("the code gives control back", came, "the guide, Task 15")
                results[entry["check"]] = Result(
                    entry["check"],
                    entry.get("passed", False),
                    entry.get("sentence", unfinished),
                    entry.get("trace", ""),
                )
    if not results:
        return [Result("start", False, "The checker could not be started; what it printed tells why.")]
    return [
        Result(result.check, result.passed, "" if result.passed else result.sentence, result.trace)
        for result in results.values()
    ]


def _tail(path: Path) -> str:
    with suppress(FileNotFoundError):
        lines = path.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
        return "\n".join(lines[-PRINTED_LINES:])
    return ""
