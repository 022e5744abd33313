"""The nodule as a picture: three planes of the CT, its outline and the CAM."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import PATCH_SIZE, bspline_matrix, resample
from nodule_diag.results.maps import CubeMap
from nodule_diag.results.png import png_bytes
from nodule_diag.results.segmentation import Segmentation, upsampling_matrix

PLANES = ("axial", "coronal", "sagittal")
"""As radiologists hang them: the patient's right on the left, anterior on top or on the left, superior on top."""
SCALE = 3  # screen pixels of a 0.5 mm voxel
GAP = 4  # white pixels between two panels
OUTLINE = (255, 220, 0)
HEAT = 0.6  # how much the CAM's colour covers the CT where the CAM is 1


def three_planes(cube_zyx: NDArray[np.generic]) -> NDArray[np.generic]:
    """(3, n, n): axial, coronal and sagittal through the middle of an (n, n, n) cube, as :data:`PLANES` says."""
    middle = len(cube_zyx) // 2
    return np.stack([cube_zyx[middle], cube_zyx[::-1, middle], cube_zyx[::-1, :, middle]])


def ct_planes(patch: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The planes of a network's input, as :attr:`Diagnosis.ct_planes` keeps them.

    Args:
        patch: (2, 64, 64, 64) float32; channel 0 is the lung window in [0, 1].

    Returns:
        (3, 64, 64) uint8, 0 at -1000 HU and 255 at 400 HU.
    """
    return np.rint(three_planes(patch[0]).clip(0.0, 1.0) * 255.0).astype(np.uint8)


def nodule_png(planes: NDArray[np.uint8] | None, *, cam: CubeMap, segmentation: Segmentation) -> bytes:
    """:func:`nodule_picture` as a PNG file."""
    return png_bytes(nodule_picture(planes, cam=cam, segmentation=segmentation))


def nodule_picture(planes: NDArray[np.uint8] | None, *, cam: CubeMap, segmentation: Segmentation) -> NDArray[np.uint8]:
    """Two rows: the CT with the nodule's outline, and the same under the CAM, yellow where the CAM is strong.

    Args:
        planes: (3, 64, 64) uint8 of :func:`ct_planes`; None gives black planes.
        cam: The CAM.
        segmentation: SegNet's map, whose ``nodule`` is outlined.

    Returns:
        (388, 584, 3) red, green, blue.
    """
    grey = np.zeros((3, PATCH_SIZE, PATCH_SIZE)) if planes is None else planes / 255.0
    fine = upsampling_matrix()
    weights = three_planes(resample(cam.values[None], (fine, fine, fine))[0])
    nodule = three_planes(segmentation.nodule).astype(np.float64)
    panels = [_panel(*layers) for layers in zip(grey, weights, nodule, strict=True)]
    return _framed([_framed([pair[row] for pair in panels], axis=1) for row in (0, 1)], axis=0)


@cache
def _enlarging() -> NDArray[np.float32]:
    """(192, 64) spline from the voxels to the screen's pixels."""
    return bspline_matrix(PATCH_SIZE, (np.arange(PATCH_SIZE * SCALE) + 0.5) / SCALE - 0.5)


def _panel(
    grey: NDArray[np.float64], weight: NDArray[np.float64], nodule: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One plane twice, (192, 192, 3): without and with the CAM."""
    enlarge = _enlarging()
    ct, cam, inside = (np.clip(enlarge @ layer @ enlarge.T, 0.0, 1.0) for layer in (grey, weight, nodule))
    mask = inside >= 0.5
    core = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            core &= np.roll(mask, step, axis)
    shown = np.repeat(ct[..., None] * 255.0, 3, axis=2)
    heat = np.stack([np.full_like(cam, 255.0), cam * 255.0, np.zeros_like(cam)], axis=2)
    cover = HEAT * cam[..., None]
    pair = []
    for image in (shown, shown * (1.0 - cover) + heat * cover):
        image[mask & ~core] = OUTLINE
        pair.append(np.rint(image).astype(np.uint8))
    return pair[0], pair[1]


def _framed(images: list[NDArray[np.uint8]], *, axis: int) -> NDArray[np.uint8]:
    """Images beside or below each other, with a gap between them."""
    shape = list(images[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, dtype=np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=axis)
