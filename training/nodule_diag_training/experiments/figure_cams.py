"""Fig. 4 and 6: class activation maps of several models on the same nodules, with SegNet's outline."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from nodule_diag_training.data import Nodule, TrainingDataError
from nodule_diag_training.losses import THRESHOLD, class_cam

from .drawing import canvas, frame, show_cam, show_contour, show_patch
from .judging import Judge

LABEL_CHARACTERS = 18
"""Most characters in a line of a row's title, which is written upright beside a panel."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of panels."""

    title: str
    judge: Judge


def draw_cams(models: Sequence[Model], nodules: Sequence[Nodule], *, title: str) -> Figure:
    """The first row has the inputs; each panel below says the predicted class (B, M) and its probability.

    Args:
        models: Models with CNet, all of one patch size.
        nodules: Diagnosed ones that none of the models has seen.
        title: Says schedule, seed and fold.

    Raises:
        TrainingDataError: Without models or nodules.
    """
    if not models or not nodules:
        raise TrainingDataError(f"{len(models)} models and {len(nodules)} nodules to draw", hint="run the rows first")
    figure, axes = canvas(rows=len(models) + 1, columns=len(nodules))
    for column, nodule in enumerate(nodules):
        sample = models[0].judge.sample(nodule)
        show_patch(axes[0, column], sample.patch)
        axes[0, column].set_title(_truth(nodule), fontsize=7)
    axes[0, 0].set_ylabel("input", fontsize=7)
    for row, model in enumerate(models, start=1):
        axes[row, 0].set_ylabel(textwrap.fill(model.title, LABEL_CHARACTERS), fontsize=7)
        for column, nodule in enumerate(nodules):
            panel = axes[row, column]
            sample = model.judge.sample(nodule)
            output = model.judge.run([sample.patch])
            if output.logit is None or output.cam is None:
                raise TrainingDataError(f"{model.title} has no CNet, and so no CAM")
            show_patch(panel, sample.patch)
            show_cam(panel, class_cam(output.cam, output.logit)[0].numpy())
            if output.segmentation_logit is not None:
                show_contour(panel, torch.sigmoid(output.segmentation_logit[0]).numpy())
            p = torch.sigmoid(output.logit[0]).item()
            malignant = p >= THRESHOLD
            panel.set_xlabel(f"{'M' if malignant else 'B'} {p if malignant else 1.0 - p:.2f}", fontsize=7, labelpad=1)
            frame(panel, right=nodule.sure is not None and bool(nodule.sure.malignant) == malignant)
    figure.suptitle(title, fontsize=8)
    return figure


def _truth(nodule: Nodule) -> str:
    if nodule.sure is None:
        raise TrainingDataError(f"{nodule.case_id} has no diagnosis", hint="draw diagnosed nodules")
    return "malignant" if nodule.sure.malignant else "benign"
