"""Buffers that stay on the device, on the one device that is here: the answers are those of a plain run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodule_diag.backends import create_backend
from nodule_diag.backends.backend import Device
from nodule_diag.backends.onnxruntime import OnnxRuntimeBackend, import_runtime
from nodule_diag.backends.onnxruntime_binding import BoundSession
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BackendError

NAMES = ["cam", "malignancy", "logit", "expert_score", "segmentation"]


@pytest.fixture
def bound(tiny_bundle: Path) -> BoundSession:
    return OnnxRuntimeBackend(Bundle.open(tiny_bundle), device=Device("cpu"), threads=1)._bind("cpu", 0)


def run(bound: BoundSession, given: np.ndarray) -> list[np.ndarray]:
    return bound.run(NAMES, given, import_runtime().RunOptions())


def patches(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, 2, 64, 64, 64), dtype=np.float32)


def test_bound_answers_are_those_of_a_plain_run(
    tiny_bundle: Path, bound: BoundSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodule_diag.backends.onnxruntime_binding.LARGEST_BATCH", 3)
    plain = create_backend(Bundle.open(tiny_bundle), name="onnxruntime", device="cpu", precision="fp32", threads=1)
    kept = []
    for batch in (1, 3, 2, 1, 7):
        given = patches(batch, seed=batch)[:, :, ::-1]  # not contiguous, as a caller's view may be
        expected = plain.infer(given)
        kept.append((run(bound, given), [getattr(expected, name) for name in NAMES]))
    # Compared at the end: an answer must not change when its buffer is written again.
    for found, wanted in kept:
        for left, right in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_graph_for_each_batch_size(tiny_bundle: Path) -> None:
    """Sizes must not share a graph, whose shapes are recorded; on the CPU the option only has to be accepted."""
    backend = OnnxRuntimeBackend(Bundle.open(tiny_bundle), device=Device("cpu"), threads=1)
    made = BoundSession(backend._runtime, backend._session, spec=backend._spec, device="cpu", index=0, graphs=True)
    for batch in (1, 2):
        options = import_runtime().RunOptions()
        made.run(NAMES, patches(batch), options)
        assert options.get_run_config_entry("gpu_graph_id") == str(batch)


class Refuses:
    """Stands for a CUDA build of onnxruntime whose sessions refuse CUDA graphs, as they do for a node on the CPU."""

    def __init__(self, runtime: Any) -> None:
        self.runtime, self.asked = runtime, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model: bytes, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        self.asked.append(providers[0][1]["enable_cuda_graph"])
        if self.asked[-1]:
            raise self.runtime.capi.onnxruntime_pybind11_state.Fail("not all nodes are on CUDA")
        session = self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        monkey = type("Session", (), {"__getattr__": lambda _, name: getattr(session, name)})()
        monkey.get_providers = self.get_available_providers
        return monkey


def test_graphs_that_a_session_refuses_are_left_out_unless_asked_for(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, runtime = Bundle.open(tiny_bundle), Refuses(import_runtime())
    monkeypatch.setattr("nodule_diag.backends.onnxruntime.import_runtime", lambda: runtime)
    backend = OnnxRuntimeBackend(bundle, device=Device("cuda"), threads=1)
    assert (backend.device, backend.cuda_graphs, runtime.asked) == ("cuda:0", False, [1, 0])
    with pytest.raises(BackendError, match="not all nodes are on CUDA"):
        OnnxRuntimeBackend(bundle, device=Device("cuda"), threads=1, cuda_graphs=True)


def test_several_threads_share_the_buffers(bound: BoundSession) -> None:
    given = [patches(1, seed) for seed in range(4)]
    expected = [run(bound, patch)[1] for patch in given]
    wrong: list[int] = []

    def work(number: int) -> None:
        same = [np.array_equal(run(bound, given[number])[1], expected[number]) for _ in range(10)]
        wrong.extend([number] * same.count(False))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
