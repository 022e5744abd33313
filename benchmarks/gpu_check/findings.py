"""What a step has found, and how it reports that it cannot run or found something wrong."""

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
"""Codes of SDK errors which say that a machine cannot do something, as TensorRT for RTX does for some GPUs."""


OURS: Final = frozenset({"benchmarks", "nodule_diag", "nodule_diag_cli", "nodule_diag_training", "nodule_diag_export"})
"""Modules of the checkout: if one of them is missing, this is a fault and not a limit of the machine."""


class StepError(Exception):
    """An error that a step raises itself; the message is a sentence."""


class UnavailableError(StepError):
    """The machine lacks what a step needs; the message says what."""


class WrongAnswerError(StepError):
    """A backend's answers differ from the reference's."""


class IncompleteError(StepError):
    """Part of a step failed, other parts did not; the message says which and why."""


def in_words(error: Exception) -> str:
    """An error in the words of the document: the SDK's errors are sentences, other errors need their type."""
    # The code of a NoduleDiagError is read without importing the SDK, which may be missing.
    return (
        str(error) if isinstance(error, StepError) or _code(error) is not None else f"{type(error).__name__}: {error}"
    )


def lacks(error: Exception) -> bool:
    """Whether an error says that the machine lacks something; other errors say that something is wrong."""
    if isinstance(error, ModuleNotFoundError) and _code(error) is None:
        return (error.name or "").partition(".")[0] not in OURS
    return isinstance(error, UnavailableError) or _code(error) in LACKS


def _code(error: Exception) -> str | None:
    """The code of a NoduleDiagError, without importing the SDK, which may be missing."""
    return getattr(error, "code", None) if hasattr(error, "hint") else None


class Findings:
    """What a step has found so far; written to disk after every change, since the step may be killed at any time."""

    def __init__(self, settings: Settings, step: str) -> None:
        self._path = settings.found(step)
        self._doing = ""
        self.result: dict[str, Any] = {}

    def doing(self, what: str) -> None:
        """Note what comes next; the reason of a killed step names it."""
        self._doing = what
        self.add()

    def add(self, **values: object) -> None:
        """Add to the result."""
        self.result |= values
        write_json(self._path, {"doing": self._doing, "result": self.result})

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add a row to a list of the result."""
        self.add(**{name: [*self.result.get(name, []), row]})

    def end(self, state: State, reason: str = "") -> None:
        """Note the final state."""
        write_json(self._path, {"state": state, "reason": reason, "result": self.result})
