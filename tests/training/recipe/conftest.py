"""A data folder of nine small patients, and of lung of two more."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from nodule_diag_training.data.lidc import diagnosed
from nodule_diag_training.evaluation import metrics
from tiny_data_folder import DIAGNOSES, write_data_folder


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """Nine patients with a VOI and a cube each, six of them diagnosed, and lung of two more."""
    root = tmp_path_factory.mktemp("data")
    write_data_folder(root)
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Few resamplings, and diagnoses in place of TCIA's spreadsheet: three patients benign, three malignant."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 5)
    monkeypatch.setattr(diagnosed, "read_diagnoses", lambda _: DIAGNOSES)
