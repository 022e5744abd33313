"""From tables of indices to patches, on the device that holds the voxels: no shape depends on what was drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_day.draws import Tables
from benchmarks.gpu_day.prepared import Store
from nodule_diag_training.data import SEAM_STRIDE


class Batch(NamedTuple):
    """``Tables`` as tensors on a device."""

    own: Tensor
    inside: Tensor
    weight: Tensor
    others: Tensor
    order: Tensor
    place: Tensor
    label: Tensor
    labelled: Tensor
    score: Tensor
    scored: Tensor
    lung: Tensor
    counted: Tensor


def batch_of(tables: Tables, device: torch.device) -> Batch:
    """The tables as tensors; first in page-locked memory where they go to a GPU."""
    tensors = [torch.from_numpy(getattr(tables, own.name)) for own in fields(tables)]
    if device.type == "cuda":
        return Batch(*(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors))
    return Batch(*tensors)


def copy_into(target: Batch, tables: Tables) -> None:
    """Copy other tables of the same shapes into a batch's memory, which a captured graph reads."""
    for own, tensor in zip(fields(tables), target, strict=True):
        source = torch.from_numpy(getattr(tables, own.name))
        tensor.copy_(source.pin_memory() if tensor.is_cuda else source, non_blocking=True)


def render(store: Store, batch: Batch) -> tuple[Tensor, Tensor]:
    """Patches and their reader masks.

    Returns:
        [B, 2, S, S, S] float32 in ``channels_last_3d`` and [B, S, S, S] float32.
    """
    surroundings = _chosen(store, batch)
    own = _index(_turned(batch.own, batch))
    inside = _product(_turned(batch.inside, batch))
    weight = _product(_turned(batch.weight, batch))[..., None]
    patch = _channels(store, own) * inside[..., None]
    around = _channels(store, _index(_turned(surroundings, batch)))
    patch = around + weight * (patch - around)
    occupancy = store.occupancy.index_select(0, own.reshape(-1)).view(own.shape).float() * inside
    return patch.permute(0, 4, 1, 2, 3), occupancy


def _chosen(store: Store, batch: Batch) -> Tensor:
    """[B, 3, S]: of the tried surroundings, those with the least visible seam (``data.patches``)."""
    step = slice(None, None, SEAM_STRIDE)
    weight = _product(batch.weight[..., step])
    transition = weight * (1.0 - weight)
    own = _channels(store, _index(batch.own[..., step]))[..., 0]
    others = _channels(store, _index(batch.others[..., step]))[..., 0]
    seam = (transition[:, None] * (own[:, None] - others).abs()).sum(dim=(2, 3, 4))
    best = seam.argmin(dim=1)[:, None, None, None].expand(-1, 1, *batch.others.shape[2:])
    return batch.others.gather(1, best)[:, 0]


def _turned(tables: Tensor, batch: Batch) -> Tensor:
    """[B, 3, S] tables of the patch as it was cut, reordered for the turned patch."""
    return tables.gather(1, batch.order[..., None].expand(-1, -1, tables.shape[-1])).gather(2, batch.place)


def _index(tables: Tensor) -> Tensor:
    """[..., 3, S] to [..., S, S, S]: the sums."""
    z, y, x = tables.unbind(dim=-2)
    return z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]


def _product(tables: Tensor) -> Tensor:
    z, y, x = tables.unbind(dim=-2)
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def _channels(store: Store, index: Tensor) -> Tensor:
    """[..., 2] float32: both windows of the voxels."""
    pairs = store.channels.index_select(0, index.reshape(-1))
    return pairs.view(torch.float16).view(*index.shape, 2).float()
