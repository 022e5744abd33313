"""Selects the images of the volume by their headers.

A rule is a function that takes the `Series` from the previous rule, and sorts it, sets images aside or refuses it, with
a reason. The chain of all rules is in `nodule_diag.ct.dicom.series`; the choice among several volumes is in
`nodule_diag.ct.dicom.volumes`, and the geometry of slices in `nodule_diag.ct.dicom.stack`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import isfinite

from pydicom import uid

from nodule_diag.ct.dicom.headers import NO_DICOM, SliceHeader
from nodule_diag.ct.dicom_source import SetAside
from nodule_diag.errors import CTError

ANOTHER_SERIES = "another series"
_GRAYSCALE = ("MONOCHROME2", "")
_SCOUTS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_PROJECTIONS = {"MIP", "MINIP", "MNIP", "VRT", "PROJECTION"}
_IN_HU = ("", "HU", "HU_MOD", "US")
"""RescaleType of a CT in Hounsfield units, ``US`` (unspecified) by custom; others are mg/ml of iodine, for example."""


@dataclass
class Series:
    """The images that may be slices of one volume, and the files that were set aside.

    Attributes:
        source: The folder or archive, for messages.
        slices: The images that still count as slices.
        wanted: The requested SeriesInstanceUID.
        acquisition: The number of the requested volume in the series.
        set_aside: Files that are not part of the volume.
        warnings: Warnings for the user of a result.
    """

    source: str
    slices: list[SliceHeader]
    wanted: str | None = None
    acquisition: int | None = None
    set_aside: list[SetAside] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def keep(self, slices: Iterable[SliceHeader], why: str) -> None:
        """Keep these slices; the others are set aside."""
        slices = list(slices)
        kept = {id(header) for header in slices}
        self.set_aside += [SetAside(header.file.name, why) for header in self.slices if id(header) not in kept]
        self.slices = slices

    def refused(self, header: SliceHeader, why: str, *, code: str, hint: str) -> CTError:
        """The error for one of the slices."""
        return CTError(f"{self.source}: {header.file.name} {why}", code=code, hint=hint)

    def told(self) -> tuple[str, ...]:
        """All warnings. They contain no file names, which may name a patient: `set_aside` has the file names."""
        silent = {NO_DICOM, *([ANOTHER_SERIES] if self.wanted else [])}
        counted = Counter(one.why for one in self.set_aside if one.why not in silent)
        aside = (f"set aside {n} DICOM object{'s' if n > 1 else ''}: {why}" for why, n in counted.items())
        return (*aside, *self.warnings)


Rule = Callable[[Series], None]
"""Raises a `CTError` for images that it cannot set aside."""


@dataclass(frozen=True)
class Kind:
    """Images that are not slices of a CT: set aside if there are slices too, else refused.

    Attributes:
        found: Whether a header is of this kind.
        aside: A description for the warning, with ``{}`` for the value.
        alone: The same, for the error.
        value: The reason.
        code: The code of the error.
        hint: The hint of the error.
    """

    found: Callable[[SliceHeader], bool]
    aside: str
    alone: str
    value: Callable[[SliceHeader], str]
    code: str
    hint: str


def _words(header: SliceHeader) -> set[str]:
    r"""The words of ImageType, as in ``DERIVED\SECONDARY\CT_SOM5 MIP``."""
    return set(" ".join(header.image_type).replace("_", " ").split())


KINDS = (
    Kind(
        lambda header: header.modality != "CT" and not (header.trouble and not header.modality),
        "no CT, of modality {}",
        "is not a CT: it has modality {}",
        lambda header: header.modality or "not given",
        "ct-not-ct",
        "give a chest CT",
    ),
    Kind(
        lambda header: header.photometric not in _GRAYSCALE or header.samples != 1,
        "a picture in colour, such as a screenshot or a dose report",
        "is not a grey-scale CT image but {}",
        lambda header: header.photometric,
        "ct-not-scalar",
        "give the CT itself, not a secondary capture or a colour overlay",
    ),
    Kind(
        lambda header: not _SCOUTS.isdisjoint(_words(header)),
        "a scout",
        "is a scout image: ImageType {}",
        lambda header: "/".join(header.image_type),
        "ct-not-3d",
        "give the axial series of the scan",
    ),
    Kind(
        lambda header: not _PROJECTIONS.isdisjoint(_words(header)),
        "a projection (MIP, volume rendering)",
        "is a projection, not a slice: ImageType {}",
        lambda header: "/".join(header.image_type),
        "ct-not-hu",
        "give the slices that it was made from",
    ),
    Kind(
        lambda header: header.rescale_type.upper() not in _IN_HU,
        "not in Hounsfield units",
        "is not in Hounsfield units: RescaleType {}",
        lambda header: header.rescale_type,
        "ct-not-hu",
        "give the CT itself, not a map of iodine or of effective atomic number",
    ),
)
"""The order matters: the first kind that fits names the image."""


def the_series_asked_for(series: Series) -> None:
    """Keep the requested series first, so that faults of other series do not matter."""
    if series.wanted is not None and any(header.series_uid == series.wanted for header in series.slices):
        series.keep((one for one in series.slices if one.series_uid == series.wanted), ANOTHER_SERIES)


def slices_of_a_ct(series: Series) -> None:
    """Set aside images of other kinds: a network trained on Hounsfield units would answer for any image."""
    for kind in KINDS:
        others = [header for header in series.slices if not kind.found(header)]
        if not others:
            header = series.slices[0]
            raise series.refused(header, kind.alone.format(kind.value(header)), code=kind.code, hint=kind.hint)
        for value in {kind.value(header): None for header in series.slices if kind.found(header)}:
            why = kind.aside.format(value)
            series.keep((one for one in series.slices if one in others or kind.value(one) != value), why)


def placed_in_the_patient(series: Series) -> None:
    """Set aside pictures without a place; refuse a slice without a place, because it is missing in the volume."""
    lost = [(header, missing) for header in series.slices if (missing := _not_said(header))]
    placed = [header for header in series.slices if not _not_said(header)]
    sizes = {(header.rows, header.columns) for header in placed}
    for header, missing in lost:
        if header.trouble:
            raise header.trouble
        captured = header.sop_class == uid.SecondaryCaptureImageStorage
        if not placed or ((header.rows, header.columns) in sizes and not captured):
            why = f"has no usable {', '.join(missing)}"
            hint = "give the original series; a scout image or secondary capture is not a volume"
            raise series.refused(header, why, code="ct-no-orientation", hint=hint)
    series.keep(placed, "without a place in the patient, such as a screenshot")


def _not_said(header: SliceHeader) -> list[str]:
    placed = {
        "ImagePositionPatient": header.position_mm,
        "ImageOrientationPatient": header.orientation,
        "PixelSpacing": header.pixel_spacing_mm,
    }
    return [name for name, value in placed.items() if value is None or not all(map(isfinite, value))]


def whole(series: Series) -> None:
    """Refuse slices that are damaged, truncated, of a kind that cannot be read, or with bits read wrongly."""
    for header in series.slices:
        if header.trouble:
            raise header.trouble
        if header.representation not in (0, 1):
            why = f"has PixelRepresentation {header.representation}, which is neither 0 nor 1"
            raise series.refused(header, why, code="ct-damaged", hint="the header is damaged; export the series again")
        words = header.native or header.transfer_syntax == uid.RLELossless
        if not words and header.high_bit + 1 != header.bits_stored:
            # Decoders take the lowest bits whatever HighBit says.
            why = f"is compressed and has {header.bits_stored} bits stored up to bit {header.high_bit}"
            raise series.refused(header, why, code="ct-damaged", hint="export the series uncompressed")
    parts = {one.concatenation: set[str]() for one in series.slices if one.concatenation[0]}
    for header in series.slices:
        parts.setdefault(header.concatenation, set()).add(header.sop_uid)
    for (name, count), found in parts.items():
        if name and len(found) < count:
            series.warnings.append(f"{len(found)} of the {count} files of a concatenation are there: the CT is in part")


def no_copies(series: Series) -> None:
    """Use an image once if it is repeated with equal voxels; refuse different images with one UID."""
    seen: dict[tuple[object, ...], SliceHeader] = {}
    by_uid: dict[tuple[str, int | None], SliceHeader] = {}
    kept = []
    for header in series.slices:
        place = (header.position_mm, header.orientation, header.acquisition, header.kernel, header.phase)
        other = by_uid.get((header.sop_uid, header.frame)) if header.sop_uid else None
        other = other or seen.get(place)
        if other and _same_image(header, other):
            continue
        if header.sop_uid and (header.sop_uid, header.frame) in by_uid:
            twin = by_uid[header.sop_uid, header.frame].file.name
            why = f"and {twin} are duplicate slices: one SOPInstanceUID, and other voxels"
            raise series.refused(header, why, code="ct-duplicate-slices", hint="remove the one that is wrong")
        seen.setdefault(place, header)
        by_uid[header.sop_uid, header.frame] = header
        kept.append(header)
    series.keep(kept, "a copy of another")


def _same_image(header: SliceHeader, other: SliceHeader) -> bool:
    """Whether two images have the same voxels, by their bytes, at the same place."""
    mine = replace(header, file=other.file, sop_uid=other.sop_uid, pixels_start=other.pixels_start)
    if mine != replace(other, time=mine.time):
        return False
    count = header.pixels_length if header.native else header.file.size
    if header.deflated_from is None:
        left, right = (one.file.part(one.pixels_start, count) for one in (header, other))
    else:
        left, right = (one.file.part(0, one.file.size) for one in (header, other))
    return left == right


_IDENTITIES: dict[str, Callable[[SliceHeader], str]] = {
    "PatientID": lambda header: header.patient,
    "FrameOfReferenceUID": lambda header: header.frame_of_reference_uid,
}


def of_one_patient(series: Series) -> None:
    """Refuse more than one patient or frame of reference, which define where a voxel lies, and in whom."""
    for name, value in _IDENTITIES.items():
        most, first = _most(series.slices, value)
        for header in series.slices:
            if value(header) != most:
                said = f" ({value(header) or 'not given'} against {most})" if name != "PatientID" else ""
                why = f"has another {name} than {first.file.name}{said}: they do not belong together"
                hint = "remove what is of another patient or another scan; export the series again"
                raise series.refused(header, why, code="ct-inconsistent-slices", hint=hint)


def _most(slices: list[SliceHeader], value: Callable[[SliceHeader], object]) -> tuple[object, SliceHeader]:
    """The value that most slices have, and the first slice with this value."""
    values = [value(header) for header in slices]
    most = Counter(values).most_common(1)[0][0]
    return most, slices[values.index(most)]
