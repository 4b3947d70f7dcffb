"""Task 16: Testing & Documentation."""

import ast
from pathlib import Path

from tests.milestones.lesson import made_up, make_torrent
from tests.milestones.student import MODULES, Student, Task
from tests.milestones.test_task_02_bencode import BENCODING, decoded

TASK = Task(
    16,
    "Testing & Documentation",
    "Validate and document your implementation",
    "Complete documentation package",
    """\
README.md           installation, usage, architecture, examples
ARCHITECTURE.md     components, data flow, protocol details
API_DOCS.md         classes and functions
test_*.py           your own tests, here or in tests/
and a docstring at the top of each module""",
    "Write for somebody who has never seen your code: what to type first, and what happens then.",
)

DOCUMENTS = "the guide, Task 16, documentation structure"
TESTS = "the guide, Task 16, test cases"


def test_corrupted_torrents_are_refused(student: Student) -> None:
    """The guide's test case: parse a corrupted .torrent file."""
    whole = make_torrent(student.folder, made_up(40_000)).path.read_bytes()
    for data in (b"", b"i42", b"5:spam", b"l4:spam", b"d3:cow", b"x", whole[: len(whole) // 2]):
        with student.rule(
            f"the {len(data)} bytes {data[:12]!r}... are cut short or no bencode: an exception", BENCODING
        ):
            student.refuses(lambda data=data: decoded(student, data), f"bencode_decode({data[:12]!r}...)")


def test_the_documents_are_there(student: Student) -> None:
    """README.md, ARCHITECTURE.md and API_DOCS.md."""
    for name, words in (
        ("README.md", ("install", "usage", "architecture")),
        ("ARCHITECTURE.md", ("peer", "tracker", "piece")),
        ("API_DOCS.md", MODULES),
    ):
        with student.rule(f"{name} tells about {', '.join(words)}", DOCUMENTS):
            path = student.file(name)
            student.expect(path, f"there is no {name}")
            text = path.read_text(encoding="utf-8").lower() if path else ""
            missing = [word for word in words if word not in text]
            student.expect(not missing, f"there is nothing about {', '.join(missing)} in it")


def test_every_module_says_what_it_is_for(student: Student) -> None:
    """A docstring at the top of each module."""
    for name in MODULES:
        with student.rule(f"{name}.py begins with a docstring that says what it is for", DOCUMENTS):
            path = student.file(f"{name}.py")
            text = path.read_text(encoding="utf-8") if path else ""
            student.expect(ast.get_docstring(ast.parse(text)), "it has none")


def test_there_are_tests(student: Student) -> None:
    """Tests of the student's own."""
    with student.rule("a client has tests of its own, in files called test_*.py", TESTS):
        folders = [folder for root in student.roots for folder in (root, root / "tests", root / "torrent_client")]
        found = [path for folder in folders for path in Path(folder).glob("test_*.py")]
        student.expect(any("def test" in path.read_text(encoding="utf-8") for path in found), "there is none")
