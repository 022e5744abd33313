"""NIfTI-1 and NIfTI-2, plain or gzipped, read without SimpleITK.

ITK fills the missing end of a truncated NIfTI file with zeros and says nothing (ITK 5.4, for ``.nii`` and ``.nii.gz``
alike), which for a CT is water where there was lung. This reader counts the bytes, and it needs no second copy of
the volume. The tests compare it with SimpleITK and with nibabel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.formats.byte_stream import GZIP_MAGIC, ByteStream, read_voxels
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

HEADER_BYTES = {348: b"n+1\x00", 540: b"n+2\x00"}
"""Size of the header, which opens the file, and the magic of a single-file NIfTI of that version."""

_MAX_DIMS = 7
_MAX_VOX_OFFSET = 64 * 2**20
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""NIFTI_UNITS_UNKNOWN (taken as mm, as ITK does), METER, MM, MICRON."""

_VOXEL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}

_ByteOrder = Literal["<", ">"]
_Fields = dict[str, npt.NDArray[Any]]
"""Header fields by name, each a one-dimensional array."""

# name: (type, count, byte offset), from nifti1.h and nifti2.h
_FIELDS_1: dict[str, tuple[str, int, int]] = {
    "magic": ("S4", 1, 344),
    "dim": ("i2", 8, 40),
    "datatype": ("i2", 1, 70),
    "pixdim": ("f4", 8, 76),
    "vox_offset": ("f4", 1, 108),
    "scl_slope": ("f4", 1, 112),
    "scl_inter": ("f4", 1, 116),
    "xyzt_units": ("u1", 1, 123),
    "qform_code": ("i2", 1, 252),
    "sform_code": ("i2", 1, 254),
    "quatern": ("f4", 3, 256),
    "qoffset": ("f4", 3, 268),
    "srow": ("f4", 12, 280),
}
_FIELDS_2: dict[str, tuple[str, int, int]] = {
    "magic": ("S4", 1, 4),
    "datatype": ("i2", 1, 12),
    "dim": ("i8", 8, 16),
    "pixdim": ("f8", 8, 104),
    "vox_offset": ("i8", 1, 168),
    "scl_slope": ("f8", 1, 176),
    "scl_inter": ("f8", 1, 184),
    "qform_code": ("i4", 1, 344),
    "sform_code": ("i4", 1, 348),
    "quatern": ("f8", 3, 352),
    "qoffset": ("f8", 3, 376),
    "srow": ("f8", 12, 400),
    "xyzt_units": ("i4", 1, 500),
}

FORM_DISAGREEMENT_MM = 1.0
"""Two orientations in one file that place a corner further apart than this are worth a warning."""


@dataclass(frozen=True, eq=False)
class _Header:
    """What the reader needs of a NIfTI header.

    Attributes:
        size_xyz: Stored size.
        dtype: Stored voxel type, with its byte order.
        offset: Where the voxels start, in the uncompressed stream.
        slope, intercept: HU = slope * stored + intercept.
        affine: (3, 4) from stored index to LPS mm.
        warnings: Notes on the header.
    """

    size_xyz: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: npt.NDArray[np.float64]
    warnings: tuple[str, ...]


def read(path: Path) -> CTVolume:
    """Read a NIfTI file.

    Args:
        path: The file.

    Raises:
        CTError: When it is damaged, or no CT that can be diagnosed from.
    """
    name = str(path)
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        stream = ByteStream(file, compressed=compressed, path=name)
        header, consumed = _read_header(stream, name)
        promised = int(np.prod(header.size_xyz)) * header.dtype.itemsize
        check_payload(promised, path.stat().st_size, compressed=compressed, path=name)
        columns = header.affine[:, :3]
        spacing = np.linalg.norm(columns, axis=0)
        grid = StoredGrid.checked(
            header.size_xyz,
            spacing_xyz_mm=spacing,
            origin_xyz_mm=header.affine[:, 3],
            direction=np.divide(columns, spacing, out=np.zeros((3, 3)), where=spacing > 0),
            path=name,
        )
        canonical = grid.canonical()
        voxels = HounsfieldArray(canonical, path=name)
        stream.read(header.offset - consumed)
        read_voxels(stream, voxels, dtype=header.dtype, slope=header.slope, intercept=header.intercept, path=name)
    return CTVolume.from_grid(voxels.finish(), canonical, path=name, warnings=(*header.warnings, *grid.warnings()))


def _read_header(stream: ByteStream, path: str) -> tuple[_Header, int]:
    """The header and the number of bytes read so far."""
    start = stream.read(348)
    order: _ByteOrder = "<" if start[:4] in {size.to_bytes(4, "little") for size in HEADER_BYTES} else ">"
    size = int.from_bytes(start[:4], "little" if order == "<" else "big")
    start += stream.read(size - 348) if size == 540 else b""
    if size in HEADER_BYTES and len(start) < size:
        raise CTError(
            f"{path} is truncated: its header has {len(start)} of {size} bytes",
            code="ct-truncated",
            hint="copy or download the file again",
        )
    if size not in HEADER_BYTES:
        raise CTError(
            f"{path} is not a NIfTI file: it does not start with a NIfTI header",
            code="ct-damaged",
            hint="the file is damaged or has the wrong extension",
        )
    table = _FIELDS_1 if size == 348 else _FIELDS_2
    raw: _Fields = {
        name: np.frombuffer(start, np.dtype(kind).newbyteorder(order), count, offset)
        for name, (kind, count, offset) in table.items()
    }
    # numpy strips the trailing zero of the magic.
    if bytes(raw["magic"].item()) != HEADER_BYTES[size].rstrip(b"\x00"):
        raise CTError(
            f"{path} is not a single-file NIfTI: its magic is {bytes(raw['magic'])!r}",
            code="ct-damaged",
            hint="an Analyze file or a .hdr/.img pair has no place for its orientation; convert it to .nii.gz",
        )
    return _interpret(raw, order, size, path), size


def _interpret(raw: _Fields, order: _ByteOrder, header_bytes: int, path: str) -> _Header:
    """Turn header fields into size, type, scaling and LPS affine."""
    dims = int(raw["dim"][0])
    if not 1 <= dims <= _MAX_DIMS:
        raise CTError(
            f"{path} is damaged: its header says it has {dims} dimensions",
            code="ct-damaged",
            hint="export the CT again",
        )
    shape = [int(n) for n in raw["dim"][1 : 1 + dims]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    check_size(shape, path=path)
    code = int(raw["datatype"].item())
    if code not in _VOXEL_TYPES:
        raise CTError(
            f"{path} holds voxels of NIfTI type {code}, which are not single numbers (colour, complex or unknown)",
            code="ct-not-scalar",
            hint="give the CT itself, one number in HU for each voxel",
        )
    offset = float(raw["vox_offset"].item())
    if not header_bytes <= offset <= _MAX_VOX_OFFSET:
        raise CTError(
            f"{path} is damaged: its header puts the voxels at byte {offset:g}",
            code="ct-damaged",
            hint="export the CT again",
        )
    slope, intercept = float(raw["scl_slope"].item()), float(raw["scl_inter"].item())
    if slope == 0.0 or not np.isfinite(slope):
        slope, intercept = 1.0, 0.0
    affine, notes = _lps_affine(raw, shape, path)
    dtype = np.dtype(_VOXEL_TYPES[code]).newbyteorder(order)
    return _Header((shape[0], shape[1], shape[2]), dtype, int(offset), slope, intercept, affine, notes)


def _lps_affine(raw: _Fields, shape: list[int], path: str) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """(3, 4) from index to LPS mm: the sform where there is one, else the qform, as the standard says."""
    sform = raw["srow"].astype(np.float64).reshape(3, 4)
    qform = _qform(raw)
    has_sform, has_qform = int(raw["sform_code"].item()) > 0, int(raw["qform_code"].item()) > 0
    if not (has_sform or has_qform):
        raise CTError(
            f"{path} does not say how the scan lies in the patient: its qform and sform codes are both 0",
            code="ct-no-orientation",
            hint="convert the CT from its DICOM series again with a tool that keeps the orientation",
        )
    unit = _MM_PER_UNIT.get(int(raw["xyzt_units"].item()) & 7, 1.0)
    notes: tuple[str, ...] = ()
    if has_sform and has_qform:
        far = np.array([*(n - 1 for n in shape), 1.0])
        apart = unit * max(float(np.linalg.norm((sform - qform) @ corner)) for corner in (far, np.array([0, 0, 0, 1])))
        if apart > FORM_DISAGREEMENT_MM:
            notes = (f"the file's sform and qform disagree by {apart:.1f} mm; the sform was used",)
    ras = (sform if has_sform else qform) * unit
    return np.diag([-1.0, -1.0, 1.0]) @ ras, notes


def _qform(raw: _Fields) -> npt.NDArray[np.float64]:
    """(3, 4) RAS affine of the quaternion form (nifti1.h, method 2)."""
    b, c, d = (float(q) for q in raw["quatern"])
    squared = 1.0 - (b * b + c * c + d * d)
    if squared < 1e-7:
        # A rotation by 180 degrees, in float32: the scalar part is zero and the vector is scaled to unit length.
        length = np.sqrt(b * b + c * c + d * d) or 1.0
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = float(np.sqrt(squared))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    handedness = -1.0 if float(raw["pixdim"][0]) < 0 else 1.0
    steps = raw["pixdim"][1:4].astype(np.float64) * np.array([1.0, 1.0, handedness])
    return np.column_stack([rotation * steps, raw["qoffset"].astype(np.float64)])
