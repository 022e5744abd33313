"""``--redact``: the document, the table, errors and what is written name no file and no UID."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ct_files

NODULE = ("--space", "voxel", "--xyz", "14", "16", "6")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "Schmidt_Anna"
    folder.mkdir()
    return ct_files.save_series(folder / "thorax 1951", ct_files.dicom_slices(), name="SCHM{:04d}".format)


SECRETS = ("Schmidt", "Anna", "thorax 1951", "SCHM", ct_files.UID_ROOT)


def test_a_result(command: Any, series: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("predict", series, *NODULE, "--bundle", tiny_bundle, "--out", series.parent / "out")
    plain, shown = command(*words, "--json"), command(*words)
    assert all(secret in plain.out for secret in ("Schmidt", ct_files.UID_ROOT))
    assert "Schmidt" in shown.out
    for more in ((), ("--json",)):
        ended = command(*words, "--redact", *more)
        assert ended.code == 0, ended.err
        assert not any(secret in ended.out + ended.err for secret in SECRETS)
    assert not any(secret in (series.parent / "out" / "prediction.json").read_text() for secret in SECRETS)
    document = json.loads(ended.out)
    assert (document["ct"]["path"], document["ct"]["series_uid"]) == ("[redacted]", None)


def test_the_report_and_the_positions(command: Any, series: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    filtered = ("--where", "not patient_id = 'Schmidt-1950'")
    words = ("predict", series, *NODULE, "--bundle", tiny_bundle, *filtered)
    written = [tmp_path / name for name in ("report.html", "nodules.csv")]
    for more in ((), ("--redact",)):
        ended = command(*words, "--report", written[0], "--positions-out", written[1], *more)
        assert ended.code == 0, ended.err
        assert ("Schmidt" in written[0].read_text()) is not bool(more)
    assert not any(secret in path.read_text() for path in written for secret in SECRETS)


def test_errors(command: Any, series: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    broken = series / "SCHM0003"
    broken.write_bytes(broken.read_bytes()[:-2000])
    points = series.parent / "Anna nodules.csv"
    points.write_text("x,y\n1,2\n")
    bundle = ("--bundle", tiny_bundle)
    for words in (
        ("predict", series, *NODULE, *bundle),
        ("predict", series.parent / "Anna.nii", *NODULE, *bundle),
        ("predict", series, "--nodules", points, *bundle),
        ("predict", series, "--series", f"{ct_files.UID_ROOT}.99", *NODULE, *bundle),
        ("predict", series, *NODULE, "--bundle", series.parent / "Anna.zip"),
        ("predict", series, *NODULE, *bundle, f"--cases={series.parent / 'Anna.sqlite'}"),
    ):
        plain = command(*words)
        assert plain.code != 0, words
        assert any(secret in plain.err for secret in SECRETS), plain.err
        for more in ((), ("--json",)):
            ended = command(*words, "--redact", *more)
            assert ended.code == plain.code
            assert not any(secret in ended.out + ended.err for secret in SECRETS), ended.out + ended.err
            assert "[redacted]" in ended.out + ended.err


def test_an_id_that_names_someone(command: Any, series: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text(f"id,x,y,z\n1,1,2,3\n{ct_files.UID_ROOT}.7,1,2,4\n")
    ended = command("predict", series, "--nodules", points, "--redact", "--json")
    assert ended.code == 2
    assert "the id of nodule 2" in ended.out
    assert ct_files.UID_ROOT not in ended.out + ended.err
