"""Judge one fold: what its model says of every nodule of the patients that were held out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import (
    MASK_THRESHOLD,
    CueTest,
    Nodule,
    NoduleVoxels,
    PatchSampler,
    Sample,
    TrainingDataError,
    as_input,
    case_generator,
    cnet_label,
    cue_present,
    diagnosed_once,
    once,
    with_cue,
)
from nodule_diag_training.evaluation import batches_of, dice
from nodule_diag_training.losses import class_cam
from nodule_diag_training.model import SynergicModel, SynergicOutput

from .faithfulness import Float, cam_figures
from .records import NoduleRecord

BATCH = 4
CURVES_PER_FOLD = 12
"""Nodules of a fold whose deletion and insertion curves are measured: 18 forward passes each."""
CUE_TESTS: tuple[CueTest, ...] = ("as trained", "independent", "reversed")
"""The tests beside the one without a cue, which is P itself."""


def tested_nodules(held_out: Sequence[Nodule]) -> list[Nodule]:
    """The held-out nodules that some row is tested on: diagnosed, or of the paper's cohort."""
    return [n for n in once(held_out) if n.sure is not None or n.in_paper_cohort]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A fold's model and all it needs to judge nodules.

    Attributes:
        model: In evaluation mode.
        config: The configuration it was trained with.
        voxels: By case_id.
        sampler: Lends surroundings to VOIs.
        size: Side of the patches in 0.5 mm voxels: the size that training ended with.
    """

    model: SynergicModel
    config: TrainingConfig
    voxels: Mapping[str, NoduleVoxels]
    sampler: PatchSampler
    size: int

    @classmethod
    def of(
        cls,
        model: SynergicModel,
        config: TrainingConfig,
        *,
        nodules: Sequence[Nodule],
        voxels: Mapping[str, NoduleVoxels],
    ) -> Judge:
        """A judge with the surroundings of all cubes among ``nodules``."""
        return cls(
            model=model.eval(),
            config=config,
            voxels=voxels,
            sampler=PatchSampler(voxels, nodules),
            size=config.stages[-1].size,
        )

    def sample(self, nodule: Nodule) -> Sample:
        """The nodule's patch in the model's modality, not augmented, the same in every judgement."""
        rng = case_generator(nodule.case_id)
        placed = self.sampler.place(self.voxels[nodule.case_id], rng, patient_id=nodule.patient_id, size=self.size)
        return as_input(placed, self.config.input, diameter_mm=nodule.diameter_mm)

    def run(self, patches: Sequence[Float]) -> SynergicOutput:
        """One forward pass of [2, S, S, S] patches, on the model's device; the output is on the CPU."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            output: SynergicOutput = self.model(torch.from_numpy(np.stack(patches)).to(device))
        tensors = {field.name: getattr(output, field.name) for field in fields(output)}
        on_cpu: dict[str, Any] = {name: None if t is None else t.cpu() for name, t in tensors.items()}
        return replace(output, **on_cpu)

    def records(self, nodules: Sequence[Nodule]) -> list[NoduleRecord]:
        """All figures of nodules, each once; curves of the first ``CURVES_PER_FOLD`` in an arbitrary, fixed order."""
        order = sorted(nodules, key=lambda n: (n.sure is None, case_generator(n.case_id).random()))
        with_curves = {n.case_id for n in [n for n in order if n.outlined][:CURVES_PER_FOLD]}
        records: list[NoduleRecord] = []
        for begin in range(0, len(nodules), BATCH):
            part = nodules[begin : begin + BATCH]
            samples = [self.sample(nodule) for nodule in part]
            for stack in batches_of(samples, limit=BATCH):
                output = self.run([s.patch for s in samples[stack]])
                for i, (nodule, sample) in enumerate(zip(part[stack], samples[stack], strict=True)):
                    records.append(self._record(nodule, sample, output, i, curves=nodule.case_id in with_curves))
        return records

    def cases(self, nodules: Sequence[Nodule]) -> list[NoduleRecord]:
        """P and expert score alone, for the case base: diagnosed nodules, each once."""
        wanted = diagnosed_once(nodules)
        records = []
        for begin in range(0, len(wanted), BATCH):
            part = wanted[begin : begin + BATCH]
            samples = [self.sample(nodule) for nodule in part]
            for stack in batches_of(samples, limit=BATCH):
                output = self.run([s.patch for s in samples[stack]])
                records += [_facts(nodule, output, i) for i, nodule in enumerate(part[stack])]
        return records

    def _record(self, nodule: Nodule, sample: Sample, output: SynergicOutput, i: int, *, curves: bool) -> NoduleRecord:
        found: dict[str, object] = {}
        if output.segmentation_logit is not None and nodule.outlined:
            segmentation = torch.sigmoid(output.segmentation_logit[i]).numpy()
            found["dice"] = dice(segmentation >= MASK_THRESHOLD, sample.nodule_cells)
        if output.cam is not None and output.logit is not None and nodule.outlined:
            cam = class_cam(output.cam[i : i + 1], output.logit[i : i + 1])[0].numpy()
            malignant = output.logit[i].item() >= 0.0

            def classifier(patches: Float) -> Float:
                return self._probability(patches, malignant=malignant)

            found["cam"] = cam_figures(cam, sample, classifier=classifier if curves else None)
        if self.config.cue_hu > 0.0:
            found["cued"] = self._cued(nodule, sample)
        return NoduleRecord.model_validate(_facts(nodule, output, i).model_dump() | found)

    def _probability(self, patches: Float, *, malignant: bool) -> NDArray[np.float32]:
        """[N] probability of one class."""
        values = []
        for begin in range(0, len(patches), BATCH):
            logit = _logit(self.run(list(patches[begin : begin + BATCH])))
            values.append(torch.sigmoid(logit if malignant else -logit).numpy())
        return np.concatenate(values)

    def _cued(self, nodule: Nodule, sample: Sample) -> dict[CueTest, float]:
        """P of a nodule that the scenario labels, in each test of the confounder."""
        label = cnet_label(nodule, drawn_as_sure=False, config=self.config)
        if label is None:
            return {}
        present = {test: cue_present(nodule, malignant=label == 1.0, test=test) for test in CUE_TESTS}
        cued = with_cue(sample, hu=self.config.cue_hu)
        logit = _logit(self.run([sample.patch, cued.patch]))
        return {test: torch.sigmoid(logit[int(there)]).item() for test, there in present.items()}


def _logit(output: SynergicOutput) -> Tensor:
    """S of eq. 4."""
    if output.logit is None:
        raise TrainingDataError("a model without CNet has no P and no CAM")
    return output.logit


def _facts(nodule: Nodule, output: SynergicOutput, i: int) -> NoduleRecord:
    sure = nodule.sure
    return NoduleRecord(
        case_id=nodule.case_id,
        patient_id=nodule.patient_id,
        form="cube" if nodule.is_cube else "voi",
        in_paper_cohort=nodule.in_paper_cohort,
        diameter_mm=None if math.isnan(nodule.diameter_mm) else nodule.diameter_mm,
        reader_scores=nodule.reader_scores,
        label=None if sure is None else 1 if sure.malignant else 0,
        certainty=None if sure is None else sure.certainty,
        malignancy=None if output.logit is None else torch.sigmoid(output.logit[i]).item(),
        expert_score=None if output.score is None else 1.0 + 4.0 * output.score[i].item(),
    )
