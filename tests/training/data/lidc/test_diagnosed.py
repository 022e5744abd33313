"""What is read from the shared tables, against the counts that their README states."""

from __future__ import annotations

from collections import Counter

import pandas
import pytest

from nodule_diag_training.data.lidc import diagnosed as lidc
from nodule_diag_training.data.lidc.diagnosed import load_nodules, sure_label
from nodule_diag_training.data.nodule import TrainingDataError, patients_of, split_by_patient


def test_labels_from_diagnoses():
    assert sure_label([], [], nodules=1) is None
    assert sure_label([1, 2], [2, 2], nodules=2) is None, "benign and malignant: whose is whose is unknown"
    certain = sure_label([2], [3], nodules=1)
    assert (certain.malignant, certain.method, certain.certainty) == (1, "surgical resection", "nodule")
    assert sure_label([1], [1], nodules=3).certainty == "patient"
    assert sure_label([3, 2], [4, 2], nodules=2).malignant == 1


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TrainingDataError, match=r"vois\.csv does not exist") as caught:
        load_nodules(tmp_path)
    assert "NODULE_DIAG_DATA" in caught.value.hint


@pytest.mark.real_data
def test_the_counts_are_those_of_the_data_readme(data_root):
    nodules = load_nodules(data_root)
    vois = [n for n in nodules if not n.is_cube]
    assert (len(vois), len(nodules) - len(vois)) == (874, 99)
    cohort = [n for n in vois if n.in_paper_cohort]
    assert Counter(int(n.mean_score + 0.5) for n in cohort) == {1: 66, 2: 73, 3: 241, 4: 91, 5: 50}
    sure = Counter((n.sure.certainty, n.sure.malignant) for n in vois if n.sure is not None)
    assert sure[("nodule", 1)] == 29
    assert sure[("nodule", 0)] == 16
    assert sum(sure.values()) == 142
    assert not {"LIDC-IDRI-0314", "LIDC-IDRI-0001"} & set(patients_of(nodules)), "the two CTs stay clean tests"


@pytest.mark.real_data
def test_folds_split_patients_and_spread_the_rare_nodules(data_root):
    nodules = load_nodules(data_root)
    folds = split_by_patient(nodules, folds=3, seed=0)
    assert sum(map(len, folds)) == len(set.union(*folds)) == len(patients_of(nodules))
    for fold in folds:
        held_out = [n for n in nodules if n.patient_id in fold]
        assert 28 <= sum(n.is_cube for n in held_out) <= 38
        assert sum(n.sure is not None and n.sure.malignant == 0 for n in held_out if not n.is_cube) >= 8


@pytest.mark.parametrize("cells", [(4, 1), (2, 9), ("biopsy", 2)])
def test_an_unknown_diagnosis_is_not_taken_for_a_malignant_one(cells, tmp_path, monkeypatch):
    table = pandas.DataFrame([["LIDC-IDRI-0001", 0, 0, "", *cells, *[0] * 8]])
    file = tmp_path / lidc.DIAGNOSIS_FILE
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr(pandas, "read_excel", lambda *_, **__: table)
    with pytest.raises(TrainingDataError, match="diagnosis"):
        lidc.read_diagnoses(tmp_path)
