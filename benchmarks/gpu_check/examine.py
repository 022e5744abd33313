"""Parity and latency of the ways in which a step can run the network, against the answers of the reference step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_check.findings import Findings, IncompleteError, UnavailableError, WrongAnswerError, in_words
from benchmarks.gpu_check.plan import CALLS, Settings
from benchmarks.measure import Plan, measure
from nodule_diag.backends import GPU_BATCH, Outputs, gate_of
from nodule_diag.bundle import Bundle

Float = NDArray[np.float32]
Infer = Callable[[Float], Outputs]
"""Answers to (N, 2, 64, 64, 64) patches in host memory, in host memory."""
FIELDS = ("malignancy", "logit", "expert_score", "segmentation", "cam")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run the network.

    Attributes:
        name: Name of the way.
        precision: Precision that it computes in.
        load: Makes it ready; an error from it is the reason why this way cannot be used.
    """

    name: str
    precision: str
    load: Callable[[], Infer]


def stored_reference(settings: Settings) -> tuple[Float, Outputs]:
    """Patches and answers of the reference step."""
    path = settings.reference
    if not path.is_file():
        raise UnavailableError("the step 'reference' gave no answers to compare with")
    with np.load(path) as stored:
        return stored["patches"], Outputs(**{name: stored[name] for name in FIELDS})


def examine(settings: Settings, findings: Findings, ways: Sequence[Way], *, batches: Sequence[int]) -> None:
    """Load every way and compare its answers, then time each batch size in every way that could be loaded.

    Rows go into ``parity``, ``latency`` and ``failures`` as they come. The small batches of all ways come first, so
    that a step that is killed has some rows of each way.

    Raises:
        WrongAnswerError: If answers miss their gate.
        IncompleteError: If one of several ways failed; if all did, the first one's error is raised.
    """
    patches, wanted = stored_reference(settings)
    missed: list[str] = []
    errors: list[Exception] = []
    loaded: dict[Way, Infer] = {}
    for way in ways:
        findings.doing(f"loading {way.name} ({way.precision}) and comparing its answers")
        try:
            infer = way.load()
            figures = differences(in_equal_parts(infer, patches), wanted, precision=way.precision)
        except Exception as error:  # noqa: BLE001 - the other ways may work
            findings.append("failures", {"way": way.name, "reason": in_words(error)})
            errors.append(error)
            continue
        loaded[way] = infer
        beyond = beyond_gate(figures, precision=way.precision)
        findings.append("parity", {**_named(way), **_printable(figures), "beyond_gate": beyond})
        missed += [f"{way.name}: {words}" for words in beyond]
    if not loaded:
        raise errors[0]
    for batch in batches:
        some = np.ascontiguousarray(np.resize(patches, (batch, *patches.shape[1:])))
        for way, infer in loaded.items():
            findings.doing(f"timing batch {batch} of {way.name} ({way.precision})")
            _time(settings, findings, way, partial(infer, some), batch=batch)
    if missed:
        raise WrongAnswerError("; ".join(missed))
    if errors:
        raise IncompleteError("; ".join(f"{row['way']}: {row['reason']}" for row in findings.result["failures"]))


def _time(settings: Settings, findings: Findings, way: Way, call: Callable[[], Outputs], *, batch: int) -> None:
    warmup, window = CALLS[settings.device]
    try:
        timing = measure(way.name, call, plan=Plan(warmup=warmup, window=window, budget_s=settings.budget_s))
    except Exception as error:  # noqa: BLE001 - out of memory at one size says nothing of the others
        findings.append("failures", {"way": way.name, "batch": batch, "reason": in_words(error)})
        return
    row: dict[str, Any] = {**_named(way), "batch": batch, "p50_ms": timing.p50_ms, "p90_ms": timing.p90_ms}
    row |= {"p99_ms": timing.p99_ms, "calls": timing.calls, "settled": timing.settled}
    findings.append("latency", row | {"nodules_per_s": batch / timing.p50_ms * 1000.0})


def _named(way: Way) -> dict[str, str]:
    return {"way": way.name, "precision": way.precision}


def _printable(figures: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN and no infinity."""
    return {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}


def differences(found: Outputs, wanted: Outputs, *, precision: str) -> dict[str, float]:
    """As ``compare``, without the case base: hnswlib needs a compiler to be installed."""
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


def beyond_gate(figures: Mapping[str, float], *, precision: str) -> list[str]:
    """Which differences miss the gate of a precision."""
    gate = gate_of(precision)
    limits = {"malignancy": gate.malignancy, "expert_score": gate.expert_score}
    limits |= {"segmentation": gate.maps, "cam": gate.maps}
    return [
        f"{name} by {figures[name]:.2g} > {limit:g}" for name, limit in limits.items() if not figures[name] <= limit
    ]


def in_equal_parts(infer: Infer, patches: Float) -> Outputs:
    """Run the patches in equal batches: a compiler would compile again for a last, smaller batch."""
    count = len(patches)
    whole = np.resize(patches, (-(-count // GPU_BATCH) * GPU_BATCH, *patches.shape[1:]))
    parts = [infer(whole[start : start + GPU_BATCH]) for start in range(0, len(whole), GPU_BATCH)]
    return Outputs(**{name: np.concatenate([getattr(part, name) for part in parts])[:count] for name in FIELDS})


def opened(settings: Settings) -> Bundle:
    """The bundle to examine."""
    return Bundle.default() if settings.bundle is None else Bundle.open(settings.bundle)
