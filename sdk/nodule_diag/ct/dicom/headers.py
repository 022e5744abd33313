"""What the header of each DICOM image says, read by pydicom without its pixels.

Values are taken as the bytes that stand in the file: pydicom's conversion warns of every value that breaks a rule, also
where nothing here depends on it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import isfinite, nan

from pydicom import uid
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset

from nodule_diag.ct.dicom.files import DicomFile, MemoryFile
from nodule_diag.ct.formats.registry import DICOM_FILE_SUFFIXES
from nodule_diag.ct.limits import check_payload
from nodule_diag.errors import CTError
from nodule_diag.process import in_order

CT_CLASSES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)

GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"
"""A private transfer syntax: an implicit little endian header before big endian pixels."""

NATIVE = (
    *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
    *(uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian),
)
"""Transfer syntaxes whose pixels stand in the file as they are (DICOM PS3.5, annex A)."""

HEADER_BYTES = (2**14, 2**18, 2**22)
"""How much of a file is read, inflated where it is deflated, until its pixels are found: enough for most, for nearly
all, and for all that is accepted."""

UNDEFINED_LENGTH = 0xFFFFFFFF

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_OLD_START = b"\x08\x00"
_META_GROUP = 2
_PIXEL_DATA = 0x7FE00010
_META_TAGS = {tag_for_keyword(word) or 0: word for word in ("MediaStorageSOPClassUID", "TransferSyntaxUID")}
_TAGS = {
    tag_for_keyword(word) or 0: word
    for word in (
        *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription"),
        *("GantryDetectorTilt", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID"),
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames"),
        *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
        *("PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    )
}
_NO_DICOM = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
    *(EOFError, OSError, struct.error, zlib.error),
)
"""What pydicom raises where bytes cannot be parsed."""


@dataclass(frozen=True)
class SliceHeader:
    """What is kept of one DICOM image; None or empty where the header says nothing.

    Attributes:
        file: Where it is.
        sop_class, sop_uid, study_uid, series_uid, frame_of_reference_uid: UIDs.
        modality, description, photometric: As in the header.
        series_number: Zero where there is none.
        columns, rows, frames: Size in pixels, and the number of frames, at least 1.
        position_mm: (3,) ImagePositionPatient, LPS.
        orientation: (6,) ImageOrientationPatient: the directions of rows and of columns, LPS.
        pixel_spacing_mm: (row spacing, column spacing).
        gantry_tilt_deg: GantryDetectorTilt; not a number where there is none.
        transfer_syntax: UID; implicit little endian, the standard's default, where the file does not say.
        deflated_from: Where the deflated part of the file begins; None where nothing is deflated.
        pixels_start: First byte of the pixel data in the file, or in what inflates from ``deflated_from``.
        pixels_length: Their bytes, or ``UNDEFINED_LENGTH`` for compressed frames.
        samples: Numbers a pixel.
        bits_allocated, bits_stored, high_bit, signed: As DICOM PS3.5, 8.1.1 has them.
        slope, intercept: HU = slope * stored + intercept.
    """

    file: DicomFile | MemoryFile
    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    photometric: str
    series_number: float
    columns: int
    rows: int
    frames: int
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    gantry_tilt_deg: float
    transfer_syntax: str
    deflated_from: int | None
    pixels_start: int
    pixels_length: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    slope: float
    intercept: float

    @property
    def pixel_bytes(self) -> int:
        """What all pixels take uncompressed, one number each."""
        return self.rows * self.columns * self.frames * self.bits_allocated // 8


def slice_headers(files: Sequence[DicomFile | MemoryFile], *, source: str, threads: int) -> list[SliceHeader | None]:
    """The headers of all DICOM images among some files.

    Args:
        files: Any files.
        source: The folder or archive, for messages.
        threads: How many files are looked at side by side.

    Returns:
        One for each file; None for what is no DICOM, and for reports and other DICOM objects without pixels.

    Raises:
        CTError: ``ct-empty``, ``ct-truncated`` or ``ct-damaged``, for a file that should be a CT slice.
    """
    with in_order(partial(_header, source=source), files, threads=threads) as headers:
        return list(headers)


def _header(file: DicomFile | MemoryFile, *, source: str) -> SliceHeader | None:
    name = f"{source}: {file.name}"
    claims = file.name.lower().endswith(DICOM_FILE_SUFFIXES)
    for count in HEADER_BYTES:
        head = bytes(file.part(0, count, check=False))
        if not head and claims:
            raise CTError(f"{name} is empty", code="ct-empty", hint="copy or export the series again")
        magic = head[_PREAMBLE_BYTES:].startswith(_MAGIC)  # old files begin without a preamble
        if not (magic or claims or head.startswith(_OLD_START)):
            return None
        elements = _Elements()
        try:
            elements.parse(head, _PREAMBLE_BYTES + len(_MAGIC) if magic else 0, limit=count)
        except _NO_DICOM:
            elements.pixels = None
        if elements.pixels or len(head) < count:
            break
    header = elements.header(file)
    if header is None and elements.text("MediaStorageSOPClassUID") not in ("", *CT_CLASSES):
        return None
    if header is None:
        raise CTError(
            f"{name} is truncated or damaged: it has no pixel data, or none behind a header that can be read",
            code="ct-truncated",
            hint="copy or export the series again",
        )
    _check_length(header, name)
    return header


def _check_length(header: SliceHeader, name: str) -> None:
    """Native pixels must all be there, and a value of known length must end within the file."""
    promised, length, size = header.pixel_bytes, header.pixels_length, header.file.size
    if length == UNDEFINED_LENGTH:
        return
    if header.deflated_from is not None:
        check_payload(promised, size, compressed=True, path=name)
    else:
        check_payload(max(length, promised), size - header.pixels_start, compressed=False, path=name)
    check_payload(promised, length, compressed=False, path=name)


class _Elements:
    """The elements of interest in the head of a file, as bytes."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.pixels: tuple[int, int] | None = None  # start and length of their data
        self.syntax = ""
        self.little = True
        self.deflated_from: int | None = None

    def parse(self, head: bytes, start: int, *, limit: int) -> None:
        """Read group 2, which is always explicit little endian (DICOM PS3.10, 7.1), and then the data set."""
        stream = BytesIO(head)
        stream.seek(start)
        self._read(stream, _META_TAGS, implicit=False, stop=lambda tag: tag >> 16 != _META_GROUP)
        syntax = self.syntax = self.text("TransferSyntaxUID") or uid.ImplicitVRLittleEndian
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            self.deflated_from = stream.tell()
            stream = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[self.deflated_from :], limit))
        self.little = syntax != uid.ExplicitVRBigEndian
        # pydicom sees for itself where a file that does not say is explicit.
        implicit = syntax in (uid.ImplicitVRLittleEndian, GE_BIG_ENDIAN_PIXELS)
        self._read(stream, _TAGS, implicit=implicit, stop=lambda tag: tag >= _PIXEL_DATA)

    def _read(self, stream: BytesIO, tags: dict[int, str], *, implicit: bool, stop: Callable[[int], bool]) -> None:
        def stop_when(tag: int, _: str | None, length: int) -> bool:
            if tag == _PIXEL_DATA:
                self.pixels = stream.tell(), length
            return stop(tag)

        found = read_dataset(stream, implicit, self.little, stop_when=stop_when, specific_tags=list(tags))
        for tag, word in tags.items():
            element = found.get_item(tag) if tag in found else None
            if isinstance(element, RawDataElement) and element.value:
                self.values[word] = element.value

    def text(self, word: str, *, encoding: str = "ascii") -> str:
        """A value fit for a message: no padding, no control characters, no lone surrogates."""
        value = self.values.get(word, b"").decode(encoding, "replace")
        return "".join(character for character in value if character.isprintable()).strip()

    def numbers(self, word: str, count: int) -> tuple[float, ...] | None:
        """A value of several numbers in text; None when it is missing or is something else."""
        try:
            values = tuple(float(part) for part in self.text(word).split("\\"))
        except ValueError:
            return None
        return values if len(values) == count else None

    def number(self, word: str, default: float = nan) -> float:
        """A value of one number in text; not a number where it is something else."""
        return (self.numbers(word, 1) or (nan,))[0] if self.text(word) else default

    def finite(self, word: str, default: float) -> float:
        """A value of one number in text; the default where it is anything else."""
        number = self.number(word)
        return number if isfinite(number) else default

    def integer(self, word: str, default: int = 0) -> int:
        """A value of two bytes."""
        value = self.values.get(word, b"")
        return int.from_bytes(value, "little" if self.little else "big") if len(value) == 2 else default

    def header(self, file: DicomFile | MemoryFile) -> SliceHeader | None:
        """All of it; None when there are no pixels."""
        if self.pixels is None:
            return None
        sets = [word for word in self.text("SpecificCharacterSet").split("\\") if word in python_encoding]
        description = self.text("SeriesDescription", encoding=python_encoding[sets[-1]] if sets else "latin-1")
        allocated = self.integer("BitsAllocated")
        stored = self.integer("BitsStored", allocated)
        return SliceHeader(
            file=file,
            sop_class=self.text("SOPClassUID"),
            sop_uid=self.text("SOPInstanceUID"),
            study_uid=self.text("StudyInstanceUID"),
            series_uid=self.text("SeriesInstanceUID"),
            frame_of_reference_uid=self.text("FrameOfReferenceUID"),
            modality=self.text("Modality"),
            description=description,
            series_number=self.finite("SeriesNumber", 0),
            photometric=self.text("PhotometricInterpretation"),
            columns=self.integer("Columns"),
            rows=self.integer("Rows"),
            frames=max(1, int(self.finite("NumberOfFrames", 1))),
            position_mm=self.numbers("ImagePositionPatient", 3),
            orientation=self.numbers("ImageOrientationPatient", 6),
            pixel_spacing_mm=self.numbers("PixelSpacing", 2),
            gantry_tilt_deg=self.finite("GantryDetectorTilt", nan),
            transfer_syntax=self.syntax,
            deflated_from=self.deflated_from,
            pixels_start=self.pixels[0],
            pixels_length=self.pixels[1],
            samples=self.integer("SamplesPerPixel", 1),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=self.integer("HighBit", stored - 1),
            signed=self.integer("PixelRepresentation") == 1,
            slope=self.number("RescaleSlope", 1.0) or 1.0,
            intercept=self.number("RescaleIntercept", 0.0),
        )
