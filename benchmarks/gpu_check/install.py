"""The steps that install what was carried along, without a network."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import benchmarks.gpu_check.findings as said
from benchmarks.gpu_check.plan import Settings

CUDA_FOLDERS = ("/usr/local/cuda", "/opt/cuda")
PYCUDA = "pycuda"


def wheels(settings: Settings, findings: said.Findings) -> None:
    """Install every wheel of the folder that this Python takes, one by one: one that fails must not stop the others."""
    if settings.wheels is None:
        raise said.UnavailableError("no --wheels folder: what is installed here is used")
    found = sorted(settings.wheels.glob("*.whl"))
    if not found:
        raise said.UnavailableError(f"{settings.wheels.name} holds no wheels")
    failed = []
    for wheel in found:
        # A package that is there already stays: two copies of torch or CUDA in one process do not go together.
        name = wheel.name.partition("-")[0]
        if _installed(name):
            findings.append("wheels", {"wheel": wheel.name, "state": "already installed"})
            continue
        why = _pip("--no-index", "--no-deps", str(wheel), site=settings.site)
        findings.append("wheels", {"wheel": wheel.name, "state": why or "installed"})
        failed += [wheel.name] if why else []
    if failed:
        raise RuntimeError(f"not installed: {', '.join(failed)}")


def pycuda(settings: Settings, findings: said.Findings) -> None:
    """Build pycuda where it is not installed, then use it as the TensorRT backends do."""
    if not _installed(PYCUDA):
        _build_pycuda(settings, findings)
    import numpy as np

    from nodule_diag.backends.cuda import CudaDevice, import_pycuda

    driver = import_pycuda("tensorrt")
    findings.add(version=metadata.version(PYCUDA), gpus=driver.Device.count())
    device = CudaDevice(driver, index=0)
    with device.current():
        host, back = device.pinned((1 << 20,)), device.pinned((1 << 20,))
        host[:], back[:] = np.arange(len(host)), 0
        memory = device.allocate(host.nbytes)

        def there_and_back() -> None:
            device.upload(memory, host)
            device.download(back, memory)

        graph = device.capture(there_and_back)
        device.stream.synchronize()
        recorded_only = not back.any()
        graph.launch()
        device.stream.synchronize()
        copied = bool((host == back).all())
        graph.close()
    findings.add(gpu=vars(device.gpu), graph_runs_only_when_launched=recorded_only, graph_copies=copied)
    if not (recorded_only and copied):
        raise said.WrongAnswerError("a CUDA graph of two copies did not do what was recorded")


def _build_pycuda(settings: Settings, findings: said.Findings) -> None:
    sources = sorted(settings.wheels.glob("pycuda-*.tar.gz")) if settings.wheels else []
    if not sources:
        raise said.UnavailableError("pycuda is not installed, and --wheels brings no source of it")
    root = next((folder for folder in _cuda_roots() if Path(folder, "include", "cuda.h").is_file()), None)
    if root is None:
        raise said.UnavailableError("pycuda cannot be built here: there are no CUDA headers (cuda.h)")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        raise said.UnavailableError("pycuda cannot be built here: there is no C++ compiler")
    environment = {"CUDA_ROOT": root, "PATH": os.pathsep.join([f"{root}/bin", os.environ.get("PATH", "")])}
    why = _pip(
        "--no-index", "--no-deps", "--no-build-isolation", str(sources[-1]), site=settings.site, environment=environment
    )
    findings.add(built_with=root)
    if why:
        raise RuntimeError(f"pycuda was not built: {why}")
    importlib.invalidate_caches()


def _cuda_roots() -> list[str]:
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_ROOT", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    return [*named, *([str(Path(nvcc).resolve().parents[1])] if nvcc else []), *CUDA_FOLDERS]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _pip(*arguments: str, site: Path, environment: dict[str, str] | None = None) -> str:
    """Install into ``site``; an empty string, or the last line of what pip said."""
    site.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode == 0:
        return ""
    print(done.stderr)
    return next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
