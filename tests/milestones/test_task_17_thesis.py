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
thesis.md, .typ, .tex, .rst, .txt, .pdf, .docx or .odt, here or in thesis/ (or thesis/main.tex with its chapters)
    1. Introduction   2. Technical Background   3. Implementation   4. Results & Analysis   5. Conclusion""",
    "Measure first: numbers of your own are what the fourth chapter is made of.",
)

OUTLINE = "the guide, Task 17, thesis structure"

TEXTS = (".md", ".typ", ".tex", ".rst", ".txt")
CHAPTERS = ("introduction", "background", "implementation", "results", "conclusion")


def documents_in(roots: Iterable[Path]) -> list[Path]:
    """Return the files that are the thesis: those called so, and all texts beside one that is, or that is `main`."""
    kinds = (*TEXTS, ".pdf", ".docx", ".odt")
    folders = [root / name for root in roots for name in ("", "docs", "thesis", "docs/thesis")]
    named = [
        path
        for folder in folders
        for path in folder.glob("*.*")
        if path.suffix.lower() in kinds
        and ("thesis" in path.stem.lower() or (path.stem, folder.name) == ("main", "thesis"))
    ]
    beside = [
        path for one in named if one.parent.name == "thesis" for path in one.parent.rglob("*") if path.suffix in kinds
    ]
    return list(dict.fromkeys([*named, *beside]))


def test_the_thesis_has_its_chapters(student: Student) -> None:
    """A document with the guide's five chapters; whether it is good, people must judge."""
    with student.rule("the thesis is a document of its own", OUTLINE):
        found = documents_in(student.roots)
        student.expect(found, "there is no file called thesis")
    texts = [path.read_text("utf-8", "replace").lower() for path in found if path.suffix.lower() in TEXTS]
    if texts:
        with student.rule(f"the thesis has the chapters {', '.join(CHAPTERS)}", OUTLINE):
            together = "\n".join(texts)
            missing = [chapter for chapter in CHAPTERS if chapter not in together]
            student.expect(not missing, f"there is no {', '.join(missing)}")
