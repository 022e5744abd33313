"""Exit codes, the two forms of an error, what is imported when, and the commands besides ``predict``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from bundle_factory import tiny_parts
from golden_bundle import make_golden_bundle
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag_cli import extras, main
from nodule_diag_cli.info import figures

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
loaded = [name for name in ("torch", "onnx", "scipy", "skimage", "pandas", "pydicom") if name in sys.modules]
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


CARD = """# Tiny 1.0.0

## What it is

The tiny
network.

A second paragraph.

## What it reaches

### Cubes

|  | value | 95 % interval | nodules | target |
|---|---|---|---|---|
| SegNet Dice | 0.680 | 0.624 to 0.735 | 32 | >= 0.75 |
| RNet \\| score, Spearman | 0.681 | 0.428 to 0.854 | 32 |  |
| Yardstick: diameter alone, Spearman | 0.611 | 0.297 to 0.849 | 31 |  |
| CNet, AUC | 0.7 | 0.6 to 0.8 | 30 |  |

### Nothing beside

|  | value |
|---|---|
| CNet, AUC | 0.9 |

## Case base

|  | value | 95 % interval | nodules |
|---|---|---|---|
| CNet, AUC | 0.5 | 0.1 to 0.9 | 2 |
| Yardstick: AUC | 0.6 | 0.1 to 0.9 | 2 |
"""


def test_info_is_a_screen(command: Any, tmp_path: Path) -> None:
    manifest, files = tiny_parts()
    manifest = manifest.model_copy(update={"training": {"held_out": [f"patient-{i}" for i in range(999)]}})
    bundle = write_bundle(tmp_path / "b", manifest=manifest, files=files | {"MODEL_CARD.md": CARD.encode()})
    ended = command("info", "--bundle", bundle.path, "--json")
    assert ended.code == 0
    assert ended.document["manifest"]["name"] == "tiny"
    assert ended.document["sha256"] == bundle.sha256
    assert ended.document["manifest"]["intended_use"].startswith("Tests")
    text = command("info", "--bundle", bundle.path).out
    said = " ".join(text.split())
    for part in ("tiny 1.0.0", bundle.sha256, "Not a medical device", "Apache-2.0", "60 diagnosed nodules"):
        assert part in said
    assert "What it is The tiny network. Input" in said
    assert "RNet | score, Spearman 0.681 0.428 to 0.854 32" in said
    assert "beside: diameter alone, Spearman 0.611 0.297 to 0.849 31" in said
    assert not any(part in said for part in ("Dice", "0.7 ", "0.9", "patient-1"))
    assert len(text.splitlines()) <= 25
    full = " ".join(command("info", "--bundle", bundle.path, "--full").out.split())
    for part in ("tiny 1.0.0", "patient-998", "model.onnx", manifest.created, *bundle.manifest.files):
        assert part in full


def test_targets_stand_for_all_but_diagnosed_nodules() -> None:
    aimed = """### Targets

|  | value | 95 % interval | nodules | target | note |
|---|---|---|---|---|---|
| Dice, mean | 0.75 | 0.71 to 0.78 | 99 | >= 0.72 | met |

### All diagnosed nodules

|  | value | 95 % interval | nodules |
|---|---|---|---|
| CNet, AUC | 0.6 | 0.5 to 0.7 | 142 |
| Yardstick: diameter, AUC | 0.5 | 0.4 to 0.6 | 142 |

"""
    start = CARD.index("### Cubes")
    assert [title for title, _ in figures(CARD)] == ["Cubes"]
    found = dict(figures(CARD[:start] + aimed + CARD[start:]))
    assert {title: [row.name for row in rows] for title, rows in found.items()} == {
        "Targets": ["Dice, mean"],
        "All diagnosed nodules": ["CNet, AUC", "Yardstick: diameter, AUC"],
    }


def test_info_of_the_packaged_bundle_fits_a_tall_terminal(program: Any) -> None:
    text = program("info", COLUMNS="80").out
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert "beside: readers' mean score, AUC" in text


def test_a_card_that_says_nothing(command: Any, tiny_bundle: Path) -> None:
    text = command("info", "--bundle", tiny_bundle).out
    assert text.count("not said in its model card") == 2
    assert "never trained" in command("info", "--bundle", tiny_bundle, "--full").out


def test_version(command: Any) -> None:
    import nodule_diag

    ended = command("--version")
    assert (ended.code, ended.out) == (0, f"nodule-diag {nodule_diag.__version__}\n")


@pytest.fixture
def golden_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A tiny packaged bundle with golden answers, and a cache of its own."""
    bundle = make_golden_bundle(tmp_path / "default")
    monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(bundle.path))
    monkeypatch.setenv("NODULE_DIAG_CACHE", str(tmp_path / "cache"))
    return bundle


def test_doctor_names_every_backend(command: Any) -> None:
    ended = command("doctor", "--json")
    assert ended.code == 0
    backends = {backend["name"]: backend for backend in ended.document["backends"]}
    assert set(backends) == {"onnxruntime", "winograd", "openvino", "tensorrt", "tensorrt-rtx"}
    assert all(backend["usable"] or backend["reason"] for backend in backends.values())
    text = command("doctor").out
    assert all(name in text for name in backends)


def test_doctor_says_each_hint_once(command: Any, golden_default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing installed but the base: what brings each backend, and what builds engines."""
    for module in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    text = command("doctor").out
    for extra in ("cpu", "openvino", "tensorrt", "tensorrt-rtx", "engines"):
        assert text.count(f"pip install 'nodule-diag[{extra}]'") == 1, extra
    document = command("doctor", "--json").document
    spots = [*document["backends"], document["engines"]]
    assert all(spot["hint"] and spot["hint"] not in spot["reason"] for spot in spots)
    assert document["engines"]["hint"] == "pip install 'nodule-diag[engines]'"


def test_doctor_runs_the_backend(command: Any, golden_default: Bundle) -> None:
    document = command("doctor", "--json").document
    first = document["backends"][0]
    assert first["usable"]
    assert first["devices"][0]["device"] == "cpu"
    assert first["devices"][0]["inference_ms"] > 0
    assert document["selftest"] == {"golden": True, "note": "", "patches": 1, "saved": None}
    assert document["own_figures"]["code"] == "figures-missing"
    assert "usable, one nodule in" in command("doctor").out


def test_doctor_keeps_figures_that_auto_obeys(command: Any, golden_default: Bundle) -> None:
    """Of every backend that is here, in every precision that this CPU computes in."""
    assert command("doctor", "--json").document["auto"]["backend"] == "onnxruntime"
    document = command("doctor", "--selftest", "--save", "--json").document
    assert document["selftest"]["patches"] == 8
    ran = {
        (backend["name"], device["precision"])
        for backend in document["backends"]
        for device in backend["devices"]
        if device["device"] == "cpu" and device["figures"]
    }
    assert {(record["backend"], record["precision"]) for record in document["own_figures"]["records"]} == ran
    order = [("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    taken = document["auto"]
    if taken["device"] == "cpu":
        assert (taken["backend"], taken["precision"]) == next(way for way in order if way in ran)
    text = " ".join(command("doctor").out.split())
    assert "Own figures of 20" in text
    assert "passed onnxruntime fp32" in text


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_doctor_says_what_it_ignores(command: Any, golden_default: Bundle) -> None:
    saved = Path(command("doctor", "--selftest", "--save", "--json").document["selftest"]["saved"])
    saved.chmod(0o666)
    with pytest.warns(RuntimeWarning, match="saved self-test figures are not used"):
        document = command("doctor", "--json").document
    assert document["own_figures"]["code"] == "figures-unsafe"
    assert document["auto"]["backend"] == "onnxruntime"
    with pytest.warns(RuntimeWarning, match="saved self-test figures are not used"):
        assert "ignored" in command("doctor").out


def test_save_needs_a_selftest(command: Any) -> None:
    ended = command("doctor", "--save")
    assert ended.code == 2
    assert "doctor --selftest --save" in ended.err


def test_figures_that_cannot_be_saved_are_an_error(
    command: Any, golden_default: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the cache, or of nothing to save: not of the bundle, and not exit code 0."""
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setenv("NODULE_DIAG_CACHE", str(tmp_path / "file"))
        ended = command("doctor", "--selftest", "--save", "--json")
        assert (ended.code, ended.document["error"]["code"]) == (1, "cache-unusable")
    for module in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    ended = command("doctor", "--selftest", "--save", "--json")
    assert (ended.code, ended.document["error"]["code"]) == (5, "figures-none")
    assert command("doctor", "--selftest", "--json").code == 0


def test_doctor_runs_every_precision_and_compares(command: Any, golden_default: Bundle) -> None:
    """Openvino, where it is installed, answers as onnxruntime does; bf16 as well, or the reason why not."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    fp32, bf16 = command("doctor", "--json").document["backends"][1]["devices"]
    assert (fp32["device"], fp32["precision"], fp32["usable"]) == ("cpu", "fp32", True)
    assert fp32["malignancy_difference"] <= 1e-4
    assert bf16["precision"] == "bf16"
    assert bf16["usable"] or "this CPU" in bf16["reason"]


@pytest.mark.parametrize("cpu", ["as it is", "with bf16", "without bf16"])
@pytest.mark.parametrize("golden", [True, False])
def test_doctor_does_not_believe_a_wrong_answer(
    command: Any, golden_default: Bundle, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, cpu: str, golden: bool
) -> None:
    """A backend that runs and answers something else is not usable, though bf16's gate may let it pass.

    A CPU without bf16 computes in fp32 where it is made to say that it has it.
    """
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from nodule_diag.backends import openvino

    capabilities = {"with bf16": ["FP32", "BF16"], "without bf16": ["FP32"]}
    if cpu in capabilities:
        monkeypatch.setattr(openvino, "_cpu_capabilities", lambda _: capabilities[cpu])
    real = openvino.OpenVinoBackend.infer
    monkeypatch.setattr(openvino.OpenVinoBackend, "infer", lambda self, x: real(self, x * np.float32(0.99)))
    if not golden:
        monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(tiny_bundle))
    found = command("doctor", "--json").document["backends"][1]
    right = "the golden one" if golden else "that of onnxruntime"
    assert not found["usable"]
    assert f"its answer is not {right}: malignancy differs by" in found["devices"][0]["reason"]
    assert not any(device["usable"] for device in found["devices"])
    if cpu == "with bf16":
        assert found["devices"][1]["reason"] == "its fp32 answer is wrong"


def test_doctor_sees_a_broken_onnxruntime(
    command: Any, golden_default: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nodule_diag.backends.onnxruntime import OnnxRuntimeBackend

    real = OnnxRuntimeBackend.infer
    monkeypatch.setattr(OnnxRuntimeBackend, "infer", lambda self, x: real(self, x * np.float32(0.999)))
    document = command("doctor", "--selftest", "--save", "--json").document
    assert not document["backends"][0]["usable"]
    if find_spec("openvino") is not None:
        assert document["backends"][1]["usable"]
        assert document["auto"]["backend"] == "openvino"


def test_doctor_without_a_usable_bundle(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Bundle, "default", lambda: Bundle.open(tmp_path / "absent"))
    document = command("doctor", "--json").document
    assert not document["bundle"]["usable"]
    assert not any(backend["usable"] for backend in document["backends"])
    assert "there is no bundle" in command("doctor").out


@pytest.mark.parametrize("name", ["train", "bench"])
def test_missing_extra(command: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extras, "_found", lambda _: False)
    extra = extras.PASSED_THROUGH[name].extra
    ended = command(name, "--anything", "1")
    assert ended.code == 5
    assert f"pip install 'nodule-diag[{extra}]'" in ended.err
    assert len(ended.err.splitlines()) == 2
    assert command(name, "--json").document["error"]["code"] == "missing-extra"


@pytest.mark.parametrize("lacks", ["torch", "onnx"])
def test_export_says_what_each_command_needs(command: Any, lacks: str) -> None:
    """In a process of its own: here they are imported already. Building engines needs neither."""
    program = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from nodule_diag_cli.main import main\n"
        "sys.argv[1:] = sys.argv[2:]; main()"
    )

    def export(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", program, lacks, "export", *words]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    listed = export()
    assert "tensorrt-rtx" in listed.stdout + listed.stderr
    for name in ("onnx", "bundle", "fused"):
        ended = export(name, "--anything", "1")
        assert ended.returncode == 5, ended.stderr
        assert "pip install 'nodule-diag[export]'" in ended.stderr
        assert len(ended.stderr.splitlines()) == 2
    assert json.loads(export("onnx", "--json").stdout)["error"]["code"] == "missing-extra"
    helped = export("tensorrt-rtx", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--max-batch" in helped.stdout


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
