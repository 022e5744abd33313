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
middle. What SegNet finds further away is a neighbour, and a nodule that reaches beyond 10 mm is not more certain."""
SMALLEST = 1e-6
"""The share is kept at least this far from 0 and 1, so that the log-odds of a map of zeros stay finite."""


@cache
def _weights(size: int) -> NDArray[np.float64]:
    """(size, size, size), summing to 1."""
    square = ((np.arange(size) - (size - 1) / 2) * GRID_SPACING_MM) ** 2
    weights = np.exp(-(square[:, None, None] + square[:, None] + square) / (2.0 * REACH_MM**2))
    return np.asarray(weights / weights.sum())


def presence_evidence(segmentation: NDArray[np.floating]) -> float:
    """How much nodule SegNet sees round the centre: the log-odds of the nodule's weighted share.

    Args:
        segmentation: (16, 16, 16) in [0, 1], SegNet's map; any other cube of 2 mm cells is accepted, too.
    """
    weights = _weights(segmentation.shape[0])
    share = float((np.asarray(segmentation, dtype=np.float64) * weights).sum())
    share = min(max(share, SMALLEST), 1.0 - SMALLEST)
    return math.log(share / (1.0 - share))


@dataclass(frozen=True, kw_only=True)
class PresenceCalibration:
    """Turns the evidence into the probability of a nodule (Platt), if nodules and lung are equally frequent.

    Attributes:
        scale: Factor of the evidence.
        shift: Added to the scaled evidence.
        warn_below: 99 % of the nodules that presence was evaluated on have at least this value.
    """

    scale: float
    shift: float
    warn_below: float

    def presence(self, segmentation: NDArray[np.floating]) -> float:
        """The probability, in [0, 1], that SegNet's map is that of a nodule and not of lung without one."""
        return self.of_evidence(presence_evidence(segmentation))

    def of_evidence(self, evidence: float) -> float:
        """The same probability from the result of :func:`presence_evidence`."""
        return 0.5 + 0.5 * math.tanh(0.5 * (self.scale * evidence + self.shift))  # the sigmoid, without overflow
