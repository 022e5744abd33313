"""Fills the README's printed prediction: ``python docs/make/readme_output.py``, or ``make pages``.

It makes the phantom, runs the very command that stands above the block, and takes the first table that it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
COMMAND = re.compile(r"^nodule-diag predict (demo/phantom\.nii .*)$", re.MULTILINE)
BLOCK = re.compile(r"(?<=<!-- predict -->\n```\n).*?(?=```\n<!-- /predict -->)", re.DOTALL)


def printed(readme: str) -> str:
    """What the README's command prints, without the spaces at the ends of lines."""
    match = COMMAND.search(readme)
    if match is None:
        raise ValueError("the README has no line that begins with: nodule-diag predict demo/phantom.nii")
    program = [sys.executable, "-m", "nodule_diag_cli"]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (["demo", "--out", "demo"], ["predict", *match[1].split()]):
            done = subprocess.run(
                [*program, *arguments], cwd=folder, env=environment, check=True, capture_output=True, encoding="utf-8"
            )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def first_table(text: str) -> str:
    """Everything before the first empty line."""
    return text.partition("\n\n")[0] + "\n"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    shown = first_table(printed(text))
    README.write_text(BLOCK.sub(lambda _: shown, text), encoding="utf-8")
