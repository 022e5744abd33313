"""From judgements to the quality report: every figure with its interval, yardsticks and number of nodules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from nodule_diag_training.data import scenario_label

from .judgement import UNSAID, Judgement
from .metrics import auc, brier, mean_absolute_error, mean_value, spearman
from .rows import Row, Section, Target, estimate_known, row_of

SMALL_NODULE_MM = 8.0
"""Below this diameter a nodule is a handful of cells of the 2 mm grid."""
TARGET_DIAMETER_MM = 10.0
"""Below this diameter, the target is an error within 1.5 mm."""
CERTAIN = "nodule"
ENOUGH_READERS = 3


def reader_score(judgement: Judgement) -> float:
    """Mean of the readers."""
    return judgement.reader_score


def _label(judgement: Judgement) -> float:
    return float(judgement.label or 0)


def side(judgement: Judgement) -> float:
    """The truth in the paper's scenario 12/45."""
    return float(judgement.reader_score > 3)


def _lookup(diagnosis: Mapping[str, float]) -> Callable[[Judgement], float]:
    return lambda judgement: diagnosis.get(judgement.case_id, UNSAID)


def _malignancy(judgement: Judgement) -> float:
    return judgement.malignancy


def nothing(_judgement: Judgement) -> float:
    """The truth for a figure that needs none."""
    return 0.0


def of_enough_readers(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements with three readers or more."""
    return [j for j in judgements if len(j.reader_scores) >= ENOUGH_READERS]


def of_clear_side(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements of the paper's cohort in its scenario 12/45: mean scores that round to 1, 2, 4 or 5."""
    return [j for j in judgements if j.in_paper_cohort and scenario_label("12/45", j.reader_score) is not None]


def cube_section(title: str, cubes: Sequence[Judgement]) -> Section:
    """SegNet, RNet and the CAM on nodules whose surroundings are real."""
    cohort = [j for j in cubes if j.in_paper_cohort]
    small = [j for j in cubes if j.diameter_mm < SMALL_NODULE_MM]
    large = [j for j in cubes if j.diameter_mm >= SMALL_NODULE_MM]
    below = [j for j in cubes if j.diameter_mm < TARGET_DIAMETER_MM]

    def mean(
        metric: str, of: Sequence[Judgement], value: Callable[[Judgement], float], goal: Target | None = None
    ) -> Row:
        return row_of(metric, mean_value, of, nothing, value, target=goal)

    score = "Expert score (RNet) against the readers' mean"
    return Section(
        title=title,
        rows=(
            mean("SegNet Dice on its 16-grid", cubes, lambda j: j.dice_grid),
            mean(f"  nodules under {SMALL_NODULE_MM:.0f} mm", small, lambda j: j.dice_grid),
            mean(f"  nodules from {SMALL_NODULE_MM:.0f} mm", large, lambda j: j.dice_grid),
            mean("SegNet Dice at 0.5 mm", cubes, lambda j: j.dice_half_mm),
            mean("Diameter error of SegNet, mm (absolute)", cubes, lambda j: abs(j.diameter_error_mm)),
            mean(
                f"  nodules under {TARGET_DIAMETER_MM:.0f} mm",
                below,
                lambda j: abs(j.diameter_error_mm),
                Target("<=", 1.5),
            ),
            row_of(f"{score}: Spearman", spearman, cubes, reader_score, lambda j: j.expert_score),
            row_of("  in the paper's cohort", spearman, cohort, reader_score, lambda j: j.expert_score),
            row_of(f"{score}: MAE", mean_absolute_error, cubes, reader_score, lambda j: j.expert_score),
            row_of("  in the paper's cohort", mean_absolute_error, cohort, reader_score, lambda j: j.expert_score),
            mean("CAM margin (eq. 8 - eq. 9, reader mask)", cubes, lambda j: j.margin),
            row_of("Yardstick: diameter alone, Spearman", spearman, cubes, reader_score, lambda j: j.diameter_mm),
            *_reader_yardstick(cubes),
        ),
    )


def _reader_yardstick(judgements: Sequence[Judgement]) -> tuple[Row, Row]:
    """Each reader against the mean of the other readers, over all readers."""
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
        result = estimate_known(statistic, others, one, patients)
        rows.append(Row(metric=f"Yardstick: one reader against the others, {name}", **asdict(result)))
    return rows[0], rows[1]


def brier_section(diagnosed: Sequence[Judgement]) -> Section:
    """How good P is as a probability."""
    rate = sum(_label(j) for j in diagnosed) / max(1, len(diagnosed))
    rows = [
        row_of("Brier score of P", brier, diagnosed, _label, lambda j: j.malignancy),
        row_of("Yardstick: Brier score of the base rate", brier, diagnosed, _label, lambda _: rate),
    ]
    return Section(title="Calibration of P (all diagnosed nodules)", rows=tuple(rows))


def symmetry_section(single: Sequence[Judgement], averaged: Sequence[Judgement], *, views: int) -> Section:
    """What averaging over views changes on the same nodules, case by case: figures with it minus figures without."""
    by_case = {j.case_id: j for j in averaged}
    pairs = [(one, by_case[one.case_id]) for one in single]
    patients = [one.patient_id for one in single]

    def mean(metric: str, value: Callable[[Judgement], float]) -> Row:
        differences = [value(mean) - value(one) for one, mean in pairs]
        return Row(metric=metric, **asdict(estimate_known(mean_value, [0.0] * len(pairs), differences, patients)))

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
            row_of(f"{score}: Spearman, alone", spearman, single, reader_score, lambda j: j.expert_score),
            row_of(f"{score}: Spearman, averaged", spearman, averaged, reader_score, lambda j: j.expert_score),
            row_of("P against the readers' mean: Spearman, alone", spearman, single, reader_score, _malignancy),
            row_of("P against the readers' mean: Spearman, averaged", spearman, averaged, reader_score, _malignancy),
        ),
    )


def diagnosis_section(
    title: str,
    diagnosed: Sequence[Judgement],
    retrieved: Mapping[str, Mapping[str, float]],
    *,
    target: Target | None = None,
) -> Section:
    """CNet and the retrieval against diagnoses, beside what diameter and readers reach on the same nodules.

    Args:
        title: Title of the section.
        diagnosed: Judgements with a label.
        retrieved: By feature space, the retrieval's diagnosis of a case_id (eq. 14), where there is one.
        target: The target for CNet.
    """
    rows = [
        row_of(
            "CNet (P), AUC", auc, diagnosed, _label, lambda j: j.malignancy, target=target, note="pooled over folds"
        ),
        row_of("RNet (expert score), AUC", auc, diagnosed, _label, lambda j: j.expert_score),
        *(
            row_of(f"Retrieval, {space}, AUC", auc, diagnosed, _label, _lookup(diagnosis))
            for space, diagnosis in retrieved.items()
        ),
        row_of("CAM margin (eq. 8 - eq. 9, reader mask)", mean_value, diagnosed, nothing, lambda j: j.margin),
        row_of("Yardstick: diameter alone, AUC", auc, diagnosed, _label, lambda j: j.diameter_mm),
        row_of("Yardstick: readers' mean score, AUC", auc, diagnosed, _label, reader_score),
        row_of("Base rate of malignancy", mean_value, diagnosed, nothing, _label),
    ]
    return Section(title=title, rows=tuple(rows))


def side_section(of: str, judgements: Sequence[Judgement]) -> Section:
    """Scenario 12/45 in the paper's cohort; ``of`` names the nodules."""
    clear = of_clear_side(judgements)
    return Section(
        title=f"Scenario 12/45: readers' scores 1, 2 against 4, 5 ({of})",
        rows=(
            row_of("Expert score, AUC", auc, clear, side, lambda j: j.expert_score),
            row_of("CNet (P), AUC", auc, clear, side, lambda j: j.malignancy),
            row_of("Yardstick: diameter alone, AUC", auc, clear, side, lambda j: j.diameter_mm),
        ),
    )


def cut_section(cubes: Sequence[Judgement], cut: Sequence[Judgement]) -> Section:
    """What changes when the same cubes are cropped and completed as the VOIs are in training."""
    by_case = {j.case_id: j for j in cut}
    pairs = [(whole, by_case[whole.case_id]) for whole in cubes if whole.case_id in by_case]

    def mean(metric: str, value: Callable[[Judgement, Judgement], float]) -> Row:
        values = [value(*pair) for pair in pairs]
        patients = [whole.patient_id for whole, _ in pairs]
        return Row(metric=metric, **asdict(estimate_known(mean_value, [0.0] * len(values), values, patients)))

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
