"""What ``auto`` takes: in a fixed order, on recorded figures, and on trust only from onnxruntime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_factory import make_tiny_bundle, tiny_cases
from nodule_diag import backends
from nodule_diag.backends import choice, create_backend
from nodule_diag.backends.backend import BackendStatus, Outputs
from nodule_diag.backends.own_figures import figures_path, save_figures
from nodule_diag.backends.parity import FP32_GATE, REDUCED_GATE, compare, misses
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.bundle.manifest import Manifest
from nodule_diag.bundle.parity import ParityFigures, ParityRecord
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.errors import BackendError, MissingExtraError

GOOD = {
    "patches": 99,
    "malignancy": 1e-6,
    "expert_score": 1e-6,
    "segmentation": 1e-6,
    "cam": 1e-6,
    "cam_patches": 98,
    "overlap": 1.0,
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def recorded(bundle: Bundle, *precisions: str, **figures: Any) -> Bundle:
    """The bundle with figures of openvino on the CPU."""
    records = tuple(
        ParityRecord(backend="openvino", device="cpu", precision=precision, runtime_version="1", **{**GOOD, **figures})
        for precision in precisions
    )
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"parity": records}))


@dataclass
class FakeModule:
    """A backend that loads nothing, or raises."""

    name: str
    faults: dict[tuple[str, str], BackendError]

    def status(self) -> BackendStatus:
        return BackendStatus(self.name, usable=True)

    def load(self, bundle: Bundle, *, device: backends.Device, precision: str, threads: int) -> Any:
        fault = self.faults.get((device.kind, precision))
        if fault is not None:
            raise fault
        return self.name, device.kind, precision


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[tuple[str, str], BackendError]]:
    """By backend, device and precision: what loading raises. No GPU to begin with."""
    found = {"onnxruntime": {("cuda", "fp32"): BackendError("no GPU")}, "openvino": {}}
    monkeypatch.setattr(choice, "backend_module", lambda name: FakeModule(name, found[name]))
    return found


def test_without_figures_it_is_onnxruntime(bundle: Bundle, faults: dict) -> None:
    assert create_backend(bundle, threads=1) == ("onnxruntime", "cpu", "fp32")


def test_with_figures_it_is_the_fastest(bundle: Bundle, faults: dict) -> None:
    assert create_backend(recorded(bundle, "fp32"), threads=1) == ("openvino", "cpu", "fp32")
    both = recorded(bundle, "fp32", "bf16")
    assert create_backend(both, threads=1) == ("openvino", "cpu", "bf16")
    assert create_backend(both, precision="fp32", threads=1) == ("openvino", "cpu", "fp32")
    assert create_backend(both, precision="bf16", threads=1) == ("openvino", "cpu", "bf16")
    assert create_backend(both, name="onnxruntime", device="cpu", threads=1)[0] == "onnxruntime"


def test_a_gpu_comes_first(bundle: Bundle, faults: dict) -> None:
    faults["onnxruntime"].clear()
    assert create_backend(recorded(bundle, "fp32", "bf16"), threads=1) == ("onnxruntime", "cuda", "fp32")
    assert create_backend(recorded(bundle, "fp32"), device="cpu", threads=1) == ("openvino", "cpu", "fp32")


def test_what_does_not_work_here_is_passed_over(bundle: Bundle, faults: dict) -> None:
    both = recorded(bundle, "fp32", "bf16")
    faults["openvino"]["cpu", "bf16"] = BackendError("no bf16 instructions")
    assert create_backend(both, threads=1) == ("openvino", "cpu", "fp32")
    faults["openvino"]["cpu", "fp32"] = MissingExtraError("openvino", "openvino")
    assert create_backend(both, threads=1) == ("onnxruntime", "cpu", "fp32")


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("malignancy", 0.011),
        ("expert_score", 0.051),
        ("segmentation", 0.021),
        ("cam", 0.021),
        ("overlap", 0.89),
        ("cam_patches", 0),
    ],
)
def test_one_figure_beyond_its_gate_is_enough(bundle: Bundle, faults: dict, figure: str, value: float) -> None:
    assert create_backend(recorded(bundle, "bf16", **{figure: value}), threads=1)[0] == "onnxruntime"
    with pytest.raises(BackendError) as caught:
        create_backend(recorded(bundle, "bf16", **{figure: value}), precision="bf16", threads=1)
    assert caught.value.code == "precision-unavailable"
    assert "--backend openvino" in caught.value.hint


def test_bf16_is_not_taken_where_fp32_is_wrong(bundle: Bundle, faults: dict) -> None:
    """Its gate is wide: what passes it need not be right."""
    both = recorded(bundle, "fp32", "bf16").manifest.parity
    wrong = both[0].model_copy(update={"malignancy": 5e-3})
    for records in ((wrong, both[1]), (both[1], wrong)):
        found = replace(bundle, manifest=bundle.manifest.model_copy(update={"parity": records}))
        assert create_backend(found, threads=1)[0] == "onnxruntime"


@pytest.fixture
def own(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Saves figures of this machine: backend, precision and what differs from good ones."""
    monkeypatch.setenv("NODULE_DIAG_CACHE", str(tmp_path))
    saved: list[ParityRecord] = []

    def save(backend: str, precision: str, **figures: Any) -> None:
        saved.append(
            ParityRecord(
                **{"device": "cpu", **GOOD, **figures}, backend=backend, precision=precision, runtime_version="1"
            )
        )
        save_figures(bundle, saved)

    return save


def test_own_figures_are_taken_as_the_bundles(bundle: Bundle, faults: dict, own: Callable[..., None]) -> None:
    assert create_backend(bundle, threads=1)[0] == "onnxruntime"
    own("openvino", "bf16")
    assert create_backend(bundle, threads=1) == ("openvino", "cpu", "bf16")
    assert create_backend(bundle, precision="bf16", threads=1) == ("openvino", "cpu", "bf16")
    assert create_backend(bundle, precision="fp32", threads=1) == ("onnxruntime", "cpu", "fp32")
    own("openvino", "fp32", malignancy=2e-4)
    assert create_backend(bundle, threads=1)[0] == "onnxruntime"


def test_own_figures_take_back_what_the_bundles_allow(bundle: Bundle, faults: dict, own: Callable[..., None]) -> None:
    """The maker's CPU was another one."""
    made = recorded(bundle, "fp32")
    own("openvino", "fp32", cam=1e-3)
    assert create_backend(made, threads=1)[0] == "onnxruntime"


def test_own_figures_that_others_may_write_are_not_taken(
    bundle: Bundle, faults: dict, own: Callable[..., None]
) -> None:
    own("openvino", "bf16")
    figures_path(bundle).chmod(0o666)
    if os.name == "posix":
        with pytest.warns(RuntimeWarning, match="saved self-test figures are not used"):
            assert create_backend(bundle, threads=1)[0] == "onnxruntime"


def test_a_reference_that_missed_its_selftest_is_not_trusted(
    bundle: Bundle, faults: dict, own: Callable[..., None]
) -> None:
    own("onnxruntime", "fp32")
    assert create_backend(bundle, threads=1)[0] == "onnxruntime"
    own("onnxruntime", "fp32", expert_score=0.3)
    with pytest.raises(BackendError, match="onnxruntime missed its self-test") as caught:
        create_backend(bundle, threads=1)
    assert caught.value.code == "auto-failed-selftest"
    assert create_backend(bundle, name="onnxruntime", device="cpu", threads=1)[0] == "onnxruntime"
    own("openvino", "fp32")
    assert create_backend(bundle, threads=1) == ("openvino", "cpu", "fp32")


def test_a_gpu_that_missed_its_selftest_is_not_taken(bundle: Bundle, faults: dict, own: Callable[..., None]) -> None:
    faults["onnxruntime"].clear()
    assert create_backend(bundle, threads=1) == ("onnxruntime", "cuda", "fp32")
    own("onnxruntime", "fp32", device="cuda", malignancy=0.2)
    assert create_backend(bundle, threads=1) == ("onnxruntime", "cpu", "fp32")
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, device="cuda", threads=1)
    assert caught.value.code == "auto-failed-selftest"


def test_a_named_backend_needs_figures_for_reduced_precision_only(bundle: Bundle, faults: dict) -> None:
    assert create_backend(bundle, name="onnxruntime", device="cpu", threads=1) == ("onnxruntime", "cpu", "fp32")


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_named_with_the_real_modules(bundle: Bundle) -> None:
    made = create_backend(bundle, name="openvino", threads=1)
    assert (made.name, made.precision) == ("openvino", "fp32")
    taken = create_backend(recorded(bundle, "fp32"), device="cpu", threads=1)
    assert (taken.name, taken.device, taken.precision) == ("openvino", "cpu", "fp32")


def test_only_a_backend_without_figures_is_installed(bundle: Bundle, faults: dict) -> None:
    missing = MissingExtraError("onnxruntime", "cpu")
    faults["onnxruntime"] |= {("cuda", "fp32"): missing, ("cpu", "fp32"): missing}
    with pytest.raises(BackendError, match="does not record that its answers passed") as caught:
        create_backend(bundle, threads=1)
    assert caught.value.code == "auto-without-parity"
    assert caught.value.hint == (
        "use --backend openvino, or nodule-diag doctor --selftest --save, or pip install 'nodule-diag[cpu]'"
    )
    assert create_backend(recorded(bundle, "fp32"), threads=1) == ("openvino", "cpu", "fp32")


def test_only_what_is_asked_for_is_imported(tiny_bundle: Path) -> None:
    """Importing openvino takes longer than a diagnosis: auto must not do it for nothing."""
    program = (
        "import sys; from nodule_diag.diagnoser import Diagnoser\n"
        "assert Diagnoser.load(sys.argv[1]).runtime.backend == 'onnxruntime'\n"
        "assert 'openvino' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], check=True)


def test_figures_travel_with_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle made before there were any is valid, and one with figures of an unknown backend as well."""
    text = bundle.manifest.model_dump(mode="json")
    del text["parity"]
    assert Manifest.model_validate_json(json.dumps(text)).parity == ()
    manifest = recorded(bundle, "fp32").manifest
    foreign = manifest.parity[0].model_copy(update={"backend": "of-the-future"})
    manifest = manifest.model_copy(update={"parity": (*manifest.parity, foreign)})
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    assert write_bundle(tmp_path / "b.zip", manifest=manifest, files=files).manifest.parity == manifest.parity


@given(
    figure=st.sampled_from(["malignancy", "expert_score", "segmentation", "cam"]),
    value=st.floats(0.0, 0.2),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
)
def test_gates(figure: str, value: float, precision: str) -> None:
    gate = FP32_GATE if precision == "fp32" else REDUCED_GATE
    limit = gate.maps if figure in {"segmentation", "cam"} else getattr(gate, figure)
    missed = misses(ParityFigures(**{**GOOD, figure: value}), precision=precision)
    assert (missed == ()) == (value <= limit)
    assert all(figure in text for text in missed)


def test_the_gates_are_the_published_ones() -> None:
    assert (FP32_GATE.malignancy, FP32_GATE.maps, REDUCED_GATE.malignancy) == (1e-4, 1e-4, 0.01)
    assert FP32_GATE.expert_score == 1e-3  # of a scale of four: rounding alone was once 1.16e-4
    assert (REDUCED_GATE.expert_score, REDUCED_GATE.maps, REDUCED_GATE.overlap) == (0.05, 0.02, 0.9)


def outputs(logit: np.ndarray) -> Outputs:
    maps = np.linspace(0, 1, len(logit) * 16**3, dtype=np.float32).reshape(-1, 16, 16, 16)
    p = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return Outputs(malignancy=p, logit=logit.astype(np.float32), expert_score=1 + 4 * p, segmentation=maps, cam=maps)


def test_figures_are_measured(tmp_path: Path) -> None:
    """Each figure from a difference that was put there; the CAM of an undecided nodule is left out."""
    cases = CaseIndex(make_tiny_bundle(tmp_path / "b", cases=tiny_cases(60)))
    reference = outputs(np.array([-2.0, 0.03, 1.0]))
    same = compare(reference, reference, precision="bf16", cases=cases, k=20)
    assert same == ParityFigures(**{**GOOD, **dict.fromkeys(("malignancy", "expert_score", "segmentation", "cam"), 0.0),
                                    "patches": 3, "cam_patches": 2})  # fmt: skip
    cam = reference.cam.copy()
    cam[1] = 1.0 - cam[1]  # the undecided one turned over
    cam[2] += 0.01
    moved = replace(
        reference,
        malignancy=reference.malignancy + np.array([0, -0.02, 0.01], np.float32),
        expert_score=reference.expert_score + np.array([0.3, 0, 0], np.float32),
        cam=cam,
    )
    found = compare(reference, moved, precision="bf16", cases=cases, k=20)
    assert found.malignancy == pytest.approx(0.02, abs=1e-6)
    assert found.expert_score == pytest.approx(0.3, abs=1e-6)
    assert found.cam == pytest.approx(0.01, abs=1e-6)
    assert found.overlap < 1.0
    assert compare(reference, moved, precision="fp32", cases=cases, k=20).cam > 0.1  # 0.03 is decided in fp32
