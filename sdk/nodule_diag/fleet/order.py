"""The order of a batch, in a form that can be sent to other processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nodule_diag.backends import require_views
from nodule_diag.cases import require_k
from nodule_diag.errors import UsageError
from nodule_diag.process import resolve_threads
from nodule_diag.results import require_prevalence

GIB = 2**30


@dataclass(frozen=True)
class BatchOptions:
    """How every CT is diagnosed; the fields are arguments of :meth:`Diagnoser.load` and :meth:`Diagnoser.predict`.

    Attributes:
        bundle: A bundle's path; None for the packaged one.
        cases: A case base's path; None for the bundle's own.
        where: A filter of the cases.
        backend: ``auto`` is resolved once, for all workers.
        device: As ``backend``.
        precision: As ``backend``.
        threads: Threads of each worker.
        symmetries: Views of each patch.
        k: How many similar cases; None for the bundle's number.
        prevalence: Share of malignant nodules that ``malignancy`` assumes; None for one half.
        check_lung: Whether to report if the positions lie in the lungs.
        redact: Whether to leave paths, file names and UIDs out of the results.
    """

    bundle: str | None = None
    cases: str | None = None
    where: str | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    symmetries: int = 1
    k: int | None = None
    prevalence: float | None = None
    check_lung: bool = True
    redact: bool = False

    def settled(self) -> BatchOptions:
        """These options with absolute paths, because other processes may have another working folder.

        Raises:
            UsageError: For invalid options.
        """
        resolve_threads(self.threads)
        require_views(self.symmetries)
        require_prevalence(self.prevalence)
        if self.k is not None:
            require_k(self.k)
        files = {name: getattr(self, name) for name in ("bundle", "cases")}
        places: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in files.items() if path is not None}
        return replace(self, **places)

    def as_chosen(self, runtime: dict[str, Any]) -> BatchOptions:
        """These options with the choice of ``auto`` in the first worker, for all other workers."""
        chosen = {name: str(runtime[name]) for name in ("backend", "device", "precision")}
        return replace(self, **chosen)  # type: ignore[arg-type] # all of them are text


@dataclass(frozen=True)
class Limits:
    """The limits of one CT; a CT beyond them is given up.

    Attributes:
        cpu_s: Seconds of CPU time; the limit of wall time is four times as long.
        memory_bytes: Memory that its worker may allocate beyond its memory when ready, on Linux.
    """

    cpu_s: int = 600
    memory_bytes: int = 1024 * GIB

    def __post_init__(self) -> None:
        if not 1 <= self.cpu_s <= 10**6 or not 2**20 <= self.memory_bytes <= 2**50:
            raise UsageError(
                f"a CT cannot be limited to {self.cpu_s} s and {self.memory_bytes:,} bytes",
                hint="give at least one second and 1 MiB",
            )


@dataclass(frozen=True)
class Order:
    """The data that a worker needs.

    Attributes:
        options: How to diagnose.
        limits: The limits of a CT.
        work: ``module:function`` of the child process, for :class:`nodule_diag.process.Children`.
        first: What the first worker loaded; None for the first worker.
    """

    options: BatchOptions
    limits: Limits
    work: str = "nodule_diag.fleet.judging:start"
    first: Mapping[str, Any] | None = None

    def load_request(self) -> dict[str, Any]:
        """The request that makes a child load its network."""
        return {"load": asdict(self.options)}
