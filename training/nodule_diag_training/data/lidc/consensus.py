"""The 50 % consensus mask of a LIDC-IDRI nodule on the grid of its CT (4.1, after Kubota 2011)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.regions import NoduleMask

from .cohort import LidcNodule
from .pylidc_database import Annotation

CONSENSUS = 0.5
"""Share of the readers who must have included a voxel: two of three, two of four."""
AXIAL_TOLERANCE = 1e-3
"""Largest deviation of a direction cosine: outlines are given by slice and pixel, so the slices must be axial."""

SLICE_TOLERANCE = 0.1
"""Share of a slice by which an outline may miss its slice: header rounding, not another slice."""


def _filled(
    annotation: Annotation, start_xy: NDArray[np.int64], shape_zyx: tuple[int, int, int], first: int, ct: CTVolume
) -> NDArray[np.bool_]:
    """The voxels that one reader included. LIDC's outlines run just outside the nodule: their pixels do not count."""
    from matplotlib.path import Path as Outline

    mask = np.zeros(shape_zyx, dtype=np.bool_)
    rows, columns = np.indices(shape_zyx[1:])
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    for contour in sorted(annotation.contours, key=lambda c: not c.included):  # holes last: they remove voxels
        slice_index = slice_of(ct, contour.z_mm) - first
        points = contour.points_xy - start_xy
        closed = np.concatenate([points, points[:1]])
        inside = Outline(closed, closed=True).contains_points(pixels).reshape(shape_zyx[1:])
        if contour.included:
            mask[slice_index] |= inside
        else:
            mask[slice_index] &= ~inside
        mask[slice_index, points[:, 1], points[:, 0]] = False
    return mask


def slice_of(ct: CTVolume, z_mm: float) -> int:
    """The canonical index of the slice at a z position.

    Raises:
        TrainingDataError: If the CT has no slice there.
    """
    position = (z_mm - ct.origin_xyz_mm[2]) / ct.spacing_zyx_mm[0]
    index = round(position)
    if abs(position - index) > SLICE_TOLERANCE or not 0 <= index < ct.hu.shape[0]:
        raise TrainingDataError(
            f"a reader's outline lies at z = {z_mm:g} mm, where {ct.path} has no slice",
            hint="download the series again: it seems to be incomplete",
        )
    return index


def consensus_mask(nodule: LidcNodule, ct: CTVolume) -> NoduleMask:
    """The voxels that at least half of the readers included.

    Args:
        nodule: The nodule, outlined in slices and stored pixels.
        ct: The nodule's CT, read from DICOM.

    Raises:
        TrainingDataError: If the slices are not axial, an outline leaves the CT, or no voxel reaches a consensus.
    """
    if tuple(ct.stored_axes) != (0, 1, 2) or np.abs(ct.direction - np.eye(3)).max() > AXIAL_TOLERANCE:
        raise TrainingDataError(f"{ct.path} is not axial: the readers' outlines cannot be laid onto it")
    contours = [contour for annotation in nodule.annotations for contour in annotation.contours]
    points = np.concatenate([contour.points_xy for contour in contours])
    low, high = points.min(axis=0), points.max(axis=0)
    columns, rows = ct.size_xyz[:2]
    if (low < 0).any() or high[0] >= columns or high[1] >= rows:
        raise TrainingDataError(f"{nodule.case_id}: an outline leaves the slices of {ct.path}")
    slices = [slice_of(ct, contour.z_mm) for contour in contours]
    first = min(slices)
    shape = (max(slices) - first + 1, int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1)
    votes = np.mean([_filled(a, low, shape, first, ct) for a in nodule.annotations], axis=0)
    voxels = np.asarray(votes >= CONSENSUS)
    if not voxels.any():
        raise TrainingDataError(f"{nodule.case_id}: no voxel was included by half of the readers")
    x, y = int(low[0]), int(low[1])
    if ct.stored_flips[0]:
        voxels, x = voxels[:, :, ::-1], columns - 1 - int(high[0])
    if ct.stored_flips[1]:
        voxels, y = voxels[:, ::-1], rows - 1 - int(high[1])
    return NoduleMask(voxels=np.ascontiguousarray(voxels), start_zyx=(first, y, x))
