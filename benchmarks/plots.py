"""Tables as pictures, from the JSON alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.results import Cell, Plot, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can distinguish."""
MARKERS = "osD^vPX"
WIDTH, BAR_HEIGHT, LINES_HEIGHT, MARGIN_HEIGHT = 7.0, 0.3, 3.6, 1.1
DPI = 120
LABEL_ROOM = 1.18
"""Length of the axis in longest bars, to leave room for the bar's number; its fourth power on a logarithmic axis."""


def draw(table: Table, path: Path) -> None:
    """Draw a table that has a plot.

    Args:
        table: A table with a plot.
        path: The ``.png`` to write.
    """
    plot = table.plot
    if plot is None:
        raise ValueError(f"the table {table.name} says nothing of a plot")
    bars = len(table.rows) * len(plot.y)
    height = MARGIN_HEIGHT + BAR_HEIGHT * bars if plot.kind == "bars" else LINES_HEIGHT
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(table.title, loc="left", fontsize=10)
        (_bars if plot.kind == "bars" else _lines)(axes, table, plot)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            if plot.kind == "bars":
                figure.legend(loc="outside lower center", ncols=len(plot.y), frameon=False, fontsize=8)
            else:
                figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        figure.savefig(path, dpi=DPI, metadata={"Software": ""})


def _bars(axes: Axes, table: Table, plot: Plot) -> None:
    """One bar for each row and column, from the top down, each with its number."""
    names = [str(name) for name in table.values(plot.x)]
    thick = 0.8 / len(plot.y)
    drawn = [value for key in plot.y for value in _numbers(table.values(key)) if value]
    for number, key in enumerate(plot.y):
        values = _numbers(table.values(key))
        places = [row + number * thick for row in range(len(names))]
        lengths = [0.0 if value is None else value for value in values]
        axes.barh(places, lengths, height=thick * 0.9, color=COLOURS[number], label=_label(table, key))
        for place, value in zip(places, values, strict=True):
            if value is not None:
                axes.annotate(
                    f"{value:.3g}" if value < 1000 else f"{value:,.0f}",
                    (value, place),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                )
    axes.set_yticks([row + thick * (len(plot.y) - 1) / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(plot.y_label)
    if plot.log_y:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        # On a logarithmic axis a bar has no natural start: it starts a decade below the shortest.
        axes.set_xlim(10.0 ** math.floor(math.log10(min(drawn))), max(drawn) * LABEL_ROOM**4)
    else:
        axes.set_xlim(0.0, max(drawn) * LABEL_ROOM)


def _lines(axes: Axes, table: Table, plot: Plot) -> None:
    """One line for each column, or a column split by a series."""
    drawn = 0
    x = _numbers(table.values(plot.x))
    split: Sequence[Cell] = table.values(plot.series) if plot.series else [None] * len(x)
    for key in plot.y:
        values = _numbers(table.values(key))
        for name in dict.fromkeys(split):
            points = [
                (at, value)
                for at, value, series in zip(x, values, split, strict=True)
                if series == name and at is not None and value is not None
            ]
            colour, marker = COLOURS[drawn % len(COLOURS)], MARKERS[drawn % len(MARKERS)]
            label = str(name) if plot.series else _label(table, key)
            axes.plot(*zip(*points, strict=True), label=label, markersize=4, color=colour, marker=marker)
            drawn += 1
    axes.set_xlabel(_label(table, plot.x))
    axes.set_ylabel(plot.y_label)
    if plot.log_x:
        axes.set_xscale("log", base=2 if max(value or 0 for value in x) < 1000 else 10)
        if len(set(x)) <= 8:
            ticks = sorted({value for value in x if value is not None})
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            axes.minorticks_off()
    else:
        axes.set_xticks(sorted({value for value in x if value is not None}))
    if plot.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)


def _numbers(cells: Sequence[Cell]) -> list[float | None]:
    return [float(cell) if isinstance(cell, int | float) else None for cell in cells]


def _label(table: Table, key: str) -> str:
    return next(column.label for column in table.columns if column.key == key)
