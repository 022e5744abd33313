"""The header of each DICOM image, read without its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan

from pydicom import uid

from nodule_diag.ct.dicom.bounds import NOT_PARSED, Allowance
from nodule_diag.ct.dicom.elements import GE_BIG_ENDIAN_PIXELS, Elements
from nodule_diag.ct.dicom.files import DicomFile
from nodule_diag.ct.formats.registry import DICOM_FILE_SUFFIXES
from nodule_diag.ct.limits import check_payload
from nodule_diag.errors import CTError
from nodule_diag.process import in_order

__all__ = ["GE_BIG_ENDIAN_PIXELS", "NATIVE", "UNDEFINED_LENGTH", "SliceHeader", "image_headers"]

CT_CLASSES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)

NATIVE = (
    *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
    *(uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian),
)
"""Transfer syntaxes with uncompressed pixels (DICOM PS3.5, annex A)."""

HEADER_BYTES = (2**14, 2**18, 2**22)
"""How much of a file is read, inflated where it is deflated, until its pixels are found: enough for most files, for
nearly all, and for all accepted files."""

MULTI_FRAME_BYTES = (2**24, 2**27)
"""Further steps for many frames: each frame has its own header of 1 to 40 kB before the pixels."""

UNDEFINED_LENGTH = 0xFFFFFFFF

NO_DICOM = "no image"
"""Why a file that is not DICOM is set aside."""

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_OLD_STARTS = (b"\x08\x00", b"\x02\x00")
"""The start of files without a preamble: the data set, or group 2."""


@dataclass(frozen=True)
class SliceHeader:
    """The kept data of one DICOM image, or of one of its frames; None or empty where the header has no value.

    Attributes:
        file: Its file.
        sop_class, sop_uid, study_uid, series_uid, frame_of_reference_uid: UIDs.
        modality, description, photometric, kernel, rescale_type: As in the header.
        patient: PatientID, or PatientName where PatientID is empty; never part of a message.
        image_type: ImageType, in capitals.
        series_number: Zero where there is none.
        acquisition: AcquisitionNumber; None where there is none.
        time: AcquisitionTime, HHMMSS.
        phase: Other properties that distinguish frames at one place: temporal position, stack.
        columns, rows, frames: Size in pixels, and the number of frames, at least 1.
        frame: Which frame of its file it is, from 1; None for a single image.
        position_mm: (3,) ImagePositionPatient, LPS.
        orientation: (6,) ImageOrientationPatient: the directions of rows and of columns, LPS.
        pixel_spacing_mm: (row spacing, column spacing).
        thickness_mm: SliceThickness; NaN where there is none.
        gantry_tilt_deg: GantryDetectorTilt; NaN where there is none.
        concatenation: ConcatenationUID, and its number of files.
        transfer_syntax: UID; implicit little endian, the standard's default, where the file does not say.
        deflated_from: Where the deflated part of the file begins; None where nothing is deflated.
        pixels_start: First byte of the pixel data in the file, or in the inflated data from ``deflated_from``.
        pixels_length: Their bytes, or ``UNDEFINED_LENGTH`` for compressed frames.
        samples: Numbers per pixel.
        bits_allocated, bits_stored, high_bit, representation: As in DICOM PS3.5, 8.1.1.
        padding: The lowest and the highest stored value that mean no pixel; None where the header declares none.
        slope, intercept: HU = slope * stored + intercept.
        lossy: Whether the image was ever compressed with loss.
        lossy_ratio: The compression ratio; NaN where the header does not state it.
        trouble: Why it must not be used as a slice.
    """

    file: DicomFile
    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    photometric: str
    patient: str
    kernel: str
    rescale_type: str
    image_type: tuple[str, ...]
    series_number: float
    acquisition: int | None
    time: str
    phase: tuple[str, ...]
    columns: int
    rows: int
    frames: int
    frame: int | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    thickness_mm: float
    gantry_tilt_deg: float
    concatenation: tuple[str, int]
    transfer_syntax: str
    deflated_from: int | None
    pixels_start: int
    pixels_length: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    representation: int
    padding: tuple[int, int] | None
    slope: float
    intercept: float
    lossy: bool
    lossy_ratio: float
    trouble: CTError | None = None

    @property
    def signed(self) -> bool:
        """Whether stored values are two's complement."""
        return self.representation == 1

    @property
    def pixel_bytes(self) -> int:
        """The uncompressed bytes of all pixels, with one number per pixel."""
        return self.rows * self.columns * self.frames * self.bits_allocated // 8

    @property
    def native(self) -> bool:
        """Whether the pixels are not compressed, except by deflating the whole file."""
        return self.transfer_syntax in NATIVE and self.pixels_length != UNDEFINED_LENGTH


Found = tuple[SliceHeader, ...] | str
"""The images in a file, or a word for another kind of file."""


Frames = Callable[[SliceHeader, Elements, str], tuple[SliceHeader, ...]]
"""Splits an image of many frames, given its file's name: `nodule_diag.ct.dicom.frames`."""


def image_headers(files: Sequence[DicomFile], *, source: str, threads: int, frames: Frames) -> list[Found]:
    """The headers of all DICOM images among some files.

    Args:
        files: Any files.
        source: The folder or archive, for messages.
        threads: How many files are read at once.
        frames: Splits an image of many frames.

    Returns:
        The content of each file. A damaged CT slice has its ``trouble`` in the header.

    Raises:
        CTError: ``ct-empty`` or ``ct-truncated``, for a file that may be a CT slice of any series;
            ``ct-too-many-elements``.
    """
    work = partial(_header, source=source, frames=frames, allowance=Allowance())
    with in_order(work, files, threads=threads) as headers:
        return list(headers)


def _header(file: DicomFile, *, source: str, frames: Frames, allowance: Allowance) -> Found:
    name = f"{source}: {file.name}"
    claims = file.name.lower().endswith(DICOM_FILE_SUFFIXES)
    counts, elements = [*HEADER_BYTES], Elements(allowance)
    while counts:
        count = counts.pop(0)
        head = bytes(file.part(0, count, check=False))
        if not head and claims:
            raise CTError(f"{name} is empty", code="ct-empty", hint="copy or export the series again")
        magic = head[_PREAMBLE_BYTES:].startswith(_MAGIC)  # old files begin without a preamble
        if not (magic or claims or head.startswith(_OLD_STARTS)):
            return NO_DICOM
        elements = Elements(allowance)
        try:
            elements.parse(head, _PREAMBLE_BYTES + len(_MAGIC) if magic else 0, limit=count)
        except NOT_PARSED:
            elements.pixels = None
            allowance.check(source)
        if elements.pixels or len(head) < count:
            break
        if not counts and count < MULTI_FRAME_BYTES[0] and elements.finite("NumberOfFrames", 1) > 1:
            counts += MULTI_FRAME_BYTES
    sop_class = elements.text("SOPClassUID") or elements.text("MediaStorageSOPClassUID")
    if sop_class == uid.MediaStorageDirectoryStorage:  # DICOMDIR: the index of a disc
        return NO_DICOM
    header = _kept(elements, file, sop_class)
    if elements.pixels is None:
        known = elements.whole or uid.UID(sop_class).name != sop_class
        if sop_class and sop_class not in CT_CLASSES and known:
            return f"a DICOM object without an image ({header.modality or uid.UID(sop_class).name})"
        trouble = CTError(
            f"{name} is truncated or damaged: it has no pixel data, or none behind a header that can be read",
            code="ct-truncated",
            hint="copy or export the series again",
        )
        if header.series_uid:
            # Its other values may be damaged too: it must not be set aside as a picture.
            modality = "CT" if sop_class in CT_CLASSES else ""
            header = replace(header, modality=modality, photometric="", samples=1, image_type=(), rescale_type="")
            return (replace(header, trouble=trouble),)
        if magic or claims:
            raise trouble
        return NO_DICOM
    try:
        _check_length(header, name)
        if header.frames > 1 or sop_class in CT_CLASSES[1:]:
            return frames(header, elements, name)
    except CTError as trouble:
        return (replace(header, trouble=trouble),)
    return (header,)


def _check_length(header: SliceHeader, name: str) -> None:
    """Check that native pixels are complete, and that a value of known length ends within the file."""
    promised, length, size = header.pixel_bytes, header.pixels_length, header.file.size
    if length == UNDEFINED_LENGTH:
        return
    if header.deflated_from is not None:
        check_payload(promised, size, compressed=True, path=name)
    else:
        check_payload(max(length, promised), size - header.pixels_start, compressed=False, path=name)
    check_payload(promised, length, compressed=False, path=name)


def _kept(elements: Elements, file: DicomFile, sop_class: str) -> SliceHeader:
    """The kept header; with a length of zero where there are no pixels."""
    allocated = elements.integer("BitsAllocated")
    stored = elements.integer("BitsStored", allocated)
    acquisition = elements.number("AcquisitionNumber")
    start, length = elements.pixels or (0, 0)
    return SliceHeader(
        file=file,
        sop_class=sop_class,
        sop_uid=elements.text("SOPInstanceUID"),
        study_uid=elements.text("StudyInstanceUID"),
        series_uid=elements.text("SeriesInstanceUID"),
        frame_of_reference_uid=elements.text("FrameOfReferenceUID"),
        modality=elements.text("Modality"),
        description=elements.prose("SeriesDescription"),
        photometric=elements.text("PhotometricInterpretation"),
        patient=elements.text("PatientID") or elements.prose("PatientName"),
        kernel=elements.text("ConvolutionKernel"),
        rescale_type=elements.text("RescaleType"),
        image_type=tuple(elements.text("ImageType").upper().split("\\")),
        series_number=elements.finite("SeriesNumber", 0),
        acquisition=int(acquisition) if abs(acquisition) < 2**31 else None,
        time=elements.text("AcquisitionTime")[:6],
        phase=(elements.text("TemporalPositionIdentifier"),),
        columns=elements.integer("Columns"),
        rows=elements.integer("Rows"),
        frames=max(1, int(elements.finite("NumberOfFrames", 1))),
        frame=None,
        position_mm=elements.numbers("ImagePositionPatient", 3),
        orientation=elements.numbers("ImageOrientationPatient", 6),
        pixel_spacing_mm=elements.numbers("PixelSpacing", 2),
        thickness_mm=elements.finite("SliceThickness", nan),
        gantry_tilt_deg=elements.finite("GantryDetectorTilt", nan),
        concatenation=(elements.text("ConcatenationUID"), elements.integer("InConcatenationTotalNumber")),
        transfer_syntax=elements.syntax,
        deflated_from=elements.deflated_from,
        pixels_start=start,
        pixels_length=length,
        samples=elements.integer("SamplesPerPixel", 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=elements.integer("HighBit", stored - 1),
        representation=elements.integer("PixelRepresentation"),
        padding=_padding(elements),
        slope=elements.number("RescaleSlope", 1.0) or 1.0,
        intercept=elements.number("RescaleIntercept", 0.0),
        lossy=elements.text("LossyImageCompression") == "01",
        lossy_ratio=elements.finite("LossyImageCompressionRatio", nan),
    )


def _padding(elements: Elements) -> tuple[int, int] | None:
    """The range of padding (PS3.3, C.7.5.1.1.2), signed where the pixels are."""
    words = [elements.integer(word, -1) for word in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if words[0] < 0:
        return None
    signed = elements.integer("PixelRepresentation") == 1
    values = [word - 2**16 if signed and word >= 2**15 else word for word in words if word >= 0]
    return min(values), max(values)
