"""examples/cpp answers as Python does, refuses what Python refuses, and asks the network for nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import guard
from bundle_factory import make_tiny_bundle
from needed_tools import require
from nodule_diag.bundle import CalibrationSpec, PresenceSpec, SegmentationSpec
from nodule_diag.ct import CTVolume, chest_phantom, lps_from_index, read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.preprocessing.mask import CUT_LUNG
from nodule_diag.results import Calibration, Segmentation
from nodule_diag.results.warning_texts import NO_NODULE, UNLIKE_TRAINING
from nodule_diag_export.fused import export_fused, open_source

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
PRESENCE = PresenceSpec(scale=0.7, shift=1.3, warn_below=0.9)
SLOPE, INTERCEPT, THRESHOLD = 0.62, -0.31, 0.45
ADENOCARCINOMA, SPICULATED = (-56.94, 131.27, -520.6), (56.17, 86.20, -115.86)
"""In LIDC-IDRI-0314 and -0001."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny bundle that can tell presence."""
    return make_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", presence=PRESENCE)


@pytest.fixture(scope="module")
def tiny_fused(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny-fused") / "fused.onnx"
    export_fused(open_source(tiny.path), path, threads=1)
    return path


@pytest.fixture(scope="module")
def phantom():
    return chest_phantom(spacing_zyx_mm=(2.5, 1.8, 1.8))


def points_of(points) -> list[object]:
    return [word for point in points for word in ("--xyz", *map(float, point))]


def agree(document, diagnoses, *, tolerance=TOLERANCE):
    """Figures, maps and warnings, and what the maps measure by the SDK's own code."""
    assert len(document["nodules"]) == len(diagnoses)
    for found, wanted in zip(document["nodules"], diagnoses, strict=True):
        said = wanted.to_dict()
        for name in ("malignancy", "logit", "expert_score", "presence"):
            assert found[name] == (said[name] if said[name] is None else pytest.approx(said[name], abs=tolerance)), name
        assert found["faithfulness"] == pytest.approx(said["faithfulness"], abs=tolerance)
        assert found["xyz_lps_mm"] == pytest.approx(said["xyz_lps_mm"])
        maps = found["maps"]
        cells = {name: np.array(maps[name], np.float32).reshape(16, 16, 16) for name in ("segmentation", "cam")}
        np.testing.assert_allclose(cells["segmentation"], wanted.segmentation.values, atol=tolerance)
        flat = NO_NODULE in wanted.warnings  # a CAM of little range, whose rounding the min-max of eq. 6 stretches
        np.testing.assert_allclose(cells["cam"], wanted.cam.values, atol=2 * tolerance if flat else tolerance)
        np.testing.assert_allclose(np.reshape(maps["axes"], (3, 3)), wanted.cam.direction, atol=1e-12)
        threshold = wanted.segmentation.threshold
        measured = Segmentation(cells["segmentation"], wanted.xyz_lps_mm, wanted.cam.direction, threshold=threshold)
        assert found["segmentation"] == pytest.approx(measured.to_dict(), rel=1e-12)
        python_alone = (UNLIKE_TRAINING, CUT_LUNG)
        expected = [text for text in wanted.warnings if text not in python_alone]
        assert len(found["warnings"]) == len(expected), (found["warnings"], expected)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "point"), [("LIDC-IDRI-0314.nii.gz", ADENOCARCINOMA), ("LIDC-IDRI-0001_dicom.zip", SPICULATED)]
)
def test_real_nodules_answer_as_in_python(built, packaged_fused, write_mhd, data_root, tmp_path, file, point):
    """The nodule, lung without one, and a corner of the scan."""
    ct = read_ct(data_root / "ct" / file)
    size = np.array(ct.size_xyz)
    points = [point, *lps_from_index(ct, [size / (3, 2, 2), (1.0, size[1] - 2.0, size[2] - 1.0)])]
    document = built.diagnose(packaged_fused, write_mhd(ct, tmp_path / "ct.mhd"), "--maps", *points_of(points))
    diagnoser = Diagnoser.load(backend="onnxruntime", device="cpu", threads=1)
    agree(document, diagnoser.predict(ct, points, check_lung=False))
    assert document["model"] == {
        "name": diagnoser.identity.name,
        "version": diagnoser.identity.version,
        "bundle_sha256": diagnoser.identity.sha256,
    }


def test_the_phantom_answers_as_in_python(built, packaged_fused, write_mhd, phantom, tmp_path):
    points = [nodule.center_xyz_mm for nodule in phantom.nodules]
    document = built.diagnose(packaged_fused, write_mhd(phantom.ct, tmp_path / "ct.mhd"), "--maps", *points_of(points))
    diagnoser = Diagnoser.load(backend="onnxruntime", device="cpu", threads=1)
    agree(document, diagnoser.predict(phantom.ct, points, check_lung=False))


def test_fewer_products_give_the_answers_of_winograd(built, write_mhd, phantom, tmp_path):
    export_fused(open_source(None), tmp_path / "fused.onnx", winograd=True, threads=1)
    points = [nodule.center_xyz_mm for nodule in phantom.nodules]
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    document = built.diagnose(tmp_path / "fused.onnx", mhd, "--maps", *points_of(points))
    diagnoser = Diagnoser.load(backend="winograd", device="cpu", threads=1)
    agree(document, diagnoser.predict(phantom.ct, points, check_lung=False), tolerance=5e-4)


def noise(shape=(20, 36, 50)) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1024, 600, shape)


TILT = np.array([[np.cos(0.11), -np.sin(0.11), 0.0], [np.sin(0.11), np.cos(0.11), 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_way_to_store_a_ct(built, tiny, tiny_fused, tmp_path, order, kind):
    """Axes in any order and direction, one of them oblique: what Python makes of the same array is what counts."""
    hu = noise().astype(kind)
    for flips in ((1, 1, 1), (-1, 1, -1), (1, -1, -1)):
        direction = (TILT if flips[0] == 1 else np.eye(3))[:, list(order)] * flips
        ct = CTVolume.from_array(
            hu, spacing_zyx_mm=(3.5, 0.8, 0.7), origin_xyz_mm=(-40.0, 25.5, -300.25), direction=direction
        )
        lines = [f"DimSize = {hu.shape[2]} {hu.shape[1]} {hu.shape[0]}", "ElementSpacing = 0.7 0.8 3.5"]
        lines += ["Offset = -40 25.5 -300.25", f"TransformMatrix = {' '.join(map(repr, direction.T.ravel().tolist()))}"]
        lines += [f"ElementType = {'MET_SHORT' if kind == 'int16' else 'MET_FLOAT'}", "ElementDataFile = ct.raw"]
        (tmp_path / "ct.mhd").write_text("\n".join(lines))
        (tmp_path / "ct.raw").write_bytes(hu.tobytes())
        size = np.array(ct.size_xyz)
        points = lps_from_index(ct, [size * (0.4, 0.6, 0.5), size - 0.6, (-0.4, 3.0, 1.0)])
        document = built.diagnose(tiny_fused, tmp_path / "ct.mhd", "--maps", *points_of(points))
        diagnoser = Diagnoser.load(tiny.path, device="cpu", threads=1)
        agree(document, diagnoser.predict(ct, points, check_lung=False))
        thick, turned = (
            any(word in text for text in document["nodules"][0]["warnings"]) for word in ("slices", "turned")
        )
        assert (thick, turned) == (True, flips[0] == 1)


def test_the_calibration_of_the_file_is_applied(built, tiny, write_mhd, phantom, tmp_path):
    """P alone moves: the logit, the CAM and all else stay the network's."""
    source = open_source(tiny.path)
    assert source.figures == {"presence_scale": "0.7", "presence_shift": "1.3", "presence_warn_below": "0.9"}
    figures = source.figures | {"calibration_slope": repr(SLOPE), "calibration_intercept": repr(INTERCEPT)}
    export_fused(dataclasses.replace(source, figures=figures), tmp_path / "calibrated.onnx", threads=1)
    export_fused(source, tmp_path / "plain.onnx", threads=1)
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    words = [mhd, "--maps", *points_of([phantom.nodules[0].center_xyz_mm])]
    (plain,), (calibrated,) = (
        built.diagnose(tmp_path / f"{name}.onnx", *words)["nodules"] for name in ("plain", "calibrated")
    )
    wanted = Calibration(slope=SLOPE, intercept=INTERCEPT).probability(plain["logit"])
    assert calibrated["malignancy"] == pytest.approx(wanted, abs=1e-12)
    assert abs(calibrated["malignancy"] - plain["malignancy"]) > 0.01
    assert calibrated | {"malignancy": None} == plain | {"malignancy": None}
    for damaged in ("0,62", "", "nan", "0.62 x"):
        export_fused(dataclasses.replace(source, figures=figures | {"calibration_slope": damaged}), tmp_path / "x.onnx")
        refused(built, 4, "bundle-model-unreadable", tmp_path / "x.onnx", mhd, "--xyz", 0, 0, 0)
    for nowhere in ("0", "1.5"):
        export_fused(dataclasses.replace(source, figures={"segmentation_threshold": nowhere}), tmp_path / "x.onnx")
        refused(built, 4, "bundle-model-unreadable", tmp_path / "x.onnx", mhd, "--xyz", 0, 0, 0)


def test_a_calibrated_bundle_answers_as_in_python(built, write_mhd, phantom, tmp_path):
    numbers = CalibrationSpec(slope=SLOPE, intercept=INTERCEPT)
    cut = SegmentationSpec(threshold=THRESHOLD)
    bundle = make_tiny_bundle(tmp_path / "bundle", presence=PRESENCE, calibration=numbers, segmentation=cut)
    export_fused(open_source(bundle.path), tmp_path / "fused.onnx", threads=1)
    points = [nodule.center_xyz_mm for nodule in phantom.nodules]
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    document = built.diagnose(tmp_path / "fused.onnx", mhd, "--maps", *points_of(points))
    diagnoses = Diagnoser.load(bundle, device="cpu", threads=1).predict(phantom.ct, points, check_lung=False)
    assert all(diagnosis.calibrated for diagnosis in diagnoses)
    agree(document, diagnoses)
    assert {diagnosis.segmentation.threshold for diagnosis in diagnoses} == {THRESHOLD}
    halves = [dataclasses.replace(diagnosis.segmentation, threshold=0.5).volume_mm3 for diagnosis in diagnoses]
    assert halves != [diagnosis.segmentation.volume_mm3 for diagnosis in diagnoses]


def refused(built, exit_code, code, *words):
    ended = built.run("nodule-diag-cpp", *words)
    assert ended.returncode == exit_code, ended.stdout + ended.stderr
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == code, error
    assert error["message"]
    assert not ended.stderr


def test_a_masked_model_asks_for_the_mask(built, write_mhd, phantom, tmp_path):
    masked = make_tiny_bundle(tmp_path / "masked", masked_input=True)
    export_fused(open_source(masked.path), tmp_path / "masked.onnx", threads=1)
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    refused(built, 2, "usage", tmp_path / "masked.onnx", mhd, "--xyz", *phantom.nodules[0].center_xyz_mm)


def test_whatever_is_handed_in_a_status_comes_out(sanitized, tiny_fused):
    """The boundary's own tests, under AddressSanitizer and UndefinedBehaviorSanitizer, memory that is left included."""
    ended = sanitized.run("boundary", tiny_fused)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout == "0 failures\n"


def test_the_phantom_under_sanitizers(sanitized, packaged_fused, write_mhd, phantom, tmp_path):
    words = points_of(nodule.center_xyz_mm for nodule in phantom.nodules)
    sanitized.diagnose(packaged_fused, write_mhd(phantom.ct, tmp_path / "ct.mhd"), "--maps", *words)
    ended = sanitized.run("sample_c", packaged_fused)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("lidc-synergic ")


def test_c_sharp_says_the_same_as_c(built, packaged_fused, repo_root, tmp_path):
    require("mcs", "mono")
    source = repo_root / "examples" / "cpp"
    program = tmp_path / "sample.exe"
    command = ["mcs", "-warnaserror", f"-out:{program}", source / "Sample.cs", source / "NoduleDiag.cs"]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    ended = subprocess.run(
        ["mono", program, packaged_fused], capture_output=True, text=True, timeout=300,
        env=os.environ | {"LD_LIBRARY_PATH": str(built.folder)},
    )  # fmt: skip
    answer, refusal = ended.stdout.splitlines()
    assert answer == built.run("sample_c", packaged_fused).stdout.partition(": ")[2].strip()
    assert refusal.startswith("coordinate-outside: the position (1000.00, 0.00, 0.00) mm LPS")
    assert ended.returncode == 3


BROKEN_HEADERS = {
    "no size": ("DimSize = 4 4 4", "", "ct-damaged"),
    "words for numbers": ("DimSize = 4 4 4", "DimSize = 4 x 4", "ct-damaged"),
    "too few numbers": ("DimSize = 4 4 4", "DimSize = 4 4", "ct-damaged"),
    "more voxels than there are": ("DimSize = 4 4 4", "DimSize = 400 400 400", "ct-truncated"),
    "a size that overflows": ("DimSize = 4 4 4", f"DimSize = {2**62} {2**62} {2**62}", "ct-truncated"),
    "a negative size": ("DimSize = 4 4 4", "DimSize = -4 -4 4", "ct-not-3d"),
    "compressed": ("NDims = 3", "CompressedData = True", "ct-not-supported"),
    "big-endian": ("NDims = 3", "BinaryDataByteOrderMSB = True", "ct-not-supported"),
    "two dimensions": ("NDims = 3", "NDims = 2", "ct-not-supported"),
    "bytes": ("MET_SHORT", "MET_UCHAR", "ct-not-supported"),
    "no such file": ("ct.raw", "other.raw", "ct-truncated"),
    "big-endian, in other words": ("NDims = 3", "ElementByteOrderMSB = True", "ct-not-supported"),
    "no origin": ("Offset = 0 0 0\n", "", "ct-damaged"),
    "no axes": ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "", "ct-damaged"),
    "two origins": ("Offset = 0 0 0", "Offset = 0 0 0\nOffset = 1 0 0", "ct-damaged"),
    "two origins, in other words": ("Offset = 0 0 0", "Offset = 0 0 0\nPosition = 1 0 0", "ct-damaged"),
    "not HU": ("NDims = 3", "NDims = 3", "ct-not-hu"),
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
def test_a_broken_ct_is_refused(sanitized, tiny_fused, tmp_path, name):
    before, after, code = BROKEN_HEADERS[name]
    header = "NDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    header += "ElementType = MET_SHORT\nElementDataFile = ct.raw\n"
    assert before in header
    (tmp_path / "ct.mhd").write_text(header.replace(before, after))
    (tmp_path / "ct.raw").write_bytes(bytes(128))
    refused(sanitized, 3, code, tiny_fused, tmp_path / "ct.mhd", "--xyz", 0, 0, 0)


@pytest.mark.parametrize(("origin", "axes"), [("Position", "Rotation"), ("Origin", "Orientation")])
def test_a_field_by_its_other_name(built, tiny_fused, phantom, write_mhd, tmp_path, origin, axes):
    """MetaIO reads them all; an origin that is passed over would move the nodule."""
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    words = points_of([phantom.nodules[0].center_xyz_mm])
    before = built.diagnose(tiny_fused, mhd, *words)["nodules"]
    header = mhd.read_text()
    assert "Offset" in header
    assert "TransformMatrix" in header
    header = header.replace("Offset", origin).replace("TransformMatrix", axes)
    mhd.write_text(header.replace("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    assert built.diagnose(tiny_fused, mhd, *words)["nodules"] == before


def test_what_means_nothing_is_refused(sanitized, tiny_fused, tmp_path):
    refused(sanitized, 3, "ct-missing", tiny_fused, tmp_path / "none.mhd", "--xyz", 0, 0, 0)
    refused(sanitized, 4, "bundle-missing", tmp_path / "none.onnx", tmp_path / "none.mhd", "--xyz", 0, 0, 0)
    for words in (
        [],
        ["one"],
        ["--xyz"],
        ["--xyz", "1", "2", "three"],
        ["--threads", "0"],
        ["--what"],
        ["--repeat", "1x"],
    ):
        refused(sanitized, 2, "usage", *words)


def test_a_graph_that_is_not_fused_is_refused(sanitized, tiny, tmp_path):
    (tmp_path / "model.onnx").write_bytes(tiny.read("model.onnx"))
    refused(sanitized, 4, "bundle-model-unreadable", tmp_path / "model.onnx", tmp_path / "none.mhd", "--xyz", 0, 0, 0)


@pytest.mark.skipif(guard.STRACE is None, reason="no strace")
def test_no_telemetry(built, tiny_fused, write_mhd, phantom, tmp_path):
    """ONNX Runtime reports to its makers where CI is not set and nobody said no: here nobody did but the library."""
    mhd = write_mhd(phantom.ct, tmp_path / "ct.mhd")
    home = tmp_path / "home"
    home.mkdir()
    trace = tmp_path / "trace"
    command = [str(built.folder / "nodule-diag-cpp"), str(tiny_fused), str(mhd), "--xyz", "0", "0", "-150"]
    ended = subprocess.run(
        [guard.STRACE, "-f", "-qq", "-e", f"trace={guard.NETWORK}", "-o", str(trace), *command],
        env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert trace.read_text() == ""
    assert list(home.rglob("*")) == []


def test_write_mhd_is_a_command(phantom, repo_root, tmp_path, built, tiny_fused):
    """What it writes, the SDK reads back as the same CT."""
    from nodule_diag_cli.demo import write_ct

    source = write_ct(tmp_path / "ct.nii.gz", phantom.ct)
    command = [
        sys.executable,
        str(repo_root / "examples" / "cpp" / "write_mhd.py"),
        str(source),
        str(tmp_path / "o.mhd"),
    ]
    subprocess.run(command, check=True, timeout=300)
    again = read_ct(Path(tmp_path / "o.mhd"))
    np.testing.assert_array_equal(again.hu, phantom.ct.hu)
    assert again.spacing_xyz_mm == pytest.approx(phantom.ct.spacing_xyz_mm)
    assert again.origin_xyz_mm == pytest.approx(phantom.ct.origin_xyz_mm)
