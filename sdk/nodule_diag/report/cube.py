"""The nodule's surroundings on an even grid: the pictures show planes of it, and the viewer scrolls through it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing import LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU, PATCH_SPACING_MM, bspline_matrix, resample
from nodule_diag.results import HALF_EDGE_MM, Diagnosis

SIZE = 80
"""Voxels along an edge."""
STEP_MM = 0.6
"""Their spacing: 48 mm in all, half again as much as the network sees, at about the sampling of a chest CT."""
SHOWN_HU = (-1000.0, 500.0)
"""HU that become 0 and 255: both windows of the paper, in steps of 6 HU."""
OUTSIDE_HU = -1000.0
"""What is shown outside the volume."""
HEAT = (
    (0.0, (66, 10, 104)),
    (0.35, (147, 38, 103)),
    (0.6, (221, 81, 58)),
    (0.8, (252, 165, 10)),
    (1.0, (252, 255, 164)),
)
"""The CAM's colours, dark to bright, so that they can be distinguished without hue."""
HEAT_OPACITY = 0.8
"""How much of the CT is covered where the CAM is 1; where the CAM is 0, nothing is covered."""


@dataclass(frozen=True, eq=False)
class Cube:
    """CT, CAM and nodule round a position, each on the axes of the CT.

    Attributes:
        hu: (80, 80, 80) float32, zyx, HU. Voxel ``i`` of an axis lies at the position plus ``(i - 39.5) * 0.6`` mm.
        diagnosis: The nodule's, which holds CAM and segmentation.
    """

    hu: NDArray[np.float32]
    diagnosis: Diagnosis

    @classmethod
    def of(cls, ct: CTVolume, diagnosis: Diagnosis) -> Cube:
        """Interpolate the CT round a nodule with the spline that the network's input is made with."""
        centre_zyx = index_from_lps(ct, np.asarray([diagnosis.xyz_lps_mm]))[0][::-1]
        matrices: list[NDArray[np.float32]] = []
        box: list[slice] = []
        inside: list[NDArray[np.bool_]] = []
        for size, at, spacing in zip(ct.hu.shape, centre_zyx, ct.spacing_zyx_mm, strict=True):
            matrix = bspline_matrix(size, at + offsets_mm() / spacing)
            used = np.flatnonzero(matrix.any(axis=0))
            part = slice(int(used[0]), int(used[-1]) + 1)
            matrices.append(np.ascontiguousarray(matrix[:, part]))
            box.append(part)
            inside.append(np.asarray(matrix.any(axis=1)))
        along_z, along_y, along_x = matrices
        hu = resample(ct.hu[tuple(box)].astype(np.float32)[None], (along_z, along_y, along_x))[0]
        z, y, x = inside
        hu[~(z[:, None, None] & y[:, None] & x)] = OUTSIDE_HU
        return cls(hu, diagnosis)

    @cached_property
    def cam(self) -> NDArray[np.float32]:
        """(80, 80, 80) the CAM on the same grid, 0..1; 0 beyond the 32 mm that the network sees."""
        cam, offsets = self.diagnosis.cam, offsets_mm()
        last = len(cam.values) - 1
        at = np.clip(offsets / cam.spacing_mm + last / 2, 0, last)  # as `Cam.sample` does, along one axis at a time
        weights = _linear(at, last + 1) * (np.abs(offsets) <= HALF_EDGE_MM)[:, None]
        return np.asarray(resample(cam.values[None], (weights,) * 3)[0], dtype=np.float32)

    @cached_property
    def nodule(self) -> NDArray[np.float32]:
        """(80, 80, 80) how much of each voxel lies in the segmented nodule, 0..1."""
        fine = self.diagnosis.segmentation.nodule
        edge = len(fine)
        at = offsets_mm() / PATCH_SPACING_MM + (edge - 1) / 2  # index of each voxel in the nodule's own 0.5 mm grid
        return np.asarray(resample(fine.astype(np.float32)[None], (_linear(at, edge),) * 3)[0], dtype=np.float32)

    def for_viewer(self) -> dict[str, Any]:
        """What the scripts draw: plain numbers, and bytes in base64, x fastest."""
        cam = self.diagnosis.cam
        return {
            "size": SIZE,
            "stepMm": STEP_MM,
            "centre": list(cam.center_xyz_mm),
            "direction": cam.direction.ravel().tolist(),
            "hu": _base64(as_bytes(self.hu, SHOWN_HU)),
            "huRange": list(SHOWN_HU),
            "cam": _base64(as_bytes(cam.values, (0.0, 1.0))),
            "camStepMm": cam.spacing_mm,
            "noduleBits": _base64(np.packbits(self.diagnosis.segmentation.nodule)),
            "heat": HEAT,
            "heatOpacity": HEAT_OPACITY,
            "windows": {"lung": list(LUNG_WINDOW_HU), "mediastinum": list(MEDIASTINAL_WINDOW_HU)},
        }


def offsets_mm() -> NDArray[np.float64]:
    """(80,) millimetres from the position to each voxel along any axis: -23.7 .. 23.7."""
    return np.asarray((np.arange(SIZE) - (SIZE - 1) / 2) * STEP_MM)


def _linear(at: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """(N, size) how much each of ``size`` samples counts at N places between them; nothing beyond the last."""
    return np.maximum(1.0 - np.abs(at[:, None] - np.arange(size)), 0.0).astype(np.float32)


def as_bytes(values: NDArray[np.floating[Any]], shown: tuple[float, float]) -> NDArray[np.uint8]:
    """Values as 0..255, clipped to the range that is shown."""
    low, high = shown
    return np.asarray(np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0), dtype=np.uint8)


def _base64(values: NDArray[np.uint8]) -> str:
    return b64encode(values.tobytes()).decode("ascii")
