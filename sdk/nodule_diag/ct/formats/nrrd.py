"""NRRD (``.nrrd``, and ``.nhdr`` beside its data file), read without SimpleITK.

This reader follows teem's definition of the format (https://teem.sourceforge.net/nrrd/format.html). teem itself, which
is part of ITK, does not verify the checksum of compressed data, so a damaged file can give wrong voxels. A long header
line can also overwrite its memory.
"""

from __future__ import annotations

import re
from io import SEEK_CUR, BufferedReader
from math import prod
from typing import Any

import numpy as np

from nodule_diag.ct.formats.byte_stream import ByteStream, Packing, read_voxels
from nodule_diag.ct.formats.ct_file import CTFile
from nodule_diag.ct.formats.text_header import MAX_LINE_BYTES, TextHeader, header_lines
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.refusals import damaged, not_placed, not_scalar, other_format, quoted, truncated, unsupported
from nodule_diag.ct.volume import CTVolume

_MAGIC = re.compile(rb"NRRD(00\.01|000[1-5])\r?\n")
_FIELDS = (
    *("content", "number", "type", "block size", "dimension", "space", "space dimension", "sizes", "spacings"),
    *("thicknesses", "axis mins", "axis maxs", "space directions", "centers", "centerings", "kinds", "labels", "units"),
    *("min", "max", "old min", "old max", "endian", "encoding", "line skip", "byte skip", "sample units"),
    *("space units", "space origin", "measurement frame", "data file"),
)
_WORD_AN_AXIS = ("spacings", "thicknesses", "axis mins", "axis maxs", "centers", "centerings", "kinds")
_FIELD_OF = {written: field for field in _FIELDS for written in (field, field.replace(" ", ""))}

_VOXEL_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **{"signed long long int": "i8", "float": "f4", "double": "f8"},
}
_PACKINGS: dict[str, Packing | None] = {"raw": None, "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
_TO_LPS = {
    **dict.fromkeys(("leftposteriorsuperior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("rightanteriorsuperior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("leftanteriorsuperior", "las"), (1.0, -1.0, 1.0)),
}
"""The patient spaces, without hyphens, and their factors for x, y, z. Any other space would be a guess."""
_TIMED_SPACE = re.compile("(.+superior)time|(lps|ras|las)t")
_MILLIMETRE = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")

_VECTOR = re.compile(r"none|\([^()]*\)")
_QUOTED = re.compile(r'"([^"]*)"')
_MAX_SKIPPED_LINES = 2**16
_MAX_SKIPPED_BYTES = 64 * 2**20
_DATA_AT_END = -1
"""The byte skip of raw voxels that are the last bytes of their file."""


def read(source: CTFile) -> CTVolume:
    """Read an NRRD file.

    Args:
        source: The file, with its voxels in it or beside it.

    Raises:
        CTError: When it is damaged, or is not a CT that can be used for a diagnosis.
    """
    name = str(source)
    header, header_bytes = _read_header(source)
    grid, notes = _grid(header)
    dtype, packing = _voxels(header)
    detached = "data file" in header
    data = source.data_file(header.get("data file")) if detached else source
    promised = prod(grid.size_xyz) * dtype.itemsize
    with data.open() as file:
        file.seek(0 if detached else header_bytes)
        _skip_lines(file, header)
        stored = data.size - file.tell()
        skipped = _skipped(header, "byte skip", least=0 if packing else _DATA_AT_END, most=_MAX_SKIPPED_BYTES)
        if skipped == _DATA_AT_END:
            skipped = max(stored - promised, 0)
        # Raw bytes are skipped in the file, others after they have been decompressed.
        if packing is None:
            stored -= skipped
            file.seek(skipped, SEEK_CUR)
        # bzip2 exceeds deflate's best ratio only for data without noise, and every CT has noise.
        check_payload(promised, stored, compressed=packing is not None, path=name)
        stream = ByteStream(file, packing=packing, path=name)
        if packing is not None:
            stream.skip(skipped)
        voxels = HounsfieldArray(grid, path=name)
        read_voxels(stream, voxels, dtype=dtype)
    return CTVolume.from_voxels(voxels, warnings=notes)


def _read_header(source: CTFile) -> tuple[TextHeader, int]:
    """The ``field: value`` lines up to the empty one, and their length in bytes."""
    header = TextHeader(str(source))
    with source.open() as file:
        if not _MAGIC.fullmatch(file.readline(64)):
            raise other_format(header.path, "an NRRD", "it does not start with NRRD0001 to NRRD0005")
        for line in header_lines(file, header.path):
            if not line:
                return header, file.tell()
            written, _, value = line.partition(":")
            field = _FIELD_OF.get(written.lower())
            if field and not value.startswith("="):
                header.add(field, value.strip())
            elif not (line.startswith("#") or ":=" in line):
                raise damaged(header.path, f"its header has the line {quoted(line)}, which is not a field")
            if field == "data file" and value.split()[:1] == ["LIST"]:
                source.data_file(value.strip())  # refuses the list before its names are read as fields
    if "data file" not in header:
        raise truncated(header.path, "its header does not end")
    return header, 0


def _grid(header: TextHeader) -> tuple[StoredGrid, tuple[str, ...]]:
    """The grid of the three axes that have a direction in space, and warnings for the user."""
    size = header.wholes("sizes")
    if header.whole("dimension") != len(size):
        raise damaged(header.path, f"it has {header.get('dimension')} dimensions and {len(size)} sizes")
    for field in _WORD_AN_AXIS:
        if field in header and len(header.get(field).split(maxsplit=len(size))) != len(size):
            raise header.wrong(field)
    to_lps, space_axes, notes = _space(header)
    missing = [field for field in ("space directions", "space origin") if field not in header]
    if missing:
        raise not_placed(header.path, f"it has no {' and no '.join(missing)}")
    vectors = _vectors(header, "space directions", count=len(size), space_axes=space_axes)
    origin = _vectors(header, "space origin", count=1, space_axes=space_axes)[0]
    # An axis without a direction, or with a direction in time only, is not part of the volume: it must have one sample.
    spatial = [axis for axis, vector in enumerate(vectors) if vector and (space_axes == 3 or any(vector[:3]))]
    if 0 not in spatial and size[0] > 1:
        raise not_scalar(header.path, f"{size[0]} values for each voxel, not one number")
    if any(size[axis] > 1 for axis in range(len(size)) if axis not in spatial):
        check_size(size, path=header.path)
    size = [size[axis] for axis in spatial]
    check_size(size, path=header.path)
    directions = np.array([vectors[axis] for axis in spatial], dtype=np.float64)
    if origin is None or directions[:, 3:].any():
        raise header.wrong("space origin" if origin is None else "space directions")
    columns = directions[:, :3].T * np.array(to_lps)[:, np.newaxis]
    spacing = np.linalg.norm(columns, axis=0)
    grid = StoredGrid.checked(
        size,
        spacing_xyz_mm=spacing,
        origin_xyz_mm=np.array(origin[:3]) * to_lps,
        direction=np.divide(columns, spacing, out=np.zeros((3, 3)), where=spacing > 0),
        path=header.path,
    )
    return grid, notes


def _space(header: TextHeader) -> tuple[tuple[float, float, float], int, tuple[str, ...]]:
    """The factors from x, y, z to LPS, the numbers per position, and warnings for the user."""
    units = _QUOTED.findall(header.get("space units"))[:3]
    if any(unit.strip().lower() not in _MILLIMETRE for unit in units):
        raise damaged(header.path, f"its space units are {quoted(header.get('space units'))}, not mm")
    if "space" not in header and "space dimension" in header and header.whole("space dimension") == 4:
        note = "the file does not name the space of its positions; they were taken as LPS, as ITK writes a 4-D image"
        return _TO_LPS["lps"], 4, (note,)
    space = header.get("space").lower().replace("-", "").replace(" ", "")
    timed = _TIMED_SPACE.fullmatch(space)
    to_lps = _TO_LPS.get(timed[1] or timed[2] if timed else space)
    if to_lps is None:
        given = quoted(header.get("space")) if "space" in header else "not given"
        raise not_placed(header.path, f"its space is {given}")
    return to_lps, 4 if timed else 3, ()


def _vectors(header: TextHeader, field: str, *, count: int, space_axes: int) -> list[list[float] | None]:
    """The ``(x,y,z)`` of a field, None for ``none``."""
    text = header.get(field)
    written = _VECTOR.findall(text)
    if len(written) != count or _VECTOR.sub("", text).strip():
        raise header.wrong(field)
    return [
        None
        if vector == "none"
        else header.reals(field, count=space_axes, words=[word.strip() for word in vector[1:-1].split(",")])
        for vector in written
    ]


def _voxels(header: TextHeader) -> tuple[np.dtype[Any], Packing | None]:
    """The stored type with its byte order, and how the voxels are compressed."""
    kind, encoding, endian = (header.get(field).lower() for field in ("type", "encoding", "endian"))
    if kind not in _VOXEL_TYPES:
        raise not_scalar(header.path, f"voxels of type {quoted(kind) if kind else 'unknown'}, not one number each")
    if encoding not in _PACKINGS:
        what = quoted(encoding) if encoding else "not given"
        raise unsupported(header.path, f"the encoding of its voxels is {what}, not raw, gzip or bzip2")
    dtype = np.dtype(_VOXEL_TYPES[kind])
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise header.wrong("endian")
    return dtype.newbyteorder(">" if endian == "big" else "<"), _PACKINGS[encoding]


def _skip_lines(file: BufferedReader, header: TextHeader) -> None:
    """Skip the lines before the voxels that the header announces."""
    for _ in range(_skipped(header, "line skip", least=0, most=_MAX_SKIPPED_LINES)):
        while (line := file.readline(MAX_LINE_BYTES)) and not line.endswith(b"\n"):
            pass
        if not line:
            raise truncated(header.path, f"it has fewer lines than its line skip of {header.get('line skip')}")


def _skipped(header: TextHeader, field: str, *, least: int, most: int) -> int:
    """How much a header says to skip."""
    count = header.whole(field, 0)
    if not least <= count <= most:
        raise header.wrong(field)
    return count
