"""Where a nodule lies among all diagnosed cases: malignancy against expert score."""

from __future__ import annotations

from dataclasses import dataclass

from nodule_diag.cases import CaseIndex
from nodule_diag.results import UNCALIBRATED, Diagnosis, SimilarCase

DRAWN_AT_MOST = 2000
"""The most cases that are drawn; of more cases, every n-th."""
WIDTH, HEIGHT = 400, 240


@dataclass(frozen=True)
class Dot:
    """One case in the picture; x and y count from the left and the top edge."""

    x: float
    y: float
    malignant: bool


@dataclass(frozen=True)
class Landscape:
    """The picture.

    Attributes:
        dots: The cases.
        rings: Where the nearest ones lie.
        nodule: Where the nodule lies.
        cases: How many cases there are.
    """

    dots: tuple[Dot, ...]
    rings: tuple[Dot, ...]
    nodule: Dot
    cases: int


def landscape(diagnosis: Diagnosis, index: CaseIndex) -> Landscape:
    """Place a nodule among the cases, all by the model's raw P, which does not depend on the prevalence."""
    _, numbers = index.cases.numbers()
    some = numbers[:: max(1, -(-len(numbers) // DRAWN_AT_MOST))].tolist()
    return Landscape(
        dots=tuple(_dot(p, score, bool(label)) for label, p, score in some),
        rings=tuple(_ring(case) for case in diagnosis.similar["machine+expert"]),
        nodule=_dot(UNCALIBRATED.probability(diagnosis.logit), diagnosis.expert_score, False),
        cases=len(numbers),
    )


def _ring(case: SimilarCase) -> Dot:
    return _dot(case.malignancy, case.expert_score, bool(case.label))


def _dot(malignancy: float, expert_score: float, malignant: bool) -> Dot:
    return Dot((expert_score - 1) / 4 * WIDTH, (1 - malignancy) * HEIGHT, malignant)
