"""Backends: the right numbers, and a plain refusal of everything that cannot serve."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import SimpleITK as sitk

from bundle_factory import OUTPUT_SHAPES, make_tiny_bundle, tiny_model, tiny_model_in_numpy
from nodule_diag.backends import backend_statuses, create_backend
from nodule_diag.backends import onnxruntime as ort_backend
from nodule_diag.backends.backend import Backend, Device, parse_device
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BackendError, BundleError, MissingExtraError, UsageError
from nodule_diag.process import filter_threads, resolve_threads

CUDA_HERE = ort_backend.CUDA_PROVIDER in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on a CPU, as far as it is installed."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def backend(bundle: Bundle, backend_name: str) -> Backend:
    return create_backend(bundle, name=backend_name, device="cpu", threads=2)


def patches(count: int) -> np.ndarray:
    values = np.random.default_rng(0).random((count, 2, 64, 64, 64), dtype=np.float32)
    values[0] = 0.5  # a flat map: its CAM must be 0, not NaN
    return values


def test_outputs_are_the_networks(backend: Backend) -> None:
    """Bound by name and in order: against the network's definition in numpy."""
    batch = patches(3)
    outputs = backend.infer(batch)
    for row, patch in enumerate(batch):
        expected = tiny_model_in_numpy(patch)
        for name, found in outputs.given().items():
            np.testing.assert_allclose(found[row], expected[name], atol=1e-5, err_msg=name)
    assert outputs.cam.shape == outputs.segmentation.shape == (3, 16, 16, 16)
    assert outputs.malignancy.dtype == np.float32


def test_malignancy_is_the_sigmoid_of_the_logit(backend: Backend) -> None:
    outputs = backend.infer(patches(4))
    np.testing.assert_allclose(outputs.malignancy, 1.0 / (1.0 + np.exp(-outputs.logit.astype(float))), atol=1e-6)


def test_answers_belong_to_the_caller(backend: Backend) -> None:
    """A later call must not write into the arrays of an earlier one."""
    batch = patches(2)
    first = backend.infer(batch)
    kept = first.cam.copy()
    backend.infer(batch[::-1].copy())
    np.testing.assert_array_equal(first.cam, kept)


def test_order_in_the_file_does_not_matter(tmp_path: Path, backend_name: str) -> None:
    model = tiny_model()
    reordered = sorted(model.graph.output, key=lambda value: value.name)
    del model.graph.output[:]
    model.graph.output.extend(reordered)
    batch = patches(2)
    made = make_tiny_bundle(tmp_path / "b", model=model)
    outputs = create_backend(made, name=backend_name, device="cpu", threads=1).infer(batch)
    np.testing.assert_allclose(outputs.malignancy[1], tiny_model_in_numpy(batch[1])["malignancy"], atol=1e-5)


def test_batch_equals_single_calls(backend: Backend) -> None:
    batch = patches(3)
    together = backend.infer(batch)
    for row in range(3):
        alone = backend.infer(batch[row : row + 1])
        for name in OUTPUT_SHAPES:
            np.testing.assert_allclose(getattr(together, name)[row], getattr(alone, name)[0], atol=1e-6)


def test_several_threads(backend: Backend) -> None:
    batch = patches(4)
    expected = backend.infer(batch).logit
    answers: dict[int, np.ndarray] = {}

    def work(row: int) -> None:
        answers[row] = np.array([backend.infer(batch[row : row + 1]).logit[0] for _ in range(5)])

    workers = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for row in range(4):
        np.testing.assert_allclose(answers[row], expected[row], atol=1e-6)


def test_a_failing_run_is_a_backend_error(bundle: Bundle) -> None:
    backend = create_backend(bundle, name="onnxruntime", device="cpu", threads=1)
    with pytest.raises(BackendError, match="onnxruntime failed on 1 patches on cpu") as caught:
        backend.infer(np.zeros((1, 2, 64, 64, 63), np.float32))
    assert caught.value.code == "inference-failed"


def test_no_core_is_taken_between_calls(bundle: Bundle) -> None:
    """ONNX Runtime's threads would spin for 40 ms, in search of the next call's work."""
    backend = create_backend(bundle, name="onnxruntime", device="cpu", threads=2)
    taken = []
    for _ in range(5):
        backend.infer(patches(1))
        before = time.process_time()
        time.sleep(0.1)
        taken.append(time.process_time() - before)
    assert min(taken) < 0.01


def test_auto_says_what_it_took(bundle: Bundle) -> None:
    chosen = create_backend(bundle, threads=3)
    assert (chosen.name, chosen.precision, chosen.threads) == ("onnxruntime", "fp32", 3)
    assert chosen.device == ("cuda:0" if CUDA_HERE else "cpu")


@pytest.mark.skipif(CUDA_HERE, reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_provider(bundle: Bundle, device: str) -> None:
    with pytest.raises(BackendError, match="cuda:") as caught:
        create_backend(bundle, device=device, threads=1)
    assert caught.value.code == "device-unavailable"
    assert "nodule-diag[gpu]" in caught.value.hint


def test_cuda_whose_libraries_are_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is compiled in, but does not load: asked for, it raises; auto takes the CPU and says so."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [ort_backend.CUDA_PROVIDER, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    real = onnxruntime.InferenceSession

    def without_cuda(model: bytes, options: object, *, providers: list[object], enable_fallback: int) -> object:
        assert enable_fallback == 0  # else onnxruntime prints to stdout and goes on
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, device="cuda", threads=1)
    assert caught.value.code == "device-unavailable"
    assert create_backend(bundle, device="auto", threads=1).device == "cpu"


@pytest.mark.parametrize(
    ("name", "module"), [("openvino", "openvino"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")]
)
def test_a_backend_that_is_not_installed(
    bundle: Bundle, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        create_backend(bundle, name=name, threads=1)
    assert f"pip install 'nodule-diag[{name}]'" in caught.value.hint
    status = next(status for status in backend_statuses() if status.name == name)
    assert not status.usable
    assert status.hint == caught.value.hint


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precisions_that_onnxruntime_has_not(bundle: Bundle, name: str, precision: str) -> None:
    """Nor does auto take another backend's, which nothing in the bundle vouches for."""
    with pytest.raises(BackendError, match=precision) as caught:
        create_backend(bundle, name=name, precision=precision, threads=1)
    assert caught.value.code == "precision-unavailable"


@pytest.mark.parametrize(
    "option", [{"name": "torch"}, {"precision": "int8"}, {"device": "gpu"}, {"device": "cuda:x"}, {"device": "cuda:-1"}]
)
def test_names_that_mean_nothing(bundle: Bundle, option: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(option.values()))):
        create_backend(bundle, threads=1, **option)


def test_devices() -> None:
    assert parse_device("auto") == Device("auto")
    assert parse_device("cpu") == Device("cpu")
    assert parse_device("cuda") == Device("cuda", 0)
    assert parse_device("cuda:3") == Device("cuda", 3)


def installed(monkeypatch: pytest.MonkeyPatch, **folders: Path) -> None:
    def distribution(name: str) -> metadata.Distribution:
        if name in folders:
            return metadata.PathDistribution(folders[name] / f"{name}.dist-info")
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(ort_backend.metadata, "distribution", distribution)


def test_both_distributions_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, **{"onnxruntime": tmp_path, "onnxruntime-gpu": tmp_path})
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, threads=1)
    assert caught.value.code == "onnxruntime-conflict"
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install 'nodule-diag[cpu]'" in caught.value.hint
    assert not backend_statuses()[0].usable


def test_both_distributions_in_folders_of_their_own(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with ``pip install --target`` beside a machine's own: neither overwrites the other."""
    installed(monkeypatch, **{"onnxruntime": tmp_path / "a", "onnxruntime-gpu": tmp_path / "b"})
    assert create_backend(bundle, name="onnxruntime", device="cpu", threads=1).name == "onnxruntime"


def test_neither_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)  # what import sees when it is absent
    with pytest.raises(MissingExtraError) as caught:
        create_backend(bundle, threads=1)
    assert "pip install 'nodule-diag[cpu]'" in caught.value.message
    assert isinstance(caught.value, ImportError)


def test_statuses_cover_every_backend() -> None:
    statuses = {status.name: status for status in backend_statuses()}
    assert set(statuses) == {"onnxruntime", "openvino", "winograd", "tensorrt", "tensorrt-rtx"}
    assert statuses["onnxruntime"].usable
    assert statuses["onnxruntime"].version == onnxruntime.__version__
    assert "cpu" in statuses["onnxruntime"].devices
    for name in ("tensorrt", "tensorrt-rtx"):
        assert not statuses[name].usable
        assert statuses[name].reason
        assert statuses[name].hint


def refused(name: str, path: Path, model: onnx.ModelProto, code: str, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        create_backend(make_tiny_bundle(path, model=model), name=name, device="cpu", threads=1)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("name", list(OUTPUT_SHAPES))
def test_output_that_the_network_does_not_have(backend_name: str, tmp_path: Path, name: str) -> None:
    refused(backend_name, tmp_path / "b", tiny_model(renamed={name: "other"}), "bundle-tensor-missing", name, "other")


@pytest.mark.parametrize("shape", [("B", 2, 32, 32, 32), (1, 2, 64, 64, 64), ("B", 2, "d", "h", "w")])
def test_input_of_another_shape(backend_name: str, tmp_path: Path, shape: tuple[str | int, ...]) -> None:
    refused(
        backend_name,
        tmp_path / "b",
        without_declared_outputs(tiny_model(input_shape=shape)),
        "bundle-tensor-shape",
        "patch",
    )


def without_declared_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Output shapes left open, so that only the input is wrong."""
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def test_network_with_two_inputs(backend_name: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("second_scan", onnx.TensorProto.FLOAT, ["B", 2, 64, 64, 64])
    )
    model.graph.node[0].input[0] = "both"  # used, for a runtime may drop an input that is not
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["patch", "second_scan"], ["both"]))
    refused(backend_name, tmp_path / "b", model, "bundle-tensor-missing", "2 inputs")


def test_network_that_cannot_be_loaded(backend_name: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    refused(backend_name, tmp_path / "b", model, "bundle-model-unreadable", "model.onnx")


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("nodule_diag.process.threads.cpu_quota", lambda: None)  # tests/sdk/test_cpu_quota.py
    if hasattr(os, "sched_getaffinity"):
        assert resolve_threads() == len(os.sched_getaffinity(0))
    for text, expected in (("3", 3), ("2,4", 2), (" 5 ", 5)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert resolve_threads() == expected
        assert resolve_threads(7) == 7
    default = (monkeypatch.delenv("OMP_NUM_THREADS"), resolve_threads())[1]
    for text in ("", "many", "0", "-2"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert resolve_threads() == default
    for wrong in (0, -1, True, 10**6):
        with pytest.raises(UsageError):
            resolve_threads(wrong)


def test_filter_threads_are_restored() -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with filter_threads(before + 1):
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before + 1
        with filter_threads(before + 2):  # a second call at the same time: the first one's number stays
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before + 1
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_loading_prints_nothing(tiny_bundle: Path) -> None:
    """stdout belongs to the JSON document, stderr to the caller."""
    program = (
        "import sys; from nodule_diag.diagnoser import Diagnoser; Diagnoser.load(sys.argv[1])\n"
        "from nodule_diag.errors import BackendError\n"
        "try: Diagnoser.load(sys.argv[1], device='cuda')\nexcept BackendError: pass"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_onnxruntime_tells_nobody_that_it_is_used(tiny_bundle: Path, tmp_path: Path) -> None:
    """From 1.29 on it writes a device id and its events below HOME and sends them; where CI is set it keeps quiet."""
    pytest.importorskip("onnxruntime")
    program = (
        "import sys; import nodule_diag as nd; nd.Diagnoser.load(sys.argv[1], backend='onnxruntime').warm_up();"
        "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    outside_ci = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    for set_by_host, wanted in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "true"}, "true")):
        environment = {**outside_ci, **set_by_host, "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(tiny_bundle)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == wanted
    assert list(tmp_path.rglob("*")) == []
