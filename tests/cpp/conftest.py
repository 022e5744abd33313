"""examples/cpp, built with this machine's compiler against the ONNX Runtime of this environment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the fused graph needs the export extra")
pytest.importorskip("onnxruntime", reason="needs the cpu extra")

import onnxruntime
from examples.cpp.write_mhd import write_mhd as write_mhd_to

from needed_tools import lacks, require
from nodule_diag.ct import CTVolume
from nodule_diag_export.fused import export_fused, open_source

# ONNX Runtime's wheel holds no headers. This package of npm has the official ones of ONNX Runtime 1.29, in 150 MB.
HEADERS_PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
HEADERS_SHA512 = (
    "064cf176e499f4891e0cfe90f25cf64c553689eee1492bd2ed921fccca28131a"
    "2ad02373267bae19a509ec8b288c182a3b8a2e0f58d76a1f0e63225b08ddbd16"
)
HEADERS_FOLDER = "ios-arm64/onnxruntime.framework/Headers/"
HEADERS_VARIABLE = "NODULE_DIAG_ORT_HEADERS"
"""A folder that has them already."""


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of onnxruntime_cxx_api.h."""
    if given := os.environ.get(HEADERS_VARIABLE):
        return Path(given)
    require("npm")
    folder = tmp_path_factory.mktemp("headers")
    packed = subprocess.run(
        ["npm", "pack", "--silent", HEADERS_PACKAGE], cwd=folder, capture_output=True, text=True, timeout=600
    )
    archives = list(folder.glob("*.tgz"))
    if packed.returncode != 0 or not archives:
        lacks(f"{HEADERS_PACKAGE} from npm: {packed.stderr[-300:]}")
    assert hashlib.sha512(archives[0].read_bytes()).hexdigest() == HEADERS_SHA512
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            if HEADERS_FOLDER in member.name and member.name.endswith(".h"):
                content = archive.extractfile(member)
                assert content is not None
                (folder / Path(member.name).name).write_bytes(content.read())
    archives[0].unlink()
    return folder


@dataclass(frozen=True)
class Built:
    """What CMake made."""

    folder: Path

    def run(self, program: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / program), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)

    def diagnose(self, *words: object) -> dict[str, Any]:
        """The document of nodule-diag-cpp."""
        ended = self.run("nodule-diag-cpp", *words, "--threads", 1)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document


def build(repo_root: Path, headers: Path, folder: Path, *options: str) -> Built:
    require("cmake", "c++", "make")
    source = repo_root / "examples" / "cpp"
    root = Path(onnxruntime.__file__).parent
    given = [f"-DONNXRUNTIME_ROOT={root}", f"-DONNXRUNTIME_INCLUDE_DIR={headers}", "-DNODULE_DIAG_STRICT=ON"]
    for command in (
        ["cmake", "-G", "Unix Makefiles", "-S", str(source), "-B", str(folder), *given, *options],
        ["cmake", "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return Built(folder)


@pytest.fixture(scope="session")
def built(repo_root: Path, headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(repo_root, headers, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def sanitized(repo_root: Path, headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """With every access and every operation without a meaning watched; the boundary's tests are built with it."""
    folder = tmp_path_factory.mktemp("sanitized")
    made = build(repo_root, headers, folder, "-DNODULE_DIAG_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug")
    flags = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-pthread"]
    source = Path(__file__).with_name("boundary.cpp")
    command = ["c++", *flags, f"-I{repo_root / 'examples' / 'cpp'}", str(source), "-o", str(folder / "boundary")]
    libraries = [f"-L{folder}", "-lnodule_diag", f"-Wl,-rpath,{folder}"]
    done = subprocess.run([*command, *libraries], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="session")
def packaged_fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fused graph of the packaged bundle."""
    path = tmp_path_factory.mktemp("packaged") / "fused.onnx"
    export_fused(open_source(None), path, threads=1)
    return path


@pytest.fixture(scope="session")
def write_mhd():
    """What examples/cpp/write_mhd.py does."""

    def written(ct: CTVolume, path: Path) -> Path:
        write_mhd_to(ct, path)
        return path

    return written
