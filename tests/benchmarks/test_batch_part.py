"""``bench batch`` in miniature: every way runs, and Ray that does not start is a note and no failure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra bench is not installed")

from benchmarks import part_batch
from benchmarks.child import ChildError, ChildRun
from benchmarks.results import read_part
from nodule_diag_cli.main import run


@pytest.mark.slow
def test_the_command(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = part_batch.run_module

    def without_ray(words: list[str]) -> ChildRun:
        if "ray" in words:
            raise ChildError("Ray cannot be started", hint="-")
        return real(words)

    monkeypatch.setattr(part_batch, "run_module", without_ray)
    monkeypatch.setattr(part_batch, "find_spec", lambda _: object())
    out = tmp_path / "batch.json"
    assert run(["bench", "batch", "--quick", "--bundle", str(tiny_bundle), "--threads", "2", "--out", str(out)]) == 0
    found = read_part(out)
    (table,) = found.tables
    assert table.values("engine") == ["local"] * 5
    assert [*zip(table.values("cores"), table.values("workers"), table.values("threads"), strict=True)] == [
        (1, 1, 1), (2, 2, 1), (2, 1, 1), (2, 1, 2), (2, 2, 1)
    ]  # fmt: skip
    assert all(rate > 0 for rate in table.values("cts"))  # type: ignore[operator]
    assert found.notes == ("Left out: Ray cannot be started",)
    assert len(found.checks) == 2
