"""The Triton repository: Triton's own definition of a configuration reads it, and it says what the graphs say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from needed_tools import lacks
from nodule_diag.errors import OutputError
from nodule_diag_export.cli import app
from nodule_diag_export.fused import open_source
from nodule_diag_export.triton import Serving, export_triton
from nodule_diag_export.triton import repository as repository_file

CLIENTS = "NODULE_DIAG_CLIENTS"
"""An environment that has tritonclient already."""
PARSE = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
with open(sys.argv[1]) as file:
    print(json_format.MessageToJson(text_format.Parse(file.read(), ModelConfig()), preserving_proto_field_name=True))
"""
TYPES = {"TYPE_FP32": np.float32, "TYPE_INT16": np.int16, "TYPE_UINT8": np.uint8}


@pytest.fixture(scope="session")
def triton_python(tmp_path_factory):
    """The Python of an environment of its own with Triton's client, which brings grpc."""
    if given := os.environ.get(CLIENTS):
        return Path(given, "bin", "python")
    folder = tmp_path_factory.mktemp("triton-client")
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "-q", "tritonclient[grpc]"]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        lacks(f"tritonclient from the package index: {done.stderr[-300:]}")
    return python


def parsed(triton_python, folder):
    """The configuration as JSON; int64 are text there."""
    done = subprocess.run(
        [triton_python, "-c", PARSE, folder / "config.pbtxt"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shape_of(tensor, *, batched):
    """What the graph is given, of which Triton's request has the dims."""
    dims = [int(n) for n in tensor["dims"]]
    assert dims, "no shape may be empty"
    inner = [int(n) for n in tensor["reshape"].get("shape", [])] if "reshape" in tensor else dims
    assert np.prod(inner) == np.prod(dims)
    return [-1, *inner] if batched else inner


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_both_configurations_say_what_the_graphs_say(triton_python, tmp_path, device, masked):
    bundle = make_tiny_bundle(tmp_path / "bundle", masked_input=masked)
    serving = Serving(device=device, instances=3, threads=2, max_batch=16, queue_delay_us=500)
    out = tmp_path / "repository"
    names = export_triton(open_source(bundle.path), out, serving=serving, hu_type="int16" if masked else "float32")
    assert sorted(path.name for path in out.iterdir()) == sorted(names) == ["nodule-diag", "nodule-diag-fused"]
    for name in names:
        config, batched = parsed(triton_python, out / name), name == "nodule-diag"
        assert (config["name"], config["backend"]) == (name, "onnxruntime")
        assert config.get("max_batch_size", 0) == (16 if batched else 0)
        assert config["instance_group"] == [{"count": 3, "kind": f"KIND_{device.upper()}"}]
        assert ("dynamic_batching" in config) == batched
        if batched:
            assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "500"}
        if device == "cpu":
            assert config["parameters"] == {"intra_op_thread_count": {"string_value": "2"}}
        else:
            (accelerator,) = config["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
            assert accelerator == {"name": "cuda", "parameters": {"use_tf32": "0"}}
        assert [path.name for path in (out / name).iterdir() if path.is_dir()] == ["1"]
        graph = onnx.load(out / name / "1" / "model.onnx").graph
        for tensors, values in ((config["input"], graph.input), (config["output"], graph.output)):
            declared = {value.name: value.type.tensor_type for value in values}
            assert {tensor["name"] for tensor in tensors} == set(declared)
            for tensor in tensors:
                of_graph = declared[tensor["name"]]
                shape = [-1 if axis.dim_param else axis.dim_value for axis in of_graph.shape.dim]
                assert shape_of(tensor, batched=batched) == shape, tensor["name"]
                assert TYPES[tensor["data_type"]] == onnx.helper.tensor_dtype_to_np_dtype(of_graph.elem_type)


def test_the_models_are_the_bundles(tiny_bundle, tmp_path):
    """Byte for byte, and the fused one runs with inputs of the configuration's shapes."""
    export_triton(open_source(tiny_bundle), tmp_path / "repository", serving=Serving())
    network = tmp_path / "repository" / "nodule-diag" / "1" / "model.onnx"
    assert network.read_bytes() == (tiny_bundle / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(
        tmp_path / "repository" / "nodule-diag-fused" / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    inputs = {"hu": np.zeros((2, 5, 6, 7), np.float32)}
    inputs |= {f"along_{axis}": np.zeros((2, 64, n), np.float32) for axis, n in zip("zyx", (5, 6, 7), strict=True)}
    assert session.run(["malignancy"], inputs)[0].shape == (2,)


def test_the_command_and_what_it_refuses(tiny_bundle, tmp_path, monkeypatch):
    out = tmp_path / "repository"
    out.mkdir()
    result = CliRunner().invoke(app, ["triton", str(tiny_bundle), "--out", str(out), "--device", "gpu"])
    assert result.exit_code == 0, result.output
    assert "nodule-diag, nodule-diag-fused, for the GPU" in result.output
    before = sorted(tmp_path.rglob("*"))
    again = CliRunner().invoke(app, ["triton", str(tiny_bundle), "--out", str(out)])
    assert isinstance(again.exception, OutputError)
    nowhere = CliRunner().invoke(app, ["triton", str(tiny_bundle), "--out", str(tmp_path / "no" / "where")])
    assert isinstance(nowhere.exception, OutputError), nowhere.output

    def broken(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository_file, "write_bytes", broken)
    full = CliRunner().invoke(app, ["triton", str(tiny_bundle), "--out", str(tmp_path / "other")])
    assert isinstance(full.exception, OutputError)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left of what failed"
