"""What a bundle makes of its network's answers: calibrated P, distance, doubts; and what stays raw."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import nodule_diag as nd
from bundle_factory import make_tiny_bundle, tiny_model, tiny_model_in_numpy, tiny_parts
from nodule_diag.bundle.bundle import write_bundle
from nodule_diag.bundle.calibration import CalibrationSpec, PresenceSpec, SegmentationSpec, SpreadSpec
from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.ct.phantom import chest_phantom
from nodule_diag.preprocessing.patch import extract_patches
from nodule_diag.results import FeatureDistance, at_prevalence
from nodule_diag.results.warning_texts import NO_NODULE, NOTHING_SEGMENTED, TOO_SPREAD, UNLIKE_TRAINING

CALIBRATION = CalibrationSpec(slope=0.4, intercept=-0.3)
POINT = [(3.0, -2.0, 1.0)]


def sigmoid(x: np.ndarray | float) -> np.ndarray | float:
    return 1.0 / (1.0 + np.exp(-x))


def features_of(patch: np.ndarray) -> np.ndarray:
    return np.asarray(tiny_model_in_numpy(patch)["features"])


def phantom_patches() -> tuple[nd.CTVolume, list[tuple[float, float, float]]]:
    made = chest_phantom(spacing_zyx_mm=(2.5, 1.8, 1.8))
    return made.ct, [nodule.center_xyz_mm for nodule in made.nodules]


@pytest.fixture(scope="module")
def distance() -> FeatureDistance:
    """Fitted on patches round the phantom's nodules; three times the furthest of them is still like them."""
    ct, centres = phantom_patches()
    rng = np.random.default_rng(0)
    points = [tuple(centre + rng.uniform(-3, 3, 3)) for centre in np.asarray(centres) for _ in range(6)]
    rows = np.stack([features_of(patch) for patch in extract_patches(ct, points)])
    fitted = FeatureDistance.fit(rows, components=4)
    limit = 3.0 * max(fitted.raw(row) for row in rows)
    return FeatureDistance(**{**vars(fitted), "warn_above": limit})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, distance: FeatureDistance) -> Path:
    """A bundle that makes every number."""
    presence = PresenceSpec(scale=1.5, shift=2.0, warn_below=0.05)
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    return make_tiny_bundle(folder, presence=presence, calibration=CALIBRATION, distance=distance).path


def test_only_p_is_calibrated(tmp_path: Path, tiny_bundle: Path) -> None:
    ct, points = phantom_patches()
    raw = nd.Diagnoser.load(tiny_bundle, device="cpu").predict(ct, points)
    made = nd.Diagnoser.load(make_tiny_bundle(tmp_path / "b", calibration=CALIBRATION), device="cpu")
    for before, after in zip(raw, made.predict(ct, points), strict=True):
        assert after.malignancy == pytest.approx(sigmoid(0.4 * before.logit - 0.3), abs=1e-6)
        assert (before.calibrated, after.calibrated) == (False, True)
        told, wanted = after.to_dict(), before.to_dict()
        changed = {name for name in wanted if told[name] != wanted[name]}
        assert changed == {"malignancy", "calibrated"}
        np.testing.assert_array_equal(after.cam.values, before.cam.values)


def test_the_map_is_cut_where_the_bundle_says(tmp_path: Path, tiny_bundle: Path) -> None:
    """The outline alone moves, and what is measured of it."""
    ct, points = phantom_patches()
    half = nd.Diagnoser.load(tiny_bundle, device="cpu").predict(ct, points)
    levels = [float(np.quantile(one.segmentation.values, 0.7)) for one in half]
    bundle = make_tiny_bundle(tmp_path / "b", segmentation=SegmentationSpec(threshold=min(levels)))
    found = nd.Diagnoser.load(bundle, device="cpu").predict(ct, points)
    for before, after in zip(half, found, strict=True):
        np.testing.assert_array_equal(after.segmentation.values, before.segmentation.values)
        cut = replace(before.segmentation, threshold=min(levels))
        np.testing.assert_array_equal(after.segmentation.nodule, cut.nodule)
        assert after.segmentation.volume_mm3 == np.count_nonzero(cut.nodule) / 8
        told, wanted = after.to_dict(), before.to_dict()
        assert {name for name in wanted if told[name] != wanted[name]} <= {"segmentation", "warnings"}
    assert {one.segmentation.volume_mm3 for one in found} != {one.segmentation.volume_mm3 for one in half}


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_that_cuts_nothing_is_refused(tiny_bundle: Path, tmp_path: Path, threshold: float) -> None:
    manifest, files = tiny_parts()
    wrong = SegmentationSpec.model_construct(threshold=threshold)
    with pytest.raises(nd.BundleError, match="threshold"):
        write_bundle(tmp_path / "b", manifest=manifest.model_copy(update={"segmentation": wrong}), files=files)


def test_a_steeper_calibration_moves_no_similar_case_and_no_case_base(tmp_path: Path) -> None:
    ct, points = phantom_patches()
    loaded = [
        nd.Diagnoser.load(make_tiny_bundle(tmp_path / str(slope), calibration=spec), device="cpu")
        for slope, spec in ((0, None), (5, CalibrationSpec(slope=5.0, intercept=2.0)))
    ]
    plain, steep = (one.predict(ct, points) for one in loaded)
    assert [one.malignancy for one in plain] != [one.malignancy for one in steep]
    assert [one.similar for one in plain] == [one.similar for one in steep]
    assert [one.diagnosis for one in plain] == [one.diagnosis for one in steep]
    assert list(loaded[0].cases.cases) == list(loaded[1].cases.cases)
    assert loaded[0].bundle.files["index/cases.sqlite"] == loaded[1].bundle.files["index/cases.sqlite"]


@pytest.mark.parametrize("prevalence", [0.05, 0.8])
def test_the_prevalence_comes_last(whole: Path, prevalence: float) -> None:
    loaded = nd.Diagnoser.load(whole, device="cpu")
    (half,) = loaded.predict(made_up_ct(), POINT)
    (moved,) = loaded.predict(made_up_ct(), POINT, prevalence=prevalence)
    assert moved.malignancy == pytest.approx(at_prevalence(half.malignancy, prevalence), rel=1e-12)
    assert moved.logit == half.logit


def lopsided() -> onnx.ModelProto:
    """The tiny network with a logit that looks more at one side, so that turned views differ."""
    model = tiny_model()
    ramp = np.linspace(0.0, 2.0, 16, dtype=np.float32) * np.ones((16, 16, 16), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(ramp, "ramp"))
    index = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "logit")
    model.graph.node[index].input[0] = "tilted"
    model.graph.node.insert(index, helper.make_node("Mul", ["map", "ramp"], ["tilted"]))
    return model


def test_the_spread_is_of_the_calibrated_p(tmp_path: Path) -> None:
    ct, points = phantom_patches()
    plain, made = (
        nd.Diagnoser.load(
            make_tiny_bundle(tmp_path / name, model=lopsided(), calibration=spec), device="cpu", symmetries=8
        ).predict(ct, points)
        for name, spec in (("plain", None), ("made", CALIBRATION))
    )
    ramp = np.linspace(0.0, 2.0, 16)
    for patch, before, after in zip(extract_patches(ct, points), plain, made, strict=True):
        rows = 8.0 * (patch[0].reshape(16, 4, 16, 4, 16, 4).mean(axis=(1, 3, 5)) - 0.5)
        views = np.repeat([(rows * ramp).mean(), (rows * ramp[::-1]).mean()], 4)
        assert before.malignancy_spread == pytest.approx(np.std(sigmoid(views)), abs=1e-5)
        assert after.malignancy_spread == pytest.approx(np.std(sigmoid(0.4 * views - 0.3)), abs=1e-5)


def test_a_spread_above_the_bundles_is_warned_of_for_its_number_of_views(tmp_path: Path) -> None:
    ct, points = phantom_patches()
    bundle = make_tiny_bundle(tmp_path / "b", model=lopsided(), spread=SpreadSpec(views=8, warn_above=0.01))
    eight, other, one = (
        nd.Diagnoser.load(bundle, device="cpu", symmetries=views).predict(ct, points) for views in (8, 48, 1)
    )
    warned = [TOO_SPREAD in diagnosis.warnings for diagnosis in eight]
    assert warned == [(diagnosis.malignancy_spread or 0.0) > 0.01 for diagnosis in eight]
    assert any(warned)
    assert any((diagnosis.malignancy_spread or 0.0) > 0.01 for diagnosis in other)
    assert not any(TOO_SPREAD in diagnosis.warnings for diagnosis in (*other, *one))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_distance_is_that_of_the_networks_features(whole: Path, distance: FeatureDistance, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    ct, points = phantom_patches()
    loaded = nd.Diagnoser.load(whole, backend=backend, device="cpu", precision="fp32")
    for patch, found in zip(extract_patches(ct, points), loaded.predict(ct, points), strict=True):
        wanted = distance.raw(features_of(patch)) / distance.warn_above
        assert found.feature_distance == pytest.approx(wanted, rel=1e-2)
        assert UNLIKE_TRAINING not in found.warnings


def test_a_network_that_gives_no_features_cannot_have_a_distance(distance: FeatureDistance) -> None:
    manifest, _ = tiny_parts(distance=distance)
    with pytest.raises(ValueError, match="the network gives none"):
        type(manifest).model_validate({**manifest.model_dump(), "model": {"opset": 17}})


@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: b"\xff" * len(data)])
def test_features_that_cannot_be_right_are_refused(tmp_path: Path, distance: FeatureDistance, damage) -> None:
    manifest, files = tiny_parts(distance=distance)
    files["features.f32"] = damage(files["features.f32"])
    bundle = write_bundle(tmp_path / "b", manifest=manifest, files=files)
    with pytest.raises(nd.BundleError, match=r"features\.f32 in the bundle cannot be used") as caught:
        nd.Diagnoser.load(bundle, device="cpu")
    assert caught.value.code == "bundle-features"


def test_a_manifest_without_the_numbers_says_nothing_of_them(tiny_bundle: Path, whole: Path) -> None:
    names = {"segmentation", "presence", "calibration", "feature_distance", "spread"}
    assert not names & set(json.loads((tiny_bundle / "manifest.json").read_text()))
    said = json.loads((whole / "manifest.json").read_text())
    assert said["calibration"] == {"slope": 0.4, "intercept": -0.3}
    assert names & set(said) == names - {"segmentation", "spread"}


def test_noise_and_empty_lung_and_a_nodule_get_what_they_should(whole: Path) -> None:
    ct, points = phantom_patches()
    loaded = nd.Diagnoser.load(whole, device="cpu")
    rng = np.random.default_rng(1)
    noisy = nd.CTVolume.from_array(
        rng.uniform(-1200, 600, ct.hu.shape).astype(np.float32),
        spacing_zyx_mm=ct.spacing_zyx_mm,
        origin_xyz_mm=ct.origin_xyz_mm,
    )
    (noise,) = loaded.predict(noisy, points[:1], check_lung=False)
    assert UNLIKE_TRAINING in noise.warnings
    assert noise.feature_distance is not None
    assert noise.feature_distance > 1.0

    hu = np.where(np.indices(ct.hu.shape)[0] > 2, -900, ct.hu).astype(np.int16)  # all lung but the lowest slices
    air = nd.CTVolume.from_array(hu, spacing_zyx_mm=ct.spacing_zyx_mm, origin_xyz_mm=ct.origin_xyz_mm)
    (empty,) = loaded.predict(air, points[:1], check_lung=False)
    assert NO_NODULE in empty.warnings
    assert NOTHING_SEGMENTED in empty.warnings

    (nodule,) = loaded.predict(ct, points[:1])
    assert not {NO_NODULE, NOTHING_SEGMENTED, UNLIKE_TRAINING} & set(nodule.warnings)
    assert nodule.calibrated
    document = nd.prediction_document(ct, loaded.predict_timed(ct, points[:1]))
    schema = json.loads((Path(nd.__file__).parent / "schemas" / "prediction-1.json").read_text())
    pytest.importorskip("jsonschema").validate(document, schema)
