"""The page: every number of the JSON, none beside, and plots that are drawn."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from benchmarks.report import number, page, write_report
from benchmarks.results import Part
from nodule_diag.errors import UsageError


def test_page(part: Part) -> None:
    text = page([part], plots="plots")
    lines = text.splitlines()
    assert "| fast enough | 12.3 ms | at most 20 ms | holds | predict |" in lines
    assert "| far ahead | 3 | at least 5 | **missed** | predict |" in lines
    assert r"| way | p50 \| ms | ok |" in lines
    assert "| fast | 12.3 | yes |" in lines
    assert "| slow | 123,457 | no |" in lines
    assert "| none | – | – |" in lines
    assert "| 1 | b | 1e-04 |" in lines
    assert "`nodule-diag bench predict --threads 2`" in lines
    assert "![Ways](plots/ways.png)" in lines
    assert "Read me." in lines
    assert "- bf16 was left out: no such CPU" in lines
    assert "- Imaginary 9000 (avx2, amx_bf16), 2 cores, 16 GiB; 2 threads; Linux 6" in lines
    assert "not quiet" not in text
    assert "--quick" not in text


def test_tables_have_as_many_cells_as_heads(part: Part) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", page([part], plots="p"), flags=re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block


def test_a_busy_machine_and_a_quick_run_are_told(part: Part) -> None:
    busy = replace(part.environment, load_average=(1.5, 1.0, 1.0))
    text = page([replace(part, environment=busy, quick=True)], plots="p")
    assert "The machine was not quiet." in text
    assert "their numbers only show that they work" in text


def test_writes_page_and_plots(part: Part, tmp_path: Path) -> None:
    write_report([part], out=tmp_path / "docs" / "bench.md", plots=tmp_path / "docs" / "plots")
    text = (tmp_path / "docs" / "bench.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\((plots/.*?\.png)\)", text):
        image = matplotlib.image.imread(tmp_path / "docs" / name)
        assert image.shape[1] > 500
        assert image[..., :3].std() > 0.05, "not an empty page"
    assert sorted(path.name for path in (tmp_path / "docs" / "plots").iterdir()) == ["growth.png", "ways.png"]


def test_the_same_results_give_the_same_page_and_pictures(part: Part, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([part], out=tmp_path / name / "page.md", plots=tmp_path / name / "plots")
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    )
    assert first == second


@pytest.mark.parametrize("count", [0, 2])
def test_each_part_once(part: Part, tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match="a page takes each once"):
        write_report([part] * count, out=tmp_path / "page.md", plots=tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0"), (7, "7"), (1234567, "1,234,567"), (99.96, "100"), (0.00123, "0.00123"), (4.768e-7, "5e-07")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
