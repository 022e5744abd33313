"""What the packaged model's recipe was meant to reach on patients that the judging model never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from .judgement import UNSAID, Judgement
from .metrics import Array, auc, estimate, mean_absolute_error, mean_value, median_value, spearman
from .report import nothing, of_clear_side, of_enough_readers, reader_score, side
from .rows import Row, Section, Target, row_of

Value = Callable[[Judgement], float]


def target_section(cubes: Sequence[Judgement], sides: Sequence[Judgement]) -> Section:
    """Every target, what was reached, and whether that is enough.

    Args:
        cubes: Nodules in their real surroundings.
        sides: Nodules on which P is measured against the readers' sides, scenario 12/45 of the paper's cohort.
    """
    scored, clear = of_enough_readers(cubes), of_clear_side(sides)
    score = "Expert score against the readers' mean, three readers or more"

    def mean(metric: str, value: Value, target: Target, note: str | None = None) -> Row:
        return row_of(metric, mean_value, cubes, nothing, value, target=target, note=note)

    def median(metric: str, value: Value, target: Target) -> Row:
        return row_of(metric, median_value, cubes, nothing, value, target=target)

    negative = sum(j.margin < 0.0 for j in cubes)
    rows = (
        row_of(f"{score}: Spearman", spearman, scored, reader_score, _score, target=Target(">=", 0.75)),
        row_of(f"{score}: MAE", mean_absolute_error, scored, reader_score, _score, target=Target("<=", 0.42)),
        mean("Dice on SegNet's 16-grid, mean", lambda j: j.dice_grid, Target(">=", 0.72)),
        median("Diameter error, median, mm", lambda j: abs(j.diameter_error_mm), Target("<=", 1.0)),
        median("CAM margin, median", lambda j: j.margin, Target(">=", 0.65)),
        mean("CAM margin negative, share", _negative, Target("<", 0.02), note=f"{negative} of them"),
        row_of("Readers' scores 1, 2 against 4, 5: AUC of P", auc, clear, side, _malignancy, target=Target(">=", 0.97)),
        row_of("  yardstick: AUC of the diameter", auc, clear, side, _diameter),
        Target(">", 0.0, whole=True).judged(_gain(clear)),
    )
    return Section(
        title="Targets",
        rows=rows,
        note="Nodules in their real surroundings (cubes). The readers' sides are those of the paper's cohort. The value"
        " meets or misses a target; if the interval reaches both sides of the target, the result is open.",
    )


def _gain(clear: Sequence[Judgement]) -> Row:
    """How much better P distinguishes the sides than the diameter does, on the same nodules and the same draws."""
    known = [j for j in clear if not math.isnan(j.malignancy + j.diameter_mm)]
    truth = np.array([side(j) for j in known])
    p, diameter = (np.array([of(j) for j in known]) for of in (_malignancy, _diameter))

    def difference(index: Array, _: Array) -> float:
        some = index.astype(int)
        return auc(truth[some], p[some]) - auc(truth[some], diameter[some])

    index = list(map(float, range(len(known))))
    found = estimate(difference, index, index, [j.patient_id for j in known])
    return Row(metric="  P minus the diameter", **asdict(found))


def _negative(judgement: Judgement) -> float:
    return UNSAID if math.isnan(judgement.margin) else float(judgement.margin < 0.0)


def _score(judgement: Judgement) -> float:
    return judgement.expert_score


def _malignancy(judgement: Judgement) -> float:
    return judgement.malignancy


def _diameter(judgement: Judgement) -> float:
    return judgement.diameter_mm
