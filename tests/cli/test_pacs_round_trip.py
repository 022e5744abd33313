"""LIDC-IDRI-0001 goes into a real PACS, is diagnosed from there, and four objects come back, which others read."""

from __future__ import annotations

import json
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid

from nodule_diag import Diagnoser
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import PacsError
from nodule_diag.pacs.account import PASSWORD, USER
from nodule_diag.pacs.server import Pacs
from orthanc import PASSWORD as SECRET
from orthanc import USER as WHO
from orthanc import orthanc
from other_programs import assert_cam, assert_segments, dciodvfy_errors, program, run

SPICULATED = (56.17, 86.20, -115.86)

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def test_there_and_back(command: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = data_root / "ct" / "LIDC-IDRI-0001_dicom.zip"
    with zipfile.ZipFile(archive) as packed:
        slices = [dcmread(BytesIO(packed.read(name))) for name in packed.namelist() if name.endswith(".dcm")]
    assert len(slices) == 133
    study, series = slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID
    monkeypatch.setenv(USER, WHO)
    monkeypatch.setenv(PASSWORD, SECRET)
    (tmp_path / "orthanc").mkdir()
    running: list[subprocess.Popen[bytes]] = []
    with orthanc(tmp_path / "orthanc", running=running) as url:
        pacs = Pacs(url)
        pacs.store(slices)
        before = {item["0020000E"]["Value"][0] for item in pacs._client.search_for_series(study)}
        assert before == {series}
        ended = command(
            "predict", "--dicomweb", url, "--study", study, "--series", series, "--xyz", *map(str, SPICULATED),
            "--backend", "onnxruntime", "--device", "cpu", "--store", "--json",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        found = {item["0020000E"]["Value"][0] for item in pacs._client.search_for_series(study)} - {series}
        fetched = [file.data for uid in found for file in pacs.fetch(study, uid).files]

        def kill(have: int, _: int) -> None:
            if have == 5:  # 70 MB are on their way
                running[0].kill()

        with pytest.raises(PacsError) as caught:
            pacs.fetch(study, series, progress=kill)
        assert (caught.value.code, caught.value.exit_code) == ("pacs-unreachable", 6)
    files = {}
    for data in fetched:
        kind = dcmread(BytesIO(data)).SOPClassUID
        files[kind] = tmp_path / f"{kind.keyword}.dcm"
        files[kind].write_bytes(data)
        assert dciodvfy_errors(files[kind]) == [], kind.name
    assert len(fetched) == 4
    assert set(files) == {
        uid.Comprehensive3DSRStorage,
        uid.SegmentationStorage,
        uid.ParametricMapStorage,
        uid.SecondaryCaptureImageStorage,
    }

    diagnoser = Diagnoser.load(Bundle.default(), backend="onnxruntime", device="cpu")
    (diagnosis,) = diagnoser.predict(read_ct(archive), [SPICULATED])
    assert_segments(files[uid.SegmentationStorage], [diagnosis], tmp_path)
    assert_cam(files[uid.ParametricMapStorage], diagnosis, tmp_path)
    run(
        program("tid1500reader", "dcmqi (pip)"),
        "--inputDICOM", files[uid.Comprehensive3DSRStorage], "--outputMetadata", tmp_path / "read.json",
    )  # fmt: skip
    (group,) = json.loads((tmp_path / "read.json").read_text())["Measurements"]
    said = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
    (nodule,) = ended.document["nodules"]
    assert said["Probability of cancer"] == pytest.approx(100 * nodule["malignancy"], abs=1e-4)
    assert said["Probability of cancer"] == pytest.approx(100 * diagnosis.malignancy, abs=1e-4)
    assert said["Diameter"] == pytest.approx(nodule["segmentation"]["diameter_mm"], abs=1e-4)
