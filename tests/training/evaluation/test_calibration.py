"""P against diagnoses: the fit against scikit-learn's, patients left out, and what the figures say."""

from __future__ import annotations

import json
import lzma

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from nodule_diag_training.cli import app
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.evaluation import calibration
from nodule_diag_training.evaluation.calibrate_command import read_diagnosed
from nodule_diag_training.evaluation.calibration import (
    SMALLEST_SLOPE,
    Diagnosed,
    balanced,
    calibration_section,
    cross_fitted,
    expected_calibration_error,
    fit_platt,
    sigmoid,
)


def made(count: int, *, slope: float, seed: int = 0, benign: float = 0.3) -> Diagnosed:
    """Nodules of two a patient, whose odds are the sigmoid of ``slope`` times the logit at a prior of one half."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, 20 * count)
    labels = (rng.random(len(logits)) < sigmoid(slope * logits)).astype(np.float64)
    keep = np.concatenate([np.flatnonzero(labels == 1)[: round(count * (1 - benign))],
                           np.flatnonzero(labels == 0)[: round(count * benign)]])  # fmt: skip
    names = [f"p{i // 2}" for i in range(len(keep))]
    return Diagnosed(case_ids=tuple(map(str, keep)), patients=tuple(names), logits=logits[keep], labels=labels[keep])


@pytest.mark.parametrize("slope", [0.3, 1.0, 2.0])
def test_the_fit_is_scikit_learns_on_platts_targets(slope):
    nodules = made(80, slope=slope)
    counts = np.random.default_rng(1).integers(0, 4, (3, 80)).astype(np.float64)
    slopes, intercepts = fit_platt(nodules.logits, nodules.labels, counts)
    for row in range(3):
        weights = balanced(counts[row], nodules.labels)
        malignant, benign = (float(counts[row][nodules.labels == kind].sum()) for kind in (1, 0))
        targets = np.where(nodules.labels == 1, (malignant + 1) / (malignant + 2), 1 / (benign + 2))
        # A target between 0 and 1 is that share of a malignant nodule and the rest of a benign one.
        twice = np.concatenate([weights * targets, weights * (1 - targets)])
        model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
        model.fit(np.tile(nodules.logits, 2)[:, None], np.repeat([1, 0], 80), sample_weight=twice * 80)
        assert slopes[row] == pytest.approx(model.coef_[0, 0], abs=1e-4)
        assert intercepts[row] == pytest.approx(model.intercept_[0], abs=1e-4)


def test_it_finds_the_slope_for_a_prior_of_one_half_whatever_the_share_of_malignant_ones():
    nodules = made(12000, slope=0.5, benign=0.2)
    (slope,), (intercept,) = fit_platt(nodules.logits, nodules.labels, np.ones((1, 12000)))
    assert slope == pytest.approx(0.5, abs=0.08)
    assert intercept == pytest.approx(0.0, abs=0.1)


def test_labels_that_say_the_opposite_do_not_turn_the_order():
    nodules = made(80, slope=-1.0)
    (slope,), (intercept,) = fit_platt(nodules.logits, nodules.labels, np.ones((1, 80)))
    assert slope == SMALLEST_SLOPE
    assert np.isfinite(intercept)


def test_separated_kinds_stay_finite_and_one_kind_is_no_number():
    logits, labels = np.array([-9.0, -8.0, 8.0, 9.0]), np.array([0.0, 0.0, 1.0, 1.0])
    (slope, none), (_, nothing) = fit_platt(logits, labels, np.array([[1.0] * 4, [0.0, 0.0, 1.0, 1.0]]))
    assert 0.0 < slope < 1.0
    assert np.isnan(none)
    assert np.isnan(nothing)


def test_no_patient_is_judged_by_a_fit_that_saw_it():
    nodules = made(80, slope=1.0)
    counts = np.random.default_rng(2).integers(0, 3, 40)[nodules.groups].astype(np.float64)
    (found,) = cross_fitted(nodules, counts[None])
    for own in range(40):
        mine = nodules.groups == own
        others = np.where(mine, 0.0, counts)[None]
        (slope,), (intercept,) = fit_platt(nodules.logits, nodules.labels, others)
        wanted = sigmoid(slope * nodules.logits[mine] + intercept)
        if counts[mine].any():
            np.testing.assert_allclose(found[mine], wanted, atol=1e-9)
        else:
            assert np.isnan(found[mine]).all()


def test_the_calibration_error_is_that_of_its_bins():
    labels = np.tile([0.0, 1.0], 50)
    weights = np.ones(100)
    assert expected_calibration_error(np.full(100, 0.5), labels, weights) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(np.full(100, 0.8), labels, weights) == pytest.approx(0.3)
    sure = np.where(labels == 1, 1.0, 0.0)
    assert expected_calibration_error(sure, labels, weights) == pytest.approx(0.0, abs=1e-12)
    # In the middle one of the five bins too many and too few cancel.
    assert expected_calibration_error(1 - sure, labels, weights) == pytest.approx(0.8)
    # A benign nodule that weighs three times as much: the malignant share of a bin falls.
    heavy = np.where(labels == 1, 1.0, 3.0)
    assert expected_calibration_error(np.full(100, 0.25), labels, heavy) == pytest.approx(0.0, abs=0.05)


def test_the_section_says_what_is_gained_on_patients_left_out(monkeypatch):
    monkeypatch.setattr(calibration, "BOOTSTRAP_DRAWS", 50)
    nodules = made(120, slope=0.2)
    section, slope, intercept, after = calibration_section(nodules, draws=50)
    rows = {}
    for row in section.rows:
        rows.setdefault(row.metric, row)
    half = balanced(np.ones(120), nodules.labels)
    raw = float((half * (sigmoid(nodules.logits) - nodules.labels) ** 2).sum())
    assert rows["Brier score of P, before"].value == pytest.approx(raw)
    assert rows["Brier score of P, after"].value == pytest.approx(float((half * (after - nodules.labels) ** 2).sum()))
    assert rows["Brier score of P, after"].value < raw
    assert rows["Slope"].value == slope
    assert rows["Slope"].low <= slope <= rows["Slope"].high
    assert rows["Expected calibration error, after"].value < rows["Expected calibration error, before"].value
    assert np.isfinite(intercept)


def report_of(nodules: Diagnosed) -> dict[str, object]:
    judgements = [
        {"case_id": case, "patient_id": patient, "label": int(label), "malignancy": float(p), "form": "voi"}
        for case, patient, label, p in zip(
            nodules.case_ids, nodules.patients, nodules.labels, sigmoid(nodules.logits), strict=True
        )
    ]
    cut = {**judgements[0], "form": "cube-cut", "malignancy": 0.0}
    unasked = {**judgements[0], "case_id": "nobody asked", "label": None}
    asked = {"machine": dict.fromkeys(nodules.case_ids, 0.5)}
    return {"judgements": [*judgements, cut, unasked], "retrieved": [asked]}


def test_the_command_reads_an_evaluation_and_writes_the_two_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "nodule_diag_training.evaluation.calibrate_command.calibration_section",
        lambda nodules: calibration_section(nodules, draws=20),
    )
    nodules = made(80, slope=0.5)
    file = tmp_path / "evaluation.json.xz"
    file.write_bytes(lzma.compress(json.dumps(report_of(nodules)).encode()))
    out = tmp_path / "calibration.json"
    result = CliRunner().invoke(app, ["calibrate", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    said = json.loads(out.read_text())
    (slope,), (intercept,) = fit_platt(nodules.logits, nodules.labels, np.ones((1, 80)))
    assert said["calibration"] == {"slope": pytest.approx(slope), "intercept": pytest.approx(intercept)}
    assert [nodule["case_id"] for nodule in said["nodules"]] == list(nodules.case_ids)
    assert "Brier score of P, after" in result.output
    assert str(tmp_path) not in out.read_text()
    first = out.read_bytes()
    CliRunner().invoke(app, ["calibrate", str(file), "--out", str(out)])
    assert out.read_bytes() == first


def test_what_is_no_evaluation_or_too_little_is_refused(tmp_path):
    file = tmp_path / "evaluation.json"
    file.write_text("[]")
    with pytest.raises(TrainingDataError, match="not a report of an evaluation"):
        read_diagnosed([file])
    nodules = made(80, slope=0.5)
    file.write_text(json.dumps(report_of(nodules)))
    assert len(read_diagnosed([file]).labels) == 80
    with pytest.raises(TrainingDataError, match="in two of the reports"):
        read_diagnosed([file, file])
    few = Diagnosed  # fewer than ten benign patients
    with pytest.raises(TrainingDataError, match="a calibration needs 10 patients"):
        few(case_ids=("a",), patients=("p",), logits=np.zeros(1), labels=np.ones(1))
