"""The programs in examples/ run, and say what is true of the phantom."""

import os
import re
import subprocess
import sys
import tempfile

import pytest


def run(script, *arguments, cwd):
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_the_script_is_short(repo_root):
    assert len((repo_root / "examples" / "diagnose.py").read_text(encoding="utf-8").splitlines()) <= 30


def test_the_script_finds_the_phantoms_nodules(repo_root, tmp_path):
    said = run(repo_root / "examples" / "diagnose.py", cwd=tmp_path)
    found = [float(number) for number in re.findall(r"([\d.]+) mm", said)]
    assert found == pytest.approx([12.0, 20.0, 8.0], abs=2.0)
    assert len(list((tmp_path / "overlays").glob("*.nii.gz"))) == 6


def test_the_notebook_runs_and_shows_a_diagnosis(repo_root, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from traitlets.config import Config

    # The kernel's own files stay out of the home folder.
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = nbformat.read(repo_root / "examples" / "diagnose.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "committed without outputs: they go stale"
    folder = {"metadata": {"path": str(tmp_path)}}
    # Over sockets in a folder: a port could be another's before the kernel takes it. Their paths must be short.
    with tempfile.TemporaryDirectory() as short:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{short}/kernel"})
        client = nbclient.NotebookClient(
            notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources=folder, config=config
        )
        client.execute(env={**os.environ, "PYTHONWARNINGS": "default"})
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert all(output.output_type != "error" for shown in outputs.values() for output in shown)
    (shown,) = [output for output in outputs["cell-5"] if output.output_type == "execute_result"]
    assert {"text/plain", "text/html"} <= set(shown.data)
    printed = "".join(output.text for output in outputs["cell-7"] if output.output_type == "stream")
    sizes = re.findall(r"([\d.]+) mm known, ([\d.]+) mm found", printed)
    assert len(sizes) == 3
    for known, found in sizes:
        assert float(found) == pytest.approx(float(known), abs=2.0)
