"""The pixels of one DICOM slice in Hounsfield units.

What stands in the file as it is, is read by numpy. Compressed pixels are decoded by pydicom where it or one of its
plug-ins can, from memory and without what GDCM does with damaged RLE, and otherwise by the GDCM inside SimpleITK.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from nodule_diag.ct.dicom.files import DicomFile, MemoryFile
from nodule_diag.ct.dicom.headers import NATIVE, UNDEFINED_LENGTH, SliceHeader
from nodule_diag.ct.limits import MAX_SLICE_BYTES
from nodule_diag.ct.refusals import truncated, undecodable
from nodule_diag.errors import CTError
from nodule_diag.process import quiet_itk

PLUGINS = {
    uid.RLELossless: "pydicom",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
}
"""Which of pydicom's decoders a transfer syntax is given to, where it is installed."""

_WHOLE_BYTES = (8, 16, 32)
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
_GDCM = threading.Lock()
"""Nobody promises that GDCM may run in two threads; crashes have been reported (SimpleITK's issues 805 and 1466)."""


def hounsfield(header: SliceHeader, *, source: str) -> npt.NDArray[Any]:
    """Decode the one frame of a slice.

    Args:
        header: Of the slice.
        source: The folder or archive, for messages.

    Returns:
        (rows, columns) HU, of an integer type while slope and intercept are whole numbers.

    Raises:
        CTError: ``ct-truncated``, ``ct-damaged``, ``ct-too-large``, or ``ct-archive-needs-unpacking`` on a system
            where GDCM can be given files only.
    """
    name = f"{source}: {header.file.name}"
    if max(header.pixel_bytes, header.file.size) > MAX_SLICE_BYTES:
        raise CTError(
            f"{name} takes {max(header.pixel_bytes, header.file.size) / 2**20:,.0f} MiB, over the limit of"
            f" {MAX_SLICE_BYTES // 2**20} MiB for one DICOM slice",
            code="ct-too-large",
            hint="the header is damaged, or this is no slice of a chest CT",
        )
    if not 0 < header.bits_stored <= header.high_bit + 1 <= header.bits_allocated:
        raise _damaged(name, f"bits up to {header.high_bit} of {header.bits_allocated} hold {header.bits_stored}")
    if not (isfinite(header.slope) and isfinite(header.intercept)):
        raise _damaged(name, f"HU are {header.slope:g} times the stored value and {header.intercept:g}")
    native = header.transfer_syntax in NATIVE and header.pixels_length != UNDEFINED_LENGTH
    if native and header.bits_allocated in _WHOLE_BYTES:
        return _rescaled(_in_their_bits(_native(header, name), header), header)
    data = header.file.part(0, header.file.size)
    if header.pixels_length == UNDEFINED_LENGTH:
        _check_frames(data[header.pixels_start :], name)
    syntax = uid.UID(header.transfer_syntax)
    plugin = PLUGINS.get(syntax)
    try:
        if plugin and plugin in get_decoder(syntax).available_plugins:
            return _rescaled(_by_plugin(header, data[header.pixels_start :], plugin), header)
        return _by_gdcm(header, data, name)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, struct.error) as error:
        if isinstance(error, CTError):
            raise
        raise CTError(
            f"{name} cannot be decoded: its pixel data is damaged or of an unknown kind",
            code="ct-damaged",
            hint="export the series again, uncompressed",
        ) from error


def _damaged(name: str, says: str) -> CTError:
    return CTError(
        f"{name} has a header that says: {says}",
        code="ct-damaged",
        hint="the header is damaged; export the series again",
    )


def _native(header: SliceHeader, name: str) -> npt.NDArray[Any]:
    """(rows, columns) stored values of uncompressed pixels."""
    promised = header.pixel_bytes
    if header.deflated_from is None:
        data = header.file.part(header.pixels_start, promised)
    else:
        deflated = header.file.part(header.deflated_from, header.file.size)
        try:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, header.pixels_start + promised)
        except zlib.error as error:
            raise undecodable(name, error) from error
        data = memoryview(inflated)[header.pixels_start :]
    if len(data) < promised:
        raise truncated(name, f"its header promises {promised:,} bytes of voxels, {len(data):,} could be read")
    order = ">" if header.transfer_syntax == uid.ExplicitVRBigEndian else "<"
    kind = np.dtype(f"{order}{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    return np.frombuffer(data, kind, header.rows * header.columns).reshape(header.rows, header.columns)


def _in_their_bits(values: npt.NDArray[Any], header: SliceHeader) -> npt.NDArray[Any]:
    """Stored values without the unused bits round them, which may hold anything, such as an overlay."""
    unused = header.bits_allocated - header.bits_stored
    if not unused:
        return values
    # Up and down again clears them, and spreads the sign.
    up = header.bits_allocated - 1 - header.high_bit
    return np.asarray(np.right_shift(np.left_shift(values, up), unused))


def _rescaled(values: npt.NDArray[Any], header: SliceHeader) -> npt.NDArray[Any]:
    """Slope times stored value plus intercept, in integers where these are whole."""
    slope, intercept = header.slope, header.intercept
    if not (slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**15):
        return np.asarray(values * slope + intercept)
    if slope == 1 and intercept == 0:
        return values
    # 16 bits times 15, and 15 more, fit into 32.
    wide = values.astype(np.int32 if values.itemsize <= 2 else np.int64)
    return np.asarray(wide * int(slope) + int(intercept))


def _check_frames(data: memoryview, name: str) -> None:
    """Compressed pixels are a chain of items (DICOM PS3.5, A.4); every one must be there to its last byte."""
    at = 0
    while at < len(data):
        group, element, length = struct.unpack_from("<HHL", data, at) if at + 8 <= len(data) else (0, 0, len(data))
        tag = group << 16 | element
        if tag == _END_OF_ITEMS:
            return
        at += 8 + length
        if at > len(data) or tag != _ITEM:
            raise CTError(
                f"{name} is truncated or damaged: its compressed pixels end within a frame, or another item follows",
                code="ct-truncated" if at > len(data) else "ct-damaged",
                hint="copy or export the series again",
            )


def _by_plugin(header: SliceHeader, data: memoryview, plugin: str) -> npt.NDArray[Any]:
    """(rows, columns) stored values, by pydicom."""
    # Run lengths are of whole words, whose unused bits pydicom clears from 3.1 on, and only above the stored ones.
    words = header.transfer_syntax == uid.RLELossless
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_allocated if words else header.bits_stored,
        "pixel_representation": int(header.signed),
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(uid.UID(header.transfer_syntax))
    array: npt.NDArray[Any] = decoder.as_array(bytes(data), index=0, raw=True, decoding_plugin=plugin, **options)[0]
    array = array.reshape(header.rows, header.columns)
    return _in_their_bits(array, header) if words else array


def _by_gdcm(header: SliceHeader, data: memoryview, name: str) -> npt.NDArray[Any]:
    """(rows, columns) HU, by the GDCM inside SimpleITK, which applies slope and intercept itself."""
    import SimpleITK as sitk

    with _readable(header.file, data, name) as path, quiet_itk(), _GDCM:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(path)
        array: npt.NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    return array.reshape(header.rows, header.columns)


@contextmanager
def _readable(file: DicomFile | MemoryFile, data: memoryview, name: str) -> Iterator[str]:
    """A path where SimpleITK, which reads paths only, finds the file: in memory, or else where it lies."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("nodule-diag"), "wb") as memory:  # noqa: PTH123 - a descriptor, not a path
            memory.write(data)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
    elif isinstance(file, DicomFile) and file.member is None:
        yield str(file.path)
    else:
        raise CTError(
            f"{name} is compressed in a way that on this system can be decoded from a folder only",
            code="ct-archive-needs-unpacking",
            hint="unpack the archive and give the folder, or pip install 'nodule-diag[dicom]' where it is JPEG 2000 or"
            " JPEG-LS",
        )
