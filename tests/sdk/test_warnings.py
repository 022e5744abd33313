"""A cube that lies half outside the CT, and a volume without a lung, are said; of a usual chest neither is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nodule_diag as nd
from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag.ct.points import is_inside
from nodule_diag.ct.volume import CTVolume
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.preprocessing.lungs import LEAST_LUNG, lung_mask, lung_warnings
from nodule_diag.preprocessing.mask import NO_LUNG
from nodule_diag.preprocessing.patch import cube_outside, patch_offsets_mm
from nodule_diag.results.warning_texts import CUBE_OUTSIDE

SPACING = (2.5, 1.8, 1.8)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(spacing_zyx_mm=SPACING)


@pytest.fixture(scope="module")
def diagnoser(tiny_bundle: Path) -> Diagnoser:
    return Diagnoser.load(tiny_bundle, device="cpu", threads=1)


def volume(hu: np.ndarray, spacing: tuple[float, float, float] = (2.0, 1.5, 1.5)) -> CTVolume:
    return CTVolume.from_array(hu, spacing_zyx_mm=spacing, origin_xyz_mm=(-50.0, 20.0, -100.0))


def body(*, stool: float = 0.0) -> np.ndarray:
    """Soft tissue in air, with a ball of -500 HU of so many mm in it: an abdomen."""
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in (60, 100, 120)), indexing="ij")
    hu = np.where((x / 55) ** 2 + (y / 45) ** 2 < 1, 40.0, -1000.0)
    hu[(1.5 * x) ** 2 + (1.5 * y) ** 2 + (2 * z) ** 2 < stool**2] = -500
    return (hu + np.random.default_rng(0).normal(0, 10, hu.shape)).clip(-1024, 3071).astype(np.int16)


@given(
    size=st.tuples(*[st.integers(4, 40)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.8, 1.3, 3.0])] * 3),
    place=st.tuples(*[st.floats(0, 1)] * 3),
    turn=st.floats(0, 1),
)
def test_the_share_is_that_of_the_voxels(size, spacing, place, turn) -> None:
    """Counted one by one, also in an oblique scan; the half voxel at the border belongs to the CT."""
    cosine, sine = np.cos(turn), np.sin(turn)
    direction = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    hu = np.full(size, -800, np.int16)
    hu[0] = 40
    ct = CTVolume.from_array(hu, spacing_zyx_mm=spacing, origin_xyz_mm=(5.0, -7.0, 9.0), direction=direction)
    index = np.array(place) * (np.array(ct.size_xyz) - 1)
    center = ct.origin_xyz_mm + ct.direction @ (index * ct.spacing_xyz_mm)
    offsets = np.stack(np.meshgrid(*[patch_offsets_mm()] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    counted = 1 - is_inside(ct, center + offsets @ ct.direction.T).mean()
    assert cube_outside(ct, center) == pytest.approx(counted, abs=64 / 64**3)  # a border met by rounding


@pytest.mark.parametrize("check_lung", [True, False])
def test_a_cube_half_outside(phantom: Phantom, diagnoser: Diagnoser, check_lung: bool) -> None:
    x, y, z = phantom.nodules[0].center_xyz_mm
    top = phantom.ct.origin_xyz_mm[2] + (phantom.ct.size_xyz[2] - 0.5) * phantom.ct.spacing_xyz_mm[2]
    found = diagnoser.predict(phantom.ct, [(x, y, top), (x, y, top - 14), (x, y, z)], check_lung=check_lung)
    assert "the cube round the position lies 50 % outside the CT: the network saw air there" in found[0].warnings
    for diagnosis, share in zip(found[1:], (2 / 32, 0.0), strict=True):
        assert share < CUBE_OUTSIDE
        assert not any("outside the CT" in warning for warning in diagnosis.warnings)


@pytest.mark.parametrize("check_lung", [True, False])
def test_a_volume_without_a_lung(diagnoser: Diagnoser, check_lung: bool) -> None:
    ct = volume(body())
    (found,) = diagnoser.predict(ct, [(40.0, 95.0, -40.0)], check_lung=check_lung)
    assert NO_LUNG in found.warnings
    assert found.in_lung is (False if check_lung else None)


@pytest.mark.parametrize("check_lung", [True, False])
def test_hardly_any_lung(diagnoser: Diagnoser, check_lung: bool) -> None:
    """A ball of 4 ml in 3,240 ml; the same ball five times as wide is lung enough."""
    (found,) = diagnoser.predict(volume(body(stool=10.0)), [(40.0, 95.0, -40.0)], check_lung=check_lung)
    assert "hardly any lung was found in this CT: 0.1 % of it" in found.warnings
    ct = volume(body(stool=40.0))
    assert lung_mask(ct).to_array().mean() > LEAST_LUNG
    assert lung_mask(ct).warnings == lung_warnings(ct) == ()


def test_a_usual_chest(phantom: Phantom) -> None:
    assert lung_mask(phantom.ct).warnings == lung_warnings(phantom.ct) == ()
    upper_half = volume(phantom.ct.hu[phantom.ct.hu.shape[0] // 2 :], SPACING)
    assert lung_warnings(upper_half) == ()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["LIDC-IDRI-0314.nii.gz", "LIDC-IDRI-0001_dicom.zip"])
def test_real_chests(data_root: Path, name: str) -> None:
    """Nor of a position anywhere in the lungs, but for few at their very ends."""
    ct = nd.read_ct(data_root / "ct" / name)
    mask = lung_mask(ct)
    assert mask.warnings == lung_warnings(ct) == ()
    inside = np.argwhere(mask.to_array()[::4, ::4, ::4]) * 4
    chosen = inside[np.random.default_rng(0).choice(len(inside), 500)][:, ::-1]
    places = ct.origin_xyz_mm + (chosen * ct.spacing_xyz_mm) @ ct.direction.T
    assert np.mean([cube_outside(ct, place) > CUBE_OUTSIDE for place in places]) <= 0.01
