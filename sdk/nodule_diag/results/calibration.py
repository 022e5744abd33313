"""CNet's output as a probability that has been held against diagnoses: Platt's two numbers (1999).

They are fitted on nodules that the network had not seen, benign and malignant weighing the same. So P stays one for a
prior of one half, which :func:`nodule_diag.results.at_prevalence` then moves.
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
        slope: Above 0: the order of nodules stays. Below 1, the network was too sure.
        intercept: Added to it.
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
"""P as CNet says it (eq. 4), which the cases of a case base have."""
