"""Table 2 of a case base, against a literal one with scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from bundle_factory import tiny_base, tiny_cases
from nodule_diag.cases.case import Case
from nodule_diag.cases.evaluation import CONFIDENCE, FIGURES, SEED, evaluate_cases
from nodule_diag.errors import CaseBaseError, UsageError
from nodule_diag.results.spaces import SPACES

NAN = math.nan


def literal_figures(label: list[int], score: list[float]) -> dict[str, float]:
    if not label:
        return dict.fromkeys(FIGURES, NAN)
    called = [int(one >= 0.5) for one in score]
    nan: Any = {"zero_division": np.nan}
    both = len(set(label)) == 2
    return {
        "sensitivity": recall_score(label, called, **nan),
        "specificity": recall_score(label, called, pos_label=0, **nan),
        "precision": precision_score(label, called, **nan),
        "precision_benign": precision_score(label, called, pos_label=0, **nan),
        "accuracy": accuracy_score(label, called),
        "auc": roc_auc_score(label, score) if both else NAN,
        "f1": f1_score(label, called, **nan),
    }


def literal_diagnoses(cases: list[Case], space: str, k: int) -> tuple[list[float], list[float]]:
    """Eq. 13 and 14 and the balanced form, word for word: every case among those of other patients."""

    def point(case: Case) -> np.ndarray:
        parts = {"machine": case.malignancy, "expert": (case.expert_score - 1) / 4}
        return np.array([parts[name] for name in space.split("+")], dtype=np.float32).astype(np.float64)

    plain, balanced = [], []
    for case in cases:
        others = [other for other in cases if other.patient_id != case.patient_id]
        others.sort(key=lambda other: (float(np.sqrt(((point(other) - point(case)) ** 2).sum())), other.case_id))
        near = [other.label for other in others[:k]]
        m, b = sum(near), len(near) - sum(near)
        big_m, big_b = sum(other.label for other in others), sum(1 - other.label for other in others)
        plain.append(m / len(near))
        balanced.append((m / big_m) / (m / big_m + b / big_b) if big_m and big_b else NAN)
    return plain, balanced


def literal(cases: list[Case], k: int, draws: int) -> dict[tuple[str, str], dict[str, tuple[float, float, float]]]:
    scores = {("malignancy", "plain"): [case.malignancy for case in cases]}
    for space in SPACES:
        scores[space, "plain"], scores[space, "balanced"] = literal_diagnoses(cases, space, k)
    patients = sorted({case.patient_id for case in cases})
    rng = np.random.default_rng(SEED)
    samples = [[patients[i] for i in rng.integers(len(patients), size=len(patients))] for _ in range(draws)]
    told: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {}
    for row, score in scores.items():
        known = [(case, one) for case, one in zip(cases, score, strict=True) if not math.isnan(one)]
        whole = literal_figures([case.label for case, _ in known], [one for _, one in known])
        drawn = []
        for sample in samples:
            pairs = [(case.label, one) for name in sample for case, one in known if case.patient_id == name]
            drawn.append(literal_figures([a for a, _ in pairs], [b for _, b in pairs]) if pairs else {})
        told[row] = {}
        for name, value in whole.items():
            finite = [draw[name] for draw in drawn if math.isfinite(draw.get(name, NAN))]
            tail = (1 - CONFIDENCE) / 2
            low, high = np.quantile(finite, [tail, 1 - tail]) if finite else (NAN, NAN)
            told[row][name] = (value, float(low), float(high))
    return told


some_cases = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=14
).filter(lambda rows: len({row[0] for row in rows}) > 1)


@settings(max_examples=15, deadline=None)
@given(some_cases, st.integers(1, 20))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_is_the_literal_table(rows: list[tuple[int, int, int, int]], k: int) -> None:
    cases = [
        Case(
            case_id=f"case-{number:02}", patient_id=f"p{patient}", label=label, label_source="biopsy",  # type: ignore[arg-type]
            label_certainty="nodule", malignancy=p / 10, expert_score=1 + 4 * score / 10,
        )
        for number, (patient, label, p, score) in enumerate(rows)
    ]  # fmt: skip
    found = evaluate_cases(tiny_base(cases), k=k, draws=6)
    malignant = sum(case.label for case in cases)
    assert {name: found[name] for name in ("count", "malignant", "patients", "base_rate", "k")} == {
        "count": len(cases), "malignant": malignant, "patients": len({case.patient_id for case in cases}),
        "base_rate": malignant / len(cases), "k": k,
    }  # fmt: skip
    expected = literal(cases, k, 6)
    assert [(row["method"], row["form"]) for row in found["rows"]] == list(expected)
    for row in found["rows"]:
        for name, values in expected[row["method"], row["form"]].items():
            told = [NAN if row[name][part] is None else row[name][part] for part in ("value", "low", "high")]
            np.testing.assert_allclose(told, values, atol=1e-12, err_msg=f"{row['method']} {row['form']} {name}")


def test_a_patients_own_nodules_never_help() -> None:
    """Two nodules of each patient are alike and of one kind; those of other patients say the opposite."""
    cases = [
        case.model_copy(
            update={"label": number // 2 % 2, "malignancy": 0.1 + 0.8 * (number // 2 % 2), "expert_score": 3.0}
        )
        for number, case in enumerate(tiny_cases(4))
    ]
    found = evaluate_cases(tiny_base(cases), k=2, draws=10)
    by = {(row["method"], row["form"]): row for row in found["rows"]}
    assert by["machine", "plain"]["accuracy"]["value"] == 0.0
    assert by["malignancy", "plain"]["accuracy"]["value"] == 1.0


def test_the_same_in_every_run() -> None:
    assert evaluate_cases(tiny_base(), draws=50) == evaluate_cases(tiny_base(), draws=50)


def test_what_cannot_be_evaluated() -> None:
    with pytest.raises(CaseBaseError) as caught:
        evaluate_cases(tiny_base([]))
    assert caught.value.code == "case-base-empty"
    with pytest.raises(UsageError, match="one patient"):
        evaluate_cases(tiny_base(tiny_cases(2)))
    with pytest.raises(UsageError, match="k is 0"):
        evaluate_cases(tiny_base(), k=0)
