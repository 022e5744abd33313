"""Exit codes, the two forms of an error, what is imported when, and the commands besides ``predict``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag_cli import extras, main

HEAVY = ("torch", "onnx", "onnxruntime", "SimpleITK", "numpy", "hnswlib")


def test_exit_codes_and_codes(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    inside = ("--xyz", "-72", "-18", "-135")
    bundle = ("--bundle", tiny_bundle)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    cases: list[tuple[int, str, tuple[object, ...]]] = [
        (2, "usage", ("predict", phantom_ct, *bundle)),
        (2, "usage", ("predict", *inside, *bundle)),
        (2, "usage", ("predict", phantom_ct, *inside, "--space", "mni")),
        (2, "usage", ("predict", phantom_ct, *inside, "--k", "0", *bundle)),
        (2, "usage", ("predict", phantom_ct, "--xyz", "1", "2", *bundle)),
        (2, "usage", ("predict", phantom_ct, *inside, "--device", "tpu", *bundle)),
        (2, "usage", ("predict", phantom_ct, *inside, "--nodules", tmp_path / "absent.csv", *bundle)),
        (2, "usage", ("nonsense",)),
        (3, "ct-missing-path", ("predict", tmp_path / "absent.nii", *inside, *bundle)),
        (3, "ct-unsupported-format", ("predict", tiny_bundle / "model.onnx", *inside, *bundle)),
        (3, "coordinate-outside", ("predict", phantom_ct, "--xyz", "0", "0", "999", *bundle)),
        (4, "bundle-missing", ("predict", phantom_ct, *inside, "--bundle", tmp_path / "absent")),
        (4, "bundle-manifest-invalid", ("predict", phantom_ct, *inside, "--bundle", broken)),
        (5, "device-unavailable", ("predict", phantom_ct, *inside, "--backend=openvino", "--device=cuda", *bundle)),
        (5, "precision-unavailable", ("predict", phantom_ct, *inside, "--precision", "fp16", *bundle)),
    ]
    for exit_code, code, words in cases:
        as_json = command(*words, "--json")
        assert as_json.code == exit_code, words
        assert set(as_json.document) == {"error"}
        assert set(as_json.document["error"]) == {"code", "message", "hint"}
        assert as_json.document["error"]["code"] == code, words
        assert as_json.err == ""
        as_text = command(*words)
        assert as_text.code == exit_code
        assert as_text.out == ""
        wrong, what_to_do = as_text.err.splitlines()
        assert wrong.startswith("error: ")
        assert what_to_do.startswith("hint: ")
        assert "Traceback" not in as_text.err


def test_mixed_up_frames_get_the_hint(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """The scan is moved 300 mm to the left, so that a nodule's RAS position taken for LPS lies outside."""
    moved = sitk.ReadImage(str(phantom_ct))
    moved.SetOrigin((moved.GetOrigin()[0] + 300, *moved.GetOrigin()[1:]))
    path = tmp_path / "moved.nii"
    sitk.WriteImage(moved, str(path))
    words = ("predict", path, "--xyz", "-228", "18", "-135", "--bundle", tiny_bundle)
    refused = command(*words)
    assert refused.code == 3
    assert "x 114 to 486" in refused.err
    assert "--space ras" in refused.err.splitlines()[1]
    assert command(*words, "--space", "ras").code == 0


def test_unforeseen_errors_show_no_traceback(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(main, "_run", broken)
    ended = command("info")
    assert ended.code == 1
    assert ended.err.splitlines()[0] == "error: ZeroDivisionError: division by zero"
    assert "NODULE_DIAG_DEBUG=1" in ended.err
    assert command("info", "--json").document["error"]["code"] == "unforeseen"
    monkeypatch.setenv("NODULE_DIAG_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        command("info")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 1)])
def test_interrupt_and_memory(command: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def raising(_: object) -> int:
        raise error

    monkeypatch.setattr(main, "_run", raising)
    ended = command("info")
    assert ended.code == code
    assert len(ended.err.splitlines()) <= 2


def test_interrupt_inside_a_command(command: Any, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer catches some itself."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nodule_diag.bundle.bundle.Bundle.open", interrupted)
    assert command("info", "--bundle", tiny_bundle).code == 130


def test_reader_that_goes_away(tiny_bundle: Path) -> None:
    words = [sys.executable, "-m", "nodule_diag_cli", "info", "--bundle", str(tiny_bundle), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("words", [("--help",), ("predict", "--help"), ("train", "--help"), ("predict", "scan.nii")])
def test_nothing_heavy_is_imported_before_a_call_is_good(words: tuple[str, ...]) -> None:
    code = f"""
import sys
from nodule_diag_cli.main import run
run({list(words)!r})
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    if words[0] == "train":  # with the extra here, torch is what the command is for
        code = code.replace(
            "run(['train'", "import nodule_diag_cli.extras as e; e._found = lambda _: False; run(['train'"
        )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()


def test_predict_needs_no_torch(phantom_ct: Path, tiny_bundle: Path) -> None:
    code = f"""
import sys
from nodule_diag_cli.main import run
assert run(["predict", {str(phantom_ct)!r}, "--xyz", "-72", "-18", "-135", "--bundle", {str(tiny_bundle)!r}]) == 0
loaded = [name for name in ("torch", "onnx", "scipy", "skimage", "pandas") if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()


def test_help_names_every_command(command: Any) -> None:
    ended = command("--help")
    assert ended.code == 0
    for name in ("predict", "info", "doctor", "demo", "cases", "train", "export", "bench"):
        assert name in ended.out
    assert command() == ended


def test_info(command: Any, tiny_bundle: Path) -> None:
    ended = command("info", "--bundle", tiny_bundle, "--json")
    assert ended.code == 0
    assert ended.document["manifest"]["name"] == "tiny"
    assert len(ended.document["sha256"]) == 64
    assert ended.document["manifest"]["intended_use"].startswith("Tests")
    text = command("info", "--bundle", tiny_bundle).out
    for part in ("tiny 1.0.0", ended.document["sha256"], "Not a medical device", "model.onnx", "never trained"):
        assert part in text


def test_doctor_names_every_backend(command: Any) -> None:
    ended = command("doctor", "--json")
    assert ended.code == 0
    backends = {backend["name"]: backend for backend in ended.document["backends"]}
    assert set(backends) == {"onnxruntime", "winograd", "openvino", "tensorrt", "tensorrt-rtx"}
    assert all(backend["usable"] or backend["reason"] for backend in backends.values())
    text = command("doctor").out
    assert all(name in text for name in backends)


def test_doctor_runs_the_backend(command: Any, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nodule_diag.bundle.bundle import Bundle

    monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(tiny_bundle))
    first = command("doctor", "--json").document["backends"][0]
    assert first["usable"]
    assert first["devices"][0]["device"] == "cpu"
    assert first["devices"][0]["inference_ms"] > 0
    assert "usable, one nodule in" in command("doctor").out


def test_doctor_runs_every_precision_and_compares(
    command: Any, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Openvino, where it is installed, answers as onnxruntime does; bf16 as well, or the reason why not."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from nodule_diag.bundle.bundle import Bundle

    monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(tiny_bundle))
    fp32, bf16 = command("doctor", "--json").document["backends"][1]["devices"]
    assert (fp32["device"], fp32["precision"], fp32["usable"]) == ("cpu", "fp32", True)
    assert fp32["malignancy_difference"] <= 1e-4
    assert bf16["precision"] == "bf16"
    assert bf16["usable"] or "this CPU" in bf16["reason"]


def test_doctor_does_not_believe_a_wrong_answer(
    command: Any, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that runs and answers something else is not usable."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from nodule_diag.backends.openvino import OpenVinoBackend
    from nodule_diag.bundle.bundle import Bundle

    real = OpenVinoBackend.infer
    monkeypatch.setattr(OpenVinoBackend, "infer", lambda self, patches: real(self, patches * np.float32(0.9)))
    monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(tiny_bundle))
    found = command("doctor", "--json").document["backends"][1]
    assert not found["usable"]
    assert "its answer is not that of onnxruntime: malignancy differs by" in found["devices"][0]["reason"]


@pytest.mark.parametrize("name", ["train", "export", "bench"])
def test_missing_extra(command: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extras, "_found", lambda _: False)
    extra = extras.PASSED_THROUGH[name].extra
    ended = command(name, "--anything", "1")
    assert ended.code == 5
    assert f"pip install 'nodule-diag[{extra}]'" in ended.err
    assert len(ended.err.splitlines()) == 2
    assert command(name, "--json").document["error"]["code"] == "missing-extra"


def test_bench_needs_a_checkout(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    ended = command("bench")
    assert ended.code == 2
    assert "checkout" in ended.err


def test_arguments_are_passed_through(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(
        "import typer\napp = typer.Typer()\n\n"
        "@app.command()\ndef fit(steps: int, name: str = '', quick: bool = False): print(steps, name, quick)\n\n"
        "@app.command()\ndef fail(): raise typer.Exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stand_in = extras.PASSED_THROUGH["train"]._replace(app="stand_in:app", needs=())
    monkeypatch.setitem(extras.PASSED_THROUGH, "train", stand_in)
    assert command("train", "fit", "12", "--name=a b", "--quick").out == "12 a b True\n"
    assert command("train", "fail").code == 7
    assert "fit" in command("train", "--help").out
    refused = command("train", "fit", "many")
    assert refused.code == 2
    assert "many" in refused.err or "STEPS" in refused.err.upper()
