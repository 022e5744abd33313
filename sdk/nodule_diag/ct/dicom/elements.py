"""The needed elements in the head of a DICOM file, as raw bytes.

pydicom finds the elements but does not convert them: its conversion warns of every value that breaks a rule, even where
the value does not matter here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from math import isfinite, nan

from pydicom import uid
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from nodule_diag.ct.dicom.bounds import Allowance, Head

_PADDING = b" \0"
_NUMBER = re.compile(rb" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
"""A decimal string (PS3.5, 6.2)."""

GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"
"""A private transfer syntax: an implicit little endian header before big endian pixels."""

_ELEMENT_HEAD_BYTES = 8
"""The least size of tag and length, before an element's value."""
_META_GROUP = 2
_PIXEL_DATA = 0x7FE00010


def _tags(*words: str) -> dict[int, str]:
    return {tag_for_keyword(word) or 0: word for word in words}


_META_TAGS = _tags("MediaStorageSOPClassUID", "TransferSyntaxUID")
_TAGS = _tags(
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "AcquisitionTime", "Modality"),
    *("SeriesDescription", "PatientName", "PatientID", "GantryDetectorTilt", "ConvolutionKernel"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "ImagePositionPatient"),
    *("ImageOrientationPatient", "FrameOfReferenceUID", "TemporalPositionIdentifier", "InConcatenationTotalNumber"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope"),
    *("RescaleType", "LossyImageCompression", "LossyImageCompressionRatio", "ConcatenationUID", "SliceThickness"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)


class Elements:
    """The elements found.

    Args:
        allowance: The limit for reading headers.

    Attributes:
        pixels: Start and length of the pixel data; None until they are found.
        syntax: Transfer syntax; implicit little endian, the standard's default, where the file does not say.
        deflated_from: Where the deflated part of the file begins; None where nothing is deflated.
        whole: Whether everything could be parsed, up to the pixels or the end.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self.pixels: tuple[int, int] | None = None
        self.syntax = ""
        self.whole = False
        self.deflated_from: int | None = None
        self._values: dict[str, bytes] = {}
        self._little = True

    def parse(self, head: bytes, start: int, *, limit: int) -> None:
        """Read group 2, which is always explicit little endian (DICOM PS3.10, 7.1), and then the data set.

        Args:
            head: The first bytes of the file.
            start: Where group 2 begins.
            limit: The most bytes to inflate, where the rest is deflated.
        """
        stream = Head(head, self._allowance)
        stream.seek(start)
        self._keep(_META_TAGS, self._read(stream, _META_TAGS, stop=lambda tag: tag >> 16 != _META_GROUP, explicit=True))
        self.syntax = self.text("TransferSyntaxUID") or uid.ImplicitVRLittleEndian
        if self.syntax == uid.DeflatedExplicitVRLittleEndian:
            self.deflated_from = stream.tell()
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[self.deflated_from :], limit)
            stream = Head(inflated, self._allowance)
        self._little = self.syntax != uid.ExplicitVRBigEndian
        self._data_set = stream, stream.tell()
        self._keep(_TAGS, self._read(stream, _TAGS, stop=lambda tag: tag >= _PIXEL_DATA))
        self.whole = not stream.cut

    def data_set(self, *words: str) -> Dataset:
        """Some elements of the data set that `parse` has read, with their whole content: for sequences."""
        stream, start = self._data_set
        stream.seek(start)
        return self._read(stream, _tags(*words), stop=lambda tag: tag >= _PIXEL_DATA)

    def _read(
        self, stream: Head, tags: Iterable[int], *, stop: Callable[[int], bool], explicit: bool = False
    ) -> Dataset:
        seen, start = set[int](), stream.tell()

        def stop_when(tag: int, _: str | None, length: int) -> bool:
            number = int(tag)  # pydicom's tags compare slowly, in Python
            if stream.tell() - start < _ELEMENT_HEAD_BYTES:  # pydicom asks for the first element before reading it
                return stop(number)
            if number in seen:  # PS3.5 7.1: each occurs once; readers differ in which they use
                raise ValueError(f"element {number:08x} stands twice")
            seen.add(number)
            if number == _PIXEL_DATA:
                self.pixels = stream.tell(), length
            return stop(number)

        # pydicom detects an explicit file itself where the file does not state its syntax.
        implicit = not explicit and self.syntax in (uid.ImplicitVRLittleEndian, GE_BIG_ENDIAN_PIXELS)
        return read_dataset(stream, implicit, self._little, stop_when=stop_when, specific_tags=list(tags))

    def _keep(self, tags: dict[int, str], found: Dataset) -> None:
        for tag, word in tags.items():
            element = found.get_item(tag) if tag in found else None
            if isinstance(element, RawDataElement) and element.value:
                self._values[word] = element.value

    def text(self, word: str, *, encoding: str = "ascii") -> str:
        """A value for a message: no padding, no control characters, no lone surrogates."""
        return printable(self._values.get(word, b""), encoding)

    def prose(self, word: str) -> str:
        """A value in the file's own character set."""
        sets = [name for name in self.text("SpecificCharacterSet").split("\\") if name in python_encoding]
        return self.text(word, encoding=python_encoding[sets[-1]] if sets else "latin-1")

    def numbers(self, word: str, count: int) -> tuple[float, ...] | None:
        """A value of several numbers in text; None when it is missing or anything else."""
        parts = self._values.get(word, b"").strip(_PADDING).split(b"\\")
        if len(parts) != count or not all(map(_NUMBER.fullmatch, parts)):
            return None
        return tuple(map(float, parts))

    def number(self, word: str, default: float = nan) -> float:
        """A value of one number in text; NaN where it is anything else."""
        given = self._values.get(word, b"").strip(_PADDING)
        return (self.numbers(word, 1) or (nan,))[0] if given else default

    def finite(self, word: str, default: float) -> float:
        """A value of one number in text; the default where it is anything else."""
        number = self.number(word)
        return number if isfinite(number) else default

    def integer(self, word: str, default: int = 0) -> int:
        """A value of two bytes."""
        value = self._values.get(word, b"")
        return int.from_bytes(value, "little" if self._little else "big") if len(value) == 2 else default


def printable(value: bytes, encoding: str = "ascii") -> str:
    """Text for a message."""
    text = value.decode(encoding, "replace").strip(" \0")
    return text if text.isprintable() else "".join(letter for letter in text if letter.isprintable()).strip()
