"""A step's draws as tables of indices: everything random is decided on the CPU, in the order of ``data.draws``.

The random generator gets the same calls as from ``PairSource``, ``PatchSampler`` and ``LungSource``, so a step has
exactly the nodules, offsets, surroundings and symmetries of ``train packaged``. ``patches`` then makes the voxels on
the GPU. Everything that happens to a patch (crop, continuation, flip, order of axes) is done axis by axis, so a voxel's
place in the array of all voxels is a sum of three numbers, one for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_day.prepared import Box, Volume
from nodule_diag.backends import Symmetry
from nodule_diag.preprocessing import PATCH_SPACING_MM
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import (
    BESIDE_SHARE,
    EXTENSION,
    JITTER_MM,
    LUNG_SURROUNDINGS,
    NOBODY,
    SURROUNDINGS_TRIED,
    LungPlace,
    Nodule,
    case_generator,
    cnet_label,
    fade,
    normalised_score,
    score_target,
    symmetry,
    without_lung,
)

IDENTITY: Final = Symmetry((0, 1, 2), (False, False, False))


@dataclass(frozen=True, kw_only=True)
class Tables:
    """B patches of side S, as the tables that their voxels are read with.

    Attributes:
        own: [B, 3, S] int32: along each axis, the summand for the index of the nodule's voxel.
        inside: [B, 3, S] float32: 1 where there is one, else 0.
        weight: [B, 3, S] float32: how much of the nodule's voxel shows before its surroundings; product of three.
        others: [B, 8, 3, S] int32: as ``own``, for each of the tried surroundings.
        order: [B, 3] int64: for each axis of the finished patch, the axis that it comes from.
        place: [B, 3, S] int64: the place along this axis; turned over or not.
        label: [B] float32: benign 0, malignant 1; what CNet learns.
        labelled: [B] float32: 1 where there is a label.
        score: [B] float32: normalised to 0..1; what RNet learns.
        scored: [B] float32: 1 where there is a score.
        lung: [B] float32: 1 where there is no nodule.
        counted: [B] float32: 0 for entries that only fill a batch.
    """

    own: NDArray[np.int32]
    inside: NDArray[np.float32]
    weight: NDArray[np.float32]
    others: NDArray[np.int32]
    order: NDArray[np.int64]
    place: NDArray[np.int64]
    label: NDArray[np.float32]
    labelled: NDArray[np.float32]
    score: NDArray[np.float32]
    scored: NDArray[np.float32]
    lung: NDArray[np.float32]
    counted: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """The cut along the three axes: [3, S] each, before the patch is turned; ``others`` is [8, 3, S]."""

    own: NDArray[np.int32]
    inside: NDArray[np.float32]
    weight: NDArray[np.float32]
    others: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A volume, or a box of it continued beyond its faces, as the source of a patch."""

    volume: Volume
    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    padding: int
    center: tuple[float, float, float]
    extension: int


def _whole(volume: Volume) -> _Source:
    return _Source(
        volume=volume,
        start=(0, 0, 0),
        shape=volume.shape,
        padding=0,
        center=volume.center,
        extension=volume.extension,
    )


def _piece(volume: Volume, box: Box, center: tuple[float, ...] | None = None) -> _Source:
    """As ``data.lung``: a box of a volume as a VOI without a nodule."""
    shape = tuple(stop - start for start, stop in box)
    middle = tuple((size + 2 * EXTENSION - 1) / 2 for size in shape) if center is None else center
    return _Source(
        volume=volume,
        start=(box[0][0], box[1][0], box[2][0]),
        shape=(shape[0], shape[1], shape[2]),
        padding=EXTENSION,
        center=(middle[0], middle[1], middle[2]),
        extension=EXTENSION,
    )


def _piece_like(volume: Volume, voi: Volume) -> _Source:
    """``data.lung.piece_like``."""
    box, center = [], []
    for size, middle, cut, nodule in zip(volume.shape, volume.center, voi.shape, voi.center, strict=True):
        before = round(middle - (nodule - voi.extension))
        start, stop = max(before, 0), min(before + cut - 2 * voi.extension, size)
        box.append((start, stop))
        center.append(middle - start + EXTENSION)
    return _piece(volume, (box[0], box[1], box[2]), tuple(center))


def _strides(shape: Sequence[int]) -> tuple[int, int, int]:
    return shape[1] * shape[2], shape[2], 1


class Draws:
    """Draws the tables of a step, or of nodules as they are; every draw depends on the seed and the step alone.

    Args:
        config: The run's configuration; only what ``RECIPE`` uses is supported here.
        nodules: Nodules of the run, with lung.
        volumes: Volumes by case id.
    """

    def __init__(self, config: TrainingConfig, nodules: Sequence[Nodule], volumes: Mapping[str, Volume]) -> None:
        if config.sure_draws or config.accumulate != 1 or config.input != "64" or config.cohort != "all":
            raise ValueError("this draws unsure nodules of every cohort in whole patches, one batch a step")
        self._config = config
        self._volumes = volumes
        self._lung = [n for n in nodules if isinstance(n, LungPlace)]
        self._cubes = [n for n in without_lung(nodules) if n.is_cube]
        self._vois = [n for n in nodules if not n.is_cube]
        self._outlined = [n for n in without_lung(nodules) if n.outlined]
        self._lenders: dict[tuple[bool, str], list[Nodule]] = {}

    def step(self, step: int, *, size: int) -> Tables:
        """``PairSource.draw``."""
        config = self._config
        rng = np.random.default_rng([config.seed, step])
        drawn = []
        for _ in range(config.unsure_draws):
            cube = rng.random() < config.cube_share
            pool = (self._cubes or self._vois) if cube else (self._vois or self._cubes)
            nodule = pool[int(rng.integers(len(pool)))]
            source = _whole(self._volumes[nodule.case_id])
            drawn.append((nodule, *self._augmented(source, rng, patient_id=nodule.patient_id, size=size)))
        drawn += [self._lung_draw(rng, size=size) for _ in range(config.lung_per_step)]
        return self._tables(drawn, count=len(drawn))

    def still(self, nodules: Sequence[Nodule], *, size: int, count: int) -> Tables:
        """Nodules without augmentation, as they are judged; filled up to ``count`` with repetitions."""
        drawn = []
        for nodule in nodules:
            source = _whole(self._volumes[nodule.case_id])
            generator = case_generator(nodule.case_id)
            cut = self._placed(source, generator, patient_id=nodule.patient_id, offset=(0.0, 0.0, 0.0), size=size)
            drawn.append((nodule, cut, IDENTITY))
        return self._tables(drawn, count=count)

    def _lung_draw(self, rng: np.random.Generator, *, size: int) -> tuple[Nodule, _Cut, Symmetry]:
        """``LungSource.draw``."""
        place = self._lung[int(rng.integers(len(self._lung)))]
        volume = self._volumes[place.case_id]
        if rng.random() < self._config.cube_share or not self._vois:
            return place, *self._augmented(_whole(volume), rng, patient_id=place.patient_id, size=size)
        if rng.random() < BESIDE_SHARE:
            nodule = self._outlined[int(rng.integers(len(self._outlined)))]
            beside = self._volumes[nodule.case_id]
            if beside.boxes:
                piece = _piece(beside, beside.boxes[int(rng.integers(len(beside.boxes)))])
                return place, *self._augmented(piece, rng, patient_id=nodule.patient_id, size=size)
        voi = self._vois[int(rng.integers(len(self._vois)))]
        piece = _piece_like(volume, self._volumes[voi.case_id])
        return place, *self._augmented(piece, rng, patient_id=NOBODY, size=size)

    def _augmented(
        self, source: _Source, rng: np.random.Generator, *, patient_id: str, size: int
    ) -> tuple[_Cut, Symmetry]:
        """``PatchSampler.augmented``."""
        direction = rng.normal(size=3)
        length = rng.random() ** (1 / 3) * JITTER_MM / PATCH_SPACING_MM
        offset = direction / np.linalg.norm(direction) * length
        cut = self._placed(source, rng, patient_id=patient_id, offset=tuple(offset), size=size)
        return cut, symmetry(rng)

    def _placed(
        self, source: _Source, rng: np.random.Generator, *, patient_id: str, offset: Sequence[float], size: int
    ) -> _Cut:
        """``PatchSampler.place``."""
        ramp = float(rng.uniform(1.0, EXTENSION))
        volume, strides = source.volume, _strides(source.volume.shape)
        own = np.zeros((3, size), dtype=np.int32)
        inside = np.zeros((3, size), dtype=np.float32)
        weight = np.ones((3, size), dtype=np.float32)
        others = np.zeros((SURROUNDINGS_TRIED, 3, size), dtype=np.int32)
        for axis, (center, shift) in enumerate(zip(source.center, offset, strict=True)):
            length = source.shape[axis] + 2 * source.padding
            index = round(center + shift - (size - 1) / 2) + np.arange(size)
            there = (index >= 0) & (index < length)
            # Beyond a piece's faces, its outermost voxels are repeated; a VOI's own continuation is in the array.
            voxel = np.clip(index - source.padding, 0, source.shape[axis] - 1) + source.start[axis]
            own[axis] = voxel * strides[axis]
            inside[axis] = there
            if source.extension:
                faded = fade(length, source.extension, ramp)
                weight[axis] = np.where(there, faded[np.clip(index, 0, length - 1)], 0.0)
        own[0] += volume.base
        if source.extension:
            for tried in range(SURROUNDINGS_TRIED):
                others[tried] = self._surroundings(rng, size=size, not_patient=patient_id)
        return _Cut(own=own, inside=inside, weight=weight, others=others)

    def _surroundings(self, rng: np.random.Generator, *, size: int, not_patient: str) -> NDArray[np.int32]:
        """``PatchSampler._surroundings``."""
        lung = bool(self._lung) and rng.random() < LUNG_SURROUNDINGS
        lenders = self._lenders_but(lung, not_patient)
        volume = self._volumes[lenders[int(rng.integers(len(lenders)))].case_id]
        strides = _strides(volume.shape)
        room = [length - size for length in volume.shape]
        share = rng.random(3) / 3
        start = [round(r * (s if rng.random() < 0.5 else 1.0 - s)) for r, s in zip(room, share, strict=True)]
        turn = symmetry(rng)
        forth = np.arange(size, dtype=np.int32)
        table = np.empty((3, size), dtype=np.int32)
        for axis, (source, flipped) in enumerate(zip(turn.order, turn.flips, strict=True)):
            table[axis] = strides[source] * (start[source] + (forth[::-1] if flipped else forth))
        table[0] += volume.base
        return table

    def _lenders_but(self, lung: bool, patient_id: str) -> list[Nodule]:
        key = lung, patient_id
        if key not in self._lenders:
            lenders = self._lung if lung else self._cubes
            self._lenders[key] = [lender for lender in lenders if lender.patient_id != patient_id]
        return self._lenders[key]

    def _tables(self, drawn: Sequence[tuple[Nodule, _Cut, Symmetry]], *, count: int) -> Tables:
        counted = np.arange(count) < len(drawn)
        filled = [drawn[number % len(drawn)] for number in range(count)]
        nodules, cuts, turns = zip(*filled, strict=True)
        size = cuts[0].own.shape[-1]
        forth = np.arange(size)
        labels = [cnet_label(nodule, drawn_as_sure=False, config=self._config) for nodule in nodules]
        scores = [score_target(nodule, drawn_as_sure=False, config=self._config) for nodule in nodules]
        return Tables(
            own=np.stack([cut.own for cut in cuts]),
            inside=np.stack([cut.inside for cut in cuts]),
            weight=np.stack([cut.weight for cut in cuts]),
            others=np.stack([cut.others for cut in cuts]),
            order=np.array([turn.order for turn in turns], dtype=np.int64),
            place=np.stack([[forth[::-1] if flip else forth for flip in turn.flips] for turn in turns]).astype(
                np.int64
            ),
            label=_numbers(labels),
            labelled=_known(labels),
            score=_numbers([None if score is None else normalised_score(score) for score in scores]),
            scored=_known(scores),
            lung=np.array([isinstance(nodule, LungPlace) for nodule in nodules], dtype=np.float32),
            counted=counted.astype(np.float32),
        )


def _numbers(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([0.0 if value is None else value for value in values], dtype=np.float32)


def _known(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([value is not None and math.isfinite(value) for value in values], dtype=np.float32)
