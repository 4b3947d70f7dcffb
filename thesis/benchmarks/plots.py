"""Graphs as SVG: lines over an axis of numbers, bars elsewhere; medians, with the range as a thin line.

Reproducible: element names come from a fixed salt, text stays text, and no date is written.
"""

import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

from thesis.benchmarks.cases import Plot
from thesis.benchmarks.columns import COLUMNS, figures
from thesis.benchmarks.report import Figures

STYLE: Any = {  # names that matplotlib spells out as a type
    "svg.hashsalt": "torrent-client",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
COLOURS = {
    "ours": "#d62728",
    "rarest first": "#d62728",
    "libtorrent": "#1f77b4",
    "rtorrent": "#2ca02c",
    "qbittorrent": "#17becf",
    "aria2": "#ff7f0e",
    "transmission": "#9467bd",
    "transmission-cli": "#c5b0d5",
    "webtorrent": "#8c564b",
    "raw-copy": "#444444",
}
OTHERS = ("#e377c2", "#bcbd22", "#7f7f7f", "#1b9e77")
LIMIT = "#888888"
WIDTH, HEIGHT, BAR = 7.0, 4.2, 0.3  # inches


def draw(result: Figures, directory: Path) -> Iterator[tuple[str, Path]]:
    """Draw all graphs of a case; give the name of each figure and its file."""
    for plot in result.case.plots:
        if not any(numbers for _, _, numbers in readings(result, plot)):
            continue
        path = directory / f"{result.case.name}-{re.sub(r'[^a-z]+', '-', plot.column.lower())}.svg"
        title = COLUMNS[plot.column].title
        with mpl.rc_context(STYLE):
            figure = lines(result, plot) if is_numeric(result) else bars(result, plot)
            figure.axes[0].set_title(f"{result.case.title}: {title}", loc="left", fontsize=11)
            figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
            plt.close(figure)
        yield title, path


def is_numeric(result: Figures) -> bool:
    """Return whether the axis has numbers, more than one."""
    return len(result.points) > 1 and all(isinstance(x, int | float) for x in result.points)


def readings(result: Figures, plot: Plot) -> Iterator[tuple[str | float, str, list[float]]]:
    """Give the figures of every point and row."""
    column = COLUMNS[plot.column]
    for x, rows in result.points.items():
        for name in rows:
            yield x, name, figures(column, name, rows)


def colour(name: str, series: Sequence[str]) -> str:
    """Return a row's colour: a client has the same one in all graphs."""
    if name.startswith("limit"):
        return LIMIT
    unknown = [each for each in series if each not in COLOURS]
    return COLOURS.get(name) or OTHERS[unknown.index(name) % len(OTHERS)]


def lines(result: Figures, plot: Plot) -> Any:  # noqa: ANN401 - matplotlib's Figure
    """Draw a line for each row."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    for name in result.series:
        known = [(x, numbers) for x, row, numbers in readings(result, plot) if row == name and numbers]
        if not known:
            continue
        middle = [statistics.median(numbers) for _, numbers in known]
        below = [median - min(numbers) for median, (_, numbers) in zip(middle, known, strict=True)]
        above = [max(numbers) - median for median, (_, numbers) in zip(middle, known, strict=True)]
        is_limit = name.startswith("limit")
        axes.errorbar(
            [float(x) for x, _ in known],
            middle,
            yerr=[below, above],
            label=name,
            color=colour(name, result.series),
            linestyle=":" if name == "limit-2" else "--" if is_limit else "-",
            linewidth=2.2 if name == "ours" else 1.4,
            marker="" if is_limit else "o",
            markersize=4,
            elinewidth=0.8,
            zorder=3 if name == "ours" else 2,
        )
    axis = [float(x) for x in result.points]
    if plot.log_x and min(axis) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(axis, [f"{x:g}" for x in axis])
    axes.minorticks_off()
    if plot.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(result.case.axis)
    axes.set_ylabel(COLUMNS[plot.column].title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def bars(result: Figures, plot: Plot) -> Any:  # noqa: ANN401 - matplotlib's Figure
    """Draw a bar for each row, in a group for each point."""
    known = [(x, name, numbers) for x, name, numbers in readings(result, plot) if numbers]
    figure, axes = plt.subplots(figsize=(WIDTH, max(1.2, BAR * (len(known) + len(result.points)))))
    places: list[float] = []
    place, last = 0.0, None
    for x, _, _ in known:
        place += 1.0 if last in (None, x) else 1.8
        places.append(place)
        last = x
    for place, (_, name, numbers) in zip(places, known, strict=True):
        middle = statistics.median(numbers)
        span = [[middle - min(numbers)], [max(numbers) - middle]]
        axes.barh(place, middle, color=colour(name, result.series), xerr=span, error_kw={"elinewidth": 0.8})
    axes.set_yticks(places, [f"{x}   {name}" if len(result.points) > 1 else name for x, name, _ in known])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(COLUMNS[plot.column].title)
    return figure
