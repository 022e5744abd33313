"""The tables of the pages are those that the committed results give, to the byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nodule_diag_training.experiments.tables import TABLES, make_table

LARGEST_BYTES = 2_000_000
SLOW = ("1", "4", "6")
RESULTS = Path("results") / "experiments"


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TABLES])
def test_a_page_is_what_its_command_makes(number, repo_root, monkeypatch):
    page = Path("docs") / "tables" / f"table-{number}.md"
    command = f"nodule-diag train table {number} --results {RESULTS} --out {page}"
    monkeypatch.chdir(repo_root)
    assert make_table(number, RESULTS, command=command) == page.read_text()


def test_the_results_stay_small(repo_root):
    """What git holds of them; no file of them is ignored."""
    git = ["git", "-C", os.fspath(repo_root)]
    listed = subprocess.run([*git, "ls-files", "-z", "results"], capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    files = [repo_root / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert sum(file.stat().st_size for file in files) <= LARGEST_BYTES
    assert sum(file.suffix == ".npz" for file in files) >= 155
    ignored = subprocess.run([*git, "check-ignore", "--", *map(os.fspath, files)], capture_output=True, check=False)
    assert not ignored.stdout
