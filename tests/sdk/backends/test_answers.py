"""What a network may answer, and how long it may take: the same gate for every backend."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import nodule_diag as nd
from bundle_factory import OUTPUT_SHAPES, make_tiny_bundle, tiny_model
from nodule_diag.backends import BACKENDS, create_backend, time_limit
from nodule_diag.backends.tensors import RANGES, ROUNDING, checked_outputs
from nodule_diag.bundle import Bundle
from nodule_diag.bundle.manifest import ModelSpec
from nodule_diag.errors import BackendError

SPEC = ModelSpec(opset=17)
ON_CPU = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
PATCH = np.full((1, 2, 64, 64, 64), 0.5, np.float32)


def right(count: int = 2) -> dict[str, np.ndarray]:
    shapes = {name: (count, *shape[1:]) for name, shape in OUTPUT_SHAPES.items()}
    answers = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    answers["expert_score"] += 1.0
    return answers


def check(arrays: dict[str, np.ndarray], *, precision: str = "fp32") -> object:
    return checked_outputs(arrays, spec=SPEC, patches=2, device="cpu", precision=precision)


def refused(arrays: dict[str, np.ndarray], code: str, *words: str) -> None:
    with pytest.raises(BackendError) as caught:
        check(arrays)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("field", RANGES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rounding_is_clipped_and_more_is_refused(field: str, precision: str) -> None:
    (low, high), slack = RANGES[field], ROUNDING["fp32" if precision == "fp32" else "reduced"]
    for end, sign in ((low, -1.0), (high, 1.0)):
        answers = right()
        answers[field].flat[-1] = end + sign * 0.9 * slack
        before = answers[field].flat[0]
        found = getattr(check(answers, precision=precision), field)
        assert found.flat[-1] == end
        assert found.flat[0] == before
        answers[field].flat[-1] = end + sign * 1.1 * slack
        with pytest.raises(BackendError, match=field) as caught:
            check(answers, precision=precision)
        assert caught.value.code == "output-range"


def test_answers_in_range_are_handed_on_untouched() -> None:
    answers = right()
    for name, array in vars(check(answers)).items():
        assert array is answers.get(name)


@pytest.mark.parametrize("field", OUTPUT_SHAPES)
def test_other_shapes_and_types_are_refused(field: str) -> None:
    array = right()[field]
    for wrong in (array[:1], np.concatenate([array, array]), array[..., None], array.astype(np.float64)):
        refused({**right(), field: wrong}, "output-shape", field)
    refused({**right(), field: 0.5}, "output-shape", field)  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", OUTPUT_SHAPES)
def test_what_is_no_finite_number_is_refused(field: str, value: float) -> None:
    answers = right()
    answers[field].flat[-1] = value
    refused(answers, "output-not-finite", field)


def test_every_backend_hands_its_answers_through_this_gate() -> None:
    """Outputs are made here and nowhere else in a backend: one that leaves the gate out is found by name."""
    folder = Path(nd.backends.__file__).parent  # type: ignore[attr-defined]
    makers = {
        path.stem
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Outputs"
    }
    assert makers == {"backend", "golden", "symmetry", "tensors"}
    assert not makers & {name.replace("-", "_") for name in BACKENDS}


def shifted(output: str, by: float) -> onnx.ModelProto:
    """The tiny network with a number added to one answer."""
    model = tiny_model()
    node = next(node for node in model.graph.node if node.output[0] == output)
    node.output[0] = "unshifted"
    for other in model.graph.node:
        other.input[:] = ["unshifted" if name == output else name for name in other.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(by, np.float32), "shift"))
    model.graph.node.append(helper.make_node("Add", ["unshifted", "shift"], [output]))
    return model


def doubled(output: str) -> onnx.ModelProto:
    """The tiny network with one answer twice over, as the file does not declare it."""
    model = shifted(output, 0.0)
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("Concat", ["unshifted", "unshifted"], [output], axis=0))
    return model


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda: shifted("malignancy", -4.49), "output-range", "malignancy is -3.99"),
        (lambda: shifted("expert_score", 895.0), "output-range", "expert_score is 89"),
        (lambda: shifted("segmentation", 0.5), "output-range", "segmentation is 1.5"),
        (lambda: shifted("cam", -1.0), "output-range", "cam is -1"),
        (lambda: shifted("cam", float("nan")), "output-not-finite", "cam"),
        (lambda: doubled("logit"), "output-shape", "logit"),
        (lambda: doubled("segmentation"), "output-shape", "segmentation"),
        (lambda: tiny_model(nan=True), "output-not-finite", "not a finite number"),
    ],
)
def test_a_network_whose_answers_cannot_be(
    backend: str, make: Callable[[], onnx.ModelProto], code: str, says: str, tmp_path: Path
) -> None:
    bundle = make_tiny_bundle(tmp_path / "b", model=make())
    loaded = create_backend(bundle, name=backend, device="cpu", threads=1)
    with pytest.raises(BackendError, match=says) as caught:
        loaded.infer(PATCH)
    assert caught.value.code == code
    assert caught.value.hint


def products(count: int, *, of_patch: bool) -> onnx.ModelProto:
    """The tiny network and a chain of products of 1024 x 1024 matrices, each some ten milliseconds: minutes."""
    model = tiny_model()
    graph, node = model.graph, helper.make_node
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in {
            "w": np.full((1024, 1024), 1.0 / 1024.0, np.float32),
            "rows": np.array([-1, 1024]),
            "none": np.array(0.0, np.float32),
        }.items()
    )
    at = next(index for index, each in enumerate(graph.node) if each.output[0] == "logit")
    graph.node[at].output[0] = "early"
    chain = [node("Reshape", ["patch", "rows"], ["x0"]) if of_patch else node("Identity", ["w"], ["x0"])]
    chain += [node("MatMul", [f"x{number}", "w"], [f"x{number + 1}"]) for number in range(count)]
    chain += [
        node("ReduceMean", [f"x{count}"], ["all"], keepdims=0),
        node("Mul", ["all", "none"], ["nothing"]),
        node("Add", ["early", "nothing"], ["logit"]),
    ]
    for offset, each in enumerate(chain, 1):
        graph.node.insert(at + offset, each)
    return model


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_call_that_takes_too_long_is_stopped(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_tiny_bundle(tmp_path / "b", model=products(300, of_patch=True))
    loaded = create_backend(bundle, name=backend, device="cpu", threads=1)
    monkeypatch.setattr(time_limit, "SECONDS_A_PATCH", 0.05)
    with pytest.raises(BackendError, match=rf"{backend} was stopped.*1 patches within 0\.05 s") as caught:
        loaded.infer(PATCH)
    assert caught.value.code == "inference-timeout"


def test_the_limit_grows_with_the_patches_and_leaves_others_alone(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    real = time_limit.threading.Timer

    def timer(seconds: float, function: Callable[[], None]) -> object:
        given.append(seconds)
        return real(seconds, function)

    monkeypatch.setattr(time_limit.threading, "Timer", timer)
    loaded = create_backend(Bundle.open(tiny_bundle), name="onnxruntime", device="cpu", threads=1)
    loaded.infer(np.repeat(PATCH, 3, axis=0))
    assert given == [3 * time_limit.SECONDS_A_PATCH]
    with pytest.raises(KeyError), time_limit.time_limit(1, lambda: None, name="x"):
        raise KeyError
    stopped = threading.Event()
    with pytest.raises(BackendError), time_limit.time_limit(1, lambda: None, name="x"):
        monkeypatch.setattr(time_limit, "SECONDS_A_PATCH", 0.0)
        with time_limit.time_limit(1, stopped.set, name="x"):
            stopped.wait(120)
            raise KeyError
