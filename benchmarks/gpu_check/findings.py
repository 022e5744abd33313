"""What a step has found, and how it says that it cannot run or found something wrong."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.gpu_check.plan import Settings, State, write_json

LACKS: Final = frozenset(
    {
        "backend-version",
        "cuda-no-driver",
        "device-unavailable",
        "engine-build-failed",
        "engine-refused",
        "missing-extra",
        "onnxruntime-conflict",
        "precision-unavailable",
    }
)
"""Codes of the SDK's errors that say that a machine cannot do something, as TensorRT for RTX says of some GPUs."""


class UnavailableError(Exception):
    """The machine lacks what a step needs; the message says what."""


class WrongAnswerError(Exception):
    """A backend's answers are not the reference's."""


class Findings:
    """What a step has found so far, on disk after every change: it may be killed at any time."""

    def __init__(self, settings: Settings, step: str) -> None:
        self._path = settings.found(step)
        self.result: dict[str, Any] = {}

    def add(self, **values: object) -> None:
        """Add to the result."""
        self.result |= values
        write_json(self._path, {"result": self.result})

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add a row to a list of the result."""
        self.add(**{name: [*self.result.get(name, []), row]})

    def end(self, state: State, reason: str = "") -> None:
        """The last word."""
        write_json(self._path, {"state": state, "reason": reason, "result": self.result})
