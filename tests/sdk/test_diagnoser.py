"""The Diagnoser on a phantom chest, with a network whose answers follow from the patch by hand."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nodule_diag as nd
from bundle_factory import make_tiny_bundle, tiny_cases, tiny_model_in_numpy
from nodule_diag.backends.backend import Backend
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.bundle.calibration import PresenceSpec
from nodule_diag.cases.base import CaseBase
from nodule_diag.ct.gaps import SliceGap
from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag.ct.points import to_lps
from nodule_diag.ct.volume import CTVolume
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.preprocessing.lungs import lung_mask
from nodule_diag.preprocessing.patch import extract_patches
from nodule_diag.results.diagnosis import Diagnosis
from nodule_diag.results.prediction import prediction_document
from nodule_diag.results.presence import presence_evidence
from nodule_diag.results.prior import at_prevalence
from nodule_diag.results.segmentation import Segmentation
from nodule_diag.results.spaces import SPACES
from nodule_diag.results.warning_texts import NO_NODULE, NOTHING_SEGMENTED, OUTSIDE_LUNG, TOUCHES_EDGE, nodule_warnings

HEART = (20.0, -30.0, -180.0)
"""A point of the phantom's mediastinum: inside the CT, outside the lungs."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(spacing_zyx_mm=(2.5, 1.8, 1.8))


@pytest.fixture(scope="module")
def points(phantom: Phantom) -> list[tuple[float, float, float]]:
    return [nodule.center_xyz_mm for nodule in phantom.nodules]


@pytest.fixture(scope="module")
def diagnoser(tiny_bundle: Path) -> Diagnoser:
    return Diagnoser.load(tiny_bundle, device="cpu", threads=2)


@pytest.fixture(scope="module")
def diagnoses(diagnoser: Diagnoser, phantom: Phantom, points: list[tuple[float, float, float]]) -> list[Diagnosis]:
    return diagnoser.predict(phantom.ct, points)


def agree(first: Diagnosis, second: Diagnosis, tolerance: float = 1e-5) -> None:
    assert first.malignancy == pytest.approx(second.malignancy, abs=tolerance)
    assert first.expert_score == pytest.approx(second.expert_score, abs=tolerance)
    np.testing.assert_allclose(first.cam.values, second.cam.values, atol=1e-3)
    np.testing.assert_allclose(first.segmentation.values, second.segmentation.values, atol=1e-4)


def test_answers_are_the_networks_for_the_patch(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoses: list[Diagnosis]
) -> None:
    for patch, diagnosis in zip(extract_patches(phantom.ct, points), diagnoses, strict=True):
        expected = tiny_model_in_numpy(patch)
        assert diagnosis.malignancy == pytest.approx(expected["malignancy"], abs=1e-5)
        assert diagnosis.logit == pytest.approx(expected["logit"], abs=1e-5)
        assert diagnosis.expert_score == pytest.approx(expected["expert_score"], abs=1e-5)
        np.testing.assert_allclose(diagnosis.segmentation.values, expected["segmentation"], atol=1e-5)
        np.testing.assert_allclose(diagnosis.cam.values, expected["cam"], atol=1e-4)
        sem, cam = expected["segmentation"], expected["cam"]
        assert diagnosis.faithfulness.cam_nodule == pytest.approx((cam * sem).sum() / sem.sum(), abs=1e-4)
        assert diagnosis.faithfulness.cam_background == pytest.approx(
            (cam * (1 - sem)).sum() / (1 - sem).sum(), abs=1e-4
        )


def test_the_fields_of_a_diagnosis(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoses: list[Diagnosis]
) -> None:
    assert [diagnosis.id for diagnosis in diagnoses] == ["1", "2", "3"]
    cases = tiny_cases()
    rate = sum(case.label for case in cases) / len(cases)
    for point, diagnosis in zip(points, diagnoses, strict=True):
        assert diagnosis.xyz_lps_mm == pytest.approx(point)
        assert diagnosis.in_lung
        assert diagnosis.base_rate == pytest.approx(rate)
        assert (diagnosis.k, diagnosis.cases) == (20, 60)
        assert set(diagnosis.diagnosis) == set(diagnosis.similar) == {"machine", "expert", "machine+expert"}
        for space, similar in diagnosis.similar.items():
            assert len(similar) == 20
            assert diagnosis.diagnosis[space] == pytest.approx(sum(case.label for case in similar) / 20)
        assert diagnosis.cam.center_xyz_mm == pytest.approx(point)
        x, y, z = diagnosis.voxel_xyz
        near = np.array(phantom.ct.origin_xyz_mm) + np.array([x, y, z]) * np.array(phantom.ct.spacing_xyz_mm)
        assert np.all(np.abs(near - point) <= np.array(phantom.ct.spacing_xyz_mm) / 2 + 1e-6)


def test_a_nodule_in_free_lung_is_measured(phantom: Phantom, diagnoses: list[Diagnosis]) -> None:
    """The network's segmentation is the mediastinal window, so the phantom's solid ball comes out at its own size."""
    assert diagnoses[0].segmentation.diameter_mm == pytest.approx(phantom.nodules[0].diameter_mm, rel=0.15)
    assert diagnoses[0].warnings == ()


def test_one_call_equals_three(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser, diagnoses: list[Diagnosis]
) -> None:
    for point, together in zip(points, diagnoses, strict=True):
        agree(diagnoser.predict(phantom.ct, [point])[0], together)


def test_more_than_a_batch(
    phantom: Phantom,
    points: list[tuple[float, float, float]],
    diagnoser: Diagnoser,
    monkeypatch: pytest.MonkeyPatch,
    diagnoses: list[Diagnosis],
) -> None:
    monkeypatch.setattr(diagnoser._backend, "batch", 2)
    many = diagnoser.predict(phantom.ct, [*points, *points[:2]], ids=list("abcde"))
    assert [diagnosis.id for diagnosis in many] == list("abcde")
    for first, second in zip(many, [*diagnoses, *diagnoses[:2]], strict=True):
        agree(first, second)


def test_spaces(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser, diagnoses: list[Diagnosis]
) -> None:
    x, y, z = points[0]
    agree(diagnoser.predict(phantom.ct, [(-x, -y, z)], space="ras")[0], diagnoses[0])
    voxel = diagnoses[0].voxel_xyz
    by_voxel = diagnoser.predict(phantom.ct, [voxel], space="voxel")[0]
    assert by_voxel.voxel_xyz == voxel
    assert by_voxel.xyz_lps_mm == pytest.approx(to_lps(phantom.ct, [voxel], space="voxel")[0])


@pytest.mark.parametrize(("axes", "flips"), [((2, 1, 0), (False, False, True)), ((0, 2, 1), (True, True, False))])
def test_the_same_scan_stored_otherwise(
    phantom: Phantom,
    points: list[tuple[float, float, float]],
    diagnoser: Diagnoser,
    diagnoses: list[Diagnosis],
    axes: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
) -> None:
    ct = phantom.ct
    stored = np.flip(ct.hu, [axis for axis in range(3) if flips[axis]]).transpose(axes)
    signs = np.where(flips, -1.0, 1.0)  # of z, y, x
    first = np.where(flips, np.array(ct.hu.shape) - 1, 0) * np.array(ct.spacing_zyx_mm)
    columns = (np.eye(3)[::-1] * signs[:, None])[list(axes)]  # row per new array axis, in LPS xyz
    again = CTVolume.from_array(
        stored,
        spacing_zyx_mm=tuple(ct.spacing_zyx_mm[axis] for axis in axes),
        origin_xyz_mm=tuple(np.array(ct.origin_xyz_mm) + first[::-1]),
        direction=columns[::-1].T,
    )
    for first_result, second_result in zip(diagnoser.predict(again, points), diagnoses, strict=True):
        agree(first_result, second_result)
        assert first_result.xyz_lps_mm == pytest.approx(second_result.xyz_lps_mm)
        assert first_result.in_lung == second_result.in_lung


def test_masked_input_is_obeyed_both_ways(
    tmp_path: Path, phantom: Phantom, points: list[tuple[float, float, float]]
) -> None:
    """The juxta-pleural nodule: chest wall in the cube is what the mask takes away."""
    point = [points[1]]
    mask = lung_mask(phantom.ct)
    answers = {}
    for masked in (False, True):
        loaded = Diagnoser.load(make_tiny_bundle(tmp_path / str(masked), masked_input=masked), device="cpu")
        answers[masked] = loaded.predict(phantom.ct, point)[0]
        patch = extract_patches(phantom.ct, point, lung_mask=mask if masked else None)[0]
        assert answers[masked].logit == pytest.approx(tiny_model_in_numpy(patch)["logit"], abs=1e-5)
    assert answers[True].logit < answers[False].logit - 0.1


def test_outside_the_lung_is_diagnosed_with_a_warning(phantom: Phantom, diagnoser: Diagnoser) -> None:
    diagnosis = diagnoser.predict(phantom.ct, [HEART])[0]
    assert not diagnosis.in_lung
    assert OUTSIDE_LUNG in diagnosis.warnings
    assert TOUCHES_EDGE in diagnosis.warnings  # soft tissue all round


@pytest.mark.parametrize(
    ("own_cases", "asked", "wanted"),
    [(False, "auto", "auto"), (True, "auto", "fp32"), (True, "bf16", "bf16"), (False, "bf16", "bf16")],
)
def test_figures_of_a_reduced_precision_are_of_the_bundles_cases(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, own_cases: bool, asked: str, wanted: str
) -> None:
    """With a case base of one's own nobody has measured whether the similar cases stay the same."""
    create, seen = nd.diagnoser.create_backend, []

    def noted(bundle: Bundle, **options: Any) -> Backend:
        seen.append(options["precision"])
        return create(bundle, **options | {"precision": "fp32"})

    monkeypatch.setattr(nd.diagnoser, "create_backend", noted)
    base = CaseBase.of_bundle(Bundle.open(tiny_bundle)) if own_cases else None
    Diagnoser.load(tiny_bundle, cases=base, device="cpu", precision=asked, threads=1)
    assert seen == [wanted]


def test_a_gap_between_the_slices_is_kept_away_from(
    phantom: Phantom, diagnoser: Diagnoser, points: list[tuple[float, float, float]]
) -> None:
    """Of two nodules, the one within 26 mm of the gap is refused by its place; the other alone is diagnosed."""
    near, far = points[0], max(points, key=lambda point: abs(point[2] - points[0][2]))
    middle = (near[2] - phantom.ct.origin_xyz_mm[2]) / 2.5 + (8 if near[2] > far[2] else -8)  # 20 mm away
    gapped = replace(phantom.ct, gaps=(SliceGap(2, middle - 1, middle + 1, 5.0),))
    with pytest.raises(nd.CoordinateError, match="a gap of 5 mm, where the nodule's cube of 32 mm") as caught:
        diagnoser.predict(gapped, [far, near])
    assert (caught.value.code, caught.value.exit_code) == ("coordinate-near-gap", 3)
    agree(diagnoser.predict(gapped, [far])[0], diagnoser.predict(phantom.ct, [far])[0])


def test_outside_the_volume(phantom: Phantom, diagnoser: Diagnoser, points: list[tuple[float, float, float]]) -> None:
    with pytest.raises(nd.CoordinateError, match="900") as caught:
        diagnoser.predict(phantom.ct, [points[0], (900.0, 0.0, -100.0)])
    assert "lies in the lungs" not in caught.value.hint
    with pytest.raises(nd.CoordinateError):
        diagnoser.predict(phantom.ct, [(np.nan, 0.0, -100.0)])


def test_ras_given_as_lps_is_recognised(
    phantom: Phantom, diagnoser: Diagnoser, points: list[tuple[float, float, float]]
) -> None:
    """On a CT whose patient lies well behind the origin, mirrored points fall outside of it."""
    ct, (x, y, z) = phantom.ct, points[0]
    origin_x, origin_y, origin_z = ct.origin_xyz_mm
    behind = CTVolume.from_array(
        ct.hu, spacing_zyx_mm=ct.spacing_zyx_mm, origin_xyz_mm=(origin_x, origin_y + 300.0, origin_z)
    )
    with pytest.raises(nd.CoordinateError) as caught:
        diagnoser.predict(behind, [(-x, -(y + 300.0), z)])
    assert "--space ras" in caught.value.hint
    assert "lies in the lungs" in caught.value.hint


def test_arguments(phantom: Phantom, diagnoser: Diagnoser, points: list[tuple[float, float, float]]) -> None:
    ct = phantom.ct
    with pytest.raises(nd.UsageError, match="no points"):
        diagnoser.predict(ct, [])
    with pytest.raises(nd.UsageError, match="k is 0"):
        diagnoser.predict(ct, points, k=0)
    for k in ("20", 2.5, True, [3]):
        with pytest.raises(nd.UsageError, match=r"k is .*whole number"):
            diagnoser.predict(ct, points, k=k)  # type: ignore[arg-type]
    with pytest.raises(nd.UsageError, match=r"'0\.05'"):
        diagnoser.predict(ct, points, prevalence="0.05")  # type: ignore[arg-type]
    found = diagnoser.predict(ct, points[:1], k=np.int64(3), prevalence=np.float32(0.25))  # type: ignore[arg-type]
    assert json.loads(json.dumps(found[0].to_dict()))["retrieval"]["k"] == 3
    with pytest.raises(nd.UsageError, match="2 points"):
        diagnoser.predict(ct, points[:2], ids=["a"])
    with pytest.raises(nd.UsageError, match="'a', 'a'"):
        diagnoser.predict(ct, points[:2], ids=["a", "a"])
    with pytest.raises(nd.UsageError, match="lbs"):
        diagnoser.predict(ct, points, space="lbs")  # type: ignore[arg-type]
    with pytest.raises(nd.CoordinateError):
        diagnoser.predict(ct, points[0])  # one point without its list


def test_k_and_exclusion(phantom: Phantom, diagnoser: Diagnoser, points: list[tuple[float, float, float]]) -> None:
    few = diagnoser.predict(phantom.ct, points[:1], k=3)[0]
    assert few.k == 3
    assert {len(similar) for similar in few.similar.values()} == {3}
    own = few.similar["machine"][0].patient_id
    prediction = diagnoser.predict_timed(phantom.ct, points[:1], k=1000, exclude=[own])
    (without,) = prediction.diagnoses
    labels = [case.label for case in without.similar["machine"]]
    assert (without.cases, prediction.cases.count, prediction.cases.malignant) == (58, 58, sum(labels))
    assert without.base_rate == without.diagnosis["machine"] == pytest.approx(sum(labels) / 58)
    assert list(without.diagnosis_balanced.values()) == pytest.approx([0.5] * 3), "all cases, as if half were malignant"
    for similar in without.similar.values():
        assert len(similar) == 58
        assert own not in {case.patient_id for case in similar}


def test_several_threads_and_two_diagnosers(
    phantom: Phantom,
    points: list[tuple[float, float, float]],
    diagnoser: Diagnoser,
    tiny_bundle: Path,
    diagnoses: list[Diagnosis],
) -> None:
    second = Diagnoser.load(tiny_bundle, device="cpu", threads=1)
    answers: dict[int, list[Diagnosis]] = {}

    def work(number: int) -> None:
        answers[number] = (diagnoser, second)[number % 2].predict(phantom.ct, points)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(4):
        for first, expected in zip(answers[number], diagnoses, strict=True):
            agree(first, expected)


def test_document(phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser) -> None:
    prediction = diagnoser.predict_timed(phantom.ct, points)
    document = json.loads(json.dumps(prediction_document(phantom.ct, prediction, read_ms=12.5), allow_nan=False))
    assert document["schema"] == "nodule-diag/prediction/1"
    assert document["ct"]["orientation"] == "LPS"
    assert document["ct"]["size_xyz"] == list(phantom.ct.size_xyz)
    assert document["bundle"] == {"name": "tiny", "version": "1.0.0", "sha256": diagnoser.bundle.sha256}
    assert document["runtime"] == {
        "sdk_version": nd.__version__,
        "backend": "onnxruntime",
        "device": "cpu",
        "precision": "fp32",
        "threads": 2,
        "symmetries": 1,
    }
    timing = document["timing_ms"]
    assert set(timing) == {"read", "lung_mask", "patch", "inference", "retrieval", "total"}
    assert timing["read"] == 12.5
    assert all(value > 0 for value in timing.values())
    assert timing["total"] >= sum(value for stage, value in timing.items() if stage != "total") - 0.01
    nodule = document["nodules"][0]
    assert set(nodule) >= {
        "id", "xyz_lps_mm", "voxel_xyz", "in_lung", "malignancy", "expert_score", "diagnosis", "similar",
        "segmentation", "faithfulness", "warnings", "base_rate", "retrieval",
    }  # fmt: skip
    assert set(nodule["similar"]["expert"][0]) >= {"case_id", "distance", "label", "malignancy", "expert_score"}


def test_document_fits_the_published_schema(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(nd.__file__).parent / "schemas" / "prediction-1.json"
    prediction = diagnoser.predict_timed(phantom.ct, [*points, HEART])
    jsonschema.validate(prediction_document(phantom.ct, prediction), json.loads(schema.read_text()))


def test_warnings_of_a_segmentation() -> None:
    def words(values: np.ndarray) -> str:
        return " ".join(nodule_warnings(True, Segmentation(values, (0.0, 0.0, 0.0), np.eye(3))))

    empty = np.zeros((16, 16, 16), np.float32)
    assert words(empty) == NOTHING_SEGMENTED
    aside = empty.copy()
    aside[7:9, 7:9, 12:14] = 1.0
    assert "9.0 mm from the position" in words(aside) or "8." in words(aside)
    aside[7:9, 7:9, 7:14] = 1.0
    assert words(aside) == ""


def test_a_bundle_may_be_given_open_or_as_a_path(tiny_bundle: Path, tmp_path: Path) -> None:
    opened = nd.Bundle.open(tiny_bundle)
    assert Diagnoser.load(opened).bundle is opened
    assert Diagnoser.load(make_tiny_bundle(tmp_path / "b.zip").path).bundle.sha256 == opened.sha256
    assert Diagnoser.load(str(tiny_bundle), threads=1).runtime.threads == 1


def test_symmetries_average_the_views_and_are_reported(
    tiny_bundle: Path, diagnoser: Diagnoser, phantom: Phantom, points: list[tuple[float, float, float]]
) -> None:
    flips = Diagnoser.load(tiny_bundle, device="cpu", threads=2, symmetries=8)
    assert (flips.runtime.symmetries, diagnoser.runtime.symmetries) == (8, 1)
    prediction = flips.predict_timed(phantom.ct, points[:1])
    (one,), (mean,) = diagnoser.predict(phantom.ct, points[:1]), prediction.diagnoses
    assert mean.logit == pytest.approx(one.logit, abs=1e-5)  # the tiny network turns with its input
    np.testing.assert_allclose(mean.cam.values, one.cam.values, atol=1e-5)
    np.testing.assert_allclose(mean.segmentation.values, one.segmentation.values, atol=1e-5)
    assert mean.malignancy_spread == pytest.approx(0, abs=1e-5)
    assert one.malignancy_spread is None
    runtime = prediction_document(phantom.ct, prediction)["runtime"]
    assert runtime == flips.runtime.to_dict()
    assert flips.runtime.to_dict()["symmetries"] == 8


def without_mask(*_: object) -> None:
    raise AssertionError("a lung mask was computed")


def test_without_the_lung_check_no_mask_is_computed(
    phantom: Phantom,
    points: list[tuple[float, float, float]],
    diagnoser: Diagnoser,
    diagnoses: list[Diagnosis],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nodule_diag.diagnoser.held_lung_mask", without_mask)
    prediction = diagnoser.predict_timed(phantom.ct, [*points, HEART], check_lung=False)
    assert prediction.timing_ms["lung_mask"] == 0
    assert [diagnosis.in_lung for diagnosis in prediction.diagnoses] == [None] * 4
    assert OUTSIDE_LUNG not in prediction.diagnoses[-1].warnings
    for first, second in zip(prediction.diagnoses, diagnoses, strict=False):
        assert first.to_dict() == second.to_dict() | {"in_lung": None}
    with pytest.raises(nd.CoordinateError):
        diagnoser.predict(phantom.ct, [(900.0, 0.0, -100.0)], check_lung=False)


def test_the_lungs_of_a_ct_are_found_once(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any diagnoser; another CT's are its own."""
    ct = replace(phantom.ct)
    first = diagnoser.predict(ct, [*points, HEART])
    monkeypatch.setattr("nodule_diag.preprocessing.lungs.lung_mask", without_mask)
    again = diagnoser.sharing().predict(ct, [*points, HEART])
    assert [one.to_dict() for one in again] == [one.to_dict() for one in first]
    with pytest.raises(AssertionError, match="a lung mask was computed"):
        diagnoser.predict(replace(ct), points)


def test_a_masked_bundle_gets_its_mask_but_reports_no_lung(
    tmp_path: Path, phantom: Phantom, points: list[tuple[float, float, float]]
) -> None:
    loaded = Diagnoser.load(make_tiny_bundle(tmp_path / "masked", masked_input=True), device="cpu")
    unchecked = loaded.predict_timed(replace(phantom.ct), points[1:2], check_lung=False)
    (checked,) = loaded.predict(phantom.ct, points[1:2])
    assert unchecked.timing_ms["lung_mask"] > 0
    assert unchecked.diagnoses[0].to_dict() == checked.to_dict() | {"in_lung": None}


def test_prevalence_moves_malignancy_and_nothing_else(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoser: Diagnoser, diagnoses: list[Diagnosis]
) -> None:
    prediction = diagnoser.predict_timed(phantom.ct, points, prevalence=0.05)
    assert prediction.prevalence == 0.05
    for moved, raw in zip(prediction.diagnoses, diagnoses, strict=True):
        assert (moved.prevalence, raw.prevalence) == (0.05, None)
        assert moved.malignancy == pytest.approx(at_prevalence(raw.malignancy, 0.05))
        assert moved.malignancy < raw.malignancy
        assert moved.to_dict() == raw.to_dict() | {"malignancy": moved.malignancy}
    document = prediction_document(phantom.ct, prediction)
    assert document["prevalence"] == 0.05
    for wrong in (0, 1, -0.1, float("nan")):
        with pytest.raises(nd.UsageError, match="prevalence"):
            diagnoser.predict(phantom.ct, points, prevalence=wrong)


def test_balanced_by_hand(diagnoses: list[Diagnosis]) -> None:
    labels = [case.label for case in tiny_cases()]
    M, B = sum(labels), len(labels) - sum(labels)
    for diagnosis in diagnoses:
        for space, share in diagnosis.diagnosis_balanced.items():
            m = sum(case.label for case in diagnosis.similar[space])
            b = len(diagnosis.similar[space]) - m
            assert share == pytest.approx((m / M) / (m / M + b / B))


def test_a_case_base_of_one_kind_has_no_balanced_share(
    tmp_path: Path, phantom: Phantom, points: list[tuple[float, float, float]]
) -> None:
    malignant = [case for case in tiny_cases() if case.label]
    loaded = Diagnoser.load(make_tiny_bundle(tmp_path / "one", cases=malignant), device="cpu")
    prediction = loaded.predict_timed(phantom.ct, points[:1])
    assert prediction.diagnoses[0].diagnosis_balanced == dict.fromkeys(SPACES)
    document = prediction_document(phantom.ct, prediction)
    schema = Path(nd.__file__).parent / "schemas" / "prediction-1.json"
    pytest.importorskip("jsonschema").validate(document, json.loads(schema.read_text()))


def test_presence_is_what_the_manifest_makes_of_the_map_and_warns_below_its_threshold(
    tmp_path: Path, phantom: Phantom, points: list[tuple[float, float, float]], diagnoses: list[Diagnosis]
) -> None:
    bundle = make_tiny_bundle(tmp_path / "b", presence=PresenceSpec(scale=1.5, shift=0.2, warn_below=0.0))
    plain = Diagnoser.load(bundle, device="cpu").predict(phantom.ct, points)
    found = [diagnosis.presence for diagnosis in plain]
    for diagnosis, before, presence in zip(plain, diagnoses, found, strict=True):
        evidence = presence_evidence(before.segmentation.values)
        assert presence == pytest.approx(1 / (1 + np.exp(-1.5 * evidence - 0.2)), abs=1e-5)
        assert diagnosis.malignancy == before.malignancy
        assert diagnosis.warnings == before.warnings
    middle = sorted(filter(None, found))[len(found) // 2]
    bundle = make_tiny_bundle(tmp_path / "w", presence=PresenceSpec(scale=1.5, shift=0.2, warn_below=middle))
    warned = Diagnoser.load(bundle, device="cpu").predict(phantom.ct, points)
    assert [NO_NODULE in diagnosis.warnings for diagnosis in warned] == [presence < middle for presence in found]
    assert 0 < sum(NO_NODULE in diagnosis.warnings for diagnosis in warned) < len(warned)


def test_what_no_bundle_can_tell_yet_is_none(diagnoses: list[Diagnosis]) -> None:
    for diagnosis in diagnoses:
        assert (diagnosis.presence, diagnosis.malignancy_spread, diagnosis.raw_cam) == (None, None, None)


def test_a_diagnosis_keeps_the_planes_of_its_input(
    phantom: Phantom, points: list[tuple[float, float, float]], diagnoses: list[Diagnosis]
) -> None:
    for patch, diagnosis in zip(extract_patches(phantom.ct, points), diagnoses, strict=True):
        assert diagnosis.ct_planes is not None
        np.testing.assert_allclose(diagnosis.ct_planes[0], patch[0, 32].clip(0, 1) * 255, atol=0.51)
        assert "data:image/png" in diagnosis._repr_html_()
