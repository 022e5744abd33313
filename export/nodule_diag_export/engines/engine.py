"""Compiles an ONNX file or a bundle's network to an engine file, for a vendor that ships engines itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from nodule_diag.backends import (
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
from nodule_diag.errors import BackendError, UsageError
from nodule_diag_export.graph import INPUT, parse_onnx, precision_of

ANY = "any"
"""In the key of an engine that was built ahead of time: it belongs to no one GPU or driver."""


def network_of(source: Path, *, precision: str | None) -> tuple[bytes, str]:
    """The ONNX bytes and the precision of a file or bundle.

    Args:
        source: An ``.onnx`` file, or a bundle.
        precision: Of the bundle's graphs; fp32 when left out. A file has one precision.

    Raises:
        UsageError: If the file cannot be read, or has another precision.
        BundleError: If the bundle is refused.
        BackendError: If the bundle has no graph of that precision.
        ExportError: If the file is no ONNX file.
    """
    if source.suffix != ".onnx":
        opened = Bundle.open(source)
        chosen = precision or "fp32"
        return opened.read(opened.manifest.model.file_of(chosen)), chosen
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
    return data, found


def export_engine(
    flavour: Flavour,
    network: bytes,
    *,
    out: Path,
    precision: str,
    capabilities: Sequence[str] = (),
    max_batch: int,
) -> EngineKey:
    """Compile a network and write the engine with its description; nothing is written when that fails.

    Args:
        flavour: TensorRT, which needs the GPU that the engine is for, or TensorRT for RTX, which needs none.
        network: The ONNX bytes.
        out: The engine file.
        precision: Of the network, for its description.
        capabilities: For TensorRT for RTX: what to compile for; all that are offered from 8.0 when left out.
        max_batch: Largest batch of the second profile; 1 makes the static profile the only one.

    Returns:
        The key that stands in the description.

    Raises:
        MissingExtraError: When the runtime is not installed.
        BackendError: If it cannot build here.
        UsageError: For a compute capability that is not offered.
        OutputError: If it cannot be written.
    """
    trt = import_flavour(flavour)
    profiles = profiles_up_to(max_batch)
    if flavour.ahead_of_time:
        # Turing has no bf16 and no engine in common with later GPUs: it is built on its own, when asked for.
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
    built = build_engine(trt, network, input_name=INPUT, profiles=profiles, capabilities=targets)
    key = EngineKey.model_validate(
        {
            "model_sha256": hashlib.sha256(network).hexdigest(),
            "runtime": flavour.name,
            "runtime_version": trt.__version__,
            "precision": precision,
            "profile": profile_name(profiles),
            **machine,
        }
    )
    write_engine(out, built.plan, key=key)
    return key
