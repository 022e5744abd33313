"""The self-test sees every wrong backend, the reference too, and believes no other precision of one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden_bundle import answers_in_numpy, make_golden_bundle
from nodule_diag.backends import selftest
from nodule_diag.backends.backend import BackendStatus, Outputs
from nodule_diag.backends.golden import golden_patches
from nodule_diag.backends.selftest import SelfTest, records_of
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.errors import BackendError

REFERENCE = BackendStatus("onnxruntime", usable=True, version="1", devices=("cpu",))
OTHER = BackendStatus("other", usable=True, version="2", devices=("cpu",), precisions=("fp32", "bf16"))
Infer = Callable[[np.ndarray], Outputs]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_golden_bundle(tmp_path_factory.mktemp("golden") / "b")


@pytest.fixture(scope="module")
def cases(bundle: Bundle) -> CaseIndex:
    return CaseIndex(bundle)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """By name and precision: what infers; right unless a test says otherwise. And each one's ``batch``."""
    by_name: dict[Any, Any] = {}

    def create(_: Bundle, *, name: str, device: str, precision: str, threads: int) -> Any:
        infer = by_name.get((name, precision), answers_in_numpy)
        if isinstance(infer, BackendError):
            raise infer
        return type("Made", (), {"infer": staticmethod(infer), "batch": by_name.get("batch", 8)})

    monkeypatch.setattr(selftest, "create_backend", create)
    return by_name


def shifted(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Infer:
    """A backend that is right but for one output."""

    def infer(patches: np.ndarray) -> Outputs:
        right = answers_in_numpy(patches)
        return replace(right, **{name: change(getattr(right, name)).astype(np.float32)})

    return infer


WRONG: dict[str, Infer] = {
    "input scaled": lambda patches: answers_in_numpy(patches * np.float32(0.9)),
    "channels swapped": lambda patches: answers_in_numpy(patches[:, ::-1]),
    "axes swapped": lambda patches: answers_in_numpy(patches.swapaxes(2, 4)),
    "mirrored": lambda patches: answers_in_numpy(patches[:, :, ::-1]),
    "always the first nodule": lambda patches: answers_in_numpy(np.repeat(golden_patches([0]), len(patches), axis=0)),
    "P turned over": shifted("malignancy", lambda p: 1 - p),
    "P of bf16": shifted("malignancy", lambda p: np.round(p * 256) / 256),
    "score off": shifted("expert_score", lambda score: score + 2e-3),
    "CAM turned over": shifted("cam", lambda cam: 1 - cam),
    "CAM of another class": shifted("cam", np.zeros_like),
    "segmentation empty": shifted("segmentation", np.zeros_like),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_backend_is_seen(bundle: Bundle, cases: CaseIndex, backends: dict, what: str) -> None:
    backends["other", "fp32"] = backends["other", "bf16"] = WRONG[what]
    test = SelfTest(bundle, cases, threads=1)
    assert test.golden
    assert [trial.usable for trial in test.run(REFERENCE)] == [True]
    fp32, bf16 = test.run(OTHER)
    assert not fp32.usable
    assert "its answer is not the golden one" in fp32.reason
    assert not bf16.usable, "what fp32 computes wrongly, bf16 does too"


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_reference_is_seen(bundle: Bundle, cases: CaseIndex, backends: dict, what: str) -> None:
    """And costs no other backend anything: they are compared with the bundle's answers."""
    backends["onnxruntime", "fp32"] = WRONG[what]
    test = SelfTest(bundle, cases, threads=1)
    assert [trial.usable for trial in test.run(REFERENCE)] == [False]
    assert [trial.usable for trial in test.run(OTHER)] == [True, True]


def test_rounding_passes_and_is_recorded(bundle: Bundle, cases: CaseIndex, backends: dict) -> None:
    backends["other", "fp32"] = shifted("malignancy", lambda p: p + 1e-5)
    backends["other", "bf16"] = shifted("malignancy", lambda p: p + 5e-3)
    found = SelfTest(bundle, cases, threads=1).run(OTHER)
    assert [trial.usable for trial in found] == [True, True]
    first, second = records_of(found)
    assert (first.backend, first.device, first.precision, first.runtime_version) == ("other", "cpu", "fp32", "2")
    assert first.malignancy == pytest.approx(1e-5, rel=0.02)
    assert second.malignancy == pytest.approx(5e-3, rel=0.01)
    assert (first.patches, first.cam_patches) == (8, 8)


def test_bf16_of_a_backend_that_is_wrong_in_fp32_is_not_believed(
    bundle: Bundle, cases: CaseIndex, backends: dict
) -> None:
    """Its figures are within bf16's own gate."""
    backends["other", "fp32"] = backends["other", "bf16"] = shifted("malignancy", lambda p: p + 5e-3)
    fp32, bf16 = SelfTest(bundle, cases, threads=1).run(OTHER)
    assert (fp32.usable, bf16.usable) == (False, False)
    assert bf16.reason == "its fp32 answer is wrong"


def test_bf16_alone_may_be_wrong(bundle: Bundle, cases: CaseIndex, backends: dict) -> None:
    backends["other", "bf16"] = shifted("malignancy", lambda p: p + 0.02)
    fp32, bf16 = SelfTest(bundle, cases, threads=1).run(OTHER)
    assert (fp32.usable, bf16.usable) == (True, False)


def test_what_cannot_run_says_why_and_is_not_recorded(bundle: Bundle, cases: CaseIndex, backends: dict) -> None:
    backends["other", "fp32"] = BackendError("no such device", hint="buy one")
    fp32, bf16 = SelfTest(bundle, cases, threads=1).run(OTHER)
    assert (fp32.reason, fp32.hint, fp32.inference_ms) == ("no such device", "buy one", None)
    assert bf16.usable, "that fp32 cannot run says nothing of bf16's answers"
    assert [record.precision for record in records_of([fp32, bf16])] == ["bf16"]


@pytest.mark.parametrize("right", [True, False])
def test_of_a_gpu_only_what_is_wrong_is_kept(bundle: Bundle, cases: CaseIndex, backends: dict, right: bool) -> None:
    """Which GPU it was is not written: its figures can warn, and not vouch for another one."""
    if not right:
        backends["onnxruntime", "fp32"] = WRONG["score off"]
    (trial,) = SelfTest(bundle, cases, threads=1).run(replace(REFERENCE, devices=("cuda",)))
    assert (trial.usable, trial.figures is not None) == (right, True)
    assert [record.device for record in records_of([trial])] == ([] if right else ["cuda"])


def test_a_backend_is_tried_as_it_is_used(bundle: Bundle, cases: CaseIndex, backends: dict) -> None:
    """With as many patches a run as in a diagnosis."""
    shown = []
    backends["batch"] = 3
    backends["other", "fp32"] = lambda patches: (shown.append(len(patches)), answers_in_numpy(patches))[1]
    assert SelfTest(bundle, cases, threads=1).run(OTHER)[0].usable
    assert shown == [3, 3, 2, 1]  # and one that is timed


def test_without_golden_answers_the_reference_of_this_machine_is_taken(tiny_bundle: Path, backends: dict) -> None:
    bundle = Bundle.open(tiny_bundle)
    test = SelfTest(bundle, CaseIndex(bundle), threads=1)
    assert (test.golden, test.note) == (False, "the bundle holds no golden answers")
    reference = test.run(REFERENCE)
    assert [(trial.usable, trial.figures) for trial in reference] == [(True, None)]
    assert records_of(reference) == (), "it would pass a comparison with itself"
    backends["other", "fp32"] = WRONG["input scaled"]
    assert "not that of onnxruntime" in test.run(OTHER)[0].reason


def test_the_quick_one_shows_one_nodule(bundle: Bundle, cases: CaseIndex, backends: dict) -> None:
    shown = []
    backends["other", "fp32"] = lambda patches: (shown.append(len(patches)), answers_in_numpy(patches))[1]
    test = SelfTest(bundle, cases, threads=1, quick=True)
    assert test.patches == 1
    assert test.run(OTHER)[0].usable
    assert set(shown) == {1}


def test_with_the_real_reference(bundle: Bundle, cases: CaseIndex) -> None:
    """ONNX Runtime against answers that numpy worked out."""
    pytest.importorskip("onnxruntime")
    (trial,) = SelfTest(bundle, cases, threads=1).run(REFERENCE)
    assert trial.usable, trial.reason
    assert trial.inference_ms is not None


def test_golden_answers_that_are_wrong_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    wrong = make_golden_bundle(tmp_path / "b", answers=WRONG["input scaled"](golden_patches(range(8))))
    (trial,) = SelfTest(wrong, CaseIndex(wrong), threads=1).run(REFERENCE)
    assert not trial.usable
