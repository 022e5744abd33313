"""MetaImage (``.mha``, ``.mhd``), read without SimpleITK.

MetaIO ignores the checksum of compressed data, prints its complaints straight to stderr, and follows a data file's
name wherever it points. This reader checks the first, raises the second and keeps the third in the header's folder.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nodule_diag.ct.formats.byte_stream import ByteStream, read_voxels
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.refusals import damaged, not_placed, not_scalar
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

MAX_HEADER_BYTES = 2**16

_VOXEL_TYPES = {
    **{"MET_CHAR": "i1", "MET_SHORT": "i2", "MET_INT": "i4", "MET_LONG": "i4", "MET_LONG_LONG": "i8"},
    **{"MET_UCHAR": "u1", "MET_USHORT": "u2", "MET_UINT": "u4", "MET_ULONG": "u4", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
_ORIENTATION_KEYS = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN_KEYS = ("Offset", "Position", "Origin")
_SPACING_KEYS = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN_KEYS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_CT_MODALITIES = ("MET_MOD_CT", "MET_MOD_UNKNOWN")


def read(path: Path) -> CTVolume:
    """Read a MetaImage file.

    Args:
        path: The ``.mha``, or the ``.mhd`` beside its data file.

    Raises:
        CTError: When it is damaged, or no CT that can be diagnosed from.
    """
    name = str(path)
    fields, header_bytes = _read_header(path)
    modality = fields.get("Modality", "MET_MOD_UNKNOWN")
    if modality not in _CT_MODALITIES:
        raise CTError(
            f"{name} is not a CT: its header says modality {modality}", code="ct-not-ct", hint="give a chest CT"
        )
    size = [int(n) for n in _numbers(fields, ("DimSize",), name)]
    check_size(size, path=name)
    dtype = _dtype(fields, name)
    matrix = np.reshape(_numbers(fields, _ORIENTATION_KEYS, name, count=9), (3, 3))
    grid = StoredGrid.checked(
        size,
        spacing_xyz_mm=_numbers(fields, _SPACING_KEYS, name, count=3),
        origin_xyz_mm=_numbers(fields, _ORIGIN_KEYS, name, count=3),
        # Each triple of the file is the direction of one stored axis; ours are columns.
        direction=matrix.T,
        path=name,
    )
    data, start = _data_file(path, fields, header_bytes)
    compressed = _flag(fields, "CompressedData")
    promised, stored = prod(size) * dtype.itemsize, data.stat().st_size
    if start < 0:
        start = max(0, stored - promised)
    check_payload(promised, stored - start, compressed=compressed, path=name)
    voxels = HounsfieldArray(grid, path=name)
    with data.open("rb") as file:
        file.seek(start)
        read_voxels(ByteStream(file, compressed=compressed, path=name), voxels, dtype=dtype)
    return CTVolume.from_voxels(voxels)


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``Key = value`` lines up to ElementDataFile, which ends a header, and their length in bytes."""
    fields: dict[str, str] = {}
    done = 0
    with path.open("rb") as file:
        while done < MAX_HEADER_BYTES and (line := file.readline(MAX_HEADER_BYTES)):
            done += len(line)
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if equals:
                fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, done
    raise damaged(str(path), "its header has no ElementDataFile")


def _data_file(path: Path, fields: dict[str, str], header_bytes: int) -> tuple[Path, int]:
    """The file that holds the voxels and where they start; -1 means at its end."""
    value = fields.get("ElementDataFile", "")
    if value.upper() == "LOCAL":
        return path, header_bytes
    folder = path.parent.resolve()
    data = _resolved(folder / value)
    if value.upper().startswith("LIST") or "%" in value or data is None or not data.is_relative_to(folder):
        raise CTError(
            f"{path} takes its voxels from {value!r}, which is not one file in its own folder",
            code="ct-detached-data",
            hint="store the CT as one .mha or .nii.gz file",
        )
    if not data.is_file():
        raise CTError(
            f"{path} takes its voxels from {value!r}, which does not exist",
            code="ct-missing-data-file",
            hint="keep the .mhd and its .raw file together",
        )
    try:
        return data, int(fields.get("HeaderSize", "0"))
    except ValueError:
        raise damaged(str(path), f"its HeaderSize is {fields['HeaderSize']!r}") from None


def _resolved(path: Path) -> Path | None:
    """Where a path leads; None for one that cannot be: with a zero byte, or a link to itself."""
    try:
        return path.resolve()
    except (ValueError, RuntimeError):
        return None


def _dtype(fields: dict[str, str], path: str) -> np.dtype[Any]:
    """Stored voxel type with its byte order."""
    kind = fields.get("ElementType", "")
    channels = fields.get("ElementNumberOfChannels", "1")
    if kind not in _VOXEL_TYPES or channels != "1":
        raise not_scalar(path, f"{channels} value(s) of type {kind or 'unknown'} for each voxel, not one number")
    if not _flag(fields, "BinaryData", default=True):
        raise CTError(
            f"{path} stores its voxels as text, which is not supported",
            code="ct-unsupported-format",
            hint="store the CT as a binary .mha or .nii.gz file",
        )
    big = any(_flag(fields, key) for key in _BIG_ENDIAN_KEYS)
    return np.dtype(_VOXEL_TYPES[kind]).newbyteorder(">" if big else "<")


def _flag(fields: dict[str, str], key: str, *, default: bool = False) -> bool:
    """A True or False field; MetaIO looks at the first letter only."""
    value = fields.get(key)
    return default if value is None else value[:1] in ("T", "t", "1")


def _numbers(fields: dict[str, str], keys: tuple[str, ...], path: str, *, count: int | None = None) -> list[float]:
    """The finite numbers of the first key that is there."""
    key = next((key for key in keys if key in fields), None)
    if key is None and keys in (_ORIENTATION_KEYS, _ORIGIN_KEYS):
        raise not_placed(path, f"its header has no {keys[0]}")
    if key is None:
        raise damaged(path, f"its header has no {keys[0]}")
    try:
        values = [float(word) for word in fields[key].split()]
    except ValueError:
        values = []
    if not values or len(values) != (count or len(values)) or not np.isfinite(values).all():
        raise damaged(path, f"its {key} is {fields[key]!r}")
    return values
