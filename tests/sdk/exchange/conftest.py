"""A marked series on disk, made once: straight and oblique."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from marked_files import Marked, marked_series, write_chest_cad, write_points, write_rtstruct, write_seg, write_sr
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume

SEGMENTATIONS = {
    "seg binary": ("BINARY", "1.2.840.10008.1.2.1"),
    "seg fractional": ("FRACTIONAL", "1.2.840.10008.1.2.1"),
    "seg label map": ("LABELMAP", "1.2.840.10008.1.2.1"),
    "seg fractional rle": ("FRACTIONAL", "1.2.840.10008.1.2.5"),
    "seg label map rle": ("LABELMAP", "1.2.840.10008.1.2.5"),
}
REPORTS = ("point", "polygon", "ellipsoid", "pixel", "circle", "outlines", "segment", "segment frame")


class MarkedFiles:
    """The series, its CT, and every file that marks its two nodules."""

    def __init__(self, folder: Path, tilt_deg: float) -> None:
        self.marked: Marked = marked_series(folder, tilt_deg=tilt_deg)
        self.ct: CTVolume = read_ct(self.marked.folder)
        self.files = write_points(folder, self.marked)
        self.files["rtstruct"] = write_rtstruct(folder / "rtstruct.dcm", self.marked)
        for name, (kind, syntax) in SEGMENTATIONS.items():
            self.files[name] = write_seg(folder / f"{name}.dcm", self.marked, kind=kind, syntax=syntax)
        segmentation = pydicom.dcmread(self.files["seg binary"])
        for by in REPORTS:
            needed = segmentation if by.startswith("segment") else None
            self.files[f"sr {by}"] = write_sr(folder / f"sr {by}.dcm", self.marked, by=by, segmentation=needed)
        self.files["chest cad"] = write_chest_cad(folder / "chest cad.dcm", self.marked)


@pytest.fixture(scope="session", params=[0.0, 17.0], ids=["straight", "oblique"])
def every(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MarkedFiles:
    """All forms of the same two nodules."""
    pytest.importorskip("highdicom")
    return MarkedFiles(tmp_path_factory.mktemp("marked"), request.param)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> MarkedFiles:
    """The same on a grid that is parallel to the patient."""
    pytest.importorskip("highdicom")
    return MarkedFiles(tmp_path_factory.mktemp("straight"), 0.0)
