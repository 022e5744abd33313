"""Compares a backend's answers with the reference: the figures, and the gates that judge them.

The reference is the fp32 network in ONNX Runtime, which was itself compared with torch when it was exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import Backend, Outputs
from nodule_diag.bundle import ParityFigures
from nodule_diag.ct import ball_in_noise
from nodule_diag.preprocessing import PATCH_SIZE
from nodule_diag.results import SPACES, Space

if TYPE_CHECKING:
    from nodule_diag.cases import CaseIndex

FP32_TOLERANCE = 1e-4
"""Largest difference of an fp32 answer with the range 0 to 1."""
FEATURES_TOLERANCE = 1e-3
"""Largest difference of the features, relative to their length: the feature distance changes by a thousandth."""
FP32_SCORE_TOLERANCE = 1e-3
"""Largest difference of the expert score, 1 to 5. Rounding is four times as large; readers differ by whole points."""
PROBE_SEED = 20221
PROBE_RADIUS_VOXELS = 12.0
"""A nodule of 12 mm."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The limits for a backend's figures."""

    malignancy: float
    """Largest |dP|."""
    expert_score: float
    """Largest difference of the expert score."""
    maps: float
    """Largest mean absolute difference of a CAM or a segmentation."""
    features: float
    """Largest difference of the features, relative to their length."""
    overlap: float = 0.9
    """Smallest share of similar cases in common."""


FP32_GATE = Gate(
    malignancy=FP32_TOLERANCE, expert_score=FP32_SCORE_TOLERANCE, maps=FP32_TOLERANCE, features=FEATURES_TOLERANCE
)
REDUCED_GATE = Gate(malignancy=0.01, expert_score=0.05, maps=0.02, features=0.05)
"""For bf16 and fp16."""


def gate_of(precision: str) -> Gate:
    """The gate of a precision."""
    return FP32_GATE if precision == "fp32" else REDUCED_GATE


def misses(figures: ParityFigures, *, precision: str) -> tuple[str, ...]:
    """Which figures miss the gate, in words; empty when all pass."""
    gate = gate_of(precision)
    limits = {
        "malignancy": gate.malignancy,
        "expert_score": gate.expert_score,
        "segmentation": gate.maps,
        "cam": gate.maps,
        "features": gate.features,
    }
    missed = [
        f"{name} differs by {getattr(figures, name):.2g}, allowed is {limit:g}"
        for name, limit in limits.items()
        if (getattr(figures, name) or 0.0) > limit
    ]
    if figures.overlap < gate.overlap:
        missed.append(f"{figures.overlap:.0%} of the similar cases are the same, {gate.overlap:.0%} must be")
    if figures.cam_patches == 0:
        missed.append("no CAM could be compared: P is 0.5 everywhere")
    return tuple(missed)


def compare(reference: Outputs, candidate: Outputs, *, precision: str, cases: CaseIndex, k: int) -> ParityFigures:
    """Measure how far a backend's answers are from the fp32 network's in ONNX Runtime, for :func:`misses` to judge.

    Args:
        reference: Answers of the fp32 network.
        candidate: The backend's answers for the same patches.
        precision: The backend's precision.
        cases: The bundle's case base, of which the ``k`` most similar cases are compared.
        k: The number of cases.
    """
    # P = sigmoid(S), whose slope at 0 is 1/4: within the gate of P, S may have either sign, which inverts CAM_c.
    certain = np.abs(reference.logit) > 4.0 * gate_of(precision).malignancy
    return ParityFigures(
        patches=len(reference.malignancy),
        malignancy=float(np.abs(candidate.malignancy - reference.malignancy).max()),
        expert_score=float(np.abs(candidate.expert_score - reference.expert_score).max()),
        segmentation=_map_difference(candidate.segmentation, reference.segmentation),
        cam=_map_difference(candidate.cam[certain], reference.cam[certain]),
        cam_patches=int(certain.sum()),
        overlap=_overlap(reference, candidate, cases, k),
        features=features_difference(reference.features, candidate.features),
    )


def features_difference(wanted: NDArray[np.float32] | None, found: NDArray[np.float32] | None) -> float | None:
    """The largest relative difference of (N, 256) features, by length; None if one of the two is missing."""
    if wanted is None or found is None:
        return None
    lengths = np.maximum(np.linalg.norm(wanted, axis=1), np.finfo(np.float32).tiny)
    return float((np.linalg.norm(found - wanted, axis=1) / lengths).max())


def _map_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest mean absolute difference of (N, 16, 16, 16) maps; 0 without maps."""
    return float(np.abs(found - wanted).mean(axis=(1, 2, 3)).max(initial=0.0))


def _overlap(reference: Outputs, candidate: Outputs, cases: CaseIndex, k: int) -> float:
    """The share of common cases over all patches, in the space where it is smallest."""
    answers = [
        [(float(p), float(score)) for p, score in zip(outputs.malignancy, outputs.expert_score, strict=True)]
        for outputs in (reference, candidate)
    ]
    shares = []
    for space in SPACES:
        pairs = zip(*answers, strict=True)
        counts = [cases_in_common(cases, space, wanted=wanted, found=found, k=k) for wanted, found in pairs]
        shares.append(sum(common for common, _ in counts) / sum(retrieved for _, retrieved in counts))
    return min(shares)


def cases_in_common(
    cases: CaseIndex, space: Space, *, wanted: tuple[float, float], found: tuple[float, float], k: int
) -> tuple[int, int]:
    """How many of the ``k`` most similar cases both answers to a patch retrieve, and how many the first one retrieves.

    Args:
        cases: The case base.
        space: Where to search.
        wanted: The reference's answer: P in [0, 1] and the expert score in [1, 5].
        found: The other answer.
        k: How many cases to retrieve.
    """
    near_wanted, near_found = (
        {case.case_id for case in cases.search(space, malignancy=malignancy, expert_score=expert_score, k=k)}
        for malignancy, expert_score in (wanted, found)
    )
    return len(near_wanted & near_found), len(near_wanted)


def infer_all(backend: Backend, patches: NDArray[np.float32]) -> Outputs:
    """Run a backend over (N, 2, 64, 64, 64) float32 patches, N >= 1, as many at a time as in a diagnosis."""
    starts = range(0, len(patches), backend.batch)
    return Outputs.joined([backend.infer(patches[start : start + backend.batch]) for start in starts])


def probe_patch() -> NDArray[np.float32]:
    """(1, 2, 64, 64, 64) float32 in [0, 1]: a bright ball in faint noise, the same in every run."""
    noise = np.random.default_rng(PROBE_SEED).random((1, 2, *(PATCH_SIZE,) * 3), dtype=np.float32)
    return ball_in_noise(noise, radius_voxels=PROBE_RADIUS_VOXELS)
