"""Adds the cases of a table to a case base, one CT at a time: the model's answer for each nodule, and its picture.

The cases of a finished CT are on disk. A CT that cannot be read or judged does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.cases.table import Listed
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.errors import BackendError, CoordinateError, NoduleDiagError, UsageError
from nodule_diag.results import UNCALIBRATED, Diagnosis, nodule_picture, png_bytes

PICTURE = "axial"
"""The name of a case's picture."""
PICTURE_EDGE = 192
"""Pixels: the axial plane under the CAM is at the lower left of :func:`nodule_picture`."""
PICTURE_BITS = 0xF8
"""Five bits per colour drop the noise of a CT, which halves the file: 10 to 20 KB, and never more than 108 KB."""


class Predicts(Protocol):
    """A model that gives P and score, such as a ``Diagnoser``."""

    def predict(self, ct: CTVolume, points: Sequence[tuple[float, float, float]], /) -> Sequence[Diagnosis]:
        """One diagnosis per point, LPS mm."""


class Failed(NamedTuple):
    """A case that could not be judged.

    Attributes:
        case_id: The case's id.
        path: Its CT.
        error: Why it could not be judged.
    """

    case_id: str
    path: Path
    error: NoduleDiagError


class Progress(NamedTuple):
    """How far the work is.

    Attributes:
        path: The CT that is opened next; None once all is done.
        done: CTs that are done.
        total: CTs in all.
    """

    path: Path | None
    done: int
    total: int


@dataclass
class Filled:
    """What happened to the cases of a table.

    Attributes:
        added: How many cases were added.
        there: How many cases were in the case base already.
        failed: The cases that could not be judged.
        warnings: Warnings about the cases that were judged, by id.
    """

    added: int = 0
    there: int = 0
    failed: list[Failed] = field(default_factory=list)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)


def fill(
    base: CaseBase,
    rows: Sequence[Listed],
    load: Callable[[], Predicts],
    *,
    pictures: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Filled:
    """Add the cases of a table; cases whose ids exist already are skipped.

    Args:
        base: A case base being edited, or in memory. The cases of a CT are added in one transaction.
        rows: The rows from :func:`read_case_table`.
        load: Returns the model; called when the model is needed.
        pictures: Whether to keep an axial picture of each nodule with its outline and the CAM.
        progress: Called before each CT, and at the end.

    Raises:
        BackendError: When the network fails. Cases added until then stay, as after any other end.
    """
    filled = Filled()
    cts: dict[Path | None, list[Listed]] = {None: []}
    known = set(base.numbers()[0])
    for row in rows:
        if row.case.case_id in known:
            filled.there += 1
        else:
            cts.setdefault(row.path, []).append(row)
    if given := [row.case for row in cts.pop(None)]:
        base.add(given)
        filled.added += len(given)
    model = load() if cts else None
    for done, (path, entries) in enumerate(cts.items()):
        if model is None or path is None:  # for the type checker: there is no CT without a path
            continue
        progress(Progress(path, done, len(cts)))
        cases: list[Case] = []
        drawn: dict[str, dict[str, bytes]] = {}
        for row, outcome in _judged(model, path, entries):
            name = row.case.case_id
            if isinstance(outcome, NoduleDiagError):
                filled.failed.append(Failed(name, path, outcome))
                continue
            cases.append(_case(row, outcome))
            if pictures:
                drawn[name] = {PICTURE: _picture(outcome)}
            if outcome.warnings:
                filled.warnings[name] = outcome.warnings
        base.add(cases, pictures=drawn)
        filled.added += len(cases)
    progress(Progress(None, len(cts), len(cts)))
    return filled


def add_to(base: CaseBase, rows: Sequence[Listed], load: Callable[[], Predicts], **how: object) -> Filled:
    """Check that existing cases agree with the table, then :func:`fill`; same arguments and errors.

    Raises:
        UsageError: ``case-table``, with every existing case that differs from the table.
    """
    there = base.ids_named({row.case.case_id for row in rows})
    same = {row.case.case_id: row for row in rows if row.case.case_id in there}
    faults = [
        f"case {case.case_id!r} is there with another {', '.join(other)}"
        for case in base.cases(sorted(same))
        if (other := differences(case, same[case.case_id]))
    ]
    if faults:
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise UsageError(
            f"{base.where} cannot take over the table: {'; '.join(faults[:20])}{more}",
            hint="remove those cases first (nodule-diag cases remove), or give the new ones ids of their own",
            code="case-table",
        )
    return fill(base, rows, load, **how)  # type: ignore[arg-type]


def replaced(base: CaseBase, rows: Sequence[Listed]) -> list[Listed]:
    """The cases of a base as rows that are to be judged again, at the positions that a table gives.

    Raises:
        UsageError: ``case-table``, with the cases that have no position in the table.
    """
    places = {row.case.case_id: row for row in rows if row.path is not None}
    cases = list(base)
    if missing := [case.case_id for case in cases if case.case_id not in places]:
        shown = ", ".join(missing[:20])
        raise UsageError(
            f"the table has no path, x, y and z of {len(missing)} of {len(cases)} cases: {shown}",
            hint="give the table that the case base was built from, or remove those cases first",
            code="case-table",
        )
    return [places[case.case_id]._replace(case=case) for case in cases]


def differences(case: Case, row: Listed) -> list[str]:
    """The fields in which a row differs from the case of the same id; P and score only if the row has them."""
    judged = {"malignancy", "expert_score"} if row.path is not None else set()
    names = (name for name in Case.model_fields if name not in judged)
    return [name for name in names if getattr(case, name) != getattr(row.case, name)]


def _judged(
    model: Predicts, path: Path, rows: Sequence[Listed]
) -> Iterator[tuple[Listed, Diagnosis | NoduleDiagError]]:
    """The model's answer for each nodule of a CT, or why there is none."""
    try:
        ct = read_ct(path)
    except Exception as error:  # noqa: BLE001 - one CT does not stop the others
        yield from ((row, _told(error)) for row in rows)
        return
    try:
        yield from zip(rows, model.predict(ct, [row.xyz_lps_mm for row in rows]), strict=True)
        return
    except BackendError:
        raise
    except Exception as error:  # noqa: BLE001
        if not isinstance(error, CoordinateError) or len(rows) == 1:
            yield from ((row, _told(error)) for row in rows)
            return
    for row in rows:  # one position is wrong: find it
        yield from _judged_in(model, ct, row)


def _judged_in(model: Predicts, ct: CTVolume, row: Listed) -> Iterator[tuple[Listed, Diagnosis | NoduleDiagError]]:
    try:
        yield row, model.predict(ct, [row.xyz_lps_mm])[0]
    except CoordinateError as error:
        yield row, error


def _told(error: Exception) -> NoduleDiagError:
    if isinstance(error, NoduleDiagError):
        return error
    if isinstance(error, MemoryError):
        return NoduleDiagError("not enough memory for this CT", hint="close other programs", code="out-of-memory")
    return NoduleDiagError(f"{type(error).__name__}: {error}", hint="this is a bug: report it", code="unforeseen")


def _case(row: Listed, diagnosis: Diagnosis) -> Case:
    malignancy = UNCALIBRATED.probability(diagnosis.logit)
    score = min(max(diagnosis.expert_score, 1.0), 5.0)
    return row.with_case(malignancy=malignancy, expert_score=score).case


def _picture(diagnosis: Diagnosis) -> bytes:
    """An axial picture of the nodule, PNG: the CT in the lung window, SegNet's outline, the CAM."""
    whole = nodule_picture(diagnosis.ct_planes, cam=diagnosis.cam, segmentation=diagnosis.segmentation)
    return png_bytes(np.ascontiguousarray(whole[-PICTURE_EDGE:, :PICTURE_EDGE] & PICTURE_BITS))
