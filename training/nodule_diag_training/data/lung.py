"""Lung without a nodule: SegNet learns to find nothing in it, and it lends surroundings to VOIs.

Two properties must not distinguish such lung from a nodule:

* **The crop.** Whole patches are as frequent for lung as for nodules. The other patches are pieces: the same code lays
  them onto the same surroundings as VOIs. A piece of a lung cube is cropped as some VOI was.
* **The scanner.** The lung cubes come from few patients. So half of the pieces come from the nodules' own VOIs and
  cubes: the lung beside the nodule, of every patient, at the same resolution as the nodule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import PATCH_SPACING_MM, bspline_matrix, resample, window_channels

from .nodule import LungPlace, Nodule, TrainingDataError
from .patches import PatchSampler, Sample
from .training_data import TrainingData, Voxels
from .voxels import CUBE_SPACING_MM, EXTENSION, NoduleVoxels

FOLDER = "lung_cubes"
BESIDE_SHARE = 0.5
"""Share of the pieces that come from beside a nodule."""
CLEARANCE = round(2.0 / PATCH_SPACING_MM)
"""Voxels between the nodule's outline and a piece beside it: readers differ, and the consensus misses some tissue."""
THINNEST = round(5.0 / PATCH_SPACING_MM)
"""Least thickness of a piece beside a nodule, in voxels: the thickness of half of the VOIs."""
NOBODY = ""
"""The patient of a piece of lung, for the sampler: nobody, so the surroundings of every patient are allowed."""


def load_lung(root: Path) -> list[LungPlace]:
    """Every place of the shared data that is known to hold no nodule, without its voxels.

    Args:
        root: The shared data folder.

    Raises:
        TrainingDataError: If the index is missing or damaged.
    """
    path = root / FOLDER / "index.json"
    try:
        return [
            LungPlace(
                case_id=f"lung/{entry['file']}",
                patient_id=entry["patient"],
                image=root / FOLDER / f"{entry['file']}.npz",
                mask=None,
                kind=entry["kind"],
            )
            for entry in json.loads(path.read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingDataError(
            f"{path} cannot be read: {error}", hint="set NODULE_DIAG_DATA (or --data) to the folder of the LIDC data"
        ) from error


def load_lung_voxels(place: Nodule) -> NoduleVoxels:
    """Read one cube of lung and resample it to 0.5 mm.

    Raises:
        TrainingDataError: If it cannot be read.
    """
    return lung_at_half_mm(read_lung_hu(place))


def read_lung_hu(place: Nodule) -> NDArray[np.int16]:
    """HU of one cube of lung as it is stored, [z, y, x] at 1 mm.

    Raises:
        TrainingDataError: If it cannot be read.
    """
    try:
        with np.load(place.image, allow_pickle=False) as stored:
            hu: NDArray[np.int16] = stored["hu"]
    except (OSError, KeyError, ValueError) as error:
        raise TrainingDataError(f"{place.case_id}: {place.image.name} cannot be read: {error}") from error
    return hu


def lung_at_half_mm(hu: NDArray[np.int16]) -> NoduleVoxels:
    """A cube of lung, [z, y, x] HU at 1 mm, at 0.5 mm."""
    z, y, x = (
        bspline_matrix(size, np.arange(round((size - 1) * spacing / PATCH_SPACING_MM) + 1) * PATCH_SPACING_MM / spacing)
        for size, spacing in zip(hu.shape, CUBE_SPACING_MM, strict=True)
    )
    return _empty(resample(window_channels(hu), (z, y, x)).astype(np.float16), extension=0)


def with_lung(data: TrainingData, places: Sequence[LungPlace]) -> TrainingData:
    """The data and these places, whose voxels are read together with the nodules'."""
    lung = {place.case_id for place in places}

    def load(some: Sequence[Nodule]) -> Voxels:
        nodules = [n for n in some if n.case_id not in lung]
        return {**data.load(nodules), **{n.case_id: load_lung_voxels(n) for n in some if n.case_id in lung}}

    return TrainingData([*data.nodules, *places], load=load, stores=data.stores)


def _empty(channels: NDArray[np.float16], *, extension: int) -> NoduleVoxels:
    """Voxels without a nodule; the centre is the middle."""
    z, y, x = ((size - 1) / 2 for size in channels.shape[1:])
    nothing = np.broadcast_to(np.float16(0.0), channels.shape[1:])
    return NoduleVoxels(channels=channels, occupancy=nothing, center=(z, y, x), extension=extension)


def _piece(voxels: NoduleVoxels, box: Sequence[slice]) -> NoduleVoxels:
    """A box of some voxels as a VOI without a nodule: continued beyond its faces, its centre in the middle."""
    measured = voxels.channels[(slice(None), *box)]
    return _empty(np.pad(measured, [(0, 0)] + 3 * [(EXTENSION, EXTENSION)], mode="edge"), extension=EXTENSION)


def piece_like(voxels: NoduleVoxels, voi: NoduleVoxels) -> NoduleVoxels:
    """The piece of a lung cube, cropped round its centre as the VOI was round its nodule's centre."""
    box, center = [], []
    for size, middle, cut, nodule in zip(
        voxels.occupancy.shape, voxels.center, voi.occupancy.shape, voi.center, strict=True
    ):
        before = round(middle - (nodule - voi.extension))
        start, stop = max(before, 0), min(before + cut - 2 * voi.extension, size)
        box.append(slice(start, stop))
        center.append(middle - start + EXTENSION)
    z, y, x = center
    return replace(_piece(voxels, box), center=(z, y, x))


def boxes_beside(voxels: NoduleVoxels) -> list[tuple[slice, slice, slice]]:
    """The boxes of measured voxels beside a nodule, at most six: free of the nodule and thick enough."""
    inner = [slice(voxels.extension, size - voxels.extension) for size in voxels.occupancy.shape]
    boxes = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero((voxels.occupancy > 0).any(axis=others))
        below = slice(inner[axis].start, int(filled[0]) - CLEARANCE)
        above = slice(int(filled[-1]) + 1 + CLEARANCE, inner[axis].stop)
        for side in (below, above):
            if side.stop - side.start >= THINNEST:
                z, y, x = (side if own == axis else inner[own] for own in range(3))
                boxes.append((z, y, x))
    return boxes


class LungSource:
    """Draws patches of lung without a nodule.

    Args:
        nodules: Lung places, VOIs and nodules of training patients.
        voxels: By case_id, of all of them.
        sampler: Lays pieces onto surroundings.

    Raises:
        TrainingDataError: If there is no lung place among them.
    """

    def __init__(self, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels], sampler: PatchSampler) -> None:
        self._places = [n for n in nodules if isinstance(n, LungPlace)]
        if not self._places:
            raise TrainingDataError(
                f"none of the {len(nodules)} places is lung without a nodule",
                hint="add some, or set lung_per_step to 0",
            )
        self._vois = [n for n in nodules if not n.is_cube]
        self._outlined = [n for n in nodules if n.outlined and not isinstance(n, LungPlace)]
        self._voxels = voxels
        self._sampler = sampler

    def draw(self, rng: np.random.Generator, *, size: int, whole_share: float) -> tuple[LungPlace, Sample]:
        """An augmented patch, and the place in lung that it shows.

        Args:
            rng: Source of all random choices.
            size: Side of the patch in voxels.
            whole_share: Share of draws in which lung keeps its own surroundings (all draws without a VOI to crop like).
        """
        place = self._places[int(rng.integers(len(self._places)))]
        if rng.random() < whole_share or not self._vois:
            return place, self._sampler.draw(place, rng, size=size)
        if rng.random() < BESIDE_SHARE:
            nodule = self._outlined[int(rng.integers(len(self._outlined)))]
            boxes = boxes_beside(self._voxels[nodule.case_id])
            if boxes:
                piece = _piece(self._voxels[nodule.case_id], boxes[int(rng.integers(len(boxes)))])
                beside = LungPlace(
                    case_id=f"beside/{nodule.case_id}",
                    patient_id=nodule.patient_id,
                    image=nodule.image,
                    mask=nodule.mask,
                    kind="lung",
                )
                return beside, self._sampler.augmented(piece, rng, patient_id=nodule.patient_id, size=size)
        voi = self._vois[int(rng.integers(len(self._vois)))]
        piece = piece_like(self._voxels[place.case_id], self._voxels[voi.case_id])
        return place, self._sampler.augmented(piece, rng, patient_id=NOBODY, size=size)
