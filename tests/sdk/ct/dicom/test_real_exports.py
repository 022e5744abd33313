"""LIDC-IDRI-0001 as departments might have sent it: the packaged network's answers are those of the clean series."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from scipy import ndimage

from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import CoordinateError
from nodule_diag.results.diagnosis import Diagnosis

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

NODULE = (56.17, 86.20, -115.86)
"""In slices 83 to 96 of 133, from the lowest."""
SAME, NEAR = (1e-4, 1e-3), (0.005, 0.02)
"""How far P and the expert score may be away: on the same grid, and on another."""


@pytest.fixture(scope="module")
def slices(data_root: Path) -> list[Dataset]:
    with zipfile.ZipFile(data_root / "ct" / "LIDC-IDRI-0001_dicom.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        found = [pydicom.dcmread(BytesIO(archive.read(name))) for name in names]
    return sorted(found, key=lambda item: float(item.ImagePositionPatient[2]))


@pytest.fixture(scope="module")
def diagnoser() -> Diagnoser:
    return Diagnoser.load(device="cpu", backend="onnxruntime")


@pytest.fixture(scope="module")
def clean(diagnoser: Diagnoser, data_root: Path) -> Diagnosis:
    ct = read_ct(data_root / "ct" / "LIDC-IDRI-0001_dicom.zip")
    return diagnoser.predict(ct, [NODULE], check_lung=False)[0]


def at(item: Dataset, *, y: float = 0.0, z: str | None = None) -> Dataset:
    """A slice that says it lies elsewhere."""
    item = copy.deepcopy(item)
    left, back, up = item.ImagePositionPatient
    item.ImagePositionPatient = [left, f"{float(back) + y:.6f}", up if z is None else z]
    return item


def height(item: Dataset) -> float:
    return float(item.ImagePositionPatient[2])


def noisy(slices: list[Dataset]) -> Iterator[Dataset]:
    for number, item in enumerate(slices):
        yield at(item, z=f"{height(item) + 3e-6 * (number * 7 % 5 - 2):.6f}")


def rounded(slices: list[Dataset]) -> Iterator[Dataset]:
    for number, item in enumerate(slices):
        yield at(item, z=f"{height(item) + (0.04, -0.04)[number % 2]:.2f}")


def drifting(slices: list[Dataset]) -> Iterator[Dataset]:
    for number, item in enumerate(slices):
        yield at(item, y=0.5 * (number - 90) / len(slices))


def with_odd_objects(slices: list[Dataset]) -> Iterator[Dataset]:
    yield from slices
    scout = at(slices[0])
    scout.ImageType, scout.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.2.3.4"
    yield scout
    yield slices[20]  # twice


def own_series(slices: list[Dataset]) -> Iterator[Dataset]:
    for number, item in enumerate(slices):
        item = at(item)
        item.SeriesInstanceUID = f"1.2.3.{number}"
        yield item


def without_every_other_of_the_lowest(slices: list[Dataset]) -> Iterator[Dataset]:
    yield from slices[:60:2]
    yield from slices[60:]


def tilted_by_whole_pixels(slices: list[Dataset]) -> Iterator[Dataset]:
    """Each slice shows 379 rows, beginning one further back than the slice below."""
    pixel = float(slices[0].PixelSpacing[0])
    for number, item in enumerate(slices):
        item = at(item, y=number * pixel)
        item.PixelData = item.pixel_array[number : number + 379].tobytes()
        item.Rows = 379
        yield item


def tilted_by_any_part(slices: list[Dataset]) -> Iterator[Dataset]:
    """The same by 0.7 of a pixel, made with splines of order 5."""
    pixel = float(slices[0].PixelSpacing[0])
    for number, item in enumerate(slices):
        item = at(item, y=0.7 * number * pixel)
        moved = ndimage.shift(item.pixel_array.astype(float), (-0.7 * number, 0), order=5, mode="nearest")
        item.PixelData = np.clip(np.rint(moved), -2000, 32767).astype("<i2").tobytes()[: 400 * 512 * 2]
        item.Rows = 400
        yield item


FAMILIES: dict[Callable[[list[Dataset]], Iterator[Dataset]], tuple[tuple[float, float], tuple[str, ...]]] = {
    noisy: (SAME, ()),
    rounded: (SAME, ()),
    drifting: (NEAR, ()),
    with_odd_objects: (SAME, ("set aside 1 DICOM object: a scout", "set aside 1 DICOM object: a copy")),
    own_series: (SAME, ("each slice has a SeriesInstanceUID of its own",)),
    without_every_other_of_the_lowest: (NEAR, ("30 slices are missing and interpolated (2.5 mm apart): 5 mm between",)),
    tilted_by_whole_pixels: (SAME, ("the gantry was tilted by 15.7 degrees",)),
    tilted_by_any_part: (NEAR, ("the gantry was tilted by 11.1 degrees",)),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_the_answer_is_that_of_the_clean_series(
    slices: list[Dataset],
    diagnoser: Diagnoser,
    clean: Diagnosis,
    tmp_path: Path,
    family: Callable[[list[Dataset]], Iterator[Dataset]],
) -> None:
    for number, item in enumerate(family(slices)):
        item.save_as(tmp_path / f"{number:04d}.dcm")
    ct = read_ct(tmp_path)
    found = diagnoser.predict(ct, [NODULE], check_lung=False)[0]
    (of_p, of_score), warnings = FAMILIES[family]
    assert found.malignancy == pytest.approx(clean.malignancy, abs=of_p)
    assert found.expert_score == pytest.approx(clean.expert_score, abs=of_score)
    assert len(ct.warnings) == len(warnings)
    for said, expected in zip(ct.warnings, warnings, strict=True):
        assert said.startswith(expected)


@pytest.mark.parametrize("number", [74, 90, 106])
def test_a_slice_missing_near_the_nodule(
    slices: list[Dataset], diagnoser: Diagnoser, tmp_path: Path, number: int
) -> None:
    """Slice 74 lies 40 mm below the nodule and 106 as far above it: the cube and its margin end at 26 mm."""
    for other, item in enumerate(slices):
        if other != number:
            item.save_as(tmp_path / f"{other:04d}.dcm")
    ct = read_ct(tmp_path)
    away = abs(height(slices[number]) - NODULE[2]) - 2.5
    if away < 26:
        with pytest.raises(CoordinateError, match="a gap of 5 mm") as caught:
            diagnoser.predict(ct, [NODULE], check_lung=False)
        assert caught.value.code == "coordinate-near-gap"
    else:
        assert diagnoser.predict(ct, [NODULE], check_lung=False)


def test_as_legacy_converted_enhanced_ct(
    slices: list[Dataset], diagnoser: Diagnoser, clean: Diagnosis, tmp_path: Path
) -> None:
    legacy = pytest.importorskip("highdicom.legacy")
    items = [copy.deepcopy(item) for item in slices]
    for item in items:
        for name in (
            "SeriesNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "PatientBirthDate",
            "PatientSex",
        ):
            if name not in item:
                setattr(item, name, 1 if name == "SeriesNumber" else "")
        item.setdefault("ReferringPhysicianName", "")
    made = legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=items, series_instance_uid="1.2.3.5", series_number=5, sop_instance_uid="1.2.3.5.1",
        instance_number=1,
    )  # fmt: skip
    made.save_as(tmp_path / "legacy.dcm")
    ct = read_ct(tmp_path)
    found = diagnoser.predict(ct, [NODULE], check_lung=False)[0]
    assert found.malignancy == pytest.approx(clean.malignancy, abs=SAME[0])
    assert len(ct.dicom.slices) == 133
