"""A tiny bundle whose network has made-up nodules on both sides of P = 0.5, with golden answers by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from bundle_factory import tiny_model, tiny_parts
from nodule_diag.backends import Outputs, golden_bytes, golden_of, golden_patches
from nodule_diag.bundle import Bundle, write_bundle

MIDDLE = 0.14
"""Mean of the lung channel at which this network says 0.5."""
SEEDS = (0, 1, 2, 3, 4, 5, 6, 7)


def two_sided_model() -> ModelProto:
    """The tiny network with its P = 0.5 at :data:`MIDDLE`."""
    model = tiny_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array(MIDDLE, np.float32), "middle"))
    node = next(node for node in model.graph.node if node.output[0] == "lung_centred")
    node.input[1] = "middle"
    return model


def answers_in_numpy(patches: np.ndarray) -> Outputs:
    """What that network must answer, in float64."""
    lung, soft = np.moveaxis(patches.astype(np.float64).reshape(-1, 2, 16, 4, 16, 4, 16, 4).mean(axis=(3, 5, 7)), 1, 0)
    activation = 8.0 * (lung - MIDDLE)
    logit = activation.mean(axis=(1, 2, 3))
    malignancy = 1.0 / (1.0 + np.exp(-logit))
    cam = (malignancy - 0.5)[:, None, None, None] * activation
    low, high = (bound(axis=(1, 2, 3), keepdims=True) for bound in (cam.min, cam.max))
    score = 1.0 + 4.0 / (1.0 + np.exp(-8.0 * (soft.mean(axis=(1, 2, 3)) - 0.25)))
    found = {
        "malignancy": malignancy,
        "logit": logit,
        "expert_score": score,
        "segmentation": (2.0 * soft).clip(0.0, 1.0),
        "cam": (cam - low) / (high - low),
    }
    return Outputs(**{name: array.astype(np.float32) for name, array in found.items()})


def make_golden_bundle(path: Path, *, answers: Outputs | None = None) -> Bundle:
    """Write it; ``answers`` in place of the right ones."""
    manifest, files = tiny_parts(model=two_sided_model())
    patches = golden_patches(SEEDS)
    golden = golden_of(SEEDS, patches)
    files[golden.file] = golden_bytes(answers_in_numpy(patches) if answers is None else answers)
    return write_bundle(path, manifest=manifest.model_copy(update={"golden": golden}), files=files)
