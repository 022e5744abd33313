"""Runs a child process that diagnoses. A CT that ends its child stops no other CT, and is tried twice.

A child reads the next CT while it works on one. When the child dies, either CT may be the reason. Each CT is then tried
once more, alone in a new child. A CT that also ends the new child is given up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from nodule_diag import errors
from nodule_diag.errors import BackendError, NoduleDiagError, OutputError, bounded
from nodule_diag.fleet.manifest import ListedCT
from nodule_diag.fleet.order import Order
from nodule_diag.process import ChildDiedError, ChildLateError, ChildRefusedError, Children, NoChildError
from nodule_diag.results import REDACTED

TRIES = 2
LOAD_CPU_S = 3600
"""CPU time for loading a network: TensorRT builds its engine then."""
LOAD_MEMORY_BYTES = 2**50
ANSWER_BYTES = 2**30
_HINT = "look at this CT by itself: nodule-diag predict; --retry-failed tries it again"
_FAULTS = {
    ChildDiedError: ("worker-died", "it ended its worker"),
    ChildLateError: ("took-too-long", "it took too long"),
    ChildRefusedError: ("worker-failed", "its worker failed"),
}
"""Codes of faults that are no error of this package, and what happened."""


class Said(NamedTuple):
    """A worker's answer for a CT.

    Attributes:
        told: ``ct``, ``nodules`` and ``failed`` of the CT's document, and the fields that belong to them.
        again: Whether another try, alone, may succeed.
        died: Whether the worker's process ended; the CT that it read ahead may be the reason.
    """

    told: dict[str, Any]
    again: bool = False
    died: bool = False


class Worker:
    """One child process that diagnoses CTs, replaced when it dies. One thread asks; any thread may stop it.

    Args:
        order: The worker's order.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self._children = Children(order.work, cpu_s=order.limits.cpu_s)
        self._ready: dict[str, Any] | None = None

    def __enter__(self) -> Worker:
        """The worker itself; its process is started when it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._children.__exit__(None, None, None)

    def stop(self) -> None:
        """End the process at once, from any thread."""
        self._children.stop()

    def ready(self) -> dict[str, Any]:
        """Bundle, case base and runtime, once they are loaded.

        Raises:
            NoduleDiagError: Why the bundle could not be loaded; ``worker-cannot-start`` when no process can be
                started, or loading ends the process; ``batch-other`` when the bundle or the case base is not the
                first worker's.
        """
        if self._ready is None:
            try:
                answer = self._ask(self.order.load_request(), memory_bytes=LOAD_MEMORY_BYTES, cpu_s=LOAD_CPU_S)
            except (ChildDiedError, ChildRefusedError, NoChildError) as error:
                raise BackendError(
                    f"a worker cannot start: {error}",
                    hint="try: nodule-diag doctor; fewer --workers need less memory",
                    code="worker-cannot-start",
                ) from error
            if "error" in answer:
                raise raised(answer["error"])
            _require_same(answer, self.order.first)
            self._ready = answer
        return self._ready

    def restart(self) -> None:
        """Use a new child for the next request."""
        self._ready = None
        self._children.__exit__(None, None, None)

    def say(self, ct: ListedCT, ahead: ListedCT | None = None) -> Said:
        """Try a CT once.

        Args:
            ct: The CT.
            ahead: The next CT, to be read meanwhile.

        Raises:
            NoduleDiagError: As :meth:`ready`.
        """
        self.ready()
        limits = self.order.limits
        request = {"ct": asdict(ct), "ahead": None if ahead is None else asdict(ahead)}
        try:
            answer = self._ask(request, memory_bytes=limits.memory_bytes)
        except (ChildDiedError, ChildRefusedError) as error:
            self.restart()
            return Said(self._of_death(ct, error), again=True, died=True)
        if answer["again"]:
            self.restart()
        return Said(answer["told"], answer["again"])

    def judge(self, ct: ListedCT, *, tries: int = TRIES) -> dict[str, Any]:
        """The answer for a CT, alone, after at most ``tries`` tries."""
        for _ in range(tries):
            said = self.say(ct)
            if not said.again:
                break
        return said.told

    def _ask(self, request: Mapping[str, Any], *, memory_bytes: int, cpu_s: int | None = None) -> Any:  # noqa: ANN401 - JSON
        data = json.dumps(request).encode()
        answer, _ = self._children.ask(data, memory_bytes=memory_bytes, answer_bytes=ANSWER_BYTES, cpu_s=cpu_s)
        return json.loads(answer)

    def _of_death(self, ct: ListedCT, error: ChildDiedError | ChildRefusedError) -> dict[str, Any]:
        code, what = _FAULTS[type(error)]
        told = REDACTED if self.order.options.redact else ct.told
        why = "" if isinstance(error, ChildLateError) else f" ({error})"
        message = bounded(f"{told} was given up after {TRIES} tries: {what}{why}")
        return {"ct": None, "nodules": [], "failed": [{"ids": ct.ids, "code": code, "message": message, "hint": _HINT}]}


def _require_same(loaded: Mapping[str, Any], first: Mapping[str, Any] | None) -> None:
    """Refuse a bundle or case base that was replaced since the first worker loaded it."""
    for name, said in (("bundle", "bundle"), ("cases", "case base")):
        if first is not None and loaded[name] != first[name]:
            raise OutputError(
                f"the {said} was changed during the batch: its sha256 was {first[name]['sha256']}, and a worker found"
                f" {loaded[name]['sha256']}",
                hint="put the former one back and go on, or name another --out",
                code="batch-other",
            )


def fault(error: NoduleDiagError) -> dict[str, Any]:
    """An error as data for another process, which raises it again."""
    return {**error.to_dict(), "kinds": [kind.__name__ for kind in type(error).__mro__]}


def raised(told: Mapping[str, Any]) -> NoduleDiagError:
    """The error of another process, as the nearest class that takes only a message."""
    plain = (getattr(errors, kind, None) for kind in told["kinds"] if kind != errors.MissingExtraError.__name__)
    kind = next(one for one in plain if one is not None)
    error: NoduleDiagError = kind(told["message"], hint=told["hint"], code=told["code"])
    return error
