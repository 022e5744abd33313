"""The case base in columns, and its files."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle_factory import tiny_cases
from nodule_diag.cases.case import Case
from nodule_diag.cases.files import parse_cases, to_columns, to_json
from nodule_diag.cases.retrieval import CaseIndex, build_index
from nodule_diag.cases.table import CaseTable
from nodule_diag.errors import BundleError

name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
score = st.floats(1, 5)
some_case = st.builds(
    Case,
    case_id=name,
    patient_id=name,
    label=st.sampled_from([0, 1]),
    label_source=st.sampled_from(["biopsy", "Verlaufskontrolle über 2 Jahre"]),
    label_certainty=st.sampled_from(["nodule", "patient"]),
    malignancy=st.floats(0, 1),
    expert_score=score,
    reader_scores=st.lists(score, max_size=4).map(tuple),
    diameter_mm=st.none() | st.floats(0.1, 100),
)


@settings(max_examples=40)
@given(st.lists(some_case, min_size=1, max_size=12, unique_by=lambda case: case.case_id))
def test_a_table_holds_the_cases_and_so_do_its_files(cases: list[Case]) -> None:
    expected = sorted(cases, key=lambda case: case.case_id)
    table = CaseTable.of(cases)
    assert list(table) == expected
    assert table[1:] == tuple(expected[1:])
    assert list(parse_cases(to_json(table), name="cases.json")) == expected
    columns = to_columns(table)
    assert list(parse_cases(columns, name="cases.npz")) == expected
    assert to_columns(CaseTable.of(cases[::-1])) == columns


def test_numpy_reads_the_columns() -> None:
    with np.load(io.BytesIO(to_columns(CaseTable.of(tiny_cases()))), allow_pickle=False) as stored:
        assert stored["case_ids"].tolist() == [case.case_id.encode() for case in tiny_cases()]
        assert stored["expert_score"].tolist() == [case.expert_score for case in tiny_cases()]


def test_a_table_is_a_sequence() -> None:
    table = CaseTable.of(tiny_cases())
    assert table[-1] == tiny_cases()[-1]
    with pytest.raises(IndexError):
        table[60]


def test_rows_by_the_names_of_cases_and_patients() -> None:
    table = CaseTable.of(tiny_cases())
    assert table.rows_named({"case-0007", "patient-0001", "case-0002", "nobody", "with\0nul", ""}).tolist() == [2, 3, 7]
    assert table.rows_named(set()).tolist() == []


def changed(**columns: Any) -> bytes:
    """``cases.npz`` of sixty good cases with some columns exchanged, or left out where None."""
    with np.load(io.BytesIO(to_columns(CaseTable.of(tiny_cases())))) as stored:
        content = {**stored, **columns}
    buffer = io.BytesIO()
    np.savez(buffer, **{column: values for column, values in content.items() if values is not None})
    return buffer.getvalue()


def column(name: str) -> np.ndarray:
    return np.array(getattr(CaseTable.of(tiny_cases()), name))


def put(name: str, row: int, value: object) -> dict[str, np.ndarray]:
    values = column(name)
    values[row] = value
    return {name: values}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (put("labels", 3, 2), "label of case 'case-0003'"),
        (put("malignancy", 3, 1.5), "malignancy of case 'case-0003'"),
        (put("malignancy", 3, np.nan), "malignancy of case 'case-0003'"),
        (put("expert_score", 3, 0.5), "expert_score of case 'case-0003'"),
        (put("diameter_mm", 3, -1.0), "diameter_mm of case 'case-0003'"),
        (put("diameter_mm", 3, np.inf), "diameter_mm of case 'case-0003'"),
        (put("patients", 3, 30), "patient of case 'case-0003'"),
        (put("sources", 3, -1), "label_source of case 'case-0003'"),
        (put("reader_scores", 3, 6.0), "score"),
        (put("reader_starts", 3, 100), "reader_starts"),
        (put("reader_starts", 60, 179), "reader_starts"),
        (put("case_ids", 3, b"case-0002"), "'case-0002' appears twice"),
        (put("case_ids", 3, b"case-0001"), "'case-0001' comes before its turn"),
        (put("case_ids", 0, b""), "empty"),
        (put("case_ids", 3, b"case-000\xff"), "UTF-8"),
        ({"case_ids": column("case_ids").astype("S9")}, "not ended"),
        ({"case_ids": column("case_ids").astype("S900")}, "wider"),
        ({"case_ids": column("case_ids").astype(str)}, "case_ids"),
        ({"labels": column("labels").astype(np.int64)}, "labels"),
        ({"labels": column("labels")[:-1]}, "labels has 59 rows for 60 cases"),
        ({"labels": column("labels")[None]}, "labels"),
        ({"labels": None}, "it holds"),
        ({"surprise": column("labels")}, "it holds"),
    ],
)
def test_columns_that_no_case_base_has(columns: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_cases(changed(**columns), name="index/cases.npz")
    assert caught.value.code == "bundle-index-invalid"
    assert "index/cases.npz" in caught.value.message
    assert told in caught.value.message


def test_bytes_that_are_no_columns() -> None:
    good = to_columns(CaseTable.of(tiny_cases()))
    compressed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    flipped = bytearray(good)
    flipped[200] ^= 1
    for data in (b"", b"{}", good[:-40], good[:100], bytes(flipped), compressed.getvalue()):
        with pytest.raises(BundleError) as caught:
            parse_cases(data, name="cases.npz")
        assert caught.value.code == "bundle-index-invalid"


def test_a_column_that_claims_to_be_huge() -> None:
    """The size in a header is compared with the bytes that are there before anything is allocated."""
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0"
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(changed())) as source, zipfile.ZipFile(data, "w") as target:
        for each in source.namelist():
            target.writestr(each, entry if each == "labels.npy" else source.read(each))
    with pytest.raises(BundleError, match="1000000000000"):
        parse_cases(data.getvalue(), name="cases.npz")


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"case_id": ["a", "a"]}, "twice"),
        ({"case_id": ["a", "b\0"]}, "NUL"),
        ({"label": [0]}, "rows"),
        ({"label": [0, 257]}, "label"),
        ({"malignancy": [0.5, -1.0]}, "malignancy"),
        ({"reader_scores": [()]}, "rows"),
    ],
)
def test_columns_from_a_caller(columns: dict[str, Any], told: str) -> None:
    good: dict[str, Any] = {
        "case_id": ["b", "a"],
        "patient_id": ["p", "p"],
        "label": [0, 1],
        "label_source": ["biopsy", "biopsy"],
        "certain": [True, False],
        "malignancy": [0.25, 0.5],
        "expert_score": [1.0, 5.0],
    }
    table = CaseTable.of_columns(**good)
    assert [case.case_id for case in table] == ["a", "b"]
    assert table[0].label == 1
    assert table[0].label_certainty == "patient"
    assert (table[0].reader_scores, table[0].diameter_mm) == ((), None)
    with pytest.raises(BundleError, match=told):
        CaseTable.of_columns(**{**good, **columns})


@pytest.mark.slow
def test_a_hundred_thousand_cases_of_which_a_third_are_copies() -> None:
    """Every answer is the exhaustive sort's, ties in the order of ids, where a model's certainty crowds the cases."""
    count, rng = 100_000, np.random.default_rng(0)
    logits = 3.0 * rng.normal(size=count)
    vectors = 1.0 / (1.0 + np.exp(-np.stack([logits, 0.4 * logits + 0.5 * rng.normal(size=count)], axis=1)))
    copies = rng.random(count) < 0.3
    vectors[copies] = vectors[rng.integers(0, count, copies.sum())]
    table = CaseTable.of_columns(
        case_id=[f"c{i:06}" for i in range(count)],
        patient_id=["p"] * count,
        label=np.zeros(count, dtype=int),
        label_source=["biopsy"] * count,
        certain=np.ones(count, dtype=bool),
        malignancy=vectors[:, 0],
        expert_score=1.0 + 4.0 * vectors[:, 1],
    )
    index = CaseIndex(build_index(table))
    stored = np.stack([table.malignancy, (table.expert_score - 1.0) / 4.0], axis=1).astype(np.float32)
    queries = np.concatenate([vectors[rng.integers(0, count, 150)], rng.random((50, 2))])
    for p, s in queries:
        query = np.array([p, (1 + 4 * s - 1) / 4], dtype=np.float32).astype(float)
        distances = np.sqrt(((stored.astype(float) - query) ** 2).sum(axis=1))
        expected = [f"c{i:06}" for i in np.lexsort((np.arange(count), distances))[:20]]
        similar = index.search("machine+expert", malignancy=float(p), expert_score=float(1 + 4 * s), k=20)
        assert [case.case_id for case in similar] == expected
