"""The input modalities of Table 5 (5.3, Fig. 7): how much of the nodule's surroundings the network sees.

``64`` is the patch as it is. ``x`` is the nodule's own cube, cropped by position and size, so its size varies with
the nodule's. ``x-resize-64`` is that cube enlarged to the patch's size by cubic interpolation, and ``x-padding-64``
the same cube in a patch that is 0 elsewhere. The reader mask follows its patch. The paper leaves these points open:

* The cube's side is the nodule's volume-equivalent diameter, rounded up to a multiple of 4 voxels of 0.5 mm, since the
  network's grid has cells of 4. The side is at least 8 (4 mm): on a grid of one cell every normalised map would be
  flat. Parts of an elongated nodule beyond its mean diameter are cut off.
* At a training stage below 64, "64" stands for the stage's size, which is also the largest cube.
* The cube is centred on the nodule: ``draws`` leaves out the random offset, which would push small nodules out.
* 0 is the lower end of both windows, -1000 and -160 HU: padding looks like air.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import PATCH_SPACING_MM, bspline_matrix, resample
from nodule_diag_training.model import GRID_STRIDE

from .nodule import TrainingDataError
from .patches import Sample
from .voxels import linear_matrix

if TYPE_CHECKING:
    from nodule_diag_training.config import Modality

MINIMUM_SIDE = 2 * GRID_STRIDE
"""Smallest cube in voxels: a grid of two cells."""


def cube_side(diameter_mm: float, *, size: int) -> int:
    """Side in voxels of the cube of a nodule, for patches of ``size``.

    Raises:
        TrainingDataError: If the diameter is not above 0, or nobody measured it.
    """
    if not diameter_mm > 0.0:
        raise TrainingDataError(
            f"a nodule's diameter is above 0, not {diameter_mm} mm",
            hint="leave nodules without a size out of runs whose input is not '64'",
        )
    cells = int(np.ceil(diameter_mm / PATCH_SPACING_MM / GRID_STRIDE))
    return min(max(cells * GRID_STRIDE, MINIMUM_SIDE), size)


def as_input(
    sample: Sample, modality: Modality, *, diameter_mm: float, center: Sequence[float] | None = None
) -> Sample:
    """A patch as a modality shows it.

    Args:
        sample: [2, S, S, S] and its mask.
        modality: A modality of Table 5; ``64`` gives the sample itself.
        diameter_mm: The nodule's diameter.
        center: The nodule's centre, in voxels of the patch, zyx; the patch's centre when left out. A cube that would
            reach beyond the patch is moved inside.

    Returns:
        Patch and mask: of side ``cube_side`` for ``x``, of side S for the others.
    """
    if modality == "64":
        return sample
    size = sample.patch.shape[-1]
    side = cube_side(diameter_mm, size=size)
    middle = ((size - 1) / 2,) * 3 if center is None else tuple(center)
    z, y, x = (slice(start, start + side) for start in (_start(c, side, size) for c in middle))
    if modality == "x-padding-64":
        patch, occupancy = np.zeros_like(sample.patch), np.zeros_like(sample.occupancy)
        patch[:, z, y, x] = sample.patch[:, z, y, x]
        occupancy[z, y, x] = sample.occupancy[z, y, x]
        return Sample(patch=patch, occupancy=occupancy, spacing_mm=sample.spacing_mm)
    cube = Sample(
        patch=np.ascontiguousarray(sample.patch[:, z, y, x]),
        occupancy=np.ascontiguousarray(sample.occupancy[z, y, x]),
        spacing_mm=sample.spacing_mm,
    )
    return cube if modality == "x" else _resized(cube, size)


def _start(center: float, side: int, size: int) -> int:
    return min(max(round(center - (side - 1) / 2), 0), size - side)


def _resized(cube: Sample, size: int) -> Sample:
    """The cube enlarged to ``size`` with aligned faces: the outer half voxels lie beyond the outer samples."""
    side = cube.patch.shape[-1]
    positions: NDArray[np.float64] = (np.arange(size) + 0.5) * side / size - 0.5
    cubic = bspline_matrix(side, positions)
    linear = linear_matrix(side, np.clip(positions, 0.0, side - 1.0))  # a mask must not overshoot
    return Sample(
        patch=resample(cube.patch, (cubic, cubic, cubic)),
        occupancy=resample(cube.occupancy[None], (linear, linear, linear))[0],
        spacing_mm=cube.spacing_mm * side / size,
    )
