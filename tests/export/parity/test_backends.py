"""Figures of the other backends: measured, written into the bundle, and obeyed by auto."""

from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from nodule_diag.backends import create_backend
from nodule_diag.backends.parity import misses
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.bundle.parity import ParityRecord
from nodule_diag_export.cli import app
from nodule_diag_export.parity.backends import record_parity
from nodule_diag_export.parity.real_patches import cube_patches
from nodule_diag_training.data.training_data import TrainingData

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.mark.usefixtures("diagnosed")
def test_cube_patches(tiny_lidc):
    patches = cube_patches(TrainingData.of(tiny_lidc))
    assert patches.shape == (2, 2, 64, 64, 64)
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, cube_patches(TrainingData.of(tiny_lidc)))


@needs_openvino
@pytest.mark.usefixtures("diagnosed")
def test_the_command_writes_what_auto_obeys(tiny_bundle, tiny_lidc, tmp_path):
    out = tmp_path / "measured.zip"
    ended = CliRunner().invoke(app, ["parity", str(tiny_bundle), "--out", str(out), "--data", str(tiny_lidc)])
    assert ended.exit_code == 0, ended.output
    written = Bundle.open(out)
    record = next(record for record in written.manifest.parity if record.precision == "fp32")
    assert (record.backend, record.device, record.patches) == ("openvino", "cpu", 2)
    assert misses(record, precision="fp32") == ()
    assert "passed" in ended.output
    assert create_backend(Bundle.open(tiny_bundle), device="cpu", threads=1).name == "onnxruntime"
    assert create_backend(written, device="cpu", threads=1).name == "openvino"


@needs_openvino
def test_figures_of_other_machines_are_kept(tmp_path):
    bundle = make_tiny_bundle(tmp_path / "b")
    elsewhere = ParityRecord(
        backend="tensorrt", device="cuda", precision="fp32", runtime_version="1", patches=9, malignancy=0.0,
        expert_score=0.0, segmentation=0.0, cam=0.0, cam_patches=9, overlap=1.0,
    )  # fmt: skip
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = bundle.manifest.model_copy(update={"parity": (elsewhere,)})
    bundle = write_bundle(tmp_path / "b", manifest=manifest, files=files)
    patches = np.random.default_rng(0).random((1, 2, 64, 64, 64), dtype=np.float32)
    again = record_parity(bundle, patches, out=tmp_path / "b", threads=1)
    assert again.manifest.parity[0] == elsewhere
    assert ("openvino", "fp32") in {(record.backend, record.precision) for record in again.manifest.parity[1:]}
    assert {name: again.read(name) for name in files} == files
