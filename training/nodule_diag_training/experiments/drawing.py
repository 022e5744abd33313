"""What the figures share: a canvas without a screen, and slices of patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from nodule_diag.process import writing

from .faithfulness import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG = "tab:green", "tab:red"
DOTS_PER_INCH = 150
PIXELS = "This file shows CT pixels of LIDC-IDRI: keep it out of version control."
"""Shown wherever a figure with patches is written."""


Panels = np.ndarray[tuple[int, ...], np.dtype[np.object_]]


def canvas(*, rows: int, columns: int, cell: float = 1.2) -> tuple[Figure, Panels]:
    """A figure of square panels without ticks, and its axes [rows, columns]."""
    figure = Figure(figsize=(cell * columns + 1.2, cell * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF, by the file's ending.

    Raises:
        OutputError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=DOTS_PER_INCH)


def central(volume: Float) -> Float:
    """The axial slice in the middle of the last three axes."""
    middle: Float = volume[..., volume.shape[-3] // 2, :, :]
    return middle


def show_patch(axes: Axes, patch: Float) -> None:
    """The lung window of a [2, S, S, S] patch, in the middle."""
    axes.imshow(central(patch[0]), cmap="gray", vmin=0.0, vmax=1.0, extent=(0, 1, 1, 0))


def show_cam(axes: Axes, cam: Float) -> None:
    """A [L, W, H] map in [0, 1] over the patch (colour map Jet, as in the paper)."""
    axes.imshow(central(cam), cmap="jet", vmin=0.0, vmax=1.0, alpha=0.5, extent=(0, 1, 1, 0), interpolation="bilinear")


def show_contour(axes: Axes, segmentation: Float) -> None:
    """SegNet's outline at 0.5 of [L, W, H] probabilities; nothing where none reaches it."""
    plane = central(segmentation)
    if plane.max() < 0.5 or plane.min() >= 0.5:
        return
    centers = (np.arange(len(plane)) + 0.5) / len(plane)
    axes.contour(centers, centers, plane, levels=[0.5], colors="yellow", linewidths=0.8)


def frame(axes: Axes, *, right: bool) -> None:
    """A green border for a right answer, a red one for a wrong one."""
    for spine in axes.spines.values():
        spine.set(edgecolor=RIGHT if right else WRONG, linewidth=2.0)
