"""The process in which a task's checks run, forked by `batch`.

Whatever a student's code does ends here: an endless loop is found by a watchdog, which says in which line; what ends
the process leaves the file of results without an end. Results are lines of JSON in FOLDER/results, and each check's
name is written before it runs.
"""

import importlib
import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TextIO

from tests.milestones.student import Student, Unmet, sentence

MAX_FILE = 64 << 20
"""Bytes of a file that a student's code may write: an endless loop that prints would fill the disk."""

MAX_MEMORY = 4 << 30
"""Bytes of memory that it may take: an endless loop that appends would fill that. Stacks of threads count."""

LIMIT = 6.0
"""Seconds for a check that does not say otherwise; a right solution needs less than one."""

ROOT = Path(__file__).parents[2]


def checks_of(module: ModuleType) -> list[tuple[str, Callable[[Student], None]]]:
    """Return a task's checks in the order in which they are written."""
    return [(name, check) for name, check in vars(module).items() if name.startswith("test_") and callable(check)]


def module_name(number: int) -> str:
    """Return the name of the module of a task."""
    (path,) = Path(__file__).parent.glob(f"test_task_{number:02}_*.py")
    return f"tests.milestones.{path.stem}"


def main(arguments: list[str]) -> None:
    """Run the checks, and end the process at once: threads that a student left behind do not keep it.

    Args:
        arguments: the task's number; the folder for results; seconds for a check, or 0; 1 to stop at the first
            failure, else 0; the folders of the modules.
    """
    number, folder, patience, stops, *roots = arguments
    for kind, most in ((resource.RLIMIT_FSIZE, MAX_FILE), (resource.RLIMIT_AS, MAX_MEMORY)):
        with suppress(ValueError, OSError):  # a system that has no such limit, or has a lower one
            resource.setrlimit(kind, (most, most))
    place = Path(folder)
    student = Student([Path(root) for root in roots], place, place / "printed", float(patience) or None)
    (place / "work").mkdir()
    os.chdir(place / "work")
    checks = checks_of(importlib.import_module(module_name(int(number))))
    use_modules_of(student.roots)
    sys.dont_write_bytecode = True  # a student's folder stays as it is
    with (place / "results").open("w", encoding="utf-8") as results:
        for name, check in checks:
            _write(results, {"check": name})
            result = _run(student, check, results, name)
            _write(results, {"check": name, **result})
            if stops == "1" and not result["passed"]:
                break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def use_modules_of(roots: Sequence[Path]) -> None:
    """Let imports find a student's modules, and this project's own only when they are what is checked."""
    if ROOT not in roots:
        sys.path[:] = [path for path in sys.path if path not in ("", str(ROOT))]
        roots = [path for root in roots for path in (root, root / "torrent_client") if path.is_dir()]
    sys.path[:0] = map(str, roots)


def _run(student: Student, check: Callable[[Student], None], results: TextIO, name: str) -> dict[str, Any]:
    """Run one check, which gets a folder of its own; return what came of it."""
    student.folder = student.folder.parent / name if student.folder.name.startswith("test_") else student.folder / name
    student.folder.mkdir()
    seconds = student.patience or getattr(check, "limit", LIMIT)
    watchdog = threading.Timer(seconds, _give_up, (student, results, name, seconds))
    watchdog.daemon = True
    watchdog.start()
    try:
        check(student)
    except Unmet as unmet:
        return {"passed": False, "sentence": str(unmet), "trace": _trace(unmet.__cause__)}
    except BaseException as error:
        return {"passed": False, "sentence": f"The checker itself failed: {error!r}.", "trace": _trace(error)}
    finally:
        watchdog.cancel()
        student.close()
    return {"passed": True}


def _trace(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)) if error else ""


def _give_up(student: Student, results: TextIO, name: str, seconds: float) -> None:
    """Say where the code hangs, and end the process: nothing else stops it."""
    wanted, read = student.rules[-1] if student.rules else ("the code comes to an end", "the guide")
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame and not student.is_own(frame.f_code.co_filename):
        frame = frame.f_back
    place = f" at {Path(frame.f_code.co_filename).name} line {frame.f_lineno}" if frame else ""
    came = f"the code was still running after {seconds:g} s{place}"
    _write(results, {"check": name, "passed": False, "sentence": sentence(wanted, came, read), "trace": ""})
    os._exit(3)


def _write(results: TextIO, value: dict[str, Any]) -> None:
    results.write(json.dumps(value) + "\n")
    results.flush()
