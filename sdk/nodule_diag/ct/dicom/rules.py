"""Which images are of the volume, by what their headers say they are.

A rule is one function that takes the `Series` as the rules before it left it, and sorts it, sets slices aside or
refuses it, saying why. The chain of all rules is in `nodule_diag.ct.dicom.series`; those on how slices lie are in
`nodule_diag.ct.dicom.stack`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite

from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.dicom_source import SetAside
from nodule_diag.errors import CTError

_GRAYSCALE = ("MONOCHROME2", "")


@dataclass
class Series:
    """The images that may be slices of one volume, and what was set aside on the way.

    Attributes:
        source: The folder or archive, for messages.
        slices: Still taken for slices.
        wanted: The SeriesInstanceUID that was asked for.
        set_aside: What is not of the volume.
    """

    source: str
    slices: list[SliceHeader]
    wanted: str | None = None
    set_aside: list[SetAside] = field(default_factory=list)

    def keep(self, slices: list[SliceHeader], why: str) -> None:
        """Go on with these slices; the others are set aside."""
        kept = {id(header) for header in slices}
        self.set_aside += [SetAside(header.file.name, why) for header in self.slices if id(header) not in kept]
        self.slices = slices

    def refused(self, header: SliceHeader, why: str, *, code: str, hint: str) -> CTError:
        """The error for one of the slices."""
        return CTError(f"{self.source}: {header.file.name} {why}", code=code, hint=hint)


Rule = Callable[[Series], None]
"""Raises a `CTError` for what it cannot set aside."""


def one_series(series: Series) -> None:
    """Keep the series that was asked for, or the only one: two series are two reconstructions, and nobody may guess."""
    by_uid: dict[str, list[SliceHeader]] = {}
    for header in series.slices:
        by_uid.setdefault(header.series_uid, []).append(header)
    if series.wanted is None and len(by_uid) > 1:
        raise CTError(
            f"{series.source} holds {len(by_uid)} series: {_listing(by_uid)}",
            code="ct-several-series",
            hint="choose one with --series UID",
        )
    if series.wanted is not None and series.wanted not in by_uid:
        raise CTError(
            f"{series.source} holds no series {series.wanted!r}, only {_listing(by_uid)}",
            code="ct-unknown-series",
            hint="choose one of these with --series UID",
        )
    series.keep(series.slices if series.wanted is None else by_uid[series.wanted], "another series")


def only_ct(series: Series) -> None:
    """Every image is a CT: a network trained on Hounsfield units answers anything, so it must not be asked."""
    for header in series.slices:
        if header.modality != "CT":
            why = f"is not a CT: it has modality {header.modality or 'not given'}"
            raise series.refused(header, why, code="ct-not-ct", hint="give a chest CT")


def single_frames(series: Series) -> None:
    """Every image is one slice: the geometry of multi-frame images stands elsewhere in their headers."""
    for header in series.slices:
        if header.frames > 1:
            why = f"is a multi-frame image of {header.frames} frames"
            hint = "convert the enhanced CT to classic single-frame DICOM or to NIfTI"
            raise series.refused(header, why, code="ct-multi-frame", hint=hint)


def one_number_a_pixel(series: Series) -> None:
    """Every image is grey: colour is a picture of a CT, such as a screenshot or a dose report."""
    for header in series.slices:
        if header.photometric not in _GRAYSCALE or header.samples != 1:
            why = f"is not a grey-scale CT image but {header.photometric}"
            hint = "give the CT itself, not a secondary capture or a colour overlay"
            raise series.refused(header, why, code="ct-not-scalar", hint=hint)


def placed_in_the_patient(series: Series) -> None:
    """Every image says where it lies: without that there is no volume."""
    for header in series.slices:
        placed = {
            "ImagePositionPatient": header.position_mm,
            "ImageOrientationPatient": header.orientation,
            "PixelSpacing": header.pixel_spacing_mm,
        }
        missing = [name for name, value in placed.items() if value is None or not all(map(isfinite, value))]
        if missing:
            why = f"has no usable {', '.join(missing)}"
            hint = "give the original series; a scout image or secondary capture is no volume"
            raise series.refused(header, why, code="ct-no-orientation", hint=hint)


def no_copies(series: Series) -> None:
    """No image is there twice, under two file names."""
    seen: dict[str, str] = {}
    for header in series.slices:
        if header.sop_uid and header.sop_uid in seen:
            why = f"and {seen[header.sop_uid]} are the same image: duplicate slices"
            raise series.refused(header, why, code="ct-duplicate-slices", hint="remove the copies")
        seen[header.sop_uid] = header.file.name


def _listing(by_uid: dict[str, list[SliceHeader]]) -> str:
    """Each series with its UID, description, modality and size, by series number."""
    entries = []
    for uid, slices in sorted(by_uid.items(), key=lambda item: (item[1][0].series_number, item[0])):
        first = slices[0]
        size = f"{first.columns} x {first.rows} x {sum(header.frames for header in slices)}"
        description = first.description or "no description"
        entries.append(f"{uid or 'no UID'} ({first.modality or 'no modality'}, {description!r}, {size})")
    return "; ".join(entries)
