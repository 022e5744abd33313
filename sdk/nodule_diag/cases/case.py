"""A diagnosed nodule that retrieval compares with, and ``cases.json`` of a bundle, as pydantic models."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nodule_diag.bundle import ShortText, Strict

INDEX_FAULT = "bundle-index-invalid"
"""Error code of a case base that contradicts itself or its indexes."""
NO_CASES = "bundle-no-cases"
"""Error code of an empty case base."""


class Case(Strict):
    """A nodule with a diagnosis, and what the bundle's model says about it.

    Attributes:
        case_id: Unique identifier.
        patient_id: Whose nodule it is.
        label: 0 benign, 1 malignant.
        label_source: How it was diagnosed.
        label_certainty: Whether the diagnosis is of this nodule, or of its patient and taken over.
        malignancy: The model's P.
        expert_score: The model's score, 1..5.
        reader_scores: The readers' own malignancy scores, 1..5; may be empty.
        diameter_mm: Its diameter, mm; None when unknown.
    """

    case_id: ShortText
    patient_id: ShortText
    label: Literal[0, 1]
    label_source: ShortText
    label_certainty: Literal["nodule", "patient"]
    malignancy: Annotated[float, Field(ge=0.0, le=1.0)]
    expert_score: Annotated[float, Field(ge=1.0, le=5.0)]
    reader_scores: tuple[Annotated[float, Field(ge=1.0, le=5.0)], ...] = ()
    diameter_mm: Annotated[float, Field(gt=0.0)] | None = None


class CaseBase(Strict):
    """The document in ``cases.json``: all cases, in the order of their ids."""

    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _sorted_and_unique(self) -> Self:
        for first, second in pairwise(self.cases):
            if first.case_id >= second.case_id:
                fault = "appears twice" if first.case_id == second.case_id else "comes before its turn"
                raise ValueError(f"case_id {second.case_id!r} {fault}; cases stand in the order of their ids")
        return self
