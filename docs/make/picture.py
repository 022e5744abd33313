"""Draws the README's picture (``docs/plots/phantom-cam.png``): a phantom's nodule and what its malignancy rests on.

``python docs/make/picture.py`` writes it. Above is the CT in three planes. Below are the class activation map (CAM) on
it and the outline of the segmentation. The phantom is the one of ``nodule-diag demo``: it shows no patient's CT.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import nodule_diag as nd
from nodule_diag.ct import chest_phantom, index_from_lps

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "plots" / "phantom-cam.png"
NODULE = 1  # of the phantom's three: 20 mm, grown onto the pleura
HALF_WIDTH_MM, STEP_MM = 30.0, 0.5
LUNG_WINDOW_HU = (-1000.0, 300.0)  # a reader's lung window, darker than the network's
PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}  # which of x, y, z run across and down
FAINT = 0.15  # below this the CAM is left out, or its zero would tint the whole cube


def plane_points(center_xyz_mm: tuple[float, float, float], axes: tuple[int, int]) -> np.ndarray:
    """(n, n, 3) LPS mm of a plane through a point, rows down: posterior in axial planes, inferior in the others."""
    offsets = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + STEP_MM / 2, STEP_MM)
    points = np.tile(np.asarray(center_xyz_mm), (len(offsets), len(offsets), 1))
    points[..., axes[0]] += offsets[None, :]
    points[..., axes[1]] += (offsets if axes[1] == 1 else -offsets)[:, None]
    return points


def nearest_hu(ct: nd.CTVolume, points_xyz_mm: np.ndarray) -> np.ndarray:
    """HU of the voxel nearest to each point."""
    index = np.rint(index_from_lps(ct, points_xyz_mm.reshape(-1, 3))).astype(int)
    x, y, z = np.clip(index, 0, np.array(ct.hu.shape[::-1]) - 1).T
    return np.asarray(ct.hu[z, y, x]).reshape(points_xyz_mm.shape[:2])


def draw() -> Figure:
    """The picture."""
    phantom = chest_phantom()
    (diagnosis,) = nd.Diagnoser.load(backend="onnxruntime").predict(phantom.ct, [phantom.nodules[NODULE].center_xyz_mm])
    figure = Figure(figsize=(7.2, 5.0), facecolor="black", layout="constrained")
    grid = figure.subplots(2, 3)
    extent = (-HALF_WIDTH_MM, HALF_WIDTH_MM, HALF_WIDTH_MM, -HALF_WIDTH_MM)
    for column, (plane, axes) in enumerate(PLANES.items()):
        points = plane_points(diagnosis.xyz_lps_mm, axes)
        hu = nearest_hu(phantom.ct, points)
        cam, segmentation = (
            shown.sample(points.reshape(-1, 3)).reshape(hu.shape) for shown in (diagnosis.cam, diagnosis.segmentation)
        )
        low, high = LUNG_WINDOW_HU
        for row in range(2):
            axis = grid[row, column]
            axis.imshow(hu, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
            axis.set_axis_off()
        grid[0, column].set_title(plane, color="white", fontsize=10)
        alpha = np.where(cam >= FAINT, 0.15 + 0.4 * cam, 0.0)
        grid[1, column].imshow(cam, cmap="jet", vmin=0, vmax=1, alpha=alpha, extent=extent, interpolation="bilinear")
        ticks = np.linspace(-HALF_WIDTH_MM, HALF_WIDTH_MM, hu.shape[0])
        grid[1, column].contour(ticks, ticks, segmentation, levels=[0.5], colors="white", linewidths=1.2)
    return figure


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "nodule-diag"
    draw().savefig(PICTURE, dpi=100, metadata={"Software": None})
