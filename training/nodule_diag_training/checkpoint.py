"""Checkpoints as safetensors: nothing pickled is written or read, and none is ever half there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nodule_diag.atomic import write_bytes

from .config import TrainingConfig
from .lidc import TrainingDataError
from .model import SynergicModel, build_model

CHECKPOINT = "checkpoint.safetensors"
"""Model, optimiser and step of a run that may be resumed."""
MODEL = "model.safetensors"
"""The weights of a finished run."""
CONFIG_KEY = "training_config"
STEP_KEY = "step"


def save_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Adam, step: int, config: TrainingConfig
) -> None:
    """Write everything that a run needs to go on, atomically. Any earlier checkpoint survives a failure."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value.contiguous() for key, value in state.items()}
    metadata = {STEP_KEY: str(step), CONFIG_KEY: config.model_dump_json()}
    write_bytes(path, save_tensors(tensors, metadata=metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        data = path.read_bytes()
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingDataError(
            f"{path} is not a checkpoint of this package: {error}", hint="delete it to start the run anew"
        ) from error
    return tensors, metadata


def load_checkpoint(path: Path, *, model: nn.Module, optimizer: torch.optim.Adam, config: TrainingConfig) -> int:
    """Restore a run and return the number of steps done.

    Raises:
        TrainingDataError: If the file is damaged or was written by another configuration.
    """
    tensors, metadata = _read(path)
    stored = TrainingConfig.model_validate_json(metadata[CONFIG_KEY])
    if stored != config:
        changed = [key for key in TrainingConfig.model_fields if getattr(stored, key) != getattr(config, key)]
        raise TrainingDataError(
            f"{path} belongs to another configuration (differs in {', '.join(changed)})", hint="use another run folder"
        )
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata[STEP_KEY])


def save_model(path: Path, model: SynergicModel, *, config: TrainingConfig, provenance: Mapping[str, object]) -> None:
    """Write a finished model with its configuration and where it comes from."""
    metadata = {CONFIG_KEY: config.model_dump_json(), "provenance": json.dumps(dict(provenance), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, save_tensors(tensors, metadata=metadata))


def load_model(path: Path) -> tuple[SynergicModel, TrainingConfig, dict[str, Any]]:
    """Read a finished model: it in evaluation mode, its configuration and provenance."""
    tensors, metadata = _read(path)
    config = TrainingConfig.model_validate_json(metadata[CONFIG_KEY])
    model = build_model(config)
    model.load_state_dict(tensors)
    provenance: dict[str, Any] = json.loads(metadata["provenance"])
    return model.eval(), config, provenance
