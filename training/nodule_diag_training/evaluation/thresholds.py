"""The threshold that makes a mask of SegNet's map: chosen on the other folds' patients, judged on a fold's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nodule_diag_training.data import MASK_THRESHOLD

from .judgement import OTHER_THRESHOLDS, Form, Judgement
from .metrics import Statistic, mean_value, median_value
from .report import nothing
from .rows import Section, row_of

THRESHOLDS = (*OTHER_THRESHOLDS, MASK_THRESHOLD)
SHOWN: dict[Form, str] = {"cube": "real surroundings", "voi": "VOIs"}
"""The forms that choose the threshold, with equal weight; a cube that is cropped as a VOI is the same nodule again."""

FIGURES: tuple[tuple[str, Statistic, Callable[[Judgement], float]], ...] = (
    ("Dice", mean_value, lambda j: j.dice_half_mm),
    ("diameter error, median, mm", median_value, lambda j: abs(j.diameter_error_mm)),
    ("diameter minus the outline's, mean, mm", mean_value, lambda j: j.diameter_error_mm),
)
NOTE = (
    "Dice and diameter on the 0.5 mm grid. Voxels at or above the threshold are nodule. The chosen threshold has the"
    " largest Dice, with equal weight for nodules in their real surroundings and for VOIs. In all tables, a fold uses"
    " the threshold chosen on the other folds' patients, and the SDK the threshold chosen on all patients. Intervals do"
    " not include the uncertainty of this choice."
)


def at(judgement: Judgement, threshold: float) -> Judgement:
    """The judgement with Dice and diameter of another threshold; unchanged where it lacks that threshold."""
    for cut in judgement.cuts:
        if cut.threshold == threshold:
            return replace(
                judgement,
                dice_grid=cut.dice_grid,
                dice_half_mm=cut.dice_half_mm,
                diameter_error_mm=cut.diameter_error_mm,
            )
    return judgement


def chosen(judgements: Sequence[Judgement]) -> float | None:
    """The threshold of the largest Dice, each form weighing the same; at a tie the highest. None without thresholds."""
    dice: list[float] = []
    for threshold in THRESHOLDS:
        forms = [[at(j, threshold).dice_half_mm for j in judgements if j.form == form and j.cuts] for form in SHOWN]
        values = [np.mean(of) for of in forms if of]
        if not values:
            return None
        dice.append(float(np.mean(values)))
    return max(zip(dice, THRESHOLDS, strict=True))[1]


def by_fold(judgements: Sequence[Judgement]) -> dict[int, float]:
    """The threshold that the other folds choose, for each fold; no entry without others, or where they have none."""
    found = {}
    for fold in sorted({j.fold for j in judgements}):
        threshold = chosen([j for j in judgements if j.fold != fold])
        if threshold is not None:
            found[fold] = threshold
    return found


def cut_out_of_fold(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements with Dice and diameter of the threshold that the other folds choose; unchanged without others."""
    thresholds = by_fold(judgements)
    return [at(j, thresholds[j.fold]) if j.fold in thresholds else j for j in judgements]


def threshold_section(judgements: Sequence[Judgement]) -> Section:
    """The figures of each threshold, and of the one that is chosen out of fold.

    Args:
        judgements: The judgements at one half.
    """
    thresholds = by_fold(judgements)
    groups = [(f"{threshold:.2f}", [at(j, threshold) for j in judgements]) for threshold in THRESHOLDS]
    told = ", ".join(f"{thresholds[fold]:.2f}" for fold in thresholds)
    groups.append((f"out of fold ({told})", cut_out_of_fold(judgements)))
    rows = []
    for group, cut in groups if thresholds else ():
        for form, title in SHOWN.items():
            own = [j for j in cut if j.form == form]
            for metric, statistic, value in FIGURES:
                rows.append(replace(row_of(f"{title}: {metric}", statistic, own, nothing, value), group=group))
    return Section(title="Where SegNet's map is cut", rows=tuple(rows), note=NOTE)
