"""Decodes code streams with the GDCM inside SimpleITK: the work of a child process.

GDCM never gets the user's file, but a file written here around the code stream. So its parsers see no header from
outside, and the header states what `nodule_diag.ct.dicom.code_stream` found in the stream.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

REQUEST = struct.Struct("<64s4H")
"""Transfer syntax, rows, columns, bits of a sample, whether samples are signed; the code stream follows."""

_CT = b"1.2.840.10008.5.1.4.1.1.2"
_ITEM = struct.Struct("<HHL")
_UNDEFINED = 0xFFFFFFFF


def decoder() -> Callable[[bytes], bytes]:
    """Load GDCM.

    Returns:
        A function that decodes one grey image: from a `REQUEST` with its code stream to little endian integers of one
        byte, or of two where a sample has more than 8 bits, row by row.
    """
    import numpy  # noqa: F401 - or SimpleITK would import it, under the limits of the first request
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return partial(_decode, sitk)


def _decode(sitk: ModuleType, request: bytes) -> bytes:
    syntax, rows, columns, bits, signed = REQUEST.unpack_from(request)
    with _file(_wrapped(request[REQUEST.size :], syntax.rstrip(b"\0"), rows, columns, bits, signed)) as path:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(path)
        image = reader.Execute()
    array = sitk.GetArrayViewFromImage(image)
    if (array.size, array.itemsize) != (rows * columns, 1 if bits <= 8 else 2) or array.dtype.kind not in "iu":
        raise ValueError(f"the decoder made {array.shape} {array.dtype} of {rows} x {columns} samples of {bits} bits")
    return bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def _wrapped(stream: bytes, syntax: bytes, rows: int, columns: int, bits: int, signed: int) -> bytes:
    """A DICOM file (PS3.10) that holds only this code stream."""
    group2 = _element(0x0002, 0x0010, b"UI", syntax)
    group2 = _element(0x0002, 0x0000, b"UL", struct.pack("<L", len(group2))) + group2
    numbers = {0x0002: 1, 0x0010: rows, 0x0011: columns}
    numbers |= {0x0100: 8 if bits <= 8 else 16, 0x0101: bits, 0x0102: bits - 1, 0x0103: signed}
    elements = {0x0004: _element(0x0028, 0x0004, b"CS", b"MONOCHROME2")}
    elements |= {tag: _element(0x0028, tag, b"US", struct.pack("<H", value)) for tag, value in numbers.items()}
    stream += bytes(len(stream) % 2)
    return b"".join(
        [
            *(bytes(128), b"DICM", group2, _element(0x0008, 0x0016, b"UI", _CT)),
            *(elements[tag] for tag in sorted(elements)),
            *(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, _UNDEFINED), _ITEM.pack(0xFFFE, 0xE000, 0)),
            *(_ITEM.pack(0xFFFE, 0xE000, len(stream)), stream, _ITEM.pack(0xFFFE, 0xE0DD, 0)),
        ]
    )


def _element(group: int, element: int, kind: bytes, value: bytes) -> bytes:
    value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, element, kind, len(value)) + value


@contextmanager
def _file(data: bytes) -> Iterator[str]:
    """A path with these bytes for SimpleITK, which reads only paths; on Linux it is in memory."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("nodule-diag"), "wb") as memory:  # noqa: PTH123 - a descriptor, not a path
            memory.write(data)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    from tempfile import TemporaryDirectory  # heavy

    with TemporaryDirectory(prefix="nodule-diag-") as folder:  # holds pixels, and no patient data
        path = os.path.join(folder, "image.dcm")  # noqa: PTH118 - pathlib costs an import
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
        yield path
