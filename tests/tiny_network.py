"""A network with the layer kinds of the real one, small enough to compile in a second."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

CHANNELS = 16
GROUPS = 8
TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
tiny (float[B,2,64,64,64] patch) => (float[B] malignancy, float[B] logit, float[B] expert_score,
  float[B,16,16,16] segmentation, float[B,16,16,16] cam)
{
  c0 = Conv <kernel_shape = [7,7,7], strides = [4,4,4], pads = [3,3,3,3,3,3]> (patch, w0)
  g0 = Reshape (c0, groups)
  i0 = InstanceNormalization (g0, ones8, zeros8)
  s0 = Shape (c0)
  n0 = Reshape (i0, s0)
  m0 = Mul (n0, scale)
  a0 = Add (m0, shift)
  r0 = Relu (a0)
  c1 = Conv <kernel_shape = [3,3,3], dilations = [2,2,2], pads = [2,2,2,2,2,2]> (r0, w1)
  p1 = Conv <kernel_shape = [1,1,1]> (r0, p)
  a1 = Add (c1, p1)
  r1 = Relu (a1)
  c2 = Conv <kernel_shape = [1,1,1]> (r1, w2)
  g2 = Reshape (c2, group)
  i2 = InstanceNormalization (g2, one1, zero1)
  s2 = Shape (c2)
  n2 = Reshape (i2, s2)
  m2 = Mul (n2, four)
  a2 = Add (m2, minus3)
  sem = Sigmoid (a2)
  c3 = Conv <kernel_shape = [3,3,3], pads = [1,1,1,1,1,1]> (sem, w3)
  a3 = Add (a1, c3)
  f = Relu (a3)
  fw = Mul (f, cnet)
  raw = ReduceSum <keepdims = 0> (fw, channel)
  logit = ReduceMean <keepdims = 0> (raw, space)
  malignancy = Sigmoid (logit)
  five = Mul (malignancy, four)
  score = Add (five, one)
  expert_score = Clip (score, one, top)
  q = Squeeze (a2, channel)
  segmentation = Sigmoid (q)
  low = ReduceMin <keepdims = 1> (raw, space)
  high = ReduceMax <keepdims = 1> (raw, space)
  d = Sub (high, low)
  span = Max (d, tiny)
  up = Sub (raw, low)
  cam = Div (up, span)
}
"""


def tiny_network(*, seed: int = 3) -> ModelProto:
    """Convolutions, group normalisation with 8 groups and with one channel and one group, CAM, min-max."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def number(value: float) -> np.ndarray:
        return np.array(value, np.float32)

    values = {
        "w0": weight(CHANNELS, 2, 7, 7, 7),
        "w1": weight(CHANNELS, CHANNELS, 3, 3, 3),
        "p": weight(CHANNELS, CHANNELS, 1, 1, 1),
        "w2": weight(1, CHANNELS, 1, 1, 1),
        "w3": weight(CHANNELS, 1, 3, 3, 3),
        "cnet": weight(CHANNELS, 1, 1, 1),
        "scale": rng.uniform(0.5, 1.5, (CHANNELS, 1, 1, 1)).astype(np.float32),
        "shift": weight(CHANNELS, 1, 1, 1),
        "groups": np.array([0, GROUPS, -1]),
        "group": np.array([0, 1, -1]),
        "ones8": np.ones(GROUPS, np.float32),
        "zeros8": np.zeros(GROUPS, np.float32),
        "one1": np.ones(1, np.float32),
        "zero1": np.zeros(1, np.float32),
        "four": number(4),
        "minus3": number(-3),
        "one": number(1),
        "top": number(5),
        "tiny": number(1e-12),
        "channel": np.array([1]),
        "space": np.array([1, 2, 3]),
    }
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.checker.check_model(proto, full_check=True)
    return proto
