"""The step that builds pycuda on a machine without a wheel of it, and uses it as the TensorRT backends do."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import benchmarks.gpu_check.findings as said
from benchmarks.gpu_check.install import install, installed
from benchmarks.gpu_check.machine import DRIVER
from benchmarks.gpu_check.plan import Settings

PYCUDA = "pycuda"
LOADED = "/libcuda.so"
"""Part of the path of the driver's library, in the list of a process's loaded files."""
CUDA_FOLDERS = ("/usr/local/cuda", "/opt/cuda", "/usr")
HEADERS = ("cuda.h", "cudaProfiler.h")
CONFIGURATION = """\
CUDA_ROOT = {root!r}
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{library!r}]
CUDA_ENABLE_CURAND = False
try:
    __import__("pybind11.setup_helpers", fromlist=["x"]).ParallelCompile().install()
except ImportError:
    pass
"""
"""pycuda's ``siteconf.py``, which its ``setup.py`` runs.

By itself, ``setup.py`` reads no environment variable for CUDA's folder. It only searches the ``PATH`` for ``nvcc``,
which may be a script elsewhere or missing. Random numbers would need cuRAND's headers, and are not used. The 60 files
take a core two minutes one after the other: pybind11, where it is installed, compiles them in parallel. The file may
define no other names.
"""


def pycuda(settings: Settings, findings: said.Findings) -> None:
    """Build pycuda where it is not installed, then copy there and back with it, in a CUDA graph."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise said.UnavailableError(f"there is no NVIDIA driver to use or build pycuda with: {error}") from error
    if not installed(PYCUDA):
        findings.doing("building pycuda")
        _build(settings, findings)
    findings.doing("copying with pycuda")
    _use(findings)


def _use(findings: said.Findings) -> None:
    import numpy as np

    from nodule_diag.backends import CudaDevice, import_pycuda

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


def _build(settings: Settings, findings: said.Findings) -> None:
    sources = sorted(settings.wheels.glob("pycuda-*.tar.gz")) if settings.wheels else []
    if not sources:
        raise said.UnavailableError("pycuda is not installed, and --wheels brings no source of it")
    root = next((root for root in cuda_roots() if all((root / "include" / name).is_file() for name in HEADERS)), None)
    if root is None:
        raise said.UnavailableError(f"pycuda cannot be built here: no folder has CUDA's headers {', '.join(HEADERS)}")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        raise said.UnavailableError("pycuda cannot be built here: there is no C++ compiler")
    findings.add(built_from=sources[-1].name, built_with=str(root))
    source = configured(sources[-1], root=root, library=driver_file(), work=settings.work / "pycuda")
    why = install("--no-deps", "--no-build-isolation", str(source), site=settings.site)
    if why or not installed(PYCUDA):
        raise RuntimeError(f"pycuda was not built: {why}")


def configured(archive: Path, *, root: Path, library: Path, work: Path) -> Path:
    """Unpack pycuda's source and set CUDA's folder.

    Args:
        archive: The ``.tar.gz``.
        root: The folder whose ``include`` has CUDA's headers.
        library: The driver's library, which is linked under the name that a linker looks for.
        work: Folder for all of it.

    Returns:
        The unpacked folder.
    """
    shutil.rmtree(work, ignore_errors=True)
    links = work / "driver"
    links.mkdir(parents=True)
    (links / "libcuda.so").symlink_to(library)
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    source = next(folder for folder in work.iterdir() if (folder / "setup.py").is_file())
    text = CONFIGURATION.format(root=str(root), include=str(root / "include"), library=str(links))
    (source / "siteconf.py").write_text(text, encoding="utf-8")
    return source


def driver_file() -> Path:
    """The path of the loaded driver's library: machines have it in folders that no linker searches."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        return next(Path(line.split(maxsplit=5)[5].strip()) for line in maps if LOADED in line)


def cuda_roots() -> list[Path]:
    """Folders that may hold CUDA: named ones, that of ``nvcc``, those of NVIDIA's Python packages, and usual places."""
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_ROOT", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc:
        roots.append(Path(nvcc).resolve().parents[1])
    for folder in filter(None, sys.path):
        roots += sorted(Path(folder, "nvidia").glob("*"))
    return [*roots, *map(Path, CUDA_FOLDERS), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
