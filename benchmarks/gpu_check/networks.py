"""The steps that run the bundle's network: the reference on the CPU, and every backend of the SDK against it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu_check.examine import FIELDS, Float, Infer, Way, examine, in_equal_parts, opened
from benchmarks.gpu_check.findings import Findings, IncompleteError, UnavailableError, in_words, lacks
from benchmarks.gpu_check.plan import MADE_UP, Settings
from nodule_diag.backends import TENSORRT, TENSORRT_RTX, create_backend, import_flavour, parse_device, probe_patch
from nodule_diag.bundle import Bundle, ReducedModel, write_bundle
from nodule_diag.errors import BackendError, UsageError
from nodule_diag.process import resolve_threads

PATCH_SHAPE = (2, 64, 64, 64)
PROVIDER_FILES = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")
"""The second file finds the first one's symbols if the first is already loaded."""
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, TENSORRT_RTX)}


def patches_of(settings: Settings) -> tuple[Float, str]:
    """The patches that the backends are compared on, and their description."""
    if settings.patches is None:
        rng = np.random.default_rng(0)
        bases = np.concatenate([probe_patch()] * MADE_UP[settings.device])
        # Each patch has its own brightness and contrast, and a moved ball: answers differ from patch to patch.
        for patch in bases:
            patch[:] = np.roll(patch, tuple(rng.integers(-16, 17, 3)), axis=(1, 2, 3)) * rng.uniform(0.3, 1.0)
            patch += rng.uniform(0.0, 0.3) * rng.random(PATCH_SHAPE, dtype=np.float32)
        return bases.clip(0.0, 1.0), f"{len(bases)} made-up patches"
    given = np.load(settings.patches, allow_pickle=False)
    if given.dtype != np.float32 or given.shape[1:] != PATCH_SHAPE or not len(given):
        raise UsageError(f"{settings.patches.name} is {given.dtype} of {given.shape}", hint="give (N, 2, 64, 64, 64)")
    return given, f"{len(given)} patches of {settings.patches.name}"


def reference(settings: Settings, findings: Findings) -> None:
    """The fp32 network on the CPU, in the first runtime that works; every other step compares with its answers."""
    bundle, (patches, what) = opened(settings), patches_of(settings)
    findings.add(bundle=bundle.manifest.name, bundle_sha256=bundle.sha256, patches=what)
    errors: dict[str, Exception] = {}
    runtimes: dict[str, Callable[[], Infer]] = {
        "onnxruntime": partial(_on_cpu, bundle, "onnxruntime"),
        "openvino": partial(_on_cpu, bundle, "openvino"),
        "torch": partial(_torch_on_cpu, bundle),
    }
    for name, load in runtimes.items():
        findings.doing(f"answers of {name} on the CPU")
        try:
            answers = in_equal_parts(load(), patches)
        except Exception as error:  # noqa: BLE001 - without any answers no backend could be judged
            errors[name] = error
            findings.add(passed_over={name: in_words(error) for name, error in errors.items()})
            continue
        np.savez(settings.reference, patches=patches, **{field: getattr(answers, field) for field in FIELDS})
        findings.add(backend=name, malignancy=[round(float(p), 6) for p in answers.malignancy])
        return
    words = "; ".join(map(in_words, errors.values()))
    raise UnavailableError(words) if all(map(lacks, errors.values())) else IncompleteError(words)


def _on_cpu(bundle: Bundle, name: str) -> Infer:
    return create_backend(bundle, name=name, device="cpu", precision="fp32", threads=resolve_threads()).infer


def _torch_on_cpu(bundle: Bundle) -> Infer:
    from benchmarks.gpu_check.torch_peer import eager_fp32

    return eager_fp32(bundle, device="cpu")


def backend(settings: Settings, findings: Findings, name: str, precision: str) -> None:
    """A backend of the SDK with CUDA graphs and without, from host memory to host memory."""
    if name in FLAVOURS:
        import_flavour(FLAVOURS[name])  # before its graph is made: its error is the one to report
    findings.doing(f"the {precision} graph")
    bundle = _holding(opened(settings), precision, settings)
    ways = [
        Way(
            name=f"{name}, CUDA graphs {'on' if graphs else 'off'}",
            precision=precision,
            load=partial(_load, bundle, name, precision, graphs=graphs, settings=settings),
        )
        for graphs in ((True, False) if settings.device == "cuda" else (False,))
    ]
    try:
        examine(settings, findings, ways, batches=settings.batches)
    except BackendError as error:
        if name == "onnxruntime" and error.code == "device-unavailable":
            findings.add(cuda_provider=_provider_says())
        raise


def _provider_says() -> str:
    """Why ONNX Runtime's CUDA provider does not load: ONNX Runtime only logs this, and the loader names the file."""
    from nodule_diag.backends import import_runtime

    folder = Path(str(import_runtime().__file__)).parent / "capi"
    try:
        for name in PROVIDER_FILES:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return "it loads"


def _load(bundle: Bundle, name: str, precision: str, *, graphs: bool, settings: Settings) -> Infer:
    from nodule_diag.backends import EngineCache

    device, threads = parse_device(settings.device), resolve_threads()
    if name == "onnxruntime":
        from nodule_diag.backends import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, device=device, threads=threads, cuda_graphs=graphs).infer
    from nodule_diag.backends import TensorRTBackend

    # One engine for both ways, and no engine in the user's cache.
    cache = EngineCache(settings.work / "engines")
    return TensorRTBackend(
        bundle,
        device=device,
        precision=precision,
        threads=threads,
        flavour=FLAVOURS[name],
        cache=cache,
        cuda_graphs=graphs,
    ).infer


def _holding(bundle: Bundle, precision: str, settings: Settings) -> Bundle:
    """The bundle with a graph of this precision: its own, or one made here, which this check then measures."""
    if precision == "fp32" or precision in bundle.manifest.model.reduced:
        return bundle
    import onnx

    from nodule_diag_export.graph import Precision, mixed_graph, opset_of

    model = bundle.manifest.model
    lowered: Precision = "bf16" if precision == "bf16" else "fp16"
    mixed = mixed_graph(onnx.load_from_string(bundle.read(model.file)), lowered)
    added = ReducedModel(file=f"{lowered}.onnx", opset=opset_of(mixed), parity={})
    reduced = {**model.reduced, lowered: added}
    manifest = bundle.manifest.model_copy(update={"model": model.model_copy(update={"reduced": reduced})})
    files = dict(bundle.files) | {added.file: mixed.SerializeToString()}
    return write_bundle(settings.work / f"bundle-{precision}", manifest=manifest, files=files)
