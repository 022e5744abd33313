"""What is logged: what was read and chosen, how long it took, what to mind; never whose CT it is."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import nodule_diag as nd
from nodule_diag.ct.made_up import made_up_ct

IDENTITY = "Doe^Jane"


@pytest.fixture
def named_ct(tmp_path: Path) -> Path:
    """A CT whose folder is called like a patient."""
    ct = made_up_ct()
    image = sitk.GetImageFromArray(np.asarray(ct.hu))
    image.SetOrigin(ct.origin_xyz_mm)
    folder = tmp_path / IDENTITY
    folder.mkdir()
    sitk.WriteImage(image, str(folder / "ct.nii"))
    return folder / "ct.nii"


def test_it_tells_the_run_and_not_the_patient(
    named_ct: Path, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="nodule_diag"):
        diagnoser = nd.Diagnoser.load(tiny_bundle, device="cpu", threads=1)
        ct = nd.read_ct(named_ct)
        diagnoser.predict(ct, [(0, 0, 0), (-46, -46, -46)], ids=[IDENTITY, f"{IDENTITY}-2"])
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "nodule_diag"]
    assert told[0] == ("INFO", "loaded tiny 1.0.0: onnxruntime on cpu, fp32, 1 thread")
    assert told[1][1].startswith("read a CT of 96 x 96 x 96 voxels in ")
    assert ("WARNING", "nodule 2 of 2: the position is outside the lung mask") in told
    assert told[-1][1].startswith("diagnosed 2 nodules: lung_mask ")
    assert {level for level, _ in told} == {"INFO", "WARNING"}
    for _, message in told:
        assert IDENTITY not in message
        assert str(tiny_bundle) not in message


def test_it_is_silent_until_somebody_listens(named_ct: Path, tiny_bundle: Path) -> None:
    program = (
        "import sys, nodule_diag as nd;"
        "d = nd.Diagnoser.load(sys.argv[1], device='cpu', threads=1);"
        "assert d.predict(nd.read_ct(sys.argv[2]), [(-46, -46, -46)])[0].warnings"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_bundle), str(named_ct)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
