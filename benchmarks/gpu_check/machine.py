"""The step that describes the machine. It imports only Python's own modules and asks the driver directly."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

from benchmarks.gpu_check.findings import Findings
from benchmarks.gpu_check.plan import Settings

DRIVER = "libcuda.so.1"
PACKAGES = (
    *("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pycuda", "tensorrt", "tensorrt-rtx"),
    *("torch", "triton", "hnswlib", "SimpleITK", "pydantic"),
)
QUERY = "name,compute_cap,driver_version,memory.total,clocks.max.sm,power.limit"


def machine(settings: Settings, findings: Findings) -> None:  # noqa: ARG001 - a step's signature
    """Python, packages, driver and GPU."""
    findings.add(python=sys.version.split()[0], platform=platform.platform(), cores=os.cpu_count())
    findings.add(packages={name: version for name in PACKAGES if (version := _version(name))})
    findings.doing("asking the driver")
    findings.add(driver=driver_says())
    findings.doing("running nvidia-smi")
    findings.add(nvidia_smi=_nvidia_smi())


def driver_says() -> str:
    """``N GPUs, CUDA X.Y``, or the driver's own message why there is none."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError as error:
        return str(error)
    code = library.cuInit(0)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        return f"cuInit: {(text.value or b'unknown').decode()} ({code})"
    count, version = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    library.cuDriverGetVersion(ctypes.byref(version))
    return f"{count.value} GPUs, CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _nvidia_smi() -> Any:  # noqa: ANN401 - rows, or a sentence
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not installed"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return (done.stdout + done.stderr).strip()
    return [dict(zip(QUERY.split(","), line.split(", "), strict=False)) for line in done.stdout.splitlines()]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
