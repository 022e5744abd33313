"""All voxels at 0.5 mm in one array, made once with every core and then shared by the runs.

A voxel has both windows side by side, so that one read of 4 bytes fetches both.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_day.carry import Carry, read_block, read_carry
from nodule_diag_training.data import (
    CUBE_SPACING_MM,
    EXTENSION,
    LungPlace,
    NoduleVoxels,
    boxes_beside,
    positions_at_half_mm,
)

CHANNELS, OCCUPANCY, FACTS = "channels.npy", "occupancy.npy", "facts.json"
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The place of a volume in the array, and what its draws need to know.

    Attributes:
        base: Index of its first voxel.
        shape: zyx, at 0.5 mm.
        center: The nodule's centre, zyx.
        extension: Voxels at each face that are continued rather than measured.
        boxes: The boxes beside the nodule (``data.lung.boxes_beside``), as (start, stop) of each axis.
    """

    base: int
    shape: tuple[int, int, int]
    center: tuple[float, float, float]
    extension: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class Store:
    """All voxels on a device.

    Attributes:
        channels: [N] int32, each with two float16: lung and mediastinal window.
        occupancy: [N] float16.
        volumes: By case id.
    """

    channels: Tensor
    occupancy: Tensor
    volumes: dict[str, Volume]


def prepare(carried: Path, folder: Path, *, processes: int) -> int:
    """Unpack and resample everything into ``folder``.

    Returns:
        The number of voxels.

    Raises:
        TrainingDataError: If the carried folder is damaged.
    """
    carry = read_carry(carried)
    bases: dict[str, int] = {}
    total = 0
    for block in carry.blocks:
        for own in block["volumes"]:
            bases[own["case_id"]] = total
            total += int(np.prod(_shape(carry, own)))
    folder.mkdir(parents=True, exist_ok=True)
    np.lib.format.open_memmap(folder / CHANNELS, mode="w+", dtype=np.float16, shape=(total, 2))
    np.lib.format.open_memmap(folder / OCCUPANCY, mode="w+", dtype=np.float16, shape=(total,))
    jobs = [(carried, folder, block, bases) for block in carry.blocks]
    volumes: dict[str, Any] = {}
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for found in pool.imap_unordered(_fill, jobs):
            volumes |= found
    (folder / FACTS).write_text(json.dumps(volumes))
    return total


def load_store(folder: Path, device: torch.device) -> Store:
    """Load what :func:`prepare` made, onto a device."""
    pairs = np.load(folder / CHANNELS, mmap_mode="c").reshape(-1).view(np.int32)
    occupancy = np.load(folder / OCCUPANCY, mmap_mode="c")
    volumes = {case_id: _volume(facts) for case_id, facts in json.loads((folder / FACTS).read_text()).items()}
    return Store(
        channels=torch.from_numpy(pairs).to(device), occupancy=torch.from_numpy(occupancy).to(device), volumes=volumes
    )


def _volume(facts: dict[str, Any]) -> Volume:
    boxes = tuple(cast("Box", tuple((low, high) for low, high in box)) for box in facts["boxes"])
    return Volume(
        base=facts["base"],
        shape=cast("tuple[int, int, int]", tuple(facts["shape"])),
        center=cast("tuple[float, float, float]", tuple(facts["center"])),
        extension=facts["extension"],
        boxes=boxes,
    )


def _shape(carry: Carry, own: dict[str, Any]) -> tuple[int, ...]:
    nodule = carry.nodules[own["case_id"]]
    extension = 0 if nodule.is_cube else EXTENSION
    spacing = CUBE_SPACING_MM if nodule.is_cube else own["spacing_zyx_mm"]
    return tuple(
        len(positions_at_half_mm(size, step, extension)) for size, step in zip(own["shape"], spacing, strict=True)
    )


def _fill(job: tuple[Path, Path, dict[str, Any], dict[str, int]]) -> dict[str, Any]:
    carried, folder, block, bases = job
    nodules = read_carry(carried).nodules
    channels = np.load(folder / CHANNELS, mmap_mode="r+")
    occupancy = np.load(folder / OCCUPANCY, mmap_mode="r+")
    facts = {}
    for case_id, voxels in read_block(carried, block, nodules):
        base, shape = bases[case_id], voxels.channels.shape[1:]
        stop = base + int(np.prod(shape))
        channels[base:stop] = voxels.channels.reshape(2, -1).T
        occupancy[base:stop] = np.reshape(voxels.occupancy, -1)
        facts[case_id] = {
            "base": base,
            "shape": shape,
            "center": voxels.center,
            "extension": voxels.extension,
            "boxes": [] if isinstance(nodules[case_id], LungPlace) else _boxes(voxels),
        }
    return facts


def _boxes(voxels: NoduleVoxels) -> list[list[tuple[int, int]]]:
    return [[(side.start, side.stop) for side in box] for box in boxes_beside(voxels)]


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1]), Path(sys.argv[2]), processes=len(os.sched_getaffinity(0))), "voxels")
