"""What the figures of a nodule say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nodule_diag.results import SPACES, CaseBaseIdentity, Diagnosis, Space

SPACE_NAMES: Mapping[Space, str] = {
    "machine+expert": "by P and score together",
    "machine": "by P alone",
    "expert": "by score alone",
}


@dataclass(frozen=True)
class Retrieval:
    """The diagnosis that the nearest cases of one feature space imply.

    Attributes:
        space: The feature space, in words.
        malignant: How many of the nearest cases are malignant.
        found: How many nearest cases there are.
        share: The share of malignant cases among them, eq. 14.
        balanced: The same, as if half of the case base were benign; None where it has one kind of case only.
    """

    space: str
    malignant: int
    found: int
    share: float
    balanced: float | None


def retrievals(diagnosis: Diagnosis) -> list[Retrieval]:
    """One per feature space, both spaces together first."""
    return [
        Retrieval(
            SPACE_NAMES[space],
            sum(case.label for case in diagnosis.similar[space]),
            len(diagnosis.similar[space]),
            diagnosis.diagnosis[space],
            diagnosis.diagnosis_balanced[space],
        )
        for space in sorted(SPACES, key=lambda space: list(SPACE_NAMES).index(space))
    ]


def compared_with(cases: CaseBaseIdentity) -> str:
    """The cases behind every share: all of a case base, or those that a filter selected."""
    malignant = f"{100 * cases.malignant / cases.count:.0f} % of them malignant"
    if cases.where is None:
        return f"{cases.count} diagnosed nodules, {malignant}"
    return f"only the {cases.count} diagnosed nodules with {cases.where}; {malignant}"


def prior(prevalence: float | None, *, uncalibrated: float | None = None) -> str:
    """The prior that the malignancy assumes, and what it was calibrated on."""
    share = "half" if prevalence is None else f"{100 * prevalence:.3g} %"
    if uncalibrated is None:
        return f"if {share} of such nodules were malignant"
    return (
        f"if {share} of such nodules were malignant. It is calibrated on the diagnosed nodules of the model's own"
        f" collection, and on nothing else; before that it is {uncalibrated:.2f}, which is what similar cases have"
    )


def score(expert_score: float) -> str:
    """The readers' word for a score (LIDC-IDRI's five)."""
    words = ("highly unlikely", "moderately unlikely", "indeterminate", "moderately suspicious", "highly suspicious")
    return words[min(max(round(expert_score), 1), 5) - 1]


def faithfulness(diagnosis: Diagnosis) -> str:
    """Where the evidence lies, by AvgCAM over the nodule and over the background (eq. 8, 9)."""
    on, off = diagnosis.faithfulness.cam_nodule, diagnosis.faithfulness.cam_background
    if on + off == 0:
        return "The class activation map is empty: nothing says where the evidence lies."
    return (
        f"Cell for cell, {100 * on / (on + off):.0f} % of the evidence lies on the nodule: the class activation map"
        f" averages {on:.2f} there and {off:.2f} elsewhere."
    )


def evidence_warning(diagnosis: Diagnosis) -> str | None:
    """A warning when the background dominates, which makes the malignancy doubtful; otherwise None."""
    if diagnosis.faithfulness.margin > 0:
        return None
    return (
        "The evidence is stronger off the nodule than on it: the malignancy may come from something else in the cube."
    )
