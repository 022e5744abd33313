"""ONNX nodes of one convolution with the channels last, by minimal filtering.

A convolution of stride 2 becomes one of stride 1 over half the cells and eight times the channels (space to depth). One
of dilation d becomes d^3 ordinary ones over sub-lattices (space to batch). The result is a dense convolution of 2, 3 or
4 taps an axis. F(4, taps) along each axis is then a matrix on the cells, one product of [tiles, channels] x [channels,
outputs] for each of the (3 + taps)^3 points, and a matrix back. The kernels stay as they were; nodes transform them,
and a runtime computes these nodes once, when it loads the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .minimal_filtering import Matrix, filtering

TILE = 4
"""Outputs of a tile along an axis: at 3 taps in 3-D, an eighth of the direct products; larger tiles round more."""
MAX_TAPS = 4
"""Taps along an axis after space to depth."""
SLAB_BYTES = 24 * 2**20
"""Memory of the products at a time: more only takes memory, less begins to cost time."""
_SCOPE = "winograd/"
"""Prefix of every inner name, so that none can be the network's."""


class Layers:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """The name of a constant; equal constants are kept once."""
        key = value.dtype.str, value.shape, value.tobytes()
        if key not in self._known:
            name = f"{_SCOPE}constant_{len(self._known)}"
            self._known[key] = name
            self.constants[name] = numpy_helper.from_array(value, name)
        return self._known[key]

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: int | list[int]) -> str:
        """Add a node; returns the name of its output."""
        result = output or f"{_SCOPE}{len(self.nodes)}_{kind}"
        node = helper.make_node(kind, list(inputs), [result], name=result)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return result

    def reshape(self, x: str, *shape: int) -> str:
        """``x`` in another shape; one axis may be -1."""
        return self.add("Reshape", x, self.constant(np.array(shape, np.int64)))

    def transpose(self, x: str, *axes: int) -> str:
        """``x`` with its axes in another order."""
        return self.add("Transpose", x, perm=list(axes))

    def apply(self, matrix: NDArray[np.floating], x: str) -> str:
        """``matrix`` times the last two axes of ``x``."""
        return self.add("MatMul", self.constant(matrix.astype(np.float32)), x)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A dense 3-D convolution without bias, with the same stride, dilation and padding along each axis.

    Attributes:
        weight: Name of its kernels, [outputs, inputs, kernel, kernel, kernel].
        inputs: Channels.
        outputs: Channels.
        kernel: Taps along an axis.
        stride: 1 or 2.
        dilation: Distance of the taps in cells; 1 where the stride is not.
        sizes: Cells of the input along z, y and x.
    """

    weight: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    sizes: tuple[int, int, int]

    @property
    def padding(self) -> int:
        """Cells of zeros on each side."""
        return self.dilation * (self.kernel // 2)

    @property
    def taps(self) -> int:
        """Taps along an axis after space to depth."""
        return self.reach + (self.kernel - 1 - self.kernel // 2) // self.stride + 1

    @property
    def reach(self) -> int:
        """Taps before an output's own cell, after space to depth."""
        return -(-(self.kernel // 2) // self.stride)

    @property
    def points(self) -> int:
        """Products of a tile along an axis."""
        return TILE + self.taps - 1

    @property
    def channels(self) -> int:
        """Input channels after space to depth."""
        return self.inputs * self.stride**3

    @property
    def factor(self) -> int:
        """Number of parts of an axis, by stride or by dilation."""
        return self.stride * self.dilation

    @property
    def fits(self) -> bool:
        """Whether this module can compute it: the cells fill the tiles, and the taps are few enough."""
        return (
            min(self.stride, self.dilation) == 1
            and self.kernel % 2 == 1
            and 1 < self.taps <= MAX_TAPS
            and all(size % (self.factor * TILE) == 0 for size in self.sizes)
        )


def winograd(layers: Layers, x: str, convolution: Convolution) -> str:
    """A convolution by F(4, taps) along each axis.

    Args:
        layers: Gets the nodes.
        x: [B, D, H, W, inputs].
        convolution: One that fits.

    Returns:
        [B, D / stride, H / stride, W / stride, outputs].
    """
    c = convolution
    z, y, x_size = sizes = (c.sizes[0] // c.factor, c.sizes[1] // c.factor, c.sizes[2] // c.factor)
    tiles = (z // TILE, y // TILE, x_size // TILE)
    split = layers.reshape(x, -1, z, c.factor, y, c.factor, x_size, c.factor, c.inputs)
    if c.stride > 1:
        parts = layers.transpose(split, 0, 1, 3, 5, 2, 4, 6, 7)
    elif tiles == (1, 1, 1):
        factors = _one_tile(layers, layers.transpose(split, 1, 3, 5, 0, 2, 4, 6, 7), c)
        return _outputs(layers, layers.add("MatMul", factors, _kernels(layers, c)), c, tiles)
    else:
        parts = layers.transpose(split, 0, 2, 4, 6, 1, 3, 5, 7)
    kernels = _kernels(layers, c)
    slabs = []
    for rows in _slabs(c, tiles):
        factors = _tiled(layers, parts, c, sizes, rows)
        products = layers.add("MatMul", factors, kernels)
        slabs.append(_outputs(layers, products, c, (len(rows), *tiles[1:])))
    return slabs[0] if len(slabs) == 1 else layers.add("Concat", *slabs, axis=1)


def _slabs(c: Convolution, tiles: tuple[int, int, int]) -> list[range]:
    """Rows of tiles along z that are computed at a time; all rows where sub-lattices share the tiles."""
    if c.dilation > 1:
        return [range(tiles[0])]
    row_bytes = 4 * c.points**3 * tiles[1] * tiles[2] * c.outputs
    rows = max(1, SLAB_BYTES // row_bytes)
    return [range(start, min(start + rows, tiles[0])) for start in range(0, tiles[0], rows)]


def _one_tile(layers: Layers, parts: str, c: Convolution) -> str:
    """[4, 4, 4, B, d, d, d, C], where a tile is all of a sub-lattice, to factors [points^3, B d^3, C]."""
    inputs = filtering(TILE, c.taps).inputs
    own = inputs[:, c.reach : c.reach + TILE]  # the other columns only meet padding
    along_z = layers.apply(own, layers.reshape(parts, TILE, -1))
    planes = layers.reshape(along_z, c.points, TILE * TILE, -1)
    return layers.reshape(layers.apply(np.kron(own, own), planes), c.points**3, -1, c.channels)


def _tiled(layers: Layers, parts: str, c: Convolution, sizes: tuple[int, int, int], rows: range) -> str:
    """[B', Z, Y, X, C] to factors [points^3, B' rows tiles^2, C] of some rows of tiles along z."""
    x = parts
    _, ty, tx = (size // TILE for size in sizes)
    for axis, (size, tiles) in enumerate(zip(sizes, (rows, range(ty), range(tx)), strict=True)):
        # Each product puts its points and tiles to the left of the remaining axes.
        inner = math.prod(sizes[axis + 1 :]) * c.channels
        x = layers.apply(_axis_matrix(size, c, tiles), layers.reshape(x, -1, size, inner))
    grid = layers.reshape(x, -1, c.points, len(rows), c.points, ty, c.points, tx * c.channels)
    return layers.reshape(layers.transpose(grid, 1, 3, 5, 0, 2, 4, 6), c.points**3, -1, c.channels)


def _axis_matrix(size: int, c: Convolution, tiles: range) -> Matrix:
    """[points T, size]: tiles, padding and input transform of an axis, ordered (point, tile)."""
    inputs = filtering(TILE, c.taps).inputs
    matrix = np.zeros((c.points, len(tiles), size))
    for row, tile in enumerate(tiles):
        for column in range(c.points):
            cell = TILE * tile + column - c.reach
            if 0 <= cell < size:
                matrix[:, row, cell] = inputs[:, column]
    return matrix.reshape(-1, size)


def _kernels(layers: Layers, c: Convolution) -> str:
    """[points^3, channels, outputs], from constants alone: a runtime computes them once."""
    taps = filtering(TILE, c.taps).taps
    axis = np.zeros((len(taps), c.stride, c.kernel))
    for tap in range(c.kernel):
        # Cell stride (i + step) + phase of the input, for output i.
        step, phase = divmod(tap - c.kernel // 2, c.stride)
        axis[:, phase, tap] = taps[:, step + c.reach]
    x = layers.transpose(layers.reshape(c.weight, c.outputs, c.inputs, c.kernel**3), 2, 1, 0)
    if c.stride == 1:
        cube = np.kron(taps, np.kron(taps, taps))
        x = layers.apply(cube, layers.reshape(x, c.kernel**3, c.inputs * c.outputs))
    else:
        for left in range(3):  # z, y and x in turn: the (point, phase) of finished axes are on the left
            inner = c.kernel ** (2 - left) * c.inputs * c.outputs
            x = layers.apply(axis.reshape(-1, c.kernel), layers.reshape(x, -1, c.kernel, inner))
        x = layers.reshape(x, *[c.points, c.stride] * 3, c.inputs * c.outputs)
        x = layers.transpose(x, 0, 2, 4, 1, 3, 5, 6)
    return layers.reshape(x, c.points**3, c.channels, c.outputs)


def _outputs(layers: Layers, products: str, c: Convolution, tiles: tuple[int, int, int]) -> str:
    """[points^3, B d^3 tiles^3, K] to [B, D, H, W, K]."""
    outputs = filtering(TILE, c.taps).outputs
    along_z = layers.apply(outputs, layers.reshape(products, c.points, -1))
    planes = layers.apply(np.kron(outputs, outputs), layers.reshape(along_z, TILE, c.points**2, -1))
    grid = layers.reshape(planes, TILE, TILE, TILE, -1, *[c.dilation] * 3, *tiles, c.outputs)
    # A cell is (tile, place in the tile, sub-lattice).
    cells = layers.transpose(grid, 3, 7, 0, 4, 8, 1, 5, 9, 2, 6, 10)
    return layers.reshape(cells, -1, *(count * TILE * c.dilation for count in tiles), c.outputs)


def pointwise(layers: Layers, x: str, convolution: Convolution) -> str:
    """A 1x1x1 convolution of [B, D, H, W, C], of any stride."""
    c = convolution
    if c.stride > 1:
        ends, axes = np.array(c.sizes, np.int64), np.array([1, 2, 3], np.int64)
        zeros, steps = np.zeros(3, np.int64), np.full(3, c.stride, np.int64)
        x = layers.add("Slice", x, *(layers.constant(value) for value in (zeros, ends, axes, steps)))
    matrix = layers.transpose(layers.reshape(c.weight, c.outputs, c.inputs), 1, 0)
    return layers.add("MatMul", x, matrix)


def from_one_channel(layers: Layers, x: str, convolution: Convolution) -> str:
    """A convolution of stride 1 of a single channel: the neighbours of each cell become its channels, then one product.

    Args:
        layers: Gets the nodes.
        x: [B, 1, D, H, W]; with one channel, first and last are the same in memory.
        convolution: A convolution of one input.

    Returns:
        [B, D, H, W, outputs].
    """
    c = convolution
    taps = c.kernel**3
    shifts = layers.constant(np.eye(taps, dtype=np.float32).reshape(taps, 1, c.kernel, c.kernel, c.kernel))
    neighbours = layers.add("Conv", x, shifts, dilations=[c.dilation] * 3, pads=[c.padding] * 6)
    matrix = layers.transpose(layers.reshape(c.weight, c.outputs, taps), 1, 0)
    return layers.add("MatMul", layers.transpose(neighbours, 0, 2, 3, 4, 1), matrix)
