"""The lung mask (paper, section 4.2, steps 1 to 7), fast.

Otsu's threshold splits the CT into tissue and air; the largest piece of tissue is the body A; with its holes filled it
is B; C = B - A is the air inside the body; D is C without what is not lung; E is D after a grey closing with a non-flat
element; the mask F is E >= 0.5. All of it runs on a grid of about 2 mm. E varies slowly, so its linear interpolation,
thresholded at the CT's own voxels, gives the mask there: only for the voxels somebody asks for.
:mod:`nodule_diag.preprocessing.reference` does the same on every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodule_diag.ct import index_from_lps
from nodule_diag.preprocessing.closing import LEVEL, closing
from nodule_diag.preprocessing.spline import resample

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume

HU = NDArray[np.int16] | NDArray[np.float32]
Box = tuple[slice, slice, slice]

GRID_MM = 2.0
"""Voxel size the mask is computed at. On two LIDC-IDRI CTs the result's Dice with the full-resolution mask is 0.99 at
2 mm and 0.987 at 3 mm; 1.5 mm takes three times as long for 0.995."""

OTSU_CEILING_HU = 400
"""Brighter voxels count as this in Otsu's histogram: metal and contrast say nothing about tissue against air."""

PARTS = 16
"""Slabs that a volume is counted in: numpy makes int64 of what it counts, which so stays in the cache."""

THRESHOLD_RANGE_HU = (-700.0, -200.0)
"""Step 1: Otsu's threshold is kept in here, between inflated lung and fat. On a chest CT it lies near -470; only
without a body or without air does it go elsewhere, and would then split noise."""

SMALLEST_PART = 0.02
"""Step 5 ("denoising", open in the paper): parts of C below this share of the largest part are dropped. Bowel gas, the
slit between skin and table and isolated bronchi are below 0.6 %; a shrunken lung is far above."""

PURE_AIR_HU = -950
"""Up to here a voxel is air rather than parenchyma (the emphysema threshold of quantitative CT)."""

LEAST_PARENCHYMA = 0.2
"""Step 5: a part of C with a smaller share of voxels above :data:`PURE_AIR_HU` is gas (stomach, bowel, the space
between arm and chest), not lung. Normal lungs have 0.97, severe emphysema about 0.5."""

HALF_FALL_MM = 10.0
"""Step 6 (open in the paper): the element is the paraboloid b(y) = -0.5 (|y| / 10 mm)^2, which has fallen by half the
mask's range at 10 mm. With the threshold 0.5 this bridges gaps up to 20 mm wide and moves a flat pleura outwards by
(sqrt(2) - 1) * 10 = 4.1 mm, so that a 20 mm nodule half sunk into the chest wall is covered to 99 %; 8 mm would cover
70 %. A paraboloid, because the closing is then separable."""

THRESHOLD = 0.5
"""Step 7 (paper 4.2): voxels of E at or above this are lung."""

NO_LUNG = "no lung was found in this CT: the lung mask is empty"


@dataclass(frozen=True, eq=False)
class LungMask:
    """A lung mask that is known everywhere and computed where it is asked for.

    Attributes:
        ct: the CT it belongs to.
        closed: (gz, gy, gx) int16, step 6's E times ``LEVEL`` on the grid; empty without
            lungs.
        start_zyx: CT voxel of the grid's first node.
        stride_zyx: CT voxels from one node to the next.
        warnings: why the mask may be wrong; empty when nothing is suspicious.
    """

    ct: CTVolume
    closed: NDArray[np.int16]
    start_zyx: tuple[int, int, int] = (0, 0, 0)
    stride_zyx: tuple[int, int, int] = (1, 1, 1)
    warnings: tuple[str, ...] = field(default=())

    @classmethod
    def from_array(cls, ct: CTVolume, mask: ArrayLike) -> LungMask:
        """Wrap a mask made elsewhere.

        Args:
            ct: the CT.
            mask: (z, y, x) bool on the CT's grid.

        Raises:
            ValueError: the mask's shape is not the CT's.
        """
        lungs = np.asarray(mask, dtype=bool)
        if lungs.shape != ct.hu.shape:
            raise ValueError(f"the mask is {lungs.shape}, the CT {ct.hu.shape} (z, y, x)")
        warnings = () if lungs.any() else (NO_LUNG,)
        return cls(ct=ct, closed=lungs.astype(np.int16) * np.int16(LEVEL), warnings=warnings)

    @property
    def found(self) -> bool:
        """Whether there is any lung."""
        return bool((self.closed >= THRESHOLD * LEVEL).any())

    @property
    def volume_ml(self) -> float:
        """Volume of the mask on its grid, millilitres."""
        node_mm3 = math.prod(self.ct.spacing_zyx_mm) * math.prod(self.stride_zyx)
        return float(np.count_nonzero(self.closed >= THRESHOLD * LEVEL) * node_mm3 / 1000.0)

    def crop(self, box: Box) -> NDArray[np.bool_]:
        """The mask of a box of the CT's voxels.

        Args:
            box: slices (z, y, x) without step, as one would index ``ct.hu`` with.

        Returns:
            (z, y, x) bool, shaped like ``ct.hu[box]``.
        """
        positions = [np.arange(*part.indices(size)) for part, size in zip(box, self.ct.hu.shape, strict=True)]
        return self._at(positions)

    def to_array(self) -> NDArray[np.bool_]:
        """(z, y, x) bool on the whole CT's grid. Slow (a second): ask for a crop where that is enough."""
        size_z, size_y, size_x = self.ct.hu.shape
        mask = np.empty((size_z, size_y, size_x), dtype=bool)
        for start in range(0, size_z, 32):
            slab = slice(start, min(start + 32, size_z))
            mask[slab] = self.crop((slab, slice(0, size_y), slice(0, size_x)))
        return mask

    def contains(self, point_xyz_mm: ArrayLike) -> bool:
        """Whether a point (3,) in LPS millimetres lies in the lungs; False outside the volume."""
        point = np.asarray(point_xyz_mm, dtype=np.float64).reshape(1, 3)
        index_zyx = index_from_lps(self.ct, point)[0][::-1]
        upper = np.asarray(self.ct.hu.shape) - 0.5
        if not bool(((index_zyx >= -0.5) & (index_zyx <= upper)).all()):
            return False
        return bool(self._at([np.array([index]) for index in index_zyx]).item())

    def _at(self, positions_zyx: Sequence[NDArray[np.signedinteger | np.floating]]) -> NDArray[np.bool_]:
        """The mask at the lattice of CT index positions (z,), (y,), (x,)."""
        shape = tuple(len(positions) for positions in positions_zyx)
        if not self.closed.size or not all(shape):
            return np.zeros(shape, dtype=bool)
        parts, matrices = [], []
        for axis, positions in enumerate(positions_zyx):
            nodes = (positions.astype(np.float64) - self.start_zyx[axis]) / self.stride_zyx[axis]
            part, matrix = _linear_matrix(self.closed.shape[axis], nodes)
            parts.append(part)
            matrices.append(matrix)
        near = self.closed[parts[0], parts[1], parts[2]].astype(np.float32)[None]
        level = resample(near, (matrices[0], matrices[1], matrices[2]))[0]
        # The tolerance is float32 rounding of a sum of int16 levels, far below one level.
        return np.asarray(level >= THRESHOLD * LEVEL - 0.01)


def lung_mask(ct: CTVolume) -> LungMask:
    """Find the lungs.

    Args:
        ct: the CT; any size, down to one slice.

    Returns:
        The mask. Without any lung in the CT it is empty and says so in ``warnings``; this never raises.
    """
    stride_z, stride_y, stride_x = (max(1, round(GRID_MM / spacing)) for spacing in ct.spacing_zyx_mm)
    strides = (stride_z, stride_y, stride_x)
    start_z, start_y, start_x = ((n - 1) % stride // 2 for n, stride in zip(ct.hu.shape, strides, strict=True))
    hu = np.ascontiguousarray(ct.hu[start_z::stride_z, start_y::stride_y, start_x::stride_x])
    grid_mm = (
        ct.spacing_zyx_mm[0] * stride_z,
        ct.spacing_zyx_mm[1] * stride_y,
        ct.spacing_zyx_mm[2] * stride_x,
    )

    air_inside = _air_inside_body(hu)  # C
    coarse = _without_other_air(air_inside, hu)  # D
    found = bool(coarse.any())
    closed = _closed(coarse, grid_mm) if found else np.zeros((0, 0, 0), dtype=np.int16)  # E
    return LungMask(
        ct=ct,
        closed=closed,
        start_zyx=(start_z, start_y, start_x),
        stride_zyx=strides,
        warnings=() if found else (NO_LUNG,),
    )


def otsu_threshold(hu: HU) -> float:
    """Otsu's threshold at 1 HU resolution (step 1): voxels above it are tissue.

    Args:
        hu: HU of any shape, from -1024 upwards; above :data:`OTSU_CEILING_HU` they count as that.

    Returns:
        The threshold in HU, not yet limited to :data:`THRESHOLD_RANGE_HU`; a constant image's only value.
    """
    lowest = float(hu.min())
    ceiling, offset = (np.asarray(value, dtype=hu.dtype) for value in (OTSU_CEILING_HU, lowest))
    # A CT that is brighter than the ceiling everywhere is constant.
    heights = (np.maximum(np.minimum(part, ceiling) - offset, 0) for part in np.array_split(hu, PARTS))
    counts = _counts(height.astype(np.uint16) for height in heights)
    levels = np.arange(counts.size)
    below = np.cumsum(counts)[:-1]
    over = counts.sum() - below
    if not below.size:
        return lowest
    sums = np.cumsum(counts * levels)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / over
    return lowest + float(np.argmax(below * over * difference**2))


def _body(hu: HU) -> NDArray[np.bool_]:
    """Steps 1 and 2: the largest piece of what is denser than air."""
    threshold = float(np.clip(otsu_threshold(hu), *THRESHOLD_RANGE_HU))
    labels = _components(hu > threshold)
    sizes = _counts(np.array_split(labels, PARTS))
    sizes[0] = 0
    return np.asarray(labels == max(int(sizes.argmax()), 1))


def _counts(parts: Iterable[NDArray[np.unsignedinteger]]) -> NDArray[np.int64]:
    """How often 0, 1, ... up to the greatest value occur in all parts together."""
    counts = [np.bincount(part.ravel()) for part in parts]
    total = np.zeros(max(part.size for part in counts), dtype=np.int64)
    for part in counts:
        total[: part.size] += part
    return total


def _air_inside_body(hu: HU) -> NDArray[np.bool_]:
    """Steps 3 and 4: C, the air that the body surrounds in its axial slice.

    Holes are filled slice by slice: the lungs are open to the outside in 3-D where the scan ends within them or within
    the trachea, and a hole in 3-D is a hole in each slice, so the 3-D filling would add nothing.
    """
    body = _body(hu)
    depth, height, width = body.shape
    # All slices under one another in one image, a blank row between them: one labelling in 2-D serves them all.
    sheet = np.zeros((depth, height + 1, width), dtype=bool)
    np.logical_not(body, out=sheet[:, :height])
    regions = _components(sheet.reshape(-1, width)).reshape(sheet.shape)[:, :height]
    enclosed = np.ones(int(regions.max()) + 1, dtype=bool)
    enclosed[0] = False
    for rim in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        enclosed[rim] = False
    return enclosed[regions]


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
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(coarse.any(axis=others))
        box.append(slice(max(0, int(used[0]) - reach[axis]), int(used[-1]) + reach[axis] + 1))
    region = (box[0], box[1], box[2])
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


def _linear_matrix(size: int, positions: NDArray[np.float64]) -> tuple[slice, NDArray[np.float32]]:
    """Linear interpolation of ``size`` nodes at increasing (M,) positions, constant beyond both ends.

    Returns:
        The nodes used, and the (M, used) float32 matrix over them.
    """
    at = np.clip(positions, 0.0, size - 1.0)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    first = int(low[0])
    rows = np.arange(at.size)
    matrix = np.zeros((at.size, int(high[-1]) - first + 1), dtype=np.float32)
    np.add.at(matrix, (rows, low - first), (1.0 - (at - low)).astype(np.float32))
    np.add.at(matrix, (rows, high - first), (at - low).astype(np.float32))
    return slice(first, int(high[-1]) + 1), matrix
