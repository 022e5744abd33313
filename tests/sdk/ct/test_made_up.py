"""Made-up nodules: balls where they should be, and the bytes that recorded parity figures are of."""

from __future__ import annotations

import hashlib
from itertools import product

import numpy as np
import pytest

from nodule_diag.backends.parity import probe_patch
from nodule_diag.ct.made_up import ball_in_noise, distance_from_middle, made_up_ct


def test_distances_are_from_the_middle_in_mm():
    shape, spacing = (3, 4, 5), (2.5, 0.7, 1.0)
    found = distance_from_middle(shape, spacing_zyx_mm=spacing)
    assert found.shape == shape
    for place in product(*map(range, shape)):
        literal = [(i - (n - 1) / 2) * s for i, n, s in zip(place, shape, spacing, strict=True)]
        assert found[place] == pytest.approx(np.linalg.norm(literal))


def test_a_ball_lies_in_the_noise_and_leaves_it_alone():
    noise = np.random.default_rng(0).random((2, 16, 16, 16), dtype=np.float32)
    before = noise.copy()
    patch = ball_in_noise(noise, radius_voxels=4.0)
    assert (patch.dtype, patch.shape) == (np.float32, noise.shape)
    np.testing.assert_array_equal(noise, before)
    inside = patch > 0.5
    assert (inside[0] == inside[1]).all()
    assert inside[0].sum() == (distance_from_middle((16, 16, 16)) < 4.0).sum()
    np.testing.assert_allclose(np.where(inside, patch - 0.8, patch), 0.1 * noise, atol=1e-6)


def test_the_probe_patch_keeps_its_bytes():
    """What was measured with it is in manifests; a new numpy that draws otherwise would make these figures stale."""
    assert hashlib.sha256(probe_patch().tobytes()).hexdigest().startswith("b520ff68eb4d8a44")
    assert hashlib.sha256(made_up_ct().hu.tobytes()).hexdigest().startswith("1aadca01944e7b72")
