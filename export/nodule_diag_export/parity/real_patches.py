"""Patches of real nodules, the same in every run: for the case base, and for the comparison of networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nodule_diag_export.errors import ExportError
from nodule_diag_training.data import Nodule, PatchSampler, SureLabel, TrainingData, case_generator

Float = NDArray[np.float32]

MOST_PATCHES = 256
"""Most patches that graphs and backends are compared on; together they are 512 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DiagnosedPatch:
    """A nodule with a diagnosis and the patch that the network sees of it.

    Attributes:
        nodule: The nodule that gives the name and the readers' scores: for a VOI with a cube, the VOI.
        sure: The nodule's diagnosis.
        patch: [2, 64, 64, 64] float32.
        from_cube: Whether the surroundings are the nodule's own.
    """

    nodule: Nodule
    sure: SureLabel
    patch: Float = field(repr=False)
    from_cube: bool


def diagnosed_nodules(nodules: Iterable[Nodule]) -> list[tuple[Nodule, SureLabel]]:
    """The nodules with a diagnosis, in the order of their ids. The cube of a VOI is left out: it is the same nodule."""
    named = (n for n in nodules if not n.is_cube or n.twin is None)
    return sorted(((n, n.sure) for n in named if n.sure is not None), key=lambda pair: pair[0].case_id)


def diagnosed_patches(data: TrainingData) -> Iterator[DiagnosedPatch]:
    """The patches of the diagnosed nodules, the same in every run.

    A nodule that is also a cube is seen with its own surroundings. Any other nodule is laid onto other patients'
    surroundings, chosen by a generator that depends on the nodule's name alone.

    Args:
        data: Data of all patients.

    Yields:
        One nodule after the other, in the order of their case ids.

    Raises:
        TrainingDataError: If voxels are missing or damaged.
        ExportError: If no nodule has a diagnosis.
    """
    by_id = {nodule.case_id: nodule for nodule in data.nodules}
    chosen = diagnosed_nodules(data.nodules)
    if not chosen:
        raise ExportError(
            f"no nodule of {data.name} has a diagnosis",
            hint="give a --store of diagnosed nodules too (train prepare sure)",
            code="index-no-cases",
        )
    seen_as = [(nodule, sure, nodule if nodule.twin is None else by_id[nodule.twin]) for nodule, sure in chosen]
    # VOIs need the surroundings of cubes. A store with thousands of whole nodules is not kept in memory for this.
    lenders = [n for n in data.nodules if n.is_cube] if any(not seen.is_cube for _, _, seen in seen_as) else []
    sampler = PatchSampler(data.voxels_of(lenders), lenders)
    for nodule, sure, seen in seen_as:
        source = data.voxels_of([seen])[seen.case_id]
        sample = sampler.place(source, case_generator(seen.case_id), patient_id=seen.patient_id)
        yield DiagnosedPatch(nodule=nodule, sure=sure, patch=sample.patch, from_cube=seen.is_cube)


def cube_patches(data: TrainingData) -> Float:
    """[N, 2, 64, 64, 64] float32: the nodules with their own surroundings, in the order of their case ids.

    If there are more than ``MOST_PATCHES``, this many are taken, spread over the list.

    Raises:
        TrainingDataError: If voxels are missing or damaged.
        ExportError: If there are no cubes.
    """
    cubes = sorted((nodule for nodule in data.nodules if nodule.is_cube), key=lambda nodule: nodule.case_id)
    if not cubes:
        raise ExportError(f"no nodule of {data.name} has its own surroundings", code="parity-no-patches")
    if len(cubes) > MOST_PATCHES:
        cubes = [cubes[round(i)] for i in np.linspace(0, len(cubes) - 1, MOST_PATCHES)]
    voxels = data.voxels_of(cubes)
    sampler = PatchSampler(voxels, cubes)
    placed = (
        sampler.place(voxels[cube.case_id], case_generator(cube.case_id), patient_id=cube.patient_id) for cube in cubes
    )
    return np.stack([sample.patch for sample in placed])
