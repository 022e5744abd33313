"""``predict`` with a report, DICOM objects and a PACS: what is written, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ct_files as make
from dicom_in_every_position import series

POINT = ("--xyz", "6", "46", "-101")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.save_series(tmp_path_factory.mktemp("ct") / "DOE_JANE", series())


def test_report_and_objects(command: Any, folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report, objects = tmp_path / "report.html", tmp_path / "objects"
    ended = command(
        "predict", folder, *POINT, "--bundle", tiny_bundle, "--report", report, "--dicom-out", objects, "--json"
    )
    assert ended.code == 0
    assert ended.document["nodules"]
    page = report.read_text(encoding="utf-8")
    assert "phantom" not in page
    assert "DOE_JANE" not in page
    assert (objects / "measurements.dcm").is_file()
    again = command("predict", folder, *POINT, "--bundle", tiny_bundle, "--dicom-out", objects)
    assert again.code == 1
    assert "another run" in again.err


def test_identity_where_it_is_asked_for(command: Any, folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    ended = command("predict", folder, *POINT, "--bundle", tiny_bundle, "--report", report, "--identity")
    assert ended.code == 0
    assert f"Wrote {report}" in ended.out.replace("\n", "")
    assert "phantom" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options",
    [
        ("--identity",),
        ("--redact", "--report", "r.html", "--identity"),
        ("--redact", "--dicom-out", "objects"),
        ("--store",),
        ("--study", "1.2"),
        ("--dicomweb", "http://127.0.0.1:9/"),
    ],
)
def test_options_that_contradict_each_other(command: Any, folder: Path, options: tuple[str, ...]) -> None:
    assert command("predict", folder, *POINT, *options).code == 2


def test_no_ct_at_all(command: Any) -> None:
    assert command("predict", *POINT).code == 2


def test_nobody_at_the_address(command: Any, tiny_bundle: Path) -> None:
    ended = command(
        "predict", "--dicomweb", "http://127.0.0.1:9/x", "--study", "1.2", "--series", "1.3", *POINT,
        "--bundle", tiny_bundle, "--json",
    )  # fmt: skip
    assert ended.code == 6
    assert ended.document["error"]["code"] == "pacs-unreachable"


def test_an_answer_is_not_lost_when_the_pacs_refuses(
    command: Any, folder: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nodule_diag.pacs as room
    from nodule_diag.ct import MemoryFile
    from nodule_diag.errors import PacsError

    files = tuple(MemoryFile(path.name, path, data=path.read_bytes()) for path in sorted(folder.iterdir()))

    class Refusing:
        def __init__(self, url: str) -> None: ...

        def fetch(self, *_: object, **__: object) -> room.FetchedSeries:
            return room.FetchedSeries("a server", files)

        def store(self, _: object) -> None:
            raise PacsError("no space left", code="pacs-full", hint="tidy up")

    monkeypatch.setattr(room, "Pacs", Refusing)
    ended = command(
        "predict", "--dicomweb", "http://x/", "--study", "1.2", "--series", "1.3", *POINT, "--bundle", tiny_bundle,
        "--store", "--json",
    )  # fmt: skip
    assert ended.code == 6
    assert ended.document["error"]["code"] == "pacs-full"
    assert len(ended.document["prediction"]["nodules"]) == 1
