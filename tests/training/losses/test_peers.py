"""CAM-loss and the scores as classes, against their papers' formulas written out position by position."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nodule_diag_training.losses import peers as peer_losses

SIDE = 3
CELLS = list(product(range(SIDE), repeat=3))
thorough = settings(max_examples=50)
features = arrays(np.float64, (4, SIDE, SIDE, SIDE), elements=st.floats(0.0, 9.0, width=32))
weights = arrays(np.float64, (4,), elements=st.floats(-2.0, 2.0, width=32))
logits = arrays(np.float64, (2, 5), elements=st.floats(-9.0, 9.0, width=32))
scores = arrays(np.int64, (2,), elements=st.integers(1, 5))


def normalised(raw: dict) -> dict:
    low, high = min(raw.values()), max(raw.values())
    return {cell: (value - low) / (high - low) for cell, value in raw.items()}


@thorough
@given(f=features, w=weights, label=st.sampled_from([0, 1]))
def test_cam_loss_is_the_mean_distance_of_the_normalised_maps(f, w, label):
    """Wang et al. 2021, with weights (w, -w) of the malignant and the benign class."""
    raw = {cell: sum((w if label else -w)[k] * f[(k, *cell)] for k in range(4)) for cell in CELLS}
    agnostic = {cell: sum(f[(k, *cell)] for k in range(4)) for cell in CELLS}
    assume(np.ptp(list(raw.values())) > 1e-3 and np.ptp(list(agnostic.values())) > 1e-3)
    cam, caam = normalised(raw), normalised(agnostic)
    expected = sum(abs(caam[cell] - cam[cell]) for cell in CELLS) / len(CELLS)
    f_, w_ = torch.from_numpy(f), torch.from_numpy(w)
    found = peer_losses.cam_loss(
        torch.einsum("k,kxyz->xyz", w_, f_)[None], f_.sum(dim=0)[None], torch.tensor([float(label)])
    )
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_cam_loss_is_zero_where_the_features_say_the_target_class_and_only_then():
    activation = torch.rand(1, 4, 4, 4)
    malignant, benign = torch.tensor([1.0]), torch.tensor([0.0])
    assert peer_losses.cam_loss(3.0 * activation, activation, malignant).item() == pytest.approx(0.0, abs=1e-6)
    assert peer_losses.cam_loss(-3.0 * activation, activation, benign).item() == pytest.approx(0.0, abs=1e-6)
    assert peer_losses.cam_loss(3.0 * activation, activation, benign).item() > 0.2


def test_cam_loss_suppresses_features_that_do_not_speak_for_the_target_class():
    """A feature of weight 0 beside one that speaks for the class: descent takes it back (Wang et al., fig. 1)."""
    target, distractor = torch.zeros(2, 1, 4, 4, 4)
    target[0, 1, 1, 1], distractor[0, 3, 3, 3] = 1.0, 0.6
    distractor.requires_grad_()
    peer_losses.cam_loss(target, target + distractor, torch.tensor([1.0])).sum().backward()
    assert distractor.grad[0, 3, 3, 3] > 0


def test_the_gradients_of_cam_loss_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    cam = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    activation = torch.rand(2, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c, a: peer_losses.cam_loss(c, a, label), (cam, activation))


@thorough
@given(logit=logits, score=scores)
def test_scores_as_classes(logit, score):
    cross, ordinal = (
        loss(torch.from_numpy(logit), torch.from_numpy(score)).numpy()
        for loss in (peer_losses.score_cross_entropy, peer_losses.ordinal_loss)
    )
    for i in range(2):
        total = sum(math.exp(value) for value in logit[i])
        log_p = {rank: math.log(math.exp(logit[i, rank - 1]) / total) for rank in range(1, 6)}
        assert cross[i] == pytest.approx(-log_p[score[i]], abs=1e-9)
        # Diaz and Marathe 2019, eq. 1, with the squared distance.
        phi = {rank: (score[i] - rank) ** 2 for rank in range(1, 6)}
        soft = {rank: math.exp(-phi[rank]) / sum(math.exp(-other) for other in phi.values()) for rank in phi}
        assert ordinal[i] == pytest.approx(-sum(soft[rank] * log_p[rank] for rank in soft), rel=1e-5, abs=1e-6)


def test_ordinal_labels_fall_off_on_both_sides():
    labels = peer_losses.ordinal_labels(torch.arange(1, 6))
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(labels[2], labels[2].flip(0))  # 3 lies in the middle
    assert labels[2, 2].item() == pytest.approx(0.56, abs=0.005)
    assert labels[0, 0].item() == pytest.approx(0.72, abs=0.01)
    for true in range(5):
        assert labels[true].argmax().item() == true
        assert labels[true, 0].item() == pytest.approx(labels[true, true].item() * math.exp(-(true**2)), rel=1e-5)


def test_a_near_miss_costs_less_than_a_far_one_only_with_ordinal_labels():
    near, far = 4.0 * torch.eye(5)[[3]], 4.0 * torch.eye(5)[[0]]
    true = torch.tensor([5])
    assert peer_losses.ordinal_loss(near, true) < peer_losses.ordinal_loss(far, true) - 0.5
    torch.testing.assert_close(peer_losses.score_cross_entropy(near, true), peer_losses.score_cross_entropy(far, true))
