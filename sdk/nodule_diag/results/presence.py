"""Is there a nodule at all? SegNet's map as one number, and that number as a probability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nodule_diag.results.maps import GRID_SPACING_MM

REACH_MM = 4.0
"""Standard deviation of the weights round the cube's centre. A click lies within a few millimetres of a nodule's
middle; what SegNet finds further away is a neighbour, and beyond 10 mm a larger nodule is no surer one."""
SMALLEST = 1e-6
"""The share is taken as this far from 0 and 1 at least: the log-odds of a map that is 0 everywhere stay finite."""


@cache
def _weights(size: int) -> NDArray[np.float64]:
    """(size, size, size), summing to 1."""
    square = ((np.arange(size) - (size - 1) / 2) * GRID_SPACING_MM) ** 2
    weights = np.exp(-(square[:, None, None] + square[:, None] + square) / (2.0 * REACH_MM**2))
    return np.asarray(weights / weights.sum())


def presence_evidence(segmentation: NDArray[np.floating]) -> float:
    """How much nodule SegNet sees round the centre: the log-odds of the share of it that is one.

    Args:
        segmentation: (16, 16, 16) in [0, 1], SegNet's map; any other cube of 2 mm cells serves as well.
    """
    weights = _weights(segmentation.shape[0])
    share = float((np.asarray(segmentation, dtype=np.float64) * weights).sum())
    share = min(max(share, SMALLEST), 1.0 - SMALLEST)
    return math.log(share / (1.0 - share))


@dataclass(frozen=True, kw_only=True)
class PresenceCalibration:
    """What turns the evidence into how likely a nodule is (Platt), for nodules and lung equally frequent.

    Attributes:
        scale: Of the evidence.
        shift: Added to it.
        warn_below: The presence that 99 % of the nodules on which it was judged have at least.
    """

    scale: float
    shift: float
    warn_below: float

    def presence(self, segmentation: NDArray[np.floating]) -> float:
        """The probability, in [0, 1], that SegNet's map is that of a nodule and not of lung without one."""
        return self.of_evidence(presence_evidence(segmentation))

    def of_evidence(self, evidence: float) -> float:
        """The same from ``presence_evidence``."""
        return 0.5 + 0.5 * math.tanh(0.5 * (self.scale * evidence + self.shift))  # the sigmoid, without overflow
