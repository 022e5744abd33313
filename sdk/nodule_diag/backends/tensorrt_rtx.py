"""TensorRT for RTX: the code of :mod:`nodule_diag.backends.tensorrt` with another module.

Its engines are compiled for a named compute capability, without a GPU. Kernels are finished on the user's GPU when the
backend is loaded, and kept in the cache.
"""

from __future__ import annotations

from functools import partial

from nodule_diag.backends import tensorrt as shared
from nodule_diag.backends.engines.build import TENSORRT_RTX

status = partial(shared.status, TENSORRT_RTX)
"""Whether TensorRT for RTX can run here, or why not."""
load = partial(shared.TensorRTBackend, flavour=TENSORRT_RTX)
"""A backend; see :class:`nodule_diag.backends.tensorrt.TensorRTBackend`."""
