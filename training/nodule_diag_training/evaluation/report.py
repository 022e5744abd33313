"""From judgements to the quality report: every figure with its interval, its yardsticks and the number behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from nodule_diag_training.data import scenario_label

from .judgement import UNSAID, Judgement
from .metrics import Estimate, Statistic, auc, brier, estimate, mean_absolute_error, mean_value, spearman

SMALL_NODULE_MM = 8.0
"""Below this a nodule is a handful of cells of the 2 mm grid."""
TARGET_DIAMETER_MM = 10.0
"""Below this the diameter is asked to be right within 1.5 mm."""
CERTAIN = "nodule"
RELIABILITY_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Bins of P in the reliability curve."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the report. ``target`` is what the project set out to reach, in words; None for a yardstick."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    target: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled table."""

    title: str
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _row(
    metric: str,
    statistic: Statistic,
    judgements: Sequence[Judgement],
    truth: Callable[[Judgement], float],
    value: Callable[[Judgement], float],
    *,
    target: str | None = None,
    note: str | None = None,
) -> Row:
    values = [value(j) for j in judgements]
    result = _estimate(statistic, [truth(j) for j in judgements], values, [j.patient_id for j in judgements])
    return Row(metric=metric, target=target, note=note, **asdict(result))


def _estimate(
    statistic: Statistic, truth: Sequence[float], value: Sequence[float], patients: Sequence[str]
) -> Estimate:
    """Of the nodules whose truth and value are known."""
    known = [i for i, pair in enumerate(zip(truth, value, strict=True)) if not any(map(math.isnan, pair))]
    return estimate(statistic, [truth[i] for i in known], [value[i] for i in known], [patients[i] for i in known])


def said(sections: Sequence[Section]) -> list[Section]:
    """Without the rows that no nodule tells anything of, and without sections that have no other rows."""
    kept = [replace(section, rows=tuple(row for row in section.rows if row.n)) for section in sections]
    return [section for section in kept if section.rows]


def _reader_score(judgement: Judgement) -> float:
    return judgement.reader_score


def _label(judgement: Judgement) -> float:
    return float(judgement.label or 0)


def _side(judgement: Judgement) -> float:
    """The paper's scenario 12/45."""
    return float(judgement.reader_score > 3)


def _lookup(diagnosis: Mapping[str, float]) -> Callable[[Judgement], float]:
    return lambda judgement: diagnosis.get(judgement.case_id, UNSAID)


def _malignancy(judgement: Judgement) -> float:
    return judgement.malignancy


def _nothing(_judgement: Judgement) -> float:
    return 0.0


def cube_section(title: str, cubes: Sequence[Judgement], *, targets: bool) -> Section:
    """SegNet, RNet and the CAM on nodules whose surroundings are real."""
    cohort = [j for j in cubes if j.in_paper_cohort]
    small = [j for j in cubes if j.diameter_mm < SMALL_NODULE_MM]
    large = [j for j in cubes if j.diameter_mm >= SMALL_NODULE_MM]
    below = [j for j in cubes if j.diameter_mm < TARGET_DIAMETER_MM]

    def target(text: str) -> str | None:
        return text if targets else None

    def mean(metric: str, of: Sequence[Judgement], value: Callable[[Judgement], float], goal: str | None = None) -> Row:
        return _row(metric, mean_value, of, _nothing, value, target=goal)

    score = "Expert score (RNet) against the readers' mean"
    return Section(
        title=title,
        rows=(
            mean("SegNet Dice on its 16-grid", cubes, lambda j: j.dice_grid, target(">= 0.75")),
            mean(f"  nodules under {SMALL_NODULE_MM:.0f} mm", small, lambda j: j.dice_grid),
            mean(f"  nodules from {SMALL_NODULE_MM:.0f} mm", large, lambda j: j.dice_grid),
            mean("SegNet Dice at 0.5 mm", cubes, lambda j: j.dice_half_mm),
            mean("Diameter error of SegNet, mm (absolute)", cubes, lambda j: abs(j.diameter_error_mm)),
            mean(
                f"  nodules under {TARGET_DIAMETER_MM:.0f} mm",
                below,
                lambda j: abs(j.diameter_error_mm),
                target("<= 1.5"),
            ),
            _row(
                f"{score}: Spearman", spearman, cubes, _reader_score, lambda j: j.expert_score, target=target(">= 0.80")
            ),
            _row("  in the paper's cohort", spearman, cohort, _reader_score, lambda j: j.expert_score),
            _row(
                f"{score}: MAE",
                mean_absolute_error,
                cubes,
                _reader_score,
                lambda j: j.expert_score,
                target=target("<= 0.40"),
            ),
            _row("  in the paper's cohort", mean_absolute_error, cohort, _reader_score, lambda j: j.expert_score),
            mean("CAM margin (eq. 8 - eq. 9, reader mask)", cubes, lambda j: j.margin, target(">= 0.6")),
            _row("Yardstick: diameter alone, Spearman", spearman, cubes, _reader_score, lambda j: j.diameter_mm),
            *_reader_yardstick(cubes),
        ),
    )


def _reader_yardstick(judgements: Sequence[Judgement]) -> tuple[Row, Row]:
    """Each reader against the mean of the others, over all of them."""
    one: list[float] = []
    others: list[float] = []
    patients: list[str] = []
    for judgement in judgements:
        scores = judgement.reader_scores
        if len(scores) < 2:
            continue
        one += [float(score) for score in scores]
        others += [(sum(scores) - score) / (len(scores) - 1) for score in scores]
        patients += [judgement.patient_id] * len(scores)
    rows = []
    for name, statistic in (("Spearman", spearman), ("MAE", mean_absolute_error)):
        result = _estimate(statistic, others, one, patients)
        rows.append(Row(metric=f"Yardstick: one reader against the others, {name}", **asdict(result)))
    return rows[0], rows[1]


def calibration_section(diagnosed: Sequence[Judgement]) -> Section:
    """How far P can be taken for a probability: Brier score, and the reliability curve bin by bin."""
    rate = sum(_label(j) for j in diagnosed) / max(1, len(diagnosed))
    rows = [
        _row("Brier score of P", brier, diagnosed, _label, lambda j: j.malignancy),
        _row("Yardstick: Brier score of the base rate", brier, diagnosed, _label, lambda _: rate),
    ]
    for low, high in pairwise(RELIABILITY_EDGES):
        inside = [j for j in diagnosed if low <= j.malignancy < high or j.malignancy == high == 1.0]
        mean = sum(j.malignancy for j in inside) / len(inside) if inside else float("nan")
        metric = f"Malignant where P is {low:.1f} to {high:.1f}"
        rows.append(_row(metric, mean_value, inside, _nothing, _label, note=f"mean P {mean:.2f}" if inside else None))
    return Section(title="Calibration of P (all diagnosed nodules)", rows=tuple(rows))


def symmetry_section(single: Sequence[Judgement], averaged: Sequence[Judgement], *, views: int) -> Section:
    """What averaging over views changes on the same nodules, case by case: figures with it minus figures without."""
    by_case = {j.case_id: j for j in averaged}
    pairs = [(one, by_case[one.case_id]) for one in single]
    patients = [one.patient_id for one in single]

    def mean(metric: str, value: Callable[[Judgement], float]) -> Row:
        differences = [value(mean) - value(one) for one, mean in pairs]
        return Row(metric=metric, **asdict(_estimate(mean_value, [0.0] * len(pairs), differences, patients)))

    def reader_error(judgement: Judgement) -> float:
        return abs(judgement.expert_score - judgement.reader_score)

    score = "Expert score (RNet) against the readers' mean"
    return Section(
        title=f"Averaged over {views} views of each patch, minus the patch alone (cubes of patients not trained on)",
        rows=(
            mean("SegNet Dice on its 16-grid, difference", lambda j: j.dice_grid),
            mean("SegNet Dice at 0.5 mm, difference", lambda j: j.dice_half_mm),
            mean("Diameter error, mm (absolute), difference", lambda j: abs(j.diameter_error_mm)),
            mean(f"{score}: absolute error, difference", reader_error),
            mean("CAM margin (eq. 8 - eq. 9, reader mask), difference", lambda j: j.margin),
            _row(f"{score}: Spearman, alone", spearman, single, _reader_score, lambda j: j.expert_score),
            _row(f"{score}: Spearman, averaged", spearman, averaged, _reader_score, lambda j: j.expert_score),
            _row("P against the readers' mean: Spearman, alone", spearman, single, _reader_score, _malignancy),
            _row("P against the readers' mean: Spearman, averaged", spearman, averaged, _reader_score, _malignancy),
        ),
    )


def diagnosis_section(
    title: str,
    diagnosed: Sequence[Judgement],
    retrieved: Mapping[str, Mapping[str, float]],
    *,
    target: str | None = None,
) -> Section:
    """CNet and the retrieval against diagnoses, beside what diameter and readers reach on the same nodules.

    Args:
        title: Of the section.
        diagnosed: Judgements with a label.
        retrieved: By feature space, the retrieval's diagnosis of a case_id (eq. 14), where there is one.
        target: What CNet is asked to reach.
    """
    rows = [
        _row("CNet (P), AUC", auc, diagnosed, _label, lambda j: j.malignancy, target=target, note="pooled over folds"),
        _row("RNet (expert score), AUC", auc, diagnosed, _label, lambda j: j.expert_score),
        *(
            _row(f"Retrieval, {space}, AUC", auc, diagnosed, _label, _lookup(diagnosis))
            for space, diagnosis in retrieved.items()
        ),
        _row("CAM margin (eq. 8 - eq. 9, reader mask)", mean_value, diagnosed, _nothing, lambda j: j.margin),
        _row("Yardstick: diameter alone, AUC", auc, diagnosed, _label, lambda j: j.diameter_mm),
        _row("Yardstick: readers' mean score, AUC", auc, diagnosed, _label, _reader_score),
        _row("Base rate of malignancy", mean_value, diagnosed, _nothing, _label),
    ]
    return Section(title=title, rows=tuple(rows))


def side_section(of: str, judgements: Sequence[Judgement]) -> Section:
    """Scenario 12/45 in the paper's cohort; ``of`` names the nodules."""
    clear = [j for j in judgements if j.in_paper_cohort and scenario_label("12/45", j.reader_score) is not None]
    return Section(
        title=f"Scenario 12/45: readers' scores 1, 2 against 4, 5 ({of})",
        rows=(
            _row("Expert score, AUC", auc, clear, _side, lambda j: j.expert_score, target="> 0.957"),
            _row("CNet (P), AUC", auc, clear, _side, lambda j: j.malignancy),
            _row("Yardstick: diameter alone, AUC", auc, clear, _side, lambda j: j.diameter_mm),
        ),
    )


def cut_section(cubes: Sequence[Judgement], cut: Sequence[Judgement]) -> Section:
    """What changes when the same cubes are cut and completed as the VOIs are in training."""
    by_case = {j.case_id: j for j in cut}
    pairs = [(whole, by_case[whole.case_id]) for whole in cubes if whole.case_id in by_case]

    def mean(metric: str, value: Callable[[Judgement, Judgement], float]) -> Row:
        values = [value(*pair) for pair in pairs]
        patients = [whole.patient_id for whole, _ in pairs]
        return Row(metric=metric, **asdict(_estimate(mean_value, [0.0] * len(values), values, patients)))

    return Section(
        title="The cut: the same cubes, treated as the VOIs are in training, minus the whole cubes",
        rows=(
            mean("SegNet Dice on its 16-grid, difference", lambda w, c: c.dice_grid - w.dice_grid),
            mean("Expert score, difference", lambda w, c: c.expert_score - w.expert_score),
            mean("Expert score, absolute difference", lambda w, c: abs(c.expert_score - w.expert_score)),
            mean("P, difference", lambda w, c: c.malignancy - w.malignancy),
            mean("P, absolute difference", lambda w, c: abs(c.malignancy - w.malignancy)),
            mean("CAM margin, difference", lambda w, c: c.margin - w.margin),
        ),
    )
