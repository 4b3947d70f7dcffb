"""The ladder: which of the guide's tasks are done, which is next, and what to do about it.

python main.py check --student DIR            climb until something is missing, and say what
python main.py check --student DIR --task 5   one task
python main.py check                          this project's own modules
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.milestones.child import checks_of, module_name
from tests.milestones.runner import TASKS, Outcome, roots_of, run_task
from tests.milestones.student import Task

WIDTH = 40
"""Columns for a task's title."""


def main(arguments: Sequence[str]) -> int:
    """Run checks and print what came of them; 0 when all that were asked for are done."""
    options = _parser().parse_args(arguments)
    if options.student and not options.student.is_dir():
        sys.stderr.write(f"error: {options.student} is no directory; make one: mkdir {options.student}\n")
        return 2
    numbers = [options.task] if options.task else TASKS
    failed: Outcome | None = None
    for number in numbers:
        task = _task(number)
        if failed and not options.all:
            _say(options, f"       {number:2}  {task.title}")
            continue
        outcome = run_task(number, roots_of(options.student))
        if options.json:
            sys.stdout.write(json.dumps(_as_values(task, outcome)) + "\n")
        else:
            _say(options, _rung(task, outcome, is_next=failed is None))
        if not outcome.passed:
            failed = failed or outcome
    if failed and not options.json:
        _explain(_task(failed.number), failed, options)
    elif not options.json:
        _say(options, "\nall tasks are done" if len(numbers) > 1 else "\nthe task is done")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    """Return the grammar, which `torrent_client.cli.arguments` shows to users."""
    parser = argparse.ArgumentParser(prog="python main.py check", add_help=False)
    parser.add_argument("--student", type=Path)
    parser.add_argument("--task", type=int, choices=TASKS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser


def _task(number: int) -> Task:
    """Return what the guide says of a task."""
    task = import_module(module_name(number)).TASK
    assert isinstance(task, Task)
    return task


def _titles(number: int) -> dict[str, str]:
    """Return each check's title: the first line of what it says of itself."""
    return {
        name: (check.__doc__ or name).split("\n")[0] for name, check in checks_of(import_module(module_name(number)))
    }


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _rung(task: Task, outcome: Outcome, *, is_next: bool) -> str:
    """Return a task's line."""
    count = len(_titles(task.number))
    done = sum(result.passed for result in outcome.results)
    mark = " done" if outcome.passed else " next" if is_next else "    -"
    return f"{mark}  {task.number:2}  {task.title:<{WIDTH}} {done} of {count} checks"


def _explain(task: Task, outcome: Outcome, options: argparse.Namespace) -> None:
    """Print what is missing of a task, and how to go on."""
    failure = outcome.first_failure
    assert failure is not None
    passed = {result.check: result.passed for result in outcome.results}
    lines = ["", f"Task {task.number}: {task.title}", f"  Objective:   {task.objective}"]
    lines += [f"  Deliverable: {task.deliverable}", ""]
    for name, title in _titles(task.number).items():
        mark = "ok  " if passed.get(name) else "FAIL" if name in passed else "-   "
        lines.append(f"  {mark}  {title}")
    lines += ["", *_wrapped(failure.sentence), "", "What the checker looks for:"]
    lines += [f"    {line}" for line in task.interface.splitlines()]
    lines += ["", *_wrapped(f"Hint: {task.hint}")]
    if options.verbose and failure.trace:
        lines += ["", *map(_safe, failure.trace.rstrip().splitlines())]
    if outcome.printed and (options.verbose or failure.check == "start" or "Traceback" in outcome.printed):
        lines += ["", "What the code printed at the end:", *map(_safe, outcome.printed.splitlines())]
    again = f" --student {options.student}" if options.student else ""
    more = "" if options.verbose else "; -v shows the traceback and what the code printed"
    lines += ["", f"Again: python main.py check{again} --task {task.number}{more}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _wrapped(text: str) -> list[str]:
    """Return text in lines that fit a terminal."""
    import textwrap

    return textwrap.wrap(_safe(text), 110, break_on_hyphens=False)


def _safe(line: str) -> str:
    """Return a line without what could control a terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)


def _as_values(task: Task, outcome: Outcome) -> dict[str, object]:
    """Return what scripts read, a teacher's for example."""
    checks = [
        {"check": result.check, "passed": result.passed, "sentence": result.sentence} for result in outcome.results
    ]
    return {"type": "task", "task": task.number, "title": task.title, "passed": outcome.passed, "checks": checks}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
