"""Fig. 5: the K most similar cases of a benign and of a malignant nodule, by machine and by expert reasoning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nodule_diag.results import Space

from .drawing import canvas, frame, show_patch
from .faithfulness import Float
from .records import NoduleRecord
from .retrieval import Retrieved

PER_ROW = 10
Patch = Callable[[str], Float]
"""The [2, S, S, S] patch of a case."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One nodule's similar cases in one space."""

    space: Space
    retrieved: Retrieved


def draw_retrieval(answers: Sequence[Answer], patch: Patch, *, title: str) -> Figure:
    """For each answer the nodule at the left and its cases, nearest first, framed red where their label differs.

    The number below an image is P for machine reasoning and RNet's normalised score for expert reasoning.
    """
    rows = [(answer, start) for answer in answers for start in range(0, len(answer.retrieved.cases), PER_ROW)]
    figure, axes = canvas(rows=len(rows), columns=PER_ROW + 1)
    for row, (answer, start) in enumerate(rows):
        nodule = answer.retrieved.nodule
        first = axes[row, 0]
        if start == 0:
            show_patch(first, patch(nodule.case_id))
            kind = "malignant" if nodule.label else "benign"
            first.set_title(f"{answer.space}\n{kind}, diagnosis {answer.retrieved.diagnosis:.2f}", fontsize=6)
            first.set_xlabel(_score(nodule, answer.space), fontsize=6, labelpad=1)
        else:
            first.set_axis_off()
        shown = answer.retrieved.cases[start : start + PER_ROW]
        for column, case in enumerate(shown, start=1):
            panel = axes[row, column]
            show_patch(panel, patch(case.case_id))
            panel.set_xlabel(_score(case, answer.space), fontsize=6, labelpad=1)
            frame(panel, right=case.label == nodule.label)
        for panel in axes[row, len(shown) + 1 :]:
            panel.set_axis_off()
    figure.suptitle(title, fontsize=8)
    return figure


def _score(nodule: NoduleRecord, space: Space) -> str:
    p = "" if nodule.malignancy is None else f"{nodule.malignancy:.2f}"
    score = "" if nodule.expert_score is None else f"{(nodule.expert_score - 1.0) / 4.0:.2f}"
    return {"machine": p, "expert": score}.get(space, f"{p} / {score}")
