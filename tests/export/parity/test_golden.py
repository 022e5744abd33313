"""The command that writes golden answers: which nodules it takes, and what it leaves as it was."""

import numpy as np
import pytest
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from golden_bundle import answers_in_numpy, two_sided_model
from nodule_diag.backends.golden import read_golden
from nodule_diag.bundle.bundle import Bundle
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity.golden import add_golden


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("plain") / "b", model=two_sided_model())


def test_the_command_writes_answers_of_both_sides(bundle, tmp_path):
    out = tmp_path / "golden.zip"
    ended = CliRunner().invoke(app, ["golden", str(bundle.path), "--out", str(out), "--threads", "1"])
    assert ended.exit_code == 0, ended.output
    written = Bundle.open(out)
    assert f"golden answers to 8 nodules (262 kB), sha256 {written.sha256}" in ended.output
    patches, answers = read_golden(written)
    wanted = answers_in_numpy(patches)
    for name in bundle.manifest.model.outputs.given():
        np.testing.assert_allclose(getattr(answers, name), getattr(wanted, name), atol=1e-5)
    assert sorted(answers.malignancy > 0.5) == [False] * 4 + [True] * 4
    assert np.abs(answers.logit).min() >= 0.1
    kept = written.manifest.model_copy(update={"golden": None, "files": bundle.manifest.files})
    assert kept == bundle.manifest
    assert {name: written.read(name) for name in bundle.manifest.files} == {
        name: bundle.read(name) for name in bundle.manifest.files
    }


def test_again_is_the_same_bytes(bundle, tmp_path):
    first = add_golden(bundle, out=tmp_path / "a", threads=1)
    assert add_golden(first, out=tmp_path / "a", threads=1).sha256 == first.sha256


def test_a_network_that_answers_one_side_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nodule_diag_export.parity.golden.MOST_SEEDS", 12)
    bundle = make_tiny_bundle(tmp_path / "b")
    with pytest.raises(ExportError, match="of 12 made-up nodules, 0 have a P above") as caught:
        add_golden(bundle, out=tmp_path / "c", threads=1)
    assert caught.value.code == "golden-one-sided"
    assert not (tmp_path / "c").exists()
