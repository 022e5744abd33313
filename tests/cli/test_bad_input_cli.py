"""Every input of docs/bad-input.md, through the command line: exit code, both forms of the error, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bad_inputs import CASES, POINTS, point_ct

ANYWHERE = ("--xyz", "-10", "20", "-120")


def check(command: Any, words: tuple[object, ...], *, exit_code: int, code: str, says: tuple[str, ...]) -> None:
    ended = command(*words, "--json")
    assert ended.code == exit_code
    assert ended.err == ""
    error = ended.document["error"]
    assert error["code"] == code
    for text in says:
        assert text in f"{error['message']} {error['hint']}"
    plain = command(*words)
    assert plain.code == exit_code
    assert plain.out == ""
    assert plain.err == f"error: {error['message']}\nhint: {error['hint']}\n"


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_refused(bad: Any, command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    series = ("--series", bad.series) if bad.series else ()
    acquisition = ("--acquisition", bad.acquisition) if bad.acquisition is not None else ()
    words = ("predict", bad.build(tmp_path), *ANYWHERE, "--bundle", tiny_bundle, *series, *acquisition)
    check(command, words, exit_code=bad.exit_code, code=bad.code, says=bad.says)


@pytest.mark.parametrize("bad", [bad for bad in POINTS if "mirrored" not in bad.name], ids=lambda bad: bad.name)
def test_point_refused(bad: Any, command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """Mirrored points need lungs: test_main.py has a chest for them."""
    words = ("predict", point_ct(tmp_path), "--xyz", *bad.xyz, "--bundle", tiny_bundle)
    check(command, words, exit_code=3, code=bad.code, says=bad.says)
