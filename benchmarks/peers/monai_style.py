"""What a practitioner would write with MONAI's transforms, in two variants.

``monai`` resamples the CT to 0.5 mm, as MONAI's tutorials do before they crop; ``monai-crop-first`` cuts a region
around the nodule out of the CT and resamples only this region. The faster choice was always taken: linear interpolation
(Spacing's default) in float32 (its default is float64); windows after the crop; a lung mask of threshold, components
and filled holes, without morphology. The crop lies on whole voxels. The patch is not masked, as in the packaged bundle.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    LoadImage,
    Orientation,
    ScaleIntensityRange,
    Spacing,
    SpatialCrop,
    SpatialPad,
    Transpose,
)
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.peers.answer import Answer, TorchTail
from benchmarks.subject import Point, Subject
from nodule_diag.preprocessing import LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU, PATCH_SIZE, PATCH_SPACING_MM

AIR_BELOW_HU = -320.0
"""The usual threshold of lung-mask tutorials."""
AIR_HU = -1024.0
LUNGS = 2
REGION_MM = 40.0
"""Side of the region that is cut out first: the 32 mm cube and a margin for the interpolation."""
FLOATS_A_VOXEL = 6
"""float32 numbers that Spacing holds at once for each voxel of the resampled CT: three of a grid, the image, copies."""


@dataclass(frozen=True, eq=False)
class MonaiStyle:
    """From file to answer with MONAI.

    Attributes:
        subject: The CT.
        tail: Network and retrieval.
        crop_first: Whether only a region is resampled.
    """

    subject: Subject
    tail: TorchTail
    crop_first: bool = False

    @property
    def name(self) -> str:
        """Name in results."""
        return "monai-crop-first" if self.crop_first else "monai"

    def __call__(self) -> Answer:
        """Read, mask, resample, cut out, run, compare."""
        image = _reader()(self.subject.path)
        lungs = lung_mask(image[0].numpy())
        column, line, section = _voxel(image, self.subject.xyz_mm)
        if self.crop_first:
            size = [math.ceil(REGION_MM / spacing) for spacing in image.pixdim.tolist()]
            image = SpatialCrop(roi_center=[column, line, section], roi_size=size)(image)
        fine = Spacing(pixdim=PATCH_SPACING_MM, mode="bilinear", dtype=torch.float32)(image)
        crop = SpatialCrop(roi_center=list(_voxel(fine, self.subject.xyz_mm)), roi_size=PATCH_SIZE)(fine)
        crop = SpatialPad(PATCH_SIZE, value=AIR_HU)(crop)  # at the edge of the CT
        windows = [
            ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(crop)
            for low, high in (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU)
        ]
        patch = Transpose((0, 3, 2, 1))(torch.cat(windows))
        return self.tail.answer(
            np.ascontiguousarray(patch.numpy(), dtype=np.float32), in_lung=bool(lungs[column, line, section])
        )


@cache
def _reader() -> Any:  # noqa: ANN401 - MONAI's Compose
    with warnings.catch_warnings():
        # LoadImage tries every reader that MONAI knows, and says which are missing.
        warnings.simplefilter("ignore")
        load = LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True)
    return Compose([load, Orientation("LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))])


def lung_mask(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Air inside the body: threshold, remove what touches the sides, keep the two largest pieces, fill their holes.

    Args:
        hu: (x, y, z) HU.

    Returns:
        (x, y, z) bool.
    """
    count: int
    labels: NDArray[np.int32]
    labels, count = ndimage.label(hu < AIR_BELOW_HU)
    sides = np.concatenate([part.ravel() for part in (labels[0], labels[-1], labels[:, 0], labels[:, -1])])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[np.unique(sides)] = 0
    sizes[0] = 0
    lungs: NDArray[np.bool_] = np.isin(labels, np.argsort(sizes)[-LUNGS:]) & (sizes[labels] > 0)
    for section in range(lungs.shape[2]):
        lungs[:, :, section] = ndimage.binary_fill_holes(lungs[:, :, section])
    return lungs


def bytes_needed(subject_size_xyz: tuple[int, int, int], spacing_xyz_mm: tuple[float, float, float]) -> float:
    """The memory that resampling the whole CT takes."""
    voxels = math.prod(
        size * spacing / PATCH_SPACING_MM for size, spacing in zip(subject_size_xyz, spacing_xyz_mm, strict=True)
    )
    return FLOATS_A_VOXEL * 4 * voxels


def _voxel(image: Any, xyz_mm: Point) -> tuple[int, int, int]:  # noqa: ANN401 - MONAI's MetaTensor
    """The nearest voxel x, y, z of a point in LPS mm; MONAI's affine is in RAS."""
    ras = np.array([-xyz_mm[0], -xyz_mm[1], xyz_mm[2], 1.0])
    column, line, section = np.rint(np.linalg.solve(np.asarray(image.affine, dtype=np.float64), ras)[:3]).astype(int)
    return int(column), int(line), int(section)
