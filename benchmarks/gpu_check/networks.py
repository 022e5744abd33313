"""The steps that run the bundle's network: the reference on the CPU, and every backend of the SDK against it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_check.findings import Findings, UnavailableError, WrongAnswerError
from benchmarks.gpu_check.plan import Settings
from benchmarks.measure import Plan, measure
from nodule_diag.backends import Backend, Outputs, parse_device
from nodule_diag.bundle import Bundle, write_bundle
from nodule_diag.errors import UsageError
from nodule_diag.manifest import ReducedModel
from nodule_diag.parity import BATCH, gate_of, infer_all, probe_patch

Float = NDArray[np.float32]
PATCH_SHAPE = (2, 64, 64, 64)
MADE_UP = 16
"""Patches where none are given."""
FIELDS = ("malignancy", "logit", "expert_score", "segmentation", "cam")


def opened(settings: Settings) -> Bundle:
    """The bundle."""
    return Bundle.default() if settings.bundle is None else Bundle.open(settings.bundle)


def patches_of(settings: Settings) -> tuple[Float, str]:
    """What the backends are compared on, and what it is."""
    if settings.patches is None:
        rng = np.random.default_rng(0)
        bases = np.concatenate([probe_patch()] * MADE_UP)
        # Brightness and contrast of each its own, and the ball moved: answers differ from patch to patch.
        for patch in bases:
            patch[:] = np.roll(patch, tuple(rng.integers(-16, 17, 3)), axis=(1, 2, 3)) * rng.uniform(0.3, 1.0)
            patch += rng.uniform(0.0, 0.3) * rng.random(PATCH_SHAPE, dtype=np.float32)
        return bases.clip(0.0, 1.0), f"{MADE_UP} made-up patches"
    given = np.load(settings.patches, allow_pickle=False)
    if given.dtype != np.float32 or given.shape[1:] != PATCH_SHAPE:
        raise UsageError(f"{settings.patches.name} is {given.dtype} of {given.shape}", hint="give (N, 2, 64, 64, 64)")
    return given, f"{len(given)} patches of {settings.patches.name}"


def reference(settings: Settings, findings: Findings) -> None:
    """The fp32 network in ONNX Runtime on the CPU, or in OpenVINO where only that is there; and the bundle's name."""
    from nodule_diag.backends import create_backend
    from nodule_diag.errors import BackendError
    from nodule_diag.threads import resolve_threads

    bundle, (patches, what) = opened(settings), patches_of(settings)
    findings.add(bundle=bundle.manifest.name, bundle_sha256=bundle.sha256, patches=what)
    reasons = []
    for name in ("onnxruntime", "openvino"):
        try:
            made = create_backend(bundle, name=name, device="cpu", precision="fp32", threads=resolve_threads())
        except BackendError as error:
            reasons.append(str(error))
            continue
        answers = infer_all(made, patches)
        np.savez(settings.work / "reference.npz", patches=patches, **{name: getattr(answers, name) for name in FIELDS})
        findings.add(backend=name, malignancy=[round(float(p), 6) for p in answers.malignancy])
        return
    raise UnavailableError("; ".join(reasons))


def stored_reference(settings: Settings) -> tuple[Float, Outputs]:
    """Patches and answers of the reference step."""
    path = settings.work / "reference.npz"
    if not path.is_file():
        raise UnavailableError("the step 'reference' gave no answers to compare with")
    with np.load(path) as stored:
        return stored["patches"], Outputs(**{name: stored[name] for name in FIELDS})


def differences(found: Outputs, wanted: Outputs, *, precision: str) -> dict[str, float]:
    """As :func:`nodule_diag.parity.compare`, without the case base: hnswlib needs a compiler to be installed."""
    certain = np.abs(wanted.logit) > 4.0 * gate_of(precision).malignancy
    return {
        "malignancy": float(np.abs(found.malignancy - wanted.malignancy).max()),
        "expert_score": float(np.abs(found.expert_score - wanted.expert_score).max()),
        "segmentation": _worst(found.segmentation - wanted.segmentation),
        "cam": _worst(found.cam[certain] - wanted.cam[certain]),
        "cams_compared": int(certain.sum()),
    }


def _worst(maps: Float) -> float:
    return float(np.abs(maps).mean(axis=(1, 2, 3)).max(initial=0.0))


def beyond_gate(figures: dict[str, float], *, precision: str) -> list[str]:
    """Which differences miss the gate of a precision."""
    gate = gate_of(precision)
    limits = {"malignancy": gate.malignancy, "expert_score": gate.expert_score}
    limits |= {"segmentation": gate.maps, "cam": gate.maps}
    return [
        f"{name} by {figures[name]:.2g} > {limit:g}" for name, limit in limits.items() if not figures[name] <= limit
    ]


def examine(
    settings: Settings,
    findings: Findings,
    *,
    way: str,
    precision: str,
    infer: Callable[[Float], Outputs],
    batches: tuple[int, ...] | None = None,
) -> list[str]:
    """Compare answers, then time every batch size; rows of ``parity`` and ``latency``.

    Args:
        settings: What was asked for.
        findings: Gets a row after each figure.
        way: What this is called.
        precision: What it computes in.
        infer: Answers to (N, 2, 64, 64, 64) patches in host memory, in host memory.
        batches: Others than asked for.

    Returns:
        Differences that miss their gate, in words.
    """
    patches, wanted = stored_reference(settings)
    found = _in_equal_parts(infer, patches)
    figures = differences(found, wanted, precision=precision)
    missed = beyond_gate(figures, precision=precision)
    findings.append("parity", {"way": way, "precision": precision, **figures, "beyond_gate": missed})
    for batch in batches or settings.batches:
        some = np.ascontiguousarray(np.resize(patches, (batch, *PATCH_SHAPE)))
        try:
            plan = Plan(warmup=3, window=5, budget_s=settings.budget_s)
            timing = measure(way, partial(infer, some), plan=plan)
        except Exception as error:  # noqa: BLE001 - out of memory at one size says nothing of the others
            findings.append("failures", {"way": way, "batch": batch, "reason": f"{type(error).__name__}: {error}"})
            continue
        row: dict[str, Any] = {"way": way, "precision": precision, "batch": batch}
        row |= {"p50_ms": timing.p50_ms, "p90_ms": timing.p90_ms, "p99_ms": timing.p99_ms, "calls": timing.calls}
        findings.append("latency", row | {"nodules_per_s": batch / timing.p50_ms * 1000.0, "settled": timing.settled})
    return missed


def _in_equal_parts(infer: Callable[[Float], Outputs], patches: Float) -> Outputs:
    """One batch size throughout: a compiler would compile for the last, smaller one again."""
    count = len(patches)
    whole = np.resize(patches, (-(-count // BATCH) * BATCH, *PATCH_SHAPE))
    parts = [infer(whole[start : start + BATCH]) for start in range(0, count, BATCH)]
    return Outputs(**{name: np.concatenate([getattr(part, name) for part in parts])[:count] for name in FIELDS})


def backend(settings: Settings, findings: Findings, name: str, precision: str) -> None:
    """A backend of the SDK with CUDA graphs and without, from host memory to host memory."""
    bundle = _holding(opened(settings), precision, settings)
    missed: list[str] = []
    for graphs in (True, False) if settings.device == "cuda" else (False,):
        made = _load(bundle, name, precision, graphs=graphs, settings=settings)
        way = f"{name}, CUDA graphs {'on' if graphs else 'off'}"
        missed += examine(settings, findings, way=way, precision=precision, infer=made.infer)
        del made
    if missed:
        raise WrongAnswerError("; ".join(missed))


def _load(bundle: Bundle, name: str, precision: str, *, graphs: bool, settings: Settings) -> Backend:
    from nodule_diag.engine_cache import EngineCache
    from nodule_diag.threads import resolve_threads

    device, threads = parse_device(settings.device), resolve_threads()
    if name == "onnxruntime":
        from nodule_diag.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, device=device, threads=threads, cuda_graphs=graphs)
    from nodule_diag.backends.tensorrt import TensorRTBackend
    from nodule_diag.engine_build import TENSORRT, TENSORRT_RTX

    flavour = next(flavour for flavour in (TENSORRT, TENSORRT_RTX) if flavour.name == name)
    # One engine for both ways, and none left behind in the user's cache.
    cache = EngineCache(settings.work / "engines")
    return TensorRTBackend(
        bundle, device=device, precision=precision, threads=threads, flavour=flavour, cache=cache, cuda_graphs=graphs
    )


def _holding(bundle: Bundle, precision: str, settings: Settings) -> Bundle:
    """The bundle with a graph of that precision: its own, or one made now, which this check then measures."""
    if precision == "fp32" or precision in bundle.manifest.model.reduced:
        return bundle
    import onnx

    from nodule_diag_export.mixed_precision import Precision, mixed_graph
    from nodule_diag_export.onnx_graph import opset_of

    model = bundle.manifest.model
    lowered: Precision = "bf16" if precision == "bf16" else "fp16"
    mixed = mixed_graph(onnx.load_from_string(bundle.read(model.file)), lowered)
    added = ReducedModel(file=f"{lowered}.onnx", opset=opset_of(mixed), parity={})
    reduced = {**model.reduced, lowered: added}
    manifest = bundle.manifest.model_copy(update={"model": model.model_copy(update={"reduced": reduced})})
    files = {name: bundle.read(name) for name in bundle.manifest.files} | {added.file: mixed.SerializeToString()}
    return write_bundle(settings.work / f"bundle-{precision}", manifest=manifest, files=files)
