"""Filters of a case base: what they select, against plain Python, and what they must never do."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag.cases.where import MAX_CHARACTERS, MAX_DEPTH, parse_filter
from nodule_diag.errors import UsageError

CASES: list[dict[str, Any]] = [
    {"case_id": "a", "label": 1, "diameter_mm": 9.5, "free": {"age": 61, "sex": "F", "smoker status": "no"}},
    {"case_id": "b", "label": 0, "diameter_mm": None, "free": {"age": 60, "sex": "M"}},
    {"case_id": "c", "label": 1, "diameter_mm": 20.0, "free": {"age": "70", "sex": "F"}},
    {"case_id": "d", "label": 0, "diameter_mm": 4.0, "free": {}},
    {"case_id": "e", "label": 0, "diameter_mm": 6.0, "free": {"age": 72.5, "sex": "O'F"}},
]


@pytest.fixture(scope="module")
def table() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE cases (case_id TEXT, label INTEGER, diameter_mm REAL)")
    made.execute("CREATE TABLE free_columns (case_id TEXT, name TEXT, value)")
    for case in CASES:
        made.execute("INSERT INTO cases VALUES (?, ?, ?)", (case["case_id"], case["label"], case["diameter_mm"]))
        made.executemany(
            "INSERT INTO free_columns VALUES (?, ?, ?)", [(case["case_id"], *item) for item in case["free"].items()]
        )
    return made


def selected(table: sqlite3.Connection, text: str) -> str:
    found = parse_filter(text)
    rows = table.execute(f"SELECT case_id FROM cases WHERE {found.sql} ORDER BY 1", found.values)
    return "".join(row[0] for row in rows)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("age > 60", "ae"),  # the text '70' is not a number
        ("age >= 60 and sex = 'F'", "a"),
        ("age = '70'", "c"),
        ("sex = 'F' or label = 0", "abcde"),
        ("sex != 'F'", "be"),
        ("not sex = 'F'", "bde"),
        ("not (sex = 'F' or sex = 'M')", "de"),
        ("label = 1 and diameter_mm < 10", "a"),
        ("diameter_mm > 0", "acde"),
        ("age in (60, 61)", "ab"),
        ("sex in ('F', 'O''F')", "ace"),
        ("\"smoker status\" = 'no'", "a"),
        ("label=0 AND diameter_mm>=4.0", "de"),
        ("label = 0 or label = 1 and diameter_mm > 15", "bcde"),
        ("age > -1e3", "abe"),
    ],
)
def test_selects(table: sqlite3.Connection, text: str, ids: str) -> None:
    assert selected(table, text) == ids


@pytest.mark.parametrize(
    "text",
    [
        "", "age", "age >", "> 60", "age > 60 and", "age > 60 or or sex = 'F'", "(age > 60", "age > 60)", "age = F",
        "age > 60; DROP TABLE cases", "sex = 'F", "1 = 1", "age ~ 60", "age in ()", "age in (1", "sex = \"F\"",
        "age > 60 -- ", "not", "label = 1 union select 1", "(" * (MAX_DEPTH + 2) + "age > 1" + ")" * (MAX_DEPTH + 2),
        "a = 1" + " or a = 1" * 300, "x" * (MAX_CHARACTERS + 1), "age > \x00",
    ],
)  # fmt: skip
def test_refused_with_a_typed_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    assert caught.value.code == "where"
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_a_text_is_a_value_and_never_sql(text: str) -> None:
    quoted = text.replace("'", "''")
    found = parse_filter(f"sex = '{quoted}'")
    assert found.values == ("sex", text)
    assert found.sql == parse_filter("sex = 'F'").sql


@given(st.text(alphabet="age sx'F\"()<>=!,orandti;-16.\0é", max_size=40))
def test_nothing_but_a_usage_error(text: str) -> None:
    try:
        found = parse_filter(text)
    except UsageError:
        return
    assert found.sql.count("?") == len(found.values)
