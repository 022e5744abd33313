"""Installing what was carried to a bare machine: wheels that fit, wheels that do not, and where pycuda finds CUDA."""

from __future__ import annotations

import ctypes
import io
import runpy
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu_check import install, pycuda_build
from benchmarks.gpu_check.findings import Findings, IncompleteError, UnavailableError
from benchmarks.gpu_check.plan import Settings

GOOD, FOREIGN, BROKEN = (
    "nd_good-1.0-py3-none-any.whl",
    "nd_foreign-1.0-cp27-cp27m-win32.whl",
    "nd_bad-1.0-py3-none-any.whl",
)


def write_wheel(path: Path, package: str, *, shared: str = "", version: str = "1.0") -> None:
    """The least that pip takes; ``shared`` is a folder of several packages, as ``nvidia`` is."""
    info = f"{package}-{version}.dist-info"
    module = f"{shared}/{package}/__init__.py" if shared else f"{package}.py"
    files = {
        module: "here = True\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "wheels").mkdir()
    made = Settings(work=tmp_path / "work", wheels=tmp_path / "wheels")
    made.work.mkdir()
    monkeypatch.syspath_prepend(str(made.site))
    return made


def test_wheels_that_do_not_fit_stop_no_other(settings: Settings, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels" / GOOD, "nd_good")
    write_wheel(tmp_path / "wheels" / FOREIGN, "nd_foreign")
    (tmp_path / "wheels" / BROKEN).write_bytes(b"cut off on the way")
    found = Findings(settings, "wheels")
    with pytest.raises(IncompleteError, match=r"nd_bad-1.0.*; nd_foreign-1.0.*: not for this Python or platform"):
        install.wheels(settings, found)
    states = found.result["wheels"]
    assert states[GOOD] == "installed"
    assert states[FOREIGN] == install.NOT_FOR_THIS_PYTHON
    assert "nd_bad" in states[BROKEN]
    assert (settings.site / "nd_good.py").is_file()
    assert install.installed("nd-good")


def test_packages_that_share_a_folder(settings: Settings, tmp_path: Path) -> None:
    """Beside a wheel of another Python, whose own wheel is there too."""
    for name in ("one", "two"):
        write_wheel(tmp_path / "wheels" / f"nd_{name}-1.0-py3-none-any.whl", f"nd_{name}", shared="nd_shared")
    write_wheel(tmp_path / "wheels" / "nd_one-1.0-cp27-cp27m-win32.whl", "nd_one")
    found = Findings(settings, "wheels")
    install.wheels(settings, found)
    assert sorted(path.name for path in (settings.site / "nd_shared").iterdir()) == ["nd_one", "nd_two"]
    assert found.result["wheels"]["nd_one-1.0-cp27-cp27m-win32.whl"] == install.NOT_FOR_THIS_PYTHON
    again = Findings(settings, "wheels")
    install.wheels(settings, again)
    assert set(again.result["wheels"].values()) == {"already installed"}


def test_of_two_versions_one_is_installed(settings: Settings, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path / "wheels" / f"nd_twice-{version}-py3-none-any.whl", "nd_twice", version=version)
    found = Findings(settings, "wheels")
    install.wheels(settings, found)
    assert found.result["wheels"] == {
        "nd_twice-1.0-py3-none-any.whl": "left out for nd_twice-2.0-py3-none-any.whl",
        "nd_twice-2.0-py3-none-any.whl": "installed",
    }


def test_no_wheels(settings: Settings) -> None:
    with pytest.raises(UnavailableError, match="wheels holds no wheels"):
        install.wheels(settings, Findings(settings, "wheels"))


def write_source(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        text = b"raise SystemExit(1)\n"
        entry = tarfile.TarInfo("pycuda-2026.1/setup.py")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))


def test_pycuda_is_told_where_cuda_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "pycuda-2026.1.tar.gz")
    driver = tmp_path / "odd place" / "libcuda.so.1"
    driver.parent.mkdir()
    driver.write_bytes(b"")
    for _ in range(2):  # a second try finds the leavings of the first
        source = pycuda_build.configured(
            tmp_path / "pycuda-2026.1.tar.gz", root=Path("/some/cuda"), library=driver, work=tmp_path / "work"
        )
    monkeypatch.setitem(sys.modules, "pybind11", None)
    said = runpy.run_path(str(source / "siteconf.py"))
    assert (said["CUDA_ROOT"], said["CUDA_INC_DIR"]) == ("/some/cuda", ["/some/cuda/include"])
    assert said["CUDA_ENABLE_CURAND"] is False
    known = {"CUDA_ROOT", "CUDA_INC_DIR", "CUDADRV_LIB_DIR", "CUDA_ENABLE_CURAND"}
    assert {name for name in said if not name.startswith("__")} == known  # pycuda refuses any other name
    (links,) = said["CUDADRV_LIB_DIR"]
    assert Path(links, "libcuda.so").resolve() == driver


def test_cuda_is_looked_for_beyond_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvcc may be a script elsewhere, and a machine may have CUDA from Python's packages alone."""
    monkeypatch.setattr(pycuda_build.shutil, "which", lambda _: str(tmp_path / "bin" / "nvcc"))
    for name in ("CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    packaged = tmp_path / "site" / "nvidia" / "cu13"
    packaged.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    roots = pycuda_build.cuda_roots()
    assert roots.index(tmp_path) < roots.index(packaged) < roots.index(Path("/usr/local/cuda"))
    monkeypatch.setenv("CUDA_HOME", "/named")
    assert pycuda_build.cuda_roots()[0] == Path("/named")


def test_the_drivers_file_is_the_one_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pycuda_build, "LOADED", "/libc.so")
    ctypes.CDLL("libc.so.6")
    found = pycuda_build.driver_file()
    assert found.is_absolute()
    assert found.name.startswith("libc.so")


def test_a_build_that_fails_says_what_the_compiler_said(settings: Settings, tmp_path: Path) -> None:
    source = tmp_path / "package"
    source.mkdir()
    script = "import sys\nsys.stderr.write('x.cpp:1:10: fatal error: cuda.h: No such file\\nmore\\n')\nsys.exit(1)\n"
    (source / "setup.py").write_text(script)
    why = install.install("--no-deps", "--no-build-isolation", str(source), site=settings.site)
    assert "fatal error: cuda.h: No such file" in why
