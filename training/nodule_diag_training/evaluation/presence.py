"""Is there a nodule at all? A network's answers where there is none, compared with those on unseen nodules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nodule_diag.backends import Backend, Outputs
from nodule_diag.ct import CTVolume, lps_from_index
from nodule_diag.preprocessing import lung_mask
from nodule_diag.results import PresenceCalibration, Segmentation, presence_evidence
from nodule_diag_training.data import LungKind, LungPlace, Nodule, NoduleVoxels, PatchSampler, case_generator
from nodule_diag_training.losses import THRESHOLD, class_cam
from nodule_diag_training.model import SynergicModel

from .metrics import Array, Statistic, auc, estimate, mean_value
from .rows import Row, Section

CLEARANCE_MM = 35.0
"""Least distance from a random position to a known nodule: the 32 mm cube then holds none of the nodule."""
PASSING = 0.99
"""Share of the nodules that must get no warning."""
BATCH = 2

Kind = Literal["nodule"] | LungKind


class TorchBackend:
    """A PyTorch model of the training package as one of the SDK's backends.

    Args:
        model: A model with SegNet, RNet and CNet.
    """

    name = "torch"
    device = "cpu"
    precision = "fp32"
    batch = BATCH

    def __init__(self, model: SynergicModel) -> None:
        self._model = model.eval()
        self.threads = torch.get_num_threads()

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """As ``Backend.infer``.

        Raises:
            ValueError: If the model lacks CNet, RNet or SegNet.
        """
        with torch.inference_mode():
            output = self._model(torch.from_numpy(patches))
            if output.logit is None or output.cam is None or output.score is None or output.segmentation_logit is None:
                raise ValueError("the model lacks CNet, RNet or SegNet")
            return Outputs(
                malignancy=torch.sigmoid(output.logit).numpy(),
                logit=output.logit.numpy(),
                expert_score=(1.0 + 4.0 * output.score).numpy(),
                segmentation=torch.sigmoid(output.segmentation_logit).numpy(),
                cam=class_cam(output.cam, output.logit).numpy(),
                features=output.pooled.numpy(),
            )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A network's answer at a place.

    Attributes:
        case_id: Id of the nodule or the place.
        patient_id: The patient of the nodule or place.
        kind: ``nodule``, or what lies there instead.
        diameter_mm: The nodule's diameter; 0 where there is none.
        malignancy: P.
        expert_score: 1..5.
        found_mm: Diameter of what SegNet finds, measured as ``predict`` does where a bundle has no threshold.
        evidence: Evidence that there is a nodule, ``presence_evidence``.
    """

    case_id: str
    patient_id: str
    kind: Kind
    diameter_mm: float
    malignancy: float
    expert_score: float
    found_mm: float
    evidence: float

    @property
    def is_nodule(self) -> bool:
        """Whether there is a nodule."""
        return self.kind == "nodule"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def random_lung_positions(
    ct: CTVolume, *, count: int, seed: int, nodules_xyz_mm: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    """[count, 3] LPS mm: centres of voxels of the lung mask, all equally likely, away from known nodules."""
    voxels = np.argwhere(lung_mask(ct).to_array())
    voxels = voxels[np.random.default_rng(seed).permutation(len(voxels))]
    points = lps_from_index(ct, voxels[:, ::-1].astype(np.float64))
    far = np.ones(len(points), dtype=bool)
    for nodule in nodules_xyz_mm:
        far &= np.linalg.norm(points - np.asarray(nodule), axis=1) >= CLEARANCE_MM
    return np.asarray(points[far][:count])


def whole_patches(nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels]) -> list[NDArray[np.float32]]:
    """[2, 64, 64, 64] of each nodule or place with its own surroundings, without augmentation."""
    sampler = PatchSampler(voxels, nodules)
    return [sampler.place(voxels[n.case_id], case_generator(n.case_id), patient_id=n.patient_id).patch for n in nodules]


def ask(backend: Backend, nodules: Sequence[Nodule], patches: Sequence[NDArray[np.float32]]) -> list[Answer]:
    """A network's answer for each nodule or place, given its patch of [2, 64, 64, 64]."""
    found = []
    for start in range(0, len(nodules), backend.batch):
        part = slice(start, start + backend.batch)
        outputs = backend.infer(np.stack(patches[part]))
        for row, nodule in enumerate(nodules[part]):
            segmentation = outputs.segmentation[row]
            # The cube's position does not matter for a size.
            measured = Segmentation(values=segmentation, center_xyz_mm=(0.0, 0.0, 0.0), direction=np.eye(3))
            found.append(
                Answer(
                    case_id=nodule.case_id,
                    patient_id=nodule.patient_id,
                    kind=nodule.kind if isinstance(nodule, LungPlace) else "nodule",
                    diameter_mm=nodule.diameter_mm,
                    malignancy=float(outputs.malignancy[row]),
                    expert_score=float(outputs.expert_score[row]),
                    found_mm=measured.diameter_mm,
                    evidence=presence_evidence(segmentation),
                )
            )
    return found


def fit_presence(answers: Sequence[Answer]) -> PresenceCalibration:
    """Platt's two numbers, nodules and lung weighing the same, and the presence that 99 % of the nodules exceed.

    Args:
        answers: Answers for nodules and places that the network has not seen.
    """
    from sklearn.linear_model import LogisticRegression

    evidence = np.array([[a.evidence] for a in answers])
    fitted = LogisticRegression(class_weight="balanced").fit(evidence, [a.is_nodule for a in answers])
    raw = PresenceCalibration(scale=float(fitted.coef_[0, 0]), shift=float(fitted.intercept_[0]), warn_below=0.0)
    passed = [raw.of_evidence(a.evidence) for a in answers if a.is_nodule]
    lowest = float(np.quantile(passed, 1.0 - PASSING, method="lower"))
    return PresenceCalibration(scale=raw.scale, shift=raw.shift, warn_below=lowest)


def lung_section(title: str, answers: Sequence[Answer], calibration: PresenceCalibration) -> Section:
    """How well nodules are distinguished from blobs and from any lung, and the answers where there is no nodule."""
    nodules = [a for a in answers if a.is_nodule]
    lung = [a for a in answers if not a.is_nodule]
    blobs = [a for a in lung if a.kind == "blob"]

    def row(
        metric: str, statistic: Statistic, of: Sequence[Answer], value: Callable[[Answer], float], target: str | None
    ) -> Row:
        result = estimate(statistic, [float(a.is_nodule) for a in of], list(map(value, of)), [a.case_id for a in of])
        return Row(metric=metric, target=target, note="intervals over places, not patients", **asdict(result))

    def median(_truth: Array, value: Array) -> float:
        return float(np.median(value)) if len(value) else float("nan")

    def flagged(answer: Answer) -> float:
        return float(calibration.of_evidence(answer.evidence) < calibration.warn_below)

    def present(answer: Answer) -> float:
        return answer.evidence

    rows = [
        row("Presence, AUC: nodules against any lung", auc, [*nodules, *lung], present, ">= 0.98"),
        row("Flagged at the warning's threshold: any lung", mean_value, lung, flagged, ">= 0.80"),
        row("Lung: share with P of 0.5 and more", mean_value, lung, lambda a: a.malignancy >= THRESHOLD, None),
        row("  and not flagged", mean_value, lung, lambda a: a.malignancy >= THRESHOLD and not flagged(a), None),
        row("Lung: P, median", median, lung, lambda a: a.malignancy, None),
        row("Lung: diameter found, mm, median", median, lung, lambda a: a.found_mm, None),
        row("Lung: nothing found", mean_value, lung, lambda a: a.found_mm == 0.0, None),
        row("Nodules: nothing found", mean_value, nodules, lambda a: a.found_mm == 0.0, None),
    ]
    if blobs:
        rows.insert(1, row("  against blobs", auc, [*nodules, *blobs], present, ">= 0.95"))
        rows.insert(3, row("  blobs", mean_value, blobs, flagged, ">= 0.60"))
    return Section(title=title, rows=tuple(rows))
