"""The prediction document, ``nodule-diag/prediction/1``: a prediction as other programs read it."""

from __future__ import annotations

from dataclasses import asdict

from nodule_diag.ct import CTVolume
from nodule_diag.results.diagnosis import Prediction

PREDICTION_SCHEMA = "nodule-diag/prediction/1"


def prediction_document(ct: CTVolume, prediction: Prediction, *, read_ms: float = 0.0) -> dict[str, object]:
    """Write a prediction as the document that other programs read.

    Args:
        ct: The CT; described as its file stores it, which is what ``voxel_xyz`` counts in.
        prediction: The result of :meth:`Diagnoser.predict_timed`.
        read_ms: How long reading the CT took; counted in ``total``.

    Returns:
        A dict of JSON types.
    """
    timing_ms = {"read": read_ms, **prediction.timing_ms, "total": read_ms + prediction.timing_ms["total"]}
    return {
        "schema": PREDICTION_SCHEMA,
        "ct": {
            "path": ct.path,
            "size_xyz": list(ct.stored_size_xyz),
            "spacing_xyz_mm": list(ct.stored_spacing_xyz_mm),
            "orientation": ct.stored_orientation,
            "series_uid": ct.series_uid,
            "warnings": list(ct.warnings),
        },
        "bundle": asdict(prediction.bundle),
        "cases": asdict(prediction.cases),
        "runtime": prediction.runtime.to_dict(),
        "nodules": [diagnosis.to_dict() for diagnosis in prediction.diagnoses],
        "timing_ms": {stage: round(value, 3) for stage, value in timing_ms.items()},
    }
