"""Preparing stores: what is written, resumed, refused and reported."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import OutputError
from nodule_diag.preprocessing.patch import extract_patches
from nodule_diag_training.cli import app
from nodule_diag_training.data.case import Preprocessing
from nodule_diag_training.data.lidc.cohort import luna16_nodules, luna16_scans
from nodule_diag_training.data.lidc.consensus import consensus_mask
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.prepare import prepare
from nodule_diag_training.data.prepare.sources import lidc_sources, sure_sources
from nodule_diag_training.data.prepare.sure_table import read_sure_table
from nodule_diag_training.data.regions import REGION_MARGIN, REGION_SIZE, NoduleMask, cut_region
from nodule_diag_training.data.store import NoduleStore, read_store

CENTER = (4.0, -6.0, 10.0)
SURE = Preprocessing(kind="sure")


def write_ct(path, *, center=CENTER, radius_mm=5.0):
    """A ball of soft tissue in lung, 48 x 50 x 52 voxels of 1 x 1 x 1.25 mm."""
    z, y, x = np.indices((48, 50, 52), dtype=np.float64)
    points = np.stack([x - 26.0, y - 25.0, z * 1.25 - 30.0], axis=-1)
    ball = np.linalg.norm(points - np.asarray(center), axis=-1) <= radius_mm
    image = sitk.GetImageFromArray(np.where(ball, 40, -850).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 1.25))
    image.SetOrigin((-26.0, -25.0, -30.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def table(tmp_path):
    """Three nodules in two CTs."""
    for name in ("a.nii.gz", "b.nii.gz"):
        write_ct(tmp_path / name)
    path = tmp_path / "sure.csv"
    path.write_text(
        "path,x,y,z,diameter,label,patient,method\n"
        "a.nii.gz,4,-6,10,10,malignant,p1,resection\n"
        "a.nii.gz,-8,3,0,6,benign,p1,biopsy\n"
        "b.nii.gz,4,-6,10,10,1,p2,\n"
    )
    return path


def fill(table, store):
    seen = []
    summary = prepare(
        NoduleStore(store, preprocessing=SURE), sure_sources(read_sure_table(table)), on_source=seen.append
    )
    return summary, seen


def test_the_middle_of_a_region_is_the_networks_input(tmp_path):
    write_ct(tmp_path / "a.nii.gz")
    ct = read_ct(tmp_path / "a.nii.gz")
    region = cut_region(ct, CENTER, mask=None)
    inner = (slice(None), *(slice(REGION_MARGIN, REGION_SIZE - REGION_MARGIN),) * 3)
    np.testing.assert_allclose(region.channels[inner], extract_patches(ct, [CENTER])[0], atol=1e-3)


def test_a_regions_mask_lies_on_its_nodule(tmp_path):
    write_ct(tmp_path / "a.nii.gz")
    ct = read_ct(tmp_path / "a.nii.gz")
    index = np.argwhere(ct.hu > 0)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = ct.hu[low[0] : high[0], low[1] : high[1], low[2] : high[2]] > 0
    mask = NoduleMask(voxels=box, start_zyx=tuple(low.tolist()))
    assert mask.center_xyz_mm(ct) == pytest.approx(CENTER, abs=0.1)
    region = cut_region(ct, mask.center_xyz_mm(ct), mask=mask)
    drawn = region.occupancy >= 0.5
    bright = region.channels[1].astype(np.float32) >= 0.5 * region.channels[1].max()
    assert 2 * (drawn & bright).sum() / (drawn.sum() + bright.sum()) > 0.95
    middle = [axis[drawn].mean() for axis in np.indices(drawn.shape)]
    assert middle == pytest.approx(region.center, abs=0.3)
    assert float(region.occupancy.astype(np.float64).sum()) * 0.5**3 == pytest.approx(
        mask.voxels.sum() * 1.25, rel=0.02
    )


def test_a_store_gives_back_what_was_put_in(table, tmp_path):
    summary, seen = fill(table, tmp_path / "store")
    assert (summary.added, summary.kept, summary.failures, len(seen)) == (3, 0, (), 2)
    stored = {s.case.case_id: s for s in read_store(tmp_path / "store")}
    assert len(stored) == 3
    first = stored["p1/a.nii.gz@4,-6,10"]
    expected = cut_region(read_ct(tmp_path / "a.nii.gz"), CENTER, mask=None)
    np.testing.assert_array_equal(first.region().channels, expected.channels)
    nodule = first.case.nodule()
    assert (nodule.patient_id, nodule.sure.malignant, nodule.sure.method) == ("p1", 1, "resection")
    assert not nodule.outlined
    assert not first.voxels().occupancy.any()


def test_an_interrupted_preparation_goes_on(table, tmp_path, monkeypatch):
    store = tmp_path / "store"
    add = NoduleStore.add
    calls = []

    def failing(self, case, region, *, fingerprint):
        calls.append(case)
        if len(calls) == 2:
            (self.path / ".incoming-half").mkdir()
            raise OutputError("disk full")
        add(self, case, region, fingerprint=fingerprint)

    monkeypatch.setattr(NoduleStore, "add", failing)
    with pytest.raises(OutputError):
        fill(table, store)
    monkeypatch.undo()
    summary, _ = fill(table, store)
    assert (summary.added, summary.kept) == (2, 1)
    assert not list(store.glob(".incoming*")), "what the crash left is gone"
    again, _ = fill(table, store)
    assert (again.added, again.kept) == (0, 3)


def test_what_is_there_is_not_read_again_but_what_changed_is(table, tmp_path, monkeypatch):
    store = tmp_path / "store"
    fill(table, store)
    write_ct(tmp_path / "b.nii.gz", radius_mm=7.0)
    read = []
    monkeypatch.setattr(
        "nodule_diag_training.data.prepare.sources.read_ct", lambda path: read.append(path.name) or read_ct(path)
    )
    summary, _ = fill(table, store)
    assert (summary.added, summary.kept, read) == (1, 2, ["b.nii.gz"])
    table.write_text(table.read_text().replace("biopsy", "resection"))
    assert fill(table, store)[0].added == 1
    assert len(list(read_store(store))) == 3


def test_a_store_of_other_parameters_is_refused(table, tmp_path):
    fill(table, tmp_path / "store")
    other = SURE.model_copy(update={"spacing_mm": 1.0})
    with pytest.raises(TrainingDataError, match=r"spacing_mm 0\.5 instead of 1\.0"):
        NoduleStore(tmp_path / "store", preprocessing=other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(TrainingDataError, match="not a store"):
        NoduleStore(tmp_path / "full", preprocessing=SURE)
    with pytest.raises(TrainingDataError, match="not a store"):
        list(read_store(tmp_path / "full"))


def test_a_full_disk_leaves_the_store_as_it_was(table, tmp_path, monkeypatch):
    store = tmp_path / "store"
    fill(table, store)
    write_ct(tmp_path / "b.nii.gz", radius_mm=7.0)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nodule_diag_training.data.store.os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        fill(table, store)
    assert len(list(read_store(store))) == 3
    assert not list(store.glob(".incoming*"))


def test_a_damaged_chunk_is_noticed(table, tmp_path):
    fill(table, tmp_path / "store")
    chunk = max((tmp_path / "store").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(TrainingDataError, match="is damaged"):
        [stored.voxels() for stored in read_store(tmp_path / "store")]


def test_a_damaged_ct_and_a_point_outside_are_reported_and_the_rest_is_prepared(table, tmp_path):
    (tmp_path / "b.nii.gz").write_bytes(b"damaged")
    with table.open("a") as file:
        file.write("a.nii.gz,400,0,0,10,0,p1,\n")
    result = CliRunner().invoke(app, ["prepare", "sure", "--csv", str(table), "--out", str(tmp_path / "store")])
    assert result.exit_code == 3
    assert "2 nodules added, 0 were there, 2 left out" in result.output
    assert "left out p2/b.nii.gz@4,-6,10" in result.output
    assert "coordinate-outside" in result.output
    assert len(list(read_store(tmp_path / "store"))) == 2


@pytest.fixture(scope="module")
def tcia(data_root, tmp_path_factory):
    """LIDC-IDRI-0001 as TCIA's downloader writes it, with UIDs for folders."""
    facts = json.loads((data_root / "ct" / "LIDC-IDRI-0001_nodules.json").read_text())
    root = tmp_path_factory.mktemp("tcia")
    series = root / "LIDC-IDRI" / facts["patient"] / facts["study"] / facts["series"]
    series.mkdir(parents=True)
    with zipfile.ZipFile(data_root / "ct" / "LIDC-IDRI-0001_dicom.zip") as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                (series / Path(name).name).write_bytes(archive.read(name))
    return root


@pytest.fixture(scope="module")
def patient_1():
    scans = [scan for scan in luna16_scans() if scan[0].patient_id == "LIDC-IDRI-0001"]
    return luna16_nodules(scans)


@pytest.mark.real_data
def test_lidc_from_dicom_agrees_with_the_shared_mask_and_position(tcia, patient_1, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    facts = json.loads((data_root / "ct" / "LIDC-IDRI-0001_nodules.json").read_text())
    (expected,) = facts["nodules"]
    store = NoduleStore(tmp_path / "store", preprocessing=Preprocessing(kind="lidc"))
    sources = lidc_sources(tcia, patient_1)
    assert prepare(store, sources).failures == ()
    (stored,) = read_store(store.path)
    distance = np.linalg.norm(np.subtract(stored.case.center_xyz_mm, expected["xyz_world_lps_mm"]))
    assert distance <= 1.0
    assert sorted(stored.case.reader_scores) == sorted(expected["malignancy"])
    assert stored.case.diameter_mm == pytest.approx(expected["eq_diameter_mm"], abs=0.05)
    ct = read_ct(sources[0].root, series=facts["series"])
    mask = consensus_mask(patient_1[0], ct)
    truth_image = sitk.ReadImage(str(data_root / "ct" / "LIDC-IDRI-0001_nodule_mask.nii.gz"))
    truth = sitk.GetArrayFromImage(sitk.DICOMOrient(truth_image, "LPS")) > 0
    mine = np.zeros_like(truth)
    box = tuple(slice(s, s + n) for s, n in zip(mask.start_zyx, mask.voxels.shape, strict=True))
    mine[box] = mask.voxels
    assert 2 * (mine & truth).sum() / (mine.sum() + truth.sum()) >= 0.95
    # What training sees: the mask at 0.5 mm has the consensus' volume, and the nodule in its middle.
    volume = float(stored.region().occupancy.astype(np.float64).sum()) * 0.5**3
    assert volume == pytest.approx(truth.sum() * np.prod(ct.spacing_zyx_mm), rel=0.02)
    assert stored.voxels().extension == 0
    assert prepare(store, sources).kept == 1
    assert not list((tmp_path / "home").rglob("*pylidc*")), "pylidc's own reader writes its configuration there"


@pytest.mark.real_data
def test_an_incomplete_series_is_reported_and_not_used(tcia, patient_1, tmp_path):
    (series,) = (tcia / "LIDC-IDRI" / "LIDC-IDRI-0001").glob("*/*")
    slices = sorted(series.iterdir())
    copy = tmp_path / "LIDC-IDRI-0001" / "named as TCIA pleases"
    copy.mkdir(parents=True)
    for number, file in enumerate(slices):
        if number not in (60, 61):
            (copy / file.name).symlink_to(file)
    store = NoduleStore(tmp_path / "store", preprocessing=Preprocessing(kind="lidc"))
    (failure,) = prepare(store, lidc_sources(tmp_path, patient_1)).failures
    assert failure.case_id == patient_1[0].case_id
    assert failure.code.startswith("ct-")


def test_a_patient_that_was_not_downloaded_is_reported(patient_1, tmp_path):
    (tmp_path / "LIDC-IDRI-0002").mkdir()
    store = NoduleStore(tmp_path / "store", preprocessing=Preprocessing(kind="lidc"))
    (failure,) = prepare(store, lidc_sources(tmp_path, patient_1)).failures
    assert "LIDC-IDRI-0001 does not exist" in failure.message
    with pytest.raises(TrainingDataError, match="holds no folder LIDC-IDRI-0001"):
        lidc_sources(tmp_path / "LIDC-IDRI-0002", patient_1)


@pytest.mark.real_data
def test_shared_nodules_come_back_as_training_loads_them(data_root, tmp_path):
    from nodule_diag_training.data.lidc.diagnosed import load_nodules
    from nodule_diag_training.data.prepare.sources import SharedSource
    from nodule_diag_training.data.voxels import load_voxels

    nodules = load_nodules(data_root)
    chosen = [nodules[0], next(n for n in nodules if n.sure is not None), nodules[-1]]
    store = NoduleStore(tmp_path / "store", preprocessing=Preprocessing(kind="shared"))
    assert prepare(store, [SharedSource(nodule=n) for n in chosen]).added == 3
    stored = {s.case.case_id: s for s in read_store(store.path)}
    for nodule in chosen:
        voxels, own = load_voxels(nodule), stored[nodule.case_id]
        np.testing.assert_array_equal(own.voxels().channels, voxels.channels)
        np.testing.assert_array_equal(own.voxels().occupancy, voxels.occupancy)
        assert own.voxels().center == voxels.center
        back = own.case.nodule()
        assert (back.is_cube, back.sure, back.reader_scores, back.twin) == (
            nodule.is_cube, nodule.sure, nodule.reader_scores, nodule.twin,
        )  # fmt: skip


@pytest.mark.real_data
def test_the_command_prepares_lidc(tcia, tmp_path):
    command = ["prepare", "lidc", "--dicom-root", str(tcia), "--out", str(tmp_path / "store")]
    result = CliRunner().invoke(app, [*command, "--cohort", "paper", "--patient", "LIDC-IDRI-0001"])
    assert result.exit_code == 0, result.output
    assert "1 nodules added, 0 were there, 0 left out" in result.output
    assert "1 scans, 1 nodules that 3 readers or more outlined, 1 solid ones" in result.output
    again = CliRunner().invoke(app, [*command, "--patient", "LIDC-IDRI-0001"])
    assert "0 nodules added, 1 were there" in again.output
    absent = CliRunner().invoke(app, [*command, "--patient", "LIDC-IDRI-9999"])
    assert absent.exit_code != 0
