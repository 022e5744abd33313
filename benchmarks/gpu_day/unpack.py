"""Run folders from the files that came back; they judge, evaluate and export like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import Tensor

from benchmarks.gpu_day.runner import REPORT
from nodule_diag.process import write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.engine import (
    CODE,
    LOG,
    MODEL,
    PROVENANCE,
    VALIDATION_LOG,
    Origin,
    StepLog,
    ValidationLog,
    code_digest,
    save_model,
    write_lines,
)
from nodule_diag_training.model import SynergicModel, build_model

RAW, AVERAGE = "raw", "average"
OTHER: Final = {RAW: "model-raw.safetensors", AVERAGE: "model-average.safetensors"}


def unpack(results: Path, runs: Path) -> list[str]:
    """Make a run folder of every weights file; ``model.safetensors`` has the weights that did best in validation.

    Args:
        results: Folder of the files that came back.
        runs: Folder for the run folders.

    Returns:
        A line about each run.

    Raises:
        TrainingDataError: If nothing is there, or a file is damaged.
        OutputError: If a file cannot be written.
    """
    found = sorted(results.glob("*.safetensors"))
    if not found:
        raise TrainingDataError(f"{results} holds no weights", hint="give the folder of the files that came back")
    try:
        report = json.loads((results / REPORT).read_text())
    except (OSError, ValueError):  # weights are useful without the report
        report = {}
    return [_unpacked(path, runs / path.stem, report.get("runs", {}).get(path.stem, {})) for path in found]


def _unpacked(path: Path, folder: Path, lines: dict[str, Any]) -> str:
    with safe_open(path, framework="pt") as file:
        day = json.loads(file.metadata()["day"])
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
    config = TrainingConfig.model_validate(day["config"])
    best: dict[str, dict[str, float]] = day["best"]
    chosen = min(best, key=lambda name: best[name]["total"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in best:
        provenance = _provenance(day, name)
        file_name = MODEL if name == chosen else OTHER[name]
        save_model(folder / file_name, model=_model(config, tensors, name), config=config, provenance=provenance)
        if name == chosen:
            write_bytes(folder / PROVENANCE, json.dumps(provenance, indent=1).encode())
    write_bytes(folder / "config.json", config.model_dump_json(indent=1).encode())
    if lines:
        write_lines(folder / LOG, list(_lines(lines["log"], StepLog)), StepLog)
        seen = lines["validation"].get(chosen, {})
        write_lines(folder / VALIDATION_LOG, list(_lines(seen, ValidationLog)), ValidationLog)
    steps = " and ".join(f"{stage.steps} steps of {stage.size}-cubes" for stage in config.stages)
    return f"{folder}: {steps}; {chosen} weights of step {best[chosen]['step']:.0f}, loss {best[chosen]['total']:.4f}"


def _model(config: TrainingConfig, tensors: dict[str, Tensor], name: str) -> SynergicModel:
    model = build_model(config)
    prefix = f"{name}."
    model.load_state_dict({key[len(prefix) :]: own for key, own in tensors.items() if key.startswith(prefix)})
    return model


def _provenance(day: dict[str, Any], name: str) -> dict[str, Any]:
    best = {"step": day["best"][name]["step"], "by": "total", "value": day["best"][name]["total"], "weights": name}
    kept = {
        key: day[key] for key in ("labels_sha256", "carry_sha256", "torch", "device", "mode", "validation_patients")
    }
    steps = sum(stage["steps"] for stage in day["config"]["stages"])
    ran = {**day["provenance"], "revision": revision_of(day["provenance"][CODE])}
    return {**ran, **kept, "steps": steps, "best": best, "weights_rounded_to": "float16"}


def revision_of(code: str) -> str | None:
    """The commit of this checkout, if its learning code is the code that ran; else None."""
    return Origin.of([], {}).revision if code == code_digest() else None


def _lines(columns: dict[str, list[Any]], kind: type[Any]) -> Iterator[Any]:
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield kind(**dict(zip(names, values, strict=True)))
