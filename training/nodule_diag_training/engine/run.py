"""The training loop: one folder per run, resumable at any step, every draw reproducible from the seed and the step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodule_diag.process import in_order, write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import (
    Draw,
    LungPlace,
    Nodule,
    NoduleVoxels,
    PairSource,
    TrainingDataError,
    diagnosed_once,
    patients_of,
    same_sized,
    without_lung,
)
from nodule_diag_training.model import SynergicModel, SynergicOutput, build_model

from .checkpoint import CHECKPOINT, MODEL, Best, Progress, load_checkpoint, save_checkpoint, save_model
from .execution import Execution
from .objective import LossTerms, step_losses
from .optimiser import damp_mean_direction, heads_of, learning_rate, rated_parameters
from .processes import Processes
from .provenance import Origin
from .runlog import RunLog, StepLog, ValidationLog
from .shares import TermCounts, count_terms, weigh
from .validation import Validation, criterion, set_aside

CONFIG = "config.json"
PROVENANCE = "provenance.json"
LOGGED = ("total", "classification", "cam", "segmentation", "score")
"""Terms of eq. 12 in the order in which processes add them up."""
STEPS_AHEAD = 2
"""Steps whose nodules may be drawn before their turn, for each thread that draws."""
Drawn = tuple[list[Draw], list[Draw]]
"""(unsure, sure) nodules of a batch."""


class NonFiniteLossError(TrainingDataError):
    """The loss became NaN or infinite; the last checkpoint is untouched."""

    code = "training-diverged"
    exit_code = 1


def in_channels_last(model: SynergicModel) -> SynergicModel:
    """The model with its weights in the memory layout that is fastest for convolutions."""
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


class Run:
    """A training run in a folder.

    Calling ``train`` again after a crash resumes from the last checkpoint.

    Args:
        folder: Configuration, logs, checkpoint and finished model.
        config: What is learned, and how.
        nodules: The training patients' nodules; some are set aside where the configuration validates.
        voxels: Voxels of all of them, by case_id.
        provenance: Written into the finished model.
        initial: Weights to start from.
        execution: Where and how it is computed.
        processes: The processes that train together; they have the same ``folder``, and the first one writes.

    Raises:
        TrainingDataError: If there are too few nodules, or a step has fewer nodules than there are processes.
        BackendError: If the device does not exist.
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
        execution: Execution | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self._processes = Processes() if processes is None else processes
        batch = config.unsure_draws + config.sure_draws
        if batch < self._processes.size:
            raise TrainingDataError(
                f"a batch has {batch} nodules, for {self._processes.size} processes",
                hint="start fewer processes, or raise unsure_per_step and sure_per_step",
            )
        self._extra = dict(provenance or {})
        self._execution = Execution() if execution is None else execution
        self._device = self._execution.torch_device()
        self._validation: Validation | None = None
        self._set_aside: set[str] = set()
        if config.validation_share > 0:
            self._set_aside = set_aside(without_lung(nodules), share=config.validation_share, seed=config.seed)
            aside = [n for n in nodules if n.patient_id in self._set_aside]
            self._validation = Validation(config, nodules=aside, voxels=voxels, lenders=nodules)
        self._nodules = [n for n in nodules if n.patient_id not in self._set_aside]
        self._source = PairSource(config, self._nodules, voxels)
        self._origin = Origin.of(nodules, voxels)
        torch.manual_seed(config.seed)
        self.model = in_channels_last(build_model(config))
        if initial is not None:
            self.model.load_state_dict(dict(initial))
        self.model.to(self._device)
        self._parallel = self._processes.parallel(self.model)
        self._called = torch.compile(self._parallel) if self._execution.compile else self._parallel
        self._optimizer = torch.optim.Adam(rated_parameters(self.model, config))

    def train(
        self,
        *,
        until: int | None = None,
        on_step: Callable[[StepLog], None] | None = None,
        on_validation: Callable[[ValidationLog], None] | None = None,
    ) -> SynergicModel:
        """Train to the last step (or ``until``), write the model, and return it.

        The finished model has the best weights by ``validation.criterion``, or without validation the last weights.

        Args:
            until: Stop after this many steps, at a checkpoint, without finishing the model.
            on_step: Called after each step.
            on_validation: Called after each validation.

        Raises:
            TrainingDataError: If the folder holds a run of another configuration or of other nodules.
            NonFiniteLossError: If a loss is NaN or infinite.
            OutputError: If a file cannot be written; any earlier checkpoint is as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # or a repeated run would give different weights
        progress = Progress()
        if (self.folder / CHECKPOINT).exists():
            progress = load_checkpoint(
                self.folder / CHECKPOINT,
                model=self.model,
                optimizer=self._optimizer,
                config=self.config,
                data=self._origin.data,
            )
        log = RunLog(self.folder, steps=progress.steps, writes=self._processes.first)
        self._write(CONFIG, self.config.model_dump_json(indent=1))
        self._write(PROVENANCE, json.dumps(self._origin.to_dict(), indent=1))
        best = progress.best
        last = self.config.steps if until is None else min(until, self.config.steps)
        steps = range(progress.steps, last)
        workers = self._execution.workers
        drawing = in_order(self._drawn, steps, threads=workers, ahead=STEPS_AHEAD * workers)
        with log, drawing as drawn:
            for step in steps:
                begin = time.perf_counter()
                entry = self._step(step, next(drawn))
                log.add(entry, seconds=time.perf_counter() - begin)
                if on_step is not None:
                    on_step(entry)
                if self._validation is not None and self._validates_after(step):
                    seen = self._validated(self._validation, step)
                    log.add_validation(seen)
                    best = self._better(best, seen)
                    if on_validation is not None:
                        on_validation(seen)
                if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == last:
                    log.write()
                    self._save_checkpoint(Progress(steps=step + 1, best=best))
        if last == self.config.steps:
            if best is not None:
                self.model.load_state_dict(dict(best.weights))
            if self._processes.first:
                provenance = self._provenance(best)
                save_model(self.folder / MODEL, self.model, config=self.config, provenance=provenance)
        return self.model

    def _write(self, name: str, text: str) -> None:
        if self._processes.first:
            write_bytes(self.folder / name, text.encode())

    def _save_checkpoint(self, progress: Progress) -> None:
        if self._processes.first:
            save_checkpoint(
                self.folder / CHECKPOINT,
                model=self.model,
                optimizer=self._optimizer,
                progress=progress,
                config=self.config,
                data=self._origin.data,
            )

    def _drawn(self, step: int) -> list[Drawn]:
        return [self._source.draw(step, group=group) for group in range(self.config.accumulate)]

    def _validated(self, validation: Validation, step: int) -> ValidationLog:
        sums = validation.sums(self._measure, part=self._processes.rank, parts=self._processes.size)
        seen = validation.log(self._processes.sum(sums.to(self._device)).cpu(), step=step)
        if not math.isfinite(seen.total):
            raise NonFiniteLossError(
                f"the loss of the validation patients is {seen.total} after step {step}",
                hint="lower the learning rate, or check the data",
            )
        return seen

    def _validates_after(self, step: int) -> bool:
        return (step + 1) % self.config.validate_every == 0 or step + 1 == self.config.steps

    def _better(self, best: Best | None, seen: ValidationLog) -> Best | None:
        """``best``, or the present weights where they did better; at a tie the first is kept."""
        value: float = getattr(seen, criterion(self.config))
        if best is not None and not value < best.value:
            return best
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return Best(step=seen.step, value=value, weights=weights)

    def _forward(self, draws: Sequence[Draw]) -> SynergicOutput:
        batch = torch.from_numpy(np.stack([d.sample.patch for d in draws]))
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        self.model.train()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output: SynergicOutput = self._called(batch.to(memory_format=torch.channels_last_3d))
        return output

    def _measure(self, unsure: Sequence[Draw], sure: Sequence[Draw]) -> LossTerms:
        # In training mode, which in this model only chooses the faster convolution.
        return step_losses(self._forward([*unsure, *sure]), unsure, sure, self.config)

    def _step(self, step: int, drawn: Sequence[Drawn]) -> StepLog:
        rate = learning_rate(self.config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        whole = sum((count_terms(unsure, sure, self.config) for unsure, sure in drawn), TermCounts())
        own = [part for unsure, sure in drawn for part in same_sized(*self._share(unsure, sure))]
        self._optimizer.zero_grad(set_to_none=True)
        summed = torch.zeros(len(LOGGED), device=self._device)
        pooled = []
        for number, (unsure, sure) in enumerate(own, start=1):
            with self._processes.gradients_shared(self._parallel, now=number == len(own)):
                output = self._forward([*unsure, *sure])
                terms = weigh(
                    step_losses(output, unsure, sure, self.config),
                    part=count_terms(unsure, sure, self.config),
                    whole=whole,
                )
                self._processes.backward(terms.total, output)
            summed += torch.stack([getattr(terms, name).detach() for name in LOGGED])
            pooled.append(output.pooled.detach())
        values = dict(zip(LOGGED, self._processes.sum(summed).tolist(), strict=True))
        if not math.isfinite(values["total"]):
            names = ", ".join(d.nodule.case_id for unsure, sure in drawn for d in [*unsure, *sure])
            raise NonFiniteLossError(
                f"the loss is {values['total']} at step {step} ({names})",
                hint="lower the learning rate, or check the data",
            )
        mean = self._processes.mean(torch.cat(pooled))
        for head in heads_of(self.model):
            if head.weight.grad is not None:
                damp_mean_direction(head.weight.grad, mean, share=self.config.head_mean_share)
        self._optimizer.step()
        return StepLog(step=step, learning_rate=rate, patch_size=self.config.patch_size(step), **values)

    def _share(self, unsure: Sequence[Draw], sure: Sequence[Draw]) -> Drawn:
        """This process's nodules of a batch."""
        own = self._processes.share([(draw, False) for draw in unsure] + [(draw, True) for draw in sure])
        return [d for d, as_sure in own if not as_sure], [d for d, as_sure in own if as_sure]

    def _provenance(self, best: Best | None) -> dict[str, object]:
        nodules = without_lung(self._nodules)
        kept: dict[str, object] = {}
        if lung := [n for n in self._nodules if isinstance(n, LungPlace)]:
            kept = {"lung": {"places": len(lung), "patients": patients_of(lung)}}
        if best is not None:
            kept |= {
                "validation_patients": sorted(self._set_aside),
                "best": {"step": best.step, "by": criterion(self.config), "value": best.value},
            }
        return {
            "nodules": len(nodules),
            "cubes": sum(n.is_cube for n in nodules),
            "sure": len(diagnosed_once(nodules)),
            "patients": len(patients_of(nodules)),
            "steps": self.config.steps,
            **self._origin.to_dict(),
            **kept,
            **self._extra,
        }
