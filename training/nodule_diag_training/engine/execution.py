"""Where and how a run is computed: nothing here changes what is learned, so none of it is part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nodule_diag.errors import BackendError, UsageError


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How to compute a run.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        compile: Whether the model goes through ``torch.compile``.
        workers: Threads that draw and augment the next steps' patches; 0 leaves that to the training thread.
    """

    device: str = "cpu"
    compile: bool = False
    workers: int = 1

    def torch_device(self) -> torch.device:
        """The device.

        Raises:
            UsageError: If the name is none of a device.
            BackendError: If there is no such device here.
        """
        hint = "give cpu, cuda or cuda:N"
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"{self.device!r} is no device", hint=hint) from error
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
