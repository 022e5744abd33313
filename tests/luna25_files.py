"""LUNA25's public training set in miniature: twelve patients, some over years, as CTs or as nodule blocks.

Nothing in it is LUNA25's. The layout is: one CSV, ``<SeriesInstanceUID>.mha``, and blocks of 64 slices as numpy files
whose metadata are pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HEADER = (
    "PatientID,SeriesInstanceUID,StudyDate,CoordX,CoordY,CoordZ,LesionID,AnnotationID,NoduleID,label,"
    "Age_at_StudyDate,Gender"
)
PATIENTS = 12
ORIGIN_XYZ = (-30.0, -28.0, -1400.0)
SPACING_XYZ = (0.8, 0.8, 1.0)
SIZE_XYZ = (72, 70, 56)
WALL_X = 24.0
"""Where the chest wall begins, mm."""
BLOCK_ZYX = (64, 128, 128)


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A row of the table, and how large its ball is."""

    patient: str
    series: str
    date: str
    center: tuple[float, float, float]
    lesion: int
    label: int
    radius_mm: float

    @property
    def annotation(self) -> str:
        return f"{self.patient}_{self.lesion}_{self.date}"

    @property
    def row(self) -> str:
        x, y, z = (f"{value:.2f}" for value in self.center)
        nodule = f"{self.patient}_{self.lesion}"
        return (
            f"{self.patient},{self.series},{self.date},{x},{y},{z},{self.lesion},{self.annotation},{nodule},{self.label},"
            "62,Male"
        )


def annotations() -> list[Annotation]:
    """Sixteen of twelve patients: four of them again a year later, every other one malignant."""
    return [
        Annotation(
            patient=str(100100 + 7 * number),
            series=f"1.2.840.113654.2.55.{number + 1}.{year}",
            date=f"{1999 + year}0102",
            center=(-2.0 + number % 4, 1.0 - number % 3, -1373.0 + year),
            lesion=1 + number % 2,
            label=number % 2,
            radius_mm=3.0 + number % 5 + year,
        )
        for number in range(PATIENTS)
        for year in range(2 if number % 3 == 0 else 1)
    ]


def write_table(path: Path, rows: list[str] | None = None) -> Path:
    """The CSV, of other rows where they are given."""
    text = [HEADER, *([own.row for own in annotations()] if rows is None else rows)]
    path.write_text("\n".join(text) + "\n")
    return path


def hu_of(own: Annotation, *, size_xyz: tuple[int, int, int], origin_xyz: tuple[float, float, float]) -> np.ndarray:
    """[z, y, x] int16: a ball of soft tissue in noisy lung, beside the chest wall."""
    rng = np.random.default_rng(int(own.patient) + int(own.date))
    z, y, x = np.indices(size_xyz[::-1], dtype=np.float64)
    points = np.stack([x, y, z], axis=-1) * SPACING_XYZ + origin_xyz
    ball = np.linalg.norm(points - np.asarray(own.center), axis=-1) <= own.radius_mm
    tissue = ball | (points[..., 0] > WALL_X)
    return np.where(tissue, 30 + 40 * own.label, rng.normal(-850, 40, ball.shape)).astype(np.int16)


def write_cts(folder: Path) -> None:
    """``<SeriesInstanceUID>.mha`` of every CT."""
    folder.mkdir()
    for own in annotations():
        image = sitk.GetImageFromArray(hu_of(own, size_xyz=SIZE_XYZ, origin_xyz=ORIGIN_XYZ))
        image.SetSpacing(SPACING_XYZ)
        image.SetOrigin(ORIGIN_XYZ)
        sitk.WriteImage(image, str(folder / f"{own.series}.mha"))


def metadata_of(image: sitk.Image) -> dict[str, np.ndarray]:
    """Where an image lies, as the blocks' metadata say it: zyx, a step along each axis divided by the spacings."""

    def point(index_zyx: np.ndarray) -> np.ndarray:
        return np.array(image.TransformContinuousIndexToPhysicalPoint(index_zyx[::-1].tolist()))[::-1]

    origin, spacing = point(np.zeros(3)), np.array(image.GetSpacing())[::-1]
    steps = np.array([point(step) - origin for step in np.eye(3)])
    return {"origin": origin, "spacing": spacing, "transform": steps / spacing}


def write_blocks(folder: Path) -> None:
    """``image/`` and ``metadata/``: a block's middle voxel is the one nearest to the nodule."""
    for name in ("image", "metadata"):
        (folder / name).mkdir(parents=True)
    for own in annotations():
        index = np.rint((np.asarray(own.center) - ORIGIN_XYZ) / SPACING_XYZ)
        origin = ORIGIN_XYZ + (index - np.asarray(BLOCK_ZYX[::-1]) // 2) * SPACING_XYZ
        hu = hu_of(own, size_xyz=BLOCK_ZYX[::-1], origin_xyz=tuple(origin.tolist()))
        np.save(folder / "image" / f"{own.annotation}.npy", hu)
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing(SPACING_XYZ)
        image.SetOrigin(origin.tolist())
        np.save(folder / "metadata" / f"{own.annotation}.npy", metadata_of(image), allow_pickle=True)  # type: ignore[arg-type]
