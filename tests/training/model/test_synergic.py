"""The synergic model against the paper's Table 1, Fig. 2 and equations 4 and 5."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.losses import paper as losses
from nodule_diag_training.model.synergic import SegNet, SynergicModel, build_model, count_weights
from nodule_diag_training.systems import SYSTEMS, System

TABLE_1 = {
    "A": 3.6282, "B": 3.8770, "C": 3.6284, "D": 3.8773, "E": 3.8773,
    "F": 3.8842, "G": 3.8842, "H": 3.8842, "I": 3.8842, "J": 3.8842,
}  # fmt: skip
"""Millions of parameters, as printed."""
CNET_BIAS = 1
"""Counted in Table 1, absent from eq. 4."""
BLOCK = ("conv1", "norm1", "conv2", "norm2", "projection", "projection_norm")
"""Layers of a residual block; the normalisations have a bias as well as a weight."""


@pytest.fixture(scope="module")
def model() -> SynergicModel:
    torch.manual_seed(0)
    return SynergicModel().eval()


def patch(size: int, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 2, size, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("system", TABLE_1)
def test_weights_count_as_in_table_1_but_for_the_bias_that_equation_4_lacks(system):
    with torch.device("meta"):
        model = SynergicModel(SYSTEMS[system])
    assert f"{(count_weights(model) + CNET_BIAS) / 1e6:.4f}" == f"{TABLE_1[system]:.4f}"


def test_the_counts_are_met_to_the_last_parameter():
    """Fig. 2's layers added up by hand, with RNet's bias and no other."""
    backbone = 2 * 64 * 7**3 + sum(i * o * 27 + o * o * 27 + i * o for i, o in ((64, 64), (64, 128), (128, 256)))
    segnet = 256 * 32 * 27 + 32 * 32 * 27 + 32
    parts = {"A": 256, "B": 256 + segnet, "C": 256 + 257, "D": 256 + 257 + segnet, "F": 256 + 257 + segnet + 256 * 27}
    parts |= {with_arl: parts[plain] + 3 for with_arl, plain in (("E", "D"), ("G", "F"))}
    for system, heads in parts.items():
        with torch.device("meta"):
            assert count_weights(SynergicModel(SYSTEMS[system])) == backbone + heads


def documented_systems() -> dict[str, list[str]]:
    """The rows of the table in ``docs/systems.md``, by system."""
    text = (Path(__file__).parents[3] / "docs" / "systems.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if row[0] in SYSTEMS}


def test_the_documented_systems_are_those_of_the_registry():
    rows = documented_systems()
    assert list(rows) == list(SYSTEMS)
    letters = (("C", "cnet"), ("S", "segnet"), ("R", "rnet"), ("F", "fnet"), ("ARL", "attention"))
    guidance = {"none": "", "csl": "CSL", "ad-csl": "ad-CSL", "cam-loss": "CAM-loss"}
    for name, system in SYSTEMS.items():
        modules, guided, _, paper, here = rows[name]
        assert modules == ", ".join(letter for letter, field in letters if getattr(system, field))
        assert guided == guidance[system.guidance]
        assert paper == (f"{TABLE_1[name]:.4f}" if name in TABLE_1 else "")
        with torch.device("meta"):
            assert here == f"{count_weights(SynergicModel(system)):,}"


def test_checkpoints_keep_their_names():
    """The packaged model and every earlier run hold these tensors."""
    convolutions = ["resnet.head", *(f"segnet.conv{i}" for i in (1, 2, 3)), "fnet.conv"]
    norms = ["resnet.head_norm", *(f"segnet.norm{i}" for i in (1, 2, 3)), "fnet.norm"]
    layers = [f"resnet.blocks.{number}.{layer}" for number in range(3) for layer in BLOCK]
    names = {f"{layer}.weight" for layer in [*convolutions, *norms, *layers, "cnet", "rnet"]}
    names |= {f"{layer}.bias" for layer in [*norms, *(layer for layer in layers if "norm" in layer), "rnet"]}
    with torch.device("meta"):
        assert set(SynergicModel(SYSTEMS["J"]).state_dict()) == names
        extra = set(SynergicModel(SYSTEMS["G"]).state_dict()) - names
    assert extra == {f"resnet.blocks.{block}.attention.alpha" for block in range(3)}


def test_rnet_with_classes_gives_the_expected_score():
    torch.manual_seed(4)
    model = build_model(TrainingConfig(system="C", score_loss="ordinal")).eval()
    with torch.inference_mode():
        output = model(patch(16, batch=2))
    logits = output.pooled.double() @ model.rnet.weight.double().T + model.rnet.bias.double()
    for b in range(2):
        weights = [math.exp(value) for value in logits[b].tolist()]
        mean = sum(score * w for score, w in zip((1, 2, 3, 4, 5), weights, strict=True)) / sum(weights)
        assert output.score[b].item() == pytest.approx((mean - 1) / 4, abs=1e-5)
    torch.testing.assert_close(output.score_logits.double(), logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="1 output or 5"):
        SynergicModel(SYSTEMS["C"], score_outputs=3)


def test_without_cnet_there_is_neither_logit_nor_cam():
    with torch.inference_mode():
        output = SynergicModel(SYSTEMS["R"]).eval()(patch(16))
    assert output.logit is None
    assert output.cam is None
    assert output.score.shape == (1,)
    assert output.segmentation_logit is None


def test_only_cam_loss_pays_for_the_activation_map():
    model = SynergicModel(SYSTEMS["H"]).eval()
    x = patch(16)
    with torch.inference_mode():
        output = model(x)
        features, _ = model.features(x)
    torch.testing.assert_close(output.activation, features.sum(dim=1))
    with torch.inference_mode():
        assert SynergicModel(SYSTEMS["F"]).eval()(x).activation is None


def test_count_weights_counts_what_table_1_does():
    layers = nn.Sequential(nn.Conv3d(2, 3, 3), nn.GroupNorm(3, 3), nn.Linear(5, 7))
    assert count_weights(layers) == (2 * 3 * 27 + 3) + (5 * 7 + 7)


def test_no_convolution_has_a_bias_and_cnet_has_none(model):
    assert all(layer.bias is None for layer in model.modules() if isinstance(layer, nn.Conv3d))
    assert model.cnet.bias is None
    assert model.rnet.bias is not None


def test_the_backbone_is_that_of_figure_2(model):
    head = model.resnet.head
    assert (head.in_channels, head.out_channels, head.kernel_size, head.stride) == (2, 64, (7, 7, 7), (2, 2, 2))
    found = [
        (block.conv1.out_channels, block.conv1.stride[0], block.conv1.dilation[0], block.conv2.dilation[0])
        for block in model.resnet.blocks
    ]
    assert found == [(64, 2, 1, 1), (128, 1, 2, 2), (256, 1, 4, 4)]
    for block in model.resnet.blocks:
        assert block.projection.kernel_size == (1, 1, 1)
        assert block.projection.stride == block.conv1.stride
        assert block.conv2.stride == (1, 1, 1)
    pools = (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
    assert not [layer for layer in model.modules() if isinstance(layer, pools)]


def test_segnet_and_fnet_are_those_of_figure_2(model):
    segnet = [
        (c.in_channels, c.out_channels, c.kernel_size[0]) for c in model.segnet.children() if isinstance(c, nn.Conv3d)
    ]
    assert segnet == [(256, 32, 3), (32, 32, 3), (32, 1, 1)]
    assert (model.fnet.conv.in_channels, model.fnet.conv.out_channels, model.fnet.conv.kernel_size[0]) == (1, 256, 3)


def test_every_convolution_is_followed_by_its_own_normalisation(model):
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv3d)]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    assert sorted(c.out_channels for c in convolutions) == sorted(n.num_channels for n in norms)
    assert all(norm.affine for norm in norms)


@pytest.mark.parametrize(("size", "grid"), [(64, 16), (40, 10)])
def test_a_cell_of_the_output_is_four_voxels(model, size, grid):
    with torch.inference_mode():
        output = model(patch(size))
    assert output.logit.shape == output.score.shape == (1,)
    assert output.cam.shape == output.segmentation_logit.shape == (1, grid, grid, grid)
    assert (output.cam >= output.cam.min()).all()  # not NaN


@pytest.mark.parametrize("system", ["A", "B", "C", "D", "G", "J"])
def test_the_logit_is_the_mean_of_the_cam(system):
    """Eq. 4 and 5."""
    torch.manual_seed(1)
    model = SynergicModel(SYSTEMS[system]).eval()
    with torch.inference_mode():
        output = model(patch(24, batch=2))
    torch.testing.assert_close(output.logit, output.cam.mean(dim=(1, 2, 3)), atol=1e-5, rtol=1e-5)
    assert (output.segmentation_logit is None) == (system in "AC")
    assert (output.score is None) == (system in "AB")


def test_under_bf16_autocast_the_heads_stay_in_float32(model):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = model(patch(16))
    assert output.logit.dtype == output.cam.dtype == output.score.dtype == torch.float32
    torch.testing.assert_close(output.logit, output.cam.mean(dim=(1, 2, 3)), atol=1e-5, rtol=1e-5)


def test_the_cam_is_cnet_applied_to_every_cell_after_the_fusion(model):
    """Eq. 5 computed from the parts, cell by cell: relu(ResNet + FNet(SegNet)) times CNet's weights."""
    x = patch(24)
    with torch.inference_mode():
        output = model(x)
        features = model.resnet(x)
        segmentation = model.segnet(torch.relu(features))
        fused = torch.relu(features + model.fnet(features, torch.sigmoid(segmentation)) - features)
        for cell in [(0, 0, 0), (2, 3, 1), (5, 5, 5)]:
            expected = (fused[0, :, *cell] * model.cnet.weight[0]).sum()
            assert output.cam[0, *cell].item() == pytest.approx(expected.item(), abs=1e-5)
        pooled = fused.mean(dim=(2, 3, 4))
        assert output.score.item() == pytest.approx(model.rnet(pooled).item(), abs=1e-5)
        assert (features < 0).any()  # the ResNet's last layer is not rectified: FNet adds to it first


def test_samples_of_a_batch_do_not_see_each_other(model):
    x = patch(24, batch=2)
    with torch.inference_mode():
        together, alone = model(x), model(x[1:])
    torch.testing.assert_close(together.cam[1:], alone.cam, atol=1e-5, rtol=1e-5)


def test_a_cell_looks_at_115_voxels_round_its_first():
    """7 (head), +4 and +8 (block 1), +2 * 16 (block 2, dilation 2), +2 * 32 (block 3, dilation 4), the same both ways.

    Without normalisation, which sees everything, and with positive weights, which no ReLU stops.
    """
    resnet = SynergicModel(SYSTEMS["A"]).resnet.eval()  # Winograd's filtering leaves rounding where zeros were
    for module in list(resnet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv3d):
                nn.init.constant_(child.weight, 1e-3)
    bar = torch.ones(1, 2, 128, 4, 4, requires_grad=True)
    cell = 16
    resnet(bar)[0, 0, cell, 0, 0].backward()
    seen = bar.grad.abs().sum(dim=(0, 1, 3, 4)).nonzero().flatten()
    assert (seen[0].item(), seen[-1].item()) == (4 * cell - 57, 4 * cell + 57)
    assert len(seen) == 115


def test_segnet_can_reach_0_and_1():
    """Its one channel is one normalisation group: mean 0 and variance 1 if it had no scale and shift of its own."""
    torch.manual_seed(2)
    segnet = SegNet()
    target = torch.zeros(1, 1, 6, 6, 6)
    target[..., 2:4, 2:4, 2:4] = 1.0
    features = torch.relu(torch.randn(1, 256, 6, 6, 6) * 0.1 + torch.randn(1, 256, 1, 1, 1) * target)
    optimizer = torch.optim.Adam(segnet.parameters(), lr=1e-3)
    for _ in range(200):
        loss = losses.dice_loss(torch.sigmoid(segnet(features)), target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probability = torch.sigmoid(segnet(features)).detach()
    assert probability[target == 1].min() > 0.9
    assert probability[target == 0].max() < 0.1


def test_segnet_starts_with_a_dark_background():
    torch.manual_seed(2)
    features = torch.relu(torch.randn(1, 256, 16, 16, 16) * 0.1)
    features[..., 6:10, 6:10, 6:10] += 1.0
    probability = torch.sigmoid(SegNet()(features)).detach()
    assert probability.median() < 0.1


def test_every_parameter_learns_from_the_total_loss():
    torch.manual_seed(3)
    model = SynergicModel()
    output = model(patch(24, batch=2))
    sem = torch.sigmoid(output.segmentation_logit)
    cam = losses.class_cam(output.cam, output.logit)
    losses.total_loss(
        classification=losses.classification_loss(output.logit, torch.tensor([0.0, 1.0])).mean(),
        cam=losses.adaptive_cam_sem_loss(cam, sem.detach(), output.logit, margin=0.9).mean(),
        segmentation=losses.dice_loss(sem, torch.rand_like(sem).round()).mean(),
        score=losses.score_loss(output.score, torch.tensor([0.2, 0.8])).mean(),
    ).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_a_fusion_without_anything_to_fuse_is_refused():
    with pytest.raises(ValueError, match="needs segnet"):
        System(segnet=False, rnet=True, fnet=True)


def test_nothing_but_the_logit_moves_cnet():
    """In eq. 5 CNet's weights are constants: what is asked of the CAM is asked of the features."""
    model = SynergicModel(SYSTEMS["F"])
    output = model(torch.rand(1, 2, 16, 16, 16))
    output.cam.square().sum().backward(retain_graph=True)
    assert model.cnet.weight.grad is None
    assert model.resnet.head.weight.grad.abs().sum() > 0
    output.logit.sum().backward()
    torch.testing.assert_close(model.cnet.weight.grad, output.pooled.detach())
