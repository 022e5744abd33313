"""Patients set aside from training, whose losses say which checkpoint of a run is its best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import (
    Draw,
    Nodule,
    NoduleVoxels,
    PatchSampler,
    TrainingDataError,
    case_generator,
    cnet_label,
    patients_of,
    same_sized,
    shown,
)
from nodule_diag_training.losses import LossWeights, total_loss

from .objective import LossTerms
from .runlog import ValidationLog
from .shares import count_terms

BATCH = 4

Criterion = Literal["classification", "total"]
"""The loss of the validation patients that chooses the best checkpoint."""
Measure = Callable[[Sequence[Draw], Sequence[Draw]], LossTerms]
"""The loss terms of (unsure, sure) draws under the present weights."""


def criterion(config: TrainingConfig) -> Criterion:
    """The loss that chooses the best checkpoint.

    It is ``best_by`` where that names a loss. Else it is the classification loss where diagnoses teach CNet: a model is
    for diagnoses, and they are few enough to be learned by heart. Else it is the total of eq. 12.
    """
    if config.best_by != "auto":
        return config.best_by
    learned = config.modules.cnet and config.diagnosis_teaches and config.sure_draws > 0
    return "classification" if learned else "total"


def set_aside(nodules: Sequence[Nodule], *, share: float, seed: int) -> set[str]:
    """The patients to validate on: a share of those with benign, malignant or no diagnoses, with cubes spread evenly.

    Args:
        nodules: All nodules of the run.
        share: Share of each kind of patients; of two or more, at least one is taken and at least one is left.
        seed: Seed of the choice.

    Raises:
        TrainingDataError: If there are too few patients to set any aside.
    """
    diagnoses: dict[str, set[int]] = {patient: set() for patient in patients_of(nodules)}
    for nodule in nodules:
        diagnoses[nodule.patient_id] |= set() if nodule.sure is None else {nodule.sure.malignant}
    with_cube = {n.patient_id for n in nodules if n.is_cube}
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for kind in sorted({tuple(sorted(sides)) for sides in diagnoses.values()}):
        shuffled = rng.permutation([patient for patient, sides in diagnoses.items() if tuple(sorted(sides)) == kind])
        patients = sorted(shuffled.tolist(), key=lambda patient: patient in with_cube)
        count = min(max(1, round(share * len(patients))), len(patients) - 1)
        chosen |= {patients[int((place + 0.5) * len(patients) / count)] for place in range(count)}
    if not chosen:
        raise TrainingDataError(
            f"{len(diagnoses)} patients are too few to set a share of {share} aside", hint="set validation_share to 0"
        )
    return chosen


class Validation:
    """The nodules of the patients set aside, as fixed patches without augmentation.

    A nodule that exists as VOI and as cube is measured once, as cube. A diagnosed one is measured as if drawn for its
    diagnosis, where the configuration draws sure nodules.

    Args:
        config: The run's configuration; patches have the size of its last stage.
        nodules: The nodules of the patients set aside.
        voxels: Their voxels and those of the lenders.
        lenders: Nodules whose cubes lend surroundings to VOIs.

    Raises:
        TrainingDataError: If none of the nodules has what the criterion measures.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        nodules: Sequence[Nodule],
        voxels: Mapping[str, NoduleVoxels],
        lenders: Sequence[Nodule],
    ) -> None:
        self._config = config
        self._voxels = voxels
        self._sampler = PatchSampler(voxels, lenders)
        once = [n for n in sorted(nodules, key=lambda n: n.case_id) if n.is_cube or n.twin is None]
        sure = [n for n in once if config.sure_draws and n.sure is not None]
        others = [n for n in once if not config.sure_draws or n.sure is None]
        unsure = [n for n in others if config.unsure_draws and (config.cohort == "all" or n.in_paper_cohort)]
        labelled = [(n, False, self._label(n, as_sure=False)) for n in unsure]
        labelled += [(n, True, self._label(n, as_sure=True)) for n in sure]
        if criterion(config) == "classification" and not {0.0, 1.0} <= {label for _, _, label in labelled}:
            raise TrainingDataError(
                "the patients set aside for validation have no benign or no malignant nodule",
                hint="give a larger validation_share, another seed, or best_by: total",
            )
        if not labelled:
            raise TrainingDataError("the patients set aside for validation have no nodule that is learned from")
        self._batches = _batches(labelled)

    def _label(self, nodule: Nodule, *, as_sure: bool) -> float | None:
        return cnet_label(nodule, drawn_as_sure=as_sure, config=self._config)

    def _draw(self, nodule: Nodule) -> Draw:
        size = self._config.stages[-1].size
        sample = self._sampler.place(
            self._voxels[nodule.case_id], case_generator(nodule.case_id), patient_id=nodule.patient_id, size=size
        )
        return Draw(nodule=nodule, sample=shown(sample, nodule, self._config))

    def sums(self, measure: Measure, *, part: int = 0, parts: int = 1) -> torch.Tensor:
        """[5, 2] float64: for benign and malignant classification, CAM, segmentation and score, sum and count.

        Args:
            measure: The loss terms of a batch; called without gradients.
            part: Which of ``parts`` processes this is; each takes its share of the batches.
            parts: How many processes share the work; the sums of all of them must be added up.
        """
        sums = torch.zeros(5, 2, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._batches[part::parts]:
                draws = [self._draw(nodule) for nodule in batch.nodules]
                for unsure, sure in same_sized([], draws) if batch.as_sure else same_sized(draws, []):
                    terms, counts = measure(unsure, sure), count_terms(unsure, sure, self._config)
                    rows = (
                        (int(batch.label or 0.0), terms.classification, counts.classification),
                        (2, terms.cam, counts.cam),
                        (3, terms.segmentation, counts.segmentation),
                        (4, terms.score, counts.score),
                    )
                    for row, term, count in rows:
                        if count:
                            sums[row] += torch.tensor([term.item() * count, count], dtype=torch.float64)
        return sums

    def log(self, sums: torch.Tensor, *, step: int) -> ValidationLog:
        """The means of what ``sums`` added up. Benign and malignant weigh the same, as in the draws."""
        benign, malignant, cam, segmentation, score = (
            float(total / count) if count else 0.0 for total, count in sums.tolist()
        )
        classes = int((sums[:2, 1] > 0).sum())
        classification = (benign + malignant) / max(1, classes)
        total = total_loss(
            classification=torch.tensor(classification),
            cam=torch.tensor(cam),
            segmentation=torch.tensor(segmentation),
            score=torch.tensor(score),
            weights=LossWeights(score=self._config.score_weight),
        )
        return ValidationLog(
            step=step,
            total=float(total),
            classification=classification,
            cam=cam,
            segmentation=segmentation,
            score=score,
        )


@dataclass(frozen=True, kw_only=True)
class _Batch:
    nodules: tuple[Nodule, ...]
    as_sure: bool
    label: float | None


def _batches(labelled: Sequence[tuple[Nodule, bool, float | None]]) -> list[_Batch]:
    """Nodules of one kind and one label together, so that a batch's mean loss is that of its class."""

    def kind(item: tuple[Nodule, bool, float | None]) -> tuple[bool, float]:
        _, as_sure, label = item
        return as_sure, -1.0 if label is None else label

    found = []
    for _, members in groupby(sorted(labelled, key=kind), key=kind):
        group = list(members)
        _, as_sure, label = group[0]
        found += [
            _Batch(nodules=tuple(n for n, _, _ in group[start : start + BATCH]), as_sure=as_sure, label=label)
            for start in range(0, len(group), BATCH)
        ]
    return found
