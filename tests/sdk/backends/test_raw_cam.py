"""The CAM of eq. 5, from a bundle whose network gives it; the packaged one's does not."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import nodule_diag as nd
from bundle_factory import tiny_model, tiny_parts
from nodule_diag.bundle.bundle import write_bundle
from nodule_diag.bundle.manifest import ModelOutputs, ModelSpec, TensorSpec
from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.preprocessing.patch import extract_patches

MAP = TensorSpec(name="map", shape=("B", 16, 16, 16))


def bundle_with_raw_cam(path: Path, *, emitted: bool = True) -> nd.Bundle:
    """The tiny network with its map, 8 * (mean of L - 0.5), as an output."""
    network = tiny_model()
    if emitted:
        network.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, list(MAP.shape)))
    manifest, files = tiny_parts(model=network)
    spec = ModelSpec(opset=manifest.model.opset, outputs=ModelOutputs(raw_cam=MAP))
    return write_bundle(path, manifest=manifest.model_copy(update={"model": spec}), files=files)


@pytest.mark.parametrize("symmetries", [1, 8])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_its_mean_is_the_logit(tmp_path: Path, backend: str, symmetries: int) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    opened = bundle_with_raw_cam(tmp_path / "bundle")
    loaded = nd.Diagnoser.load(
        opened, backend=backend, precision="fp32", device="cpu", threads=1, symmetries=symmetries
    )
    ct, point = made_up_ct(), [(3.0, -2.0, 1.0)]
    (diagnosis,) = loaded.predict(ct, point)
    wanted = 8.0 * (extract_patches(ct, point)[0, 0].reshape(16, 4, 16, 4, 16, 4).mean(axis=(1, 3, 5)) - 0.5)
    assert diagnosis.raw_cam is not None
    np.testing.assert_allclose(diagnosis.raw_cam, wanted, atol=1e-4)
    assert diagnosis.raw_cam.mean() == pytest.approx(diagnosis.logit, abs=1e-5)
    # Eq. 6: turned over for a benign answer, then stretched to 0..1.
    turned = diagnosis.raw_cam if diagnosis.logit >= 0 else -diagnosis.raw_cam
    np.testing.assert_allclose(diagnosis.cam.values, (turned - turned.min()) / np.ptp(turned), atol=1e-4)


def test_a_network_without_the_promised_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nd.BundleError, match="no output 'map'") as caught:
        nd.Diagnoser.load(bundle_with_raw_cam(tmp_path / "bundle", emitted=False), backend="onnxruntime", device="cpu")
    assert caught.value.code == "bundle-tensor-missing"


def test_a_manifest_says_nothing_of_what_is_lacking(tmp_path: Path, tiny_bundle: Path) -> None:
    opened = bundle_with_raw_cam(tmp_path / "bundle")
    assert (
        json.loads((tmp_path / "bundle" / "manifest.json").read_text())["model"]["outputs"]["raw_cam"]["name"] == "map"
    )
    assert nd.Bundle.open(tmp_path / "bundle").manifest == opened.manifest
    assert "raw_cam" not in (tiny_bundle / "manifest.json").read_text()
