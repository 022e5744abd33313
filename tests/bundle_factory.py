"""A bundle small enough for every test: a network whose answer can be worked out by hand from its patch.

A pytest plugin (tests/conftest.py names it): ``tiny_bundle`` is the path of a bundle directory.

The network, of a patch with lung channel L and mediastinal channel M, both 64x64x64:

- map = 8 * (mean of L over each 4x4x4 block - 0.5); logit = mean of the map (eq. 4); malignancy = sigmoid(logit);
- cam = (malignancy - 0.5) * map, min-max normalised (eq. 6), 0 where it is flat;
- segmentation = twice the mean of M over each 4x4x4 block, clipped to [0, 1]: 0.5 at -60 HU;
- expert_score = 1 + 4 * sigmoid(8 * (mean of M - 0.25));
- features, where they are asked for = mean of L over each 4x4x64 column, 16x16 of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.bundle.calibration import (
    CalibrationSpec,
    FeatureDistanceSpec,
    PresenceSpec,
    SegmentationSpec,
    SpreadSpec,
)
from nodule_diag.bundle.manifest import FEATURES, Manifest, ModelOutputs, ModelSpec, Preprocessing, TensorSpec
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.results.feature_distance import FeatureDistance

OPSET = 17
PATCH_SHAPE = ("B", 2, 64, 64, 64)
TINY_OUTPUTS = ModelOutputs(features=TensorSpec(name="features", shape=("B", FEATURES)))
OUTPUT_SHAPES: dict[str, tuple[str | int, ...]] = {
    "malignancy": ("B",),
    "logit": ("B",),
    "expert_score": ("B",),
    "segmentation": ("B", 16, 16, 16),
    "cam": ("B", 16, 16, 16),
}


def tiny_model(
    *,
    input_shape: Sequence[str | int] = PATCH_SHAPE,
    renamed: dict[str, str] | None = None,
    nan: bool = False,
    features: bool = False,
) -> onnx.ModelProto:
    """The network above.

    Args:
        input_shape: What the file declares for ``patch``.
        renamed: Outputs that the file calls otherwise.
        nan: Makes the logit not a number.
        features: Whether it gives them.
    """
    names = {name: (renamed or {}).get(name, name) for name in OUTPUT_SHAPES}
    constants = {
        "zero": np.array(0.0, np.float32),
        "half": np.array(0.5, np.float32),
        "quarter": np.array(0.25, np.float32),
        "one": np.array(1.0, np.float32),
        "four": np.array(4.0, np.float32),
        "eight": np.array(np.nan if nan else 8.0, np.float32),
        "tiny": np.array(1e-12, np.float32),
        "first": np.array(0, np.int64),
        "second": np.array(1, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("AveragePool", ["patch"], ["pooled"], kernel_shape=[4, 4, 4], strides=[4, 4, 4]),
        node("Gather", ["pooled", "first"], ["lung"], axis=1),
        node("Gather", ["pooled", "second"], ["soft"], axis=1),
        node("Sub", ["lung", "half"], ["lung_centred"]),
        node("Mul", ["lung_centred", "eight"], ["map"]),
        node("ReduceMean", ["map"], [names["logit"]], axes=[1, 2, 3], keepdims=0),
        node("ReduceMean", ["map"], ["logit_kept"], axes=[1, 2, 3], keepdims=1),
        node("Sigmoid", [names["logit"]], [names["malignancy"]]),
        node("Sigmoid", ["logit_kept"], ["p_kept"]),
        node("Sub", ["p_kept", "half"], ["p_centred"]),
        node("Mul", ["map", "p_centred"], ["cam_c"]),
        node("ReduceMin", ["cam_c"], ["cam_min"], axes=[1, 2, 3], keepdims=1),
        node("ReduceMax", ["cam_c"], ["cam_max"], axes=[1, 2, 3], keepdims=1),
        node("Sub", ["cam_max", "cam_min"], ["cam_span"]),
        node("Max", ["cam_span", "tiny"], ["cam_span_safe"]),
        node("Sub", ["cam_c", "cam_min"], ["cam_lifted"]),
        node("Div", ["cam_lifted", "cam_span_safe"], [names["cam"]]),
        node("Add", ["soft", "soft"], ["soft_twice"]),
        node("Clip", ["soft_twice", "zero", "one"], [names["segmentation"]]),
        node("ReduceMean", ["soft"], ["soft_mean"], axes=[1, 2, 3], keepdims=0),
        node("Sub", ["soft_mean", "quarter"], ["soft_centred"]),
        node("Mul", ["soft_centred", "eight"], ["score_logit"]),
        node("Sigmoid", ["score_logit"], ["score_unit"]),
        node("Mul", ["score_unit", "four"], ["score_wide"]),
        node("Add", ["score_wide", "one"], [names["expert_score"]]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("patch", TensorProto.FLOAT, list(input_shape))],
        [
            helper.make_tensor_value_info(names[name], TensorProto.FLOAT, list(shape))
            for name, shape in OUTPUT_SHAPES.items()
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    if features:
        graph.node.append(node("ReduceMean", ["lung"], ["columns"], axes=[3], keepdims=0))
        graph.node.append(node("Flatten", ["columns"], ["features"], axis=1))
        graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURES]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def tiny_model_in_numpy(patch: np.ndarray) -> dict[str, Any]:
    """What the network must answer for one (2, 64, 64, 64) patch."""
    lung, soft = patch.astype(np.float64).reshape(2, 16, 4, 16, 4, 16, 4).mean(axis=(2, 4, 6))
    activation = 8.0 * (lung - 0.5)
    logit = activation.mean()
    malignancy = 1.0 / (1.0 + np.exp(-logit))
    cam = (malignancy - 0.5) * activation
    span = max(float(np.ptp(cam)), 1e-12)
    return {
        "features": lung.mean(axis=2).ravel(),
        "logit": logit,
        "malignancy": malignancy,
        "expert_score": 1.0 + 4.0 / (1.0 + np.exp(-8.0 * (soft.mean() - 0.25))),
        "segmentation": (2.0 * soft).clip(0.0, 1.0),
        "cam": (cam - cam.min()) / span,
    }


def tiny_cases(count: int = 60, *, seed: int = 0) -> list[Case]:
    """Made-up cases of two nodules a patient; coarse numbers, so that there are ties."""
    rng = np.random.default_rng(seed)
    return [
        Case(
            case_id=f"case-{number:04}",
            patient_id=f"patient-{number // 2:04}",
            label=int(rng.random() < 0.6),
            label_source="biopsy",
            label_certainty="nodule",
            malignancy=round(float(rng.random()), 1),
            expert_score=1.0 + round(4.0 * float(rng.random()), 1),
            reader_scores=(3.0, 4.0, 3.0),
            diameter_mm=12.0,
        )
        for number in range(count)
    ]


def tiny_base(cases: Sequence[Case] | None = None, *, model_sha256: str = 64 * "0") -> CaseBase:
    """Them as a case base in memory."""
    return CaseBase.of(tiny_cases() if cases is None else cases, name="tiny cases", model_sha256=model_sha256)


def tiny_parts(
    *,
    model: onnx.ModelProto | None = None,
    masked_input: bool = False,
    cases: Sequence[Case] | None = None,
    presence: PresenceSpec | None = None,
    calibration: CalibrationSpec | None = None,
    distance: FeatureDistance | None = None,
    spread: SpreadSpec | None = None,
    segmentation: SegmentationSpec | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest (without hashes) and files of a bundle."""
    network = (model or tiny_model(features=distance is not None)).SerializeToString()
    known, features = None, {}
    if distance is not None:
        known = FeatureDistanceSpec(
            file="features.f32",
            components=len(distance.components),
            rest_variance=distance.rest_variance,
            warn_above=distance.warn_above,
        )
        features = {known.file: distance.to_bytes()}
    base = tiny_base(cases, model_sha256=hashlib.sha256(network).hexdigest())
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        created="2024-01-01T00:00:00Z",
        license="Apache-2.0",
        intended_use="Tests. Not a medical device.",
        preprocessing=Preprocessing(masked_input=masked_input),
        model=ModelSpec(opset=OPSET, outputs=TINY_OUTPUTS if distance is not None else ModelOutputs()),
        segmentation=segmentation,
        presence=presence,
        calibration=calibration,
        feature_distance=known,
        spread=spread,
        training={"note": "never trained"},
    )
    files = {"model.onnx": network, "MODEL_CARD.md": b"# Tiny\n", "index/cases.sqlite": base.to_bytes()}
    return manifest, files | features


def make_tiny_bundle(path: Path, **parts: Any) -> Bundle:
    """Write a tiny bundle (a directory, or a ``.zip``); ``parts`` as for :func:`tiny_parts`."""
    manifest, files = tiny_parts(**parts)
    return write_bundle(path, manifest=manifest, files=files)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle directory that every test shares: do not write to it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path
