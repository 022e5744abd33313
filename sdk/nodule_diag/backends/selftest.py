"""Runs every installed backend, in every precision, on made-up nodules, and judges the answers.

All answers are compared with the bundle's golden answers (:mod:`nodule_diag.backends.golden`), ONNX Runtime's included.
For a bundle without golden answers, ONNX Runtime's answers replace them; its own faults are not found then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nodule_diag.backends.backend import BackendStatus, Outputs
from nodule_diag.backends.choice import REFERENCE, create_backend
from nodule_diag.backends.golden import golden_patches, read_golden
from nodule_diag.backends.parity import compare, infer_all, misses
from nodule_diag.bundle import Bundle, ParityFigures, ParityRecord
from nodule_diag.cases import CaseIndex
from nodule_diag.errors import BundleError, NoduleDiagError

OWN_SEEDS = range(8)
"""Seeds of the nodules where the bundle names none."""
WRONG_HINT = "use another backend with --backend, and report this"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one backend on one device in one precision.

    Attributes:
        backend: Its name.
        runtime_version: The version of its runtime.
        device: The device, as the backend names it.
        precision: The requested precision.
        reason: Why it is not usable; empty when it is.
        hint: What to do about the reason.
        inference_ms: Time for one nodule, once warm; None where the backend did not run.
        figures: Differences from the wanted answers; None where there is nothing to compare with.
    """

    backend: str
    runtime_version: str
    device: str
    precision: str
    reason: str = ""
    hint: str = ""
    inference_ms: float | None = None
    figures: ParityFigures | None = None

    @property
    def usable(self) -> bool:
        """Whether it ran, and no fault was found in its answers."""
        return not self.reason


class SelfTest:
    """The nodules, the wanted answers, and how to try a backend.

    Args:
        bundle: The bundle to test.
        cases: Its case base, for the similar cases.
        threads: CPU threads of a call.
        quick: One nodule instead of all.

    Attributes:
        golden: Whether answers are compared with the bundle's golden answers.
        note: Why they are not; empty when they are.
        patches: The number of nodules.
    """

    def __init__(self, bundle: Bundle, cases: CaseIndex, *, threads: int, quick: bool = False) -> None:
        self._bundle, self._cases, self._threads = bundle, cases, threads
        try:
            stored, self.note = read_golden(bundle), "the bundle holds no golden answers"
        except BundleError as error:
            stored, self.note = None, error.message
        self.golden = stored is not None
        self._wanted: Outputs | None = None
        if stored is None:
            self._shown = golden_patches(OWN_SEEDS)
        else:
            (self._shown, self._wanted), self.note = stored, ""
        self.patches = 1 if quick else len(self._shown)
        self._shown = self._shown[: self.patches]

    def run(self, status: BackendStatus) -> tuple[Trial, ...]:
        """Try a backend on each of its devices in each of its precisions; the reference comes before the others."""
        return tuple(
            trial
            for device in status.devices
            for trial in _believed([self._try(status, device, precision) for precision in status.precisions])
        )

    def _try(self, status: BackendStatus, device: str, precision: str) -> Trial:
        tried = Trial(backend=status.name, runtime_version=status.version, device=device, precision=precision)
        try:
            backend = create_backend(
                self._bundle, name=status.name, device=device, precision=precision, threads=self._threads
            )
            found = infer_all(backend, self._shown)
            started = time.perf_counter()
            backend.infer(self._shown[:1])
        except NoduleDiagError as error:
            return replace(tried, reason=error.message, hint=error.hint)
        tried = replace(tried, inference_ms=round((time.perf_counter() - started) * 1000, 1))
        if self._wanted is None:
            # Compared with itself, the reference would always pass.
            self._wanted = found if (status.name, device) == (REFERENCE, "cpu") else None
            return tried
        wanted = self._wanted.first(self.patches)
        k = self._bundle.manifest.retrieval.k
        figures = compare(wanted, found, precision=precision, cases=self._cases, k=k)
        tried = replace(tried, figures=figures)
        if missed := misses(figures, precision=precision):
            right = "the golden one" if self.golden else f"that of {REFERENCE}"
            tried = replace(tried, reason=f"its answer is not {right}: {'; '.join(missed)}", hint=WRONG_HINT)
        return tried


def _believed(trials: Sequence[Trial]) -> Iterator[Trial]:
    """The trials of one device. A wrong fp32 answer fails the other precisions too, even within their wider gate."""
    wrong = any(t.precision == "fp32" and t.figures is not None and not t.usable for t in trials)
    for trial in trials:
        passed_by_width = wrong and trial.usable and trial.precision != "fp32"
        yield replace(trial, reason="its fp32 answer is wrong", hint=WRONG_HINT) if passed_by_width else trial


def records_of(trials: Sequence[Trial]) -> tuple[ParityRecord, ...]:
    """The measured figures, as :mod:`nodule_diag.backends.own_figures` keeps them.

    For the CPU all figures are kept, passed or not. For CUDA only failures are kept: the file does not say which GPU
    was used, so the figures can exclude a backend but cannot approve it on another GPU.
    """
    names = ("backend", "device", "precision", "runtime_version")
    return tuple(
        ParityRecord(**{name: getattr(trial, name) for name in names}, **trial.figures.model_dump())
        for trial in trials
        if trial.figures is not None and (trial.device == "cpu" or (trial.device == "cuda" and not trial.usable))
    )
