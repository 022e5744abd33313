"""Made-up nodules: balls, alone in noise or in an artificial CT.

They are for answers that are compared or timed, and that nobody reads. ``phantom`` has anatomy, for the demo and for
the lung mask, and takes seconds. This module takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct.volume import CTVolume

SIZE = 96
"""Voxels of 1 mm along each side: the network's cube of 32 mm and all that its spline reaches."""
AIR_HU, TISSUE_HU = -1000, 40


def distance_from_middle(
    shape_zyx: Sequence[int], *, spacing_zyx_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.float64]:
    """``shape_zyx`` float64, mm: the distance of each voxel's centre from the grid's middle; small inside a ball."""
    pairs = zip(shape_zyx, spacing_zyx_mm, strict=True)
    z, y, x = ((np.arange(size) - (size - 1) / 2) * spacing for size, spacing in pairs)
    return np.asarray(np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2))


def ball_in_noise(noise: NDArray[np.float32], *, radius_voxels: float) -> NDArray[np.float32]:
    """A patch like a nodule's: a bright ball in the middle of faint noise.

    Args:
        noise: (..., Z, Y, X) float32 in [0, 1]; it is not changed.
        radius_voxels: The ball's radius.

    Returns:
        The same shape, float32 in [0, 0.9].
    """
    ball = distance_from_middle(noise.shape[-3:]) < radius_voxels
    return np.asarray(0.1 * noise + 0.8 * ball, dtype=np.float32)


def made_up_ct() -> CTVolume:
    """(96, 96, 96) int16: a ball of tissue with air inside, centred at 0 mm. The lung mask takes the air for a lung."""
    radius = distance_from_middle((SIZE, SIZE, SIZE))
    hu = np.where((radius > 30) & (radius < 44), TISSUE_HU, AIR_HU).astype(np.int16)
    hu[radius < 30] = -850
    hu[radius < 6] = TISSUE_HU
    first = -(SIZE - 1) / 2
    return CTVolume.from_array(hu, spacing_zyx_mm=(1.0, 1.0, 1.0), origin_xyz_mm=(first,) * 3, path="<made up>")
