"""A CT of nobody, for calls whose answer is not wanted."""

from __future__ import annotations

import numpy as np

from nodule_diag.ct.volume import CTVolume

SIZE = 96
"""Voxels of 1 mm along each side: the network's cube of 32 mm and all that its spline reaches."""
AIR_HU, TISSUE_HU = -1000, 40


def made_up_ct() -> CTVolume:
    """(96, 96, 96) int16: a ball of tissue with air inside, centred at 0 mm; what the lung mask takes for a lung."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    hu = np.where((radius > 30) & (radius < 44), TISSUE_HU, AIR_HU).astype(np.int16)
    hu[radius < 30] = -850
    hu[radius < 6] = TISSUE_HU
    return CTVolume.from_array(
        hu, spacing_zyx_mm=(1.0, 1.0, 1.0), origin_xyz_mm=(float(axis[0]),) * 3, path="<made up>"
    )
