"""Data parallel training by torch's own DistributedDataParallel under torchrun: any number of nodes, no dependency.

Each process takes its share of a step's nodules, weighted so that the gradients sum to the whole batch's
(``shares.py``). The first process writes the files. Each process draws the whole batch, so the batch is the same for
any number of processes; drawing runs ahead of the steps (``nodule_diag.process.side_by_side``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nodule_diag.errors import UsageError
from nodule_diag_training.model import SynergicOutput

from .execution import Execution
from .jobs import JobsFailedError

Item = TypeVar("Item")
COMMAND_MODULE = "nodule_diag_cli"
"""The module that ``python -m`` runs as ``nodule-diag``; by name, since training does not import the command line."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together; without arguments, the only one."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's items of a batch."""
        return list(items[self.rank :: self.size])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in each of them; the tensor itself where there is one process."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over all processes' rows, [1, N]; the rows themselves, [B, N], where there is one process."""
        if self.size == 1:
            return rows
        counted = torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])])
        total = self.sum(counted)
        return (total[:-1] / total[-1])[None]

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes; the model itself where there is one process."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def gradients_shared(self, model: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """The context of a ``parallel`` model's forward and backward: gradients are added up at a step's last batch."""
        if not isinstance(model, DistributedDataParallel) or now:
            return nullcontext()
        waiting: AbstractContextManager[None] = model.no_sync()
        return waiting

    def backward(self, loss: Tensor, output: SynergicOutput) -> None:
        """The gradients of the sum of all processes' losses.

        DistributedDataParallel averages, hence the factor. It also waits for the gradient of every parameter, hence the
        zeros: a parameter that this process's nodules teach nothing still takes part in the sum.
        """
        if self.size > 1:
            tensors = [getattr(output, field.name) for field in fields(output)]
            untaught = torch.stack([tensor.sum() for tensor in tensors if tensor is not None]).sum()
            loss = self.size * loss + 0.0 * untaught
        loss.backward()


@contextmanager
def joined(execution: Execution) -> Iterator[tuple[Processes, Execution]]:
    """Join the processes that torchrun started: gloo on CPUs, NCCL on GPUs, each of which serves one process of a node.

    Args:
        execution: As asked for; ``cuda`` means the GPU of this process's number on its node.

    Yields:
        This process and where it computes; a single process where torchrun started none.

    Raises:
        UsageError: If all processes would share one named GPU.
        BackendError: If there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(), execution
        return
    device = execution.torch_device()
    if device.type == "cuda":
        if device.index is not None:
            raise UsageError(f"{size} processes cannot share {execution.device}", hint="give --device cuda")
        execution = Execution(
            device=f"cuda:{os.environ['LOCAL_RANK']}", compile=execution.compile, workers=execution.workers
        )
        torch.cuda.set_device(execution.torch_device())
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with warnings.catch_warnings():
            # For 1x1x1 kernels, whose layout has two equal names; DistributedDataParallel copies them either way.
            warnings.filterwarnings("ignore", message="Grad strides do not match", category=UserWarning)
            yield Processes(rank=distributed.get_rank(), size=distributed.get_world_size()), execution
    finally:
        distributed.destroy_process_group()


def start_processes(count: int, arguments: Sequence[str]) -> None:
    """Run ``nodule-diag`` with these arguments in several processes of this machine that train together.

    Args:
        count: How many.
        arguments: The command's arguments; ``--processes`` among them is set to 1.

    Raises:
        JobsFailedError: If one failed; torchrun ends the others.
    """
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    argv = (sys.executable, *command, "-m", COMMAND_MODULE, *arguments, "--processes", "1")
    code = subprocess.run(argv, check=False).returncode  # noqa: S603
    if code != 0:
        raise JobsFailedError(f"training in {count} processes ended with {code}", hint="the first error above is why")
