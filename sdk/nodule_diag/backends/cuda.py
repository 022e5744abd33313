"""The part of CUDA that the TensorRT backends need: pycuda, and CUDA graphs with the driver's own functions.

Everything runs in the device's *primary* context, which is retained, not created. The CUDA runtime inside TensorRT uses
the same context, and so do torch and cupy in the same process.

pycuda has no CUDA graphs, so the six driver functions for them are called through ctypes.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.imports import import_installed
from nodule_diag.errors import BackendError

DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_KERNEL_MODULE_VERSION = Path("/proc/driver/nvidia/version")
_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: CUDA calls of other threads do not break the capture."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What an engine depends on: the GPU's number, its name, a capability such as ``8.9`` and the driver's version."""

    index: int
    name: str
    compute_capability: str
    driver: str


def load_driver() -> ctypes.CDLL:
    """The NVIDIA driver's library.

    Raises:
        BackendError: ``cuda-no-driver``.
    """
    try:
        return ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise BackendError(
            f"there is no NVIDIA driver: {DRIVER_LIBRARY} cannot be loaded",
            hint="install the NVIDIA driver, or use --backend onnxruntime",
            code="cuda-no-driver",
        ) from error


def import_pycuda(extra: str) -> ModuleType:
    """Import and initialise ``pycuda.driver``, which ``extra`` installs.

    Raises:
        BackendError: ``cuda-no-driver`` without a driver, ``cuda-broken`` when pycuda or the driver does not start.
        MissingExtraError: When pycuda is not installed.
    """
    load_driver()
    driver = import_installed(
        "pycuda.driver",
        package="pycuda",
        extra=extra,
        code="cuda-broken",
        reinstall="--no-cache-dir pycuda, with the CUDA toolkit of the driver",
    )
    try:
        driver.init()
    except driver.Error as error:
        raise BackendError(f"CUDA cannot be started: {error}", hint="run nvidia-smi", code="cuda-broken") from error
    return driver


def list_gpus(driver: ModuleType) -> tuple[Gpu, ...]:
    """The GPUs that this process may use."""
    version = _driver_version(driver)
    return tuple(
        Gpu(
            index=index,
            name=device.name(),
            compute_capability="{}.{}".format(*device.compute_capability()),
            driver=version,
        )
        for index, device in enumerate(map(driver.Device, range(driver.Device.count())))
    )


def _driver_version(driver: ModuleType) -> str:
    """The driver's CUDA version and, where Linux shows it, the kernel module's version: JIT results depend on it."""
    cuda = f"cuda-{driver.get_driver_version()}"
    try:
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", _KERNEL_MODULE_VERSION.read_text())
    except OSError:
        return cuda
    return f"{cuda}, {found[0]}" if found else cuda


class CudaDevice:
    """One GPU: its primary context, and one stream for all work of one backend.

    Raises:
        BackendError: ``device-unavailable`` when there is no such device, ``cuda-failed`` when it cannot be used.
    """

    def __init__(self, driver: ModuleType, *, index: int) -> None:
        self._driver = driver
        gpus = list_gpus(driver)
        if index >= len(gpus):
            raise BackendError(
                f"device cuda:{index} cannot be used: CUDA shows {len(gpus)} GPU(s)",
                hint="check CUDA_VISIBLE_DEVICES, or use --device cuda:0",
                code="device-unavailable",
            )
        self.gpu = gpus[index]
        with self._typed_errors():
            self._context = driver.Device(index).retain_primary_context()
        with self.current():
            self.stream = driver.Stream()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; CUDA's own errors become typed errors.

        Raises:
            BackendError: ``cuda-failed``.
        """
        with self._typed_errors():
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(
                f"CUDA failed on {self.gpu.name}: {error}",
                hint="free GPU memory, or use a smaller batch; nvidia-smi shows who uses it",
                code="cuda-failed",
            ) from error

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Page-locked host memory, which the GPU copies from and to without the CPU; the context is current."""
        array: NDArray[np.float32] = self._driver.pagelocked_empty(shape, np.float32)
        return array

    def allocate(self, nbytes: int) -> Any:  # noqa: ANN401 - pycuda's DeviceAllocation
        """Device memory, freed with the object; ``int()`` of it is the address."""
        return self._driver.mem_alloc(nbytes)

    def upload(self, target: Any, source: NDArray[np.float32]) -> None:  # noqa: ANN401
        """Copy pinned memory to the device, on the stream."""
        self._driver.memcpy_htod_async(target, source, self.stream)

    def download(self, target: NDArray[np.float32], source: Any) -> None:  # noqa: ANN401
        """Copy the device's memory to pinned memory, on the stream."""
        self._driver.memcpy_dtoh_async(target, source, self.stream)

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """Record the work that ``work`` puts on the stream as a graph, without running it; the context is current.

        Raises:
            BackendError: ``cuda-failed``.
        """
        return CudaGraph(load_driver(), stream=self.stream.handle, work=work)


class CudaGraph:
    """The work that ``work`` puts on a stream (its handle), recorded and launched with one call to the driver.

    Raises:
        BackendError: ``cuda-failed``, here and in every method.
    """

    def __init__(self, library: ctypes.CDLL, *, stream: int, work: Callable[[], None]) -> None:
        self._library = library
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            work()
        finally:
            # Ends the capture even when the work failed: the stream would be unusable otherwise.
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Put the recorded work on its stream; the context is current."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free the graph; the context is current."""
        if self._executable.value is not None:
            self._call("cuGraphExecDestroy", self._executable)
            self._executable = ctypes.c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - ctypes values
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise BackendError(f"{name} failed with CUDA error {code}", hint="run nvidia-smi", code="cuda-failed")
