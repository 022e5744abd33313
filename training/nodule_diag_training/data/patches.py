"""From LIDC nodules to training patches, without teaching the model where the data were cut.

A VOI is tight in z (half of them end within 3 mm of the nodule's centre), so a 32 mm cube around it is mostly unknown.
Filling the rest with a constant would make the VOI's border the strongest edge in the patch. Instead the VOI is laid
onto the surroundings in *another* patient's cube: the VOI's last slice is repeated outwards and fades over a random
0.5 to 3 mm into this tissue, which is real but not the VOI's own. Of several random surroundings, the one with the
least visible seam is taken, so that a wall continues as a wall and lung as lung. The cubes, whose surroundings are
real, are drawn too; ``evaluation`` measures on them how much this treatment changes the model's answers.

All voxels are kept windowed, at 0.5 mm, as the network sees them: preprocessing is the SDK's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends import Symmetry
from nodule_diag.preprocessing import PATCH_SIZE, PATCH_SPACING_MM
from nodule_diag_training.model import GRID_STRIDE

from .nodule import LungPlace, Nodule, TrainingDataError
from .voxels import EXTENSION, Float, NoduleVoxels

JITTER_MM = 3.0
"""Largest offset of the patch centre from the nodule's: nobody clicks the exact centre."""
SURROUNDINGS_TRIED = 8
"""Random surroundings among which the one with the least visible seam is taken."""
SEAM_STRIDE = 2
"""Step in voxels at which the seam is sampled."""
LUNG_SURROUNDINGS = 0.5
"""Share of the surroundings that come from lung without a nodule, where there is any: many places of few patients."""
VOI_SLICE_MM = 2.5
VOI_IN_PLANE_REACH_MM = 14.5
"""The VOIs' usual slice spacing, and their median distance from centre to edge in-plane."""
MASK_THRESHOLD = 0.5
"""Share of a cell or voxel that the nodule must fill for the cell or voxel to count as nodule."""


def _crop(array: NDArray[np.float16], start: Sequence[int], size: int) -> tuple[Float, tuple[slice, slice, slice]]:
    """A size-cube of the last three axes from ``start``, zero outside, and the part of it that was inside."""
    out = np.zeros((*array.shape[:-3], size, size, size), dtype=np.float32)
    source: list[slice] = []
    target: list[slice] = []
    for begin, length in zip(start, array.shape[-3:], strict=True):
        low, high = max(begin, 0), min(begin + size, length)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - begin, max(high, low) - begin))
    tz, ty, tx = target
    sz, sy, sx = source
    out[..., tz, ty, tx] = array[..., sz, sy, sx]
    return out, (tz, ty, tx)


def fade(length: int, extension: int, ramp: float) -> Float:
    """[length] weights: 1 where measured, falling to 0 within ``ramp`` voxels beyond the first and last sample."""
    index = np.arange(length)
    beyond = np.maximum(np.maximum(extension - index, index - (length - 1 - extension)), 0)
    linear = np.clip(1.0 - beyond / ramp, 0.0, 1.0)
    return np.asarray(linear * linear * (3.0 - 2.0 * linear), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One patch and the reader mask in it.

    Attributes:
        patch: [2, S, S, S] float32.
        occupancy: [S, S, S] float32 in [0, 1], the reader mask at 0.5 mm, linearly interpolated.
        spacing_mm: Spacing of the voxels; below 0.5 where a nodule's cube was enlarged (Table 5).
    """

    patch: Float
    occupancy: Float
    spacing_mm: float = PATCH_SPACING_MM

    @property
    def nodule(self) -> Float:
        """[S/4, S/4, S/4] float32 in [0, 1]: the share of each cell that the reader mask fills.

        The paper samples the mask by nearest neighbour. Under 8 mm a nodule is a handful of cells; the share, unlike a
        sample, does not jump with the nodule's position on the grid.
        """
        return _grid(self.occupancy)

    @property
    def nodule_cells(self) -> NDArray[np.bool_]:
        """[S/4, S/4, S/4] bool: cells that the reader mask fills by half, or the fullest where none is half full."""
        share = self.nodule
        return np.asarray(share >= min(MASK_THRESHOLD, float(share.max())))

    @property
    def fine_mask(self) -> NDArray[np.bool_]:
        """[S, S, S] bool, the reader mask on the patch's voxels."""
        return np.asarray(self.occupancy >= MASK_THRESHOLD)


def _grid(occupancy: Float) -> Float:
    cells = occupancy.shape[0] // GRID_STRIDE
    shape = (cells, GRID_STRIDE, cells, GRID_STRIDE, cells, GRID_STRIDE)
    return np.asarray(occupancy.reshape(shape).mean(axis=(1, 3, 5)), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A cube cut around a nodule, and how much of it was measured: 1 inside, falling to 0 beyond a VOI's faces."""

    patch: Float
    weight: Float | None
    occupancy: Float

    def on(self, surroundings: Float) -> Sample:
        """The patch that this cut gives on [2, size, size, size] surroundings."""
        weight = 1.0 if self.weight is None else self.weight
        return Sample(patch=surroundings + weight * (self.patch - surroundings), occupancy=self.occupancy)

    def seam(self, surroundings: Float) -> float:
        """How visible the transition to ``surroundings`` is: mean difference of the lung window in the transition."""
        if self.weight is None:
            return 0.0
        step = (slice(None, None, SEAM_STRIDE),) * 3
        transition = self.weight[step] * (1.0 - self.weight[step])
        difference = np.abs(self.patch[0][step] - surroundings[0][step])
        return float((transition * difference).sum())


def _cut(voxels: NoduleVoxels, offset: Sequence[float], size: int, ramp: float) -> _Cut:
    start = [round(c + o - (size - 1) / 2) for c, o in zip(voxels.center, offset, strict=True)]
    patch, inside = _crop(voxels.channels, start, size)
    occupancy, _ = _crop(voxels.occupancy, start, size)
    weight = None
    if voxels.extension:
        weight = np.zeros((size, size, size), dtype=np.float32)
        fades = [fade(n, voxels.extension, ramp) for n in voxels.channels.shape[1:]]
        z, y, x = (
            fade[max(begin, 0) : max(begin, 0) + (part.stop - part.start)]
            for fade, begin, part in zip(fades, start, inside, strict=True)
        )
        weight[inside] = z[:, None, None] * y[None, :, None] * x[None, None, :]
    return _Cut(patch=patch, weight=weight, occupancy=occupancy)


def cut_like_voi(voxels: NoduleVoxels, rng: np.random.Generator) -> NoduleVoxels:
    """A cube cut as tightly as the VOIs are: ``evaluation`` compares the model's answers on it with the whole cube's.

    In z, at most one 2.5 mm slice remains beyond the nodule; in-plane, 14.5 mm from its centre (the VOIs' median).
    """
    filled = np.flatnonzero((voxels.occupancy > 0).any(axis=(1, 2)))
    slice_gap = rng.integers(0, round(VOI_SLICE_MM / PATCH_SPACING_MM) + 1, size=2)
    reach = round(VOI_IN_PLANE_REACH_MM / PATCH_SPACING_MM)
    ranges = [(int(filled[0] - slice_gap[0]), int(filled[-1] + 1 + slice_gap[1]))]
    ranges += [(round(c) - reach, round(c) + reach + 1) for c in voxels.center[1:]]
    bounds = [(max(low, 0), min(high, n)) for (low, high), n in zip(ranges, voxels.occupancy.shape, strict=True)]
    box = tuple(slice(low, high) for low, high in bounds)
    pad = [(EXTENSION, EXTENSION)] * 3
    return NoduleVoxels(
        channels=np.pad(voxels.channels[(slice(None), *box)], [(0, 0), *pad], mode="edge"),
        occupancy=np.pad(voxels.occupancy[box], pad),
        center=_shifted(voxels.center, [EXTENSION - low for low, _ in bounds]),
        extension=EXTENSION,
    )


def _shifted(center: Sequence[float], by: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (c + b for c, b in zip(center, by, strict=True))
    return z, y, x


def symmetry(rng: np.random.Generator) -> Symmetry:
    """One of the cube's 48 symmetries, at random.

    Flips, 90-degree rotations and axis permutations (4.2) together are exactly this group.
    """
    order = rng.permutation(3)
    flips = rng.random(3) < 0.5
    return Symmetry((int(order[0]), int(order[1]), int(order[2])), (bool(flips[0]), bool(flips[1]), bool(flips[2])))


class PatchSampler:
    """Draws augmented patches of nodules; every draw depends on its generator only, so a run can be resumed.

    Args:
        voxels: By case_id, at least those of ``nodules`` and of their cubes.
        nodules: The nodules that may be drawn. The cubes and the lung among them lend their surroundings, so pass only
            those of training patients.
    """

    def __init__(self, voxels: Mapping[str, NoduleVoxels], nodules: Sequence[Nodule]) -> None:
        self._voxels = voxels
        self._lung = [n for n in nodules if isinstance(n, LungPlace)]
        self._cubes = [n for n in nodules if n.is_cube and not isinstance(n, LungPlace)]
        if not self._cubes and nodules:
            raise TrainingDataError("no cube among the nodules: VOIs need the surroundings of cubes")

    def _surroundings(self, rng: np.random.Generator, *, size: int, not_patient: str) -> Float:
        """[2, size, size, size] from a random cube of another patient, away from its own nodule where there is room."""
        lung = bool(self._lung) and rng.random() < LUNG_SURROUNDINGS
        others = [cube for cube in (self._lung if lung else self._cubes) if cube.patient_id != not_patient]
        if not others:
            raise TrainingDataError(f"no patient but {not_patient} has a cube, whose surroundings a VOI needs")
        cube = self._voxels[others[int(rng.integers(len(others)))].case_id]
        room = [length - size for length in cube.channels.shape[1:]]
        # The outer third of the possible positions on either side: away from the cube's own nodule in the middle.
        share = rng.random(3) / 3
        start = [round(r * (s if rng.random() < 0.5 else 1.0 - s)) for r, s in zip(room, share, strict=True)]
        part, _ = _crop(cube.channels, start, size)
        return symmetry(rng).apply(part)

    def place(
        self,
        voxels: NoduleVoxels,
        rng: np.random.Generator,
        *,
        patient_id: str,
        offset: Sequence[float] = (0.0, 0.0, 0.0),
        size: int = PATCH_SIZE,
    ) -> Sample:
        """The patch of a nodule; a VOI that ends before the patch does is laid onto the best of several surroundings.

        Args:
            voxels: The nodule.
            rng: Chooses the surroundings and the width of the transition.
            patient_id: The nodule's patient: surroundings come from other patients.
            offset: Patch centre minus nodule centre, in 0.5 mm voxels, zyx.
            size: Side of the patch in voxels, a multiple of 4.
        """
        cut = _cut(voxels, offset, size, ramp=float(rng.uniform(1.0, EXTENSION)))
        if cut.weight is None:
            return Sample(patch=cut.patch, occupancy=cut.occupancy)
        tried = [self._surroundings(rng, size=size, not_patient=patient_id) for _ in range(SURROUNDINGS_TRIED)]
        return cut.on(min(tried, key=cut.seam))

    def draw(
        self, nodule: Nodule, rng: np.random.Generator, *, size: int = PATCH_SIZE, jitter_mm: float = JITTER_MM
    ) -> Sample:
        """A patch of ``nodule`` with jittered centre, random surroundings (VOIs) and a random symmetry."""
        voxels = self._voxels[nodule.case_id]
        return self.augmented(voxels, rng, patient_id=nodule.patient_id, size=size, jitter_mm=jitter_mm)

    def augmented(
        self,
        voxels: NoduleVoxels,
        rng: np.random.Generator,
        *,
        patient_id: str,
        size: int = PATCH_SIZE,
        jitter_mm: float = JITTER_MM,
    ) -> Sample:
        """``draw`` for any voxels; arguments as those of ``place``."""
        direction = rng.normal(size=3)
        length = rng.random() ** (1 / 3) * jitter_mm / PATCH_SPACING_MM
        offset = direction / np.linalg.norm(direction) * length
        sample = self.place(voxels, rng, patient_id=patient_id, offset=tuple(offset), size=size)
        turn = symmetry(rng)
        return Sample(
            patch=np.ascontiguousarray(turn.apply(sample.patch)),
            occupancy=np.ascontiguousarray(turn.apply(sample.occupancy)),
        )
