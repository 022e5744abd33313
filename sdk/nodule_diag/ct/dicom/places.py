"""The places of slices as numbers: directions, positions, heights along the normal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom.headers import SliceHeader

Floats = npt.NDArray[np.float64]

SAME_PLACE_MM = 0.01
"""Slices closer than this lie at the same place."""

OTHER_PLANE_COSINE = 0.7
"""Slices with more than 45 degrees between them are not of one stack: one is a scout or a reformat."""

GAP = 1.5
"""From this many usual distances on, a slice is missing: the distance is nearer to two than to one."""

STACK_SLICES = 3
"""Fewer slices at different places are not a volume: there are usually one or two scouts."""


def axes_of(slices: Sequence[SliceHeader]) -> Floats:
    """(3, 3) unit vectors along a row, along a column and along the normal, as rows: the median of all slices."""
    vectors = np.median([header.orientation for header in slices], axis=0).reshape(2, 3)
    axes = np.stack([*vectors, np.cross(*vectors)])
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    return np.asarray(axes / np.where(lengths > 0, lengths, 1.0))


def points_of(slices: Sequence[SliceHeader]) -> Floats:
    """(slices, 3) positions, LPS mm."""
    return np.array([header.position_mm for header in slices], dtype=np.float64)


def heights_of(slices: Sequence[SliceHeader]) -> Floats:
    """(slices,) positions along the normal, mm."""
    heights: Floats = points_of(slices) @ axes_of(slices)[2]
    return heights


def count_of_places(slices: Sequence[SliceHeader]) -> int:
    """The number of different heights of the slices of one plane."""
    gaps = np.diff(np.sort(heights_of(slices)))
    return 1 + int(np.count_nonzero(gaps >= SAME_PLACE_MM))


def crowded(slices: Sequence[SliceHeader]) -> bool:
    """Whether slices of one plane are at the same place, or so close that two stacks may be interleaved."""
    gaps = np.diff(np.sort(heights_of(slices)))
    return bool(gaps.size and gaps.min() < max(SAME_PLACE_MM, float(np.median(gaps)) / 2 - SAME_PLACE_MM))


def interleaved(stacks: Sequence[Sequence[SliceHeader]]) -> bool:
    """Whether slices of one plane lie between neighbours of another stack where none of its own is missing.

    A stack's usual distance is at most that of as many interleaved stacks. A few odd slices among even ones lie further
    apart, and are no stack.
    """
    heights = [np.sort(heights_of(stack)) for stack in stacks]
    together = np.unique(np.concatenate(heights))
    most = len(stacks) * float(np.diff(together).mean())
    for own in heights:
        gaps = np.diff(own)
        others = np.setdiff1d(together, own)
        above = np.searchsorted(own, others)
        between = gaps[above[(above > 0) & (above < len(own))] - 1]
        if np.count_nonzero(between < GAP * min(float(np.median(gaps)), most)) >= STACK_SLICES:
            return True
    return False


def by_plane(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices sorted into stacks of about the same plane, in the order of each stack's first slice."""
    planes: list[tuple[Floats, list[SliceHeader]]] = []
    known: dict[object, list[SliceHeader]] = {}
    for header in slices:
        if header.orientation not in known:
            normal = axes_of([header])[2]
            same = (members for other, members in planes if abs(float(normal @ other)) > OTHER_PLANE_COSINE)
            members = next(same, None)
            if members is None:
                members = []
                planes.append((normal, members))
            known[header.orientation] = members
        known[header.orientation].append(header)
    return [members for _, members in planes]
