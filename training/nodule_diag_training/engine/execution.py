"""Where and how a run is computed: it changes nothing in what is learned, so it is no part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nodule_diag.errors import BackendError, UsageError


def slow_in_bf16(device: str) -> bool:
    """Whether bf16 is many times as slow as fp32 on a device: on a CPU without AVX-512."""
    return device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How to compute a run.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        compile: Whether the model is compiled by ``torch.compile``.
        workers: Threads that draw and augment the next steps' patches; at 0 the training thread does this.
    """

    device: str = "cpu"
    compile: bool = False
    workers: int = 1

    def torch_device(self) -> torch.device:
        """The device.

        Raises:
            UsageError: If this is not the name of a device.
            BackendError: If this machine has no such device.
        """
        hint = "give cpu, cuda or cuda:N"
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"{self.device!r} is not a device", hint=hint) from error
        if device.type not in ("cpu", "cuda"):
            raise UsageError(f"cannot train on {self.device!r}", hint=hint)
        if device.type == "cuda":
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if (device.index or 0) >= count:
                raise BackendError(
                    f"{self.device!r} was asked for, and torch {torch.__version__} sees {count} CUDA devices",
                    hint="--device cpu, or install a torch built for CUDA and its driver",
                )
        return device
