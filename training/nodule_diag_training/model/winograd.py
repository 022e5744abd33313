"""Winograd's minimal filtering for the dilated 3x3x3 convolutions of the backbone, for training on CPUs.

F(4x4x4, 3x3x3) of Lavin and Gray ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016) takes 6^3 = 216
products for 64 outputs where the direct way takes 1,728, an eighth. A convolution of dilation d is d^3 ordinary ones on
sub-lattices, and the model's 16-cube splits into 4-cubes for every d it uses (1, 2, 4), so that the tiling wastes
nothing. Tiling, padding, sub-lattice and input transform are one small matrix an axis; everything is matrix products,
and autograd differentiates them. In float32 the result differs from the direct convolution by under 1e-4 of its
largest value; exports and evaluation use the direct one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

KERNEL = 3
TILE = 4
"""Outputs of a tile along an axis."""
POINTS = TILE + KERNEL - 1
"""Inputs of a tile, and its products, along an axis."""

LARGEST_SHARE = 0.3
"""Share of the direct way's products above which the transforms cost more than they save."""

INPUT_TRANSFORM = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=np.float64,
)
"""B^T for the points 0, 1, -1, 2, -2 and infinity."""
KERNEL_TRANSFORM = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=np.float64,
)
"""G."""
OUTPUT_TRANSFORM = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float64
)
"""A^T."""


def axis_matrices(size: int, dilation: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """The transforms of an axis of ``size`` cells with zero padding ``dilation``.

    Returns:
        [6 T, size] from cells to products, [size, 6 T] from products to cells, both ordered (product, tile), and the
        number of tiles T.
    """
    tiles_each = -(-size // (dilation * TILE))
    tiles = dilation * tiles_each
    forward = np.zeros((POINTS, tiles, size))
    backward = np.zeros((size, POINTS, tiles))
    for lattice in range(dilation):
        for number in range(tiles_each):
            tile = lattice * tiles_each + number
            for column in range(POINTS):
                cell = lattice + dilation * (TILE * number + column - 1)
                if 0 <= cell < size:
                    forward[:, tile, cell] = INPUT_TRANSFORM[:, column]
            for row in range(TILE):
                cell = lattice + dilation * (TILE * number + row)
                if cell < size:
                    backward[cell, :, tile] = OUTPUT_TRANSFORM[row]
    return forward.reshape(-1, size), backward.reshape(size, -1), tiles


def pays(sizes: Iterable[int], dilation: int) -> bool:
    """Whether tiles fit grids of these sizes well enough: a 16-cube is filled at every dilation, an 8-cube not at 4."""
    share = 1.0
    for size in sizes:
        tiles = dilation * -(-size // (dilation * TILE))
        share *= POINTS * tiles / (KERNEL * size)
    return share <= LARGEST_SHARE


@lru_cache(maxsize=64)  # grids of 2 to 16 cells (Table 5, x), three dilations
def _axis_tensors(size: int, dilation: int) -> tuple[Tensor, Tensor, int]:
    forward, backward, tiles = axis_matrices(size, dilation)
    return torch.from_numpy(forward).float(), torch.from_numpy(backward).float(), tiles


def winograd_conv3d(x: Tensor, weight: Tensor, *, dilation: int = 1) -> Tensor:
    """``conv3d(x, weight, padding=dilation, dilation=dilation)`` by F(4x4x4, 3x3x3).

    Args:
        x: [B, C, D, H, W] float32, best in ``channels_last_3d``.
        weight: [K, C, 3, 3, 3] float32.
        dilation: Distance of the kernel's taps in cells.

    Returns:
        [B, K, D, H, W] in ``channels_last_3d``.
    """
    batch, channels, depth, height, width = x.shape
    outputs = weight.shape[0]
    (in_z, out_z, tz), (in_y, out_y, ty), (in_x, out_x, tx) = (
        _axis_tensors(size, dilation) for size in (depth, height, width)
    )
    y = x.permute(0, 2, 3, 4, 1).reshape(batch, depth, height * width * channels)
    y = (in_z @ y).view(batch * POINTS * tz, height, width * channels)
    y = (in_y @ y).view(batch * POINTS * tz * POINTS * ty, width, channels)
    y = (in_x @ y).view(batch, POINTS, tz, POINTS, ty, POINTS, tx, channels)
    y = y.permute(1, 3, 5, 0, 2, 4, 6, 7).reshape(POINTS**3, batch * tz * ty * tx, channels)

    kernel = torch.from_numpy(KERNEL_TRANSFORM).to(weight)
    u = weight.permute(2, 3, 4, 1, 0).reshape(KERNEL, -1)  # [3, 3 3 C K]
    u = (kernel @ u).view(POINTS, KERNEL, -1)
    u = (kernel @ u).view(POINTS * POINTS, KERNEL, -1)
    u = (kernel @ u).view(POINTS**3, channels, outputs)

    z = torch.bmm(y, u).view(POINTS, POINTS, POINTS, batch, tz, ty, tx, outputs)
    z = z.permute(3, 0, 4, 1, 5, 2, 6, 7).reshape(batch * POINTS * tz * POINTS * ty, POINTS * tx, outputs)
    z = (out_x @ z).view(batch * POINTS * tz, POINTS * ty, width * outputs)
    z = (out_y @ z).view(batch, POINTS * tz, height * width * outputs)
    z = (out_z @ z).view(batch, depth, height, width, outputs)
    return z.permute(0, 4, 1, 2, 3)


class DilatedConv3d(nn.Conv3d):
    """A 3x3x3 convolution of stride 1 that trains by Winograd's filtering on CPUs; otherwise ``nn.Conv3d``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, D, H, W] to [B, K, D, H, W]."""
        single = x.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        dilation = int(self.dilation[0])
        if self.training and x.device.type == "cpu" and single and pays(x.shape[2:], dilation):
            return winograd_conv3d(x, self.weight, dilation=dilation)
        return super().forward(x)
