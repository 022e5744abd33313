"""``cases.json`` of a bundle: the diagnosed nodules that retrieval compares with, as pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from nodule_diag.errors import BundleError
from nodule_diag.manifest import ShortText, Strict

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
    """All cases, in the order of their ids: a case's row is its label in the indexes and settles ties."""

    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _sorted_and_unique(self) -> Self:
        for first, second in pairwise(self.cases):
            if first.case_id >= second.case_id:
                fault = "appears twice" if first.case_id == second.case_id else "comes before its turn"
                raise ValueError(f"case_id {second.case_id!r} {fault}; cases stand in the order of their ids")
        return self

    @property
    def base_rate(self) -> float:
        """Share of malignant cases."""
        return sum(case.label for case in self.cases) / len(self.cases)

    @classmethod
    def of(cls, cases: Sequence[Case]) -> CaseBase:
        """Sort and check cases.

        Raises:
            BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``.
        """
        try:
            base = cls(cases=tuple(sorted(cases, key=lambda case: case.case_id)))
        except ValidationError as error:
            raise _invalid("the case base", error) from error
        return _require_cases(base, "the case base")

    def to_json(self) -> bytes:
        """The bytes of ``cases.json``."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_cases(text: bytes, *, name: str) -> CaseBase:
    """Read ``cases.json``.

    Args:
        text: Its bytes, whose hash was checked.
        name: Its path in the bundle, for messages.

    Raises:
        BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``.
    """
    try:
        base = CaseBase.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(name, error) from error
    return _require_cases(base, name)


def _require_cases(base: CaseBase, name: str) -> CaseBase:
    if not base.cases:
        raise BundleError(
            f"{name} holds no cases, so there is nothing to retrieve from",
            hint="build the index of the bundle from at least one diagnosed nodule",
            code=NO_CASES,
        )
    return base


def _invalid(name: str, error: ValidationError) -> BundleError:
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "its top"
    return BundleError(
        f"{name} is invalid at {where}: {fault['msg']}", hint="build the index of the bundle again", code=INDEX_FAULT
    )
