"""Out-of-fold evaluation: each nodule is judged by a model that never saw its patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nodule_diag.results import nearest_part
from nodule_diag_training.config import Modality
from nodule_diag_training.data import (
    MASK_THRESHOLD,
    Nodule,
    NoduleVoxels,
    PatchSampler,
    Sample,
    as_input,
    case_generator,
    cut_like_voi,
)
from nodule_diag_training.losses import average_cam, class_cam
from nodule_diag_training.model import SynergicModel, SynergicOutput

from .averaged_views import SymmetricModel
from .metrics import dice

BATCH = 2
OTHER_THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45)
"""Thresholds for SegNet's map besides one half, to find the best one (:mod:`.thresholds`)."""
CUT_DIGITS = 4
UNSAID = float("nan")
Form = Literal["voi", "cube", "cube-cut"]
"""The form in which a nodule is judged: ``cube-cut`` is a cube treated as a VOI."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """SegNet's map at a threshold, against the reader mask; NaN where either is missing.

    Attributes:
        dice_grid: On SegNet's own 16-grid, against the cells that the mask fills by half.
        dice_half_mm: After trilinear interpolation to 0.5 mm, of the part nearest to the position, which the SDK
            measures, against the mask at 0.5 mm.
        diameter_error_mm: Volume-equivalent diameter of that part minus the mask's.
    """

    threshold: float
    dice_grid: float = UNSAID
    dice_half_mm: float = UNSAID
    diameter_error_mm: float = UNSAID

    def rounded(self) -> Cut:
        """Rounded to four digits: a report has thousands of these."""
        return Cut(**{name: round(figure, CUT_DIGITS) for name, figure in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The model's answers for one nodule, and the known truth.

    Values of a missing module are NaN: malignancy and CAM without CNet, Dice and diameter without SegNet, expert score
    without RNet. Dice, diameter and CAM are also NaN without an outline, and the reader score without scores.

    Attributes:
        form: The form in which the nodule was judged.
        reader_score: Mean of the readers, 1..5; NaN without readers.
        label: 1 malignant, 0 benign, None without a diagnosis.
        certainty: ``nodule``, ``patient`` or None, see ``data.SureLabel``.
        malignancy: P.
        expert_score: RNet's output on the readers' scale.
        dice_grid: As in ``Cut``, at a threshold of one half.
        dice_half_mm: Likewise.
        diameter_error_mm: Likewise.
        cam_nodule: AvgCAM over the reader mask (eq. 8).
        cam_background: AvgCAM over the rest (eq. 9).
        texture: Mean of the readers, from 1 (ground glass) to 5 (solid).
        slice_thickness_mm: Slice thickness of the CT.
        cuts: The same at other thresholds, to four digits, where these were requested and there is an outline.
    """

    case_id: str
    patient_id: str
    fold: int
    form: Form
    in_paper_cohort: bool
    diameter_mm: float
    reader_scores: tuple[int, ...]
    reader_score: float
    label: int | None
    certainty: str | None
    malignancy: float
    expert_score: float
    dice_grid: float
    dice_half_mm: float
    diameter_error_mm: float
    cam_nodule: float
    cam_background: float
    texture: float = UNSAID
    slice_thickness_mm: float = UNSAID
    cuts: tuple[Cut, ...] = ()

    @property
    def margin(self) -> float:
        """Eq. 8 minus eq. 9."""
        return self.cam_nodule - self.cam_background

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _diameter(voxels: int, spacing_mm: float) -> float:
    """Volume-equivalent diameter in mm of a number of voxels."""
    return float((6.0 * voxels * spacing_mm**3 / np.pi) ** (1 / 3))


def samples_of(
    nodules: Sequence[Nodule],
    voxels: Mapping[str, NoduleVoxels],
    sampler: PatchSampler,
    *,
    form: Form,
    modality: Modality = "64",
) -> list[Sample]:
    """The patches to judge, without augmentation, as a modality shows them; ``cube-cut`` treats cubes as VOIs."""
    samples = []
    for nodule in nodules:
        rng = case_generator(nodule.case_id)
        source = voxels[nodule.case_id]
        if form == "cube-cut":
            source = cut_like_voi(source, rng)
        sample = sampler.place(source, rng, patient_id=nodule.patient_id)
        samples.append(as_input(sample, modality, diameter_mm=nodule.diameter_mm))
    return samples


def _fine(sample: Sample, map_: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map on the patch's voxels, [S, S, S], interpolated trilinearly from its grid."""
    tensor = torch.from_numpy(map_)[None, None]
    size = list(sample.patch.shape[1:])
    return np.asarray(functional.interpolate(tensor, size=size, mode="trilinear", align_corners=False)[0, 0].numpy())


@dataclass(frozen=True, kw_only=True)
class _Map:
    """P and the averages of CAM_c over reader mask and background; NaN without CNet, the averages also without mask."""

    malignancy: float = UNSAID
    nodule: float = UNSAID
    background: float = UNSAID


def _judge_map(output: SynergicOutput, sample: Sample, index: int, *, outlined: bool) -> _Map:
    if output.logit is None or output.cam is None:
        return _Map()
    malignancy = torch.sigmoid(output.logit[index]).item()
    if not outlined:
        return _Map(malignancy=malignancy)
    one = slice(index, index + 1)
    average = average_cam(class_cam(output.cam[one], output.logit[one]), torch.from_numpy(sample.nodule)[None])
    return _Map(
        malignancy=malignancy,
        nodule=average.nodule.item(),
        background=average.background.item(),
    )


def _judge_shape(
    output: SynergicOutput, sample: Sample, index: int, *, outlined: bool, thresholds: Sequence[float]
) -> tuple[Cut, ...]:
    """A cut for each threshold; nothing without SegNet or mask."""
    if output.segmentation_logit is None or not outlined:
        return ()
    sem = torch.sigmoid(output.segmentation_logit[index]).numpy()
    fine, wanted, cells = _fine(sample, sem), sample.fine_mask, sample.nodule_cells
    diameter_mm = _diameter(int(wanted.sum()), sample.spacing_mm)
    parts = {threshold: nearest_part(fine >= threshold) for threshold in thresholds}
    return tuple(
        Cut(
            threshold=threshold,
            dice_grid=dice(sem >= threshold, cells),
            dice_half_mm=dice(part, wanted),
            diameter_error_mm=_diameter(int(part.sum()), sample.spacing_mm) - diameter_mm,
        )
        for threshold, part in parts.items()
    )


def batches_of(samples: Sequence[Sample], *, limit: int = BATCH) -> Iterator[slice]:
    """Runs of neighbours of one size, at most ``limit`` each, which can be stacked."""
    begin = 0
    while begin < len(samples):
        end = begin + 1
        while end < min(begin + limit, len(samples)) and samples[end].patch.shape == samples[begin].patch.shape:
            end += 1
        yield slice(begin, end)
        begin = end


def judge(
    model: SynergicModel | SymmetricModel,
    nodules: Sequence[Nodule],
    samples: Sequence[Sample],
    *,
    fold: int,
    form: Form,
    thresholds: Sequence[float] = (),
) -> list[Judgement]:
    """Run a model of any system over patches, which may differ in size.

    Args:
        model: The network.
        nodules: The nodules of the patches.
        samples: One patch for each nodule.
        fold: The fold that holds them out.
        form: The form in which they are judged.
        thresholds: Thresholds for SegNet's map, besides one half.
    """
    judgements = []
    for part in batches_of(samples):
        with torch.inference_mode():
            output = model(torch.from_numpy(np.stack([s.patch for s in samples[part]])))
        for i, (nodule, sample) in enumerate(zip(nodules[part], samples[part], strict=True)):
            map_ = _judge_map(output, sample, i, outlined=nodule.outlined)
            half, *cuts = _judge_shape(
                output, sample, i, outlined=nodule.outlined, thresholds=(MASK_THRESHOLD, *thresholds)
            ) or (Cut(threshold=MASK_THRESHOLD),)
            judgements.append(
                Judgement(
                    case_id=nodule.case_id,
                    patient_id=nodule.patient_id,
                    fold=fold,
                    form=form,
                    in_paper_cohort=nodule.in_paper_cohort,
                    diameter_mm=nodule.diameter_mm,
                    reader_scores=nodule.reader_scores,
                    reader_score=nodule.mean_score,
                    label=None if nodule.sure is None else nodule.sure.malignant,
                    certainty=None if nodule.sure is None else nodule.sure.certainty,
                    malignancy=map_.malignancy,
                    expert_score=UNSAID if output.score is None else 1.0 + 4.0 * output.score[i].item(),
                    dice_grid=half.dice_grid,
                    dice_half_mm=half.dice_half_mm,
                    diameter_error_mm=half.diameter_error_mm,
                    cam_nodule=map_.nodule,
                    cam_background=map_.background,
                    cuts=tuple(cut.rounded() for cut in cuts),
                )
            )
    return judgements
