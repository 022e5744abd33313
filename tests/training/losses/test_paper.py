"""Every loss against its equation, written out voxel by voxel in Python."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nodule_diag_training.losses import paper as losses

SIDE = 3
CELLS = list(product(range(SIDE), repeat=3))
THRESHOLD = 0.5

unit = arrays(np.float64, (2, SIDE, SIDE, SIDE), elements=st.floats(0.0, 1.0, width=32))
maps = arrays(np.float64, (2, SIDE, SIDE, SIDE), elements=st.floats(-50.0, 50.0, width=32))
logits = arrays(np.float64, (2,), elements=st.floats(-20.0, 20.0, width=32))
labels = arrays(np.float64, (2,), elements=st.sampled_from([0.0, 1.0]))
margins = st.floats(-1.0, 1.0, width=32)
thorough = settings(max_examples=50)


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def literal_dice(y: np.ndarray, g: np.ndarray, epsilon: float) -> float:
    """Eq. 1."""
    overlap = predicted = true = 0.0
    for cell in CELLS:
        overlap += y[cell] * g[cell]
        predicted += y[cell]
        true += g[cell]
    return 1.0 - (2.0 * overlap + epsilon) / (predicted + true + epsilon)


def literal_class_cam(cam: np.ndarray, logit: float) -> np.ndarray:
    """Eq. 6, then min-max."""
    raw = {cell: (sigmoid(logit) - THRESHOLD) * cam[cell] for cell in CELLS}
    low, high = min(raw.values()), max(raw.values())
    out = np.zeros((SIDE, SIDE, SIDE))
    for cell in CELLS:
        out[cell] = (raw[cell] - low) / (high - low) if high > low else 0.0
    return out


def literal_averages(cam: np.ndarray, sem: np.ndarray) -> tuple[float, float]:
    """Eq. 8 and 9."""
    nodule = nodule_weight = background = background_weight = 0.0
    for cell in CELLS:
        nodule += cam[cell] * sem[cell]
        nodule_weight += sem[cell]
        background += cam[cell] * (1.0 - sem[cell])
        background_weight += 1.0 - sem[cell]
    return nodule / nodule_weight, background / background_weight


def has_both(sem: np.ndarray) -> bool:
    """Whether eq. 8 and 9 are defined: neither denominator is 0."""
    totals = sem.sum(axis=(1, 2, 3))
    return bool((totals > 1e-3).all() and (totals < SIDE**3 - 1e-3).all())


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


@thorough
@given(y=unit, g=unit)
def test_dice_is_equation_1(y, g):
    expected = [literal_dice(y[i], g[i], losses.DICE_SMOOTH) for i in range(2)]
    np.testing.assert_allclose(losses.dice_loss(t(y), t(g)).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_dice_of_a_perfect_a_disjoint_and_an_empty_prediction():
    mask = torch.zeros(1, 16, 16, 16, dtype=torch.float64)
    mask[0, 4:12, 4:12, 4:12] = 1.0
    assert losses.dice_loss(mask, mask).item() == pytest.approx(0.0, abs=1e-12)
    assert losses.dice_loss(1.0 - mask, mask).item() == pytest.approx(1.0, abs=1e-3)
    empty = torch.zeros_like(mask)
    assert losses.dice_loss(empty, empty).item() == 0.0


@thorough
@given(score=logits, target=logits)
def test_score_loss_is_equation_2(score, target):
    expected = [(score[i] - target[i]) * (score[i] - target[i]) for i in range(2)]
    np.testing.assert_allclose(losses.score_loss(t(score), t(target)).numpy(), expected)


@thorough
@given(logit=logits, label=labels)
def test_classification_loss_is_equation_3_with_its_minus_sign(logit, label):
    expected = []
    for s, g in zip(logit, label, strict=True):
        x = sigmoid(s)
        expected.append(-(g * math.log(x) + (1.0 - g) * math.log(1.0 - x)))
    np.testing.assert_allclose(losses.classification_loss(t(logit), t(label)).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_classification_loss_is_finite_for_a_certain_and_wrong_model():
    value = losses.classification_loss(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0]))
    np.testing.assert_allclose(value.numpy(), [200.0, 200.0])


@thorough
@given(cam=maps, logit=logits)
def test_class_cam_is_equation_6_min_max_normalised(cam, logit):
    found = losses.class_cam(t(cam), t(logit)).numpy()
    for i in range(2):
        if np.ptp(cam[i]) > 1e-3 and abs(logit[i]) > 1e-3:  # often not so: assuming it would at times refuse too many
            np.testing.assert_allclose(found[i], literal_class_cam(cam[i], logit[i]), atol=1e-7)
            assert found[i].min() == 0.0
            assert found[i].max() == pytest.approx(1.0, abs=1e-12)


def test_class_cam_of_a_benign_prediction_is_turned_over():
    cam = torch.linspace(-1.0, 2.0, 64, dtype=torch.float64).reshape(1, 4, 4, 4)
    malignant = losses.class_cam(cam, torch.tensor([3.0], dtype=torch.float64))
    benign = losses.class_cam(cam, torch.tensor([-3.0], dtype=torch.float64))
    np.testing.assert_allclose((malignant + benign).numpy(), 1.0)


def test_a_flat_cam_gives_zeros_and_finite_gradients():
    cam = torch.full((1, 4, 4, 4), 0.7, requires_grad=True)
    logit = torch.tensor([1.0], requires_grad=True)
    sem = torch.zeros(1, 4, 4, 4)
    sem[0, 1, 1, 1] = 1.0
    normalised = losses.class_cam(cam, logit)
    assert (normalised == 0.0).all()
    losses.adaptive_cam_sem_loss(normalised, sem, logit).sum().backward()
    assert torch.isfinite(cam.grad).all()
    assert torch.isfinite(logit.grad).all()


@thorough
@given(cam=unit, sem=unit)
def test_average_cams_are_equations_8_and_9(cam, sem):
    assume(has_both(sem))
    found = losses.average_cam(t(cam), t(sem))
    for i in range(2):
        nodule, background = literal_averages(cam[i], sem[i])
        assert found.nodule[i].item() == pytest.approx(nodule, abs=1e-9)
        assert found.background[i].item() == pytest.approx(background, abs=1e-9)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_average_cams_stay_finite_without_nodule_or_background(fill):
    found = losses.average_cam(torch.rand(1, 3, 3, 3), torch.full((1, 3, 3, 3), fill))
    assert torch.isfinite(found.nodule).all()
    assert torch.isfinite(found.background).all()


@thorough
@given(cam=unit, sem=unit, margin=margins)
def test_cam_sem_loss_is_equation_10(cam, sem, margin):
    assume(has_both(sem))
    found = losses.cam_sem_loss(t(cam), t(sem), margin=margin)
    for i in range(2):
        nodule, background = literal_averages(cam[i], sem[i])
        assert found[i].item() == pytest.approx(max(0.0, background - nodule + margin), abs=1e-9)


@thorough
@given(cam=unit, sem=unit, logit=logits, margin=margins)
def test_background_mode_is_equation_15(cam, sem, logit, margin):
    assume(has_both(sem))
    found = losses.cam_sem_loss(t(cam), t(sem), margin=margin, mode="background")
    adaptive = losses.adaptive_cam_sem_loss(t(cam), t(sem), t(logit), margin=margin, mode="background")
    for i in range(2):
        nodule, background = literal_averages(cam[i], sem[i])
        expected = max(0.0, nodule - background + margin)
        assert found[i].item() == pytest.approx(expected, abs=1e-9)
        assert adaptive[i].item() == pytest.approx(2.0 * abs(sigmoid(logit[i]) - THRESHOLD) * expected, abs=1e-9)


@thorough
@given(cam=unit, sem=unit, logit=logits, margin=margins)
def test_adaptive_loss_is_equation_11(cam, sem, logit, margin):
    assume(has_both(sem))
    found = losses.adaptive_cam_sem_loss(t(cam), t(sem), t(logit), margin=margin)
    for i in range(2):
        nodule, background = literal_averages(cam[i], sem[i])
        expected = 2.0 * abs(sigmoid(logit[i]) - THRESHOLD) * max(0.0, background - nodule + margin)
        assert found[i].item() == pytest.approx(expected, abs=1e-9)


@thorough
@given(
    terms=arrays(np.float64, (4,), elements=st.floats(0.0, 9.0)), w=arrays(np.float64, (3,), elements=st.floats(0, 5))
)
def test_total_is_equation_12(terms, w):
    classification, cam, segmentation, score = (t(term) for term in terms)
    weights = losses.LossWeights(cam=w[0], segmentation=w[1], score=w[2])
    found = losses.total_loss(
        classification=classification, cam=cam, segmentation=segmentation, score=score, weights=weights
    )
    assert found.item() == pytest.approx(terms[0] + w[0] * terms[1] + w[1] * terms[2] + w[2] * terms[3])


def test_the_weights_of_equation_12_are_1_as_in_the_paper():
    one = torch.tensor(1.0)
    assert losses.total_loss(classification=one, cam=one, segmentation=one, score=one).item() == 4.0


@pytest.mark.parametrize("mode", ["nodule", "background"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_gradients_of_the_guidance_are_those_of_finite_differences(adaptive, mode):
    generator = torch.Generator().manual_seed(3)
    cam = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    sem = torch.rand(2, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    logit = torch.tensor([0.8, -1.3], dtype=torch.float64, requires_grad=True)

    def loss(cam, sem, logit):
        class_map = losses.class_cam(cam, logit)
        if adaptive:
            return losses.adaptive_cam_sem_loss(class_map, sem, logit, margin=0.9, mode=mode)
        return losses.cam_sem_loss(class_map, sem, margin=0.9, mode=mode)

    assert (loss(cam, sem, logit) > 0.0).all()  # away from the kink of eq. 10
    assert torch.autograd.gradcheck(loss, (cam, sem, logit))


def test_hesitating_lowers_the_adaptive_loss_unless_the_confidence_is_constant():
    cam, sem = torch.rand(1, 3, 3, 3), torch.rand(1, 3, 3, 3).round()
    logit = torch.tensor([0.5], requires_grad=True)
    loss = losses.adaptive_cam_sem_loss(cam, sem, logit, margin=0.9)
    loss.backward()
    p = torch.sigmoid(logit).item()
    expected = 2.0 * p * (1.0 - p) * losses.cam_sem_loss(cam, sem, margin=0.9).item()
    assert logit.grad.item() == pytest.approx(expected, rel=1e-5)

    constant = losses.adaptive_cam_sem_loss(cam, sem, logit, margin=0.9, constant_confidence=True)
    assert constant.item() == loss.item()
    assert not constant.requires_grad  # nothing else in it depends on the logit


def approaching_blobs():
    """A map's bright blob that comes closer to the nodule, and covers it at last."""
    sem = torch.zeros(1, 8, 8, 8)
    sem[0, 2:4, 2:4, 2:4] = 1.0
    for position in (6, 4, 3, 2):
        cam = torch.zeros(1, 8, 8, 8)
        cam[0, position : position + 2, position : position + 2, position : position + 2] = 1.0
        yield losses.class_cam(cam, torch.tensor([2.0])), sem


def test_moving_the_cam_onto_the_nodule_lowers_the_loss():
    far, clear, touching, covering = (
        losses.cam_sem_loss(cam, sem, margin=1.0).item() for cam, sem in approaching_blobs()
    )
    # Clear of the nodule it does not matter where the blob is; from there it falls, to 0 when it covers the nodule.
    assert far == pytest.approx(clear)
    assert clear > touching > covering == pytest.approx(0.0, abs=1e-6)


def test_in_background_mode_moving_the_cam_onto_the_nodule_raises_the_loss():
    far, clear, touching, covering = (
        losses.cam_sem_loss(cam, sem, margin=0.5, mode="background").item() for cam, sem in approaching_blobs()
    )
    assert far == pytest.approx(clear)
    assert clear < touching < covering == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("mode", ["nodule", "background"])
def test_a_conservative_margin_asks_nothing_of_a_map_that_is_level(mode):
    """Table 4: at -0.5 the CAM may even favour the wrong side a little."""
    level, sem = torch.full((1, 4, 4, 4), 0.3), torch.rand(1, 4, 4, 4)
    assert losses.cam_sem_loss(level, sem, margin=-0.5, mode=mode).item() == 0.0
    assert losses.cam_sem_loss(level, sem, margin=0.1, mode=mode).item() == pytest.approx(0.1, abs=1e-6)


def test_an_undecided_prediction_is_not_regularised():
    cam, sem = torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4, 4)
    undecided = losses.adaptive_cam_sem_loss(cam, sem, torch.zeros(1), margin=1.0)
    assert losses.cam_sem_loss(cam, sem, margin=1.0).item() > 0.0
    assert undecided.item() == 0.0


@pytest.mark.parametrize("logit", [2.0, -2.0])
def test_a_prediction_wants_its_evidence_on_the_nodule_whichever_class_it_is(logit):
    """A wrong prediction too: the loss does not know the label, and descent moves what speaks for P onto the nodule."""
    generator = torch.Generator().manual_seed(5)
    cam = torch.randn(1, 4, 4, 4, generator=generator, requires_grad=True)
    sem = torch.zeros(1, 4, 4, 4)
    sem[0, 1:3, 1:3, 1:3] = 1.0
    fixed = torch.tensor([logit])
    losses.adaptive_cam_sem_loss(losses.class_cam(cam, fixed), sem, fixed, margin=1.0).sum().backward()
    extremes = {int(cam.argmin()), int(cam.argmax())}  # they carry the normalisation's own gradient
    inner = [i for i in range(64) if i not in extremes]
    wanted = -cam.grad.flatten()[inner] * math.copysign(1.0, logit)  # direction of descent in the predicted class
    inside = sem.flatten()[inner] > 0
    assert (wanted[inside] > 0).all()
    assert (wanted[~inside] < 0).all()
