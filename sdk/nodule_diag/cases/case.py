"""A diagnosed nodule that retrieval compares with, as a pydantic model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from nodule_diag.bundle import ShortText, Strict


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL character")
    return text


Text = Annotated[ShortText, AfterValidator(_without_nul)]
Score = Annotated[float, Field(ge=1.0, le=5.0)]
FreeValue = (
    Annotated[str, AfterValidator(_without_nul), Field(max_length=2000)]
    | Annotated[int, Field(ge=-(2**63), lt=2**63)]
    | float
)
"""What a free column may hold; whole numbers stay whole."""


class Case(Strict):
    """A nodule with a diagnosis, and what the bundle's model says about it.

    Attributes:
        case_id: Unique identifier.
        patient_id: The patient, as a pseudonymous key.
        label: 0 benign, 1 malignant.
        label_source: How it was diagnosed.
        label_certainty: Whether the diagnosis is of this nodule, or of its patient and applied to the nodule.
        malignancy: The model's raw P.
        expert_score: The model's raw score, 1..5.
        reader_scores: The readers' own malignancy scores, 1..5; may be empty.
        diameter_mm: Its diameter, mm; None when unknown.
        columns: Free columns by name, such as age or sex.
    """

    model_config = ConfigDict(strict=False)  # numbers of a CSV are text

    case_id: Text
    patient_id: Text
    label: Literal[0, 1]
    label_source: Text
    label_certainty: Literal["nodule", "patient"]
    malignancy: Annotated[float, Field(ge=0.0, le=1.0)]
    expert_score: Score
    reader_scores: tuple[Score, ...] = ()
    diameter_mm: Annotated[float, Field(gt=0.0)] | None = None
    columns: dict[Text, FreeValue] = Field(default_factory=dict)
