"""What a network's file may hold: against onnx's own description of the format, and with graphs that ask for more."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle_factory import make_tiny_bundle, tiny_model
from nodule_diag.backends import create_backend, onnx_file
from nodule_diag.backends.onnx_file import require_plain_network
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BundleError

MODEL = tiny_model().SerializeToString()
HARMLESS = {
    "opset_import",
    "metadata_props",
    "configuration",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
    "device_configurations",
    "segment",
}
"""Fields that describe and hold neither weights nor steps."""
BACKENDS = [name for name in ("onnxruntime", "openvino") if find_spec(name)]


@pytest.mark.parametrize("name", sorted(onnx_file.FOLLOWED))
def test_every_field_that_holds_a_message_is_followed_refused_or_harmless(name: str) -> None:
    """Under the number that onnx.proto gives it: a newer onnx with something new in it fails here."""
    fields = [f for f in getattr(onnx, name).DESCRIPTOR.fields if f.message_type is not None]
    numbers = {field.number: field.message_type.name for field in fields}
    assert set(onnx_file.FOLLOWED[name].items()) <= set(numbers.items())
    assert set(onnx_file.REFUSED[name]) <= set(numbers)
    known = {*onnx_file.FOLLOWED[name], *onnx_file.REFUSED[name]} | (
        {onnx_file.EXTERNAL_DATA} if "Tensor" in name else set()
    )
    assert {field.name for field in fields if field.number not in known} <= HARMLESS


def test_the_numbers_of_single_fields_are_those_of_onnx() -> None:
    def numbers(message: type) -> dict[str, int]:
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    tensor, entry = numbers(TensorProto), numbers(onnx.StringStringEntryProto)
    assert numbers(onnx.NodeProto)["domain"] == onnx_file.NODE_DOMAIN
    assert [tensor[name] for name in ("name", "external_data", "data_location")] == [8, 13, 14]
    assert (onnx_file.TENSOR_NAME, onnx_file.EXTERNAL_DATA, onnx_file.DATA_LOCATION) == (8, 13, 14)
    assert (entry["key"], entry["value"]) == (onnx_file.ENTRY_KEY, onnx_file.ENTRY_VALUE)


def test_a_plain_network_passes() -> None:
    require_plain_network(MODEL, file="model.onnx")


def test_the_packaged_networks_pass() -> None:
    bundle = Bundle.default()
    spec = bundle.manifest.model
    require_plain_network(bundle.read(spec.file), file=spec.file)
    assert spec.winograd is not None
    require_plain_network(
        bundle.read(spec.winograd.kernels), file="kernels", beside={spec.file: len(bundle.read(spec.file))}
    )


def outside(location: str = "elsewhere.bin", **more: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.array([0.5], np.float32), "half")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def as_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def as_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def without_the_flag(model: onnx.ModelProto) -> None:
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


def flag_alone(model: onnx.ModelProto) -> None:
    tensor = outside()
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


def address_in_memory(model: onnx.ModelProto) -> None:
    """ONNX Runtime's own name for weights that are there already: ``offset`` is where."""
    model.graph.initializer.append(outside("*/_ORT_MEM_ADDR_/*", offset="4096", length="4"))


def given_by_nobody(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside(onnx_file.GIVEN.decode()))


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(outside())


def branch() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Identity", ["zero"], ["d"])],
        "branch",
        [],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [])],
    )


def with_a_branch(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["c"], then_branch=branch(), else_branch=branch()))


def endless_loop(model: onnx.ModelProto) -> None:
    """A loop whose condition stays true, through which the logit goes: no runtime would ever return."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go_in", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, None)],
        [info("go_out", TensorProto.BOOL, []), info("y", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    at = next(index for index, node in enumerate(model.graph.node) if node.output[0] == "logit")
    model.graph.node[at].output[0] = "early"
    model.graph.node.insert(at + 1, helper.make_node("Loop", ["", "go", "early"], ["logit"], body=body))


def function_that_calls_itself(model: onnx.ModelProto) -> None:
    node = helper.make_node("Again", ["a"], ["b"], domain="own")
    model.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [node], [helper.make_opsetid("own", 1)]))


def operator_of_another_domain(model: onnx.ModelProto) -> None:
    """It opens a file by itself."""
    model.graph.node.append(
        helper.make_node("EPContext", [], ["c"], domain="com.microsoft", ep_cache_context="/etc/hostname", embed_mode=0)
    )


def training_steps(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(outside())


def too_many_nodes(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Relu", [f"n{i}"], [f"n{i + 1}"]) for i in range(onnx_file.MAX_NODES + 1)]
    model.graph.node.extend(nodes)


WRONG = {
    as_initializer: "weights in other files",
    as_constant: "weights in other files",
    without_the_flag: "weights in other files",
    flag_alone: "weights in other files",
    address_in_memory: "weights in other files",
    given_by_nobody: "weights in other files",
    sparse: "sparse weights",
    with_a_branch: "a loop or a branch",
    endless_loop: "a loop or a branch",
    function_that_calls_itself: "functions of its own",
    operator_of_another_domain: "com.microsoft",
    training_steps: "training steps",
    too_many_nodes: "nodes",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("change", "says"), WRONG.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_no_network_of_this_package_holds(
    backend: str, change: Callable[[onnx.ModelProto], None], says: str, tmp_path: Path
) -> None:
    model = tiny_model()
    change(model)
    bundle = make_tiny_bundle(tmp_path / "b", model=model)
    with pytest.raises(BundleError, match=says) as caught:
        create_backend(bundle, name=backend, device="cpu", threads=1)
    assert caught.value.code == "bundle-model-unreadable"
    assert "model.onnx" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["absolute", "up", "link", "beside"])
def test_no_file_that_a_network_names_is_opened(
    backend: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe lies where each path leads: whoever opened it would wait for ever."""
    root = tmp_path / "bundle"
    root.mkdir()
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    location = {"absolute": str(pipe), "up": "../secret", "link": "link", "beside": "secret"}[way]
    (root / "link").symlink_to(pipe)
    model = tiny_model()
    half = next(tensor for tensor in model.graph.initializer if tensor.name == "half")
    half.CopyFrom(outside(location, offset="0", length="4"))
    monkeypatch.chdir(tmp_path if way == "beside" else root)
    bundle = make_tiny_bundle(tmp_path / "b.zip", model=model)
    with pytest.raises(BundleError, match="weights in other files") as caught:
        create_backend(bundle, name=backend, device="cpu", threads=1)
    assert caught.value.code == "bundle-model-unreadable"


@pytest.mark.parametrize(
    ("place", "passes"),
    [
        ({"location": "model.onnx", "offset": "0", "length": "10"}, True),
        ({"location": "model.onnx", "offset": "1", "length": "10"}, False),
        ({"location": "model.onnx", "offset": "-1", "length": "4"}, False),
        ({"location": "model.onnx", "offset": "0x0", "length": "4"}, False),
        ({"location": "model.onnx", "offset": "9" * 30, "length": "4"}, False),
        ({"location": "model.onnx"}, False),
        ({"location": "./model.onnx", "offset": "0", "length": "4"}, False),
        ({"location": "given"}, True),
        ({"location": "given", "offset": "0"}, False),
    ],
)
def test_weights_in_a_checked_file_beside_it(place: dict[str, str], passes: bool) -> None:
    model = tiny_model()
    model.graph.initializer.append(outside(**place))
    data = model.SerializeToString()
    if passes:
        require_plain_network(data, file="m", beside={"model.onnx": 10}, given=["half"])
        with pytest.raises(BundleError):
            require_plain_network(data, file="m", given=["another"])
    else:
        with pytest.raises(BundleError) as caught:
            require_plain_network(data, file="m", beside={"model.onnx": 10}, given=["half"])
        assert caught.value.code == "bundle-model-unreadable"


def test_a_location_that_stands_twice() -> None:
    model = tiny_model()
    tensor = outside("model.onnx", offset="0", length="4")
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)
    with pytest.raises(BundleError, match="weights in other files"):
        require_plain_network(model.SerializeToString(), file="m", beside={"model.onnx": 10})


def test_a_field_number_that_runtimes_would_cut() -> None:
    """Field 25 (functions) with bits above the 32 that a runtime reads."""
    tag = ((1 << 32) | (25 << 3) | 2).to_bytes(5, "little")
    value, varint = int.from_bytes(tag, "little"), bytearray()
    while value > 0x7F:
        varint.append(value & 0x7F | 0x80)
        value >>= 7
    varint.append(value)
    with pytest.raises(BundleError, match="damaged"):
        require_plain_network(MODEL + bytes(varint) + b"\0", file="m")


def test_fields_are_bounded() -> None:
    """A file of two-byte fields is refused before they are all looked at."""
    with pytest.raises(BundleError, match="fields"):
        require_plain_network(b"\x08\x01" * (onnx_file.MAX_FIELDS + 1), file="m")


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    """Never an IndexError, never an endless loop."""
    try:
        require_plain_network(data, file="model.onnx")
    except BundleError as error:
        assert error.code == "bundle-model-unreadable"


@given(cut=st.integers(20, len(MODEL) // 2))  # past the few bytes that follow the graph
def test_a_truncated_model_is_refused(cut: int) -> None:
    with pytest.raises(BundleError, match="damaged"):
        require_plain_network(MODEL[:-cut], file="model.onnx")
