"""The winograd graph in a bundle, and the backend that runs it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from nodule_diag.backends import create_backend
from nodule_diag.backends.parity import infer_all
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.errors import BackendError, BundleError
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ParityError
from nodule_diag_export.parity.backends import record_parity
from nodule_diag_export.parity.onnx import random_patches
from nodule_diag_export.winograd import file as winograd_file
from nodule_diag_export.winograd.file import FILE, GIVEN, KERNELS_FILE, add_winograd
from tiny_network import tiny_network

if not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):
    pytest.skip("this onnxruntime takes no weights from memory", allow_module_level=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("plain") / "b", model=tiny_network())


@pytest.fixture(scope="module")
def bundle(plain, tmp_path_factory) -> Bundle:
    """With the graph; written by the command."""
    out = tmp_path_factory.mktemp("winograd") / "b"
    ended = CliRunner().invoke(app, ["winograd", str(plain.path), "--out", str(out), "--threads", "1"])
    assert ended.exit_code == 0, ended.output
    assert "malignancy" in ended.output
    return Bundle.open(out)


def changed(bundle: Bundle, path: Path, *, files: dict[str, bytes] | None = None, **model: object) -> Bundle:
    kept = {name: bundle.read(name) for name in bundle.manifest.files}
    spec = bundle.manifest.model.model_copy(update=model)
    return write_bundle(
        path, manifest=bundle.manifest.model_copy(update={"model": spec}), files={**kept, **(files or {})}
    )


def test_it_answers_as_the_direct_graph(bundle):
    patches = random_patches(3, seed=3)
    made = create_backend(bundle, name="winograd", threads=1)
    assert (made.name, made.device, made.precision, made.threads) == ("winograd", "cpu", "fp32", 1)
    wanted = infer_all(create_backend(bundle, name="onnxruntime", device="cpu", threads=1), patches)
    found = made.infer(patches)
    for field in bundle.manifest.model.outputs.given():
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), atol=1e-4, err_msg=field)


def test_weights_are_stored_once(bundle, plain):
    assert {name: bundle.read(name) for name in plain.manifest.files} == {
        name: bundle.read(name) for name in plain.manifest.files
    }
    network = plain.read("model.onnx")
    large = [tensor.raw_data for tensor in onnx.load_from_string(network).graph.initializer]
    for file in (FILE, KERNELS_FILE):
        assert not any(data in bundle.read(file) for data in large if len(data) >= winograd_file.LEAST_BYTES)


def test_a_zip_works_as_a_folder(bundle, tmp_path):
    zipped = changed(bundle, tmp_path / "b.zip")
    patches = random_patches(1, seed=4)
    answers = [create_backend(b, name="winograd", threads=1).infer(patches).logit for b in (bundle, zipped)]
    np.testing.assert_array_equal(*answers)


def test_auto_takes_it_on_figures_only(bundle, tmp_path):
    assert create_backend(bundle, device="cpu", threads=1).name == "onnxruntime"
    measured = record_parity(bundle, random_patches(2, seed=6), out=tmp_path / "b", threads=1)
    assert "winograd" in {record.backend for record in measured.manifest.parity}
    assert create_backend(measured, device="cpu", precision="fp32", threads=1).name == "winograd"


def test_a_new_graph_drops_the_figures_of_the_old_one(bundle, tmp_path):
    measured = record_parity(bundle, random_patches(1, seed=6), out=tmp_path / "b", threads=1)
    again, _ = add_winograd(measured, patches=random_patches(1, seed=6), out=tmp_path / "c", threads=1)
    assert "winograd" not in {record.backend for record in again.manifest.parity}


def test_what_misses_the_gate_is_not_written(plain, tmp_path, monkeypatch):
    real = winograd_file.winograd_files

    def wrong(network: bytes, *, file: str) -> winograd_file.WinogradExport:
        proto = onnx.load_from_string(network)
        weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "shift")
        values = np.frombuffer(weight.raw_data, np.float32) + np.float32(0.01)
        weight.raw_data = values.tobytes()
        made = real(proto.SerializeToString(), file=file)
        digest = winograd_file.hashlib.sha256(network).hexdigest().encode()
        ours = winograd_file.hashlib.sha256(proto.SerializeToString()).hexdigest().encode()
        return winograd_file.WinogradExport(
            network=made.network.replace(ours, digest), kernels=made.kernels, opset=made.opset
        )

    monkeypatch.setattr(winograd_file, "winograd_files", wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        add_winograd(plain, patches=random_patches(2, seed=5), out=tmp_path / "b", threads=1)
    assert not any(tmp_path.iterdir())


def test_a_bundle_without_it(plain):
    with pytest.raises(BackendError, match="holds no graph for the winograd backend") as caught:
        create_backend(plain, name="winograd", threads=1)
    assert "nodule-diag export winograd" in caught.value.hint
    assert caught.value.code == "winograd-missing"


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ({"device": "cuda:1"}, "device-unavailable"),
        ({"precision": "bf16"}, "precision-unavailable"),
        ({"precision": "fp16"}, "precision-unavailable"),
    ],
)
def test_what_it_does_not_do(bundle, option, code):
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, name="winograd", threads=1, **{"precision": "fp32", **option})
    assert caught.value.code == code


def test_kernels_that_cannot_be_made(bundle, tmp_path):
    """A graph that loads and fails when it runs: a bundle's fault, so that auto can go on to the next backend."""
    numbers = [
        onnx.helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        onnx.helper.make_tensor("fifth", TensorProto.INT64, [1], [5]),
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["one", "fifth"], ["kernel"])],
        "kernels",
        [],
        [onnx.helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [1])],
        numbers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    broken = changed(bundle, tmp_path / "b", files={KERNELS_FILE: model.SerializeToString()})
    with pytest.raises(BundleError, match=KERNELS_FILE) as caught:
        create_backend(broken, name="winograd", threads=1)
    assert caught.value.code == "bundle-model-unreadable"


def test_a_graph_of_another_network(bundle, tmp_path):
    other = changed(bundle, tmp_path / "b", files={"model.onnx": tiny_network(seed=4).SerializeToString()})
    with pytest.raises(BundleError, match="was made for another network"):
        create_backend(other, name="winograd", threads=1)


def pointing(graph: bytes, *, location: str, offset: int = 0) -> bytes:
    """The graph with one of its tensors in another file. Those that the runtime is given are read from nowhere."""
    proto = onnx.load_from_string(graph)
    tensor = next(
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and all(entry.value != GIVEN for entry in tensor.external_data)
    )
    place = {"location": location, "offset": offset, "length": 4 * math.prod(tensor.dims)}
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto.SerializeToString()


@pytest.mark.parametrize("file", [FILE, KERNELS_FILE])
def test_a_graph_that_points_elsewhere(bundle, tmp_path, file):
    """Neither outside the bytes that were checked, nor into a file of the machine."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(len(bundle.read("model.onnx"))))
    inside = pointing(bundle.read(file), location="model.onnx")
    create_backend(changed(bundle, tmp_path / "inside", files={file: inside}), name="winograd", threads=1)
    for place, data in {
        "end": pointing(bundle.read(file), location="model.onnx", offset=10**9),
        "file": pointing(bundle.read(file), location=str(secret)),
        "damaged": b"not a network",
    }.items():
        with pytest.raises(BundleError) as caught:
            create_backend(changed(bundle, tmp_path / place, files={file: data}), name="winograd", threads=1)
        assert caught.value.code == "bundle-model-unreadable"
