"""The count of operations, against torch's own count, the issue's figure and counts by hand."""

from __future__ import annotations

import onnx
import pytest

from benchmarks.flops import direct_flops, graph_flops
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import UsageError


def graph(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')


def test_the_paper_s_network_takes_34_3_gflop() -> None:
    assert direct_flops() / 1e9 == pytest.approx(34.3, abs=0.05)


def test_the_direct_graph_takes_what_torch_counts() -> None:
    bundle = Bundle.default()
    proto = onnx.load_from_string(bundle.read(bundle.manifest.model.file))
    found = graph_flops(proto)
    assert 0.2 * direct_flops() < found <= direct_flops(), "as many, or fewer where the graph saves products"
    assert graph_flops(proto, batch=3) == 3 * found


def test_convolutions_by_hand() -> None:
    proto = graph(
        "g (float[B,4,6,8] x, float[10,2,3,3] w) => (float[B,10,3,4] y)"
        " { y = Conv <group = 2, strides = [2,2], pads = [1,1,1,1]> (x, w) }"
    )
    assert graph_flops(proto) == 2 * (10 * 3 * 4) * (2 * 3 * 3)
    assert graph_flops(proto, batch=5) == 5 * 2 * (10 * 3 * 4) * (2 * 3 * 3)


def test_matrix_products_by_hand() -> None:
    proto = graph("g (float[B,7,5] x, float[5,11] w) => (float[B,7,11] y) { y = MatMul (x, w) }")
    assert graph_flops(proto, batch=3) == 2 * 3 * 7 * 11 * 5
    transposed = graph("g (float[5,7] x, float[5,11] w) => (float[7,11] y) { y = Gemm <transA = 1> (x, w) }")
    assert graph_flops(transposed) == 2 * 7 * 11 * 5


def test_what_is_not_counted_is_refused() -> None:
    proto = graph('g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = Einsum <equation = "ij,jk->ik"> (x, w) }')
    with pytest.raises(UsageError, match="Einsum"):
        graph_flops(proto)
