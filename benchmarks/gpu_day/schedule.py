"""The schedule by the clock: the position of a moment in it, and the rate there.

The recipe's first stage gets ``FIRST_STAGE_SHARE`` of the time and its last stage the rest. The rate is the recipe's at
the same share of its steps. So the schedule ends where it should at any speed of the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.engine import FINAL_RATE_SHARE, WARM_UP_SHARE

FIRST_STAGE_SHARE: Final = 0.3
"""Share of the time: as in the recipe, whose 40-cubes cost a quarter of its 64-cubes."""


@dataclass
class Clock:
    """The position of a moment in the schedule.

    Attributes:
        shares: The share of the recipe's steps of each stage.
        begin: Begin of the stage, in seconds of ``now``.
        end: End of the stage.
        stage: Number of the stage.
    """

    shares: tuple[float, ...]
    begin: float = 0.0
    end: float = 0.0
    stage: int = 0

    def progress(self, now: float) -> float:
        """0 at the first step, 1 at the last."""
        within = min(max((now - self.begin) / max(self.end - self.begin, 1e-9), 0.0), 1.0)
        return sum(self.shares[: self.stage]) + self.shares[self.stage] * within


def rate_at(config: TrainingConfig, progress: float) -> float:
    """``engine.optimiser.learning_rate`` at a share of the steps."""
    if config.schedule == "constant":
        return config.learning_rate
    if progress < WARM_UP_SHARE:
        return config.learning_rate * max(progress, 1e-3) / WARM_UP_SHARE
    cosine = 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP_SHARE) / (1.0 - WARM_UP_SHARE)))
    return config.learning_rate * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine)
