"""What the runs' records say: figures, their medians and ranges, and ratios to other rows.

Pure: records in, numbers and text out. A figure that a record does not have is left out, so that a column is empty
where nobody could tell.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Rows = Mapping[str, Sequence[Record]]  # the runs of each row, at one point
MIB, GIB = 1 << 20, 1 << 30
ABSENT = "-"
LIBTORRENT, RAW = "libtorrent", "raw-copy"
Measure = Callable[[Record], float | None]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a run: how it is called, and how many digits behind the point make sense."""

    title: str
    measure: Measure
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure against that of another row, run by run of the same round."""

    title: str
    measure: Measure
    base: Callable[[Rows, Measure], str]  # the row to compare with; empty when there is none
    percent_of_base: bool = False  # how much of the base's speed it is, instead of how many times its time


def field(name: str, unit: float = 1.0) -> Measure:
    """Return a measure that reads a field."""
    return lambda run: None if run.get(name) is None else run[name] / unit


def fraction(top: str, bottom: str, unit: float = 1.0) -> Measure:
    """Return a measure that divides one field by another."""
    return lambda run: run[top] / run[bottom] / unit if run.get(top) is not None and run.get(bottom) else None


def received(run: Record) -> float:
    """Bytes that all leechers of a run got."""
    return float(run["size"] * run.get("leechers", 1))


def wire_share(run: Record) -> float | None:
    """Bytes on the network for each byte of payload that arrived."""
    return None if run.get("wire") is None else float(run["wire"] / received(run))


def wasted_percent(run: Record) -> float | None:
    """Bytes that came in vain, in percent of those that were needed."""
    return None if run.get("wasted") is None else 100 * run["wasted"] / received(run)


def one_copy(run: Record) -> float | None:
    """The time in units of what the seed needs to send one copy."""
    return float(run["wall"] * run["seed_rate"] / run["size"]) if run.get("seed_rate") else None


def fastest_limit(rows: Rows, measure: Measure) -> str:
    """Return the row of limits that has the smallest figure."""
    limits = {name: values(runs, measure) for name, runs in rows.items() if name.startswith("limit")}
    medians = {name: statistics.median(numbers) for name, numbers in limits.items() if numbers}
    return min(medians, key=lambda name: medians[name], default="")


def named(name: str) -> Callable[[Rows, Measure], str]:
    """Return a base that is always the same row."""
    return lambda _rows, _measure: name


WALL, CPU = field("wall"), field("cpu")
COLUMNS: dict[str, Column | Ratio] = {
    "wall": Column("wall s", WALL),
    "cpu": Column("CPU s", CPU),
    "rss": Column("peak RSS MiB", field("peak_rss", MIB), 0),
    "speed": Column("MiB/s", fraction("size", "wall", MIB), 1),
    "seeder_cpu": Column("seeders' CPU s", field("seeder_cpu")),
    "wire": Column("bytes on the wire / payload", wire_share, 3),
    "first": Column("first complete s", field("first")),
    "copies": Column("copies sent by the seed", fraction("sent_by_seed", "size")),
    "wasted": Column("wasted %", wasted_percent),
    "share": Column("% of a processor", lambda run: 100 * run["cpu"] / run["wall"]),
    "cpu per GiB": Column("CPU s per GiB", fraction("cpu", "size", 1 / GIB)),
    "wall/copy": Column("wall / one copy", one_copy),
    "wall/limit": Ratio("wall / limit", WALL, fastest_limit),
    "cpu/limit": Ratio("CPU / limit", CPU, fastest_limit),
    "wall/libtorrent": Ratio("wall / libtorrent", WALL, named(LIBTORRENT)),
    "cpu/libtorrent": Ratio("CPU / libtorrent", CPU, named(LIBTORRENT)),
    "of raw": Ratio("% of a raw TCP copy", WALL, named(RAW), percent_of_base=True),
}


def values(runs: Sequence[Record], measure: Measure) -> list[float]:
    """Return the figure of each run that has it."""
    return [figure for figure in map(measure, runs) if figure is not None]


def figures(column: Column | Ratio, name: str, rows: Rows) -> list[float]:
    """Return a column's figures for one row: one of each run, or a ratio of each round that both rows have."""
    if isinstance(column, Column):
        return values(rows[name], column.measure)
    theirs = {run["round"]: column.measure(run) for run in rows.get(column.base(rows, column.measure), ())}
    pairs = [(column.measure(run), theirs.get(run["round"])) for run in rows[name]]
    known = [(ours, base) for ours, base in pairs if ours and base]
    return [100 * base / ours if column.percent_of_base else ours / base for ours, base in known]


def digits_of(column: Column | Ratio) -> int:
    """Return how many digits behind the point a column has."""
    if isinstance(column, Column):
        return column.digits
    return 0 if column.percent_of_base else 2


def spread(numbers: Sequence[float], digits: int = 2) -> str:
    """Write the median and, of several, the range."""
    if not numbers:
        return ABSENT
    middle = f"{statistics.median(numbers):.{digits}f}"
    if len(numbers) == 1:
        return middle
    return f"{middle} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"
