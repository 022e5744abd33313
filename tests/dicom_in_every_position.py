"""A CT in DICOM, in every way that a patient can lie in a scanner, and a prediction of two nodules in it."""

from __future__ import annotations

from typing import Any

import numpy as np

import ct_files as make
from dicom_exports import exported, upright
from made_diagnosis import ball, made_diagnosis, made_prediction
from nodule_diag.ct.volume import CTVolume
from nodule_diag.results.diagnosis import Cam, Diagnosis
from nodule_diag.results.prediction import Prediction
from nodule_diag.results.segmentation import Segmentation

TILT = np.radians(20)
LYING = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "feet first": ((-1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "oblique": ((np.cos(TILT), np.sin(TILT), 0), (-np.sin(TILT) * np.cos(TILT), np.cos(TILT) ** 2, np.sin(TILT))),
}
"""Row and column direction of each."""
SHAPE_ZYX, SPACING_XYZ = (40, 64, 60), (0.9, 1.1, 1.5)


def series(lying: str = "axial", **changes: Any) -> list[Any]:
    row, column = LYING[lying]
    return make.dicom_slices(make.chest_hu(SHAPE_ZYX), spacing=SPACING_XYZ, row=row, column=column, **changes)


def tilted_gantry(angle_deg: float) -> tuple[list[Any], tuple[float, float, float]]:
    """60 planes turned about the left-right axis and stacked along z; a position on plane 30, far down its columns."""
    turn = np.radians(angle_deg)
    column = np.array([0.0, np.cos(turn), np.sin(turn)])
    positions = upright(-200 + 2.5 * np.arange(60))
    x, y, z = (positions[30] + 1.5 * (12 * np.array([1.0, 0.0, 0.0]) + 192 * column)).tolist()
    return exported(positions, column=column.tolist(), pixels=(256, 24), spacing=(1.5, 1.5)), (x, y, z)


def round_nodule(
    ct: CTVolume, center_xyz_mm: tuple[float, float, float], radius_mm: float = 6.0, *, id: str = "1"
) -> Diagnosis:
    """A ball that was segmented."""
    segmentation = Segmentation(ball(radius_mm), center_xyz_mm, ct.direction)
    cam = Cam(ball(radius_mm), center_xyz_mm, ct.direction)
    return made_diagnosis(id=id, xyz_lps_mm=center_xyz_mm, segmentation=segmentation, cam=cam)


def predicted(ct: CTVolume, *, count: int = 2) -> Prediction:
    """Balls in the middle and beside it; the CAM is larger than the nodule and lopsided, so that a flip would show."""
    size = np.array(ct.size_xyz)
    diagnoses = []
    for number in range(count):
        index = (size - 1) / 2 + np.array([3.3, -2.7, 1.6]) * number * 2
        center = np.array(ct.origin_xyz_mm) + ct.direction @ (index * np.array(ct.spacing_xyz_mm))
        where = (float(center[0]), float(center[1]), float(center[2]))
        lopsided = ball(8.0) * (np.arange(16) + 5)[:, None, None] * (np.arange(16) + 9) / 500
        diagnoses.append(
            made_diagnosis(
                id=f"n{number}",
                xyz_lps_mm=where,
                segmentation=Segmentation(ball(7.0 - number), where, ct.direction),
                cam=Cam(lopsided.astype(np.float32), where, ct.direction),
            )
        )
    return made_prediction(*diagnoses)
