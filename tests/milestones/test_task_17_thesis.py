"""Task 17: Write Thesis Document."""

from collections.abc import Iterable
from pathlib import Path

from tests.milestones.student import Student, Task

TASK = Task(
    17,
    "Write Thesis Document",
    "Thesis write-up",
    "Complete thesis document",
    """\
thesis.md, .typ, .tex, .rst, .txt, .pdf, .docx or .odt, here or in thesis/
    1. Introduction   2. Technical Background   3. Implementation   4. Results & Analysis   5. Conclusion""",
    "Measure first: numbers of your own are what the fourth chapter is made of.",
)

OUTLINE = "the guide, Task 17, thesis structure"

TEXTS = (".md", ".typ", ".tex", ".rst", ".txt")
CHAPTERS = ("introduction", "background", "implementation", "results", "conclusion")


def documents_in(roots: Iterable[Path]) -> list[Path]:
    """Return the files that may be the thesis."""
    kinds = (*TEXTS, ".pdf", ".docx", ".odt")
    found = [path for root in roots for folder in (root, root / "docs") for path in folder.glob("*hesis*")]
    files = [path for place in found for path in (place.rglob("*") if place.is_dir() else [place])]
    return [path for path in files if path.suffix.lower() in kinds]


def test_the_thesis_has_its_chapters(student: Student) -> None:
    """A document with the guide's five chapters; whether it is good, people must judge."""
    with student.rule("the thesis is a document of its own", OUTLINE):
        found = documents_in(student.roots)
        student.expect(found, "there is no file called thesis, and nothing in a folder thesis/")
    texts = [path.read_text("utf-8", "replace").lower() for path in found if path.suffix.lower() in TEXTS]
    if texts:
        with student.rule(f"the thesis has the chapters {', '.join(CHAPTERS)}", OUTLINE):
            together = "\n".join(texts)
            missing = [chapter for chapter in CHAPTERS if chapter not in together]
            student.expect(not missing, f"there is no {', '.join(missing)}")
