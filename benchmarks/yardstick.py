"""The least cost of a diagnosis in a fresh process: its imports, the file's bytes, one inference.

``python -m benchmarks.yardstick CT BUNDLE MODEL BACKEND PRECISION THREADS``, a process of :mod:`benchmarks.part_cold`.
ONNX Runtime and OpenVINO load the model directly, without the SDK's checks; other backends are loaded by the SDK. Only
the network is computed, on an empty patch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The modules that predict imports, with everything that these import.
import nodule_diag.ct.formats.nifti
import nodule_diag.diagnoser  # noqa: F401
import nodule_diag_cli.main  # noqa: F401
from nodule_diag.backends import create_backend
from nodule_diag.bundle import Bundle

Float = NDArray[np.float32]


def infer_onnxruntime(model: Path, patch: Float, *, threads: int) -> None:
    """One run of ONNX Runtime."""
    from nodule_diag.backends import import_runtime

    onnxruntime = import_runtime()  # without its telemetry
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"patch": patch})


def infer_openvino(model: Path, patch: Float, *, precision: str, threads: int) -> None:
    """One run of OpenVINO."""
    from nodule_diag.backends.openvino import PRECISIONS, import_runtime

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    import_runtime().Core().compile_model(model, "CPU", settings)({"patch": patch})


def main() -> None:
    """Run the yardstick."""
    ct, bundle, model, backend, precision, threads = sys.argv[1:]
    Path(ct).read_bytes()
    patch = np.zeros((1, 2, 64, 64, 64), dtype=np.float32)
    if backend == "onnxruntime":
        infer_onnxruntime(Path(model), patch, threads=int(threads))
    elif backend == "openvino":
        infer_openvino(Path(model), patch, precision=precision, threads=int(threads))
    else:
        opened = Bundle.open(bundle)
        create_backend(opened, name=backend, precision=precision, threads=int(threads)).infer(patch)


if __name__ == "__main__":
    main()
