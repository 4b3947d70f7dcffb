"""The checker's own tests: right solutions pass, and each wrong one fails for the right reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.milestones.runner import HERE, ROOT, TASKS, Job, Outcome, run_jobs, run_task
from tests.milestones.wrong_solutions import OTHER_SHAPES, WRONG, Change, Wrong

RIGHT = HERE / "right"

# Seconds until a solution that never ends is given up; the tasks with whole downloads need more than others.
PATIENCE = 2.0
LONG = {11: 4.0, 15: 5.0}

AT_ONCE = 10
"""Solutions that are checked at the same time: most of them wait for sockets and clocks."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Return the outcome of each solution by its name."""
    jobs = {f"right {task}": Job(task, [RIGHT]) for task in TASKS}
    for wrong in WRONG:
        patience = LONG.get(wrong.task, PATIENCE) if wrong.hangs else 0.0
        solution = _changed(wrong.change, tmp_path_factory.mktemp("wrong"))
        jobs[_name(wrong)] = Job(wrong.task, [solution], patience, stops=True)
    for task, what, change in OTHER_SHAPES:
        jobs[f"shape {task} {what}"] = Job(task, [_changed(change, tmp_path_factory.mktemp("shape"))])
    return dict(zip(jobs, run_jobs(list(jobs.values()), AT_ONCE), strict=True))


def _name(wrong: Wrong) -> str:
    return f"{wrong.task} {wrong.mistake}"


def _changed(change: Change, folder: Path) -> Path:
    """Return the folder of the right solution with a change."""
    solution = folder / "student"
    shutil.copytree(RIGHT, solution, ignore=shutil.ignore_patterns("__pycache__"))
    path = solution / change.file
    if change.new is None:
        path.unlink()
    elif change.old:
        text = path.read_text(encoding="utf-8")
        assert text.count(change.old) == 1, f"{change.old!r} is not once in the right {change.file}"
        path.write_text(text.replace(change.old, change.new), encoding="utf-8")
    else:
        path.write_text(change.new, encoding="utf-8")
    return solution


@pytest.mark.parametrize("task", TASKS)
def test_the_right_solution_passes(task: int, outcomes: dict[str, Outcome]) -> None:
    """A small one, written by hand, of the standard library alone."""
    outcome = outcomes[f"right {task}"]
    assert outcome.passed, f"{outcome.first_failure}\n{outcome.printed}"


@pytest.mark.parametrize("wrong", WRONG, ids=_name)
def test_a_wrong_solution_fails_for_the_right_reason(wrong: Wrong, outcomes: dict[str, Outcome]) -> None:
    """In the check that is about it, with a sentence that says what is wanted, what came and where to read."""
    failure = outcomes[_name(wrong)].first_failure
    assert failure is not None, "it passed"
    assert failure.check == wrong.check, failure.sentence
    assert wrong.says.lower() in failure.sentence.lower()
    assert ", but " in failure.sentence
    assert "; read " in failure.sentence


@pytest.mark.parametrize("shape", [f"shape {task} {what}" for task, what, _ in OTHER_SHAPES])
def test_another_shape_of_the_right_solution_passes(shape: str, outcomes: dict[str, Outcome]) -> None:
    """The guide gives names and not types: whatever is sensible is taken."""
    outcome = outcomes[shape]
    assert outcome.passed, outcome.first_failure


def test_every_task_has_wrong_solutions() -> None:
    """A check that has never failed may be no check."""
    assert {wrong.task for wrong in WRONG} == set(TASKS)


def run_check(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `main.py check` as a student does."""
    command = [sys.executable, ROOT / "main.py", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_an_empty_directory_is_led_to_the_first_task(tmp_path: Path) -> None:
    """The ladder, what is missing, what to write, and the command to type next."""
    done = run_check("--student", tmp_path)
    assert done.returncode == 1
    assert " next   1  Project Setup & Environment" in done.stdout
    assert "17  Write Thesis Document" in done.stdout
    assert "there is no torrent_parser.py" in done.stdout
    assert "What the checker looks for:" in done.stdout
    assert f"check --student {tmp_path} --task 1" in done.stdout


def test_the_ladder_stops_at_what_is_not_written_yet(tmp_path: Path) -> None:
    """Three modules are written and three are empty: Tasks 1 to 8 are done, and nothing of 9 is needed for that."""
    for path in (path for path in RIGHT.iterdir() if path.is_file()):
        is_written = path.name in ("torrent_parser.py", "tracker_client.py", "peer_connection.py")
        (tmp_path / path.name).write_bytes(path.read_bytes() if is_written else b"")
    done = run_check("--student", tmp_path)
    assert done.returncode == 1
    assert done.stdout.count(" done ") == 8
    assert " next   9  Implement Piece Manager                  0 of 5 checks" in done.stdout
    assert "piece_manager.py has no PieceManager" in done.stdout


def test_one_task_that_is_done_ends_with_zero() -> None:
    """The exit code is what scripts look at."""
    done = run_check("--student", RIGHT, "--task", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the task is done" in done.stdout


def test_a_teacher_gets_every_task_as_json(tmp_path: Path) -> None:
    """One object a line, after the first failure too."""
    solution = tmp_path / "student"
    solution.mkdir()
    for path in RIGHT.glob("torrent_parser.py"):
        shutil.copy(path, solution)
    done = run_check("--student", solution, "--all", "--json")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [report["task"] for report in reports] == list(TASKS)
    assert [report["task"] for report in reports if report["passed"]] == [2, 3]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """With the command that makes it."""
    done = run_check("--student", tmp_path / "none")
    assert done.returncode == 2
    assert "mkdir" in done.stderr


def test_modules_may_lie_in_a_package_called_as_ours(tmp_path: Path) -> None:
    """The guide's own folder is called torrent_client; what is imported is the student's."""
    package = tmp_path / "torrent_client"
    package.mkdir()
    (package / "__init__.py").touch()
    for path in RIGHT.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name in ("torrent_parser", "tracker_client", "peer_connection", "piece_manager"):
            text = text.replace(f"from {name} import", f"from .{name} import")
        (package / path.name).write_text(text, encoding="utf-8")
    for task in (3, 5):
        assert run_task(task, [tmp_path]).passed
