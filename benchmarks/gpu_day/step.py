"""One step of training whose shapes never change: patches, eq. 12, gradients, Adam, average weights.

So the step can be captured once as a CUDA graph and replayed: a step of 40-cubes is a thousand small kernels, and
Python takes longer to start them than the GPU to run them. The losses are those of ``engine.objective``, with weight
zero for what is not taught. Adam is torch's, with its two numbers that change from step to step in the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from benchmarks.gpu_day.draws import Tables
from benchmarks.gpu_day.patches import Batch, batch_of, copy_into, render
from benchmarks.gpu_day.prepared import Store
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import MASK_THRESHOLD
from nodule_diag_training.engine import damp_mean_direction, heads_of, rated_parameters
from nodule_diag_training.losses import (
    CAM_LOSSES,
    DICE_SMOOTH,
    EMPTY_SMOOTH,
    SCORE_LOSSES,
    GuidedNodules,
    classification_loss,
    dice_loss,
)
from nodule_diag_training.model import GRID_STRIDE, SynergicModel, SynergicOutput

Mode = Literal["graph", "compiled-graph", "compiled", "eager"]
BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8
AVERAGE_DECAY: Final = 0.998
"""Decay of the average weights: they look back 500 steps."""
WARM_UP_STEPS: Final = {"cuda": 3, "cpu": 0}
"""Steps before a step is captured: cuDNN and the compiler choose their kernels in them. These steps are undone."""
TERMS: Final = ("classification", "cam", "segmentation", "score")


def mask_targets(occupancy: Tensor, lung: Tensor, config: TrainingConfig) -> Tensor:
    """g_s of eq. 1, [B, L, W, H], as ``Sample.nodule`` or ``nodule_cells``; 0 where there is no nodule."""
    share = torch.nn.functional.avg_pool3d(occupancy[:, None], GRID_STRIDE)[:, 0]
    if config.mask_target == "share":
        return share
    fullest = share.amax(dim=(1, 2, 3), keepdim=True).clamp_max(MASK_THRESHOLD)
    return (share >= fullest).float() * (1.0 - lung)[:, None, None, None]


def nodule_losses(
    output: SynergicOutput, occupancy: Tensor, batch: Batch, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """The terms of eq. 12 of every nodule, and whether it teaches them: [4, B] each, in the order of ``TERMS``."""
    if output.logit is None or output.cam is None or output.segmentation_logit is None or output.score is None:
        raise ValueError(f"system {config.system} lacks a module of J's")
    cam_loss = CAM_LOSSES[config.modules.guidance or ""]
    nodule = (1.0 - batch.lung) * batch.counted
    sem = torch.sigmoid(output.segmentation_logit)
    smooth = DICE_SMOOTH + (EMPTY_SMOOTH - DICE_SMOOTH) * batch.lung
    guided = GuidedNodules(
        cam=output.cam,
        logit=output.logit,
        label=batch.label,
        compared=sem.detach(),
        margin=config.margin,
        mode=config.margin_mode,
        constant_confidence=config.constant_confidence,
    )
    values = [
        classification_loss(output.logit, batch.label),
        cam_loss.function(guided),
        dice_loss(sem, mask_targets(occupancy, batch.lung, config), smooth=smooth),
        SCORE_LOSSES[config.score_loss].function(output.score, batch.score),
    ]
    taught = [batch.labelled * batch.counted, nodule, batch.counted, batch.scored * batch.counted]
    return torch.stack(values), torch.stack(taught)


def total_of(values: Tensor, taught: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Eq. 12 and its four terms, unweighted, each the mean over the nodules that teach it."""
    terms = (values * taught).sum(dim=1) / taught.sum(dim=1).clamp_min(1.0)
    return terms[:3].sum() + config.score_weight * terms[3], terms


class Adam:
    """torch's Adam without weight decay, as operations that a CUDA graph can hold.

    Args:
        groups: Parameters, and the factor on the rate.
        device: Device of the parameters.
    """

    def __init__(self, groups: Sequence[tuple[list[Tensor], float]], device: torch.device) -> None:
        self._groups = groups
        self.state = [([torch.zeros_like(p) for p in own], [torch.zeros_like(p) for p in own]) for own, _ in groups]
        self._size = torch.zeros((), device=device)
        self._root = torch.zeros((), device=device)

    def set_rate(self, rate: float, *, step: int) -> None:
        """Set the rate before a step; ``step`` counts from 1."""
        self._size.fill_(rate / (1.0 - BETAS[0] ** step))
        self._root.fill_(1.0 / (1.0 - BETAS[1] ** step) ** 0.5)

    def step(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        """Move the parameters by gradients in the order of the groups."""
        for (own, factor), (mean, square), found in zip(self._groups, self.state, gradients, strict=True):
            given = list(found)
            torch._foreach_lerp_(mean, given, 1.0 - BETAS[0])
            torch._foreach_mul_(square, BETAS[1])
            torch._foreach_addcmul_(square, given, given, 1.0 - BETAS[1])
            scale = torch._foreach_sqrt(square)
            torch._foreach_mul_(scale, self._root)
            torch._foreach_add_(scale, EPSILON)
            move = torch._foreach_div(mean, scale)
            torch._foreach_mul_(move, self._size * factor)
            torch._foreach_sub_(own, move)


class Stepper:
    """Takes steps of one patch size.

    Args:
        model: The model, trained in place.
        called: The same model, perhaps compiled.
        adam: Adam over all its parameters, in the order of ``rated_parameters``.
        average: Weights that follow the model's, by parameter; empty where there are none.
        store: The voxels.
        config: Configuration of the losses.
        graph: Whether steps are captured as a CUDA graph.
    """

    def __init__(
        self,
        model: SynergicModel,
        called: Callable[[Tensor], SynergicOutput],
        *,
        adam: Adam,
        average: list[Tensor],
        store: Store,
        config: TrainingConfig,
        graph: bool,
    ) -> None:
        self._model, self._called, self._adam, self._average = model, called, adam, average
        self._store, self._config = store, config
        self._device = store.channels.device
        self._groups = [list(group["params"]) for group in rated_parameters(model, config)]  # type: ignore[call-overload]
        self._wants_graph = graph
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self.seen = torch.zeros(1 + len(TERMS), device=self._device)
        """Total and terms, summed over steps."""

    def warm_up(self, tables: Tables, *, steps: int | None = None) -> None:
        """Let libraries choose their kernels on some draws, capture the step if wanted, and undo what that changed.

        Args:
            tables: The draws.
            steps: Number of steps for this; ``WARM_UP_STEPS`` of the device when left out.
        """
        changing = [*(p for group in self._groups for p in group), *self._average, self.seen]
        changing += [tensor for pair in self._adam.state for own in pair for tensor in own]
        kept = [tensor.detach().clone() for tensor in changing]
        self._adam.set_rate(0.0, step=1)
        self._batch = batch_of(tables, self._device)
        # A captured step runs on a separate stream, so the steps before it do, too.
        stream = torch.cuda.Stream() if self._device.type == "cuda" else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS[self._device.type] if steps is None else steps):
                self._step(self._batch)
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
        if self._wants_graph:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(self._batch)
            self._graph = graph
        with torch.no_grad():
            for tensor, before in zip(changing, kept, strict=True):
                tensor.copy_(before)

    def take(self, tables: Tables, *, rate: float, step: int) -> None:
        """A step, counted from 1 over the whole run; does not wait for the GPU."""
        self._adam.set_rate(rate, step=step)
        if self._graph is not None and self._batch is not None:
            copy_into(self._batch, tables)
            self._graph.replay()
        else:
            self._step(batch_of(tables, self._device))

    def forward(self, batch: Batch, *, compiled: bool = True) -> tuple[SynergicOutput, Tensor]:
        """The model's output, and the reader masks; without ``compiled``, nothing is compiled anew."""
        with torch.no_grad():
            patch, occupancy = render(self._store, batch)
        # A cache of lowered weights would live longer than the capture that filled it.
        lowered = self._config.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=lowered, cache_enabled=False):
            return (self._called if compiled else self._model)(patch), occupancy

    def _step(self, batch: Batch) -> None:
        output, occupancy = self.forward(batch)
        values, taught = nodule_losses(output, occupancy, batch, self._config)
        total, terms = total_of(values, taught, self._config)
        flat = [parameter for group in self._groups for parameter in group]
        found = iter(torch.autograd.grad(total, flat))
        gradients = [[next(found) for _ in group] for group in self._groups]
        with torch.no_grad():
            pooled = output.pooled.detach()
            for head in heads_of(self._model):
                self._damp(head.weight, gradients, pooled)
            self._adam.step(gradients)
            if self._average:
                torch._foreach_lerp_(self._average, flat, 1.0 - AVERAGE_DECAY)
            self.seen += torch.cat([total[None], terms]).detach()

    def _damp(self, weight: Tensor, gradients: Sequence[Sequence[Tensor]], pooled: Tensor) -> None:
        for group, own in zip(self._groups, gradients, strict=True):
            for parameter, gradient in zip(group, own, strict=True):
                if parameter is weight:
                    damp_mean_direction(gradient, pooled, share=self._config.head_mean_share)
