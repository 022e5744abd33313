"""The answer that every way from file to answer must give, and the difference of two answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nodule_diag.cases import CaseIndex, features
from nodule_diag_export.graph import OUTPUTS, ExportGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A diagnosis, and the data that it was made from.

    Attributes:
        malignancy: P.
        expert_score: 1..5.
        diagnosis: Share of malignant ones among the K nearest cases by machine+expert (eq. 13, 14).
        in_lung: Whether the position lies in the lung mask.
        cam: (16, 16, 16) in [0, 1].
        segmentation: (16, 16, 16) in [0, 1].
        patch: (2, 64, 64, 64) float32, the network's input; None where it is not available.
        lungs: (z, y, x) bool on the CT's grid; None where there is no mask of every voxel.
    """

    malignancy: float
    expert_score: float
    diagnosis: float
    in_lung: bool
    cam: NDArray[np.float32]
    segmentation: NDArray[np.float32]
    patch: NDArray[np.float32] | None = None
    lungs: NDArray[np.bool_] | None = None


class Way(Protocol):
    """A way from file to answer."""

    @property
    def name(self) -> str:
        """Name in results."""

    def __call__(self) -> Answer:
        """Run from file to answer."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Absolute difference of an answer from nodule-diag's.

    Attributes:
        malignancy: Difference of P.
        expert_score: Difference of the score.
        diagnosis: Difference of the share of malignant cases.
        cam: Mean difference over the cells of the CAM.
        segmentation: Mean difference over the cells of the segmentation.
    """

    malignancy: float
    expert_score: float
    diagnosis: float
    cam: float
    segmentation: float

    @classmethod
    def between(cls, one: Answer, other: Answer) -> Difference:
        """The difference of two answers."""
        return cls(
            malignancy=abs(one.malignancy - other.malignancy),
            expert_score=abs(one.expert_score - other.expert_score),
            diagnosis=abs(one.diagnosis - other.diagnosis),
            cam=float(np.abs(one.cam - other.cam).mean()),
            segmentation=float(np.abs(one.segmentation - other.segmentation).mean()),
        )


@dataclass(frozen=True, eq=False)
class TorchTail:
    """Network and retrieval as in a program with torch and numpy: eager, and every case compared.

    Attributes:
        network: In evaluation mode.
        points: (N, 2) float32, the cases in the space machine+expert.
        labels: (N,) 0 or 1.
        k: Cases that make a diagnosis.
    """

    network: ExportGraph
    points: NDArray[np.float32]
    labels: NDArray[np.float64]
    k: int

    @classmethod
    def of(cls, network: ExportGraph, cases: CaseIndex, *, k: int) -> TorchTail:
        """The tail with the cases of a bundle."""
        points = [features("machine+expert", case.malignancy, case.expert_score) for case in cases.cases]
        return cls(network, np.stack(points), np.array([float(case.label) for case in cases.cases]), k)

    def answer(self, patch: NDArray[np.float32], *, in_lung: bool, lungs: NDArray[np.bool_] | None = None) -> Answer:
        """Diagnose one (2, 64, 64, 64) patch."""
        with torch.inference_mode():
            outputs = self.network(torch.from_numpy(patch[None]))
        found = {name: tensor[0].numpy() for name, tensor in zip(OUTPUTS, outputs, strict=False)}
        malignancy, score = float(found["malignancy"]), float(found["expert_score"])
        squared = ((self.points - features("machine+expert", malignancy, score)) ** 2).sum(axis=1)
        nearest = np.argsort(squared, kind="stable")[: self.k]
        return Answer(
            malignancy=malignancy,
            expert_score=score,
            diagnosis=float(self.labels[nearest].mean()),
            in_lung=in_lung,
            cam=found["cam"],
            segmentation=found["segmentation"],
            patch=patch,
            lungs=lungs,
        )
