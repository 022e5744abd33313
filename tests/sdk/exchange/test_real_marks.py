"""The nodule of LIDC-IDRI-0001 in every form gets one answer: points and centroids, by the packaged model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from marked_files import Marked, write_chest_cad, write_points, write_rtstruct, write_seg, write_sr
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.exchange import read_positions

SPICULATED = (56.17, 86.20, -115.0)
"""On a slice: what is drawn on one image is no nearer to the nodule than its slice."""
ELSEWHERE = (70.0, 60.0, -150.0)


@pytest.mark.real_data
@pytest.mark.slow
def test_one_answer(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    with zipfile.ZipFile(data_root / "ct" / "LIDC-IDRI-0001_dicom.zip") as packed:
        packed.extractall(tmp_path / "series")
    slices = [pydicom.dcmread(path) for path in (tmp_path / "series").rglob("*.dcm")]
    slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
    marked = Marked(tmp_path / "series", slices, np.array(SPICULATED), np.array(ELSEWHERE))
    files = write_points(tmp_path, marked)
    files["rtstruct"] = write_rtstruct(tmp_path / "rtstruct.dcm", marked)
    files["seg"] = write_seg(tmp_path / "seg.dcm", marked)
    for by in ("point", "outlines", "segment"):
        segmentation = pydicom.dcmread(files["seg"]) if by == "segment" else None
        files[f"sr {by}"] = write_sr(tmp_path / f"sr {by}.dcm", marked, by=by, segmentation=segmentation)
    files["chest cad"] = write_chest_cad(tmp_path / "cad.dcm", marked)

    ct = read_ct(tmp_path / "series")
    found = {name: read_positions(path, ct=ct)[0].xyz_lps_mm for name, path in files.items()}
    exact = {name for name, xyz in found.items() if np.abs(np.subtract(xyz, SPICULATED)).max() <= 1e-4}
    assert exact >= {*files} - {"rtstruct", "seg", "sr outlines", "sr segment", "chest cad"}
    for xyz in found.values():
        assert np.abs(np.subtract(xyz, SPICULATED)).max() <= 0.5
    answers = Diagnoser.load(Bundle.default(), device="cpu").predict(ct, list(found.values()))
    first, *others = (answer.malignancy for answer in answers)
    for name, other in zip([*found][1:], others, strict=True):
        assert other == pytest.approx(first, abs=1e-4 if name in exact else 0.05), name
