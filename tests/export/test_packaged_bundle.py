"""Every command of ``export`` that takes a bundle takes the packaged one when none is named."""

import pytest
from typer.testing import CliRunner

from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BundleError
from nodule_diag_export.cli import EXPORT, app

COMMANDS = {name: () for name in EXPORT if name != "bundle"}
COMMANDS |= {"precision": ("--precision", "bf16"), "cases": ("--cases", "cases.csv")}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_it_is_the_packaged_bundle(name, tmp_path, monkeypatch):
    def asked():
        raise BundleError("the packaged bundle was asked for", code="asked")

    monkeypatch.setattr(Bundle, "default", asked)
    ended = CliRunner().invoke(app, [name, "--out", str(tmp_path / "out"), *COMMANDS[name]])
    assert isinstance(ended.exception, BundleError), ended.output
    assert ended.exception.code == "asked"
    assert not list(tmp_path.iterdir())


def test_onnx_is_its_network(tmp_path):
    ended = CliRunner().invoke(app, ["onnx", "--out", str(tmp_path / "model.onnx")])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "model.onnx").read_bytes() == Bundle.default().read("model.onnx")


def test_help_names_every_command():
    ended = CliRunner().invoke(app, ["--help"])
    assert ended.exit_code == 0
    assert all(name in ended.output for name in EXPORT)
