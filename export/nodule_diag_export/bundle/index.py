"""A bundle's case base: the exported network's answers for every nodule with a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases import Case
from nodule_diag_export.graph import SCORE_MAX, SCORE_MIN
from nodule_diag_export.parity import DiagnosedPatch, OnnxModel

Float = NDArray[np.float32]


def cases_of(model: OnnxModel, patches: Iterable[DiagnosedPatch]) -> list[Case]:
    """Run the network over the patches: the features of eq. 13, and what is known of each nodule."""
    cases = []
    for entry in patches:
        answer = model.run(np.ascontiguousarray(entry.patch[None]))
        cases.append(
            Case(
                case_id=entry.nodule.case_id,
                patient_id=entry.nodule.patient_id,
                label=1 if entry.sure.malignant else 0,
                label_source=entry.sure.method,
                label_certainty=entry.sure.certainty,
                malignancy=float(np.clip(answer["malignancy"][0], 0.0, 1.0)),
                expert_score=float(np.clip(answer["expert_score"][0], SCORE_MIN, SCORE_MAX)),
                reader_scores=tuple(float(score) for score in entry.nodule.reader_scores),
                diameter_mm=None if math.isnan(entry.nodule.diameter_mm) else entry.nodule.diameter_mm,
            )
        )
    return cases
