"""A read-only container without /tmp and without HOME, as a user whom the system does not know: everything is read.

Really so, in a mount namespace, where this process may make one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ct_files
from bundle_factory import make_tiny_bundle

# The user may read everything, since Python may lie in somebody's home, and write nothing.
BOX = """
set -e
mount --make-rprivate /
cd "$1"; shift
for folder in /tmp /var/tmp /dev/shm /run; do [ ! -d "$folder" ] || mount -t tmpfs none "$folder"; done
mkdir /tmp/given
mount -c --bind . /tmp/given
for folder in /tmp/given /tmp /var/tmp /dev/shm /run /; do
  [ ! -d "$folder" ] || mount -o remount,bind,ro "$folder"
done
cd /
caps="-all,+dac_read_search"
exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps="$caps" --ambient-caps="$caps" \
  --bounding-set="$caps" env -i PATH="$PATH" "$@"
"""
CLI = (sys.executable, "-B", "-W", "error", "-m", "nodule_diag_cli")
GIVEN = Path("/tmp/given")
NODULE = ("--xyz", "-72", "-18", "-135")


def boxed(given: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", BOX, "box", given, *map(str, words)], capture_output=True, check=False
    )


def _why_not() -> str:
    """Why there is no such container here; empty where there is."""
    if missing := [name for name in ("unshare", "setpriv", "mount", "bash") if not shutil.which(name)]:
        return f"{', '.join(missing)} is not installed"
    hidden = ("/tmp", "/var/tmp", "/dev/shm", "/run")
    for place in (sys.prefix, sys.base_prefix, str(Path(__file__).resolve())):
        if place.startswith(hidden):
            return f"{place} lies in a temporary folder"
    tried = boxed(Path("/"), "sh", "-c", "! touch /tmp/x 2>&1 && ! touch /x && test $(id -u) = 54321")
    return "" if tried.returncode == 0 else f"no namespace may be made: {tried.stderr.decode()[-200:]}"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "it works")


@pytest.fixture(scope="module")
def given(phantom_ct: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CTs and bundles, each also zipped."""
    folder = tmp_path_factory.mktemp("given")
    folder.chmod(0o755)
    shutil.copy(phantom_ct, folder / "chest.nii")
    make_tiny_bundle(folder / "tiny")
    make_tiny_bundle(folder / "tiny.zip")
    series = ct_files.save_series(folder / "series", ct_files.dicom_slices())
    ct_files.zipped(series, folder / "series.zip")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("predict", GIVEN / "chest.nii", *NODULE, "--backend", "winograd"),
        ("predict", GIVEN / "chest.nii", *NODULE, "--bundle", GIVEN / "tiny", "--backend", "onnxruntime"),
        ("predict", GIVEN / "chest.nii", *NODULE, "--bundle", GIVEN / "tiny.zip", "--backend", "openvino"),
        ("predict", GIVEN / "series", "--xyz", 14, 16, 6, "--space", "voxel", "--bundle", GIVEN / "tiny"),
        ("predict", GIVEN / "series.zip", "--xyz", 14, 16, 6, "--space", "voxel", "--bundle", GIVEN / "tiny"),
        ("cases", "info", GIVEN / "tiny" / "index" / "cases.sqlite"),
        ("info",),
        pytest.param(("demo", "--bundle", GIVEN / "tiny"), marks=pytest.mark.slow),
        pytest.param(("doctor",), marks=pytest.mark.slow),
    ],
    ids=lambda words: " ".join(str(word).removeprefix("/tmp/") for word in words),
)
def test_everything_that_reads(words: tuple[object, ...], given: Path) -> None:
    if "openvino" in words and not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    ended = boxed(given, *CLI, *words, "--json")
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    assert ended.stderr == b""
    assert json.loads(ended.stdout)


def test_what_cannot_be_written_is_said(given: Path) -> None:
    ended = boxed(given, *CLI, "predict", GIVEN / "chest.nii", *NODULE, "--json", "--out", GIVEN / "out")
    assert ended.returncode == 1
    error = json.loads(ended.stdout)["error"]
    assert (error["code"], error["message"]) == (
        "output-failed",
        f"cannot make the folder {GIVEN / 'out'}: {os.strerror(30)}",
    )
