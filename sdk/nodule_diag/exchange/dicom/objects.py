"""A DICOM object in memory: checked, limited in size, parsed by pydicom, and its values read safely."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence as ItemSequence

from nodule_diag.errors import UsageError
from nodule_diag.exchange.dicom.structure import Structure
from nodule_diag.exchange.refusals import UnreadableError, refused
from nodule_diag.process import quiet_pydicom
from nodule_diag.tables import MAX_BYTES

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_OLD_STARTS = (b"\x02\x00\x00\x00", b"\x02\x00\x02\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x16\x00")
MAX_TEXT = 256
"""Characters of a name."""
MAX_NUMBER = 1e6
"""No coordinate, in mm or pixels, and no count is larger; a larger number would overflow in the centroid."""
UNPARSED = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
    *(EOFError, OSError, NotImplementedError, RuntimeError, struct.error, zlib.error),
)
"""The exceptions of pydicom and its decoders for invalid values."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file, with a preamble or, in old files, without."""
    return data[_PREAMBLE_BYTES:].startswith(_MAGIC) or data.startswith(_OLD_STARTS)


def parsed(path: Path, data: bytes) -> Dataset:
    """A DICOM file as a data set with a checked structure.

    Raises:
        UsageError: for a damaged file.
    """
    try:
        with quiet_pydicom():
            return _parsed(data)
    except UNPARSED as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UsageError:
    """The error for a DICOM file that cannot be used."""
    if isinstance(error, UsageError):
        return error
    why = str(error) if isinstance(error, UnreadableError) else f"{type(error).__name__}: {error}"
    return refused(path, [f"not a DICOM object that can be read: {why}"], hint="export it again")


def _parsed(data: bytes) -> Dataset:
    stream = BytesIO(data)
    if data[_PREAMBLE_BYTES:].startswith(_MAGIC):
        stream.seek(_PREAMBLE_BYTES + len(_MAGIC))
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = text(meta, "TransferSyntaxUID") or uid.ImplicitVRLittleEndian
    body = memoryview(data)[stream.tell() :].tobytes()
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        body = inflater.decompress(body, MAX_BYTES)
        if not inflater.eof:
            raise UnreadableError(f"its compressed part is cut, or holds more than {MAX_BYTES} bytes")
    Structure(body, syntax).check()
    implicit, little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    found = read_dataset(BytesIO(body), implicit, little)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = uid.UID(syntax)
    return found


def items(data: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is missing."""
    value = data.get(keyword)
    return list(value) if isinstance(value, ItemSequence) else []


def item(data: Dataset, keyword: str) -> Dataset:
    """The first item of a sequence; an empty one where there is none."""
    return next(iter(items(data, keyword)), Dataset())


def text(data: Dataset, keyword: str) -> str:
    """A value as one printable line; empty where it is missing."""
    value = data.get(keyword)
    line = "" if value is None else str(value)
    return "".join(character for character in line if character.isprintable()).strip()[:MAX_TEXT]


def numbers(data: Dataset, keyword: str, count: int | None = None) -> list[float]:
    """The numbers of a value.

    Raises:
        UnreadableError: where a number is missing, not finite or absurd, or there are not ``count`` numbers.
    """
    value = data.get(keyword)
    many = [] if value is None else [value] if isinstance(value, str | int | float) else list(value)
    found = [float(one) for one in many]
    if not all(abs(one) <= MAX_NUMBER for one in found) or (len(found) != count if count is not None else not found):
        raise UnreadableError(f"its {keyword} = {str(value)[:60]} is not {count or 'a list of'} numbers")
    return found


def integer(data: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number.

    Raises:
        UnreadableError: where it is missing, without a default, or is not a whole number.
    """
    value = data.get(keyword)
    if value is None and default is not None:
        return default
    if value is None or int(value) != float(value):
        raise UnreadableError(f"its {keyword} = {value} is not a whole number")
    return int(value)
