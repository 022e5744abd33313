"""Golden answers for a bundle: nodules that reveal wrong answers, and the fp32 network's answers for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends import (
    REFERENCE,
    Outputs,
    create_backend,
    golden_bytes,
    golden_of,
    golden_patches,
)
from nodule_diag.bundle import Bundle, write_bundle
from nodule_diag_export.errors import ExportError

ONE_SIDED = "golden-one-sided"
"""Code of the error when a network's answers for made-up nodules nearly all lie on one side of P = 0.5."""
A_SIDE = 4
"""Nodules on each side of P = 0.5: eight answers are 262 kB."""
MOST_SEEDS = 96
LEAST_LOGIT = 0.1
"""Least |S| of each nodule: in bf16 too its sign is certain, and with the sign the CAM."""
SCORES = (1.01, 4.99)
"""Limits of the nodules' scores: the score ends at 1 and 5, and beyond these ends all wrong scores are the same."""


def choose_golden(bundle: Bundle, *, threads: int) -> tuple[tuple[int, ...], NDArray[np.float32], Outputs]:
    """The first seeds whose nodules are suitable, their patches, and the answers of fp32 in ONNX Runtime on the CPU.

    Raises:
        ExportError: ``golden-one-sided`` if too few nodules lie on one side of P = 0.5.
        BackendError: If onnxruntime cannot serve.
    """
    backend = create_backend(bundle, name=REFERENCE, device="cpu", precision="fp32", threads=threads)
    sides: dict[bool, list[tuple[int, Outputs]]] = {False: [], True: []}
    for seed in range(MOST_SEEDS):
        answer = backend.infer(golden_patches([seed]))
        logit, score = float(answer.logit[0]), float(answer.expert_score[0])
        side = sides[logit > 0]
        if abs(logit) >= LEAST_LOGIT and SCORES[0] <= score <= SCORES[1] and len(side) < A_SIDE:
            side.append((seed, answer))
        if all(len(found) == A_SIDE for found in sides.values()):
            break
    else:
        raise ExportError(
            f"of {MOST_SEEDS} made-up nodules, {len(sides[True])} have a P above 0.5 and {len(sides[False])} one below,"
            f" with a score inside its scale; {A_SIDE} each are needed",
            hint="a network that answers all nodules alike cannot be told from a broken one",
            code=ONE_SIDED,
        )
    chosen = sorted(sides[False] + sides[True], key=lambda pair: pair[0])
    seeds = tuple(seed for seed, _ in chosen)
    return seeds, golden_patches(seeds), Outputs.joined([answer for _, answer in chosen])


def add_golden(bundle: Bundle, *, out: Path, threads: int) -> Bundle:
    """Write a copy of a bundle with golden answers of its network in place of any that it holds.

    Args:
        bundle: The bundle to copy.
        out: A directory or a ``.zip``; the bundle itself may be replaced.
        threads: CPU threads of a call, at least 1.

    Returns:
        The copy as it was read back.

    Raises:
        ExportError: As :func:`choose_golden`.
        BackendError: If onnxruntime cannot serve.
        OutputError: If it cannot be written.
    """
    seeds, patches, answers = choose_golden(bundle, threads=threads)
    golden = golden_of(seeds, patches)
    old = bundle.manifest.golden
    files = {name: bundle.read(name) for name in bundle.manifest.files if old is None or name != old.file}
    files[golden.file] = golden_bytes(answers)
    return write_bundle(out, manifest=bundle.manifest.model_copy(update={"golden": golden}), files=files)
