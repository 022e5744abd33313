"""Positions: as a file states them, and, once the CT is known, in LPS millimetres."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nodule_diag.ct import CTVolume, Points, Space, lps_from_stored, to_lps
from nodule_diag.errors import CoordinateError, UsageError
from nodule_diag.exchange.outlines import Vectors, combined, shape_of
from nodule_diag.exchange.refusals import MAX_LISTED_FAULTS, UnreadableError, refused

XYZ = tuple[float, float, float]
_SHOWN_SERIES = 3
_SUFFIX = re.compile(r"\.(nii(\.gz)?|mh[ad]|nrrd|nhdr)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Position:
    """Where one nodule is.

    Attributes:
        id: Its name, unique in its file.
        xyz_lps_mm: LPS mm.
        source: The file, and the line or entry in it.
    """

    id: str
    xyz_lps_mm: XYZ
    source: str


class Region(NamedTuple):
    """A graphic that a report draws.

    Attributes:
        kind: DICOM Graphic Type.
        points: (N, 3) LPS mm; or (N, 2) columns and rows of an image, from the corner of its first pixel.
        image: SOPInstanceUID and frame number (1 where none is named) of that image; None for points in LPS mm.
    """

    kind: str
    points: Vectors
    image: tuple[str, int] | None = None


class Mark(NamedTuple):
    """One nodule as a file states it.

    Attributes:
        place: Its line or entry.
        xyz: Its position in the file's frame; None where ``regions`` on images give the position.
        name: Its name in the file; None where it has no name.
        series: SeriesInstanceUID of its CT; empty where the file does not say.
        frame: FrameOfReferenceUID; empty where the file does not say.
        regions: Graphics on images, which only the CT can place.
    """

    place: str
    xyz: XYZ | None
    name: str | None = None
    series: str = ""
    frame: str = ""
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class PositionFile:
    """What was read from one file; :meth:`on` places it in a CT.

    Attributes:
        path: The file.
        format: The file's format, in words.
        space: The frame that the file states; None where it states none and the caller has to.
        marks: One per nodule, in the order of the file; at least one.
        names_are_ids: Whether a repeated name is an error; otherwise the second one gets a number.
        warnings: What was skipped, in sentences.
    """

    path: Path
    format: str
    space: Space | None
    marks: tuple[Mark, ...]
    names_are_ids: bool = False
    warnings: tuple[str, ...] = ()

    def on(self, ct: CTVolume | None, *, space: Space | None = None, first: int = 1) -> tuple[Position, ...]:
        """Place the nodules.

        Args:
            ct: Their CT. None skips every check against the CT; pixel and voxel positions cannot be placed then.
            space: The frame of a file that states none; LPS when left out.
            first: The number of the first nodule. A nodule without a name gets its number as its id.

        Returns:
            One per nodule of this CT, in the order of the file.

        Raises:
            UsageError: when the file states another frame than ``space``, or the CT is missing and needed.
            CoordinateError: ``coordinate-other-series`` or ``coordinate-other-frame``, when the CT is another one.
        """
        if space is not None and self.space is not None and space != self.space:
            raise UsageError(
                f"{self.path} is {self.format}, whose positions are {self.space.upper()} mm, not {space}",
                hint="leave --space out: it is for --xyz and for lists that state no frame",
            )
        marks = self._of_series(ct)
        points = self._lps(ct, marks, self.space or space or "lps")
        ids = self._ids(marks, first)
        return tuple(
            Position(name, (x, y, z), f"{self.path}, {mark.place}")
            for name, mark, (x, y, z) in zip(ids, marks, points.tolist(), strict=True)
        )

    def possible_ids(self, *, first: int = 1) -> list[str]:
        """The ids that :meth:`on` gives; for a file that names series, all ids that it may give.

        Raises:
            UsageError: when an id occurs more than once.
        """
        if not any(mark.series for mark in self.marks):
            return self._ids(self.marks, first)
        numbers = map(str, range(first, first + len(self.marks)))
        return list(dict.fromkeys([*self._ids(self.marks, first, checked=False), *numbers]))

    def _ids(self, marks: Sequence[Mark], first: int, *, checked: bool = True) -> list[str]:
        """An id for each mark."""
        if not (self.names_are_ids and checked):
            return unique((mark.name for mark in marks), first=first)
        ids = [mark.name or str(number) for number, mark in enumerate(marks, start=first)]
        require_unlike(ids, source=f"{self.path}: ")
        return ids

    def _of_series(self, ct: CTVolume | None) -> Sequence[Mark]:
        """The marks of this CT's series, where the file names series."""
        named = {mark.series for mark in self.marks if mark.series}
        if not named:
            return self.marks
        known = _series_names(ct) if ct is not None else named
        if len(known) > 1 and ct is None:
            raise UsageError(f"{self.path} names {len(named)} series", hint="give the CT that its positions are for")
        found = [mark for mark in self.marks if mark.series in ("", *known)]
        if not found:
            shown = ", ".join(sorted(named)[:_SHOWN_SERIES]) + (", ..." if len(named) > _SHOWN_SERIES else "")
            raise CoordinateError(
                f"no position in {self.path} is of the series {' or '.join(map(repr, sorted(known)))}:"
                f" its {len(self.marks)} are of {shown}",
                code="coordinate-other-series",
                hint="give the CT of that series, named UID.mha or the like, or leave the column of the series out",
            )
        return found

    def _lps(self, ct: CTVolume | None, marks: Sequence[Mark], space: Space) -> Points:
        """(N, 3) LPS mm of the marks."""
        known = ct.dicom.frame_of_reference_uid if ct is not None and ct.dicom is not None else ""
        for frame in sorted({mark.frame for mark in marks if mark.frame}):
            if known and frame != known:
                raise CoordinateError(
                    f"the positions in {self.path} are in the frame of reference {frame}, the CT is in {known}",
                    code="coordinate-other-frame",
                    hint="give the CT that was marked, or bring the positions into its frame by registration",
                )
        points = np.array([mark.xyz or self._placed(ct, mark) for mark in marks], dtype=np.float64)
        if ct is not None:
            return to_lps(ct, points, space=space)
        if space == "voxel":
            raise UsageError(f"{self.path} has voxel positions", hint="give the CT too")
        return points * (-1.0, -1.0, 1.0) if space == "ras" else points

    def _placed(self, ct: CTVolume | None, mark: Mark) -> XYZ:
        """LPS mm of a mark that was drawn on images."""
        if ct is None or ct.dicom is None:
            raise UsageError(
                f"{self.path}, {mark.place} is drawn on DICOM images, and {ct.path if ct else 'no CT'} has none",
                hint="give the DICOM series that was marked",
            )
        try:
            shapes = [shape_of(region.kind, _in_space(ct, region)) for region in mark.regions]
        except UnreadableError as error:
            raise refused(self.path, [f"{mark.place}: {error}"]) from error
        x, y, z = combined(shapes).tolist()
        return x, y, z


def unique(names: Iterable[str | None], *, first: int) -> list[str]:
    """A unique name for each: its own, with a number where it is repeated, or its number."""
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    found: list[str] = []
    for number, name in enumerate(names, start=first):
        chosen = base = name or str(number)
        while chosen in taken:
            counts[base] += 1
            chosen = f"{base} ({counts[base] + 1})"
        taken.add(chosen)
        found.append(chosen)
    return found


def require_unlike(ids: Iterable[str], *, source: str = "") -> None:
    """Refuse ids that occur more than once.

    Raises:
        UsageError: with the repeated ids.
    """
    repeated = sorted(name for name, count in Counter(ids).items() if count > 1)
    if repeated:
        shown = ", ".join(repeated[:MAX_LISTED_FAULTS]) + (", ..." if len(repeated) > MAX_LISTED_FAULTS else "")
        raise UsageError(
            f"{source}the nodule id {shown} stands more than once", hint="give each nodule an id of its own"
        )


def _series_names(ct: CTVolume) -> set[str]:
    """The name of the CT's series: its UID, or else the name of its file."""
    return {ct.series_uid or _SUFFIX.sub("", Path(ct.path).name)}


def _in_space(ct: CTVolume, region: Region) -> Vectors:
    """(N, 3) LPS mm of a region.

    Raises:
        CoordinateError: when its image is not a slice of the CT.
    """
    if region.image is None:
        return region.points
    uid, frame = region.image
    known = ct.dicom.slices if ct.dicom else ()
    slices = [one for one in known if one.sop_uid == uid and one.frame in (None, frame)]
    if len(slices) != 1:
        raise CoordinateError(
            f"a region is drawn on frame {frame} of image {uid}, which is not a slice of the CT",
            code="coordinate-other-series",
            hint="give the DICOM series that was marked",
        )
    # The middle of the first pixel is (0.5, 0.5): PS3.3, C.18.6.1.
    first, along_row, along_column = lps_from_stored(ct, [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
    columns, rows = (region.points - 0.5).T
    axes = np.outer(columns, along_row - first) + np.outer(rows, along_column - first)
    return np.asarray(np.asarray(slices[0].position_xyz_mm) + axes)
