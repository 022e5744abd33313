"""NIfTI-1 and NIfTI-2, plain or gzipped, read without SimpleITK.

ITK fills the missing end of a truncated NIfTI file with zeros without any message (ITK 5.4, for ``.nii`` and
``.nii.gz``). In a CT these zeros are water instead of lung. This reader counts the bytes, and needs no second copy of
the volume. The tests compare it with SimpleITK and with nibabel.
"""

from __future__ import annotations

from itertools import product
from math import isfinite, prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.formats.byte_stream import ByteStream, is_gzip, read_voxels
from nodule_diag.ct.formats.ct_file import CTFile
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.refusals import damaged, not_placed, not_scalar, other_format, truncated
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

_MAX_DIMS = 7
_MAX_VOX_OFFSET = 64 * 2**20
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""NIFTI_UNITS_UNKNOWN (taken as mm, as ITK does), METER, MM, MICRON."""

_VOXEL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}

_FIELDS = (
    # name, type and byte offset in nifti1.h, type and byte offset in nifti2.h
    ("magic", "S4", 344, "S4", 4),
    ("dim", "8i2", 40, "8i8", 16),
    ("datatype", "i2", 70, "i2", 12),
    ("pixdim", "8f4", 76, "8f8", 104),
    ("vox_offset", "f4", 108, "i8", 168),
    ("scl_slope", "f4", 112, "f8", 176),
    ("scl_inter", "f4", 116, "f8", 184),
    ("xyzt_units", "u1", 123, "i4", 500),
    ("qform_code", "i2", 252, "i4", 344),
    ("sform_code", "i2", 254, "i4", 348),
    ("quatern", "3f4", 256, "3f8", 352),
    ("qoffset", "3f4", 268, "3f8", 376),
    ("srow", "(3,4)f4", 280, "(3,4)f8", 400),
)
_NAMES, _TYPES_1, _OFFSETS_1, _TYPES_2, _OFFSETS_2 = map(list, zip(*_FIELDS, strict=True))
_LAYOUTS = {
    348: np.dtype({"names": _NAMES, "formats": _TYPES_1, "offsets": _OFFSETS_1, "itemsize": 348}),
    540: np.dtype({"names": _NAMES, "formats": _TYPES_2, "offsets": _OFFSETS_2, "itemsize": 540}),
}
"""The layouts by the size of the header, which is the file's first number."""
_MAGIC = {348: b"n+1", 540: b"n+2"}
"""Magic of a single-file NIfTI of this version, without its final zero, which numpy strips."""

FORM_DISAGREEMENT_MM = 1.0
"""Two orientations in one file that place a corner further apart than this are worth a warning."""

_Header = np.void
"""A record of one of the layouts."""


def read(source: CTFile) -> CTVolume:
    """Read a NIfTI file.

    Args:
        source: The file.

    Raises:
        CTError: When it is damaged, or is not a CT that can be used for a diagnosis.
    """
    name = str(source)
    with source.open() as file:
        compressed = is_gzip(file)
        stream = ByteStream(file, packing="gzip" if compressed else None, path=name)
        header, order = _read_header(stream, name)
        size = _size(header, name)
        dtype, offset = _voxels(header, order, name)
        affine, notes = _lps_affine(header, size, name)
        check_payload(prod(size) * dtype.itemsize, source.size, compressed=compressed, path=name)
        columns = affine[:, :3]
        spacing = np.linalg.norm(columns, axis=0)
        grid = StoredGrid.checked(
            size,
            spacing_xyz_mm=spacing,
            origin_xyz_mm=affine[:, 3],
            direction=np.divide(columns, spacing, out=np.zeros((3, 3)), where=spacing > 0),
            path=name,
        )
        slope, intercept = _scaling(header, name)
        voxels = HounsfieldArray(grid, path=name)
        stream.skip(offset - header.dtype.itemsize)
        read_voxels(stream, voxels, dtype=dtype, slope=slope, intercept=intercept)
    return CTVolume.from_voxels(voxels, warnings=notes)


def _read_header(stream: ByteStream, path: str) -> tuple[_Header, Literal["<", ">"]]:
    """The header and its byte order."""
    start = stream.read(348)
    order: Literal["<", ">"] = "<" if int.from_bytes(start[:4], "little") in _LAYOUTS else ">"
    size = int.from_bytes(start[:4], "little" if order == "<" else "big")
    if size not in _LAYOUTS:
        raise other_format(path, "a NIfTI", "it does not start with a NIfTI header")
    start += stream.read(size - 348)
    if len(start) < size:
        raise truncated(path, f"its header has {len(start)} of {size} bytes")
    header: _Header = np.frombuffer(start, _LAYOUTS[size].newbyteorder(order))[0]
    if bytes(header["magic"]) != _MAGIC[size]:
        raise CTError(
            f"{path} is not a single-file NIfTI: its magic is {bytes(header['magic'])!r}",
            code="ct-damaged",
            hint="an Analyze file or a .hdr/.img pair has no place for its orientation; convert it to .nii.gz",
        )
    return header, order


def _size(header: _Header, path: str) -> list[int]:
    """Voxels along x, y, z."""
    dims, *shape = map(int, header["dim"])
    if not 1 <= dims <= _MAX_DIMS:
        raise damaged(path, f"its header says it has {dims} dimensions")
    del shape[dims:]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    check_size(shape, path=path)
    return shape


def _voxels(header: _Header, order: Literal["<", ">"], path: str) -> tuple[np.dtype[Any], int]:
    """The stored type with its byte order, and the start of the voxels in the uncompressed stream."""
    code, offset = int(header["datatype"]), float(header["vox_offset"])
    if code not in _VOXEL_TYPES:
        what = f"voxels of NIfTI type {code}, which are not single numbers (colour, complex or unknown)"
        raise not_scalar(path, what)
    if not (header.dtype.itemsize <= offset <= _MAX_VOX_OFFSET and offset.is_integer()):
        raise damaged(path, f"its header puts the voxels at byte {offset:.9g}")
    return np.dtype(_VOXEL_TYPES[code]).newbyteorder(order), int(offset)


def _scaling(header: _Header, path: str) -> tuple[float, float]:
    """Slope and intercept of HU = slope * stored + intercept."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or not isfinite(slope):  # "not scaled" in the standard and in nibabel
        return 1.0, 0.0
    if not isfinite(intercept):
        raise damaged(path, f"its scl_slope is {slope:g} and its scl_inter {intercept}")
    return slope, intercept


def _lps_affine(header: _Header, size: list[int], path: str) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """(3, 4) from index to LPS mm, and notes: the sform where there is one, else the qform, as the standard says."""
    sform, qform = header["srow"].astype(np.float64), _qform(header)
    has_sform, has_qform = header["sform_code"] > 0, header["qform_code"] > 0
    if not (has_sform or has_qform):
        raise not_placed(path, "its qform and sform codes are both 0")
    unit = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    notes: tuple[str, ...] = ()
    if has_sform and has_qform:
        corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in size))])
        apart = unit * float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
        if apart > FORM_DISAGREEMENT_MM:
            notes = (f"the file's sform and qform disagree by {apart:.1f} mm; the sform was used",)
    return (sform if has_sform else qform) * unit * np.array([[-1.0], [-1.0], [1.0]]), notes


def _qform(header: _Header) -> npt.NDArray[np.float64]:
    """(3, 4) RAS affine of the quaternion form (nifti1.h, method 2)."""
    b, c, d = header["quatern"].tolist()
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
    handedness = -1.0 if header["pixdim"][0] < 0 else 1.0
    steps = header["pixdim"][1:4].astype(np.float64) * np.array([1.0, 1.0, handedness])
    return np.column_stack([rotation * steps, header["qoffset"].astype(np.float64)])
