"""The training loop: one folder a run, resumable at any step, every draw reproducible from the seed and the step."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nodule_diag.atomic import write_bytes

from .checkpoint import CHECKPOINT, MODEL, load_checkpoint, save_checkpoint, save_model
from .config import TrainingConfig
from .draws import PairSource
from .lidc import Nodule, TrainingDataError, patients_of
from .model import SynergicModel, build_model
from .objective import step_losses
from .patches import NoduleVoxels

LOG = "log.csv"
CONFIG = "config.json"
WARM_UP_SHARE = 0.1
FINAL_RATE_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One line of ``log.csv``. Losses are the terms of eq. 12, unweighted."""

    step: int
    total: float
    classification: float
    cam: float
    segmentation: float
    score: float
    learning_rate: float
    patch_size: int
    seconds: float


class NonFiniteLossError(TrainingDataError):
    """The loss became NaN or infinite; the last checkpoint is untouched."""

    code = "training-diverged"
    exit_code = 1


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Adam's rate at a step counted from 0."""
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = max(1, round(WARM_UP_SHARE * config.steps))
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, config.steps - warm_up)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine)


def channels_last(model: SynergicModel) -> SynergicModel:
    """The model with its weights laid out as CPU convolutions take them fastest."""
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def _heads(model: SynergicModel) -> list[nn.Linear]:
    return [head for head in (model.rnet, model.cnet) if head is not None]


def _rated_parameters(model: SynergicModel, config: TrainingConfig) -> list[dict[str, object]]:
    """Adam's parameter groups: ``factor`` multiplies the scheduled rate."""
    heads = [parameter for head in _heads(model) for parameter in head.parameters()]
    others = [p for p in model.parameters() if all(p is not own for own in heads)]
    return [{"params": others, "factor": 1.0}, {"params": heads, "factor": config.head_rate}]


def damp_mean_direction(gradient: Tensor, pooled: Tensor, *, share: float) -> None:
    """Scale a head's gradient by ``share`` along the mean of the batch's pooled features, in place.

    ``gradient`` is [outputs, 256] and ``pooled`` [B, 256]. A preconditioner: it changes the way to the optimum, not
    where it lies.
    """
    direction = functional.normalize(pooled.detach().mean(dim=0), dim=0)
    gradient -= (1.0 - share) * (gradient @ direction)[:, None] * direction


class Run:
    """A training run in a folder; ``provenance`` goes into the finished model, ``initial`` are weights to start from.

    Calling ``train`` again after a crash goes on from the last checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: TrainingConfig,
        nodules: Sequence[Nodule],
        voxels: Mapping[str, NoduleVoxels],
        provenance: Mapping[str, object] | None = None,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.folder = folder
        self._extra = dict(provenance or {})
        self.config = config
        self._nodules = nodules
        self._source = PairSource(config, nodules, voxels)
        torch.manual_seed(config.seed)
        self.model = channels_last(build_model(config))
        if initial is not None:
            self.model.load_state_dict(dict(initial))
        self._optimizer = torch.optim.Adam(_rated_parameters(self.model, config))

    def train(self, *, until: int | None = None, on_step: Callable[[StepLog], None] | None = None) -> SynergicModel:
        """Train to the last step (or ``until``), write the model, and return it.

        Raises:
            TrainingDataError: If the folder holds a run of another configuration.
            NonFiniteLossError: If a loss is NaN or infinite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = self.folder / CHECKPOINT
        done = 0
        if checkpoint.exists():
            done = load_checkpoint(checkpoint, model=self.model, optimizer=self._optimizer, config=self.config)
        write_bytes(self.folder / CONFIG, self.config.model_dump_json(indent=1).encode())
        lines = [line for line in read_log(self.folder / LOG) if line.step < done]
        last = self.config.steps if until is None else min(until, self.config.steps)
        for step in range(done, last):
            entry = self._step(step)
            lines.append(entry)
            if on_step is not None:
                on_step(entry)
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == last:
                _write_log(self.folder / LOG, lines)
                save_checkpoint(
                    checkpoint, model=self.model, optimizer=self._optimizer, step=step + 1, config=self.config
                )
        if last == self.config.steps:
            save_model(self.folder / MODEL, self.model, config=self.config, provenance=self._provenance())
        return self.model

    def _step(self, step: int) -> StepLog:
        begin = time.perf_counter()
        rate = learning_rate(self.config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        unsure, sure = self._source.draw(step)
        batch = torch.from_numpy(np.stack([d.sample.patch for d in [*unsure, *sure]]))
        batch = batch.to(memory_format=torch.channels_last_3d)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            output = self.model(batch)
        terms = step_losses(output, unsure, sure, self.config)
        total = terms.total
        if not torch.isfinite(total):
            names = ", ".join(d.nodule.case_id for d in [*unsure, *sure])
            raise NonFiniteLossError(
                f"the loss is {total.item()} at step {step} ({names})",
                hint="lower the learning rate, or check the data",
            )
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        for head in _heads(self.model):
            if head.weight.grad is not None:
                damp_mean_direction(head.weight.grad, output.pooled, share=self.config.head_mean_share)
        self._optimizer.step()
        return StepLog(
            step=step,
            total=total.item(),
            classification=terms.classification.item(),
            cam=terms.cam.item(),
            segmentation=terms.segmentation.item(),
            score=terms.score.item(),
            learning_rate=rate,
            patch_size=self.config.patch_size(step),
            seconds=time.perf_counter() - begin,
        )

    def _provenance(self) -> dict[str, object]:
        return {
            "nodules": len(self._nodules),
            "cubes": sum(n.is_cube for n in self._nodules),
            "sure": sum(n.sure is not None and not n.is_cube for n in self._nodules),
            "patients": len(patients_of(self._nodules)),
            "steps": self.config.steps,
            **self._extra,
        }


def read_log(path: Path) -> list[StepLog]:
    """The logged steps of a run; none if there is no log yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    integers = ("step", "patch_size")
    return [StepLog(**{k: int(v) if k in integers else float(v) for k, v in row.items()}) for row in rows]  # type: ignore[arg-type]


def _write_log(path: Path, lines: Sequence[StepLog]) -> None:
    names = list(StepLog.__dataclass_fields__)
    rows = [",".join(names)]
    rows += [",".join(repr(value) for value in asdict(line).values()) for line in lines]
    write_bytes(path, ("\n".join(rows) + "\n").encode())
