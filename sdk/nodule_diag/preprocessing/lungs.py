"""The lung mask (paper, section 4.2, steps 1 to 7), fast.

Otsu's threshold splits the CT into tissue and air; the largest piece of tissue is the body A; with its holes filled it
is B; C = B - A is the air inside the body; D is C without what is not lung; E is D after a grey closing with a non-flat
element; the mask F is E >= 0.5. All of it runs on a grid of about 2 mm; :mod:`nodule_diag.preprocessing.mask` takes F
from there to the CT's voxels, and :mod:`nodule_diag.preprocessing.reference` does the same on every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import PADDING_FLOOR_HU, CTVolume
from nodule_diag.preprocessing.closing import LEVEL, closing
from nodule_diag.preprocessing.mask import CUT_LUNG, NO_LUNG, THRESHOLD, LungMask

HU = NDArray[np.int16] | NDArray[np.float32]

GRID_MM = 2.0
"""Voxel size the mask is computed at. On two LIDC-IDRI CTs the result's Dice with the full-resolution mask is 0.99 at
2 mm and 0.987 at 3 mm; 1.5 mm takes three times as long for 0.995."""

OTSU_CEILING_HU = 400
"""Brighter voxels count as this in Otsu's histogram: metal and contrast say nothing about tissue against air."""

THRESHOLD_RANGE_HU = (-700.0, -200.0)
"""Step 1: Otsu's threshold is kept in here, between inflated lung and fat. On a chest CT it lies near -470; only
without a body or without air does it lie elsewhere, and it would then split noise."""

SMALLEST_PART = 0.02
"""Step 5 ("denoising", open in the paper): parts of C below this share of the largest part are dropped. Bowel gas, the
slit between skin and table and isolated bronchi are below 0.6 %; a shrunken lung is far above."""

PURE_AIR_HU = -950
"""Up to here a voxel is air rather than parenchyma (the emphysema threshold of quantitative CT)."""

LEAST_PARENCHYMA = 0.2
"""Step 5: a part of C with a smaller share of voxels above :data:`PURE_AIR_HU` is gas (stomach, bowel, the space
between arm and chest), not lung. Normal lungs have 0.97, severe emphysema about 0.5."""

CUT_PARENCHYMA = 0.5
"""Air that reaches the edge of a slice and has at least this share of voxels above :data:`PURE_AIR_HU` is lung that a
small field of view cuts. Room air has a smaller share, also with table and foam in it."""

LEAST_CUT = 0.01
"""From this share of the CT on, cut lung is reported."""

CANVAS_SHARE = 0.1
"""A value that this share of the outermost voxels has, and that is no air, fills a canvas round the CT."""

LEAST_TISSUE = 0.01
"""A CT on a canvas holds at least this share of tissue."""

LEAST_LUNG = 0.005
"""A CT with a smaller share of lung is probably not of a chest. The two LIDC-IDRI CTs have 6 and 9 %, an abdomen whose
bowel is taken for lung some 0.05 %, and the uppermost 3 cm of a chest 0.3 to 0.7 %."""

LOOK_MM, LOOK_NODES = 8.0, 32
"""Grid spacing of the quick check for lung, and the least nodes per axis, which take precedence. On the two CTs the
share of lung is within 5 % of the mask's."""

HALF_FALL_MM = 10.0
"""Step 6 (open in the paper): the element is the paraboloid b(y) = -0.5 (|y| / 10 mm)^2, which has fallen by half the
mask's range at 10 mm. With the threshold 0.5 this bridges gaps up to 20 mm wide and moves a flat pleura outwards by
(sqrt(2) - 1) * 10 = 4.1 mm, so that a 20 mm nodule half sunk into the chest wall is covered to 99 %; 8 mm would cover
70 %. A paraboloid, because the closing is then separable."""


_found: WeakKeyDictionary[CTVolume, tuple[Any, ...]] = WeakKeyDictionary()
"""All of a mask but its CT, which would keep the CT alive."""


def held_lung_mask(ct: CTVolume) -> LungMask:
    """:func:`lung_mask`, found once and remembered as long as the CT exists: 8 MB for a whole chest.

    Args:
        ct: the CT.
    """
    if (found := _found.get(ct)) is None:
        mask = lung_mask(ct)
        found = _found[ct] = mask.closed, mask.start_zyx, mask.stride_zyx, mask.warnings, mask.whole
    return LungMask(ct, *found)


def lung_mask(ct: CTVolume) -> LungMask:
    """Find the lungs.

    Args:
        ct: the CT; any size, down to one slice.

    Returns:
        The mask. Without any lung in the CT the mask is empty, and its ``warnings`` say so; no error is raised.
    """
    strides = [max(1, round(GRID_MM / spacing)) for spacing in ct.spacing_zyx_mm]
    starts, coarse, cut = _lungs_on_grid(ct, strides)  # D
    warnings = _plausible(coarse, cut)
    z_mm, y_mm, x_mm = (spacing * stride for spacing, stride in zip(ct.spacing_zyx_mm, strides, strict=True))
    closed, whole = np.zeros((0, 0, 0), dtype=np.int16), None
    if coarse.any():
        closed = _closed(coarse, (z_mm, y_mm, x_mm))  # E
    if CUT_LUNG in warnings:  # a nodule in it is tissue, which only the closing covers
        whole = _closed(coarse | cut, (z_mm, y_mm, x_mm)) >= THRESHOLD * LEVEL
    return LungMask(ct, closed, starts, tuple(strides), warnings, whole)


def lung_warnings(ct: CTVolume) -> tuple[str, ...]:
    """The warnings of :func:`lung_mask` without the mask, from a coarser grid, in a tenth of the time.

    Args:
        ct: the CT.
    """
    strides = [
        max(1, min(round(LOOK_MM / spacing), size // LOOK_NODES))
        for spacing, size in zip(ct.spacing_zyx_mm, ct.hu.shape, strict=True)
    ]
    return _plausible(*_lungs_on_grid(ct, strides)[1:])


def _lungs_on_grid(
    ct: CTVolume, strides: Sequence[int]
) -> tuple[tuple[int, ...], NDArray[np.bool_], NDArray[np.bool_]]:
    """Steps 1 to 5 on every so many voxels: the grid's first voxel, D, and the lung that an edge of the slices cuts."""
    starts = tuple((size - 1) % stride // 2 for size, stride in zip(ct.hu.shape, strides, strict=True))
    lattice = tuple(slice(start, None, stride) for start, stride in zip(starts, strides, strict=True))
    hu = _without_canvas(np.ascontiguousarray(ct.hu[lattice]))
    air, cut = _air_inside_body(hu)
    return starts, _without_other_air(air, hu), cut


def _plausible(lungs: NDArray[np.bool_], cut: NDArray[np.bool_]) -> tuple[str, ...]:
    """Why the mask may be wrong, in words."""
    share = float(lungs.mean())
    if float(cut.mean()) >= LEAST_CUT:
        return (CUT_LUNG,)
    if share == 0.0:
        return (NO_LUNG,)
    return (f"hardly any lung was found in this CT: {100 * share:.1f} % of it",) if share < LEAST_LUNG else ()


def _without_canvas(hu: HU) -> HU:
    """HU with air where a CT was laid onto a canvas of one denser value, as resampling with 0 does."""
    values, counts = np.unique(_rim(hu), return_counts=True)
    value = values[counts.argmax()]
    if value <= PURE_AIR_HU or counts.max() < CANVAS_SHARE * counts.sum():
        return hu
    pieces = _components(hu == value)
    outer = np.zeros(int(pieces.max()) + 1, dtype=bool)
    outer[_rim(pieces)] = True
    outer[0] = False
    without = np.where(outer[pieces], hu.dtype.type(PADDING_FLOOR_HU), hu)
    # A made-up body of one value is no canvas: without it, hardly any tissue is left.
    return without if float((without > THRESHOLD_RANGE_HU[1]).mean()) >= LEAST_TISSUE else hu


def otsu_threshold(hu: HU) -> float:
    """Otsu's threshold at 1 HU resolution (step 1): voxels above it are tissue.

    Args:
        hu: HU of any shape, from -1024 upwards; above :data:`OTSU_CEILING_HU` they count as that.

    Returns:
        The threshold in HU, not yet limited to :data:`THRESHOLD_RANGE_HU`; a constant image's only value.
    """
    lowest = float(hu.min())
    # A CT that is brighter than the ceiling everywhere is constant.
    heights = np.maximum(np.minimum(hu, hu.dtype.type(OTSU_CEILING_HU)) - hu.dtype.type(lowest), 0)
    counts = np.bincount(heights.astype(np.uint16).ravel())
    levels = np.arange(counts.size)
    below = np.cumsum(counts)[:-1]
    over = counts.sum() - below
    if not below.size:
        return lowest
    sums = np.cumsum(counts * levels)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / over
    return lowest + float(np.argmax(below * over * difference**2))


def _air_inside_body(hu: HU) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Steps 1 to 4: C, the air that the body, the largest piece of what is denser than air, surrounds in a slice.

    The second array is what would be C, were the slices larger: parenchyma that reaches an edge of its slice.

    Holes are filled slice by slice: the lungs are open to the outside in 3-D where the scan ends within them or within
    the trachea, and a hole in 3-D is a hole in each slice, so the 3-D filling would add nothing.
    """
    tissue = hu > float(np.clip(otsu_threshold(hu), *THRESHOLD_RANGE_HU))
    pieces = _components(tissue)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = pieces == max(int(sizes.argmax()), 1)
    depth, height, width = body.shape
    # All slices one below another in one image, with a blank row between them: one 2-D labelling handles all slices.
    sheet = np.zeros((depth, height + 1, width), dtype=bool)
    np.logical_not(body, out=sheet[:, :height])
    regions = _components(sheet.reshape(-1, width)).reshape(sheet.shape)[:, :height]
    enclosed = np.ones(int(regions.max()) + 1, dtype=bool)
    enclosed[_rim(regions)] = enclosed[0] = False
    sample = (slice(None), slice(None, None, 2), slice(None, None, 2))
    owner, grey = regions[sample], (hu[sample] > PURE_AIR_HU) & ~tissue[sample]
    sizes, parenchyma = (np.bincount(found, minlength=len(enclosed)) for found in (owner.ravel(), owner[grey]))
    cut = ~enclosed & (parenchyma > CUT_PARENCHYMA * sizes)
    cut[0] = False
    return enclosed[regions], cut[regions]


def _rim(values: NDArray[Any]) -> NDArray[Any]:
    """The outermost values of every slice."""
    return np.concatenate([side.ravel() for side in (values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1])])


def _without_other_air(air: NDArray[np.bool_], hu: HU) -> NDArray[np.bool_]:
    """Step 5: D, the parts of C that are large enough and hold enough parenchyma."""
    labels = _components(air)
    inside = np.flatnonzero(air)
    owner = labels.ravel()[inside]
    sizes = np.bincount(owner, minlength=1)
    parenchyma = np.bincount(owner[hu.ravel()[inside] > PURE_AIR_HU], minlength=sizes.size)
    lung = parenchyma >= LEAST_PARENCHYMA * sizes
    lung[0] = False
    lung &= sizes >= SMALLEST_PART * np.max(sizes[lung], initial=1)
    return lung[labels]


def _closed(coarse: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]) -> NDArray[np.int16]:
    """Step 6: E times LEVEL, with cavities filled (the core of a nodule too large for the element)."""
    reach = [math.ceil(HALF_FALL_MM * math.sqrt(2.0) / spacing) + 1 for spacing in spacing_zyx_mm]
    region = tuple(
        slice(max(0, int(used.min()) - margin), int(used.max()) + margin + 1)
        for used, margin in zip(np.nonzero(coarse), reach, strict=True)
    )
    near = closing(coarse[region], spacing_zyx_mm, half_fall_mm=HALF_FALL_MM)
    outside = _components(near < THRESHOLD * LEVEL)
    cavity = np.ones(int(outside.max()) + 1, dtype=bool)
    cavity[0] = False
    for axis in range(3):
        cavity[outside.take((0, -1), axis=axis)] = False
    near[cavity[outside]] = LEVEL
    closed = np.zeros(coarse.shape, dtype=np.int16)
    closed[region] = near
    return closed


def _components(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Label the face-connected pieces of a 2-D or 3-D mask from 1; the rest is 0."""
    import SimpleITK as sitk

    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8)))
    return np.asarray(sitk.GetArrayFromImage(labels))
