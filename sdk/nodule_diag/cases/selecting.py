"""Cases that a filter selects (:mod:`nodule_diag.cases.where`): their ids, their rows, or a case base of only them."""

# ruff: noqa: S608 - what is pasted into a statement are names of this file, and a parsed filter whose values are bound

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from nodule_diag.bundle import Bundle
from nodule_diag.cases.base import COLUMNS, CaseBase
from nodule_diag.cases.where import OWN_COLUMNS, Filter, parse_filter
from nodule_diag.errors import UsageError

_ALL = Filter("1", (), frozenset())


def free_columns(base: CaseBase) -> list[str]:
    """Names of the free columns that any case has."""
    return [name for (name,) in base.fetch("SELECT DISTINCT name FROM free_columns ORDER BY 1")]


def matching(base: CaseBase, where: str | None = None) -> list[tuple[str, int]]:
    """Id and label of the cases that match a filter, or of all cases, ordered by id; the list may be empty.

    Raises:
        UsageError: ``where`` for a filter that cannot be read, or names a column that no case has.
    """
    found = _ALL if where is None else _parsed(base, where)
    return base.fetch(f"SELECT case_id, label FROM cases WHERE {found.sql} ORDER BY 1", found.values)


def selected(base: CaseBase, where: str) -> CaseBase:
    """A case base in memory of the cases that match a filter, with the name and hash of the whole base.

    Raises:
        UsageError: As :func:`matching`; ``where-matches-none``.
    """
    found = _parsed(base, where)
    made = base.keeping(found.sql, found.values)
    if not len(made):
        raise UsageError(
            f"no case of {base.where} matches {where!r}",
            hint="widen the filter; nodule-diag cases list shows the cases",
            code="where-matches-none",
        )
    made.condition = f"({base.condition}) and ({where})" if base.condition else where
    return made


def cases_where(where: str, cases: str | os.PathLike[str] | None = None, *, bundle: Bundle) -> CaseBase:
    """:func:`selected` for a case base file, or for the bundle's own; same errors, and those of opening the file."""
    base = CaseBase.of_bundle(bundle) if cases is None else CaseBase.open(cases)
    return selected(base.of_model(bundle), where)


def rows(base: CaseBase, case_ids: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The fields of :class:`Case` for some cases, or for all, as dicts of JSON types, ordered by id.

    The file was checked when it was opened. The values are not checked again.
    """
    names = (*COLUMNS, "reader_scores", "columns")
    made: dict[str, dict[str, Any]] = {}
    for row in base.having("cases", case_ids):
        made[row[0]] = dict(zip(names, (*row, [], {}), strict=True))
    for case_id, _, score in base.having("reader_scores", case_ids):
        made[case_id]["reader_scores"].append(score)
    for case_id, name, value in base.having("free_columns", case_ids):
        made[case_id]["columns"][name] = value
    yield from made.values()


def _parsed(base: CaseBase, where: str) -> Filter:
    found = parse_filter(where)
    known = free_columns(base) if found.free_columns else []
    if unknown := sorted(found.free_columns.difference(known)):
        raise UsageError(
            f"no case of {base.where} has a column {', '.join(unknown)}",
            hint=f"there are {', '.join((*OWN_COLUMNS, *known))}",
            code="where",
        )
    return found
