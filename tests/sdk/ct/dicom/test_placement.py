"""Positions as scanners write them: which are taken as even, which are interpolated, and where that is forbidden."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ct_files as make
from dicom_exports import AXIAL, assert_is_the_field, exported, upright
from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.limits import check_size
from nodule_diag.ct.points import (
    GAP_MARGIN_MM,
    lps_from_index,
    lps_from_stored,
    require_no_gap,
    stored_voxel,
    to_lps,
)
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CoordinateError, CTError

SLICE_HU = 0.51  # of whole HU
PROPERTY = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLANES = {
    "axial": AXIAL,
    "axial, prone": ((-1, 0, 0), (0, -1, 0)),
    "axial, upside down": ((-1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": ((0.8, 0.6, 0), (-0.36, 0.48, 0.8)),
}
planes = pytest.mark.parametrize(("row", "column"), PLANES.values(), ids=PLANES)


def stacked(row, column, rises, sideways=(0.0, 0.0), origin=(-20.5, 11.25, -130.0)):
    """Positions along the normal, each moved sideways by so much of its rise along the row and the column."""
    row, column = np.asarray(row, float), np.asarray(column, float)
    along = np.cross(row, column) + sideways[0] * row + sideways[1] * column
    return [tuple(np.asarray(origin) + rise * along) for rise in rises]


@given(data=st.data())
@PROPERTY
def test_any_way_of_writing_positions_gives_the_same_volume(tmp_path_factory, data):
    step = data.draw(st.sampled_from([0.5, 0.6, 0.625, 0.75, 1.0, 1.25, 2.5, 3.0, 5.0]))
    count = data.draw(st.integers(6, 20))
    first = data.draw(st.integers(-900_000, 900_000)) / 1000
    decimals = data.draw(st.integers(1, 6))
    written = data.draw(st.sampled_from(["float32", "decimals", "noise", "drift", "shaken"]))
    heights = first + step * np.arange(count)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    points = np.array(upright(heights))
    items = exported(points)
    if written == "float32":
        points = points.astype(np.float32).astype(float)
    elif written == "decimals":
        points = points.round(decimals)
    elif written == "noise":
        points += rng.uniform(-1e-4, 1e-4, points.shape)
    elif written == "drift":  # half a millimetre from one end to the other
        points[:, :2] += np.outer(np.linspace(0, 0.5, count), [0.8, 0.6])
    else:
        points[:, :2] += rng.uniform(-0.17, 0.17, (count, 2))
    for item, point in zip(items, points, strict=True):
        item.ImagePositionPatient = [f"{value:.10g}" for value in point]
    folder = tmp_path_factory.mktemp("series")
    ct = read_ct(make.save_series(folder, [items[i] for i in rng.permutation(count)]))
    clean = read_ct(make.save_series(tmp_path_factory.mktemp("clean"), exported(upright(heights))))
    np.testing.assert_array_equal(ct.hu, clean.hu)
    assert ct.warnings == clean.warnings
    assert not ct.dicom.resampled
    for index in ((0, 0, 0), (27, 31, count - 1)):  # no voxel moved further than it was written
        away = lps_from_index(ct, [index]) - lps_from_index(clean, [index])
        assert np.abs(away).max() < (0.26 if written == "drift" else 0.18 if written == "shaken" else 0.1)


@pytest.mark.parametrize("step", [5.0, 5.0000001, 4.9999999])
def test_five_millimetres_are_five_millimetres(tmp_path, step):
    heights = np.float32(-331.7) + np.float32(step) * np.arange(20, dtype=np.float32)
    heights = heights + np.float32(3e-6)
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(heights))))
    assert ct.spacing_xyz_mm[2] == pytest.approx(5, abs=1e-5)


def test_exact_positions_give_exact_grids(tmp_path):
    """A fit leaves 1e-16 where a zero belongs."""
    for step in (0.3, 0.7, 1.1, 2.5):
        heights = [round(-131.3 + step * i, 6) for i in range(17)]
        ct = read_ct(make.save_series(tmp_path / f"{step}", exported(upright(heights, corner=(-171.7, -180.1)))))
        assert ct.spacing_xyz_mm == (1.5, 1.6, step)
        assert ct.origin_xyz_mm == (-171.7, -180.1, -131.3)


@planes
def test_missing_slices_are_interpolated_and_the_others_left_alone(tmp_path, row, column):
    everything = stacked(row, column, 2.5 * np.arange(14))
    missing = (3, 9, 10)
    there = [position for i, position in enumerate(everything) if i not in missing]
    whole = read_ct(make.save_series(tmp_path / "whole", exported(everything, row=row, column=column)))
    ct = read_ct(make.save_series(tmp_path / "part", exported(there[::-1], row=row, column=column)))
    assert (ct.size_xyz, ct.direction.tolist()) == (whole.size_xyz, whole.direction.tolist())
    assert_is_the_field(ct, within=40)
    stored = (
        np.moveaxis(ct.hu, 2 - ct.stored_axes.index(2), 0),
        np.moveaxis(whole.hu, 2 - whole.stored_axes.index(2), 0),
    )
    if ct.stored_flips[ct.stored_axes.index(2)]:
        stored = stored[0][::-1], stored[1][::-1]
    for i in range(14):
        assert np.array_equal(stored[0][i], stored[1][i]) == (i not in missing)

    assert ct.warnings[0].startswith("3 slices are missing and interpolated (2.5 mm apart): 5 mm between ")
    assert ct.dicom.resampled
    assert not whole.dicom.resampled
    kept = [one.position_xyz_mm for one in ct.dicom.slices]
    np.testing.assert_allclose(kept, there, atol=1e-9)  # the originals, where they truly lie

    normal = np.cross(row, column)
    sides = sorted((gap.width_mm, *(lps_from_index(ct, [[end if gap.axis == a else 0 for a in range(3)]])[0] @ normal
                    for end in (gap.first, gap.last))) for gap in ct.gaps)  # fmt: skip
    rise = np.array(everything) @ normal
    for (width, *ends), (low, high) in zip(sides, ((2, 4), (8, 11)), strict=True):
        assert width == pytest.approx(rise[high] - rise[low])
        np.testing.assert_allclose(sorted(ends), [rise[low], rise[high]], atol=1e-6)


@pytest.mark.parametrize("above", [True, False])
def test_a_nodule_near_a_gap_is_refused(tmp_path, above):
    heights = np.delete(2.5 * np.arange(60), 30)  # a gap from 72.5 to 77.5
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(heights))))
    reach = 16 + GAP_MARGIN_MM
    edge = 77.5 + reach if above else 72.5 - reach
    require_no_gap(ct, (-10, 20, edge + (0.01 if above else -0.01)), half_cube_mm=16)
    for z in (edge + (-0.01 if above else 0.01), 75.0):
        with pytest.raises(CoordinateError, match=r"a gap of 5 mm, where the nodule's cube of 32 mm") as caught:
            require_no_gap(ct, (-10, 20, z), half_cube_mm=16)
        assert caught.value.code == "coordinate-near-gap"


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(8, 30))
@PROPERTY
def test_uneven_slices_lie_where_they_say(tmp_path_factory, seed, count):
    rng = np.random.default_rng(seed)
    heights = np.cumsum(rng.uniform(1.4, 2.9, count))
    ct = read_ct(make.save_series(tmp_path_factory.mktemp("series"), exported(upright(heights))))
    assert_is_the_field(ct, within=3)
    usual = np.median(np.diff(heights))
    assert ct.spacing_xyz_mm[2] == pytest.approx(usual)
    assert [gap.width_mm for gap in ct.gaps] == pytest.approx([d for d in np.diff(heights) if d > 1.5 * usual])
    assert re.match(
        r"slices lie unevenly and were interpolated to the [\d.]+ mm that is usual: [\d.]+ mm between z", ct.warnings[0]
    )


def test_one_slice_out_of_place_leaves_the_others_alone(tmp_path):
    heights = 2.5 * np.arange(12)
    heights[6] += 1.2
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(heights))))
    clean = read_ct(make.save_series(tmp_path / "clean", exported(upright(2.5 * np.arange(12)))))
    same = [np.array_equal(a, b) for a, b in zip(ct.hu, clean.hu, strict=True)]
    assert same == [i != 6 for i in range(12)]
    assert_is_the_field(ct, within=3)
    assert "3.7 mm between z 12.50 and 16.20; 1.3 mm between z 16.20 and 17.50" in ct.warnings[0]
    assert ct.gaps == ()


@pytest.mark.parametrize("extra", [[20.5], [20.2], [20.02], [20.011], [0.4], [29.5], [12.5, 14.5, 20.03, 25.25]])
def test_a_slice_between_others_moves_none_of_them(tmp_path, extra):
    heights = np.arange(31.0)
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(sorted([*heights, *extra])))))
    clean = read_ct(make.save_series(tmp_path / "clean", exported(upright(heights))))
    np.testing.assert_array_equal(ct.hu, clean.hu)
    assert (ct.origin_xyz_mm, ct.spacing_xyz_mm) == (clean.origin_xyz_mm, clean.spacing_xyz_mm)
    assert ct.dicom.resampled
    assert len(ct.dicom.slices) == 31 + len(extra)
    assert "slices lie unevenly" in ct.warnings[0]


@given(data=st.data())
@PROPERTY
def test_any_slices_between_even_ones_move_none(tmp_path_factory, data):
    step, count = data.draw(st.sampled_from([0.625, 1.0, 2.5])), data.draw(st.integers(12, 30))
    between = st.tuples(st.integers(0, count - 2), st.integers(5, 95)).map(lambda at: step * (at[0] + at[1] / 100))
    extra = data.draw(st.lists(between, min_size=1, max_size=count // 4, unique_by=lambda height: int(height / step)))
    heights = sorted([*(step * np.arange(count)), *extra])
    ct = read_ct(make.save_series(tmp_path_factory.mktemp("series"), exported(upright(heights))))
    if ct.spacing_xyz_mm[2] == pytest.approx(step):
        assert_is_the_field(ct, within=SLICE_HU)


def test_gaps_that_drift_are_uneven_although_each_is_usual(tmp_path):
    """60 gaps of 1 mm and 60 of 1.049 would put slices 0.7 mm from where the mean distance has them."""
    heights = np.cumsum([0.0] + [1.0] * 60 + [1.049] * 60)
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(heights))))
    assert_is_the_field(ct, within=1.5)
    assert ct.dicom.resampled
    assert "slices lie unevenly" in ct.warnings[0]


@planes
@pytest.mark.parametrize("angle", [-25, -6, 8, 20])
def test_the_gantry_may_be_tilted_either_way(tmp_path, row, column, angle):
    """What the tag says is left aside: its sign has been written both ways."""
    rises = 2.5 * np.arange(16)
    positions = stacked(row, column, rises, sideways=(0, np.tan(np.deg2rad(angle))))
    items = exported(positions, row=row, column=column)
    for item in items:
        item.GantryDetectorTilt = abs(angle)
    ct = read_ct(make.save_series(tmp_path / "series", items))
    assert_is_the_field(ct, within=5, outside=-1024)
    assert ct.warnings[0] == (
        f"the gantry was tilted by {abs(angle):.1f} degrees: the slices were moved over each other by interpolation"
    )
    np.testing.assert_allclose(ct.direction.T @ ct.direction, np.eye(3), atol=1e-9)
    # Nothing of any slice is cut off.
    longest = 32 + np.ceil(rises[-1] * np.tan(np.deg2rad(abs(angle))) / 1.6 - 1e-6)
    assert ct.stored_size_xyz == (28, longest, 16)
    assert np.count_nonzero(ct.hu != -1024) >= 0.95 * 16 * 32 * 28
    np.testing.assert_allclose([one.position_xyz_mm for one in ct.dicom.slices], positions, atol=1e-9)


@pytest.mark.parametrize("angle", [-60, 36, 80])
def test_no_gantry_tilts_so_far(tmp_path, angle):
    positions = stacked(*AXIAL, 2.5 * np.arange(16), sideways=(0, np.tan(np.deg2rad(angle))))
    with pytest.raises(CTError, match=rf"as if the gantry was tilted by {abs(angle)} degrees") as caught:
        read_ct(make.save_series(tmp_path / "series", exported(positions)))
    assert caught.value.code == "ct-inconsistent-slices"


@planes
@pytest.mark.parametrize("kind", ["missing", "uneven", "tilted"])
def test_voxels_of_an_interpolated_series_are_those_of_its_files(tmp_path, row, column, kind):
    rises = np.delete(2.5 * np.arange(17), 7)
    if kind == "uneven":
        rises = np.sort([*rises, 3.1, 20.9])
    sideways = (0, np.tan(np.deg2rad(17))) if kind == "tilted" else (0, 0)
    positions = stacked(row, column, rises, sideways=sideways)
    ct = read_ct(make.save_series(tmp_path / "series", exported(positions[::-1], row=row, column=column)))
    assert ct.dicom.resampled
    order = [one.position_xyz_mm for one in ct.dicom.slices]
    for (x, y, z), position in (((x, y, z), order[z]) for x in (0, 5, 27) for y in (0, 31) for z in range(len(order))):
        # PS3.3, C.7.6.2.1.1
        point = np.asarray(position) + x * 1.5 * np.asarray(row, float) + y * 1.6 * np.asarray(column, float)
        np.testing.assert_allclose(to_lps(ct, [(x, y, z)], space="voxel")[0], point, atol=1e-6)
        assert stored_voxel(ct, [point])[0].tolist() == [x, y, z]
    middle = (to_lps(ct, [(3, 4, 5)], space="voxel") + to_lps(ct, [(3, 4, 6)], space="voxel")) / 2
    np.testing.assert_allclose(to_lps(ct, [(3, 4, 5.5)], space="voxel"), middle, atol=1e-9)


def test_a_voxel_of_a_whole_series_is_on_its_grid(tmp_path):
    ct = read_ct(make.save_series(tmp_path / "series", exported(upright(2.5 * np.arange(12)))))
    np.testing.assert_array_equal(to_lps(ct, [(3, 4, 5)], space="voxel"), lps_from_stored(ct, [(3, 4, 5)]))


@pytest.mark.parametrize(("thickness", "step", "said"), [(5, 2.5, True), (3, 2.5, False), (5, 5, False)])
def test_thick_slices_that_overlap_are_told(tmp_path, thickness, step, said):
    items = exported(upright(step * np.arange(12)))
    for item in items:
        item.SliceThickness = thickness
    ct = read_ct(make.save_series(tmp_path / "series", items))
    told = "slices are 5 mm thick; the method was made for slices of at most 3 mm"
    assert (told in ct.warnings) == said
    assert len(ct.warnings) == (thickness > 3)


def test_a_tilted_gantry_and_a_missing_slice(tmp_path):
    rises = np.delete(2.5 * np.arange(16), 7)
    items = exported(stacked(*AXIAL, rises, sideways=(0, 0.3)))
    ct = read_ct(make.save_series(tmp_path / "series", items))
    # Where a neighbour ends, what lies between is half air.
    assert_is_the_field(ct, within=15, outside=-1024, rows=slice(8, 32))
    assert len(ct.warnings) == 2
    assert [gap.width_mm for gap in ct.gaps] == [5.0]


def test_a_slice_off_by_more_than_the_drift_is_refused(tmp_path):
    for away in (0.4, 0.9):
        positions = upright(2.5 * np.arange(12))
        positions[4] = (positions[4][0] + away, *positions[4][1:])
        folder = make.save_series(tmp_path / f"{away}", exported(positions))
        if away < 0.5:
            assert read_ct(folder).warnings == ()
            continue
        with pytest.raises(CTError, match=r"004\.dcm does not lie over the other slices: .* by 0\.90 mm") as caught:
            read_ct(folder)
        assert caught.value.code == "ct-inconsistent-slices"


def test_a_position_far_away_allocates_nothing(tmp_path):
    heights = [*2.5 * np.arange(12), 1e9]
    with pytest.raises(CTError, match="13 slices where 400000001 would be even") as caught:
        read_ct(make.save_series(tmp_path / "series", exported(upright(heights))))
    assert caught.value.code == "ct-missing-slices"


def test_a_photon_counting_scan_is_within_the_limits():
    check_size((1024, 1024, 1300), path="scan")
    grid = StoredGrid.checked(
        (1024, 1024, 1300), spacing_xyz_mm=(0.3, 0.3, 0.2), origin_xyz_mm=(0, 0, 0), direction=np.eye(3), path="scan"
    )
    assert grid.size_xyz == (1024, 1024, 1300)
