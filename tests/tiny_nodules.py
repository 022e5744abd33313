"""Small nodules made by rule, in the form in which training holds real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nodule_diag.ct import distance_from_middle
from nodule_diag_training.data.nodule import LungPlace, Nodule, SureLabel
from nodule_diag_training.data.voxels import EXTENSION, NoduleVoxels

CUBE_SIDE = 60


def make_voxels(*, seed: int, radius: float, extension: int) -> NoduleVoxels:
    """A bright ball in dim noise; a VOI is thin in z."""
    rng = np.random.default_rng(seed)
    depth = CUBE_SIDE if extension == 0 else 14 + 2 * extension
    shape = (depth, CUBE_SIDE, CUBE_SIDE)
    center = tuple((n - 1) / 2 for n in shape)
    ball = (distance_from_middle(shape) <= radius).astype(np.float16)
    channels = np.stack([0.15 + 0.6 * ball, 0.5 * ball]).astype(np.float16)
    channels += rng.normal(0.0, 0.02, channels.shape).astype(np.float16)
    return NoduleVoxels(channels=channels, occupancy=ball, center=center, extension=extension)


def make_nodules() -> list[Nodule]:
    """Four cubes and four VOIs of eight patients, half of them diagnosed."""
    nodules = []
    for index in range(8):
        cube = index < 4
        sure = SureLabel(malignant=index % 2, method="biopsy", certainty="nodule") if index % 4 < 2 else None
        nodules.append(
            Nodule(
                case_id=f"cube/{index}" if cube else f"voi-{index}",
                patient_id=f"patient-{index}",
                image=Path(f"{index}.nii.gz"),
                mask=None if cube else Path(f"{index}-mask.nii.gz"),
                reader_scores=(1 + index % 5, 1 + (index + 1) % 5, 3),
                diameter_mm=4.0 + index,
                in_paper_cohort=index % 3 != 0,
                sure=sure,
            )
        )
    return nodules


def make_all_voxels(nodules: list[Nodule]) -> dict[str, NoduleVoxels]:
    """Those of ``make_nodules``."""
    return {
        nodule.case_id: make_voxels(seed=i, radius=4.0 + i / 2, extension=0 if nodule.is_cube else EXTENSION)
        for i, nodule in enumerate(nodules)
    }


def make_lung() -> tuple[list[LungPlace], dict[str, NoduleVoxels]]:
    """Two places without a nodule of each of two patients, and their voxels: dim noise with a bright tube along z."""
    places, voxels = [], {}
    for index in range(4):
        patient = "ab"[index // 2]
        place = LungPlace(
            case_id=f"lung/{patient}-{index % 2}",
            patient_id=patient,
            image=Path(f"{index}.npz"),
            mask=None,
            kind="lung" if index % 2 else "blob",
        )
        rng = np.random.default_rng(100 + index)
        channels = rng.normal(0.12, 0.02, (2, CUBE_SIDE, CUBE_SIDE, CUBE_SIDE)).astype(np.float16)
        channels[:, :, 20:24, 30:34] = 0.5
        middle = (CUBE_SIDE - 1) / 2
        voxels[place.case_id] = NoduleVoxels(
            channels=channels,
            occupancy=np.broadcast_to(np.float16(0.0), channels.shape[1:]),
            center=(middle, middle, middle),
            extension=0,
        )
        places.append(place)
    return places, voxels
