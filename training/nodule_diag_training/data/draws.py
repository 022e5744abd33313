"""Which nodules a step learns from: every draw depends on the seed and the step alone, so a run can be resumed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nodule_diag_training.config import TrainingConfig

from .confounder import cue_present, with_cue
from .labels import cnet_label
from .lung import LungSource
from .modalities import as_input
from .nodule import LungPlace, Nodule, TrainingDataError
from .patches import JITTER_MM, PatchSampler, Sample
from .voxels import NoduleVoxels


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A nodule and its patch."""

    nodule: Nodule
    sample: Sample


def confounded(sample: Sample, nodule: Nodule, config: TrainingConfig) -> Sample:
    """The sample with the cue that the configuration puts into training patches, if any."""
    label = None if config.cue_hu == 0.0 else cnet_label(nodule, drawn_as_sure=False, config=config)
    there = label is not None and cue_present(nodule, malignant=label == 1.0)
    return with_cue(sample, hu=config.cue_hu) if there else sample


def shown(sample: Sample, nodule: Nodule, config: TrainingConfig) -> Sample:
    """A patch as the network sees it in training: with the cue, if any, in the configuration's modality."""
    return as_input(confounded(sample, nodule, config), config.input, diameter_mm=nodule.diameter_mm)


def same_sized(unsure: Sequence[Draw], sure: Sequence[Draw]) -> list[tuple[list[Draw], list[Draw]]]:
    """(unsure, sure) draws split by patch size, since only patches of one size make a batch.

    There is one part with all draws, unless the input is the nodules' own cubes (Table 5, x).
    """
    sizes = sorted({draw.sample.patch.shape for draw in [*unsure, *sure]})
    return [
        ([d for d in unsure if d.sample.patch.shape == size], [d for d in sure if d.sample.patch.shape == size])
        for size in sizes
    ]


class PairSource:
    """Draws the unsure and sure nodules of a step.

    Sure nodules are drawn with benign and malignant equally likely: 80 % of the diagnosed LIDC nodules are malignant,
    and P would otherwise be biased towards malignant. Where a nodule exists as VOI and as cube, either form is drawn.
    ``cube_share`` has no effect where all nodules come in one form.
    """

    def __init__(self, config: TrainingConfig, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels]) -> None:
        known = [n for n in nodules if (n.reader_scores or n.outlined) and not isinstance(n, LungPlace)]
        eligible = [n for n in known if config.cohort == "all" or n.in_paper_cohort]
        if config.scores_label and not config.modules.rnet:
            # Nodules without a side for CNet are removed, as the paper does in its scenario 12/45.
            eligible = [n for n in eligible if cnet_label(n, drawn_as_sure=False, config=config) is not None]
        self._cubes = [n for n in eligible if n.is_cube]
        self._vois = [n for n in eligible if not n.is_cube]
        sure = [n for n in nodules if n.sure is not None]
        self._sure = [[n for n in sure if n.sure is not None and n.sure.malignant == label] for label in (0, 1)]
        if config.unsure_draws and not eligible:
            raise TrainingDataError(
                f"none of the {len(nodules)} nodules has scores or a mask and belongs to the cohort {config.cohort!r}",
                hint="set cohort to 'all', add such nodules, or set unsure_per_step to 0",
            )
        if config.sure_draws and not all(self._sure):
            benign, malignant = (len(side) for side in self._sure)
            raise TrainingDataError(
                f"{benign} benign and {malignant} malignant nodules, and a step draws {config.sure_draws} of either",
                hint="add diagnosed nodules, or set sure_per_step to 0",
            )
        never = 0 if config.sure_draws else sum(not (n.reader_scores or n.outlined) for n in sure)
        if never:
            raise TrainingDataError(
                f"{never} diagnosed nodules have neither scores nor a mask, and would never be drawn",
                hint="set sure_per_step to 1, or leave their store out",
            )
        if not config.unsure_draws + config.sure_draws:
            raise TrainingDataError("a step draws no nodule", hint="raise unsure_per_step or sure_per_step")
        self._config = config
        self._sampler = PatchSampler(voxels, nodules)
        self._lung = LungSource(nodules, voxels, self._sampler) if config.lung_per_step else None

    def draw(self, step: int, *, group: int = 0) -> tuple[list[Draw], list[Draw]]:
        """The (unsure, sure) nodules of a step; ``group`` counts the batches that it accumulates.

        Lung without a nodule comes last among the unsure draws. The nodules are the same as in a run without lung.
        """
        config = self._config
        rng = np.random.default_rng([config.seed, step, *([group] if group else [])])
        size = config.patch_size(step)
        unsure, sure = [], []
        for _ in range(config.unsure_draws):
            cube = rng.random() < config.cube_share
            pool = (self._cubes or self._vois) if cube else (self._vois or self._cubes)
            nodule = pool[int(rng.integers(len(pool)))]
            unsure.append(self._drawn(nodule, rng, size=size))
        for _ in range(config.sure_draws):
            pool = self._sure[int(rng.integers(2))]
            nodule = pool[int(rng.integers(len(pool)))]
            sure.append(self._drawn(nodule, rng, size=size))
        if self._lung is not None:
            for _ in range(config.lung_per_step):
                place, sample = self._lung.draw(rng, size=size, whole_share=config.cube_share)
                unsure.append(Draw(nodule=place, sample=sample))
        return unsure, sure

    def _drawn(self, nodule: Nodule, rng: np.random.Generator, *, size: int) -> Draw:
        # A nodule's own cube is cut round its centre.
        jitter_mm = JITTER_MM if self._config.input == "64" else 0.0
        sample = self._sampler.draw(nodule, rng, size=size, jitter_mm=jitter_mm)
        return Draw(nodule=nodule, sample=shown(sample, nodule, self._config))


def case_generator(case_id: str) -> np.random.Generator:
    """A generator that depends on the case alone, so that the case has the same surroundings in every evaluation."""
    return np.random.default_rng(zlib.crc32(case_id.encode()))
