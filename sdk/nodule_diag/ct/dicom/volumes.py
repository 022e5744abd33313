"""Chooses the volume: a folder may hold several series, and a series several acquisitions, reconstructions or planes.

A single volume is taken. Among several volumes there is no guess: the error lists them, and how to request each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np

from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.dicom.places import STACK_SLICES, by_plane, count_of_places, crowded, heights_of, interleaved
from nodule_diag.ct.dicom.rules import ANOTHER_SERIES, Series
from nodule_diag.errors import CTError

Slices = list[SliceHeader]

OWN_UIDS = "each slice has a SeriesInstanceUID of its own: they were taken for one series"

LISTED_AT_MOST = 20
"""How many series or volumes an error lists."""

_TELLING: tuple[Callable[[SliceHeader], object], ...] = (
    lambda header: header.acquisition,
    lambda header: header.kernel,
    lambda header: (header.rows, header.columns, header.pixel_spacing_mm),
    lambda header: header.phase,
    lambda header: header.image_type,
    lambda header: header.time,
    lambda header: (header.acquisition, header.kernel, header.rows, header.columns, header.pixel_spacing_mm),
    lambda header: (header.acquisition, header.kernel, header.phase, header.image_type),
)
"""Properties that may distinguish interleaved volumes, tried one after the other."""


def one_series(series: Series) -> None:
    """Keep the only series that is a volume; two would be two reconstructions."""
    by_uid: dict[str, Slices] = {}
    for header in series.slices:
        by_uid.setdefault(header.series_uid, []).append(header)
    if series.wanted is not None and series.wanted not in by_uid:
        raise CTError(
            f"{series.source} holds no series {series.wanted!r}, only {_series_listing(by_uid)}",
            code="ct-unknown-series",
            hint="choose one of these with --series UID",
        )
    if len(by_uid) == 1:
        return
    volumes = [slices for slices in by_uid.values() if _may_be_a_volume(slices)]
    single = [header for slices in by_uid.values() if len(slices) == 1 for header in slices]
    if len(single) > len(series.slices) / 2 and _may_be_a_volume(single):
        series.warnings.append(OWN_UIDS)
        volumes.append(single)
    if len(volumes) != 1:
        raise CTError(
            f"{series.source} holds {len(by_uid)} series: {_series_listing(by_uid)}",
            code="ct-several-series",
            hint="choose one with --series UID",
        )
    series.keep(volumes[0], f"{ANOTHER_SERIES}, which is not a volume")


def _may_be_a_volume(slices: Slices) -> bool:
    """Whether some slices make a stack; damaged slices count, because damage must not decide the choice."""
    placed = [header for header in slices if _placed(header)]
    stacks = [count_of_places(stack) for stack in by_plane(placed)]
    return max([*stacks, sum(header.trouble is not None for header in slices)]) >= STACK_SLICES


def _placed(header: SliceHeader) -> bool:
    return all(values is not None and all(map(isfinite, values)) for values in (header.position_mm, header.orientation))


def one_volume(series: Series) -> None:
    """Keep the only volume of the series, or the requested one."""
    planes = by_plane(series.slices)
    stacks = [stack for plane in planes for stack in _apart(plane)]
    volumes = [stack for stack in stacks if count_of_places(stack) >= STACK_SLICES]
    if len(volumes) > 1:
        numbered = _numbered(volumes)
        if series.acquisition in numbered:
            series.keep(numbered[series.acquisition], "of another acquisition or reconstruction")
            return
        asked = "" if series.acquisition is None else f", but no number {series.acquisition}"
        raise CTError(
            f"{series.source} holds {len(volumes)} volumes in one series{asked}: {_listing(numbered)}",
            code="ct-several-acquisitions" if series.acquisition is None else "ct-unknown-acquisition",
            hint="choose one with --acquisition N (in Python: acquisition=N)",
        )
    chosen = max(volumes or stacks, key=len)
    plane = next(plane for plane in planes if any(header is chosen[0] for header in plane))
    series.keep(plane, "in another plane, such as a scout")
    series.keep(chosen, "of another acquisition or reconstruction")
    if series.acquisition is not None:
        _one_acquisition(series, series.acquisition)


def _one_acquisition(series: Series, number: int) -> None:
    """Keep one of several acquisitions that make one volume together, such as a chest and an abdomen."""
    there = sorted({header.acquisition for header in series.slices if header.acquisition is not None})
    if number not in there:
        others = ", ".join(map(str, there[:LISTED_AT_MOST])) or "one without a number"
        raise CTError(
            f"{series.source} holds no acquisition {number}, only {others}",
            code="ct-unknown-acquisition",
            hint="choose another with --acquisition N (in Python: acquisition=N), or leave it out",
        )
    series.keep((one for one in series.slices if one.acquisition == number), "of another acquisition")


def _apart(slices: Slices) -> list[Slices]:
    """The interleaved volumes, separated by the first property that distinguishes them; else all as one."""
    together = crowded(slices)
    for telling in _TELLING:
        groups: dict[object, Slices] = {}
        for header in slices:
            groups.setdefault(telling(header), []).append(header)
        stacks = list(groups.values())
        volumes = [stack for stack in stacks if count_of_places(stack) >= STACK_SLICES]
        if len(stacks) < 2 or not volumes or any(map(crowded, volumes)):
            continue
        if together or interleaved(volumes):
            return stacks
    return [slices]


def _numbered(volumes: Sequence[Slices]) -> dict[int, Slices]:
    """Each volume with its number for a request: its AcquisitionNumber if all are different, else 1, 2, ..."""
    acquisitions = [{header.acquisition for header in stack} for stack in volumes]
    numbers = [next(iter(found)) for found in acquisitions if len(found) == 1]
    known = [number for number in numbers if number is not None]
    if len(set(known)) == len(volumes):
        return dict(sorted(zip(known, volumes, strict=True), key=lambda item: item[0]))
    in_order = sorted(volumes, key=lambda stack: (stack[0].acquisition or 0, stack[0].time, stack[0].kernel))
    return dict(enumerate(in_order, start=1))


def _listing(numbered: dict[int, Slices]) -> str:
    """Each volume with its number, acquisition, kernel, size, spacing and time."""
    entries = []
    for number, slices in numbered.items():
        first = slices[0]
        found = sorted({str(header.acquisition) for header in slices if header.acquisition is not None})
        clock = f", at {first.time[:2]}:{first.time[2:4]}:{first.time[4:6]}" if len(first.time) == 6 else ""
        kernel = f"kernel {first.kernel}, " if first.kernel else ""
        said = "" if found in ([], [str(number)]) else f"acquisition {', '.join(found[:3])}, "
        entries.append(f"--acquisition {number} ({said}{kernel}{_size(slices)}{clock})")
    return _some(entries)


def _series_listing(by_uid: dict[str, Slices]) -> str:
    """Each series with its UID, description, modality and size, by series number."""
    entries = []
    for uid, slices in sorted(by_uid.items(), key=lambda item: (item[1][0].series_number, item[0])):
        first = slices[0]
        description = first.description or "no description"
        entries.append(f"{uid or 'no UID'} ({first.modality or 'no modality'}, {description!r}, {_size(slices)})")
    return _some(entries)


def _size(slices: Slices) -> str:
    """Number of voxels, and the slice spacing where the slices are a stack."""
    size = f"{slices[0].columns} x {slices[0].rows} x {len(slices)}"
    if len(slices) < STACK_SLICES or not all(map(_placed, slices)) or len(by_plane(slices)) > 1:
        return size
    spacing = float(np.median(np.diff(np.sort(heights_of(slices)))))
    return f"{size}, {spacing:.3g} mm apart" if spacing > 0 else size


def _some(entries: list[str]) -> str:
    """A list for a message, shortened where it is long."""
    more = f"; and {len(entries) - LISTED_AT_MOST} more" if len(entries) > LISTED_AT_MOST else ""
    return "; ".join(entries[:LISTED_AT_MOST]) + more
