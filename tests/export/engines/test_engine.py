"""Engines compiled for real by TensorRT for RTX, which needs no GPU for that."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys

import onnx
import pytest
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from tiny_network import tiny_network

pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError)

import tensorrt_rtx as trt

from nodule_diag.backends.backend import Device
from nodule_diag.backends.cuda import load_driver
from nodule_diag.backends.engines.build import (
    build_engine,
    message_log,
    offered_capabilities,
    parse_network,
    profile_name,
    profiles_up_to,
)
from nodule_diag.backends.engines.cache import EngineCache
from nodule_diag.backends.engines.store import EngineKey, EngineRefusedError, read_engine, sidecar_path
from nodule_diag.backends.tensorrt_rtx import load, status
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BackendError, UsageError
from nodule_diag_export.cli import app
from nodule_diag_export.graph.mixed_precision import mixed_graph

PRECISIONS = ("fp32", "fp16", "bf16")
CAPABILITIES = offered_capabilities(trt)
TURING = "7.5"
COMBINATIONS = [(p, c) for p in PRECISIONS for c in CAPABILITIES if (p, c) != ("bf16", TURING)]
"""NVIDIA's support matrix has no bf16 for Turing."""
KILLED = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
from nodule_diag.bundle import Bundle
from nodule_diag.backends.engines.build import build_engine, profiles_up_to
from nodule_diag.backends.engines.cache import EngineCache
from nodule_diag.backends.engines.store import EngineKey
def build():
    print("building", flush=True)
    network = Bundle.default().read("model.onnx")
    return build_engine(trt, network, input_name="patch", profiles=profiles_up_to(), capabilities=["8.6"]).plan
EngineCache(Path(sys.argv[1])).get(EngineKey.model_validate_json(sys.argv[2]), build=build)
"""


def has_gpu() -> bool:
    try:
        load_driver()
    except BackendError:
        return False
    return status().usable


needs_gpu = pytest.mark.skipif(not has_gpu(), reason=f"no NVIDIA GPU: {status().reason}")


def graph(precision: str, *, packaged: bool = False) -> onnx.ModelProto:
    fp32 = onnx.load_from_string(Bundle.default().read("model.onnx")) if packaged else tiny_network()
    return fp32 if precision == "fp32" else mixed_graph(fp32, precision)


def compiled(proto: onnx.ModelProto, capability: str = "8.6") -> bytes:
    return build_engine(
        trt, proto.SerializeToString(), input_name="patch", profiles=profiles_up_to(), capabilities=[capability]
    ).plan


def key_of(data: bytes, *, precision: str = "fp32", capability: str = "8.6") -> EngineKey:
    return EngineKey.model_validate(
        {
            "model_sha256": hashlib.sha256(data).hexdigest(),
            "runtime": "tensorrt-rtx",
            "runtime_version": trt.__version__,
            "gpu": "any",
            "compute_capability": capability,
            "driver": "any",
            "precision": precision,
            "profile": profile_name(profiles_up_to()),
        }
    )


@pytest.fixture(scope="module")
def plan() -> bytes:
    return compiled(graph("fp32"))


def test_the_builder_offers_turing_to_blackwell():
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(CAPABILITIES)
    assert list(CAPABILITIES) == sorted(CAPABILITIES, key=lambda name: float(name))


@pytest.mark.parametrize(("precision", "capability"), COMBINATIONS)
def test_an_engine_is_built_for_every_capability(precision, capability):
    if (precision, capability) == ("fp32", TURING):
        with pytest.raises(BackendError, match="FP32 3D convolution is not supported") as caught:
            compiled(graph(precision), capability)
        assert caught.value.code == "engine-build-failed"
        return
    assert len(compiled(graph(precision), capability)) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_packaged_network_is_built(precision):
    assert len(compiled(graph(precision, packaged=True))) > 5_000_000


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_normalisation_has_the_groups_of_the_model(precision):
    """SegNet's has one channel and one group: sums over that channel alone are sums over all, however it is read.

    The parser's fault is in GroupNormalization nodes of one group, which it takes for instance normalisation. There
    are none here: each group is a channel of a [B, groups, voxels] tensor, normalised over its voxels.
    """
    proto = graph(precision, packaged=True)
    assert not [node for node in proto.graph.node if node.op_type == "GroupNormalization"]
    log = message_log(trt)
    builder = trt.Builder(log)
    network, parser = parse_network(trt, builder, proto.SerializeToString(), log=log)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    shapes = []
    for layer in layers:
        kind = layer.type
        if kind == trt.LayerType.NORMALIZATION:
            layer.__class__ = trt.INormalizationLayer
            source = layer.get_input(0)
            assert (layer.axes, layer.num_groups) == (1 << 2, 1)  # over the voxels, each channel by itself
            assert layer.get_output(0).dtype == source.dtype == trt.float32
            assert [tuple(layer.get_input(i).shape) for i in (1, 2)] == [(1, source.shape[1], 1)] * 2
            shapes.append(tuple(source.shape))
        elif kind == trt.LayerType.CONVOLUTION:
            wanted = {"fp32": trt.float32, "fp16": trt.float16, "bf16": trt.bfloat16}[precision]
            assert layer.get_output(0).dtype == wanted
        elif kind in (trt.LayerType.ACTIVATION, trt.LayerType.REDUCE, trt.LayerType.ELEMENTWISE):
            assert layer.get_output(0).dtype not in (trt.float16, trt.bfloat16)
    assert len(shapes) == 14
    assert [shape for shape in shapes if shape[1] == 1] == [(-1, 1, 16**3)]  # SegNet's last
    assert {shape[1] for shape in shapes} == {1, 8}
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    assert {tensor.dtype for tensor in outputs} == {trt.float32}
    del parser


def test_a_capability_that_is_not_offered_is_a_usage_error():
    with pytest.raises(UsageError, match=r"9\.9"):
        compiled(graph("fp32"), "9.9")


def test_what_is_no_network_is_refused_with_the_parsers_words():
    with pytest.raises(BackendError, match=r"cannot parse the network: .*Failed to parse") as caught:
        build_engine(trt, b"junk", input_name="patch", profiles=profiles_up_to())
    assert caught.value.code == "engine-parse-failed"


def test_a_real_engine_survives_the_cache_and_no_damage_to_it_does(plan, tmp_path):
    key, cache = key_of(tiny_network().SerializeToString()), EngineCache(tmp_path)
    assert cache.get(key, build=lambda: plan) == plan
    path = cache.path_of(key)
    for damaged in (plan[: len(plan) // 2], plan[:64], plan[:-1] + bytes([plan[-1] ^ 1]), plan + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(EngineRefusedError):
            read_engine(path, key=key)
        assert cache.get(key, build=lambda: plan) == plan
        assert path.read_bytes() == plan


def test_a_real_build_that_is_killed_leaves_nothing(tmp_path, plan):
    key = key_of(b"packaged")
    command = [sys.executable, "-c", KILLED, str(tmp_path), key.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "building\n"
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert EngineCache(tmp_path).get(key, build=lambda: plan) == plan


def test_the_command_writes_an_engine_and_says_what_it_is(tmp_path):
    bundle, out = make_tiny_bundle(tmp_path / "b", model=tiny_network()), tmp_path / "m.engine"
    command = ["tensorrt-rtx", str(bundle.path), "--out", str(out), "--sm", "8.9", "--max-batch", "4"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    said = json.loads(sidecar_path(out).read_text())
    assert said["key"]["compute_capability"] == "8.9"
    assert said["key"]["profile"] == "1-1-1,1-4-4"
    assert said["key"]["model_sha256"] == hashlib.sha256(bundle.read("model.onnx")).hexdigest()
    assert said["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


@pytest.mark.skipif(has_gpu(), reason="a GPU is here")
def test_without_a_gpu_the_backend_says_why(tiny_bundle):
    found = status()
    assert (found.usable, found.version) == (False, trt.__version__)
    assert "NVIDIA driver" in found.reason or "pycuda" in found.reason
    with pytest.raises(BackendError) as caught:
        load(Bundle.open(tiny_bundle), device=Device("cuda"), precision="fp32", threads=1)
    assert (caught.value.message, caught.value.hint) == (found.reason, found.hint)


@pytest.mark.gpu
@needs_gpu
def test_an_engine_answers_as_onnxruntime_does(tmp_path):
    import numpy as np

    from nodule_diag.backends import create_backend

    bundle, patches = Bundle.default(), np.random.default_rng(0).random((3, 2, 64, 64, 64), dtype=np.float32)
    backend = load(bundle, device=Device("cuda"), precision="fp32", threads=1, cache=EngineCache(tmp_path))
    wanted = create_backend(bundle, name="onnxruntime", device="cpu", threads=1).infer(patches)
    for _ in range(2):  # the second run replays what the first one recorded
        found = backend.infer(patches)
        np.testing.assert_allclose(found.malignancy, wanted.malignancy, atol=1e-4)
        np.testing.assert_allclose(found.segmentation, wanted.segmentation, atol=1e-3)
