"""Has the checks of tasks run in processes of their own, and returns what came of each."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.milestones.student import sentence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

OURS = (HERE / "ours", ROOT)
"""Where this project's own modules are, under the guide's names, and its documents."""

TASKS = range(1, 18)

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


class Job(NamedTuple):
    """A task to be checked.

    Attributes:
        number: 1 to 17.
        roots: where the modules are.
        patience: seconds for each check, instead of its own limit.
        stops: run no check after one that failed.
    """

    number: int
    roots: Sequence[Path]
    patience: float = 0.0
    stops: bool = False


def run_task(number: int, roots: Sequence[Path]) -> Outcome:
    """Run a task's checks on the modules in some folders."""
    return run_jobs([Job(number, roots)])[0]


def run_jobs(jobs: Sequence[Job], at_once: int = 1) -> list[Outcome]:
    """Run the checks of several tasks, or of several solutions; return the outcomes in the jobs' order.

    Args:
        jobs: what to check.
        at_once: how many at the same time: most of them wait for sockets and clocks.
    """
    with tempfile.TemporaryDirectory(prefix="milestone-", ignore_cleanup_errors=True) as name:
        folders = [Path(name, str(number)) for number in range(len(jobs))]
        plan = Path(name, "plan")
        arguments = []
        for job, folder in zip(jobs, folders, strict=True):
            folder.mkdir()
            settings = [str(job.number), str(folder), str(job.patience), str(int(job.stops))]
            arguments.append([*settings, *map(str, job.roots)])
        plan.write_text(json.dumps({"at_once": at_once, "jobs": arguments}), encoding="utf-8")
        _run_batch(plan)
        return [
            Outcome(job.number, _results(folder), _tail(folder / "printed"))
            for job, folder in zip(jobs, folders, strict=True)
        ]


def _run_batch(plan: Path) -> None:
    """Run a plan in a process of its own, to its end or to Ctrl-C."""
    # Proxies are for the world: a student's library would look for the checker's tracker there.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.milestones.batch", plan],
        cwd=plan.parent,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    try:
        process.wait()
    finally:
        process.terminate()
        process.wait()


def _results(folder: Path) -> list[Result]:
    """Read what the process wrote; a check that began and has no result is the one that ended it."""
    results: dict[str, Result] = {}
    code = _tail(folder / "code")
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
