"""Task 1: Project Setup & Environment."""

import sys

from tests.milestones.student import MODULES, Student, Task

TASK = Task(
    1,
    "Project Setup & Environment",
    "Set up your Python project structure and dependencies",
    "Working Python environment with folder structure",
    """\
DIR/                        or DIR/torrent_client/
    torrent_parser.py       parse .torrent files
    tracker_client.py       communicate with tracker
    peer_connection.py      connect to peers
    piece_manager.py        manage file pieces
    download_manager.py     orchestrate downloads
    main.py                 entry point
    requirements.txt        dependencies: requests""",
    "Make the files, empty for now: `touch torrent_parser.py tracker_client.py ...`. Code that runs belongs "
    "into main.py, "
    'below `if __name__ == "__main__":`, so that the other files can be imported.',
)

STRUCTURE = "the guide, Task 1, visual structure"


def test_the_files_are_there(student: Student) -> None:
    """The files of the project structure."""
    with student.rule("the project has the guide's files", STRUCTURE):
        wanted = [*(f"{name}.py" for name in MODULES), "main.py", "requirements.txt"]
        missing = [name for name in wanted if not student.file(name)]
        student.expect(not missing, f"there is no {', '.join(missing)} in {student.roots[0]}")


def test_every_module_can_be_imported(student: Student) -> None:
    """Each of the five modules can be imported."""
    for name in MODULES:
        with student.rule(f"`import {name}` only defines things", STRUCTURE):
            student.module(name)


def test_python_is_recent_and_requests_is_there(student: Student) -> None:
    """Python 3.8 or newer, with what requirements.txt names."""
    with student.rule("the guide's code needs Python 3.8 or newer", "the guide, Task 1, steps"):
        student.expect(sys.version_info >= (3, 8), f"this is Python {sys.version.split()[0]}")
    with student.rule("what requirements.txt names is installed", "the guide, Task 1, steps"):
        path = student.file("requirements.txt")
        if path and "requests" in path.read_text(encoding="utf-8"):
            __import__("requests")
