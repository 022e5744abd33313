"""The fp32 network with fewer products, in ONNX Runtime on the CPU.

`nodule-diag export winograd` rewrites a network's convolutions by Winograd's minimal filtering: an eighth of the
products, and answers that differ by rounding. It adds two graphs without weights to the bundle. The first graph makes
the transformed kernels, once, from the checked bytes of the fp32 file. The second graph is the network that takes
these kernels. The kernels are eight times the size of the weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from nodule_diag.backends import onnxruntime as shared
from nodule_diag.backends.backend import Backend, BackendStatus, Device
from nodule_diag.backends.onnx_file import read_network
from nodule_diag.backends.tensors import no_precision, require_cpu, unreadable
from nodule_diag.backends.time_limit import time_limit
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BackendError, BundleError

WEIGHTS_KEY = "weights_sha256"
"""Key in the metadata of the graph's file: the sha256 of the fp32 file that holds its weights."""


def status() -> BackendStatus:
    """Whether ONNX Runtime can run here."""
    found = replace(shared.status(), name=WinogradBackend.name)
    return replace(found, devices=("cpu",)) if found.usable else found


def load(bundle: Bundle, *, device: Device, precision: str, threads: int) -> Backend:
    """A :class:`WinogradBackend`; see there.

    Raises:
        BackendError: ``precision-unavailable`` for any precision but fp32, ``device-unavailable`` for CUDA.
    """
    if precision != WinogradBackend.precision:
        raise no_precision(precision, "the winograd backend runs in fp32")
    require_cpu(WinogradBackend.name, device)
    return WinogradBackend(bundle, threads=threads)


class WinogradBackend(shared.OnnxRuntimeBackend):
    """A session of ONNX Runtime over the rewritten graph; :meth:`infer` may be called from several threads.

    Args:
        bundle: A checked bundle.
        threads: CPU threads of one call.

    Raises:
        BackendError: ``winograd-missing`` when the bundle holds no such graph; see
            :func:`nodule_diag.backends.onnxruntime.import_runtime`.
        BundleError: ``bundle-model-unreadable``, ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """

    name = "winograd"

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        spec = bundle.manifest.model
        if spec.winograd is None:
            raise BackendError(
                f"{bundle.manifest.name} {bundle.manifest.version} holds no graph for the winograd backend",
                hint="use --backend onnxruntime, or add it: nodule-diag export winograd BUNDLE --out NEW",
                code="winograd-missing",
            )
        self._files = spec.winograd
        self._weights = read_network(bundle, spec.file)
        self._kernels: dict[str, Any] = {}
        super().__init__(bundle, device=Device("cpu"), threads=threads)
        self._require_own_weights(bundle)
        del self._weights, self._kernels  # the session holds copies

    def _network(self, bundle: Bundle) -> bytes:
        """The rewritten graph, after its kernels are made: a runtime that folded them would hold three copies."""
        network = [self._spec.file]
        session = self._session_on(read_network(bundle, self._files.kernels, beside=network), [shared.CPU_PROVIDER])
        names = [output.name for output in session.get_outputs()]
        to_value = self._runtime.OrtValue.ortvalue_from_numpy
        options = self._runtime.RunOptions()
        with time_limit(1, partial(setattr, options, "terminate", True), name=self.name):
            try:
                kernels = session.run(names, {}, options)
                self._kernels = {name: to_value(kernel) for name, kernel in zip(names, kernels, strict=True)}
            except shared.faults(self._runtime) as error:
                raise unreadable(self._files.kernels, runtime="onnxruntime", reason=shared.first_line(error)) from error
        return read_network(bundle, self._files.file, beside=network, given=names)

    def _options(self) -> Any:  # noqa: ANN401 - onnxruntime has no types
        options = super()._options()
        options.enable_mem_pattern = False  # memory patterns need a second arena of 80 MB and make no call faster
        options.add_external_initializers_from_files_in_memory([self._spec.file], [self._weights], [len(self._weights)])
        if self._kernels:
            options.add_external_initializers(list(self._kernels), list(self._kernels.values()))
        else:
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _require_own_weights(self, bundle: Bundle) -> None:
        """Check the fp32 file: with another file, the graph would take arbitrary numbers as weights."""
        said = self._session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY)
        if said != bundle.manifest.files[self._spec.file]:
            raise BundleError(
                f"{self._files.file} in the bundle was made for another network than {self._spec.file}",
                hint="make it again: nodule-diag export winograd BUNDLE --out NEW",
                code="bundle-model-unreadable",
            )
