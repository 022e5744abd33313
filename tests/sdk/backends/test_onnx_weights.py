"""Weights outside the model: found wherever ONNX allows a tensor, against onnx's own description of the format."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle_factory import tiny_model
from nodule_diag.backends import onnx_weights
from nodule_diag.backends.onnx_weights import require_own_weights
from nodule_diag.errors import BundleError

MODEL = tiny_model().SerializeToString()


def test_the_fields_are_those_of_onnx() -> None:
    """Every field of onnx.proto that leads to a tensor is followed, under its right number."""
    leads = set(onnx_weights.MESSAGES)
    for name, followed in onnx_weights.MESSAGES.items():
        fields = getattr(onnx, name).DESCRIPTOR.fields
        expected = {
            field.number: field.message_type.name
            for field in fields
            if field.message_type is not None and field.message_type.name in leads
        }
        assert followed == expected, name
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert numbers["external_data"] == onnx_weights.EXTERNAL_DATA
    assert numbers["data_location"] == onnx_weights.DATA_LOCATION


def test_a_model_with_its_weights_inside_passes() -> None:
    require_own_weights(MODEL, file="model.onnx")


def outside() -> TensorProto:
    tensor = numpy_helper.from_array(np.array([0.5], np.float32), "half")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return tensor


def as_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def as_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def as_sparse_values(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(outside())


def in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], initializer=[outside()])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto) -> None:
    model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def without_the_flag(model: onnx.ModelProto) -> None:
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "place", [as_initializer, as_constant, as_sparse_values, in_a_branch, in_a_function, without_the_flag]
)
def test_weights_outside_are_found(place: object) -> None:
    model = tiny_model()
    place(model)  # type: ignore[operator]
    with pytest.raises(BundleError, match=r"model\.onnx keeps weights in other files") as caught:
        require_own_weights(model.SerializeToString(), file="model.onnx")
    assert caught.value.code == "bundle-model-unreadable"


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    """Never an IndexError, never an endless loop."""
    try:
        require_own_weights(data, file="model.onnx")
    except BundleError as error:
        assert error.code == "bundle-model-unreadable"


@given(cut=st.integers(20, len(MODEL) // 2))  # past the few bytes that follow the graph
def test_a_truncated_model_is_refused(cut: int) -> None:
    with pytest.raises(BundleError, match="damaged"):
        require_own_weights(MODEL[:-cut], file="model.onnx")
