"""How much AUC a model loses when the background no longer tells the label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nodule_diag_training.confounder import CUE_AGREES, CueTest

from .catalogue import Experiment
from .markdown import interval_cell, table
from .records import FoldRecord, NoduleRecord
from .scores import pooled
from .tested import tested

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
    "with it on benign nodules alone. The loss is the AUC of the first minus the third test, on the same nodules."
)


def confounder_section(runs: Sequence[tuple[Experiment, str, Sequence[FoldRecord]]]) -> str:
    """Pooled AUC in each test, and what is lost; nothing where nothing was run."""
    lines = []
    for row, title, records in runs:
        aucs = {
            test: pooled("auc", tested(records, "scores", row.scenario, score=partial(_score, test=test)))
            for test in TESTS
        }
        loss = aucs["as trained"].value - aucs["independent"].value
        lines.append([row.title, title, *(interval_cell(auc) for auc in aucs.values()), f"{100 * loss:.2f}"])
    if not lines:
        return ""
    return f"## Pooled AUC by test\n\n{LEGEND}\n\n{table(('', '', *TESTS.values(), 'loss'), lines)}"


def _score(nodule: NoduleRecord, *, test: CueTest) -> float:
    return nodule.probability if test == "none" else nodule.cued[test]
