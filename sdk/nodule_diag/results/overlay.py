"""CAM and segmentation as NIfTI files that lie on the CT as its file stores it.

ITK-SNAP needs overlays on the CT's own voxel grid, with its axis order and flips, so overlays are written on this grid;
3D Slicer accepts any grid. Both maps have one byte per voxel. A 512 x 512 x 275 overlay has 72 MB before compression,
nearly all zeros, and some 350 kB after it. As float32, viewers would need 288 MB for a map whose true resolution is
2 mm. The header scales the CAM's 256 steps back to 0..1 (``scl_slope``).
The file is streamed slice by slice, so memory does not grow with the CT.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, lps_from_stored
from nodule_diag.process import writing
from nodule_diag.results.maps import HALF_EDGE_MM, CubeMap
from nodule_diag.results.segmentation import Segmentation

CAM_STEPS = 255
GZIP_LEVEL = 3  # 0.1 s and 315 kB for the zeros of 512 x 512 x 275; level 4 and up: 0.34 s and 70 kB
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES, _DATA_OFFSET = 348, 352
_UINT8, _MILLIMETRES, _SCANNER_FRAME = 2, 2, 1  # codes of the NIfTI-1 standard

Sampler = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
"""Bytes (N,) at points (N, 3), LPS mm."""


def _affine_lps_from_stored(ct: CTVolume) -> NDArray[np.float64]:
    """The (4, 4) matrix from an index xyz along the axes of the file to LPS mm."""
    index = np.vstack([np.zeros(3), np.eye(3)])
    origin, *steps = lps_from_stored(ct, index)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([point - origin for point in steps], axis=1)
    affine[:3, 3] = origin
    return affine


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """The b, c, d of a proper rotation matrix, with a >= 0 as NIfTI-1 wants them."""
    # The quaternion is the eigenvector of K (Bar-Itzhack 2000) that belongs to the largest eigenvalue.
    m, trace = rotation, np.trace(rotation)
    twist = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    k = np.block([[m + m.T - trace * np.eye(3), twist[:, None]], [twist, trace]])
    b, c, d, a = np.linalg.eigh(k)[1][:, -1].tolist()
    return (-b, -c, -d) if a < 0 else (b, c, d)


def _header(ct: CTVolume, slope: float, description: bytes) -> bytes:
    """A NIfTI-1 header of the CT's stored grid, for bytes that mean byte * ``slope`` and are shown from 0 to 1."""
    affine = _LPS_TO_RAS @ _affine_lps_from_stored(ct)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    rotation = affine[:3, :3] / spacing
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation[:, 2] *= handedness
    header = bytearray(_DATA_OFFSET)

    def put(offset: int, form: str, *fields: float | bytes) -> None:
        struct.pack_into(f"<{form}", header, offset, *fields)

    put(0, "i", _HEADER_BYTES)
    put(40, "8h", 3, *ct.stored_size_xyz, 1, 1, 1, 1)
    put(70, "2h", _UINT8, 8)
    put(76, "8f", handedness, *spacing, 1, 1, 1, 1)
    put(108, "3f", _DATA_OFFSET, slope, 0)
    put(123, "b", _MILLIMETRES)
    put(124, "2f", 1, 0)
    put(148, "80s", description)
    put(252, "2h", _SCANNER_FRAME, _SCANNER_FRAME)
    put(256, "6f", *_quaternion(rotation), *affine[:3, 3])
    put(280, "12f", *affine[:3].ravel())
    put(344, "4s", b"n+1\0")
    return bytes(header)


def _slices(ct: CTVolume, cube: CubeMap, sample: Sampler) -> Iterator[bytes]:
    """All voxels in stored order, x fastest, a slice at a time; only those round the cube are computed."""
    affine = _affine_lps_from_stored(ct)
    size = np.array(ct.stored_size_xyz)
    signs = np.array(list(np.ndindex(2, 2, 2))) * 2 - 1
    corners = np.asarray(cube.center_xyz_mm) + signs * HALF_EDGE_MM @ cube.direction.T
    index = (corners - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, size)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, low, size)
    x, y = (np.arange(low[axis], high[axis]) for axis in (0, 1))
    for k in range(size[2]):
        plane = np.zeros((size[1], size[0]), np.uint8)
        if low[2] <= k < high[2]:
            grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None], k), axis=-1).reshape(-1, 3)
            points_xyz_mm = grid @ affine[:3, :3].T + affine[:3, 3]
            plane[low[1] : high[1], low[0] : high[0]] = sample(points_xyz_mm).reshape(len(y), len(x))
        yield plane.tobytes()


def _write(
    path: str | os.PathLike[str], ct: CTVolume, cube: CubeMap, sample: Sampler, *, slope: float, description: bytes
) -> None:
    """Write an overlay atomically."""
    with (
        writing(path) as temporary,
        temporary.open("wb") as file,
        # No name and no time in the gzip header: the same prediction gives the same bytes.
        gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as packed,
    ):
        packed.write(_header(ct, slope, description))
        packed.writelines(_slices(ct, cube, sample))


def write_cam(path: str | os.PathLike[str], ct: CTVolume, cam: CubeMap) -> None:
    """Write a CAM as ``.nii.gz`` on the stored grid of its CT: trilinear, 0..1 in steps of 1/255, 0 outside the cube.

    Args:
        path: The file to write.
        ct: The CT that was read.
        cam: ``Diagnosis.cam``.

    Raises:
        OutputError: When the file cannot be written.
    """

    def sample(points_xyz_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.rint(cam.sample(points_xyz_mm) * CAM_STEPS).astype(np.uint8)

    _write(path, ct, cam, sample, slope=1 / CAM_STEPS, description=b"nodule-diag: class activation map")


def write_segmentation(path: str | os.PathLike[str], ct: CTVolume, segmentation: Segmentation) -> None:
    """Write the nodule as a label file (1 nodule, 0 elsewhere) on the stored grid of its CT, ``.nii.gz``.

    A voxel belongs to the nodule when its centre lies in ``segmentation.nodule``, the 0.5 mm mask that volume and
    diameter are measured on.

    Args:
        path: The file to write.
        ct: The CT that was read.
        segmentation: ``Diagnosis.segmentation``.

    Raises:
        OutputError: When the file cannot be written.
    """

    def sample(points_xyz_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
        return segmentation.holds(points_xyz_mm).view(np.uint8)

    _write(path, ct, segmentation, sample, slope=1.0, description=b"nodule-diag: segmentation")
