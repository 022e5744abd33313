"""Runs a batch from its manifest to its table; a run after an interruption continues with the folder's answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from nodule_diag.errors import UsageError
from nodule_diag.fleet.folder import opened
from nodule_diag.fleet.local import LocalEngine
from nodule_diag.fleet.manifest import ListedCT, Manifest
from nodule_diag.fleet.order import BatchOptions, Limits, Order
from nodule_diag.fleet.summary import Summary
from nodule_diag.process import LOG
from nodule_diag.results import Redaction

PLANNED = ("k", "prevalence", "where", "check_lung", "redact")
"""Options that change an answer and are not part of bundle, case base or runtime."""


class Engine(Protocol):
    """Diagnoses CTs with processes of this machine, or of a cluster."""

    name: str
    workers: int

    def __enter__(self) -> Engine:
        """The engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """End all processes that the engine started."""

    def ready(self, order: Order) -> dict[str, Any]:
        """``bundle``, ``cases`` and ``runtime`` of a worker for this order."""

    def answers(self, cts: Sequence[ListedCT], order: Order) -> Generator[tuple[ListedCT, dict[str, Any]], None, None]:
        """The answer for each CT, as soon as it is ready."""


def _ray(workers: int | None) -> Engine:
    from nodule_diag.fleet.ray_actors import RayEngine

    return RayEngine(workers)


ENGINES: dict[str, Callable[[int | None], Engine]] = {"local": LocalEngine, "ray": _ray}
"""The engines by name; each takes a number of workers."""


@dataclass(frozen=True)
class Standing:
    """The progress of a batch.

    Attributes:
        done: CTs that have an answer, including answers of earlier runs.
        total: All CTs.
        failed: Done CTs with nodules that have no diagnosis.
        remaining_s: Time for the other CTs at the pace of this run so far; None until two CTs per worker are done.
    """

    done: int
    total: int
    failed: int
    remaining_s: float | None


def run_batch(
    manifest: Manifest,
    out: str | os.PathLike[str],
    options: BatchOptions | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    limits: Limits | None = None,
    retry_failed: bool = False,
    progress: Callable[[Standing], None] = lambda _: None,
    work: str = Order.work,
) -> Summary:
    """Diagnose the nodules of many CTs. Called again after an interruption, it continues where it stopped.

    A CT that cannot be read or diagnosed does not stop the others. A CT that ends its worker, or exceeds its limits, is
    tried once more, alone, and then given up. Both engines write the same bytes.

    Args:
        manifest: The result of :func:`read_manifest`.
        out: A folder for ``batch.json``, ``cts/NAME.json`` and ``results.csv``; docs/batch.md describes these files.
        options: How to diagnose.
        engine: ``local`` for processes of this machine, ``ray`` for those of a Ray cluster.
        workers: How many processes; as many as there are cores for their threads when left out.
        limits: The limits of one CT.
        retry_failed: Whether CTs that failed before are tried again.
        progress: Called when the workers are ready, and after each CT.
        work: The function of a worker's process.

    Raises:
        UsageError: For invalid options, and for an id that redaction would change.
        BundleError: When the bundle or the case base is refused.
        BackendError: When no worker can start; ``missing-extra`` for an engine that is not installed.
        OutputError: ``batch-other`` when the folder holds another batch, or the bundle or the case base changed during
            the batch; ``output-busy`` while another process writes to the folder; ``output-failed`` when the folder
            cannot be written.
    """
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}", hint=f"use one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it must be at least 1", hint="leave workers out to use as many as fit")
    chosen = (options or BatchOptions()).settled()
    if chosen.redact:
        _require_nameless_ids(manifest)
    order = Order(chosen, limits or Limits(), work)
    with (
        opened(Path(out), manifest, redact=chosen.redact) as folder,
        ENGINES[engine](workers) as staff,
    ):
        ready = staff.ready(order)
        plan = _plan(ready, chosen)
        folder.agree(plan)
        there = folder.keep(failed=not retry_failed)
        left = [ct for ct in manifest.cts if ct not in there]
        begin = perf_counter()
        order = replace(order, options=chosen.as_chosen(ready["runtime"]), first=ready)
        failed = len({one.result for one in folder.failures()})
        progress(Standing(len(there), len(manifest.cts), failed, None))
        if left:
            with closing(staff.answers(left, order)) as answers:
                for done, (ct, told) in enumerate(answers, start=1):
                    folder.write(ct, told, plan)
                    failed += bool(told["failed"])
                    pace = (perf_counter() - begin) / done if done >= 2 * staff.workers else None
                    rest = None if pace is None else pace * (len(left) - done)
                    progress(Standing(len(there) + done, len(manifest.cts), failed, rest))
        seconds = perf_counter() - begin
        folder.write_table()
        summary = Summary(
            cts=len(manifest.cts),
            nodules=len(manifest.rows),
            there=len(there),
            failed=folder.failures(),
            seconds=seconds,
            engine=staff.name,
            workers=staff.workers,
        )
    LOG.info("a batch of %d CTs is done, %d failures", summary.cts, len(summary.failed))
    return summary


def _require_nameless_ids(manifest: Manifest) -> None:
    """Refuse ids that redaction would change, because the answers are distinguished by these ids."""
    for ct in manifest.cts:
        said = ct.redaction.text
        for row, name in zip(ct.rows, ct.ids, strict=True):
            if said(name) != name:
                raise UsageError(
                    f"the id in row {row + 1} of the manifest's nodules holds a name that is to be left out",
                    hint="give an id that names no file, folder or UID, or leave the column id empty",
                )


def _plan(ready: dict[str, Any], options: BatchOptions) -> dict[str, Any]:
    """What all answers of a folder have in common. With redaction, the filter is hashed, because it may hold a name."""
    said = {name: getattr(options, name) for name in PLANNED}
    if not (options.redact and options.where):
        return {**ready, "options": said}
    said["where"] = hashlib.sha256(options.where.encode()).hexdigest()
    cases = ready["cases"] | {"where": Redaction().text(options.where)}
    return {**ready, "cases": cases, "options": said}
