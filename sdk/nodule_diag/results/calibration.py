"""CNet's output as a probability that was calibrated on diagnoses: Platt's two numbers (1999).

Both are fitted on nodules that the network had not seen, with equal weight for benign and malignant. So P stays valid
for a prior of one half. :func:`nodule_diag.results.at_prevalence` moves P to another prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """P = sigmoid(slope * S + intercept), S being CNet's logit (eq. 4).

    Attributes:
        slope: Above 0, so the order of the nodules does not change. Below 1 where the network was too confident.
        intercept: Added to slope * S.
    """

    slope: float
    intercept: float

    def probability(self, logit: float) -> float:
        """P in [0, 1] for a logit."""
        return 0.5 + 0.5 * math.tanh(0.5 * (self.slope * logit + self.intercept))  # the sigmoid, without overflow

    def spread(self, logits: Sequence[float]) -> float:
        """Standard deviation of P over the logits of several views."""
        return float(np.std([self.probability(float(logit)) for logit in logits]))


UNCALIBRATED = Calibration(slope=1.0, intercept=0.0)
"""P as CNet computes it (eq. 4). The cases of a case base hold this P."""
