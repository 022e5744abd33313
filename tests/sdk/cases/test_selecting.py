"""Filtered case bases: against plain Python, and every figure of a prediction is of the filtered one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_factory import tiny_base, tiny_cases
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.cases.selecting import cases_where, matching, rows, selected
from nodule_diag.errors import CaseBaseError, UsageError

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"


def various() -> list[Case]:
    """Sixty cases; some lack a column, and one has a text where the others have a number."""
    made = []
    for number, case in enumerate(tiny_cases()):
        columns: dict[str, Any] = {"age": 40 + number % 7} if number % 5 else {}
        columns |= {"sex": "FM"[number % 2]} if number % 3 else {}
        columns |= {"age": "41"} if number == 20 else {}
        diameter = None if number % 4 == 0 else float(number)
        made.append(case.model_copy(update={"columns": columns, "diameter_mm": diameter}))
    return made


CASES = various()
BASE = tiny_base(CASES)


def value_of(case: Case, column: str) -> object:
    return getattr(case, column) if column in Case.model_fields else case.columns.get(column)


def compared(column: str, sign: str, value: object) -> tuple[str, Callable[[Case], bool]]:
    def holds(case: Case) -> bool:
        found = value_of(case, column)
        same_kind = isinstance(found, str) == isinstance(value, str)
        return found is not None and same_kind and SIGNS[sign](found, value)

    return f"{column} {sign} {value!r}", holds


one = st.builds(
    compared, st.sampled_from(["age", "label", "diameter_mm", "malignancy"]), st.sampled_from(sorted(SIGNS)),
    st.integers(0, 60) | st.sampled_from([0.5, 3.0]),
) | st.builds(
    compared, st.sampled_from(["sex", "case_id", "age"]), st.sampled_from(sorted(SIGNS)),
    st.sampled_from(["F", "M", "41", "case-0030", ""]),
)  # fmt: skip


def negated(part: tuple[str, Callable[[Case], bool]]) -> tuple[str, Callable[[Case], bool]]:
    return f"not ({part[0]})", lambda case: not part[1](case)


def joined(parts: list[Any], word: str) -> tuple[str, Callable[[Case], bool]]:
    how = all if word == "and" else any
    return f" {word} ".join(f"({text})" for text, _ in parts), lambda case: how(holds(case) for _, holds in parts)


expression = st.recursive(
    one,
    lambda inner: (
        inner.map(negated) | st.builds(joined, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["and", "or"]))
    ),
    max_leaves=5,
)


@given(expression)
def test_selects_what_plain_python_does(made: tuple[str, Callable[[Case], bool]]) -> None:
    text, holds = made
    expected = [case for case in CASES if holds(case)]
    assert matching(BASE, text) == [(case.case_id, case.label) for case in expected]
    if not expected:
        with pytest.raises(UsageError) as caught:
            selected(BASE, text)
        assert caught.value.code == "where-matches-none"
        return
    kept = selected(BASE, text)
    assert list(kept) == expected
    kept.verify()
    assert (kept.name, kept.model_sha256, kept.condition) == (BASE.name, BASE.model_sha256, text)
    index = CaseIndex(kept)
    malignant = sum(case.label for case in expected)
    assert (len(index), index.base_rate) == (len(expected), malignant / len(expected))
    assert (index.identity.count, index.identity.malignant, index.identity.where) == (len(expected), malignant, text)
    found = index.search("machine+expert", malignancy=0.5, expert_score=3.0, k=60)
    assert {case.case_id for case in found} == {case.case_id for case in expected}


def test_rows_are_what_a_case_says() -> None:
    assert list(rows(BASE)) == [{**case.model_dump(), "reader_scores": list(case.reader_scores)} for case in CASES]
    assert list(rows(BASE, ["case-0007", "case-0003"])) == [*rows(BASE)][3:8:4]


def test_a_file_keeps_its_hash_and_its_pictures(tmp_path: Path) -> None:
    BASE.save(tmp_path / "b.sqlite")
    with CaseBase.edit(tmp_path / "b.sqlite") as base:
        base.remove(["case-0001", "case-0002"])
        base.add(CASES[1:3], pictures={"case-0001": {"axial": PNG}, "case-0002": {"axial": PNG}})
    opened = CaseBase.open(tmp_path / "b.sqlite")
    kept = selected(selected(opened, "case_id <= 'case-0002'"), "label = 1 or case_id = 'case-0001'")
    assert kept.sha256 == opened.sha256
    assert kept.condition == "(case_id <= 'case-0002') and (label = 1 or case_id = 'case-0001')"
    assert kept.pictures("case-0001") == {"axial": PNG}
    assert kept.pictured == sum(case.case_id != "case-0000" for case in kept)
    assert len(opened) == 60
    # Of what is not a file, the hash is that of all its rows, as without a filter.
    assert selected(BASE, "label = 1").sha256 == BASE.digest()


def test_a_column_that_no_case_has_is_an_error_with_those_there_are() -> None:
    for ask in (matching, selected):
        with pytest.raises(UsageError, match=r"no case of .* has a column agee, weight") as caught:
            ask(BASE, "agee > 60 and (weight > 1 or sex = 'F')")
        assert caught.value.code == "where"
        assert caught.value.hint.startswith("there are case_id, ")
        assert caught.value.hint.endswith("age, sex")


def test_the_bundles_own_or_a_file_of_its_model(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert len(cases_where("label = 1", bundle=bundle)) == CaseBase.of_bundle(bundle).malignant
    BASE.save(tmp_path / "other.sqlite")
    with pytest.raises(CaseBaseError) as caught:
        cases_where("label = 1", tmp_path / "other.sqlite", bundle=bundle)
    assert caught.value.code == "case-base-other-model"
