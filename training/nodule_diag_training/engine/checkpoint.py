"""Checkpoints as safetensors: nothing is pickled, and a file is always written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nodule_diag.process import write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.model import SynergicModel, build_model

CHECKPOINT = "checkpoint.safetensors"
"""Model, optimiser and step of a run that may be resumed."""
MODEL = "model.safetensors"
"""The weights of a finished run."""
CONFIG_KEY = "training_config"
DATA_KEY = "data"
STEP_KEY = "step"
BEST_KEY = "best"
LENGTH_BYTES = 8
"""Size of a safetensors header's length, little-endian, at the start of the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The weights that did best on the validation patients so far.

    Attributes:
        step: After which step, counted from 0.
        value: Their validation loss, by ``validation.criterion``.
        weights: By name, on the CPU.
    """

    step: int
    value: float
    weights: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """How far a run is: the number of steps done, and the best weights if the run validates."""

    steps: int = 0
    best: Best | None = None


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: TrainingConfig,
    data: str,
) -> None:
    """Write everything that a run needs to resume, atomically. An earlier checkpoint survives a failure.

    Args:
        path: The file.
        model: The model whose weights are written.
        optimizer: The optimiser whose moments are written.
        progress: How far the run is.
        config: The run's configuration.
        data: What the run trains on, ``Origin.data``.

    Raises:
        OutputError: If the file cannot be written, for example for lack of space.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
    metadata = {STEP_KEY: str(progress.steps), CONFIG_KEY: config.model_dump_json(), DATA_KEY: data}
    if progress.best is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in progress.best.weights.items()}
        metadata[BEST_KEY] = json.dumps({"step": progress.best.step, "value": progress.best.value})
    write_bytes(path, _serialised(tensors, metadata))


def _serialised(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file that is the same for the same content: safetensors itself writes metadata in random order."""
    data = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata))
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors begin at a multiple of 8
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + data[end:]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        data = path.read_bytes()
        tensors = load_tensors(data)
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
        metadata: dict[str, str] = json.loads(data[LENGTH_BYTES:end])["__metadata__"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingDataError(
            f"{path} is not a checkpoint of this package: {error}", hint="delete it to start the run anew"
        ) from error
    return tensors, metadata


def load_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainingConfig, data: str
) -> Progress:
    """Restore a run and return how far it is.

    Raises:
        TrainingDataError: If the file is damaged, or was written with another configuration or other nodules: a run of
            another fold would have learned from the patients that this one holds out.
    """
    tensors, metadata = _read(path)
    stored = TrainingConfig.model_validate_json(metadata[CONFIG_KEY])
    if stored != config:
        changed = [key for key in TrainingConfig.model_fields if getattr(stored, key) != getattr(config, key)]
        raise TrainingDataError(
            f"{path} belongs to another configuration (differs in {', '.join(changed)})", hint="use another run folder"
        )
    if metadata.get(DATA_KEY) != data:
        raise TrainingDataError(
            f"{path} was trained on other nodules, of another fold perhaps", hint="use another run folder"
        )
    model.load_state_dict(_below("model.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("adam.", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    best = None
    if BEST_KEY in metadata:
        best = Best(weights=_below("best.", tensors), **json.loads(metadata[BEST_KEY]))
    return Progress(steps=int(metadata[STEP_KEY]), best=best)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save_model(path: Path, model: SynergicModel, *, config: TrainingConfig, provenance: Mapping[str, object]) -> None:
    """Write a finished model with its configuration and provenance."""
    metadata = {CONFIG_KEY: config.model_dump_json(), "provenance": json.dumps(dict(provenance), sort_keys=True)}
    write_bytes(path, _serialised(model.state_dict(), metadata))


def load_model(path: Path) -> tuple[SynergicModel, TrainingConfig, dict[str, Any]]:
    """Read a finished model: the model in evaluation mode, its configuration and its provenance."""
    tensors, metadata = _read(path)
    config = TrainingConfig.model_validate_json(metadata[CONFIG_KEY])
    model = build_model(config)
    model.load_state_dict(tensors)
    provenance: dict[str, Any] = json.loads(metadata["provenance"])
    return model.eval(), config, provenance
