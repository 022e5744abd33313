"""Kills ``nodule-diag cases build`` of 1,000 cases again and again: ``python tests/thousand_cases.py``, outside CI.

The network is a tiny one, and the CTs are 100 phantoms of ten positions each. The build is killed (SIGKILL) once so
many cases are done, gone on with, and killed again. In the end its file must have the bytes of one that nobody
disturbed, and each run must have kept what the one before had done.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from bundle_factory import make_tiny_bundle
from nodule_diag.ct.phantom import chest_phantom
from nodule_diag_cli.demo import write_ct

CTS, POSITIONS = 100, 10
KILL_AFTER = (1, 60, 150, 151, 420, 777, 930, 990)
"""Cases that are in the unfinished file when the kill comes."""


def table(folder: Path) -> Path:
    """1,000 nodules on 100 phantoms, no two alike."""
    lines, random = ["case_id,patient,label,method,path,x,y,z"], np.random.default_rng(0)
    for number in range(CTS):
        phantom = chest_phantom(spacing_zyx_mm=(5.0, 4.5, 4.5 + number / 1000))
        write_ct(folder / f"ct{number:03}.nii", phantom.ct)
        for position in range(POSITIONS):
            x, y, z = np.array(phantom.nodules[position % 3].center_xyz_mm) + random.uniform(-6, 6, 3)
            label = (number + position) % 2
            lines.append(
                f"n{number:03}-{position},p{number:03},{label},biopsy,ct{number:03}.nii,{x:.2f},{y:.2f},{z:.2f}"
            )
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def start(rows: Path, out: Path, bundle: Path) -> subprocess.Popen[bytes]:
    words = ["cases", "build", rows, "--out", out, "--bundle", bundle, "--json"]
    return subprocess.Popen([sys.executable, "-m", "nodule_diag_cli", *map(str, words)], stdout=subprocess.PIPE)


def done(out: Path) -> int:
    """Cases in the unfinished file, of which a copy is opened: the journal is for the next run to play back."""
    with tempfile.TemporaryDirectory() as name:
        try:
            copy = shutil.copytree(out.with_name(f".{out.name}.building"), Path(name, "copy"))
            with closing(sqlite3.connect(copy / "cases.sqlite")) as base:
                return int(base.execute("SELECT count(*) FROM cases").fetchone()[0])
        except (OSError, shutil.Error, sqlite3.Error):  # it is not there yet, or was being written
            return 0


def finished(process: subprocess.Popen[bytes]) -> dict[str, object]:
    stdout, _ = process.communicate()
    assert process.returncode == 0, stdout
    document: dict[str, object] = json.loads(stdout)
    return document


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny_bundle(bundle := folder / "bundle")
        rows = table(folder)
        finished(start(rows, folder / "whole.sqlite", bundle))
        out = folder / "out.sqlite"
        kept = 0
        for count in KILL_AFTER:
            process = start(rows, out, bundle)
            while done(out) < count:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            assert not out.exists()
            assert done(out) >= max(count, kept)
            kept = done(out)
            sys.stdout.write(f"killed with {kept} cases done\n")
        document = finished(start(rows, out, bundle))
        assert document["there"] == kept, document
        assert document["added"] == CTS * POSITIONS - kept, document
        assert out.read_bytes() == (folder / "whole.sqlite").read_bytes()
        sys.stdout.write(f"{CTS * POSITIONS} cases, the same bytes as undisturbed; the last run kept {kept}\n")


if __name__ == "__main__":
    main()
