"""Do the other backends answer as ONNX Runtime does? Measured on real nodules, and written into the bundle.

``Diagnoser.load(backend="auto")`` takes a backend only by these figures (:mod:`nodule_diag.backends.choice`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends import AUTO_ORDER, REFERENCE, backend_statuses, compare, create_backend, infer_all
from nodule_diag.bundle import Bundle, ParityRecord, write_bundle
from nodule_diag.cases import CaseIndex
from nodule_diag.errors import BackendError

Float = NDArray[np.float32]


def measure_backends(bundle: Bundle, patches: Float, *, threads: int) -> Iterator[ParityRecord]:
    """Compare every backend that works here, in every precision, with the fp32 network in ONNX Runtime on the CPU.

    Args:
        bundle: The bundle whose network is run and whose case base is searched.
        patches: [N, 2, 64, 64, 64] of real nodules.
        threads: CPU threads of a call, at least 1.

    Yields:
        The figures of one backend, device and precision, whether or not they pass.

    Raises:
        MissingExtraError: If onnxruntime is not installed.
        BackendError: If onnxruntime cannot serve.
    """
    cases = CaseIndex(bundle)
    reference = infer_all(
        create_backend(bundle, name=REFERENCE, device="cpu", precision="fp32", threads=threads), patches
    )
    versions = {status.name: status.version for status in backend_statuses() if status.usable}
    for candidate in AUTO_ORDER:
        if (candidate.backend, candidate.device) == (REFERENCE, "cpu") or candidate.backend not in versions:
            continue
        try:
            backend = create_backend(
                bundle,
                name=candidate.backend,
                device=candidate.device,
                precision=candidate.precision,
                threads=threads,
            )
        except BackendError:
            continue  # no such device or precision here: unmeasured figures are not recorded
        figures = compare(
            reference,
            infer_all(backend, patches),
            precision=candidate.precision,
            cases=cases,
            k=bundle.manifest.retrieval.k,
        )
        yield ParityRecord(
            backend=candidate.backend,
            device=candidate.device,
            precision=candidate.precision,
            runtime_version=versions[candidate.backend],
            **figures.model_dump(),
        )


def record_parity(bundle: Bundle, patches: Float, *, out: Path, threads: int) -> Bundle:
    """Write a copy of a bundle with the figures of this machine's backends; those of other backends are kept.

    Args:
        bundle: The bundle to measure.
        patches: [N, 2, 64, 64, 64] of real nodules.
        out: A directory or a ``.zip``; the bundle itself may be replaced.
        threads: CPU threads of a call, at least 1.

    Returns:
        The bundle as it was read back.

    Raises:
        BackendError: As :func:`measure_backends`.
        OutputError: If it cannot be written.
    """
    measured = tuple(measure_backends(bundle, patches, threads=threads))
    done = {_key(record) for record in measured}
    kept = tuple(record for record in bundle.manifest.parity if _key(record) not in done)
    manifest = bundle.manifest.model_copy(update={"parity": kept + measured})
    files = dict(bundle.files)
    return write_bundle(out, manifest=manifest, files=files)


def _key(record: ParityRecord) -> tuple[str, str, str]:
    return record.backend, record.device, record.precision
