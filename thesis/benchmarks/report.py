"""The report: a Markdown page with a table for each case, and its graphs as SVG.

Made of records alone: it can be made again, elsewhere and later, and the same records give the same bytes.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from thesis.benchmarks.cases import CASES, Case
from thesis.benchmarks.columns import COLUMNS, Record, Rows, digits_of, figures, spread
from thesis.benchmarks.results import of_kind

PAGE = "report.md"


@dataclass(frozen=True, slots=True)
class Figures:
    """All runs of one case: at each point of its axis, in their order, the runs of each row."""

    case: Case
    points: dict[str | float, Rows]

    @property
    def series(self) -> list[str]:
        """Every row that there is at some point, in the order in which they came."""
        return list(dict.fromkeys(name for rows in self.points.values() for name in rows))


def gather(case: Case, records: Sequence[Record]) -> Figures:
    """Sort the runs of a case by point, row and round."""
    points: dict[str | float, dict[str, list[Record]]] = {}
    for record in of_kind(list(records), "run"):
        if record["case"] == case.name:
            points.setdefault(record["x"], {}).setdefault(record["series"], []).append(record)
    for rows in points.values():
        for runs in rows.values():
            runs.sort(key=lambda run: int(run["round"]))
    numeric = all(isinstance(x, int | float) for x in points)
    return Figures(case, dict(sorted(points.items())) if numeric else dict(points))


def write_report(records: Sequence[Record], directory: Path) -> Path:
    """Write the page and the graphs of all cases that have runs; return the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    has_plots = find_spec("matplotlib") is not None
    parts = [*heading(records)]
    for case in CASES.values():
        result = gather(case, records)
        if not result.points:
            continue
        parts += [f"## {case.title}", case.about, table(result), *notes(result, records)]
        if has_plots:
            from thesis.benchmarks.plots import draw

            parts += [f"![{case.title}, {name}]({path.name})" for name, path in draw(result, directory)]
    if not has_plots:
        parts.append("There are no graphs: matplotlib is not installed (thesis/requirements.txt).")
    page = directory / PAGE
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def heading(records: Sequence[Record]) -> list[str]:
    """Say where the figures come from, once for all sessions that agree."""
    parts = ["# Benchmarks"]
    sessions = of_kind(list(records), "session")
    if not sessions:
        return parts
    last = sessions[-1]
    dates = sorted({session["date"][:10] for session in sessions})
    commits = list(dict.fromkeys(session["commit"] for session in sessions))
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    parts.append(f"{period}, commit {', '.join(commits)}, {last['scale']} size.")
    computer = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in last["machine"].items())
    versions: dict[str, str] = {}
    for session in sessions:
        versions |= session["versions"]
    parts.append(f"Machine: {computer}.")
    parts.append("Programs: " + "; ".join(f"{name} ({version})" for name, version in versions.items()) + ".")
    parts.append(
        "Medians, and of several rounds the range. Ratios are medians of the ratios of each round, in which the "
        "clients took turns. Every file was hashed after every run."
    )
    return parts


def table(result: Figures) -> str:
    """Lay out a case's rows as Markdown; columns that nobody has a figure for are left out."""
    body: dict[tuple[str | float, str], list[str]] = {}
    columns = [COLUMNS[name] for name in result.case.columns]
    for x, rows in result.points.items():
        for name in rows:
            body[x, name] = [spread(figures(column, name, rows), digits_of(column)) for column in columns]
    shown = [number for number in range(len(columns)) if any(cells[number] != "-" for cells in body.values())]
    axis = [result.case.axis] if result.case.axis else []
    header = [*axis, "client", *(columns[number].title for number in shown)]
    lines = [header, ["---:"] * len(axis) + ["---"] + ["---:"] * len(shown)]
    for (x, name), cells in body.items():
        lines.append([*([f"{x}"] if axis else []), name, *(cells[number] for number in shown)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def notes(result: Figures, records: Sequence[Record]) -> list[str]:
    """Say what was disturbed, what failed and what was left out."""
    said = []
    if disturbed := disturbed_rows(result):
        said.append(f"Disturbed by other load: {', '.join(disturbed)}.")
    for record in of_kind(list(records), "failed"):
        if record["case"] == result.case.name and not has_run(result, record):
            at = f" at {record['x']}" if result.case.axis else ""
            said.append(f"{record['series']}{at} failed: {record['reason'].splitlines()[0]}")
    absent = [record for record in of_kind(list(records), "absent") if record["case"] == result.case.name]
    said += [
        f"{each['series']} is left out: {each['reason']}." for each in absent if each["series"] not in result.series
    ]
    return list(dict.fromkeys(said))


def has_run(result: Figures, record: Record) -> bool:
    """Return whether what failed once succeeded another time."""
    runs = result.points.get(record["x"], {}).get(record["series"], ())
    return any(run["round"] == record["round"] for run in runs)


def disturbed_rows(result: Figures) -> list[str]:
    """Return how many runs of which rows were disturbed, and how much of the machine others had."""
    said = []
    for name in result.series:
        runs = [run for rows in result.points.values() for run in rows.get(name, ())]
        shares = [run["other_share"] for run in runs if run["disturbed"]]
        if shares:
            said.append(
                f"{name} {len(shares)} of {len(runs)} runs (median {statistics.median(shares):.0%} of the machine)"
            )
    return said
