"""Does the ONNX file answer as the trained model? Measured by ONNX Runtime on the CPU against torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nodule_diag.backends import (
    FEATURES_TOLERANCE,
    FP32_SCORE_TOLERANCE,
    FP32_TOLERANCE,
    features_difference,
    import_runtime,
)
from nodule_diag.ct import ball_in_noise
from nodule_diag.preprocessing import PATCH_SIZE
from nodule_diag_export.errors import ExportError, ParityError
from nodule_diag_export.graph import INPUT, OUTPUTS, RAW_CAM, ExportGraph
from nodule_diag_training.model import PATCH_CHANNELS

TOLERANCE = FP32_TOLERANCE
"""Largest allowed difference of an answer from torch's: the same as between backends."""
LOGIT_TOLERANCE = 1e-3
"""Larger, since S has no bounds; P shows how much S's rounding matters."""
TOLERANCES = {"expert_score": FP32_SCORE_TOLERANCE, "logit": LOGIT_TOLERANCE, "features": FEATURES_TOLERANCE}
"""Tolerances of the outputs that do not have :data:`TOLERANCE`."""
MAPS = ("segmentation", "cam")
RANDOM_BATCHES = (1, 5)
"""Batch sizes of the random patches: one, and a size other than that of tracing (2)."""
SEED = 20221
BALL_RADIUS = (4.0, 24.0)
"""Radius in voxels: nodules of 4 to 24 mm."""

Float = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Differences between torch and ONNX Runtime: the largest over all patches.

    Attributes:
        difference: By output: absolute of P, S and the expert score; of segmentation and CAM the mean over a patch's
            cells, as between backends (:mod:`nodule_diag.backends.parity`), of features relative to length.
        largest_cell: Largest difference of any cell of a segmentation or CAM. It is reported and has no gate: min-max
            normalisation divides the rounding of a flat CAM by its small range.
        mean_cam: Largest difference of the logit from the mean of the raw CAM in the ONNX graph (eq. 4 and 5).
        random_patches: Number of synthetic patches that were compared.
        nodule_patches: Number of patches of real nodules.
    """

    difference: dict[str, float]
    largest_cell: float
    mean_cam: float
    random_patches: int
    nodule_patches: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the tolerances."""
        return {
            **asdict(self),
            "tolerance": TOLERANCE,
            "logit_tolerance": LOGIT_TOLERANCE,
            "expert_score_tolerance": FP32_SCORE_TOLERANCE,
            "features_tolerance": FEATURES_TOLERANCE,
        }

    def missed(self) -> dict[str, float]:
        """What is larger than allowed."""
        limits = dict.fromkeys(self.difference, TOLERANCE) | TOLERANCES
        missed = {name: value for name, value in self.difference.items() if value > limits[name]}
        return missed | ({"logit against mean CAM": self.mean_cam} if self.mean_cam > TOLERANCE else {})


class OnnxModel:
    """A serialised graph in ONNX Runtime on the CPU.

    Args:
        data: The bytes of an ONNX file.
        threads: CPU threads of a call; 0 leaves it to the runtime.
        optimised: Whether the runtime may rewrite the graph.
    """

    def __init__(self, data: bytes, *, threads: int = 0, optimised: bool = True) -> None:
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        if not optimised:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.outputs = tuple(str(output.name) for output in self._session.get_outputs())

    def run(self, patches: Float) -> dict[str, Float]:
        """Every output by name, for [B, 2, 64, 64, 64] patches."""
        return dict(zip(self.outputs, self._session.run(list(self.outputs), {INPUT: patches}), strict=True))


def random_patches(count: int, *, seed: int = SEED) -> Float:
    """[count, 2, 64, 64, 64] float32: noise, every other one with a bright ball in the middle, as a nodule is."""
    rng = np.random.default_rng(seed)
    shape = (count, PATCH_CHANNELS, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
    patches = rng.random(shape, dtype=np.float32)
    for index in range(1, count, 2):
        patches[index] = ball_in_noise(patches[index], radius_voxels=rng.uniform(*BALL_RADIUS))
    return patches


def measure(graph: ExportGraph, data: bytes, *, nodules: Sequence[Float] = (), threads: int = 0) -> Parity:
    """Compare torch with ONNX Runtime.

    Where |S| is within the tolerance, rounding decides the sign in eq. 6, and CAM_c is not compared.

    Args:
        graph: The module in torch.
        data: The ONNX file of :func:`onnx_graph.trace`, with the raw CAM.
        nodules: Patches of real nodules, each [2, 64, 64, 64].
        threads: CPU threads for ONNX Runtime.

    Raises:
        ParityError: If a value is not finite or the shapes differ.
    """
    model = OnnxModel(data, threads=threads)
    if model.outputs != (*OUTPUTS, RAW_CAM):
        raise ExportError(f"the graph to compare has the outputs {', '.join(model.outputs)}")
    batches = [random_patches(size, seed=SEED + size) for size in RANDOM_BATCHES]
    batches += [np.ascontiguousarray(patch[None]) for patch in nodules]
    difference = dict.fromkeys(OUTPUTS, 0.0)
    largest_cell = mean_cam = 0.0
    for batch in batches:
        found = model.run(batch)
        with torch.inference_mode():
            wanted = dict(zip(model.outputs, (t.numpy() for t in graph(torch.from_numpy(batch))), strict=True))
        certain = np.abs(wanted["logit"]) > TOLERANCE
        for name in OUTPUTS:
            if not np.isfinite(found[name]).all() or found[name].shape != wanted[name].shape:
                raise ParityError(f"{name} of the ONNX graph is not finite or has the shape {found[name].shape}")
            if name == "features":
                apart = features_difference(wanted[name], found[name]) or 0.0
                difference[name] = max(difference[name], apart)
                continue
            rows = certain if name == "cam" else slice(None)
            apart = np.abs(found[name][rows] - wanted[name][rows])
            if name in MAPS:
                largest_cell = max(largest_cell, float(apart.max(initial=0.0)))
                apart = apart.mean(axis=(1, 2, 3))
            difference[name] = max(difference[name], float(apart.max(initial=0.0)))
        gap = np.abs(found[RAW_CAM].mean(axis=(1, 2, 3), dtype=np.float64) - found["logit"]).max()
        mean_cam = max(mean_cam, float(gap))
    return Parity(
        difference=difference,
        largest_cell=largest_cell,
        mean_cam=mean_cam,
        random_patches=sum(RANDOM_BATCHES),
        nodule_patches=len(nodules),
    )


def require(parity: Parity) -> None:
    """Refuse a graph that misses the tolerance.

    Raises:
        ParityError: With every output that misses it.
    """
    if missed := parity.missed():
        listed = ", ".join(f"{name} {value:.2e}" for name, value in missed.items())
        raise ParityError(
            f"the ONNX graph differs from the model by more than {TOLERANCE:g} (score: {FP32_SCORE_TOLERANCE:g},"
            f" S: {LOGIT_TOLERANCE:g}): {listed};"
            " nothing was written",
            hint="export with another version of torch, onnxscript or onnxruntime, and report this",
        )
