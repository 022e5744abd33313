"""The phantom against its own published truth, measured from the voxels."""

from __future__ import annotations

import numpy as np
import pytest

from nodule_diag.ct.phantom import DEFAULT_NODULES, NODULE_HU, Phantom, PhantomNodule, chest_phantom
from nodule_diag.errors import UsageError

COARSE = (2.5, 2.2, 2.2)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom()


def _distance_mm(phantom: Phantom, center_xyz_mm: tuple[float, float, float]) -> np.ndarray:
    """(z, y, x) distance of every voxel from a point, from the CT's own geometry."""
    axes = [
        origin + np.arange(size) * step - center
        for origin, size, step, center in zip(
            phantom.ct.origin_xyz_mm,
            reversed(phantom.ct.hu.shape),
            reversed(phantom.ct.spacing_zyx_mm),
            center_xyz_mm,
            strict=True,
        )
    ]
    x, y, z = axes
    return np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)


def test_looks_like_a_chest(phantom: Phantom) -> None:
    hu = phantom.ct.hu
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert hu.max() <= 3071
    assert -900 < np.median(hu[phantom.lungs]) < -800
    millilitres = phantom.lungs.sum() * np.prod(phantom.ct.spacing_zyx_mm) / 1000
    assert 3000 < millilitres < 6000
    left, right = np.array_split(phantom.lungs, 2, axis=2)
    assert 0.6 < left.sum() / right.sum() < 1.6
    assert not phantom.lungs[:, 0].any(), "no lung on the edge of the field"
    assert (hu > 300).mean() > 0.002, "bone"


@pytest.mark.parametrize("index", range(len(DEFAULT_NODULES)))
def test_nodules_have_their_place_and_size(phantom: Phantom, index: int) -> None:
    nodule = phantom.nodules[index]
    distance = _distance_mm(phantom, nodule.center_xyz_mm)
    radius = nodule.diameter_mm / 2
    core = phantom.ct.hu[distance < radius - 1.2]
    assert abs(core.mean() - NODULE_HU) < 8
    shell = (distance > radius + 1.2) & (distance < radius + 3)
    if nodule.kind == "solid":
        assert phantom.ct.hu[shell].max() < -600, "no vessel touches it"
        near = distance < radius + 3
        lung = np.median(phantom.ct.hu[shell])
        fraction = (phantom.ct.hu[near] - lung) / (NODULE_HU - lung)
        volume = fraction.sum() * np.prod(phantom.ct.spacing_zyx_mm)
        assert volume == pytest.approx(np.pi / 6 * nodule.diameter_mm**3, rel=0.06)
    else:
        assert 0.15 < (phantom.ct.hu[shell] > -200).mean() < 0.85, "grown onto the wall, and bulging into the lung"


def test_same_seed_same_volume() -> None:
    first, again, other = (chest_phantom(seed=seed, spacing_zyx_mm=COARSE) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.ct.hu, again.ct.hu)
    assert (first.ct.hu != other.ct.hu).mean() > 0.5
    np.testing.assert_array_equal(first.lungs, other.lungs)


def test_juxta_pleural_nodule_is_slid_onto_the_wall_on_either_side() -> None:
    asked = [PhantomNodule((side * 80.0, 10.0, -180.0), 14.0, "juxta-pleural") for side in (-1, 1)]
    right, left = chest_phantom(spacing_zyx_mm=COARSE, nodules=asked).nodules
    assert right.center_xyz_mm[0] < -110
    assert left.center_xyz_mm[0] > 110
    assert right.center_xyz_mm[1:] == (10.0, -180.0)


@pytest.mark.parametrize(
    ("nodule", "message"),
    [
        (PhantomNodule((0.0, 62.0, -180.0), 10.0), "not in a lung"),
        (PhantomNodule((-80.0, 0.0, -180.0), 90.0), "90.0 mm"),
    ],
)
def test_impossible_nodules_are_refused(nodule: PhantomNodule, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chest_phantom(spacing_zyx_mm=COARSE, nodules=[nodule])
