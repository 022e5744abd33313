"""What a terminal is shown: no name is a command to it, and streams that take nothing end in one line."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_factory import tiny_cases, tiny_parts
from nodule_diag.bundle.bundle import write_bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag_cli import terminal
from nodule_diag_cli.terminal import printable

NODULE = ("--xyz", "-72", "-18", "-135")
EVIL = "a\x1b[2Jb\x9b31mc\u202ed\u2066e\x07f\rg"
"""Clears the screen, by 7 and by 8 bits; turns text round; rings; writes over the line."""
COMMANDS = ("\x1b", "\x9b", "\u202e", "\u2066", "\x07", "\r")
MARKUP = "[/x][bold]y[/bold]"
PROGRAM = (sys.executable, "-W", "error", "-m", "nodule_diag_cli")


def clean(text: str) -> bool:
    return not any(character in text for character in COMMANDS)


@given(st.text(st.characters(codec=None)))
def test_every_text_is_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert "".join(filter(str.isprintable, text)) in shown or not text.isprintable()
    shown.encode()  # no half of a surrogate pair is left
    assert printable(shown) == shown


def test_what_is_shown_instead() -> None:
    assert printable("\x1b[2J\u202e\x9b") == "\\x1b[2J\\u202e\\x9b"
    assert printable(os.fsdecode(b"\xff.nii")) == "\\xff.nii"
    assert printable("Lünge 肺 [/x] a\\b") == "Lünge 肺 [/x] a\\b"
    assert printable("a\nerror: b\u2028c") == "a\\nerror: b\\u2028c"


def test_nothing_else_in_this_package_writes_to_a_terminal() -> None:
    """One place: `terminal`. The help of a bare group is Typer's own text."""
    package = Path(terminal.__file__).parent
    wanted = {"terminal.py": 3, "main.py": 2}  # main flushes, and prints that help
    for path in package.glob("*.py"):
        tree = ast.parse(path.read_text())
        names = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        found = [
            node for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
            and node.value.attr in {"stdout", "stderr"} and node.attr in {"write", "flush", "writelines"}
        ]  # fmt: skip
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "Console"}, path
        assert "print_exc" not in names, path
        assert bool(found) == (path.name in wanted), path


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, phantom_ct: Path) -> dict[str, Path]:
    """A CT, nodules, a bundle and its case base, all with names that are commands."""
    folder = tmp_path_factory.mktemp("evil") / f"{EVIL}[x]"
    folder.mkdir()
    manifest, files = tiny_parts()
    cases = [
        case.model_copy(update={"case_id": f"{EVIL} {number}", "label_source": f"{MARKUP}{EVIL}"})
        for number, case in enumerate(tiny_cases(30))
    ]
    base = CaseBase.of(cases, name=EVIL, model_sha256=hashlib.sha256(files["model.onnx"]).hexdigest())
    base.save(folder / f"{EVIL}.sqlite")
    card = f"# x\n\n## What it is\n\n{EVIL} {MARKUP}\n".encode()
    named = manifest.model_copy(update={"training": {EVIL: [EVIL]}})  # other texts of a manifest must be printable
    bundle = write_bundle(folder / f"bundle{EVIL}", manifest=named, files=files | {"MODEL_CARD.md": card})
    ct = folder / f"ct{EVIL}.nii"
    ct.write_bytes(phantom_ct.read_bytes())
    nodules = folder / "nodules.json"
    nodules.write_text(json.dumps([{"id": f"{EVIL}{MARKUP}", "x": -72, "y": -18, "z": -135}]))
    return {"ct": ct, "bundle": bundle.path, "cases": folder / f"{EVIL}.sqlite", "nodules": nodules}


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "terminal"])
def test_names_that_are_commands(evil: dict[str, Path], rich: bool, tmp_path: Path) -> None:
    bundle = ("--bundle", evil["bundle"])
    table = tmp_path / f"table{EVIL}{MARKUP.replace('/', '')}.csv"
    table.write_text("case_id,patient\n")
    calls: dict[tuple[object, ...], int] = {
        ("predict", evil["ct"], "--nodules", evil["nodules"], *bundle, "--cases", evil["cases"]): 0,
        ("predict", evil["ct"], "--xyz", "0", "0", "9999", *bundle): 3,
        ("predict", f"{evil['ct']}{MARKUP}", *NODULE, *bundle): 3,
        ("predict", evil["ct"], *NODULE, "--nodules", f"{EVIL}{MARKUP}", *bundle): 2,
        ("predict", evil["ct"], *NODULE, f"--space={EVIL}{MARKUP}", *bundle): 2,
        ("info", *bundle, "--full"): 0,
        ("info", *bundle): 0,
        ("info", "--bundle", f"{EVIL}{MARKUP}"): 4,
        ("cases", "info", evil["cases"]): 0,
        ("cases", "info", f"{EVIL}{MARKUP}"): 4,
        ("cases", "build", table, "--out", tmp_path / "new", *bundle): 2,
        (f"{EVIL}{MARKUP}",): 2,
    }
    for words, code in calls.items():
        ended, text = shown(*words, terminal=rich)
        assert ended == code, (words, text)
        assert "Traceback" not in text
        assert "MarkupError" not in text
        assert "\x1b[2J" not in text
        # On a terminal rich's own commands stand beside: colours, the spinner's cursor, the ends of lines.
        assert clean(text.replace("\x1b", "").replace("\r", "") if rich else text), text


def shown(*words: object, terminal: bool, **environment: str) -> tuple[int, str]:
    """Exit code and everything that is shown, on a terminal or not."""
    settings = {
        "env": os.environ | {"PYTHONUTF8": "1", "COLUMNS": "100", "TERM": "xterm"} | environment,
        "stdin": subprocess.DEVNULL,
    }
    line = [*PROGRAM, *map(str, words)]
    if not terminal:
        ended = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **settings)  # type: ignore[call-overload]
        return ended.returncode, ended.stdout.decode()
    ours, theirs = pty.openpty()
    with subprocess.Popen(line, stdout=theirs, stderr=theirs, **settings) as process:  # type: ignore[call-overload]
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
    return process.returncode, text.decode()


def test_a_path_that_looks_like_markup_is_a_path(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    ct = tmp_path / "[" / "x].nii"
    ct.parent.mkdir()
    ct.write_bytes(phantom_ct.read_bytes())
    ended = command("predict", ct, *NODULE, "--bundle", tiny_bundle)
    assert ended.code == 0, ended.err
    assert "[/x].nii" in "".join(ended.out.split())
    code, text = shown("predict", ct, *NODULE, "--bundle", tiny_bundle, terminal=True)
    assert (code, "reading" in text) == (0, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_path_that_is_no_utf8(phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    ct = folder / "ct.nii"
    ct.write_bytes(phantom_ct.read_bytes())
    words = ("predict", ct, *NODULE, "--bundle", tiny_bundle, "--out", folder / "out")
    code, text = shown(*words, terminal=False)
    assert code == 0, text
    assert "\\xff\\xfe" in "".join(text.split())
    code, text = shown(*words, "--json", terminal=False)
    assert code == 0, text
    assert text.isascii()
    assert json.loads(text)["ct"]["path"] == str(ct)
    assert json.loads((folder / "out" / "prediction.json").read_text()) | {"timing_ms": 0} == json.loads(text) | {
        "timing_ms": 0
    }


def test_a_traceback_is_printable_too(tmp_path: Path) -> None:
    code, text = shown("info", "--bundle", f"{EVIL}", terminal=False, NODULE_DIAG_DEBUG="1")
    assert code == 1
    assert "Traceback" in text
    assert "\\x1b[2J" in text
    assert clean(text)


STREAMS = {
    "stdout is full": (">/dev/full", "error: cannot write to standard output: No space left on device\n"),
    "stdout is closed": (">&-", "error: standard output is closed; send it to a file, or to /dev/null\n"),
    "the reader has gone": (">&3", ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(
    "words", ["info", "info --json", "--help", "--version", "cases info", "info --bundle absent --json"]
)
def test_a_stdout_that_takes_nothing(name: str, words: str, tmp_path: Path) -> None:
    """One line at most, exit code 1 (or the error's own), never a traceback."""
    where, said = STREAMS[name]
    code = 4 if "absent" in words and name != "stdout is closed" else 1
    ended = _shell(f"exec 3> >(true); wait $!; $PROGRAM {words} {where}", tmp_path)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.decode() in {said, ""} if "gone" in name else ended.stderr.decode() == said


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_a_stderr_that_takes_nothing(where: str, tmp_path: Path) -> None:
    """The exit code still says what happened, and stdout is whole."""
    ended = _shell(f"$PROGRAM info --bundle absent {where}", tmp_path)
    assert (ended.returncode, ended.stdout) == (4, b"")
    ended = _shell(f"$PROGRAM info --json {where}", tmp_path)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["schema"] == "nodule-diag/info/1"


def test_a_file_never_becomes_stdout(phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """With 0, 1 and 2 closed, the next file that is opened would be one of them."""
    ended = _shell(
        f"$PROGRAM predict {phantom_ct} {' '.join(NODULE)} --bundle {tiny_bundle} --out out <&- >&- 2>&-", tmp_path
    )
    assert ended.returncode == 1
    ended = _shell(
        f"$PROGRAM predict {phantom_ct} {' '.join(NODULE)} --bundle {tiny_bundle} --out out <&- 2>&- >text", tmp_path
    )
    assert ended.returncode == 0
    assert "Wrote 3 files" in (tmp_path / "text").read_text()


def _shell(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PROGRAM": " ".join(PROGRAM)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, env=environment, capture_output=True, check=False
    )


def test_warnings_are_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    """As the cache's, where others may write: shown as this program shows things, not as Python does."""
    code = (
        "import sys, warnings; from nodule_diag_cli import terminal; terminal.take_streams();"
        "warnings.warn('a\\x1b[2J\\nb', RuntimeWarning)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stderr == b"warning: a\\x1b[2J b\n"
