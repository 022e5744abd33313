"""Does a reduced graph still give the diagnosis? Measured against the fp32 graph, on nodules in their surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from nodule_diag.backends import REDUCED_GATE, cases_in_common, features_difference, import_runtime
from nodule_diag.cases import CaseIndex
from nodule_diag_export.errors import ParityError
from nodule_diag_export.graph import Precision, emulated_graph
from nodule_diag_training.data import TrainingData

from .onnx import OnnxModel, random_patches
from .real_patches import cube_patches

GATES = {
    "malignancy": REDUCED_GATE.malignancy,
    "expert_score": REDUCED_GATE.expert_score,
    "segmentation": REDUCED_GATE.maps,
    "cam": REDUCED_GATE.maps,
    "features": REDUCED_GATE.features,
}
"""Largest allowed difference over the patches: absolute; for the maps, of each patch's mean absolute difference; for
the features, relative to length."""
OVERLAP_GATE = REDUCED_GATE.overlap
"""Smallest mean share of the K nearest cases of ``machine+expert`` that both graphs retrieve."""
SYNTHETIC_PATCHES = 8
SYNTHETIC_SEED = 20224

Float = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ReducedParity:
    """Differences of a reduced graph from the fp32 one.

    Attributes:
        precision: Precision of its convolutions.
        evaluator: What computed the reduced graph's answers.
        patches: Number of patches that were compared.
        source: What the patches show.
        malignancy: Largest difference of P.
        expert_score: Largest difference of the score, on its scale of 1 to 5.
        segmentation: Largest over the patches of the mean absolute difference.
        cam: Likewise, over the patches whose CAM keeps its sign.
        cam_signs: Patches whose P is on another side of 0.5, where eq. 6 reverses the map. The gate on P allows this
            only within 0.01 of 0.5.
        overlap: Mean share of common cases among the K nearest; None where no case base was given.
        overlap_min: The smallest share of any patch.
        features: Largest difference of the features, relative to length; None where the graph has no such output.
    """

    precision: Precision
    evaluator: str
    patches: int
    source: str
    malignancy: float
    expert_score: float
    segmentation: float
    cam: float
    cam_signs: int
    overlap: float | None
    overlap_min: float | None
    features: float | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON, with the gates."""
        return {**asdict(self), "gates": {**GATES, "overlap": OVERLAP_GATE}}


def compared_patches(data: TrainingData | None) -> tuple[str, list[Float]]:
    """The compared patches, and what they show: nodules in their surroundings if there are any, else synthetic."""
    if data is not None:
        cubes = list(cube_patches(data))
        return f"{len(cubes)} nodules of {data.name} with their own surroundings", cubes
    return (
        f"{SYNTHETIC_PATCHES} synthetic patches (noise, and a bright ball in every other one)",
        list(random_patches(SYNTHETIC_PATCHES, seed=SYNTHETIC_SEED)),
    )


def measure_reduced(
    proto: ModelProto,
    precision: Precision,
    *,
    patches: Sequence[Float],
    source: str,
    cases: CaseIndex | None = None,
    k: int = 20,
    threads: int = 0,
) -> ReducedParity:
    """Compare a reduced graph with its fp32 one, by the emulation of :func:`emulated_graph`.

    Args:
        proto: The fp32 graph.
        precision: Precision of the reduced graph.
        patches: Each [2, 64, 64, 64] float32; at least one.
        source: What the patches show, in words.
        cases: A case base, to compare the retrieved cases.
        k: Number of retrieved cases.
        threads: CPU threads for ONNX Runtime.

    Raises:
        ParityError: If there is nothing to compare, or an answer is not finite.
    """
    if not patches:
        raise ParityError("there are no patches to compare the graphs on", hint="check the data folder")
    reference = OnnxModel(proto.SerializeToString(), threads=threads)
    reduced = OnnxModel(emulated_graph(proto, precision).SerializeToString(), threads=threads, optimised=False)
    worst = dict.fromkeys(("malignancy", "expert_score", "segmentation", "cam"), 0.0)
    signs, overlaps = 0, []
    features: list[float] = []
    for patch in patches:
        wanted, found = reference.run(patch[None]), reduced.run(patch[None])
        for name in reference.outputs:
            if not np.isfinite(found[name]).all():
                raise ParityError(
                    f"{name} of the {precision} graph is not finite", hint="use bf16, which has the range of fp32"
                )
        if (apart := features_difference(wanted.get("features"), found.get("features"))) is not None:
            features.append(apart)
        turned = bool((wanted["malignancy"][0] >= 0.5) != (found["malignancy"][0] >= 0.5))
        signs += turned
        for name in worst:
            if name != "cam" or not turned:
                difference = float(np.abs(found[name] - wanted[name]).mean(dtype=np.float64))
                worst[name] = max(worst[name], difference)
        if cases is not None:
            overlaps.append(_overlap(cases, wanted, found, k))
    return ReducedParity(
        precision=precision,
        evaluator=(
            f"onnxruntime {import_runtime().__version__} on a CPU, emulated: operands and results of convolutions "
            f"rounded to {precision}, products summed in fp32; no GPU was used"
        ),
        patches=len(patches),
        source=source,
        cam_signs=signs,
        overlap=float(np.mean(overlaps)) if overlaps else None,
        overlap_min=min(overlaps) if overlaps else None,
        features=max(features, default=None),
        **worst,
    )


def _overlap(cases: CaseIndex, wanted: dict[str, Float], found: dict[str, Float], k: int) -> float:
    """Share of common cases among the nearest ones in the joint space."""
    pairs = [
        (float(np.clip(answer["malignancy"][0], 0.0, 1.0)), float(answer["expert_score"][0]))
        for answer in (wanted, found)
    ]
    common, retrieved = cases_in_common(cases, "machine+expert", wanted=pairs[0], found=pairs[1], k=k)
    return common / retrieved


def require_reduced(parity: ReducedParity) -> None:
    """Refuse a reduced graph that misses a gate.

    Raises:
        ParityError: With every gate that the graph misses.
    """
    measured = {name: float(getattr(parity, name) or 0.0) for name in GATES}
    missed = [
        f"{name} {value:.3g} (at most {GATES[name]:g})" for name, value in measured.items() if value > GATES[name]
    ]
    if parity.overlap is not None and parity.overlap < OVERLAP_GATE:
        missed.append(f"share of common cases {parity.overlap:.3f} (at least {OVERLAP_GATE:g})")
    if missed:
        raise ParityError(
            f"the {parity.precision} graph differs from fp32 by too much: {', '.join(missed)}; nothing was written",
            hint="export fp32, or the other reduced precision",
        )
