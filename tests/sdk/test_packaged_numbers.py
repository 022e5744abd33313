"""What the packaged model says where there is a nodule, where there is none, and of what is not a lung."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nodule_diag.ct import CTVolume, chest_phantom, read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.results import Diagnosis
from nodule_diag.results.warning_texts import NO_NODULE, UNLIKE_TRAINING
from nodule_diag_training.evaluation.presence import random_lung_positions

ADENOCARCINOMA = (-56.94, 131.27, -520.6)
"""LIDC-IDRI-0314."""


@pytest.fixture(scope="module")
def diagnoser() -> Diagnoser:
    return Diagnoser.load(backend="onnxruntime", device="cpu")


def lung_of(ct: CTVolume, nodules: Sequence[Sequence[float]], count: int) -> list[tuple[float, float, float]]:
    found = random_lung_positions(ct, count=count, seed=0, nodules_xyz_mm=nodules)
    return [(float(x), float(y), float(z)) for x, y, z in found]


def share_of(found: Sequence[Diagnosis], warning: str) -> float:
    return float(np.mean([warning in diagnosis.warnings for diagnosis in found]))


def test_a_phantom_s_nodules_are_there_and_its_lung_holds_none(diagnoser):
    phantom = chest_phantom()
    nodules = [nodule.center_xyz_mm for nodule in phantom.nodules]
    found = diagnoser.predict(phantom.ct, [*nodules, *lung_of(phantom.ct, nodules, 12)])
    there, empty = found[: len(nodules)], found[len(nodules) :]
    assert share_of(there, NO_NODULE) == 0
    assert share_of(there, UNLIKE_TRAINING) == 0
    assert [one.segmentation.diameter_mm for one in there] == pytest.approx(
        [nodule.diameter_mm for nodule in phantom.nodules], abs=2.0
    )
    assert share_of(empty, NO_NODULE) >= 0.8
    assert max(one.presence or 0.0 for one in empty) < min(one.presence or 0.0 for one in there)


def test_noise_is_no_nodule_and_unlike_the_training(diagnoser):
    hu = np.random.default_rng(0).normal(-300, 500, (120, 120, 120)).clip(-1024, 2000).astype(np.int16)
    noise = CTVolume.from_array(hu, spacing_zyx_mm=(0.5, 0.5, 0.5), origin_xyz_mm=(0.0, 0.0, 0.0))
    found = diagnoser.predict(noise, [(x, y, 30.0) for x in (20.0, 30.0, 40.0) for y in (20.0, 30.0, 40.0)])
    assert share_of(found, NO_NODULE) >= 0.8
    assert share_of(found, UNLIKE_TRAINING) >= 0.5


@pytest.mark.slow
@pytest.mark.real_data
def test_random_places_in_a_patient_s_lung_hold_none(diagnoser, data_root: Path):
    """The patient belongs to no training set. 0.1.0 warned at 3 of 60 such places and found 5 mm at nearly each."""
    ct = read_ct(data_root / "ct" / "LIDC-IDRI-0314.nii.gz")
    nodule, *empty = diagnoser.predict(ct, [ADENOCARCINOMA, *lung_of(ct, [ADENOCARCINOMA], 60)])
    assert NO_NODULE not in nodule.warnings
    assert share_of(empty, NO_NODULE) >= 0.8
    assert np.median([one.segmentation.diameter_mm for one in empty]) == 0
    assert np.mean([one.malignancy < 0.6 for one in empty]) == 1
