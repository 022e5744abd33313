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
    """CAM_c of paper eq. 6, min-max normalised to [0, 1]: the regions that the malignancy comes from.

    Eq. 6 reverses the map's sign for a benign answer, and the normalisation removes its scale. So the map keeps the
    shape of the CAM of eq. 5, but not its values. :attr:`Diagnosis.raw_cam` has these, where the bundle gives them.
    """


class SimilarCase(NamedTuple):
    """A diagnosed nodule of the case base that is like the new nodule in the model's view.

    A named tuple, because a search makes twenty of them in a tenth of a millisecond.

    Attributes:
        case_id: The case's identifier.
        patient_id: The patient's identifier.
        distance: Euclidean distance in the feature space (paper eq. 13).
        label: 0 benign, 1 malignant.
        label_source: How the diagnosis was made (biopsy, follow-up, ...).
        label_certainty: Whether the diagnosis was of this nodule or of its patient.
        malignancy: The model's probability for this nodule.
        expert_score: The model's score for this nodule, 1..5.
        reader_scores: The readers' own scores, 1..5.
        diameter_mm: The nodule's diameter; None when unknown.
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
            The two means. A mean whose weights are all exactly 0 is 0.
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
        id: The caller's name for the nodule.
        xyz_lps_mm: The position that was used, LPS mm.
        voxel_xyz: The nearest voxel of the file as stored, x, y, z.
        in_lung: Whether the position lies in the lung mask; None where the lungs were not checked, or are cut by an
            edge of the slices.
        malignancy: CNet's probability P if benign and malignant are equally likely; with ``prevalence`` set, for that
            share of malignant nodules. P is calibrated where the bundle has a calibration; ``logit`` never is.
        logit: S of paper eq. 4, CNet's output before the sigmoid: the mean of the CAM of eq. 5. It is not the mean of
            :attr:`cam`, whose sign and scale eq. 6 changes. The prevalence does not change S.
        expert_score: RNet's score on the readers' scale, 1..5.
        diagnosis: Mean label of the K nearest cases in each feature space (eq. 14), found by the raw P.
        diagnosis_balanced: The same, as if half of the case base were benign; None where it has one kind of case only.
        similar: The K nearest cases in each feature space, nearest first.
        base_rate: Share of malignant cases among those searched; compare ``diagnosis`` with this share.
        k: How many cases were asked for.
        cases: How many cases were searched.
        segmentation: SegNet's map, with the nodule's volume and diameter.
        cam: The class activation map.
        faithfulness: CAM over the nodule and over the background.
        prevalence: The share of malignant nodules that ``malignancy`` assumes; None for one half, as in training.
        calibrated: Whether ``malignancy`` is calibrated on diagnoses (:class:`nodule_diag.results.Calibration`).
        malignancy_spread: Standard deviation of P over the symmetries, before any prevalence; None for one view.
        presence: Probability that there is a nodule at all, 0..1; None for a bundle without the numbers for it.
        feature_distance: Distance of the network's features from the features of its training; 99 % of nodules are
            below 1. None for a bundle without the numbers for it.
        raw_cam: (16, 16, 16) float32, zyx, the CAM of eq. 5, whose mean is ``logit``; None for a network without this
            output, such as the packaged one. ``cam`` and ``logit`` do not determine its scale.
        ct_planes: (3, 64, 64) uint8, 12 kB: the lung window of the network's input, axial, coronal and sagittal
            through the position, 0.5 mm a pixel; for the notebook's picture.
        warnings: What to keep in mind about this result, in sentences.
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
        """One entry of the prediction document's ``nodules``, without the maps, which are written as NIfTI files."""
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
