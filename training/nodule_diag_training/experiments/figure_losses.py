"""Fig. 3: binary cross-entropy in training and validation, by model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.engine import LOG, VALIDATION_LOG, StepLog, ValidationLog, read_lines

SMOOTHED_OVER = 20
"""Steps whose mean is drawn: one step has two or three nodules."""


def draw_losses(folders: Mapping[str, Path], *, title: str) -> Figure:
    """Solid lines are training, dashed ones validation.

    Args:
        folders: Folders of the runs, by the name of the model.
        title: Says schedule, seed and fold.

    Raises:
        TrainingDataError: If no folder has a log.
    """
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    drawn = 0
    for number, (name, folder) in enumerate(folders.items()):
        steps = read_lines(folder / LOG, StepLog)
        if not steps:
            continue
        drawn += 1
        color = f"C{number}"
        window = min(SMOOTHED_OVER, len(steps))
        smooth = np.convolve([line.classification for line in steps], np.full(window, 1 / window), mode="valid")
        axes.plot(np.arange(len(smooth)) + window, smooth, color=color, label=name)
        seen = read_lines(folder / VALIDATION_LOG, ValidationLog)
        axes.plot([v.step + 1 for v in seen], [v.classification for v in seen], "--", color=color, marker=".")
    if not drawn:
        raise TrainingDataError(
            f"none of the runs has a {LOG}: {', '.join(map(str, folders.values()))}", hint="run them first: train run"
        )
    axes.set(xlabel="step", ylabel="BCE (eq. 3)", title=title)
    axes.legend(title=f"solid: training, mean of {SMOOTHED_OVER} steps\ndashed: validation", fontsize="small")
    return figure
