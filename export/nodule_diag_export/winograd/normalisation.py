"""ONNX nodes of a group normalisation with the channels last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .layers import Layers


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupNorm:
    """Group normalisation.

    Attributes:
        x: The tensor that is normalised.
        groups: Number of groups.
        epsilon: Added under the root.
        scale: [C].
        shift: [C].
    """

    x: str
    groups: int
    epsilon: float
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def group_norm(layers: Layers, x: str, norm: GroupNorm, sizes: tuple[int, int, int]) -> str:
    """Normalise [B, D, H, W, C]: sums by a product with ones, since no runtime is faster at reducing a leading axis."""
    channels, cells = len(norm.scale), math.prod(sizes)
    flat = layers.reshape(x, -1, cells, channels)
    mean = np.full((1, cells), 1.0 / cells)
    moments = []
    for values in (flat, layers.add("Mul", flat, flat)):
        by_channel = layers.reshape(layers.apply(mean, values), -1, norm.groups, channels // norm.groups)
        moments.append(layers.add("ReduceMean", by_channel, layers.constant(np.array([2], np.int64)), keepdims=1))
    first, second = moments
    variance = layers.add("Sub", second, layers.add("Mul", first, first))
    root = layers.add("Sqrt", layers.add("Add", variance, layers.constant(np.array([norm.epsilon], np.float32))))
    per_group = (norm.groups, channels // norm.groups)
    scale = layers.add("Div", layers.constant(norm.scale.reshape(per_group)), root)
    shift = layers.add("Sub", layers.constant(norm.shift.reshape(per_group)), layers.add("Mul", first, scale))
    scaled = layers.add("Mul", flat, layers.reshape(scale, -1, 1, channels))
    shifted = layers.add("Add", scaled, layers.reshape(shift, -1, 1, channels))
    return layers.reshape(shifted, -1, *sizes, channels)
