"""TensorRT for RTX: the same code as :mod:`nodule_diag.backends.tensorrt` over another module.

Its engines are compiled for a compute capability by name, without a GPU; kernels are finished on the user's GPU when
the backend is loaded, and kept in the cache.
"""

from __future__ import annotations

from nodule_diag.backends import tensorrt as shared
from nodule_diag.backends.backend import Backend, BackendStatus, Device
from nodule_diag.backends.engines.build import TENSORRT_RTX
from nodule_diag.backends.engines.cache import EngineCache
from nodule_diag.bundle import Bundle


def status() -> BackendStatus:
    """Whether TensorRT for RTX can serve here, or exactly why not."""
    return shared.status(TENSORRT_RTX)


def load(bundle: Bundle, *, device: Device, precision: str, threads: int) -> Backend:
    """A :class:`TensorRTRTXBackend`; see there."""
    return TensorRTRTXBackend(bundle, device=device, precision=precision, threads=threads)


class TensorRTRTXBackend(shared.TensorRTBackend):
    """An engine of TensorRT for RTX; see :class:`nodule_diag.backends.tensorrt.TensorRTBackend`."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device,
        precision: str,
        threads: int,
        cache: EngineCache | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        super().__init__(
            bundle,
            device=device,
            precision=precision,
            threads=threads,
            flavour=TENSORRT_RTX,
            cache=cache,
            cuda_graphs=cuda_graphs,
        )
