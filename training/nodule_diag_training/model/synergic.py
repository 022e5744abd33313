"""The synergic model (Zhang et al., section 3.1 and Fig. 2): ResNet, SegNet, FNet, RNet and CNet.

The paper leaves three things open. The choices here, with their reasons:

* **Neither the convolutions nor CNet have a bias.** Exactly this meets Table 1's parameter counts, up to the one bias
  of CNet's FC layer, which eq. 4 does not have. Without this bias the logit equals the mean of the CAM, so nothing but
  the map decides.
* **Group normalisation**: 8 groups, affine. Groups of at least four channels keep the statistics stable at batch size
  one. The affine part lets layers that are *not* followed by a ReLU shift their output. SegNet's last layer has one
  channel and so one group: without the affine part its output would have mean 0 and variance 1 on every patch, and its
  sigmoid would reach neither 0 on the background nor, for large nodules, 1 inside. The layer starts at scale 8 and
  shift -7, which puts the background near 0.001 and the brightest cells near 1; from 1 and 0, Adam at 1e-3 would need
  thousands of steps. The background has thousands of cells and a nodule may have five: at 0.02 a cell, the background
  would still outweigh the nodule in eq. 1 and hide the nodule's outline from the gradient.
* **FNet reads SegNet's probabilities**, not its logits: a map bounded in [0, 1] keeps FNet's addition on the nodule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.losses import SCORE_LOSSES, SCORES
from nodule_diag_training.systems import SYSTEMS, System

from .attention import SpatialAttention
from .winograd import DilatedConv3d

PATCH_CHANNELS = 2
"""Lung window and mediastinal window."""
HEAD_CHANNELS = 64
BLOCKS = ((64, 2, 1), (128, 1, 2), (256, 1, 4))
"""(channels, stride of the first convolution, dilation) of the residual blocks 1 to 3."""
FEATURE_CHANNELS = 256
SEGNET_CHANNELS = 32
GROUPS = 8
SEGNET_INITIAL_SCALE = 8.0
SEGNET_INITIAL_SHIFT = -7.0
WINOGRAD_CHANNELS = 32
"""Convolutions with at least this many channels train by Winograd's filtering on CPUs; with fewer, it is not faster."""
GRID_STRIDE = 4
"""Patch voxels per feature-grid cell, along each axis: a 64-cube gives a 16-cube."""


@dataclass(frozen=True, kw_only=True)
class SynergicOutput:
    """The result of one forward pass for a batch of B patches of size 4L x 4W x 4H.

    Attributes:
        logit: [B], S of eq. 4, the mean of ``cam``; None without CNet.
        cam: [B, L, W, H], CAM of eq. 5, before eq. 6 and the min-max normalisation; None without CNet.
        pooled: [B, 256], F_k of eq. 4, what RNet and CNet read.
        segmentation_logit: [B, L, W, H] or None without SegNet; its sigmoid is SEM.
        score: [B] or None without RNet; the readers' malignancy score normalised to [0, 1] (eq. 2's y_r). Where RNet
            learns classes, the score is the expected one under their softmax.
        score_logits: [B, 5] for the scores 1 to 5 where RNet learns them as classes (Table 3), otherwise None.
        activation: [B, L, W, H], the sum of f_k over the channels; None in systems whose loss does not compare it
            with the CAM.
    """

    logit: Tensor | None
    cam: Tensor | None
    pooled: Tensor
    segmentation_logit: Tensor | None
    score: Tensor | None
    score_logits: Tensor | None = None
    activation: Tensor | None = None


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv3d:
    """A 3-D convolution without bias, padded so that stride 1 keeps the size."""
    padding = dilation * (kernel // 2)
    kind = DilatedConv3d if kernel == 3 and stride == 1 and min(inputs, outputs) >= WINOGRAD_CHANNELS else nn.Conv3d
    return kind(inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation after a convolution; one group where there is one channel."""
    return nn.GroupNorm(min(GROUPS, channels), channels)


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions and a 1x1x1 projection shortcut (He et al. 2016).

    Args:
        final_relu: Whether a ReLU ends the block; the ResNet's last one has none, since FNet adds to it first (Fig. 2).
        attention: Whether this is an ARL block, see ``attention``.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, dilation: int, final_relu: bool, attention: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride=stride, dilation=dilation)
        self.norm1 = normalisation(outputs)
        self.conv2 = convolution(outputs, outputs, 3, dilation=dilation)
        self.norm2 = normalisation(outputs)
        self.projection = convolution(inputs, outputs, 1, stride=stride)
        self.projection_norm = normalisation(outputs)
        self.attention = SpatialAttention() if attention else None
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, ...] to [B, outputs, ...]."""
        residual = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        shortcut = self.projection_norm(self.projection(x))
        y = residual + shortcut
        if self.attention is not None:
            y = y + self.attention(residual, shortcut)
        return functional.relu(y) if self.final_relu else y


class ResNet(nn.Module):
    """The backbone: [B, 2, 4L, 4W, 4H] -> [B, 256, L, W, H], not yet rectified.

    There is no max-pool; dilation instead of stride keeps the grid (section 3.1).
    """

    def __init__(self, *, attention: bool = False) -> None:
        super().__init__()
        self.head = convolution(PATCH_CHANNELS, HEAD_CHANNELS, 7, stride=2)
        self.head_norm = normalisation(HEAD_CHANNELS)
        blocks = []
        inputs = HEAD_CHANNELS
        for number, (outputs, stride, dilation) in enumerate(BLOCKS, start=1):
            last = number == len(BLOCKS)
            blocks.append(
                ResidualBlock(
                    inputs, outputs, stride=stride, dilation=dilation, final_relu=not last, attention=attention
                )
            )
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)

    def forward(self, patch: Tensor) -> Tensor:
        """Map a patch to its features."""
        features: Tensor = self.blocks(functional.relu(self.head_norm(self.head(patch))))
        return features


class SegNet(nn.Module):
    """The light decoder: [B, 256, L, W, H] -> logits [B, 1, L, W, H]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = convolution(FEATURE_CHANNELS, SEGNET_CHANNELS, 3)
        self.norm1 = normalisation(SEGNET_CHANNELS)
        self.conv2 = convolution(SEGNET_CHANNELS, SEGNET_CHANNELS, 3)
        self.norm2 = normalisation(SEGNET_CHANNELS)
        self.conv3 = convolution(SEGNET_CHANNELS, 1, 1)
        self.norm3 = normalisation(1)
        nn.init.constant_(self.norm3.weight, SEGNET_INITIAL_SCALE)
        nn.init.constant_(self.norm3.bias, SEGNET_INITIAL_SHIFT)

    def forward(self, features: Tensor) -> Tensor:
        """Map rectified features to segmentation logits."""
        y = functional.relu(self.norm1(self.conv1(features)))
        y = functional.relu(self.norm2(self.conv2(y)))
        logits: Tensor = self.norm3(self.conv3(y))
        return logits


class FNet(nn.Module):
    """Adds SegNet's map, lifted to 256 channels, to the ResNet's features: [B, 256, L, W, H]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = convolution(1, FEATURE_CHANNELS, 3)
        self.norm = normalisation(FEATURE_CHANNELS)

    def forward(self, features: Tensor, segmentation: Tensor) -> Tensor:
        """Add the lifted [B, 1, L, W, H] probabilities to the features, not yet rectified."""
        fused: Tensor = features + self.norm(self.conv(segmentation))
        return fused


class SynergicModel(nn.Module):
    """Backbone, branches and heads. Any patch whose sides are multiples of 4 is taken; the paper's is 64.

    Args:
        modules: Which modules there are; those of system J when left out.
        score_outputs: Number of RNet's outputs: 1 for the score itself, ``SCORES`` for classes.
    """

    def __init__(self, modules: System | None = None, *, score_outputs: int = 1) -> None:
        super().__init__()
        if score_outputs not in (1, SCORES):
            raise ValueError(f"RNet has 1 output or {SCORES}, not {score_outputs}")
        self.modules_used = SYSTEMS["J"] if modules is None else modules
        guidance = self.modules_used.cam_loss
        self._gives_activation = guidance is not None and guidance.compares == "activation"
        self.resnet = ResNet(attention=self.modules_used.attention)
        self.segnet = SegNet() if self.modules_used.segnet else None
        self.fnet = FNet() if self.modules_used.fnet else None
        self.rnet = nn.Linear(FEATURE_CHANNELS, score_outputs) if self.modules_used.rnet else None
        self.cnet = nn.Linear(FEATURE_CHANNELS, 1, bias=False) if self.modules_used.cnet else None

    def features(self, patch: Tensor) -> tuple[Tensor, Tensor | None]:
        """f_k of eq. 4, [B, 256, L, W, H], and SegNet's logits [B, 1, L, W, H] where there is one."""
        features = self.resnet(patch)
        segmentation_logit = None
        if self.segnet is not None:
            segmentation_logit = self.segnet(functional.relu(features))
            if self.fnet is not None:
                features = self.fnet(features, torch.sigmoid(segmentation_logit))
        return functional.relu(features), segmentation_logit

    def forward(self, patch: Tensor) -> SynergicOutput:
        """Run the model on ``patch``, [B, 2, 4L, 4W, 4H] float32, windows in [0, 1]."""
        features, segmentation_logit = self.features(patch)
        features = features.float()  # the heads compute in float32 under autocast as well
        pooled = features.mean(dim=(2, 3, 4))
        logit = cam = None
        if self.cnet is not None:
            # Sums of products: autocast leaves them in float32, where a convolution would run in bfloat16.
            weight = self.cnet.weight[0]
            # In eq. 5 the weights are those "before backpropagation", so constants. A loss on the CAM moves features
            # onto the nodule, and only the classification trains CNet's weights.
            cam = (features * weight.detach()[:, None, None, None]).sum(dim=1)
            logit = (pooled * weight).sum(dim=1)  # eq. 4: equals the mean of the CAM
        score, score_logits = self._score(pooled)
        return SynergicOutput(
            logit=logit,
            cam=cam,
            pooled=pooled,
            segmentation_logit=None if segmentation_logit is None else segmentation_logit.float().squeeze(1),
            score=score,
            score_logits=score_logits,
            activation=features.sum(dim=1) if self._gives_activation else None,
        )

    def _score(self, pooled: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """RNet's score, [B] normalised to [0, 1], and its logits, [B, 5], where it has them."""
        if self.rnet is None:
            return None, None
        if self.rnet.out_features == 1:
            return (pooled * self.rnet.weight[0]).sum(dim=1) + self.rnet.bias, None
        logits = (pooled[:, None, :] * self.rnet.weight).sum(dim=2) + self.rnet.bias
        levels = torch.linspace(0.0, 1.0, SCORES, device=logits.device)
        return (logits.softmax(dim=1) * levels).sum(dim=1), logits


def build_model(config: TrainingConfig) -> SynergicModel:
    """The model that a configuration trains, newly initialised by torch's global generator."""
    return SynergicModel(config.modules, score_outputs=SCORE_LOSSES[config.score_loss].outputs)


def count_weights(model: nn.Module) -> int:
    """Parameters of convolutions, fully connected layers and ARL, as Table 1 counts (normalisation left out)."""
    return sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, nn.Conv3d | nn.Linear | SpatialAttention)
        for parameter in module.parameters(recurse=False)
    )
