"""The lung mask on made-up chests whose lungs are known, and on what is no chest at all."""

from functools import cache
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu

from nodule_diag.ct.volume import CTVolume
from nodule_diag.preprocessing.lungs import held_lung_mask, lung_mask, lung_warnings, otsu_threshold
from nodule_diag.preprocessing.mask import CUT_LUNG, NO_LUNG, LungMask
from nodule_diag.preprocessing.reference import reference_lung_mask

SPACING = (2.5, 2.0, 2.0)
SHAPE = (56, 125, 160)
AIR, LUNG, BODY = -1000, -850, 40


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Millimetres from the volume's centre along z, y, x, to be broadcast."""
    return np.ix_(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING, strict=True)))


@cache
def chest(*, through: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs and their union; ``through``: the lungs run out of the volume at both ends."""
    z, y, x = grid()
    hu = np.full(SHAPE, AIR, dtype=np.int16)
    body = (y / 100) ** 2 + (x / 145) ** 2 + 0 * z < 1
    hu[body] = BODY
    hu[:, np.abs(y[0, :, 0] - 115) < 3] = -300  # table
    height = 1e6 if through else 62
    lungs = np.zeros(SHAPE, dtype=bool)
    for side in (-65, 65):
        lungs |= (z / height) ** 2 + (y / 70) ** 2 + ((x - side) / 48) ** 2 < 1
    hu[lungs] = LUNG
    return (hu + np.random.default_rng(5).normal(0, 25, SHAPE)).clip(-1024, 3071).astype(np.int16), lungs


def volume(hu: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> CTVolume:
    """Past the checks of ``from_array``: some of these arrays are no chest."""
    return CTVolume(hu, spacing, (-20.0, 30.0, -400.0), np.eye(3), path="<test>")


def point(ct: CTVolume, index_xyz: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(ct.origin_xyz_mm) + np.asarray(index_xyz) * np.asarray(ct.spacing_zyx_mm[::-1])


@pytest.mark.parametrize("through", [False, True])
def test_mask_holds_the_lungs_and_little_more(through: bool) -> None:
    hu, lungs = chest(through=through)
    mask = lung_mask(volume(hu))
    found = mask.to_array()
    assert mask.warnings == ()
    assert found[lungs].mean() > 0.999
    z, y, x = grid()
    far = np.ones(SHAPE, dtype=bool)
    height = 1e6 if through else 62 + 7
    for side in (-65, 65):
        far &= (z / height) ** 2 + (y / 77) ** 2 + ((x - side) / 55) ** 2 > 1
    # Between the lungs the mediastinum of this phantom is a 34 mm slit at its thinnest: wide enough to stay open.
    assert found[far].mean() < 0.002


@pytest.mark.parametrize("through", [False, True])
def test_agrees_with_the_literal_mask(through: bool) -> None:
    ct = volume(chest(through=through)[0])
    assert dice(lung_mask(ct).to_array(), reference_lung_mask(ct)) >= 0.98


def test_fine_grid_agrees_with_the_literal_mask() -> None:
    """Voxels finer than the mask's grid, so that it is interpolated along every axis."""
    hu = np.repeat(np.repeat(np.repeat(chest()[0][20:40, 20:110, 10:100], 2, 0), 2, 1), 2, 2)
    ct = volume(hu, (1.25, 1.0, 1.0))
    mask = lung_mask(ct)
    assert mask.stride_zyx == (2, 2, 2)
    assert dice(mask.to_array(), reference_lung_mask(ct)) >= 0.98


@pytest.mark.parametrize("diameter_mm", [8, 14, 20])
def test_juxta_pleural_nodule_is_inside(diameter_mm: int) -> None:
    hu, lungs = chest()
    hu = hu.copy()
    z, y, x = grid()
    nodule = z**2 + y**2 + (x - (113 - 0.3 * diameter_mm)) ** 2 < (diameter_mm / 2) ** 2
    hu[nodule] = 45
    assert lung_mask(volume(hu)).to_array()[nodule & lungs].mean() >= 0.99


def test_core_of_a_large_nodule_inside_the_lung_is_filled() -> None:
    hu = chest()[0].copy()
    z, y, x = grid()
    nodule = z**2 + y**2 + (x - 65) ** 2 < 17**2
    vessel = (np.abs(y) < 4) & (np.abs(z) < 4) & (x > -65) & (x < 65)  # joins it to the mediastinum, hence to A
    hu[nodule | vessel] = 45
    ct = volume(hu)
    assert lung_mask(ct).to_array()[nodule].all()
    assert reference_lung_mask(ct)[nodule].all()


def test_air_outside_the_lungs_is_left_out() -> None:
    hu = chest()[0].copy()
    z, y, x = grid()
    noise = np.random.default_rng(1).normal(0, 10, SHAPE)
    stomach = (z + 30) ** 2 + (y + 85) ** 2 * 9 + x**2 < 45**2
    hu[stomach] = (-1000 + noise[stomach]).clip(-1024).astype(np.int16)
    arm = ((np.abs(x - 150) < 4) & (np.abs(y) < 75) & (z < 1e9)) | (
        (np.abs(np.abs(y) - 75) < 4) & (x > 80) & (x < 154) & (z < 1e9)
    )
    hu[arm] = BODY  # between arm and chest a gap that is closed in every axial slice
    found = lung_mask(volume(hu)).to_array()
    assert not found[stomach].any()
    assert not found[:, :, x[0, 0] > 147].any()


@pytest.mark.parametrize(
    "edge", [np.s_[:, :12, 60:90], np.s_[:, -12:, 60:90], np.s_[:, 40:70, :9], np.s_[:, 40:70, -9:]]
)
def test_what_is_open_at_an_edge_of_the_slice_is_outside(edge: tuple[slice, slice, slice]) -> None:
    hu = np.full(SHAPE, BODY, dtype=np.int16)
    hu[10:50, 50:80, 60:90] = LUNG  # closed all round
    hu[edge] = LUNG
    found = lung_mask(volume(hu)).to_array()
    assert found[10:50, 50:80, 60:90].all()
    assert not found[edge].all(axis=0).any()


@pytest.mark.parametrize("cut", [np.s_[:, :, 60:], np.s_[:, 45:], np.s_[:, 45:-40, 45:-20]])
def test_lung_that_the_edge_of_the_slices_cuts_is_not_called_outside(cut: tuple[slice, ...]) -> None:
    hu, lungs = chest()
    z, y, x = grid()
    nodule = (z - 0) ** 2 + (y - 10) ** 2 + (np.abs(x) - 65) ** 2 < 6**2
    assert lungs[nodule].all()
    ct = volume(np.where(nodule, 45, hu).astype(np.int16)[cut])
    mask = lung_mask(ct)
    assert mask.warnings == lung_warnings(ct) == (CUT_LUNG,)
    inside = np.argwhere(lungs[cut])[::997]
    assert len(inside) > 50
    assert {mask.contains(point(ct, tuple(index[::-1]))) for index in inside} <= {True, None}
    away = np.argwhere(~ndimage.binary_dilation(lungs, iterations=6)[cut])
    assert {mask.contains(point(ct, tuple(index[::-1]))) for index in away[::997]} == {False}


@pytest.mark.parametrize("fill", [0, 500, -300, -2000, -1000])
@pytest.mark.parametrize("width", [4, 40])
def test_a_canvas_round_the_ct_is_no_body(fill: int, width: int) -> None:
    hu = chest()[0]
    sides = ((0, 0), (width, width), (width, width))
    found = lung_mask(volume(np.pad(hu, sides, constant_values=fill).clip(-1024)))
    wanted = lung_mask(volume(np.pad(hu, sides, constant_values=-1024)))
    assert (found.warnings, found.whole) == ((), None)
    np.testing.assert_array_equal(found.to_array(), wanted.to_array())


def test_contains_follows_the_mask_and_ends_at_the_border() -> None:
    ct = volume(chest(through=True)[0])
    mask = lung_mask(ct)
    middle = ((SHAPE[2] - 1) / 2 + 65 / 2.0, (SHAPE[1] - 1) / 2, 0.0)
    assert mask.contains(point(ct, middle))
    assert mask.contains(point(ct, (*middle[:2], -0.4)))
    assert not mask.contains(point(ct, (*middle[:2], -0.6)))
    assert not mask.contains(point(ct, (3.0, 3.0, 20.0)))
    assert not mask.contains(point(ct, (1e5, 0.0, 0.0)))


@pytest.fixture(scope="module")
def mask_and_whole() -> tuple[LungMask, np.ndarray]:
    hu = np.repeat(chest()[0][:, ::3, ::3], 3, axis=2)
    mask = lung_mask(volume(hu, (2.5, 6.0, 0.9)))
    return mask, mask.to_array()


@given(data=st.data())
@settings(max_examples=10)
def test_a_crop_is_part_of_the_whole(mask_and_whole: tuple[LungMask, np.ndarray], data: st.DataObject) -> None:
    mask, whole = mask_and_whole
    box = []
    for size in whole.shape:
        start = data.draw(st.integers(0, size))
        box.append(slice(start, data.draw(st.integers(start, size))))
    np.testing.assert_array_equal(mask.crop(tuple(box)), whole[tuple(box)])


def test_a_remembered_mask_is_the_mask_and_goes_with_its_ct() -> None:
    ct = volume(chest()[0])
    (held, again), found = (held_lung_mask(ct), held_lung_mask(ct)), lung_mask(ct)
    assert held.closed is again.closed
    assert held.warnings == found.warnings
    np.testing.assert_array_equal(held.to_array(), found.to_array())
    gone = ref(ct), ref(held.closed)
    del ct, held, again, found
    assert [one() for one in gone] == [None, None]  # at once, not when cycles are looked for


def test_a_mask_made_elsewhere_is_kept_exactly() -> None:
    wanted = np.random.default_rng(2).random((5, 6, 7)) < 0.5
    ct = volume(np.zeros((5, 6, 7), dtype=np.int16))
    np.testing.assert_array_equal(LungMask.from_array(ct, wanted).to_array(), wanted)
    with pytest.raises(ValueError, match=r"\(5, 6, 6\)"):
        LungMask.from_array(ct, wanted[..., :6])


NOT_A_CHEST = {
    "one voxel": np.full((1, 1, 1), 40),
    "constant": np.full((4, 30, 30), -1000),
    "padding": np.full((3, 20, 20), -1024),
    "tissue only": np.random.default_rng(0).normal(40, 20, (10, 40, 40)),
    "air only": np.random.default_rng(0).normal(-1000, 20, (10, 40, 40)).clip(-1024),
    "lung without a body round it": np.random.default_rng(0).normal(-850, 30, (10, 40, 40)),
    "flat": np.full((1, 40, 1), 40),
}


@pytest.mark.parametrize("name", NOT_A_CHEST)
def test_without_lungs_the_mask_is_empty_and_says_so(name: str) -> None:
    ct = volume(NOT_A_CHEST[name].astype(np.int16))
    mask = lung_mask(ct)
    assert mask.warnings == (CUT_LUNG if name.startswith("lung") else NO_LUNG,)
    assert mask.to_array().shape == ct.hu.shape
    assert not mask.to_array().any()
    assert not mask.contains(point(ct, (0.0, 0.0, 0.0)))
    assert not reference_lung_mask(ct).any()


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5, 5.0])] * 3),
    dtype=st.sampled_from([np.int16, np.float32]),
)
@settings(max_examples=25)
def test_any_volume_gets_a_mask_of_its_shape(seed, shape, spacing, dtype) -> None:
    hu = np.random.default_rng(seed).choice([-1024, -850, -500, 40, 3071], size=shape).astype(dtype)
    mask = lung_mask(volume(hu, spacing))
    found = mask.to_array()
    assert found.shape == shape
    assert found.any() or mask.warnings in {(NO_LUNG,), (CUT_LUNG,)}


def test_one_slice_of_a_chest() -> None:
    hu, lungs = chest()
    mask = lung_mask(volume(hu[30:31])).to_array()
    assert mask[lungs[30:31]].mean() > 0.999
    assert mask.mean() < 1.3 * lungs[30:31].mean()


@given(seed=st.integers(0, 1000), low=st.integers(-1024, -200), gap=st.integers(50, 500))
@settings(max_examples=30)
def test_otsu_separates_as_skimage_does(seed: int, low: int, gap: int) -> None:
    rng = np.random.default_rng(seed)
    hu = np.concatenate([rng.normal(low, 15, 700), rng.normal(low + gap, 15, 400)]).clip(-1024, 400).astype(np.int16)
    expected = threshold_otsu(hu, nbins=int(hu.max()) - int(hu.min()) + 1)
    ours = otsu_threshold(hu)
    # Empty histogram bins between two groups give a plateau of equally good thresholds.
    assert np.count_nonzero(hu > ours) == pytest.approx(np.count_nonzero(hu > expected), abs=3)


def test_metal_does_not_move_the_threshold() -> None:
    hu, _ = chest()
    metal = hu.copy()
    metal[25:35, 55:75, 80:90] = 3071
    assert otsu_threshold(metal) == pytest.approx(otsu_threshold(hu), abs=40)
