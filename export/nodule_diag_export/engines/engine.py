"""Compiles an ONNX file or a bundle's network to an engine file, for a vendor that ships engines itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodule_diag.backends import (
    BUILD_EXTRA,
    EngineKey,
    Flavour,
    build_engine,
    import_flavour,
    import_pycuda,
    list_gpus,
    offered_capabilities,
    profile_name,
    profiles_up_to,
    write_engine,
)
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BackendError, MissingExtraError, UsageError
from nodule_diag_export.graph import INPUT

ANY = "any"
"""In the key of an engine that was built ahead of time: the engine belongs to no single GPU or driver."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """The network to compile.

    Attributes:
        data: The bytes of its ONNX file.
        precision: Precision of its convolutions.
        input_name: Its input, [B, 2, 64, 64, 64] float32.
    """

    data: bytes = field(repr=False)
    precision: str
    input_name: str


def network_of(source: Path | None, *, precision: str | None) -> Network:
    """The network of a bundle or of an ``.onnx`` file; only a file needs the onnx package, to find its precision.

    Args:
        source: An ``.onnx`` file, or a bundle; the packaged bundle when left out.
        precision: Which of the bundle's graphs; fp32 when left out. A file has one precision.

    Raises:
        UsageError: If the file cannot be read, or has another precision.
        BundleError: If the bundle is refused.
        BackendError: If the bundle has no graph of that precision.
        ExportError: If the file is not an ONNX file.
        MissingExtraError: If the source is a file and onnx is not installed.
    """
    if source is None or source.suffix != ".onnx":
        opened = Bundle.default() if source is None else Bundle.open(source)
        model, chosen = opened.manifest.model, precision or "fp32"
        return Network(data=opened.read(model.file_of(chosen)), precision=chosen, input_name=model.input.name)
    try:
        from nodule_diag_export.graph import parse_onnx, precision_of
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export") from error
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}", hint="name an ONNX file") from error
    found = precision_of(parse_onnx(data, name=source.name))
    if precision not in {None, found}:
        raise UsageError(
            f"{source.name} is a {found} graph, not {precision}",
            hint=f"make one first: nodule-diag export onnx SOURCE --precision {precision}",
        )
    return Network(data=data, precision=found, input_name=INPUT)


def export_engine(
    flavour: Flavour,
    network: Network,
    *,
    out: Path,
    capabilities: Sequence[str] = (),
    max_batch: int,
) -> EngineKey:
    """Compile a network and write the engine with its description; if this fails, nothing is written.

    Args:
        flavour: TensorRT, which needs the GPU that the engine is for, or TensorRT for RTX, which needs none.
        network: What to compile.
        out: The engine file.
        capabilities: For TensorRT for RTX: the compute capabilities; when left out, all that are offered from 8.0 on.
        max_batch: Largest batch of the second profile; 1 makes the static profile the only one.

    Returns:
        The key that is in the description.

    Raises:
        MissingExtraError: If the runtime is not installed.
        BackendError: If the runtime cannot build here.
        UsageError: For a compute capability that is not offered.
        OutputError: If the engine cannot be written.
    """
    trt = import_flavour(flavour, extra=BUILD_EXTRA if flavour.ahead_of_time else flavour.name)
    profiles = profiles_up_to(max_batch)
    if flavour.ahead_of_time:
        # Turing has no bf16 and shares no engine with later GPUs: it is built on its own, on request.
        targets = tuple(capabilities) or tuple(c for c in offered_capabilities(trt) if c != "7.5")
        machine = {"gpu": ANY, "driver": ANY, "compute_capability": "+".join(targets)}
    else:
        if capabilities:
            raise UsageError(
                "TensorRT builds for the GPU in this machine only",
                hint="leave --sm out, or use export tensorrt-rtx",
            )
        gpus = list_gpus(import_pycuda(flavour.name))
        if not gpus:
            raise BackendError("the NVIDIA driver shows no GPU", hint="run nvidia-smi", code="device-unavailable")
        targets = ()
        gpu = gpus[0]
        machine = {"gpu": gpu.name, "driver": gpu.driver, "compute_capability": gpu.compute_capability}
    built = build_engine(trt, network.data, input_name=network.input_name, profiles=profiles, capabilities=targets)
    key = EngineKey.model_validate(
        {
            "model_sha256": hashlib.sha256(network.data).hexdigest(),
            "runtime": flavour.name,
            "runtime_version": trt.__version__,
            "precision": network.precision,
            "profile": profile_name(profiles),
            **machine,
        }
    )
    write_engine(out, built.plan, key=key)
    return key
