"""What is in the distributions, and what is not."""

import hashlib
import json
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest

PACKAGES = {"nodule_diag", "nodule_diag_cli", "nodule_diag_training", "nodule_diag_export"}
BUNDLE = "nodule_diag/bundles/default"
MAX_WHEEL_BYTES = 25 * 1024**2
IMAGE_SUFFIXES = (".dcm", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".npz", ".npy", ".raw", ".zraw", ".xls")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


@pytest.fixture(scope="module")
def wheel(distributions):
    with zipfile.ZipFile(distributions.wheel) as archive:
        yield archive


@pytest.fixture(scope="module")
def wheel_names(wheel):
    return [name for name in wheel.namelist() if not name.endswith("/")]


def test_wheel_is_small_enough(distributions):
    assert distributions.wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_wheel_holds_the_four_packages_and_nothing_beside_them(wheel_names):
    top = {PurePosixPath(name).parts[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_wheel_holds_every_module_of_the_checkout(package, wheel_names, repo_root):
    (source,) = repo_root.glob(f"*/{package}")
    modules = {str(path.relative_to(source.parent).as_posix()) for path in source.rglob("*.py")}
    assert modules, source
    assert modules <= set(wheel_names)


def test_packages_say_that_they_are_typed(wheel_names):
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel_names)


def test_wheel_holds_the_licence(wheel, wheel_names):
    (name,) = [name for name in wheel_names if name.endswith(".dist-info/licenses/LICENSE")]
    assert b"Apache License" in wheel.read(name)


def test_wheel_brings_the_default_bundle_whole(wheel, wheel_names):
    manifest = json.loads(wheel.read(f"{BUNDLE}/manifest.json"))
    assert {"model.onnx", "MODEL_CARD.md", "index/cases.sqlite"} <= set(manifest["files"])
    for name, digest in manifest["files"].items():
        assert hashlib.sha256(wheel.read(f"{BUNDLE}/{name}")).hexdigest() == digest, name
    in_wheel = {name.removeprefix(f"{BUNDLE}/") for name in wheel_names if name.startswith(f"{BUNDLE}/")}
    assert in_wheel == {*manifest["files"], "manifest.json"}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_no_images_no_pickles_no_caches(kind, distributions, wheel_names):
    names = wheel_names
    if kind == "sdist":
        with tarfile.open(distributions.sdist) as archive:
            names = archive.getnames()
    assert [name for name in names if name.endswith((*IMAGE_SUFFIXES, *PICKLE_SUFFIXES))] == []
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    assert [name for name in names if "shared/" in name] == []


def test_wheel_holds_no_tests(wheel_names):
    names = [PurePosixPath(name).name for name in wheel_names]
    assert [name for name in names if name.startswith("test_") or name == "conftest.py"] == []


def test_console_script(wheel, wheel_names):
    (name,) = [name for name in wheel_names if name.endswith(".dist-info/entry_points.txt")]
    assert "nodule-diag = nodule_diag_cli.main:main" in wheel.read(name).decode()
