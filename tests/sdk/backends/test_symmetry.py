"""The cube's symmetries, and the backend that averages over them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag.backends.backend import Outputs
from nodule_diag.backends.symmetry import SYMMETRIES, VIEWS, SymmetricBackend
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError


class Equivariant:
    """A network that turns with its input: the maps are pooled from the patch, the numbers are sums over it."""

    name, device, precision, threads, batch = "stand-in", "cpu", "fp32", 1, 1

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, patches):
        self.calls += 1
        grid = patches[:, 0].reshape(-1, 16, 4, 16, 4, 16, 4).mean(axis=(2, 4, 6))
        logit = (grid.mean(axis=(1, 2, 3)) - 0.5) * 100
        signed = np.where(logit >= 0, 1.0, -1.0)[:, None, None, None] * grid
        low, high = signed.min(axis=(1, 2, 3), keepdims=True), signed.max(axis=(1, 2, 3), keepdims=True)
        return Outputs(
            malignancy=1 / (1 + np.exp(-logit)),
            logit=logit,
            expert_score=1 + 4 * grid.mean(axis=(1, 2, 3)),
            segmentation=grid,
            cam=(signed - low) / (high - low),
        )


class Disagreeing(Equivariant):
    """Says malignant of the patch itself and, less surely, benign of every other view; the map is the same ramp."""

    def infer(self, patches):
        self.calls += 1
        first = self.calls == 1
        ramp = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32)[:, None, None], (16, 16, 16))
        cam = (ramp if first else 1 - SYMMETRIES[self.calls - 1].apply(ramp))[None]
        logit = np.array([20.0 if first else -1.0], dtype=np.float32)
        return Outputs(
            malignancy=1 / (1 + np.exp(-logit)), logit=logit, expert_score=np.ones(1), segmentation=cam, cam=cam
        )


def test_there_are_48_different_ones_and_the_first_does_nothing():
    cube = np.arange(27.0).reshape(3, 3, 3)
    assert len({symmetry.apply(cube).tobytes() for symmetry in SYMMETRIES}) == 48
    np.testing.assert_array_equal(SYMMETRIES[0].apply(cube), cube)
    assert all(symmetry.order == (0, 1, 2) for symmetry in SYMMETRIES[:8])


@settings(max_examples=48)
@given(st.sampled_from(SYMMETRIES), st.integers(1, 4))
def test_undo_is_the_inverse(symmetry, lead):
    array = np.random.default_rng(lead).random((lead, 2, 5, 5, 5))
    np.testing.assert_array_equal(symmetry.undo(symmetry.apply(array)), array)
    np.testing.assert_array_equal(symmetry.apply(symmetry.undo(array)), array)


@pytest.mark.parametrize("views", VIEWS)
def test_a_network_that_turns_with_its_input_gives_the_same_answer(views):
    patches = np.random.default_rng(0).random((2, 2, 64, 64, 64), dtype=np.float32)
    inner = Equivariant()
    mean = SymmetricBackend(inner, views=views).infer(patches)
    assert inner.calls == views
    one = Equivariant().infer(patches)
    for name in ("malignancy", "logit", "expert_score", "segmentation", "cam"):
        np.testing.assert_allclose(getattr(mean, name), getattr(one, name), atol=2e-4, err_msg=name)


def test_a_view_of_the_other_class_lends_the_complement_of_its_map():
    patch = np.zeros((1, 2, 64, 64, 64), dtype=np.float32)
    outputs = SymmetricBackend(Disagreeing(), views=8).infer(patch)
    assert outputs.logit[0] == pytest.approx((20 - 7) / 8)
    assert outputs.malignancy[0] == pytest.approx(1 / (1 + np.exp(-13 / 8)))
    np.testing.assert_allclose(outputs.cam[0, :, 3, 5], np.linspace(0, 1, 16), atol=1e-6)


@pytest.mark.parametrize("views", [0, 2, 49, -1])
def test_other_numbers_are_refused(views):
    with pytest.raises(UsageError, match=f"symmetries is {views}"):
        Diagnoser.load(symmetries=views)


def test_the_spread_is_that_of_the_views_and_the_raw_cam_their_mean():
    patch = np.zeros((1, 2, 64, 64, 64), dtype=np.float32)
    outputs = SymmetricBackend(Disagreeing(), views=8).infer(patch)
    views = 1 / (1 + np.exp(-np.array([20.0] + [-1.0] * 7)))
    assert outputs.malignancy_spread[0] == pytest.approx(np.sqrt(np.mean((views - views.mean()) ** 2)))
    assert outputs.raw_cam is None

    class Raw(Equivariant):
        def infer(self, patches):
            grid = patches[:, 0].reshape(-1, 16, 4, 16, 4, 16, 4).mean(axis=(2, 4, 6))
            return replace(super().infer(patches), raw_cam=(grid - 0.5) * 100)

    patches = np.random.default_rng(1).random((2, 2, 64, 64, 64), dtype=np.float32)
    mean = SymmetricBackend(Raw(), views=8).infer(patches)
    np.testing.assert_allclose(mean.raw_cam, Raw().infer(patches).raw_cam, atol=1e-3)
    np.testing.assert_allclose(mean.raw_cam.mean(axis=(1, 2, 3)), mean.logit, atol=1e-4)
    np.testing.assert_allclose(mean.malignancy_spread, 0, atol=1e-4)
