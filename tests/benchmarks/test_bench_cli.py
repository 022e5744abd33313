"""``nodule-diag bench`` with ``--quick`` on the small phantom, as far as a tiny network goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra bench is not installed")
pytest.importorskip("faiss", reason="the extra bench is not installed")

from benchmarks.cli import PARTS
from benchmarks.everything import done_before
from benchmarks.part_growth import stretched
from benchmarks.results import Part, read_part
from benchmarks.subject import Settings, opened, small_chest
from nodule_diag.errors import UsageError
from nodule_diag.preprocessing.lungs import lung_mask
from nodule_diag_cli.main import run


def bench(*words: object) -> int:
    return run(["bench", *map(str, words)])


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("serve", "load")]


@pytest.mark.parametrize("name", ["predict", "growth", "dicom", "retrieval", "roofline", *SLOW])
def test_parts(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.json"
    assert bench(name, "--quick", "--bundle", tiny_bundle, "--threads", 1, "--out", out) == 0
    found = read_part(out)
    assert (found.part, found.quick) == (name, True)
    assert found.command == f"nodule-diag bench {name} --bundle tiny --threads 1 --quick"
    assert str(tiny_bundle) not in found.to_json(), "nobody's folders"
    assert all(table.rows for table in found.tables)
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.name
        if table.plot:
            keys = {column.key for column in table.columns}
            assert {table.plot.x, *table.plot.y} <= keys


def test_all_is_kept_and_taken_up_again(tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["all", "--quick", "--bundle", tiny_bundle, "--threads", 1, "--part", "cold", "--out", tmp_path / "found"]
    assert bench(*words) == 0
    said = capfd.readouterr().err
    assert "cold: done" in said
    written = (tmp_path / "found" / "cold.json").read_bytes()
    assert bench(*words) == 0
    assert "cold: kept" in capfd.readouterr().err
    assert (tmp_path / "found" / "cold.json").read_bytes() == written
    cold = read_part(tmp_path / "found" / "cold.json")
    memory = dict(zip(cold.tables[0].values("command"), cold.tables[0].values("peak_mib"), strict=True))
    assert memory["predict --help"] < memory["predict, .nii"]

    report = tmp_path / "docs" / "bench.md"
    assert bench("report", tmp_path / "found" / "cold.json", "--out", report, "--plots", tmp_path / "docs") == 0
    assert "nodule-diag bench cold" in report.read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "cold.png").is_file()


def test_a_report_takes_every_part(part: Part, tmp_path: Path) -> None:
    for name in ("cpp", "load", "cold"):
        replace(part, part=name, title=f"Of {name}").write(tmp_path / f"{name}.json")
    files = [tmp_path / f"{name}.json" for name in ("cpp", "load", "cold")]
    assert bench("report", *files, "--out", tmp_path / "page.md", "--plots", tmp_path) == 0
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## Of ")] == [
        "## Of cold",
        "## Of load",
        "## Of cpp",
    ]


def test_a_failed_part_is_named_after_the_others_ran(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = bench("all", "--quick", "--bundle", tmp_path / "none", "--part", "cold", "--out", tmp_path / "found")
    assert code == 1
    assert "cold failed" in capfd.readouterr().err


def test_what_was_asked_for_otherwise_is_not_done(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    part.write(path)
    assert done_before(path, Settings()) is None
    path.write_text("{")
    assert done_before(path, Settings()) is None
    assert done_before(tmp_path / "none.json", Settings()) is None


def test_unknown_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("all", "--part", "speed", "--out", tmp_path) == 2
    assert ", ".join(PARTS) in capfd.readouterr().err


def test_a_file_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path, tmp_path / "absent" / "dicom.json"):
        assert bench("dicom", "--out", out) == 1
        assert "is not a file that can be written" in capfd.readouterr().err


def test_ct_and_xyz_go_together(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("predict", "--ct", "scan.nii") == 2
    assert "go together" in capfd.readouterr().err
    with pytest.raises(UsageError, match="go together"), opened(Settings(xyz_mm=(0.0, 0.0, 0.0))):
        pass


def test_the_small_chest_has_lungs_and_its_nodule_in_them() -> None:
    phantom = small_chest()
    mask = lung_mask(phantom.ct)
    assert not mask.warnings
    assert mask.contains(phantom.nodules[0].center_xyz_mm)


def test_stretching_keeps_the_place() -> None:
    phantom = small_chest()
    made = stretched(phantom.ct, 40)
    assert made.hu.shape[0] == 40
    old, new = phantom.ct, made
    assert new.spacing_zyx_mm[0] * 39 == pytest.approx(old.spacing_zyx_mm[0] * (old.hu.shape[0] - 1))
    assert np.array_equal(new.hu[0], old.hu[0])
    assert np.array_equal(new.hu[-1], old.hu[-1])
    at = 20 * (old.hu.shape[0] - 1) / 39
    wanted = np.interp(at, range(old.hu.shape[0]), old.hu[:, 60, 60])
    assert new.hu[20, 60, 60] == pytest.approx(wanted, abs=0.51)
