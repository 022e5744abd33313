"""The bill of materials: valid, complete, with a licence each, and the same twice."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

BASE = {"numpy", "simpleitk", "hnswlib", "typer", "rich", "pydantic", "isal", "lazy-loader", "pydicom", "onnxruntime"}


@pytest.fixture(scope="module")
def bills(installed, repo_root, tmp_path_factory):
    """Two of the environment that holds the wheel with the extra cpu."""
    folder = tmp_path_factory.mktemp("sbom")
    made = []
    for name in ("one.json", "two.json"):
        command = [sys.executable, str(repo_root / "docs/make/sbom.py"), str(installed.bin.parent)]
        done = subprocess.run(
            [*command, "--out", str(folder / name)], capture_output=True, text=True, timeout=300,
            env={"SOURCE_DATE_EPOCH": "1700000000", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        made.append((folder / name).read_bytes())
    return made


def test_it_is_the_same_twice(bills):
    assert bills[0] == bills[1]


def test_it_names_every_dependency_with_its_licence(bills, installed):
    bill = json.loads(bills[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    assert bill["metadata"]["component"]["name"] == "nodule-diag"
    listed = {component["name"].lower().replace("_", "-"): component for component in bill["components"]}
    assert set(listed) >= BASE
    pip = json.loads(installed.run("python", "-m", "pip", "list", "--format=json").stdout)
    assert set(listed) == {entry["name"].lower().replace("_", "-") for entry in pip} - {"nodule-diag"}
    assert all(component["licenses"] for component in listed.values())
    assert str(installed.bin) not in bills[0].decode()
