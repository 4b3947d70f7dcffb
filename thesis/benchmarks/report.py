"""What is shown and kept: tables for people (rich or Markdown), JSON lines for programs."""

import datetime as dt
import json
import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from thesis.benchmarks import machine
from thesis.benchmarks.runner import Outcome, R

MIB = 1 << 20
ABSENT = "-"


@dataclass(slots=True)
class Table:
    """Text in rows; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def as_markdown(self) -> str:
        """Return it as a Markdown table under its title."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def show(self, console: Console) -> None:
        """Print it as plain text."""
        table = RichTable(title=self.title, caption=self.note or None, box=SIMPLE_HEAD)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)


def values(runs: Iterable[R], measure: Callable[[R], float]) -> list[float]:
    """Return one figure of each run."""
    return [measure(run) for run in runs]


def spread(numbers: list[float], digits: int = 2) -> str:
    """Write the median and, of several, the range."""
    if not numbers:
        return "failed"
    middle = f"{statistics.median(numbers):.{digits}f}"
    if len(numbers) == 1:
        return middle
    return f"{middle} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


def ratio(numbers: list[float], base: list[float]) -> str:
    """Write how many times the median of the base the median is."""
    if not numbers or not base or not statistics.median(base):
        return ABSENT
    return f"{statistics.median(numbers) / statistics.median(base):.2f}"


def disturbed_note(results: Mapping[str, Sequence[Outcome]]) -> str:
    """Say which rows rest on disturbed runs; empty when none does."""
    counts = {name: sum(run.disturbed for run in runs) for name, runs in results.items()}
    marked = [f"{name} {count} of {len(results[name])}" for name, count in counts.items() if count]
    return "Disturbed by other load: " + ", ".join(marked) + "." if marked else ""


class JsonLines:
    """Appends records to a file; the first describes the session and every other one names it."""

    def __init__(self, path: Path | None, arguments: Mapping[str, object], versions: Mapping[str, str]) -> None:
        """Begin a session in the file; without a path, records are dropped."""
        self._path = path
        self._session = uuid.uuid4().hex[:12]
        self(
            {
                "record": "session",
                "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "commit": machine.commit(),
                "machine": machine.describe(),
                "versions": dict(versions),
                "arguments": dict(arguments),
            }
        )

    def __call__(self, record: Mapping[str, object]) -> None:
        """Write one record."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"session": self._session, **record}, default=str) + "\n")
