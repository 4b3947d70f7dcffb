"""Runs each task's checks once, in processes of their own, and gives every test the result of its check.

`python -m pytest tests/milestones --student DIR` checks a student's modules instead of this project's own.
"""

from pathlib import Path

import pytest

from tests.milestones.runner import OURS, Job, Outcome, roots_of, run_jobs
from tests.milestones.student import Task
from tests.milestones.test_task_17_thesis import documents_in

collect_ignore = ["ours", "right"]  # what is checked is no test, though a right solution has some

AT_ONCE = 5
"""Tasks that are checked at the same time: most of them wait for sockets and clocks."""


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> dict[int, Outcome]:
    """Return what came of each task of which a test was selected."""
    folder = request.config.getoption("--student")
    roots = roots_of(Path(folder) if folder else None)
    tasks = {item.module.TASK.number for item in request.session.items if _is_check(item)}
    return {outcome.number: outcome for outcome in run_jobs([Job(number, roots) for number in sorted(tasks)], AT_ONCE)}


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, outcomes: dict[int, Outcome]) -> Outcome:
    """Return what came of the task whose module this is."""
    task = request.module.TASK
    assert isinstance(task, Task)
    if request.config.getoption("--student") is None and task.number == 17 and not documents_in(OURS):
        pytest.skip("the thesis is not written yet")
    return outcomes[task.number]


@pytest.fixture
def student(outcome: Outcome) -> Outcome:
    """Stand in for the student: the checks have been run already."""
    return outcome


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Report a check's result in place of running it here."""
    if not _is_check(pyfuncitem):
        return None
    outcome: Outcome = pyfuncitem.funcargs["student"]
    result = next((result for result in outcome.results if result.check == pyfuncitem.name), None)
    if result is None:
        pytest.fail("not reached: an earlier check of this task ended the process", pytrace=False)
    if not result.passed:
        printed = f"\n\n--- what the code printed ---\n{outcome.printed}" if outcome.printed else ""
        pytest.fail(f"{result.sentence}\n\n{result.trace}{printed}", pytrace=False)
    return True


def _is_check(item: object) -> bool:
    """Tell whether a test is a check of one of the guide's tasks."""
    return isinstance(item, pytest.Function) and isinstance(getattr(item.module, "TASK", None), Task)
