"""How much AUC a model loses when the background no longer reveals the label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nodule_diag_training.data import CUE_AGREES, CueTest

from .catalogue import Experiment
from .markdown import interval_cell, table
from .records import FoldRecord, NoduleRecord
from .scores import auc_difference, pooled_auc
from .tested import scored

TESTS: dict[CueTest, str] = {
    "as trained": "cue as in training",
    "none": "no cue",
    "independent": "cue independent of the label",
    "reversed": "cue reversed",
}
LEGEND = (
    "In training a faint grating lies on everything but the nodule and 2 mm round it: in "
    f"{100 * CUE_AGREES:.0f} % of patients on malignant nodules alone, in the others on benign ones alone. The models "
    "are tested with that correlation, without the grating, with it on half of the patients whatever the label, and "
    "with it on benign nodules alone. Lost is the AUC of the first test minus another's on the same nodules, with its "
    "interval over the same draws of patients."
)
LOST: dict[CueTest, str] = {"independent": "lost where it is independent", "reversed": "lost where it is reversed"}


def confounder_section(runs: Sequence[tuple[Experiment, str, Sequence[FoldRecord]]]) -> str:
    """Pooled AUC in each test, and the loss; empty where nothing was run."""
    lines = []
    for row, title, records in runs:
        tested = {test: scored(records, "scores", row.scenario, score=partial(_score, test=test)) for test in TESTS}
        aucs = [pooled_auc(nodules) for nodules in tested.values()]
        lost = [auc_difference(tested["as trained"], tested[test]) for test in LOST]
        lines.append([row.title, title, *map(interval_cell, aucs + lost)])
    if not lines:
        return ""
    return f"## Pooled AUC by test\n\n{LEGEND}\n\n{table(('', '', *TESTS.values(), *LOST.values()), lines)}"


def _score(nodule: NoduleRecord, *, test: CueTest) -> float:
    return nodule.probability if test == "none" else nodule.cued[test]
