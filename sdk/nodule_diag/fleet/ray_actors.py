"""The engine for a cluster: a pool of Ray actors, each of which holds a worker as the local engine does.

A CT that ends a worker's process therefore ends no actor, and is given up after two tries, as in the local engine.
Ray's own retries are for lost actors and machines. Because of these retries, the actors are of Ray itself and not of
Ray Data: Ray Data deprecated the retries in 2.60, and without them a lost actor's CT is tried for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nodule_diag.errors import BackendError, MissingExtraError, NoduleDiagError
from nodule_diag.fleet.manifest import ListedCT
from nodule_diag.fleet.order import Order
from nodule_diag.fleet.worker import Worker, fault, raised

ADDRESS = "RAY_ADDRESS"
"""The cluster's address; without it, Ray is started on this machine and ended with the batch."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # telemetry
    # A busy machine takes longer than Ray's 15 s to start its agents.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
}
START_TRIES = 3
"""Ray gives its own processes 30 s to start. On a busy machine this is too short while their files are not cached."""
MAX_RESTARTS, MAX_TASK_RETRIES = 2, 1
"""Restarts of a lost actor, and retries of its current task."""
_SHORT = Path("/tmp")  # noqa: S108 - the path of a Unix socket has at most 107 characters; the folder's name is random


class RayEngine:
    """Workers of a Ray cluster.

    Args:
        workers: The number of workers; when left out, as many as the cluster has CPUs for their threads, and GPUs.

    Raises:
        MissingExtraError: Without Ray.
    """

    name = "ray"

    def __init__(self, workers: int | None = None) -> None:
        self._wanted = workers
        self._stack = ExitStack()
        self.workers = 0
        for variable, value in SETTINGS.items():
            os.environ.setdefault(variable, value)
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        self._ray: Any = ray

    def __enter__(self) -> RayEngine:
        """Connect, or start Ray.

        Raises:
            BackendError: ``ray-failed`` when that fails.
        """
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if not os.environ.get(ADDRESS):
            # Ray's logs may name CTs: they are removed with the folder.
            folder = tempfile.TemporaryDirectory(
                prefix="nodule-diag-ray-", dir=_SHORT if _SHORT.is_dir() else None, ignore_cleanup_errors=True
            )
            self._stack.enter_context(folder)
            options |= {"address": "local", "include_dashboard": False, "_temp_dir": folder.name}
        self._stack.callback(self._ray.shutdown)
        handler = signal.getsignal(signal.SIGTERM)
        for left in reversed(range(START_TRIES)):
            try:
                self._ray.init(**options)
                break
            except Exception as error:
                self._ray.shutdown()
                if not left:
                    self._stack.close()
                    raise BackendError(
                        f"Ray cannot be reached or started: {error}",
                        hint=f"check {ADDRESS}, or use --engine local",
                        code="ray-failed",
                    ) from error
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has replaced the handler
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, or end Ray with all its processes."""
        self._stack.close()

    def ready(self, order: Order) -> dict[str, Any]:
        """Bundle, case base and runtime of a worker on the cluster; raises as :meth:`Worker.ready`."""
        wanted = _resources(order)
        here = self._ray.cluster_resources()
        lacking = {"num_cpus": "CPU", "num_gpus": "GPU"}
        if not os.environ.get(ADDRESS) and any(here.get(lacking[name], 0) < count for name, count in wanted.items()):
            # A cluster may grow; on this machine Ray would wait for ever.
            raise BackendError(
                f"a worker takes {wanted['num_cpus']:g} CPUs and {wanted['num_gpus']:g} GPUs, and Ray finds"
                f" {here.get('CPU', 0):g} and {here.get('GPU', 0):g} here",
                hint="give fewer --threads, another --device, or a cluster in RAY_ADDRESS",
                code="ray-failed",
            )
        task = self._ray.remote(**wanted, max_retries=MAX_TASK_RETRIES)(_ready)
        try:
            return _unwrapped(self._ray.get(task.remote(order)))
        except self._ray.exceptions.RayError as error:
            raise BackendError(
                f"no worker can start on the cluster: {error}",
                hint="every machine needs nodule-diag, with the same version of Ray and Python",
                code="worker-cannot-start",
            ) from error

    def answers(self, cts: Sequence[ListedCT], order: Order) -> Generator[tuple[ListedCT, dict[str, Any]], None, None]:
        """Diagnose CTs; answers come as they are ready. Closing the generator ends the actors.

        Args:
            cts: At least one CT.
            order: The workers' order.

        Raises:
            NoduleDiagError: When a worker cannot be started any more.
        """
        ray = self._ray
        kind = ray.remote(**_resources(order), max_restarts=MAX_RESTARTS, max_task_retries=MAX_TASK_RETRIES)(_Actor)
        fitting = _fitting(ray.cluster_resources(), _resources(order))
        self.workers = min(self._wanted or max(1, fitting), len(cts))
        left = iter(cts)
        at_work: dict[Any, tuple[Any, ListedCT]] = {}

        def give(actor: Any) -> None:  # noqa: ANN401 - a handle of Ray's
            for ct in left:
                at_work[actor.judge.remote(ct)] = actor, ct
                return

        for _ in range(self.workers):
            give(kind.remote(order))
        try:
            while at_work:
                (ready, *_), _ = ray.wait(list(at_work))
                actor, ct = at_work.pop(ready)
                try:
                    told = _unwrapped(ray.get(ready))
                except ray.exceptions.RayTaskError:  # a bug, or an actor that cannot be made
                    raise
                except ray.exceptions.RayError as error:
                    told = _lost(ct, type(error).__name__)
                    actor = kind.remote(order)
                give(actor)
                yield ct, told
        finally:
            for actor, _ in at_work.values():
                ray.kill(actor)


def _resources(order: Order) -> dict[str, float]:
    """The resources that Ray must reserve for a worker."""
    return {"num_cpus": order.options.threads, "num_gpus": float(order.options.device.startswith("cuda"))}


def _fitting(there: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How many workers a cluster has room for."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return int(min(there.get(names[name], 1) // count for name, count in wanted.items() if count))


def _unwrapped(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise raised(answer["error"])
    return answer


def _lost(ct: ListedCT, why: str) -> dict[str, Any]:
    lost = {
        "ids": list(ct.ids),
        "code": "worker-lost",
        "message": f"it was given up after {1 + MAX_TASK_RETRIES} tries: Ray lost the actor ({why})",
        "hint": "look at the cluster's machines and their memory; --retry-failed tries it again",
    }
    return {"ct": None, "nodules": [], "failed": [lost]}


def _ready(order: Order) -> dict[str, Any]:
    """Bundle, case base and runtime of a worker on the cluster, or its error."""
    try:
        with Worker(order) as worker:
            return worker.ready()
    except NoduleDiagError as error:
        return {"error": fault(error)}


class _Actor:
    """Holds a worker on a machine of the cluster.

    Args:
        order: The worker's order.
    """

    def __init__(self, order: Order) -> None:
        self._worker = Worker(order)

    def judge(self, ct: ListedCT) -> dict[str, Any]:
        """The answer for a CT, or the error if no worker can start."""
        try:
            return self._worker.judge(ct)
        except NoduleDiagError as error:
            return {"error": fault(error)}
