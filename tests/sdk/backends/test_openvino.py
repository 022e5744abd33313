"""The openvino backend: what is particular to it. What all backends have in common is in test_backends.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nodule_diag.backends import backend_statuses, create_backend
from nodule_diag.backends import openvino as openvino_backend
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BackendError, MissingExtraError

# Not importorskip: a plain `import openvino` reports itself to a web service.
if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)
openvino = openvino_backend.import_runtime()
BF16_HERE = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def patch() -> np.ndarray:
    return np.random.default_rng(1).random((1, 2, 64, 64, 64), dtype=np.float32)


def test_what_it_says_of_itself(bundle: Bundle) -> None:
    made = create_backend(bundle, name="openvino", threads=1)
    assert (made.name, made.device, made.precision, made.threads) == ("openvino", "cpu", "fp32", 1)
    status = next(status for status in backend_statuses() if status.name == "openvino")
    assert status.usable
    assert openvino.__version__.startswith(status.version)
    assert status.devices == ("cpu",)
    assert status.precisions == ("fp32", "bf16")


def test_settings_are_obeyed(bundle: Bundle) -> None:
    """As OpenVINO reports them for the compiled network."""
    made = create_backend(bundle, name="openvino", threads=1)
    network = made._network  # type: ignore[attr-defined]
    assert network.get_property("INFERENCE_NUM_THREADS") == 1
    assert network.get_property("NUM_STREAMS") == 1
    assert network.get_property("ENABLE_CPU_PINNING") is False
    assert network.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_one_thread_is_one_thread(bundle: Bundle) -> None:
    """CPU time cannot exceed wall time when one thread computes; other processes only make it less."""
    made = create_backend(bundle, name="openvino", threads=1)
    batch = np.repeat(patch(), 8, axis=0)
    made.infer(batch)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(5):
        made.infer(batch)
    assert time.process_time() - cpu <= 1.3 * (time.perf_counter() - wall)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cpusets on this system")
def test_the_cpuset_is_respected(tiny_bundle: Path) -> None:
    """A process that may use one core gets one thread, whatever it asks for, and no thread leaves the core."""
    program = (
        "import contextlib, os, sys, pathlib; core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {core})\n"
        "import numpy as np; from nodule_diag.bundle import Bundle; from nodule_diag.backends import create_backend\n"
        "made = create_backend(Bundle.open(sys.argv[1]), name='openvino', threads=4)\n"
        "made.infer(np.zeros((1, 2, 64, 64, 64), np.float32))\n"
        "assert made.threads == 1, made.threads\n"
        "for task in pathlib.Path('/proc/self/task').iterdir():\n"
        "    with contextlib.suppress(ProcessLookupError):  # it has just ended\n"
        "        assert os.sched_getaffinity(int(task.name)) == {core}, task\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], check=True)


def test_nothing_is_printed_written_or_sent(tiny_bundle: Path, tmp_path: Path) -> None:
    """No telemetry, no cache: no file is opened for writing and no socket is connected, in an empty home folder.

    Nor does blocking openvino's telemetry keep the host application from importing it.
    """
    assert importlib.util.find_spec("openvino_telemetry"), "openvino requires it: without it this test proves nothing"
    program = (
        "import sys; sys.dont_write_bytecode = True\n"
        "seen = []\n"
        "def audit(event, details):\n"
        "    writes = event == 'open' and isinstance(details[1], str) and set(details[1]) & set('wax+')\n"
        "    if writes or event in {'socket.connect', 'socket.getaddrinfo', 'os.mkdir'}: seen.append(details)\n"
        "sys.addaudithook(audit)\n"
        "import numpy as np; from nodule_diag.bundle import Bundle; from nodule_diag.backends import create_backend\n"
        "made = create_backend(Bundle.open(sys.argv[1]), name='openvino', threads=1)\n"
        "made.infer(np.zeros((1, 2, 64, 64, 64), np.float32))\n"
        "assert not seen, seen\n"
        "import openvino_telemetry\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    places = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "XDG_CACHE_HOME"), str(home))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_bundle)],
        capture_output=True, text=True, cwd=home, env=os.environ | places, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


@pytest.mark.skipif(BF16_HERE, reason="this CPU computes in bf16")
def test_bf16_on_a_cpu_without_it(bundle: Bundle) -> None:
    """OpenVINO itself accepts the wish and computes in fp32."""
    with pytest.raises(BackendError, match="bf16 instructions; OpenVINO lists FP32") as caught:
        create_backend(bundle, name="openvino", precision="bf16", threads=1)
    assert caught.value.code == "precision-unavailable"
    assert "--precision fp32" in caught.value.hint


@pytest.mark.skipif(not BF16_HERE, reason="this CPU does not compute in bf16")
def test_bf16_on_a_cpu_with_it(bundle: Bundle) -> None:
    made = create_backend(bundle, name="openvino", precision="bf16", threads=1)
    assert made.precision == "bf16"
    assert made._network.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"  # type: ignore[attr-defined]
    exact = create_backend(bundle, name="openvino", precision="fp32", threads=1).infer(patch())
    np.testing.assert_allclose(made.infer(patch()).malignancy, exact.malignancy, atol=0.01)


def test_fp16_is_not_offered(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="fp16 is not available: the openvino backend computes in fp32 or bf16"):
        create_backend(bundle, name="openvino", precision="fp16", threads=1)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_no_cuda(bundle: Bundle, precision: str) -> None:
    with pytest.raises(BackendError, match="cuda:1 cannot be used") as caught:
        create_backend(bundle, name="openvino", device="cuda:1", precision=precision, threads=1)
    assert caught.value.code == "device-unavailable"


def test_not_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # what import sees when it is absent
    with pytest.raises(MissingExtraError) as caught:
        create_backend(bundle, name="openvino", threads=1)
    assert caught.value.hint == "pip install 'nodule-diag[openvino]'"
    assert not openvino_backend.status().usable


def test_an_array_of_another_shape(bundle: Bundle) -> None:
    made = create_backend(bundle, name="openvino", threads=1)
    with pytest.raises(BackendError, match=r"\(1, 2, 32, 64, 64\)") as caught:
        made.infer(patch()[:, :, :32].copy())
    assert caught.value.code == "inference-failed"
