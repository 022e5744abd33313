"""Fig. 9: nodules of the paper's cohort that retrieval calls benign or malignant, by the readers' mean score."""

from __future__ import annotations

from matplotlib.figure import Figure

from .drawing import RIGHT, WRONG
from .retrieval import Relabelled

SCORES = (1, 2, 3, 4, 5)


def draw_relabelling(counts: Relabelled, *, title: str) -> Figure:
    """Two bars for each rounded mean score, with their numbers."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    width = 0.4
    for offset, name, heights, color in (
        (-width / 2, "re-labelled benign", counts.benign, RIGHT),
        (width / 2, "re-labelled malignant", counts.malignant, WRONG),
    ):
        bars = axes.bar([s + offset for s in SCORES], heights, width=width, label=name, color=color)
        axes.bar_label(bars, fontsize="small")
    axes.set(xlabel="readers' mean score, rounded", ylabel="nodules", xticks=SCORES, title=title)
    axes.legend()
    return figure
