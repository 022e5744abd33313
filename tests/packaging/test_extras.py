"""Which requirement an extra brings; `onnxruntime` and `onnxruntime-gpu` never come together."""

import ast
import email.parser
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RUNTIME_EXTRAS = {"cpu", "gpu", "openvino", "tensorrt", "tensorrt-rtx", "engines", "dicom", "pacs", "report", "ray"}
EXTRAS = RUNTIME_EXTRAS | {"train", "export", "bench", "dev"}
ONNX_RUNTIMES = {"onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"}
NO_EXTRA = ""
THIS = "nodule-diag"


@pytest.fixture(scope="module")
def wheel_metadata(distributions):
    with zipfile.ZipFile(distributions.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def requirements(wheel_metadata):
    """The requirement names of the base install (key "") and what each extra adds to it."""
    lines = [Requirement(line) for line in wheel_metadata.get_all("Requires-Dist")]
    base = required_names(lines, extra=NO_EXTRA)
    adds = {extra: required_names(lines, extra=extra) - base for extra in EXTRAS}
    for extra, other in (("export", "train"), ("bench", "export"), ("tensorrt-rtx", "engines")):
        if THIS in adds[extra]:  # nodule-diag[train], nodule-diag[export], nodule-diag[engines]
            adds[extra] = adds[extra] - {THIS} | adds[other]
    return {NO_EXTRA: base} | adds


def required_names(lines, *, extra):
    """Canonical names of the requirements that hold on this machine with one extra."""
    holds = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    return {canonicalize_name(line.name) for line in holds}


def everything_below(names):
    """Everything that the named distributions require, directly or not, as far as it is installed here."""
    seen = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        waiting.extend(required_names(lines, extra=NO_EXTRA))
    return seen


def test_extras_are_the_pinned_ones(wheel_metadata):
    assert set(wheel_metadata.get_all("Provides-Extra")) == EXTRAS


def test_base_install_is_lean(requirements):
    lean = {"numpy", "simpleitk", "hnswlib", "typer", "rich", "pydantic", "isal", "lazy-loader", "pydicom"}
    assert requirements[NO_EXTRA] == lean


def test_only_cpu_and_gpu_bring_an_onnx_runtime(requirements):
    brings = {extra: sorted(names & ONNX_RUNTIMES) for extra, names in requirements.items() if names & ONNX_RUNTIMES}
    assert brings == {"cpu": ["onnxruntime"], "gpu": ["onnxruntime-gpu"]}


@pytest.mark.parametrize(
    "extra", [NO_EXTRA, "bench", "dicom", "dev", "engines", "export", "openvino", "report", "train"]
)
def test_no_other_extra_brings_an_onnx_runtime_indirectly(extra, requirements):
    assert everything_below(requirements[extra]) & ONNX_RUNTIMES == set()


def test_engines_are_built_without_what_needs_a_gpu(requirements):
    assert requirements["engines"] == {"tensorrt-rtx"}
    assert requirements["tensorrt-rtx"] == {"tensorrt-rtx", "pycuda", "filelock"}


@pytest.mark.parametrize("extra", [NO_EXTRA, "cpu", "engines"])
def test_runtime_needs_no_torch(extra, requirements):
    assert everything_below(requirements[extra]) & {"torch", "onnx", "onnxscript"} == set()


def test_uv_knows_that_cpu_and_gpu_conflict(repo_root):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())
    assert [{"extra": "cpu"}, {"extra": "gpu"}] in project["tool"]["uv"]["conflicts"]


# For each package: the extras with which its third-party imports must be complete.
IMPORTS_MAY_NEED = {
    "sdk": ("cpu", "openvino", "tensorrt", "tensorrt-rtx", "dicom", "pacs", "report", "ray"),
    "cli": (),
    "training": ("train",),
    "export": ("export",),
    "benchmarks": ("cpu", "openvino", "bench"),
}
OWN_PACKAGES = {"nodule_diag", "nodule_diag_cli", "nodule_diag_training", "nodule_diag_export", "benchmarks"}
IMPLIED = {"pydantic-core"}  # pydantic pins it exactly


@pytest.mark.parametrize("folder", sorted(IMPORTS_MAY_NEED))
def test_every_import_is_declared(folder, requirements, repo_root):
    declared = set(requirements[NO_EXTRA]).union(*(requirements[extra] for extra in IMPORTS_MAY_NEED[folder]))
    distributions_of = metadata.packages_distributions()
    undeclared = {}
    for path in sorted((repo_root / folder).rglob("*.py")):
        for module in imported_modules(path) - sys.stdlib_module_names - OWN_PACKAGES:
            bringers = {canonicalize_name(name) for name in distributions_of.get(module, [module])}
            if not bringers & (declared | IMPLIED):
                undeclared[str(path.relative_to(repo_root))] = module
    assert undeclared == {}


def imported_modules(path):
    """Top-level names of the modules that a file imports anywhere, relative imports aside."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.partition(".")[0])
    return modules


def test_one_onnx_runtime_is_installed_here():
    installed = {canonicalize_name(distribution.name) for distribution in metadata.distributions()}
    assert len(installed & ONNX_RUNTIMES) == 1
