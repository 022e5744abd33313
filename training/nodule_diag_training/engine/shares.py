"""A step's batch in parts: the weight of each part's mean losses, so that the parts add up to the whole batch.

Every term of eq. 12 is a mean over the nodules that teach it, and their number differs from term to term and from part
to part: a part with one of the batch's three labelled nodules has a weight of a third in the classification loss. The
counts follow from the draws alone, so every part can be weighted before the others are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import Draw, LungPlace, cnet_label, score_target

from .objective import LossTerms


@dataclass(frozen=True, kw_only=True)
class TermCounts:
    """How many nodules each term of eq. 12 is a mean of."""

    classification: int = 0
    cam: int = 0
    segmentation: int = 0
    score: int = 0

    def __add__(self, other: TermCounts) -> TermCounts:
        return TermCounts(
            classification=self.classification + other.classification,
            cam=self.cam + other.cam,
            segmentation=self.segmentation + other.segmentation,
            score=self.score + other.score,
        )


def count_terms(unsure: Sequence[Draw], sure: Sequence[Draw], config: TrainingConfig) -> TermCounts:
    """How many of these nodules teach each term, as ``objective.step_losses`` takes them."""
    modules, loss = config.modules, config.modules.cam_loss
    draws = [(draw.nodule, False) for draw in unsure] + [(draw.nodule, True) for draw in sure]
    labelled = sum(cnet_label(nodule, drawn_as_sure=as_sure, config=config) is not None for nodule, as_sure in draws)
    scored = sum(score_target(nodule, drawn_as_sure=as_sure, config=config) is not None for nodule, as_sure in draws)
    outlined = sum(nodule.outlined and (not as_sure or config.sure_teaches_unsure) for nodule, as_sure in draws)
    nodules = sum(not isinstance(nodule, LungPlace) for nodule, _ in draws)
    guided = 0 if loss is None else nodules if config.ad_csl_on_all and not loss.needs_label else labelled
    return TermCounts(
        classification=labelled if modules.cnet else 0,
        cam=guided,
        segmentation=outlined if modules.segnet else 0,
        score=scored if modules.rnet else 0,
    )


def weigh(terms: LossTerms, *, part: TermCounts, whole: TermCounts) -> LossTerms:
    """A part's terms, each times the part's share in the term; over all parts they sum to the batch's terms."""
    return LossTerms(
        classification=_share(terms.classification, part.classification, whole.classification),
        cam=_share(terms.cam, part.cam, whole.cam),
        segmentation=_share(terms.segmentation, part.segmentation, whole.segmentation),
        score=_share(terms.score, part.score, whole.score),
        weights=terms.weights,
    )


def _share(term: Tensor, part: int, whole: int) -> Tensor:
    # No nodule teaches this term: it is 0 already, and a NaN in it must not be hidden.
    return term * (part / whole) if whole else term
