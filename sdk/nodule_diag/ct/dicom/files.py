"""Finds the DICOM images among files, and reads what each header says, through GDCM."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import SimpleITK as sitk

from nodule_diag.ct.limits import MAX_FILES, check_payload
from nodule_diag.errors import CTError
from nodule_diag.process import in_order

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_LONG_LENGTH_VRS = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN")
_MAX_META_BYTES = 2**16

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
"""SOP classes CT, Enhanced CT and Legacy Converted Enhanced CT Image Storage (DICOM PS3.4, table B.5-1)."""

UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes whose pixel data takes the space the header says (DICOM PS3.5, annex A)."""

_GDCM = threading.Lock()


@contextmanager
def gdcm_reader(path: Path) -> Iterator[sitk.ImageFileReader]:
    """A reader of a DICOM file, for one thread of the process at a time.

    Nobody promises that GDCM may run in two threads, and crashes have been reported (SimpleITK's issues 805 and 1466):
    so looking at files, inflating, checking and copying run beside GDCM, but never GDCM beside itself.
    """
    with _GDCM:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        yield reader


@dataclass(frozen=True)
class DicomFile:
    """A file and the name to use for it in messages."""

    path: Path
    name: str


@dataclass(frozen=True)
class SliceHeader:
    """What the reader needs of one DICOM image; None or empty where the header says nothing.

    Attributes:
        file: Where it is.
        series_uid, sop_uid, modality, description, series_number, photometric: As in the header.
        columns, rows, frames: Size in pixels, and the number of frames.
        position_mm: (3,) ImagePositionPatient, LPS.
        orientation: (6,) ImageOrientationPatient: the directions of rows and of columns, LPS.
        pixel_spacing_mm: (row spacing, column spacing).
        gantry_tilt_deg: GantryDetectorTilt.
    """

    file: DicomFile
    series_uid: str
    sop_uid: str
    modality: str
    description: str
    series_number: str
    photometric: str
    columns: int
    rows: int
    frames: int
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    gantry_tilt_deg: float | None


def files_in(folder: Path) -> list[DicomFile]:
    """All regular files under a folder, in a fixed order.

    Raises:
        CTError: ``ct-too-many-files``.
    """
    found: list[DicomFile] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and path.is_file():
                found.append(DicomFile(path, str(path.relative_to(folder))))
        if len(found) > MAX_FILES:
            raise CTError(
                f"{folder} holds over {MAX_FILES:,} files",
                code="ct-too-many-files",
                hint="give the folder of one CT study",
            )
    return found


def slice_headers(files: list[DicomFile], *, source: str, threads: int) -> list[SliceHeader]:
    """The headers of all DICOM images among some files; reports, segmentations and other objects are passed over.

    Args:
        files: Any files.
        source: The folder or archive, for messages.
        threads: How many files are opened at once.

    Raises:
        CTError: ``ct-empty``, ``ct-truncated`` or ``ct-damaged``, for a file that should be a CT slice.
    """
    with in_order(partial(_sniff, source=source), files, threads=threads) as sniffed:
        found = ((file, meta) for file, meta in zip(files, sniffed, strict=True) if meta is not None)
        headers = (_header(file, meta, source) for file, meta in found)
        return [header for header in headers if header is not None]


@dataclass(frozen=True)
class _Meta:
    """The file meta group: what is in the file, and how."""

    sop_class: str
    transfer_syntax: str


def _header(file: DicomFile, meta: _Meta, source: str) -> SliceHeader | None:
    """What GDCM reads; None for a DICOM object that is no image."""
    with gdcm_reader(file.path) as reader:
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if meta.sop_class and meta.sop_class not in CT_CLASSES:
                return None
            raise CTError(
                f"{source}: {file.name} is truncated or damaged: GDCM cannot read it",
                code="ct-truncated",
                hint="copy or export the series again",
            ) from error
        header = _interpret(reader, file)
        bits = _text(reader, "0028|0100")
    if meta.transfer_syntax in UNCOMPRESSED:
        promised = header.rows * header.columns * header.frames * (int(bits) // 8 if bits.isdigit() else 2)
        check_payload(promised, file.path.stat().st_size, compressed=False, path=f"{source}: {file.name}")
    return header


def _sniff(file: DicomFile, *, source: str) -> _Meta | None:
    """The meta group of a DICOM file, empty when it has none; None when it is something else."""
    claims = file.name.lower().endswith(DICOM_SUFFIXES)
    with file.path.open("rb") as stream:
        start = stream.read(_PREAMBLE_BYTES + len(_MAGIC))
        if not start and claims:
            raise CTError(f"{source}: {file.name} is empty", code="ct-empty", hint="copy or export the series again")
        if start[_PREAMBLE_BYTES:] == _MAGIC:
            return _meta_group(stream)
    # Old files start at group 8 without a preamble.
    return _Meta("", "") if claims or start[:2] == b"\x08\x00" else None


def _meta_group(stream: BinaryIO) -> _Meta:
    """Group 2, which is always explicit little endian (DICOM PS3.10, 7.1)."""
    data = stream.read(_MAX_META_BYTES)
    found = {}
    at = 0
    while data[at : at + 2] == b"\x02\x00" and at + 12 <= len(data):
        element = int.from_bytes(data[at + 2 : at + 4], "little")
        if data[at + 4 : at + 6] in _LONG_LENGTH_VRS:
            length, at = int.from_bytes(data[at + 8 : at + 12], "little"), at + 12
        else:
            length, at = int.from_bytes(data[at + 6 : at + 8], "little"), at + 8
        found[element] = data[at : at + length].rstrip(b"\x00 ").decode("ascii", "replace")
        at += length
    return _Meta(sop_class=found.get(0x0002, ""), transfer_syntax=found.get(0x0010, ""))


def _interpret(reader: sitk.ImageFileReader, file: DicomFile) -> SliceHeader:
    size = reader.GetSize()
    frames = int(size[2]) if len(size) > 2 else 1
    tilt = _numbers(reader, "0018|1120", 1)
    return SliceHeader(
        file=file,
        series_uid=_text(reader, "0020|000e"),
        sop_uid=_text(reader, "0008|0018"),
        modality=_text(reader, "0008|0060"),
        description=_text(reader, "0008|103e"),
        series_number=_text(reader, "0020|0011"),
        photometric=_text(reader, "0028|0004"),
        columns=int(size[0]),
        rows=int(size[1]),
        frames=frames,
        position_mm=_numbers(reader, "0020|0032", 3),
        orientation=_numbers(reader, "0020|0037", 6),
        pixel_spacing_mm=_numbers(reader, "0028|0030", 2),
        gantry_tilt_deg=tilt[0] if tilt else None,
    )


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    """A header value, fit for a message: no padding, no control characters, no lone surrogates."""
    if not reader.HasMetaDataKey(tag):
        return ""
    value = str(reader.GetMetaData(tag)).encode("utf-8", "replace").decode("utf-8")
    return "".join(character for character in value if character.isprintable()).strip()


def _numbers(reader: sitk.ImageFileReader, tag: str, count: int) -> tuple[float, ...] | None:
    """A header value of several numbers; None when it is missing or is something else."""
    try:
        values = tuple(float(word) for word in _text(reader, tag).split("\\"))
    except ValueError:
        return None
    return values if len(values) == count else None
