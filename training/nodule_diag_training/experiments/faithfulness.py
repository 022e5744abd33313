"""How well a class activation map lies on the nodule: what the paper shows in pictures (Fig. 4), as numbers.

All figures compare CAM_c (eq. 6, min-max normalised), on the model's grid of 2 mm cells, with the readers' mask.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nodule_diag.results import Faithfulness
from nodule_diag_training.data import MASK_THRESHOLD, Sample, dilated
from nodule_diag_training.model import GRID_STRIDE

from .records import CamFigures

Float = NDArray[np.float32]
Classifier = Callable[[Float], Float]
"""[N, 2, S, S, S] patches to [N] probabilities of the class that was predicted for the whole patch."""

CAM_THRESHOLD = 0.5
"""Half of the CAM's range; from this value on, a cell counts as highlighted (IoU)."""
CURVE_STEPS = 8
"""Equal parts of the cells by which deletion and insertion proceed."""
BLUR_MM = 5.0
"""Standard deviation of the Gaussian blur that stands for "deleted": it removes a nodule's edge and texture, and leaves
no value that a CT could not have."""


def cells(voxels: NDArray[np.floating] | NDArray[np.bool_]) -> Float:
    """[S/4, S/4, S/4] means of the grid's cells of [S, S, S] voxels."""
    side = voxels.shape[0] // GRID_STRIDE
    split = voxels.reshape(side, GRID_STRIDE, side, GRID_STRIDE, side, GRID_STRIDE)
    return np.asarray(split.mean(axis=(1, 3, 5), dtype=np.float64), dtype=np.float32)


def energy_share(cam: Float, inside: Float) -> float | None:
    """Share of the CAM's sum inside; ``inside`` is each cell's share, 0..1. None where the CAM is 0 everywhere."""
    total = float(cam.sum(dtype=np.float64))
    return min(float((cam * inside).sum(dtype=np.float64)) / total, 1.0) if total > 0.0 else None


def pointing(cam: Float, inside: NDArray[np.bool_]) -> float:
    """1 if the maximum lies inside, 0 if not; where several cells tie, the share of these cells that is inside."""
    return float(inside[cam == cam.max()].mean())


def threshold_iou(cam: Float, mask: NDArray[np.bool_]) -> float:
    """Intersection over union of the cells at or above ``CAM_THRESHOLD`` with the mask's, which is not empty."""
    high = cam >= CAM_THRESHOLD
    return float((high & mask).sum() / (high | mask).sum())


def cam_figures(cam: Float, sample: Sample, *, classifier: Classifier | None = None) -> CamFigures:
    """Every figure of one nodule.

    Args:
        cam: [S/4, S/4, S/4] in [0, 1].
        sample: The [2, S, S, S] patch and the mask in it.
        classifier: Gives the deletion and insertion curves, where wanted.
    """
    average = Faithfulness.of(cam, sample.nodule)
    around = cells(dilated(sample))
    curves: dict[str, float] = {}
    if classifier is not None:
        blurred = blur(sample)
        curves = {
            "deletion": curve_area(sample.patch, blurred, cam, classifier),
            "insertion": curve_area(blurred, sample.patch, cam, classifier),
        }
    return CamFigures(
        nodule=average.cam_nodule,
        background=average.cam_background,
        energy=energy_share(cam, around),
        pointing=pointing(cam, around >= MASK_THRESHOLD),
        iou=threshold_iou(cam, sample.nodule_cells),
        deletion=curves.get("deletion"),
        insertion=curves.get("insertion"),
    )


def blur(sample: Sample) -> Float:
    """The [2, S, S, S] patch without detail: a Gaussian of ``BLUR_MM``, mirrored at the faces."""
    sigma = BLUR_MM / sample.spacing_mm
    return np.asarray(gaussian_filter(sample.patch, sigma=(0.0, sigma, sigma, sigma), mode="reflect"), dtype=np.float32)


def curve_area(start: Float, end: Float, cam: Float, classifier: Classifier) -> float:
    """Area under the probability as ``start`` becomes ``end``, cell by cell from the CAM's highest down, 0..1.

    Deletion goes from the patch to the blurred one, insertion back: Petsiuk et al., RISE, BMVC 2018, with
    ``CURVE_STEPS`` equal parts and the trapezoidal rule.

    Args:
        start: [2, S, S, S].
        end: [2, S, S, S].
        cam: [S/4, S/4, S/4]; cells that tie are taken in the order of the array.
        classifier: The probability of the predicted class.
    """
    order = np.argsort(-cam, axis=None, kind="stable")
    rank = np.empty(cam.size, dtype=np.int64)
    rank[order] = np.arange(cam.size)
    fine = rank.reshape(cam.shape)
    for axis in range(3):
        fine = fine.repeat(GRID_STRIDE, axis=axis)
    counts = [round(cam.size * step / CURVE_STEPS) for step in range(CURVE_STEPS + 1)]
    patches = np.stack([np.where(fine < count, end, start) for count in counts])
    return float(np.trapezoid(classifier(patches), dx=1.0 / CURVE_STEPS))
