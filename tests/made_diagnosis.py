"""A diagnosis whose every word is the test's."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodule_diag.results.diagnosis import Cam, Diagnosis, Faithfulness, SimilarCase
from nodule_diag.results.identity import BundleIdentity, CaseBaseIdentity, Runtime
from nodule_diag.results.prediction import Prediction
from nodule_diag.results.segmentation import Segmentation
from nodule_diag.results.spaces import SPACES

CENTER = (-31.0, 12.5, -140.0)


def ball(radius_mm: float = 6.0) -> np.ndarray:
    """(16, 16, 16) probability that falls through 0.5 at the ball's surface."""
    axis = (np.arange(16) - 7.5) * 2.0
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return np.clip(0.5 + (radius_mm - distance) / 4.0, 0, 1).astype(np.float32)


def made_diagnosis(**changes: Any) -> Diagnosis:
    similar = (SimilarCase("case", "patient", 0.1, 1, "biopsy", "nodule", 0.7, 3.8, (3.0, 4.0), 9.0),)
    fields: dict[str, Any] = {
        "id": "1",
        "xyz_lps_mm": CENTER,
        "voxel_xyz": (1, 2, 3),
        "in_lung": True,
        "malignancy": 0.71,
        "logit": 0.9,
        "expert_score": 3.9,
        "diagnosis": dict.fromkeys(SPACES, 1.0),
        "diagnosis_balanced": dict.fromkeys(SPACES, None),
        "similar": dict.fromkeys(SPACES, similar),
        "base_rate": 0.8,
        "k": 20,
        "cases": 142,
        "segmentation": Segmentation(ball(), CENTER, np.eye(3)),
        "cam": Cam(ball(), CENTER, np.eye(3)),
        "faithfulness": Faithfulness(0.9, 0.1),
    }
    return Diagnosis(**fields | changes)


def made_prediction(*diagnoses: Diagnosis, name: str = "tiny") -> Prediction:
    return Prediction(
        diagnoses,
        bundle=BundleIdentity(name, "1.0.0", "0" * 64),
        cases=CaseBaseIdentity(name, "0" * 64, 142, 113),
        runtime=Runtime("0.1.0", "onnxruntime", "cpu", "fp32", 2),
        timing_ms={"total": 12.0},
    )
