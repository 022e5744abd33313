"""The steps in their order, and their time limits. Nothing but Python is imported here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

SCHEMA: Final = "nodule-diag/gpu-check/1"
DEADLINE_S: Final = 450.0
"""Limit for all steps together: the promise is eight minutes, and starting processes takes time too."""
BATCHES: Final = {"cuda": (1, 2, 4, 8, 16, 32, 64), "cpu": (1, 2)}
"""Default batch sizes. On a CPU: enough to run every line in a few minutes."""
MADE_UP: Final = {"cuda": 16, "cpu": 8}
"""Number of patches where none are given."""
CALLS: Final = {"cuda": (3, 5), "cpu": (1, 3)}
"""Calls before the counted ones, and calls of a window."""
MATRIX: Final = {"cuda": 8192, "cpu": 1024}
BUDGET_S: Final = {"cuda": 1.0, "cpu": 0.2}
State = Literal["done", "unavailable", "failed", "timed-out", "skipped"]
"""``unavailable``: the machine lacks what the step needs, and ``reason`` has the original message."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step.

    Attributes:
        name: Name in the command and in the file.
        limit_s: Time after which the step is killed.
        arguments: Arguments of the step's function in :mod:`benchmarks.gpu_check.child`.
    """

    name: str
    limit_s: float
    arguments: tuple[str, ...] = ()


STEPS: Final = (
    Step(name="wheels", limit_s=90),
    Step(name="machine", limit_s=20),
    Step(name="pycuda", limit_s=120),
    Step(name="reference", limit_s=60),
    Step(name="ceiling", limit_s=30),
    Step(name="torch", limit_s=50),
    Step(name="onnxruntime-fp32", limit_s=50, arguments=("onnxruntime", "fp32")),
    Step(name="tensorrt-rtx-fp32", limit_s=45, arguments=("tensorrt-rtx", "fp32")),
    Step(name="tensorrt-bf16", limit_s=90, arguments=("tensorrt", "bf16")),
    Step(name="torch-compile-graphs", limit_s=90, arguments=("reduce-overhead",)),
    Step(name="tensorrt-fp32", limit_s=90, arguments=("tensorrt", "fp32")),
    Step(name="torch-compile", limit_s=90, arguments=("default",)),
    Step(name="tensorrt-rtx-bf16", limit_s=45, arguments=("tensorrt-rtx", "bf16")),
    Step(name="tensorrt-fp16", limit_s=60, arguments=("tensorrt", "fp16")),
)
"""What other steps need comes first, then the best-known steps, then those that most likely run out of time."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line asks for; the steps get it as JSON.

    Attributes:
        work: Folder for what steps pass on: installed wheels, the reference's answers, each step's findings.
        device: ``cuda``; ``cpu`` runs the same code on CPU backends, for tests.
        wheels: Folder of wheels (and pycuda's source), if any.
        bundle: A bundle, if not the packaged one.
        patches: A ``.npy`` file of (N, 2, 64, 64, 64) float32 patches, if not made-up ones.
        batches: Batch sizes to measure.
        budget_s: Seconds of timed calls for one batch size.
        matrix: Edge of the matrices that measure the ceiling.
    """

    work: Path
    device: str = "cuda"
    wheels: Path | None = None
    bundle: Path | None = None
    patches: Path | None = None
    batches: tuple[int, ...] = BATCHES["cuda"]
    budget_s: float = BUDGET_S["cuda"]
    matrix: int = MATRIX["cuda"]

    @property
    def site(self) -> Path:
        """The folder of installed wheels."""
        return self.work / "site"

    @property
    def reference(self) -> Path:
        """The patches and the reference's answers."""
        return self.work / "reference.npz"

    def found(self, step: str) -> Path:
        """The file with a step's findings."""
        return self.work / f"{step}.json"

    def to_json(self) -> str:
        """For :meth:`of_json`."""
        return json.dumps(
            {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        )

    @classmethod
    def of_json(cls, text: str) -> Settings:
        """What :meth:`to_json` wrote."""
        values = json.loads(text)
        for name in ("work", "wheels", "bundle", "patches"):
            values[name] = None if values[name] is None else Path(values[name])
        return cls(**{**values, "batches": tuple(values["batches"])})


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
