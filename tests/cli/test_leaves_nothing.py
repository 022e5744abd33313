"""Whatever is asked for: no socket, and no file outside what the user named. Also natively, by strace."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydicom.uid import JPEGLSLossless

import ct_files
from guard import STRACE, watched

CLI = "import sys; sys.argv[0] = 'nodule-diag'; from nodule_diag_cli.main import main; main()"
BATCH = """
import sys, nodule_diag as nd
diagnoser = nd.Diagnoser.load(sys.argv[2], backend="onnxruntime")
work = [nd.Scan(sys.argv[1], [(-72, -18, -135)])] * 2 + [nd.Scan("absent.nii", [(0, 0, 0)])]
assert [result.error is None for result in diagnoser.predict_batch(work)] == [True, True, False]
"""
ADD = """
import sys
from nodule_diag.cases import CaseBase
with CaseBase.edit(sys.argv[1]) as base:
    base.add([case.model_copy(update={"case_id": f"new-{case.case_id}"}) for case in base])
assert len(CaseBase.open(sys.argv[1])) == 120
"""
PLAIN = {"PATH": os.environ["PATH"], "HOME": os.devnull}
NODULE = ("--xyz", "-72", "-18", "-135")


def ways(ct: Path, bundle: Path, named: Path, series: Path) -> dict[str, tuple[str, tuple[object, ...]]]:
    """Programs and their arguments; what they may write lies in ``named``."""
    tiny = ("--bundle", bundle)
    return {
        "predict, onnxruntime": (CLI, ("predict", ct, *NODULE, *tiny, "--backend=onnxruntime", "--out", named / "out")),
        "predict, openvino": (CLI, ("predict", ct, *NODULE, *tiny, "--backend=openvino", "--out", named / "out")),
        # The tiny network has no convolutions, so nothing to transform.
        "predict, winograd": (CLI, ("predict", ct, *NODULE, "--backend=winograd", "--out", named / "out")),
        "predict, report and positions": (
            CLI,
            ("predict", ct, *NODULE, *tiny, "--report", named / "r.html", "--positions-out", named / "p.csv"),
        ),
        # Compressed, so that a child decodes it; pydicom and highdicom, beside requests where that is installed.
        "predict, DICOM to DICOM": (
            CLI,
            ("predict", series, "--xyz", "6", "46", "-101", *tiny, "--dicom-out", named / "objects"),
        ),
        "grand-challenge": (CLI, ("grand-challenge", "--input", named / "in", "--output", named, *tiny)),
        "predict, auto, no --out": (CLI, ("predict", ct, *NODULE, "--json")),
        "demo": (CLI, ("demo", *tiny, "--out", named / "out")),
        "demo, no --out": (CLI, ("demo", *tiny, "--json")),
        "doctor": (CLI, ("doctor", "--json")),
        "predict_batch": (BATCH, (ct, bundle)),
        "batch": (CLI, ("batch", named / "manifest.csv", *tiny, "--backend=onnxruntime", "--out", named / "out")),
        "cases build": (CLI, ("cases", "build", named / "table.csv", *tiny, "--out", named / "made.sqlite")),
        "CaseBase.add": (ADD, (named / "old.sqlite",)),
    }


SLOW = ("demo", "demo, no --out", "doctor")
NAMES = [pytest.param(way, marks=[pytest.mark.slow] * (way in SLOW)) for way in ways(Path(), Path(), Path(), Path())]


@pytest.mark.parametrize("way", NAMES)
def test_no_socket_and_no_file_that_nobody_named(way: str, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Without CI, which onnxruntime's telemetry hides from, and with a home that it could write into."""
    if "openvino" in way and not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    from bundle_factory import tiny_base

    named, home, scratch = (tmp_path / name for name in ("named", "home", "scratch"))
    for folder in (named, home, scratch, home / "tmp", home / "work"):
        folder.mkdir()
    if "report" in way:
        pytest.importorskip("jinja2")
    series = tmp_path / "series"
    if "DICOM" in way:
        pytest.importorskip("highdicom")
        from dicom_in_every_position import series as slices

        ct_files.save_series(series, ct_files.encoded(slices(), JPEGLSLossless))
    tiny_base().save(named / "old.sqlite")
    images = named / "in" / "images" / "chest-ct"
    images.mkdir(parents=True)
    ct_files.write(images / "1.2.3.mha", ct_files.image())
    (named / "in" / "nodule-locations.json").write_text('{"points": [{"name": "1", "point": [-10, 20, -115]}]}')
    (named / "table.csv").write_text(f"case_id,patient,label,path,x,y,z\na,p,1,{phantom_ct},-72,-18,-135\n")
    (named / "manifest.csv").write_text(f"path,x,y,z\n{phantom_ct},-72,-18,-135\n")
    before = sorted(home.rglob("*"))
    code, words = ways(phantom_ct, tiny_bundle, named, series)[way]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1"}
    found = watched(code, *words, cwd=home / "work", scratch=scratch, environment=environment)
    assert found.code == 0, found.err
    assert found.network == ()
    assert found.outside(named) == []
    assert sorted(home.rglob("*")) == before
    writes = any(str(word).endswith(("-out", "--out", "--report", "--output")) for word in words)
    assert bool(found.outside()) == (writes or way == "CaseBase.add"), "the watch sees something"
    if way == "doctor":
        assert json.loads(found.out)["telemetry"] == {"off": True, "reason": ""}
    if not STRACE:
        pytest.skip("strace is not installed: what native code does was not watched")


@pytest.mark.parametrize("code", ["import socket; socket.socket()", "open('x', 'w')", "import os; os.mkdir('x')"])
def test_the_watch_sees_what_it_is_for(code: str, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    found = watched(code, cwd=tmp_path, scratch=tmp_path, environment=PLAIN)
    assert found.network or found.outside(tmp_path / "named") == [tmp_path / "x"] * (2 if STRACE else 1)


@pytest.mark.skipif(not STRACE, reason="strace is not installed")
def test_the_watch_sees_native_code(tmp_path: Path) -> None:
    code = "import ctypes; c = ctypes.CDLL(None); c.creat(b'x', 0o600); c.socket(2, 1, 0); c.rename(b'x', b'y')"
    found = watched(code, cwd=tmp_path, scratch=tmp_path, environment=PLAIN)
    assert len(found.network) == 1
    assert found.outside() == [tmp_path / "x", tmp_path / "x", tmp_path / "y"]


LATE = """
import sys, warnings
warnings.simplefilter("always")
import onnxruntime
import nodule_diag as nd
from nodule_diag.backends import telemetry_notice
for _ in range(2):
    nd.Diagnoser.load(sys.argv[1], backend="onnxruntime")
print(telemetry_notice())
"""


def test_a_host_that_imported_onnxruntime_first_is_told_once(tiny_bundle: Path, tmp_path: Path) -> None:
    """Nothing stops its telemetry then. A host that set the variable has decided."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29):
        pytest.skip("this onnxruntime has no telemetry")
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for chosen, told in ((None, 1), ("1", 0), ("0", 0)):
        environment = plain | ({} if chosen is None else {"ORT_DISABLE_TELEMETRY": chosen})
        found = watched(LATE, tiny_bundle, cwd=tmp_path, scratch=tmp_path, environment=environment)
        assert found.code == 0, found.err
        assert found.err.count("could not switch its telemetry off") == told, found.err
        wanted = {
            None: "could not switch its telemetry off",
            "1": "",
            "0": "ORT_DISABLE_TELEMETRY=0 of the environment",
        }
        assert wanted[chosen] in found.out
        assert bool(found.out.strip()) == (chosen != "1"), "doctor says the same"
