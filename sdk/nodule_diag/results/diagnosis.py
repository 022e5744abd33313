"""What a prediction is: frozen results, each able to write its part of the prediction document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodule_diag.results.maps import CubeMap
from nodule_diag.results.segmentation import Segmentation
from nodule_diag.results.spaces import Space

__all__ = ["Cam", "Diagnosis", "Faithfulness", "Prediction", "Runtime", "Segmentation", "SimilarCase"]


@dataclass(frozen=True, eq=False)
class Cam(CubeMap):
    """CAM_c of paper eq. 6, min-max normalised to [0, 1]: where the malignancy came from."""


class SimilarCase(NamedTuple):
    """A diagnosed nodule of the case base, as near to the new one as the model sees it.

    A named tuple: a search makes twenty of them in a tenth of a millisecond.

    Attributes:
        case_id: Its identifier.
        patient_id: Whose it is.
        distance: Euclidean distance in the feature space (paper eq. 13).
        label: 0 benign, 1 malignant.
        label_source: How that was found out (biopsy, follow-up, ...).
        label_certainty: Whether the diagnosis was of this nodule or of its patient.
        malignancy: The model's probability for it.
        expert_score: The model's score for it, 1..5.
        reader_scores: The readers' own scores, 1..5.
        diameter_mm: Its diameter; None when unknown.
    """

    case_id: str
    patient_id: str
    distance: float
    label: Literal[0, 1]
    label_source: str
    label_certainty: Literal["nodule", "patient"]
    malignancy: float
    expert_score: float
    reader_scores: tuple[float, ...]
    diameter_mm: float | None

    def to_dict(self) -> dict[str, object]:
        """One entry of the prediction document's ``similar``."""
        return {**self._asdict(), "reader_scores": list(self.reader_scores)}


@dataclass(frozen=True)
class Faithfulness:
    """How much of the CAM lies on the nodule (paper eq. 8, 9).

    Attributes:
        cam_nodule: AvgCAM_ndl, the CAM's mean weighted by the segmentation.
        cam_background: AvgCAM_bkg, its mean weighted by one minus the segmentation.
    """

    cam_nodule: float
    cam_background: float

    @property
    def margin(self) -> float:
        """AvgCAM_ndl - AvgCAM_bkg, in [-1, 1]; training asked for at least delta (eq. 10)."""
        return self.cam_nodule - self.cam_background

    @classmethod
    def of(cls, cam: NDArray[np.float32], segmentation: NDArray[np.float32]) -> Faithfulness:
        """Eq. 8 and 9 with SEM = the segmentation probabilities.

        Args:
            cam: (16, 16, 16) in [0, 1].
            segmentation: (16, 16, 16) in [0, 1].

        Returns:
            The two means. One whose weights are all exactly 0 is 0: there is nothing to average.
        """
        weights = segmentation.astype(np.float64)
        return cls(_weighted_mean(cam, weights), _weighted_mean(cam, 1.0 - weights))

    def to_dict(self) -> dict[str, float]:
        """The prediction document's ``faithfulness``."""
        return {"cam_nodule": self.cam_nodule, "cam_background": self.cam_background, "margin": self.margin}


def _weighted_mean(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    mean = float((values * weights).sum() / total) if total > 0.0 else 0.0
    return min(max(mean, 0.0), 1.0)  # rounding may leave [0, 1] by an ulp


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the model and the case base say about one nodule.

    Attributes:
        id: The caller's name for it.
        xyz_lps_mm: The position that was used, LPS mm.
        voxel_xyz: The nearest voxel of the file as stored, x, y, z.
        in_lung: Whether the position lies in the lung mask.
        malignancy: CNet's probability P.
        logit: CNet's output before the sigmoid, S of paper eq. 4: the mean of the CAM of eq. 5.
        expert_score: RNet's score on the readers' scale, 1..5.
        diagnosis: Mean label of the K nearest cases in each feature space (eq. 14).
        similar: Those cases, nearest first.
        base_rate: Share of malignant cases in the case base: what ``diagnosis`` must be read against.
        k: How many cases were asked for.
        cases: How many the case base holds.
        segmentation: SegNet's map and what it measures.
        cam: The class activation map.
        faithfulness: CAM over the nodule and over the background.
        warnings: What to keep in mind, in sentences.
    """

    id: str
    xyz_lps_mm: tuple[float, float, float]
    voxel_xyz: tuple[int, int, int]
    in_lung: bool
    malignancy: float
    logit: float
    expert_score: float
    diagnosis: Mapping[Space, float]
    similar: Mapping[Space, tuple[SimilarCase, ...]]
    base_rate: float
    k: int
    cases: int
    segmentation: Segmentation
    cam: Cam
    faithfulness: Faithfulness
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """One entry of the prediction document's ``nodules``; the maps are left to NIfTI files."""
        return {
            "id": self.id,
            "xyz_lps_mm": list(self.xyz_lps_mm),
            "voxel_xyz": list(self.voxel_xyz),
            "in_lung": self.in_lung,
            "malignancy": self.malignancy,
            "logit": self.logit,
            "expert_score": self.expert_score,
            "diagnosis": dict(self.diagnosis),
            "base_rate": self.base_rate,
            "retrieval": {"k": self.k, "cases": self.cases},
            "similar": {space: [case.to_dict() for case in cases] for space, cases in self.similar.items()},
            "segmentation": self.segmentation.to_dict(),
            "faithfulness": self.faithfulness.to_dict(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Runtime:
    """What computed a prediction: the choices that ``auto`` made, in words."""

    sdk_version: str
    backend: str
    device: str
    precision: str
    threads: int
    symmetries: int = 1

    def to_dict(self) -> dict[str, object]:
        """The prediction document's ``runtime``."""
        return {
            "sdk_version": self.sdk_version,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "symmetries": self.symmetries,
        }


@dataclass(frozen=True)
class BundleIdentity:
    """Which bundle made a prediction.

    Attributes:
        name: Of the model.
        version: Of the model.
        sha256: Of ``manifest.json``, which lists the hash of every other file.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class CaseBaseIdentity:
    """Which case base a prediction was compared with.

    Attributes:
        name: What it is called.
        sha256: Of its file.
        count: How many cases it holds.
        malignant: How many of them are malignant.
    """

    name: str
    sha256: str
    count: int
    malignant: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """The diagnoses of one call, what made them, and the time that each stage took.

    Attributes:
        diagnoses: One a point, in the caller's order.
        bundle: The bundle.
        cases: The case base.
        runtime: What computed them.
        timing_ms: Wall milliseconds of ``lung_mask``, ``patch``, ``inference``, ``retrieval`` and ``total``.
    """

    diagnoses: tuple[Diagnosis, ...]
    bundle: BundleIdentity
    cases: CaseBaseIdentity
    runtime: Runtime
    timing_ms: Mapping[str, float]
