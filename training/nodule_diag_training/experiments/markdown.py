"""Pieces of a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nodule_diag_training.evaluation import Estimate

from .paper import Figure
from .scores import OverFolds

NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def percent(value: float) -> str:
    """``71.43``; a dash where it is undefined."""
    return f"{100.0 * value:.2f}" if math.isfinite(value) else NOTHING


def folds_cell(figure: OverFolds) -> str:
    """Mean ± deviation in percent; with the number of folds if it is one, or if others leave the metric undefined."""
    if not math.isfinite(figure.mean):
        return NOTHING
    if figure.folds == 1:
        return f"{percent(figure.mean)} (1 fold)"
    text = f"{percent(figure.mean)} ± {percent(figure.std)}"
    return f"{text} ({figure.folds} folds)" if figure.undefined else text


def interval_cell(figure: Estimate, *, scale: float = 100.0, digits: int = 2) -> str:
    """Value with its 95 % interval."""
    if not math.isfinite(figure.value):
        return NOTHING
    value, low, high = (f"{scale * v:.{digits}f}" for v in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def paper_cell(figure: Figure | None) -> str:
    """The paper's printed figure."""
    if figure is None:
        return NOTHING
    return f"{figure.mean:.2f}" if figure.std is None else f"{figure.mean:.2f} ± {figure.std:.2f}"
