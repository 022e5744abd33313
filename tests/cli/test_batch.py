"""``nodule-diag batch``: what it says, its exit codes, and that a signal leaves what is done and no process."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet_batches import phantom_manifest
from nodule_diag_cli.batch import duration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good CTs, and one that is not there: do not write to it."""
    made = tmp_path_factory.mktemp("batch")
    good = phantom_manifest(made, 4, broken=False)
    (made / "bad.csv").write_text(good.read_text() + "absent.nii,1,2,3,n04-0,a\n")
    return made


@pytest.fixture
def words(tiny_bundle: Path) -> tuple[object, ...]:
    return "--bundle", tiny_bundle, "--backend", "onnxruntime", "--workers", 1


def test_a_whole_batch(command: Any, folder: Path, words: tuple[object, ...], tmp_path: Path) -> None:
    ended = command("batch", folder / "manifest.csv", "--out", tmp_path / "out", *words)
    assert (ended.code, ended.err) == (0, "")
    assert "6 of 6 nodules in 4 CTs are diagnosed." in ended.out
    assert "CTs an hour" in ended.out
    assert str(tmp_path / "out" / "results.csv") in ended.out.replace("\n", "")
    again = command("batch", folder / "manifest.csv", "--out", tmp_path / "out", *words)
    assert "4 of them in an earlier run" in again.out
    assert "CTs an hour" not in again.out
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    one = command("predict", folder / "ct00.nii", "--xyz", -72, -18, -135, *words[:4], "--json").document
    assert float(row["malignancy"]) == pytest.approx(one["nodules"][0]["malignancy"], abs=1e-6)


def test_failures_are_named_and_the_exit_code_says_so(
    command: Any, folder: Path, words: tuple[object, ...], tmp_path: Path
) -> None:
    ended = command("batch", folder / "bad.csv", "--out", tmp_path / "out", *words)
    assert ended.code == 3
    assert ended.err == f"warning: absent.nii, n04-0: {folder / 'absent.nii'} does not exist\n"
    assert "ct-missing-path" in ended.out
    assert "6 of 7 nodules in 5 CTs are diagnosed." in ended.out
    told = command("batch", folder / "bad.csv", "--out", tmp_path / "out", *words, "--json")
    assert (told.code, told.err) == (3, "")
    document = told.document
    assert document["schema"] == "nodule-diag/batch-summary/1"
    assert document["cts"] == {"total": 5, "there": 5, "failed": 1}
    assert document["failures"] == [{"code": "ct-missing-path", "cts": 1, "nodules": 1}]
    assert document["failed"][0]["ids"] == ["n04-0"]


def test_redact(command: Any, folder: Path, words: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = command("batch", folder / "bad.csv", "--out", out, *words, "--redact")
    assert ended.code == 3
    said = ended.out + ended.err + "".join(path.read_text() for path in out.rglob("*.*") if path.is_file())
    assert str(folder) not in said
    assert "absent" not in said
    assert "ct00.nii" not in said


def test_refused(command: Any, folder: Path, words: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,x,y\nct.nii,1,2\n")
    ended = command("batch", tmp_path / "manifest.csv", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "no column z" in ended.err
    assert not (tmp_path / "out").exists()
    good = folder / "manifest.csv"
    assert command("batch", good, "--out", tmp_path / "a", "--bundle", tmp_path / "none").code == 4
    assert command("batch", good, "--out", tmp_path / "b", *words, "--backend", "tensorrt").code == 5
    assert command("batch", good, "--out", tmp_path / "c", *words, "--prevalence", 3).code == 2
    assert command("batch", good).code == 2
    assert command("batch", good, "--out", tmp_path / "d", *words).code == 0
    other = command("batch", good, "--out", tmp_path / "d", *words, "--k", 3, "--json")
    assert other.code == 1
    assert other.document["error"]["code"] == "batch-other"


SIGNALLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in a shell's background inherit that it is ignored
import nodule_diag_cli.batch as command
from nodule_diag_cli.main import main
said = command._text
def told(at):
    if at.done == 2:
        os.kill(os.getpid(), int(number))
    return said(at)
number = sys.argv.pop()
command._text = told
main()
"""


@pytest.mark.parametrize(("by", "code", "says"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
def test_a_signal_keeps_what_is_done(
    by: str, code: int, says: str, command: Any, folder: Path, words: tuple[object, ...], tmp_path: Path
) -> None:
    line = ("batch", folder / "manifest.csv", "--out", tmp_path, *words, "--json")
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED, *map(str, line), str(int(signal.Signals[by]))],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,  # ends when the last process that holds it has ended
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert f'"code": "{says}"' in ended.stdout
    assert ended.stderr == "what is done so far is kept: the same command goes on from there\n"
    assert {path.name for path in tmp_path.iterdir()} == {"batch.json", "cts"}
    assert len(list((tmp_path / "cts").iterdir())) == 2
    assert command(*line).document["cts"]["there"] == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (61, "61 s"), (120, "2 min"), (3600, "60 min"), (12_345, "3 h 20 min"), (200_000, "2 d 8 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
