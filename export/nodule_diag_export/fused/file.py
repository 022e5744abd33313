"""A network becomes a file that takes HU: merged, compared with the SDK, described, and only then written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from nodule_diag.bundle import Bundle, Manifest, ModelSpec, Preprocessing
from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes
from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph import opset_of, outputs_of, tensors_of, with_metadata
from nodule_diag_export.parity import TOLERANCE
from nodule_diag_export.winograd import winograd_graph

from .graph import HuType, fuse
from .parity import WINOGRAD_TOLERANCE, FusedParity, measure_fused

CONTRACT = "nodule-diag/fused/1"
"""Name of the contract of inputs and outputs in the file's metadata; ``docs/fused-graph.md`` has the contract."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A network that gets the preprocessing in front of it.

    Attributes:
        network: The bytes of its ONNX file.
        spec: Its tensors.
        preprocessing: The preprocessing that the network was trained with.
        bundle_sha256: Identifies the bundle of the network; None for a bare ONNX file.
        figures: The numbers that make probabilities of its outputs, as text by their key in the file.
    """

    network: bytes = field(repr=False)
    spec: ModelSpec
    preprocessing: Preprocessing
    bundle_sha256: str | None = None
    figures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedModel:
    """A fused graph that passed every check.

    Attributes:
        data: The bytes of the ONNX file.
        parity: Its difference from the SDK.
        inputs: Type and shape of every input, by name.
    """

    data: bytes = field(repr=False)
    parity: FusedParity
    inputs: dict[str, dict[str, object]]


def open_source(path: str | os.PathLike[str] | None, *, masked_input: bool | None = None) -> Source:
    """Read a bundle, or an ONNX file that ``nodule-diag export onnx`` wrote.

    Args:
        path: A bundle (a directory or a zip) or a ``.onnx`` file; the packaged bundle when left out.
        masked_input: Whether a bare ONNX file was trained on CT times lung mask (no when left out); a bundle says so
            itself.

    Raises:
        UsageError: For ``masked_input`` with a bundle.
        BundleError: If the bundle is damaged or altered.
        ExportError: If the file cannot be read.
    """
    if path is not None and Path(path).suffix == ".onnx":
        return _bare(Path(path), masked_input=bool(masked_input))
    if masked_input is not None:
        raise UsageError(
            "a bundle says itself whether its network was trained on CT x lung mask",
            hint="leave --masked-input and --no-masked-input out",
        )
    bundle = Bundle.default() if path is None else Bundle.open(path)
    manifest = bundle.manifest
    return Source(
        network=bundle.read(manifest.model.file),
        spec=manifest.model,
        preprocessing=manifest.preprocessing,
        bundle_sha256=bundle.sha256,
        figures=figures_of(manifest),
    )


def figures_of(manifest: Manifest) -> dict[str, str]:
    """The manifest's numbers that are applied after the network, each as text that gives the same number again.

    Returns:
        ``calibration_slope`` and ``calibration_intercept``, ``presence_scale``, ``presence_shift`` and
        ``presence_warn_below``, ``segmentation_threshold``; without those that the manifest lacks.
    """
    parts = {"segmentation": manifest.segmentation, "calibration": manifest.calibration, "presence": manifest.presence}
    return {
        f"{part}_{name}": repr(float(value))
        for part, spec in parts.items()
        if spec is not None
        for name, value in spec.model_dump().items()
    }


def _bare(path: Path, *, masked_input: bool) -> Source:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from error
    network = _parsed(data)
    spec = ModelSpec(opset=opset_of(network), outputs=outputs_of(network))
    return Source(network=data, spec=spec, preprocessing=Preprocessing(masked_input=masked_input))


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        network = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ExportError("the file is not an ONNX model", hint="give what nodule-diag export onnx wrote") from error
    if not network.opset_import or not network.graph.node:
        raise ExportError("the file is not an ONNX model", hint="give what nodule-diag export onnx wrote")
    return network


def fuse_model(source: Source, *, hu_type: HuType = "float32", winograd: bool = False, threads: int = 0) -> FusedModel:
    """Make the fused graph in memory, and measure it.

    Args:
        source: The network.
        hu_type: Type of the HU.
        winograd: Whether its convolutions are rewritten to take fewer products: faster on a CPU, equal up to rounding.
        threads: CPU threads for ONNX Runtime; 0 leaves it to the runtime.

    Raises:
        ExportError: If the network cannot be fused.
        BundleError: If its tensors are not those of a bundle's network.
        ParityError: If the fused graph's answers differ from the SDK's.
    """
    network = _parsed(source.network)
    kept = {entry.key: entry.value for entry in network.metadata_props}
    fused = fuse(winograd_graph(network) if winograd else network, source.spec, source.preprocessing, hu_type=hu_type)
    masked = source.preprocessing.masked_input
    parity = measure_fused(
        fused.SerializeToString(),
        source.network,
        spec=source.spec,
        masked_input=masked,
        hu_type=hu_type,
        tolerance=WINOGRAD_TOLERANCE if winograd else TOLERANCE,
        threads=threads,
    )
    inputs = tensors_of(list(fused.graph.input))
    facts = {
        "contract": CONTRACT,
        "source_model_sha256": hashlib.sha256(source.network).hexdigest(),
        "source_bundle_sha256": source.bundle_sha256 or "",
        "preprocessing": source.preprocessing.model_dump_json(),
        "inputs": json.dumps(inputs),
        "outputs": json.dumps(tensors_of(list(fused.graph.output))),
        "fused_parity": json.dumps(parity.to_dict()),
    }
    described = with_metadata(fused, kept | facts | source.figures)
    return FusedModel(data=described.SerializeToString(deterministic=True), parity=parity, inputs=inputs)


def export_fused(
    source: Source, out: Path, *, hu_type: HuType = "float32", winograd: bool = False, threads: int = 0
) -> FusedModel:
    """:func:`fuse_model` into a file, which appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
        ExportError: As :func:`fuse_model`, including ``ParityError``; BundleError likewise.
    """
    fused = fuse_model(source, hu_type=hu_type, winograd=winograd, threads=threads)
    write_bytes(out, fused.data)
    return fused
