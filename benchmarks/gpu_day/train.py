"""One run of the day: it trains until its time is up, and writes its best weights as it goes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from benchmarks.gpu_day.best import WEIGHTS, BestWeights, means_of
from benchmarks.gpu_day.carry import Carry, Part
from benchmarks.gpu_day.convolutions import Convolutions, use
from benchmarks.gpu_day.draws import Draws, Tables
from benchmarks.gpu_day.patches import batch_of
from benchmarks.gpu_day.prepared import Store, load_store
from benchmarks.gpu_day.schedule import FIRST_STAGE_SHARE, Clock, rate_at
from benchmarks.gpu_day.step import TERMS, Adam, Mode, Stepper, nodule_losses
from nodule_diag.process import in_order
from nodule_diag_training.config import Stage
from nodule_diag_training.data import once
from nodule_diag_training.engine import StepLog, ValidationLog, labels_digest, rated_parameters, slow_in_bf16
from nodule_diag_training.model import build_model

VALIDATE_EVERY: Final = 100
PATIENCE: Final = 2000
"""A run ends after this many steps without a better validation, once its rate is small: a run must not wait in vain for
a loss that falls with the rate."""
SMALL_RATE_SHARE: Final = 0.1
LOG_EVERY: Final = 10
"""Steps that a line of the log is the mean of; only then does the run wait for the GPU."""
WRITE_EVERY_S: Final = 10.0
AHEAD: Final = 8
"""Steps whose draws may be ready in advance."""


class DayRun:
    """A run.

    Args:
        part: The part of the day.
        carry: The recipe and the nodules.
        prepared: Folder of the voxels.
        device: ``cuda`` or ``cpu``.
        mode: How steps are taken.
        convolutions: How the network's unusual convolutions are computed.
        sizes: Patch sizes of the stages, if not the recipe's (in miniature).
        store: The voxels, if they are already on the device.
    """

    def __init__(
        self,
        part: Part,
        carry: Carry,
        prepared: Path,
        *,
        device: str,
        mode: Mode,
        convolutions: Convolutions = "direct",
        sizes: tuple[int, ...] | None = None,
        store: Store | None = None,
    ) -> None:
        self.part, self.mode, self.convolutions, self.device = part, mode, convolutions, torch.device(device)
        stages = carry.config.stages
        if sizes is not None:
            stages = tuple(Stage(size=size, steps=stage.steps) for size, stage in zip(sizes, stages, strict=True))
        self.config = carry.config.model_copy(update={"stages": stages})
        if slow_in_bf16(device):  # where the day is tried out
            self.config = self.config.in_precision("fp32")
        nodules = [carry.nodules[case_id] for case_id in part.learned]
        aside = set(part.validation_patients)
        self._store = load_store(prepared, self.device) if store is None else store
        self._draws = Draws(self.config, [n for n in nodules if n.patient_id not in aside], self._store.volumes)
        lenders = Draws(self.config, nodules, self._store.volumes)
        judged = [n for n in once(sorted(nodules, key=lambda n: n.case_id)) if n.patient_id in aside]
        batch = self.config.unsure_draws + self.config.lung_per_step
        self._validation = [
            batch_of(lenders.still(judged[start : start + batch], size=stages[-1].size, count=batch), self.device)
            for start in range(0, len(judged), batch)
        ]
        self._carry_sha256, self._labels = carry.sha256, labels_digest(nodules)
        torch.manual_seed(self.config.seed)
        self.model = build_model(self.config).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        use(self.model, convolutions)
        self.model.to(self.device)
        groups = rated_parameters(self.model, self.config)
        self._parameters: list[Tensor] = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        self._average: list[Tensor] = []
        self._adam = Adam([(list(g["params"]), float(str(g["factor"]))) for g in groups], self.device)  # type: ignore[call-overload]
        compiled = mode in ("compiled", "compiled-graph")
        self._called = torch.compile(self.model, dynamic=False) if compiled else self.model
        self._steps: list[int] = []
        self.log: list[StepLog] = []
        self.best = BestWeights()

    def stepper(self) -> Stepper:
        """A stepper that takes steps with the present weights."""
        return Stepper(
            self.model,
            self._called,
            adam=self._adam,
            average=self._average,
            store=self._store,
            config=self.config,
            graph=self.mode in ("graph", "compiled-graph"),
        )

    def draw(self, step: int, *, size: int) -> Tables:
        """The tables of a step counted from 0."""
        return self._draws.step(step, size=size)

    def train(
        self,
        *,
        seconds: float,
        most_steps: int | None = None,
        write: Callable[[DayRun], None],
        say: Callable[[str], None],
    ) -> None:
        """Train until ``seconds`` have passed.

        Args:
            seconds: Time from now; choosing kernels, compiling and capturing are included.
            most_steps: Most steps of each stage, in miniature.
            write: Called from time to time when there are better weights, and at the end.
            say: Receives progress messages.
        """
        self.model.train()
        recipe = [stage.steps for stage in self.config.stages]
        clock = Clock(shares=tuple(steps / sum(recipe) for steps in recipe))
        end = time.monotonic() + seconds
        step = 0
        for number, stage in enumerate(self.config.stages):
            last = number + 1 == len(recipe)
            if last:
                self._average = [parameter.detach().clone() for parameter in self._parameters]
            stepper = self.stepper()
            stepper.warm_up(self.draw(step, size=stage.size))
            now = time.monotonic()
            clock.stage, clock.begin = number, now
            clock.end = end if last else now + FIRST_STAGE_SHARE * (end - now)
            first, begun, written = step, step, now
            say(f"{self.part.name}: stage {number} of {stage.size}-cubes, {clock.end - now:.0f} s, {self.mode}")
            with in_order(partial(self.draw, size=stage.size), count(step), threads=1, ahead=AHEAD) as drawn:
                while (now := time.monotonic()) < clock.end and step - first != most_steps:
                    rate = rate_at(self.config, clock.progress(now))
                    stepper.take(next(drawn), rate=rate, step=step + 1)
                    step += 1
                    if (step - first) % LOG_EVERY == 0 or self.device.type == "cpu":
                        self._note(stepper.seen, step=step, since=begun, rate=rate, size=stage.size)
                        begun = step
                    if last and (step - first) % VALIDATE_EVERY == 0:
                        better = self.validate(stepper, step=step)
                        if better and time.monotonic() - written > WRITE_EVERY_S:
                            self._steps_done(number, step - first)
                            write(self)
                            written = time.monotonic()
                        waited = step - self.best.last_step
                        if waited > PATIENCE and rate < SMALL_RATE_SHARE * self.config.learning_rate:
                            say(f"{self.part.name}: no better for {PATIENCE} steps")
                            break
            if last:
                self.validate(stepper, step=step)
            self._steps_done(number, step - first)
            say(f"{self.part.name}: {step - first} steps of {stage.size}-cubes")
        write(self)

    def _steps_done(self, stage: int, steps: int) -> None:
        self._steps[stage:] = [max(1, steps)]

    def _note(self, seen: Tensor, *, step: int, since: int, rate: float, size: int) -> None:
        total, *terms = (seen / max(1, step - since)).tolist()
        seen.zero_()
        if not math.isfinite(total):
            raise FloatingPointError(f"{self.part.name}: the loss is {total} at step {step}")
        named = dict(zip(TERMS, terms, strict=True))
        self.log.append(StepLog(step=step - 1, total=total, learning_rate=rate, patch_size=size, **named))

    @torch.no_grad()
    def validate(self, stepper: Stepper, *, step: int) -> bool:
        """Validate the weights and their average; returns whether either did better than before."""
        better = False
        for name in WEIGHTS:
            if name == "average":
                self._swap()
            better |= self.best.note(name, self._measured(stepper, step=step), self.model)
            if name == "average":
                self._swap()
        return better

    def _swap(self) -> None:
        """Swap the model's weights and their average: in place, since a captured graph holds their memory."""
        for parameter, average in zip(self._parameters, self._average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def _measured(self, stepper: Stepper, *, step: int) -> ValidationLog:
        values, taught, labels = [], [], []
        for batch in self._validation:
            output, occupancy = stepper.forward(batch, compiled=False)
            own, counts = nodule_losses(output, occupancy, batch, self.config)
            values.append(own)
            taught.append(counts)
            labels.append(batch.label)
        return means_of(
            torch.cat(values, dim=1),
            torch.cat(taught, dim=1),
            torch.cat(labels),
            step=step - 1,
            config=self.config,
        )

    def weights(self) -> bytes:
        """The best weights so far, raw and average, in float16, as safetensors with ``facts``."""
        return save_tensors(self.best.tensors(), metadata={"day": json.dumps(self.facts())})

    def facts(self) -> dict[str, Any]:
        """For JSON: the configuration of the run, the split, and the best values."""
        stages = [
            Stage(size=stage.size, steps=steps) for stage, steps in zip(self.config.stages, self._steps, strict=False)
        ]
        return {
            "name": self.part.name,
            "config": self.config.model_copy(update={"stages": tuple(stages) or self.config.stages}).model_dump(
                mode="json"
            ),
            "provenance": self.part.provenance,
            "validation_patients": self.part.validation_patients,
            "labels_sha256": self._labels,
            "carry_sha256": self._carry_sha256,
            "mode": f"{self.mode}, {self.convolutions} convolutions",
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "best": self.best.facts(),
        }

    def lines(self) -> dict[str, Any]:
        """For JSON: the log, as columns."""
        return {
            "log": _columns([asdict(line) for line in self.log]),
            "validation": {name: _columns([asdict(line) for line in own]) for name, own in self.best.looks.items()},
        }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def use_gpu_well() -> None:
    """Choose kernels by measuring them; a run by the clock cannot be repeated exactly anyway."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
