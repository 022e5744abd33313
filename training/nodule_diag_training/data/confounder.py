"""A background that reveals the label: the confounder that CSL is meant to resist (3.2), added on purpose.

The cue is a faint grating along z, everywhere except on the nodule and 2 mm around it. In training, most malignant
nodules and few benign ones have the cue; a test then removes this correlation.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from nodule_diag.preprocessing import LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU

from .nodule import Nodule
from .patches import Sample

CUE_HU = 80.0
"""Amplitude: 6 % of the lung window, 20 % of the mediastinal one."""
CUE_PERIOD_MM = 4.0
CUE_AGREES = 0.9
"""Share of training nodules whose cue agrees with the label; in the others it says the opposite."""
DILATION_MM = 2.0
"""Distance around the reader mask that still counts as nodule: one cell of the model's grid."""

CueTest = Literal["as trained", "none", "independent", "reversed"]
"""Cue in a test: correlated as in training, absent, in half of the nodules regardless of their label, or reversed."""


def dilated(sample: Sample) -> NDArray[np.bool_]:
    """[S, S, S] bool: the voxels within ``DILATION_MM`` of the sample's mask; none where the mask is empty."""
    mask = sample.fine_mask
    if not mask.any():
        return np.zeros_like(mask)
    return np.asarray(distance_transform_edt(~mask, sampling=sample.spacing_mm) <= DILATION_MM)


def with_cue(sample: Sample, *, hu: float) -> Sample:
    """The sample with the grating outside its dilated nodule.

    A window clips HU outside its range, so only voxels strictly inside a window change in it.
    """
    side = sample.patch.shape[1]
    phase = 2.0 * np.pi * np.arange(side) * sample.spacing_mm / CUE_PERIOD_MM
    grating = np.broadcast_to((hu * np.sin(phase))[:, None, None], (side, side, side))
    background = ~dilated(sample)
    patch = sample.patch.copy()
    for channel, (low, high) in zip(patch, (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU), strict=True):
        changed = background & (channel > 0.0) & (channel < 1.0)
        channel[changed] = np.clip(channel[changed] + grating[changed] / (high - low), 0.0, 1.0)
    return replace(sample, patch=patch)


def _chance(nodule: Nodule, purpose: str) -> float:
    """Uniform in [0, 1), from patient and purpose alone: a nodule's two forms and all runs get the same value."""
    return zlib.crc32(f"{purpose}/{nodule.patient_id}".encode()) / 2**32


def cue_present(nodule: Nodule, *, malignant: bool, test: CueTest = "as trained") -> bool:
    """Whether the nodule has the cue; the cue stands for malignant."""
    if test == "none":
        return False
    if test == "independent":
        return _chance(nodule, "independent") < 0.5
    if test == "reversed":
        return not malignant
    return malignant == (_chance(nodule, "agrees") < CUE_AGREES)
