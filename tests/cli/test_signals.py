"""A command that is asked to end: nothing half written stays, and the exit code says by what."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

ASKED = """
import os, signal, sys
from nodule_diag_cli import main
import nodule_diag.results as results
number = int(sys.argv.pop(1))
signal.signal(number, signal.SIG_DFL)  # also where the tests run under nohup
def asked(*_, **__):
    os.kill(os.getpid(), number)
    for _ in range(10**7): pass
    sys.exit("went on")
{where} = asked
sys.argv[0] = "nodule-diag"
main.main()
"""
IN_WORK = {
    "predict": ("results.write_segmentation", ("predict", "CT", "--xyz", "-72", "-18", "-135", "--out", "DIR")),
    "cases": ("import nodule_diag.cases.base as b; b.check_rows", ("cases", "build", "TABLE", "--out", "DIR/a.sqlite")),
    "demo": ("import nodule_diag.ct as ct; ct.chest_phantom", ("demo", "--out", "DIR")),
}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", IN_WORK)
def test_what_is_half_written_goes(
    command: str, name: str, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    number = signal.Signals[name]
    where, words = IN_WORK[command]
    before, _, attribute = where.rpartition("; ")
    code = ASKED.format(where=f"{before}\n{attribute}" if before else attribute)
    out, table = tmp_path / "out", tmp_path / "table.csv"
    out.mkdir()
    table.write_text("case_id,patient,label,malignancy,expert_score\na,p,1,0.5,3\n")
    places = {"CT": str(phantom_ct), "DIR": str(out), "TABLE": str(table), "DIR/a.sqlite": str(out / "a.sqlite")}
    line = [sys.executable, "-c", code, str(int(number)), *(places.get(word, word) for word in words), "--bundle"]
    ended = subprocess.run([*line, str(tiny_bundle)], cwd=tmp_path, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr.decode()) == (128 + number, f"error: ended by {name}\n")
    assert list(out.iterdir()) == []
    if command == "predict":
        ended = subprocess.run([*line, str(tiny_bundle), "--json"], cwd=tmp_path, capture_output=True, check=False)
        assert ended.returncode == 128 + number
        assert json.loads(ended.stdout)["error"] == {"code": "terminated", "message": f"ended by {name}", "hint": ""}


def test_an_error_that_a_signal_became_is_the_signal() -> None:
    """As when it interrupts native code that imports a module: that raises ImportError in its place."""
    code = (
        "import os, signal, sys; import nodule_diag_cli.main as m\n"
        "def interrupted(words):\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException: raise ImportError('could not be loaded') from None\n"
        "m._run = interrupted; sys.argv = ['nodule-diag', 'info']; m.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (143, b"error: ended by SIGTERM\n")


def test_what_is_ignored_stays_so(tiny_bundle: Path) -> None:
    """As under nohup."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); import nodule_diag_cli.main as m;"
        "m._run, run = lambda words: (os.kill(os.getpid(), signal.SIGHUP), run(words))[1], m._run;"
        f"sys.argv = ['nodule-diag', 'info', '--json', '--bundle', {str(tiny_bundle)!r}]; m.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)


def test_a_signal_waits_until_the_change_is_done() -> None:
    """In a process of its own: this one is a worker of the test run, which a signal would take along."""
    code = """
import signal
from nodule_diag_cli import signals
done = []
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signals.install()
try:
    with signals.uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        done.append("the change")
except signals.Terminated as ended:
    assert (str(ended), ended.exit_code) == ("ended by SIGTERM", 143)
    done.append("the end")
signal.raise_signal(signal.SIGTERM)  # a second one does not interrupt the cleaning up
print(*done, sep=", ")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"the change, the end\n", b"")
