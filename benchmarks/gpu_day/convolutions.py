"""The network's unusual convolutions as usual ones, for which GPU libraries have fast kernels; the results are equal.

A convolution of dilation d becomes d^3 convolutions of dilation 1 on sub-lattices, which become the batch. The head,
7^3 of stride 2 on two channels, becomes 4^3 of stride 1 on sixteen: the eight voxels of each 2^3 become channels.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Convolutions = Literal["direct", "split"]
HEAD_KERNEL, HEAD_STRIDE = 7, 2


def split_dilation(x: Tensor, weight: Tensor, *, dilation: int) -> Tensor:
    """``conv3d(x, weight, padding=dilation, dilation=dilation)`` for a 3^3 kernel; [B, C, D, H, W]."""
    cells = _lowered(x).permute(0, 2, 3, 4, 1)
    sizes = cells.shape[1:4]
    missing = [-size % dilation for size in sizes]
    if any(missing):
        cells = functional.pad(cells, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
    batch, (d, h, w), channels = len(cells), (size // dilation for size in cells.shape[1:4]), cells.shape[-1]
    split = cells.reshape(batch, d, dilation, h, dilation, w, dilation, channels).permute(0, 2, 4, 6, 1, 3, 5, 7)
    lattices = split.reshape(batch * dilation**3, d, h, w, channels).permute(0, 4, 1, 2, 3)
    found = functional.conv3d(lattices, weight, padding=1).permute(0, 2, 3, 4, 1)
    joined = found.reshape(batch, dilation, dilation, dilation, d, h, w, -1).permute(0, 4, 1, 5, 2, 6, 3, 7)
    whole = joined.reshape(batch, d * dilation, h * dilation, w * dilation, -1)
    return whole[:, : sizes[0], : sizes[1], : sizes[2]].permute(0, 4, 1, 2, 3)


def deep_head(x: Tensor, weight: Tensor) -> Tensor:
    """``conv3d(x, weight, stride=2, padding=3)`` for a 7^3 kernel and even sides."""
    batch, channels, depth, height, width = x.shape
    outputs = weight.shape[0]
    pairs = _lowered(x).reshape(batch, channels, depth // 2, 2, height // 2, 2, width // 2, 2)
    deep = pairs.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, depth // 2, height // 2, width // 2, 8 * channels)
    deep = functional.pad(deep, (0, 0, 2, 1, 2, 1, 2, 1)).permute(0, 4, 1, 2, 3)
    kernel = functional.pad(weight, (1, 0, 1, 0, 1, 0)).reshape(outputs, channels, 4, 2, 4, 2, 4, 2)
    kernel = kernel.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(outputs, 4, 4, 4, 8 * channels).permute(0, 4, 1, 2, 3)
    return functional.conv3d(deep, kernel)


def use(model: nn.Module, convolutions: Convolutions) -> None:
    """Let a model compute its convolutions in one way or the other."""
    for module in model.modules():
        if not isinstance(module, nn.Conv3d):
            continue
        dilation = int(module.dilation[0])
        forward = None
        if module.kernel_size == (3, 3, 3) and dilation > 1:
            forward = partial(_dilated, module, dilation)
        elif module.kernel_size == (HEAD_KERNEL,) * 3 and module.stride == (HEAD_STRIDE,) * 3:
            forward = partial(_head, module)
        if forward is not None and convolutions == "split":
            module.forward = forward  # type: ignore[method-assign]


def _dilated(module: nn.Conv3d, dilation: int, x: Tensor) -> Tensor:
    return split_dilation(x, module.weight, dilation=dilation)


def _head(module: nn.Conv3d, x: Tensor) -> Tensor:
    return deep_head(x, module.weight)


def _lowered(x: Tensor) -> Tensor:
    """The input as autocast will convert it, before it is rearranged: half the bytes to move."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
