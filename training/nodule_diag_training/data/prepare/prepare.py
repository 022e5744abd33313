"""Fill a store: resume where the last run stopped, skip what cannot be read, and report what was skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nodule_diag.errors import CoordinateError, CTError
from nodule_diag_training.data.case import Case
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.regions import Region
from nodule_diag_training.data.store import NoduleStore

Extract = Callable[[Case], tuple[Case, Region]]


class Source(Protocol):
    """A CT or VOI and the nodules in it."""

    @property
    def name(self) -> str:
        """A readable name."""

    @property
    def cases(self) -> Sequence[Case]:
        """What is known of the source's nodules before it is read."""

    def files(self) -> Iterable[Path]:
        """The files that the source is read from.

        Raises:
            TrainingDataError: If there are none.
        """

    def open(self) -> Extract:
        """Read the source.

        Returns:
            A function that completes a case and cuts out its region.

        Raises:
            CTError: If the source cannot be read or must not be used.
            TrainingDataError: If the source cannot be used.
        """


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A nodule that is not in the store.

    Attributes:
        source: The nodule's CT.
        case_id: The nodule.
        code: Stable identifier of the error.
        message: What is wrong.
    """

    source: str
    case_id: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a preparation did.

    Attributes:
        added: Nodules that this run wrote.
        kept: Nodules that the store already held.
        failures: Nodules that could not be prepared.
    """

    added: int
    kept: int
    failures: tuple[Failure, ...]


def fingerprint(files: Iterable[Path]) -> str:
    """A digest that changes when a file is changed: SHA-256 of names, sizes and modification times.

    The content is not hashed: a resumed preparation would have to read all of LIDC-IDRI, 124 GB, before it can skip it.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        facts = file.stat()
        digest.update(f"{file.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def prepare(
    store: NoduleStore, sources: Iterable[Source], *, on_source: Callable[[Source], None] | None = None
) -> Summary:
    """Write the nodules of all sources that the store does not hold yet.

    Args:
        store: The store to fill.
        sources: The sources; each is read at most once, and only where one of its nodules is missing.
        on_source: Called after each source.

    Returns:
        What was done. A source or nodule that is refused goes into ``failures``, and the others continue.

    Raises:
        OutputError: If the store cannot be written.
    """
    added = kept = 0
    failures: list[Failure] = []
    for source in sources:
        waiting = list(source.cases)
        try:
            mark = fingerprint(source.files())
            waiting = [case for case in waiting if not store.holds(case, fingerprint=mark)]
            kept += len(source.cases) - len(waiting)
            extract = source.open() if waiting else None
        except (CTError, TrainingDataError) as error:
            failures += [_failure(source, case, error) for case in waiting]
            extract = None
        if extract is not None:
            for case in waiting:
                try:
                    complete, region = extract(case)
                    # The key is made from the case as requested, so that the next run finds it.
                    store.add(complete, region, fingerprint=mark)
                except (CoordinateError, TrainingDataError) as error:
                    failures.append(_failure(source, case, error))
                    continue
                added += 1
        if on_source is not None:
            on_source(source)
    return Summary(added=added, kept=kept, failures=tuple(failures))


def _failure(source: Source, case: Case, error: CTError | CoordinateError | TrainingDataError) -> Failure:
    return Failure(source=source.name, case_id=case.case_id, code=error.code, message=error.message)
