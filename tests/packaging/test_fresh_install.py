"""The wheel as its user meets it: a fresh environment outside the checkout, without torch.

Its bill of materials is here too: complete, with a licence each, the same twice.
It is of the same environment, which takes a minute to make.
"""

import hashlib
import json
import platform
import subprocess
import sys

import jsonschema
import pytest

pytestmark = pytest.mark.slow

RTX_HERE = sys.platform == "linux" and platform.machine() == "x86_64"
CT_0314 = "ct/LIDC-IDRI-0314.nii.gz"
NODULE_0314_XYZ_LPS_MM = ("-56.94", "131.27", "-520.6")
BASE = {"numpy", "simpleitk", "hnswlib", "typer", "rich", "pydantic", "isal", "lazy-loader", "pydicom", "onnxruntime"}


@pytest.fixture(scope="module")
def validate(repo_root):
    """Check a document against the published schema."""
    schema = json.loads((repo_root / "docs" / "prediction.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    return validator(schema).validate


def document_of(process):
    """The one JSON document that a command printed."""
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout)


def test_what_is_installed(installed):
    listed = installed.run("python", "-m", "pip", "list", "--format=json")
    names = {entry["name"].lower() for entry in document_of(listed)}
    assert not names & {"torch", "onnx", "onnxscript", "scipy", "scikit-image", "pylibjpeg", "pyjpegls"}
    assert names & {"onnxruntime", "onnxruntime-gpu"} == {"onnxruntime"}


def test_import_is_the_installed_one_and_brings_no_torch(installed):
    code = "import nodule_diag, sys; assert 'torch' not in sys.modules; print(nodule_diag.__file__)"
    imported = installed.run("python", "-W", "error", "-c", code)
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith(str(installed.bin.parent))


def test_every_public_name_can_be_used(installed):
    code = "import nodule_diag as nd; print(len([getattr(nd, name) for name in nd.__all__]))"
    imported = installed.run("python", "-c", code)
    assert imported.returncode == 0, imported.stderr
    assert int(imported.stdout) > 0


def test_demo(installed, validate):
    document = document_of(installed.run("nodule-diag", "demo", "--json"))
    validate(document)
    assert document["nodules"]
    assert [str(path) for path in installed.cwd.iterdir()] == []


@pytest.mark.real_data
def test_predict_on_a_real_ct(installed, validate, data_root):
    ct = str(data_root / CT_0314)
    document = document_of(installed.run("nodule-diag", "predict", ct, "--xyz", *NODULE_0314_XYZ_LPS_MM, "--json"))
    validate(document)
    (nodule,) = document["nodules"]
    assert nodule["xyz_lps_mm"] == pytest.approx([float(number) for number in NODULE_0314_XYZ_LPS_MM])
    assert nodule["in_lung"] is True


@pytest.mark.parametrize("command", ["info", "doctor"])
def test_commands_that_describe(installed, command):
    assert document_of(installed.run("nodule-diag", command, "--json"))


def test_version(installed):
    assert installed.run("nodule-diag", "--version").stdout.startswith("nodule-diag ")


def test_doctor_names_what_builds_engines(installed):
    ended = installed.run("nodule-diag", "doctor")
    assert ended.stdout.count("pip install 'nodule-diag[engines]'") == 1, ended.stdout


@pytest.mark.skipif(not RTX_HERE, reason="the extra dev brings tensorrt-rtx on Linux on x86_64 alone")
def test_an_engine_is_built_without_cuda_torch_and_onnx(engine_builder):
    """The packaged bundle's, by name of the extra alone."""
    listed = document_of(engine_builder.run("python", "-m", "pip", "list", "--format=json"))
    names = {entry["name"].lower() for entry in listed}
    assert not names & {"torch", "onnx", "onnxscript", "pycuda"}
    ended = engine_builder.run("nodule-diag", "export", "tensorrt-rtx", "--out", "model.engine", "--sm", "8.6")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    plan = (engine_builder.cwd / "model.engine").read_bytes()
    said = json.loads((engine_builder.cwd / "model.engine.json").read_text())
    assert len(plan) > 5_000_000
    assert said["sha256"] == hashlib.sha256(plan).hexdigest()
    assert said["key"]["compute_capability"] == "8.6"
    refused = engine_builder.run("nodule-diag", "export", "tensorrt-rtx", "any.onnx", "--out", "other.engine")
    assert refused.returncode == 5
    assert "pip install 'nodule-diag[export]'" in refused.stderr


@pytest.mark.parametrize(("command", "extra"), [(("train",), "train"), (("export", "onnx"), "export")])
def test_missing_extra_prints_the_pip_command(installed, command, extra):
    ended = installed.run("nodule-diag", *command)
    assert ended.returncode == 5, ended.stdout + ended.stderr
    assert f"pip install 'nodule-diag[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


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


def test_the_bill_is_the_same_twice(bills):
    assert bills[0] == bills[1]


def test_the_bill_names_every_dependency_with_its_licence(bills, installed):
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
