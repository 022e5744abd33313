"""A diagnosis and its parts: frozen, each able to write its part of the prediction document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodule_diag.results.maps import CubeMap
from nodule_diag.results.picture import nodule_png
from nodule_diag.results.rows import nodule_html
from nodule_diag.results.segmentation import Segmentation
from nodule_diag.results.spaces import Space


@dataclass(frozen=True, eq=False, repr=False)
class Cam(CubeMap):
    """CAM_c of paper eq. 6, min-max normalised to [0, 1]: where the malignancy came from.

    Eq. 6 turns the map over for a benign answer, and the normalisation loses its scale: of the CAM of eq. 5 it
    keeps the shape, not the values. Those are in :attr:`Diagnosis.raw_cam`, where the bundle gives them.
    """


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

    def __repr__(self) -> str:
        kind = "malignant" if self.label else "benign"
        return f"SimilarCase({shortened(self.case_id)}, {kind}, distance {self.distance:.3f})"

    def to_dict(self) -> dict[str, object]:
        """One entry of the prediction document's ``similar``."""
        return {**self._asdict(), "reader_scores": list(self.reader_scores)}


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"Faithfulness(nodule {self.cam_nodule:.2f}, background {self.cam_background:.2f})"

    def to_dict(self) -> dict[str, float]:
        """The prediction document's ``faithfulness``."""
        return {"cam_nodule": self.cam_nodule, "cam_background": self.cam_background, "margin": self.margin}


def _weighted_mean(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    mean = float((values * weights).sum() / total) if total > 0.0 else 0.0
    return min(max(mean, 0.0), 1.0)  # rounding may leave [0, 1] by an ulp


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What the model and the case base say about one nodule.

    Attributes:
        id: The caller's name for it.
        xyz_lps_mm: The position that was used, LPS mm.
        voxel_xyz: The nearest voxel of the file as stored, x, y, z.
        in_lung: Whether the position lies in the lung mask; None where that was not to be checked.
        malignancy: CNet's probability P, for benign and malignant equally likely; with ``prevalence`` set, for that
            share of malignant nodules. Calibrated where the bundle says how; ``logit`` is not.
        logit: S of paper eq. 4, CNet's output before the sigmoid: the mean of the CAM of eq. 5, which is not
            :attr:`cam` (that one is turned over and rescaled by eq. 6). No prevalence moves it.
        expert_score: RNet's score on the readers' scale, 1..5.
        diagnosis: Mean label of the K nearest cases in each feature space (eq. 14), found by the raw P.
        diagnosis_balanced: The same for a case base with as many benign as malignant cases; None where it has one kind.
        similar: Those cases, nearest first.
        base_rate: Share of malignant cases in the case base: what ``diagnosis`` must be read against.
        k: How many cases were asked for.
        cases: How many the case base holds.
        segmentation: SegNet's map and what it measures.
        cam: The class activation map.
        faithfulness: CAM over the nodule and over the background.
        prevalence: The share of malignant nodules that ``malignancy`` is for; None for one half, as in training.
        calibrated: Whether ``malignancy`` was held against diagnoses (:class:`nodule_diag.results.Calibration`).
        malignancy_spread: Standard deviation of P over the symmetries, before any prevalence; None for one view.
        presence: How likely there is a nodule at all, 0..1; None for a bundle that was not trained to tell.
        feature_distance: How far the network's features are from those of its training: 99 % of nodules are below 1;
            None for a bundle that cannot tell.
        raw_cam: (16, 16, 16) float32, zyx, the CAM of eq. 5, whose mean is ``logit``; None for a bundle whose network
            has no such output. The packaged one has none, and ``cam`` and ``logit`` leave its scale open.
        ct_planes: (3, 64, 64) uint8, 12 kB: the lung window of the network's input, axial, coronal and sagittal
            through the position, 0.5 mm a pixel; for the notebook's picture.
        warnings: What to keep in mind, in sentences.
    """

    id: str
    xyz_lps_mm: tuple[float, float, float]
    voxel_xyz: tuple[int, int, int]
    in_lung: bool | None
    malignancy: float
    logit: float
    expert_score: float
    diagnosis: Mapping[Space, float]
    diagnosis_balanced: Mapping[Space, float | None]
    similar: Mapping[Space, tuple[SimilarCase, ...]]
    base_rate: float
    k: int
    cases: int
    segmentation: Segmentation
    cam: Cam
    faithfulness: Faithfulness
    prevalence: float | None = None
    calibrated: bool = False
    malignancy_spread: float | None = None
    presence: float | None = None
    feature_distance: float | None = None
    raw_cam: NDArray[np.float32] | None = None
    ct_planes: NDArray[np.uint8] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def malignant_share(self) -> Mapping[Space, float]:
        """Share of malignant cases among the K nearest in each feature space: :attr:`diagnosis` by a plainer name."""
        return self.diagnosis

    def __repr__(self) -> str:
        place = ", ".join(f"{value:.2f}" for value in self.xyz_lps_mm)
        count = len(self.warnings)
        warnings = f"{count or 'no'} warning{'s' if count != 1 else ''}"
        return (
            f"Diagnosis({shortened(self.id)} at LPS {place} mm: malignancy {self.malignancy:.2f},"
            f" expert score {self.expert_score:.1f}, diameter {self.segmentation.diameter_mm:.1f} mm,"
            f" {warnings})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures, the warnings and the three planes."""
        png = nodule_png(self.ct_planes, cam=self.cam, segmentation=self.segmentation)
        return nodule_html(self.to_dict(), png=png, prevalence=self.prevalence)

    def to_dict(self) -> dict[str, Any]:
        """One entry of the prediction document's ``nodules``; the maps are left to NIfTI files."""
        return {
            "id": self.id,
            "xyz_lps_mm": list(self.xyz_lps_mm),
            "voxel_xyz": list(self.voxel_xyz),
            "in_lung": self.in_lung,
            "presence": self.presence,
            "feature_distance": self.feature_distance,
            "malignancy": self.malignancy,
            "calibrated": self.calibrated,
            "logit": self.logit,
            "malignancy_spread": self.malignancy_spread,
            "expert_score": self.expert_score,
            "diagnosis": dict(self.diagnosis),
            "diagnosis_balanced": dict(self.diagnosis_balanced),
            "base_rate": self.base_rate,
            "retrieval": {"k": self.k, "cases": self.cases},
            "similar": {space: [case.to_dict() for case in cases] for space, cases in self.similar.items()},
            "segmentation": self.segmentation.to_dict(),
            "faithfulness": self.faithfulness.to_dict(),
            "warnings": list(self.warnings),
        }
