"""A CT in Hounsfield units on canonical LPS axes, and how its file stored it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom_source import DicomSource
from nodule_diag.ct.gaps import SliceGap
from nodule_diag.ct.grid import Axes, Flips, StoredGrid, Triple
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.errors import CTError

_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A chest CT, as everything after reading sees it.

    `read_ct` and `CTVolume.from_array` make volumes and check them; the constructor itself checks nothing.

    Attributes:
        hu: (z, y, x) int16 or float32, read-only: HU, clamped at -1024; +x to the patient's left, +y to posterior,
            +z to superior, up to the rotation in ``direction``.
        spacing_zyx_mm: Voxel spacing, mm.
        origin_xyz_mm: LPS position of the centre of ``hu[0, 0, 0]``, mm.
        direction: (3, 3) float64, columns are the LPS unit vectors of the x, y and z index axes; the identity unless
            the scan is oblique.
        path: The path that was read.
        warnings: What the user of a result must know about the scan.
        dicom: The series that was read; None for other formats.
        stored_axes: For canonical x, y, z: the axis of the file that it came from.
        stored_flips: For canonical x, y, z: whether the file's axis has the opposite direction.
        gaps: Where slices are missing and voxels were interpolated.
    """

    hu: npt.NDArray[Any]
    spacing_zyx_mm: Triple
    origin_xyz_mm: Triple
    direction: npt.NDArray[np.float64]
    path: str
    warnings: tuple[str, ...] = ()
    dicom: DicomSource | None = None
    stored_axes: Axes = (0, 1, 2)
    stored_flips: Flips = (False, False, False)
    gaps: tuple[SliceGap, ...] = ()

    @property
    def series_uid(self) -> str | None:
        """DICOM SeriesInstanceUID; None where there is none."""
        return (self.dicom.series_uid or None) if self.dicom else None

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Voxels along canonical x, y, z."""
        z, y, x = self.hu.shape
        return x, y, z

    @property
    def spacing_xyz_mm(self) -> Triple:
        """Spacing along canonical x, y, z, mm."""
        z, y, x = self.spacing_zyx_mm
        return x, y, z

    @property
    def stored_size_xyz(self) -> tuple[int, int, int]:
        """Voxels along the axes of the file, fastest first."""
        x, y, z = (self.size_xyz[axis] for axis in self._canonical_of_stored)
        return x, y, z

    @property
    def stored_spacing_xyz_mm(self) -> Triple:
        """Spacing along the axes of the file, fastest first, mm."""
        x, y, z = (self.spacing_xyz_mm[axis] for axis in self._canonical_of_stored)
        return x, y, z

    @property
    def stored_orientation(self) -> str:
        """The directions of the file's axes, fastest first, such as ``LPS`` or ``RAS``."""
        return "".join(_LETTERS[axis][self.stored_flips[axis]] for axis in self._canonical_of_stored)

    @property
    def _canonical_of_stored(self) -> list[int]:
        return [self.stored_axes.index(stored) for stored in range(3)]

    @classmethod
    def from_array(
        cls,
        hu_zyx: npt.ArrayLike,
        *,
        spacing_zyx_mm: Triple,
        origin_xyz_mm: Triple,
        direction: npt.ArrayLike | None = None,
        path: str = "<array>",
    ) -> CTVolume:
        """A volume from voxels in memory, with the same checks as a file. The array is copied.

        Args:
            hu_zyx: (z, y, x) of any real type, HU, in any orientation.
            spacing_zyx_mm: Voxel spacing along the array's axes, mm.
            origin_xyz_mm: LPS position of the array's first voxel, mm.
            direction: (3, 3), columns are the LPS unit vectors of the array's x, y and z axes; the identity (LPS) when
                left out.
            path: Name to use in messages and results.

        Raises:
            CTError: As `read_ct`.
        """
        array = np.asarray(hu_zyx)
        if array.dtype.kind not in "iuf":
            raise CTError(
                f"{path} holds values of type {array.dtype}, not numbers",
                code="ct-not-scalar",
                hint="give an array of integers or floats, in HU",
            )
        grid = StoredGrid.checked(
            array.shape[::-1],
            spacing_xyz_mm=tuple(spacing_zyx_mm)[::-1],
            origin_xyz_mm=origin_xyz_mm,
            direction=np.eye(3) if direction is None else direction,
            path=path,
        )
        voxels = HounsfieldArray(grid, path=path)
        for start in range(len(array)):
            voxels.add(start, array[start : start + 1])
        return cls.from_voxels(voxels)

    @classmethod
    def from_voxels(
        cls,
        voxels: HounsfieldArray,
        *,
        dicom: DicomSource | None = None,
        warnings: tuple[str, ...] = (),
        gaps: tuple[SliceGap, ...] = (),
    ) -> CTVolume:
        """A volume of the voxels that a reader has collected.

        Args:
            voxels: All of them.
            dicom: The series that was read.
            warnings: What the user of a result must know, in addition to the grid's warnings.
            gaps: Where slices are missing.

        Raises:
            CTError: As `HounsfieldArray.finish`.
        """
        grid = voxels.grid
        x, y, z = grid.spacing_xyz_mm
        return cls(
            hu=voxels.finish(),
            spacing_zyx_mm=(z, y, x),
            origin_xyz_mm=grid.origin_xyz_mm,
            direction=grid.direction,
            path=voxels.path,
            warnings=(*warnings, *voxels.stored_grid.warnings()),
            dicom=dicom,
            stored_axes=grid.stored_axes,
            stored_flips=grid.stored_flips,
            gaps=gaps,
        )
