"""A checkpoint becomes an ONNX file: traced, compared with torch, described, checked, and only then written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from nodule_diag.bundle import ModelOutputs
from nodule_diag.errors import UsageError
from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph import ExportGraph, opset_of, outputs_of, public_graph, trace, with_metadata
from nodule_diag_export.parity import Parity, measure, require
from nodule_diag_training.engine import load_model

LICENSE = "Apache-2.0"
INTENDED_USE = (
    "Research on the diagnosis of pulmonary nodules in chest CT. Not a medical device: it must not be used to decide "
    "on the screening, diagnosis or treatment of a patient."
)
LONGEST_TEXT = 200
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Name, version and licence of a bundle and its network."""

    name: str = "lidc-synergic"
    version: str = "0.1.0"
    license: str = LICENSE

    def __post_init__(self) -> None:
        """Refuse what a manifest does not accept, before any work is done.

        Raises:
            UsageError: If one of them is empty or too long.
        """
        for name, value in asdict(self).items():
            if not 1 <= len(value) <= LONGEST_TEXT:
                raise UsageError(
                    f"the {name} has {len(value)} characters", hint=f"give --{name} 1 to {LONGEST_TEXT} characters"
                )


DEFAULT_IDENTITY = Identity()


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedModel:
    """An ONNX file that passed every check.

    Attributes:
        data: Its bytes.
        opset: Version of the standard operator set.
        outputs: The outputs as the manifest describes them.
        provenance: The training data and method: JSON values only.
        parity: Its difference from the model in torch.
    """

    data: bytes = field(repr=False)
    opset: int
    outputs: ModelOutputs
    provenance: dict[str, Any]
    parity: Parity


def library_versions() -> dict[str, str]:
    """Versions of the libraries that an export uses."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = metadata.version("onnxruntime-gpu") if name == "onnxruntime" else "absent"
    return versions


def export_model(
    checkpoint: Path, *, identity: Identity, nodules: Sequence[NDArray[np.float32]] = (), threads: int = 0
) -> ExportedModel:
    """Make the ONNX file of a finished model in memory.

    Args:
        checkpoint: ``model.safetensors`` of a finished run.
        identity: Name and version to write into it.
        nodules: Patches of real nodules to compare on, each [2, 64, 64, 64]; random patches are always compared.
        threads: CPU threads for ONNX Runtime; 0 leaves it to the runtime.

    Raises:
        TrainingDataError: If the checkpoint cannot be read.
        ExportError: If its model has no SegNet or RNet, or its graph is not valid ONNX.
        ParityError: If the answers of ONNX Runtime and torch differ by more than the tolerance.
    """
    model, config, trained_on = load_model(checkpoint)
    provenance: dict[str, Any] = {
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "config": config.model_dump(mode="json"),
        "data": dict(trained_on),
        "libraries": library_versions(),
    }
    traced = trace(model)
    parity = measure(ExportGraph(model), traced.SerializeToString(), nodules=nodules, threads=threads)
    require(parity)
    described = with_metadata(
        public_graph(traced),
        {
            "name": identity.name,
            "version": identity.version,
            "license": identity.license,
            "intended_use": INTENDED_USE,
            "training": json.dumps(provenance, sort_keys=True),
            "parity": json.dumps(parity.to_dict(), sort_keys=True),
        },
    )
    try:
        onnx.checker.check_model(described, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    return ExportedModel(
        data=described.SerializeToString(deterministic=True),
        opset=opset_of(described),
        outputs=outputs_of(described),
        provenance=provenance,
        parity=parity,
    )
