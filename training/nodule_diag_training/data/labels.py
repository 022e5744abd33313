"""The targets of the heads for a nodule: its score for RNet, and its side for CNet."""

from __future__ import annotations

import math

from nodule_diag_training.config import TrainingConfig

from .nodule import Nodule

UNDECIDED_SCORE = 3.0
"""The readers' mean score that is on neither side."""
LOWEST_SCORE, HIGHEST_SCORE = 1.0, 5.0


def rounded_score(score: float) -> int:
    """A mean score rounded to 1..5, halves up: this gives the paper's five groups of nodules (4.1)."""
    return math.floor(score + 0.5)


def normalised_score(score: float) -> float:
    """g_r of eq. 2: a malignancy score of 1..5 mapped to 0..1."""
    return (score - LOWEST_SCORE) / (HIGHEST_SCORE - LOWEST_SCORE)


def score_target(nodule: Nodule, *, drawn_as_sure: bool, config: TrainingConfig) -> float | None:
    """The score, 1..5, that RNet learns for a nodule; None if RNet learns none."""
    if drawn_as_sure and config.diagnosis_as_score and nodule.sure is not None:
        return HIGHEST_SCORE if nodule.sure.malignant else LOWEST_SCORE
    if (drawn_as_sure and not config.sure_teaches_unsure) or not nodule.reader_scores:
        return None
    return nodule.mean_score


def scenario_label(scenario: str, score: float) -> float | None:
    """The side of a mean score in a scenario such as ``12/345``: 0 left of the slash, 1 right of it, None if absent."""
    benign, malignant = scenario.split("/")
    rounded = str(rounded_score(score))
    if rounded in benign:
        return 0.0
    return 1.0 if rounded in malignant else None


def cnet_label(nodule: Nodule, *, drawn_as_sure: bool, config: TrainingConfig) -> float | None:
    """CNet's target for a nodule: its diagnosis, or the side of the readers' mean score where that is configured."""
    if config.diagnosis_teaches and nodule.sure is not None and (drawn_as_sure or config.scores_label):
        return float(nodule.sure.malignant)
    if not config.scores_label or not nodule.reader_scores:
        return None
    if config.scenario is not None:
        return scenario_label(config.scenario, nodule.mean_score)
    if nodule.mean_score == UNDECIDED_SCORE:
        return None
    return float(nodule.mean_score > UNDECIDED_SCORE)
