"""MetaImage (``.mha``, ``.mhd``), read without SimpleITK.

MetaIO ignores the checksum of compressed data, prints its errors to stderr, and follows a data file's name to any
folder. This reader checks the checksum, raises errors, and accepts data files only in the header's folder.
"""

from __future__ import annotations

from io import BufferedReader
from math import prod
from typing import Any

import numpy as np

from nodule_diag.ct.formats.byte_stream import ByteStream, Packing, is_gzip, read_voxels
from nodule_diag.ct.formats.ct_file import CTFile
from nodule_diag.ct.formats.text_header import TextHeader, header_lines
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.refusals import damaged, not_placed, not_scalar, quoted, truncated, unsupported
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

_VOXEL_TYPES = {
    **{"MET_CHAR": "i1", "MET_SHORT": "i2", "MET_INT": "i4", "MET_LONG": "i4", "MET_LONG_LONG": "i8"},
    **{"MET_UCHAR": "u1", "MET_USHORT": "u2", "MET_UINT": "u4", "MET_ULONG": "u4", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
_ORIENTATION = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_FIELDS = {
    *(*_ORIENTATION, *_ORIGIN, *_SPACING, *_BIG_ENDIAN, "NDims", "DimSize", "Modality", "DistanceUnits"),
    *("ElementType", "ElementNumberOfChannels", "BinaryData", "CompressedData", "CompressedDataSize", "HeaderSize"),
    *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementDataFile"),
    *("ObjectType", "AnatomicalOrientation", "CenterOfRotation", "CompressionLevel"),
}
"""Fields that decide how a CT is read, and MetaIO's own. Other fields are ignored and may be repeated."""
_SYNONYMS = (_ORIENTATION, _ORIGIN, _BIG_ENDIAN)
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")
_CT_MODALITIES = ("MET_MOD_CT", "MET_MOD_UNKNOWN")
_DATA_AT_END = -1
"""HeaderSize of a data file whose voxels are its last bytes."""


def read(source: CTFile) -> CTVolume:
    """Read a MetaImage file.

    Args:
        source: The ``.mha``, or the ``.mhd`` beside its data file.

    Raises:
        CTError: When it is damaged, or is not a CT that can be used for a diagnosis.
    """
    name = str(source)
    header, header_bytes = _read_header(source)
    _check_meaning(header)
    grid = _grid(header)
    dtype = _dtype(header)
    local = header.get("ElementDataFile").upper() == "LOCAL"
    data = source if local else source.data_file(header.get("ElementDataFile"))
    promised = prod(grid.size_xyz) * dtype.itemsize
    with data.open() as file:
        start, stored = _place(header, header_bytes if local else 0, promised, data.size)
        file.seek(start)
        packing = _packing(header, file, stored)
        check_payload(promised, stored, compressed=packing is not None, path=name)
        voxels = HounsfieldArray(grid, path=name)
        read_voxels(ByteStream(file, packing=packing, path=name), voxels, dtype=dtype)
    return CTVolume.from_voxels(voxels)


def _read_header(source: CTFile) -> tuple[TextHeader, int]:
    """The ``Key = value`` lines up to ElementDataFile, which ends a header, and their length in bytes."""
    header = TextHeader(str(source))
    with source.open() as file:
        for line in header_lines(file, header.path):
            key, _, value = (part.strip() for part in line.partition("="))
            if key in _FIELDS:
                header.add(key, value)
            if key == "ElementDataFile":
                return header, file.tell()
    raise damaged(header.path, "its header has no ElementDataFile")


def _check_meaning(header: TextHeader) -> None:
    """Refuse a file that is not a CT in HU and millimetres, or does not say so clearly."""
    modality = header.get("Modality", "MET_MOD_UNKNOWN")
    if modality not in _CT_MODALITIES:
        raise CTError(
            f"{header.path} is not a CT: its header says modality {quoted(modality)}",
            code="ct-not-ct",
            hint="give a chest CT",
        )
    for names in _SYNONYMS:
        given = [name for name in names if name in header]
        if len({header.get(name) for name in given}) > 1:
            raise damaged(header.path, f"its {' and '.join(given)} contradict each other")
    if header.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise damaged(header.path, f"its DistanceUnits are {quoted(header.get('DistanceUnits'))}, not mm")
    for name, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if name in header and header.reals(name, count=1) != [neutral]:
            why = f"its {name} is {quoted(header.get(name))}, which some readers apply and others do not"
            raise damaged(header.path, why)


def _grid(header: TextHeader) -> StoredGrid:
    """The grid, without axes beyond the third; those may have one sample."""
    size = header.wholes("DimSize")
    axes = len(size)
    if header.whole("NDims", axes) != axes:
        raise damaged(header.path, f"it has {header.get('NDims')} dimensions and {axes} sizes")
    if axes != 3 and set(size[3:]) != {1}:
        check_size(size, path=header.path)
    spacing, origin, matrix = (
        header.reals(_given(header, names), count=count)
        for names, count in ((_SPACING, axes), (_ORIGIN, axes), (_ORIENTATION, axes * axes))
    )
    # Each row in the file is the direction of one stored axis; here directions are columns.
    directions = np.reshape(matrix, (axes, axes))
    if directions[:3, 3:].any():
        raise header.wrong(_given(header, _ORIENTATION))
    return StoredGrid.checked(
        size[:3],
        spacing_xyz_mm=spacing[:3],
        origin_xyz_mm=origin[:3],
        direction=directions[:3, :3].T,
        path=header.path,
    )


def _given(header: TextHeader, names: tuple[str, ...]) -> str:
    """The first of several names of a field that the header has."""
    for name in names:
        if name in header:
            return name
    if names is _SPACING:
        raise damaged(header.path, f"its header has no {names[0]}")
    raise not_placed(header.path, f"its header has no {names[0]}")


def _dtype(header: TextHeader) -> np.dtype[Any]:
    """Stored voxel type with its byte order."""
    kind, channels = header.get("ElementType"), header.whole("ElementNumberOfChannels", 1)
    if kind not in _VOXEL_TYPES or channels != 1:
        what = f"{channels} value(s) of type {quoted(kind) if kind else 'unknown'} for each voxel, not one number"
        raise not_scalar(header.path, what)
    if not _flag(header, "BinaryData", default=True):
        raise unsupported(header.path, "its voxels are stored as text")
    big = any(_flag(header, name) for name in _BIG_ENDIAN)
    return np.dtype(_VOXEL_TYPES[kind]).newbyteorder(">" if big else "<")


def _flag(header: TextHeader, field: str, *, default: bool = False) -> bool:
    """A True or False field."""
    if field not in header:
        return default
    word = header.get(field).lower()
    if word not in (*_TRUE, *_FALSE):
        raise header.wrong(field)
    return word in _TRUE


def _place(header: TextHeader, start: int, promised: int, file_bytes: int) -> tuple[int, int]:
    """The start of the voxels in their file, and the bytes from there on. HeaderSize counts from the file's start."""
    skipped = header.whole("HeaderSize", 0)
    if skipped < _DATA_AT_END:
        raise header.wrong("HeaderSize")
    if skipped == _DATA_AT_END:
        start = max(start, file_bytes - promised)
    elif skipped > 0:
        start = skipped
    return start, file_bytes - start


def _packing(header: TextHeader, file: BufferedReader, stored: int) -> Packing | None:
    """How the voxels are compressed. MetaIO writes zlib and reads gzip too."""
    if not _flag(header, "CompressedData"):
        return None
    told = header.whole("CompressedDataSize", stored)
    if told > stored:
        raise truncated(header.path, f"its header promises {told:,} compressed bytes, {max(stored, 0):,} are there")
    if told != stored:
        raise damaged(header.path, f"its header promises {told:,} compressed bytes, {stored:,} are there")
    return "gzip" if is_gzip(file) else "zlib"
