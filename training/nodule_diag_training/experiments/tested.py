"""Which nodules a row is tested on, with their labels, and what diameter and readers alone reach on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nodule_diag_training.config import Scenario
from nodule_diag_training.data import scenario_label
from nodule_diag_training.evaluation import Estimate

from .catalogue import Experiment
from .records import FoldRecord, NoduleRecord
from .scores import Scored, pooled_auc

Labels = Literal["certain", "all", "scores"]
"""Diagnoses of patients with no more VOIs than diagnoses, all diagnoses, or the side of the readers' mean score."""
LABELS: dict[Labels, str] = {
    "certain": "Diagnosed nodules of patients with no more VOIs than diagnoses",
    "all": "All diagnosed nodules (label of the patient where nodules outnumber diagnoses)",
    "scores": "Nodules of the paper's cohort, labelled by the readers' mean score",
}


def labels_of(row: Experiment) -> tuple[Labels, ...]:
    """The label rules under which a row is reported."""
    return ("certain", "all") if row.tested == "sure" else ("scores",)


def label_of(nodule: NoduleRecord, labels: Labels, scenario: Scenario | None) -> int | None:
    """A tested nodule's label; None if it is not tested."""
    if labels == "scores":
        if not nodule.in_paper_cohort or not nodule.reader_scores or scenario is None:
            return None
        side = scenario_label(scenario, nodule.mean_score)
        return None if side is None else int(side)
    if nodule.label is None or (labels == "certain" and nodule.certainty != "nodule"):
        return None
    return nodule.label


def _diameter(nodule: NoduleRecord) -> float:
    return math.nan if nodule.diameter_mm is None else nodule.diameter_mm


def _mean_score(nodule: NoduleRecord) -> float:
    return nodule.mean_score


def _probability(nodule: NoduleRecord) -> float:
    return nodule.probability


def scored(
    records: Sequence[FoldRecord],
    labels: Labels,
    scenario: Scenario | None,
    *,
    score: Callable[[NoduleRecord], float] = _probability,
) -> list[Scored]:
    """The tested nodules of all folds, each once, with their ``score``."""
    return [
        Scored(label=label, score=score(nodule), patient_id=nodule.patient_id, fold=record.fold)
        for record in records
        for nodule in record.nodules
        if (label := label_of(nodule, labels, scenario)) is not None
    ]


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What is reached without a model."""

    title: str
    auc: Estimate


def yardsticks(records: Sequence[FoldRecord], labels: Labels, scenario: Scenario | None) -> list[Yardstick]:
    """Yardsticks on the tested nodules: diameter alone, the readers' mean score, and single readers.

    Where scores are the labels, their mean says nothing; each reader is then measured against the others' side.
    """
    measured = _known(scored(records, labels, scenario, score=_diameter))
    found = [Yardstick(title="diameter alone", auc=pooled_auc(measured))]
    if labels == "scores":
        found.append(Yardstick(title="one reader against the others", auc=pooled_auc([*_one(records, scenario)])))
        return found
    read = _known(scored(records, labels, scenario, score=_mean_score))
    single = [
        Scored(label=label, score=float(score), patient_id=nodule.patient_id, fold=record.fold)
        for record in records
        for nodule in record.nodules
        if (label := label_of(nodule, labels, scenario)) is not None
        for score in nodule.reader_scores
    ]
    return [
        *found,
        Yardstick(title="readers' mean score", auc=pooled_auc(read)),
        Yardstick(title="a single reader's score", auc=pooled_auc(single)),
    ]


def _known(found: Sequence[Scored]) -> list[Scored]:
    return [own for own in found if math.isfinite(own.score)]


def _one(records: Sequence[FoldRecord], scenario: Scenario | None) -> Iterator[Scored]:
    """Each reader's score, labelled by the others' mean."""
    for record in records:
        for nodule in record.nodules:
            if scenario is None or not nodule.in_paper_cohort or len(nodule.reader_scores) < 2:
                continue
            for index, score in enumerate(nodule.reader_scores):
                others = [s for i, s in enumerate(nodule.reader_scores) if i != index]
                side = scenario_label(scenario, float(np.mean(others)))
                if side is not None:
                    yield Scored(label=int(side), score=float(score), patient_id=nodule.patient_id, fold=record.fold)
