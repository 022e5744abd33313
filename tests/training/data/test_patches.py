"""Training patches: geometry of crops, fades and symmetries, and that nothing of a VOI's cut is left to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag_training.data.lidc.diagnosed import load_nodules
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.patches import PatchSampler, cut_like_voi, symmetry
from nodule_diag_training.data.voxels import EXTENSION, load_voxels

SIZE = 32


def place(nodule, voxels, nodules, *, seed=0, patient=None, **options):
    sampler = PatchSampler(voxels, nodules)
    return sampler.place(
        voxels[nodule.case_id],
        np.random.default_rng(seed),
        patient_id=patient or nodule.patient_id,
        size=SIZE,
        **options,
    )


def test_a_cube_is_cut_from_its_own_voxels(tiny_nodules, tiny_voxels):
    cube = tiny_nodules[0]
    voxels = tiny_voxels[cube.case_id]
    sample = place(cube, tiny_voxels, tiny_nodules)
    start = (60 - SIZE) // 2
    box = (slice(None), *(slice(start, start + SIZE),) * 3)
    np.testing.assert_array_equal(sample.patch, voxels.channels[box].astype(np.float32))
    np.testing.assert_array_equal(sample.occupancy, voxels.occupancy[box[1:]].astype(np.float32))


def test_an_offset_of_the_centre_moves_the_nodule_the_other_way(tiny_nodules, tiny_voxels):
    sample = place(tiny_nodules[0], tiny_voxels, tiny_nodules, offset=(4, 0, -6))
    weights = sample.occupancy / sample.occupancy.sum()
    center = [float((weights * axis).sum()) for axis in np.indices((SIZE, SIZE, SIZE))]
    assert center == pytest.approx([15.5 - 4, 15.5, 15.5 + 6], abs=1e-4)


def test_a_voi_keeps_what_was_measured_and_takes_the_rest_from_another_patient(tiny_nodules, tiny_voxels):
    voi = tiny_nodules[4]
    voxels = tiny_voxels[voi.case_id]
    sample = place(voi, tiny_voxels, tiny_nodules, seed=3)
    z0, y0, x0 = (round(c - 15.5) for c in voxels.center)
    inside = [z - z0 for z in range(EXTENSION, voxels.channels.shape[1] - EXTENSION) if 0 <= z - z0 < SIZE]
    for z in inside:
        measured = voxels.channels[:, z + z0, y0 : y0 + SIZE, x0 : x0 + SIZE]
        np.testing.assert_allclose(sample.patch[:, z], measured.astype(np.float32), atol=1e-6)
    assert sample.occupancy[: inside[0]].sum() == 0
    assert sample.patch[0, 0].mean() > 0.05, "the surroundings are tissue, not nothing"


def test_surroundings_never_come_from_the_nodules_own_patient(tiny_nodules, tiny_voxels):
    own, voi = tiny_nodules[0], tiny_nodules[4]
    marked = dict(tiny_voxels)
    marked[own.case_id] = replace(marked[own.case_id], channels=np.full_like(marked[own.case_id].channels, 0.9))
    for seed in range(15):
        sample = place(voi, marked, tiny_nodules, seed=seed, patient=own.patient_id)
        assert sample.patch[0, 0].max() < 0.89


def test_a_cube_cut_like_a_voi_keeps_the_nodule_where_it_was(tiny_nodules, tiny_voxels):
    voxels = tiny_voxels[tiny_nodules[2].case_id]
    cut = cut_like_voi(voxels, np.random.default_rng(1))
    assert cut.extension == EXTENSION
    assert cut.occupancy.astype(float).sum() == voxels.occupancy.astype(float).sum()
    weights = cut.occupancy.astype(np.float64) / cut.occupancy.astype(np.float64).sum()
    assert [float((weights * axis).sum()) for axis in np.indices(weights.shape)] == pytest.approx(cut.center, abs=1e-3)
    assert cut.channels.shape[1] < voxels.channels.shape[1]


def test_the_symmetries_are_the_48_of_the_cube():
    rng = np.random.default_rng(0)
    assert len({symmetry(rng) for _ in range(3000)}) == 48


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_a_symmetry_moves_patch_and_mask_alike(seed):
    rng = np.random.default_rng(seed)
    array = rng.random((8, 8, 8)).astype(np.float32)
    turn = symmetry(rng)
    both = turn.apply(np.stack([array, array + 1]))
    np.testing.assert_array_equal(both[1], turn.apply(array) + 1)
    assert sorted(both[0].ravel()) == sorted(array.ravel())


def test_a_draw_depends_on_its_generator_alone(tiny_nodules, tiny_voxels):
    sampler = PatchSampler(tiny_voxels, tiny_nodules)
    one, two = (sampler.draw(tiny_nodules[5], np.random.default_rng(7), size=SIZE) for _ in range(2))
    np.testing.assert_array_equal(one.patch, two.patch)
    np.testing.assert_array_equal(one.occupancy, two.occupancy)


def test_the_target_of_a_cell_is_the_share_that_the_mask_fills(tiny_nodules, tiny_voxels):
    sample = PatchSampler(tiny_voxels, tiny_nodules).draw(tiny_nodules[1], np.random.default_rng(0), size=SIZE)
    assert sample.nodule.shape == (8, 8, 8)
    assert sample.nodule[3, 3, 4] == pytest.approx(sample.occupancy[12:16, 12:16, 16:20].mean())


def test_no_cubes_is_refused(tiny_nodules, tiny_voxels):
    with pytest.raises(TrainingDataError, match="no cube"):
        PatchSampler(tiny_voxels, [n for n in tiny_nodules if not n.is_cube])


def test_an_unreadable_image_is_named(tiny_nodules, tmp_path):
    with pytest.raises(TrainingDataError, match=r"voi-4: 4\.nii\.gz cannot be read"):
        load_voxels(replace(tiny_nodules[4], image=tmp_path / "4.nii.gz"))


@pytest.mark.real_data
def test_a_real_voi_and_its_cube_hold_the_same_nodule(data_root):
    nodules = {n.case_id: n for n in load_nodules(data_root)}
    cube = nodules["cube/3_nod1_ann0"]
    volumes = [float(load_voxels(n).occupancy.astype(np.float64).sum()) * 0.125 for n in (cube, nodules[cube.twin])]
    # One is a reader's outline at 1 mm, the other the consensus of four at native spacing.
    assert volumes[0] == pytest.approx(volumes[1], rel=0.5)
