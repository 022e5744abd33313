"""Nothing that says whose CT it is: no path, no file name, no UID."""

from __future__ import annotations

import json
import re
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nodule_diag as nd
from nodule_diag.ct.dicom_source import DicomSource, SetAside
from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.results.redaction import _ALWAYS, _EXTENSIONS, REDACTED, Redaction

UID = "1.2.840.113619.2.55.3.604688119"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "Schmidt Anna 1951" / "IMAGES"
    folder.mkdir(parents=True)
    for name in ("IM0001", "thin slice 2", "17", f"CT.{UID}"):
        (folder / name).write_bytes(b"x")
    return folder.parent


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("{ct} does not exist", "[redacted] does not exist"),
        ("{ct}/IMAGES/IM0001 is cut short", "[redacted] is cut short"),
        ("IM0001 and thin slice 2 of IMAGES are left out", "[redacted] and [redacted] of [redacted] are left out"),
        (f"series {UID} has 17 slices", "series [redacted] has 17 slices"),
        (f"give --series {UID}, or {UID}.1", "give --series [redacted], or [redacted]"),
        ("another patient, 'Schmidt^Anna', in slice 3", "another patient, [redacted], in slice 3"),
        ("/data/x y.nii: permission denied", "[redacted] [redacted]: permission denied"),
        ("scan.nii.gz, a.DCM and C:\\pacs\\1 are bad", "[redacted], [redacted] and [redacted] are bad"),
        ("spacing 0.7 x 0.7 x 5.0 mm; SDK 0.2.0, TensorRT 10.3.0.26", None),
        ("the user's cache, the CT's grid: x -57.25 to 486 mm", None),
        ("slices lie 3.5 mm apart, 2 are missing at z -120.5 and -117", None),
    ],
)
def test_what_is_left_out(series: Path, said: str, told: str | None) -> None:
    said = said.format(ct=series)
    assert Redaction(series).text(said) == (said if told is None else told)


def test_names_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "anna.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Schmidt Anna/IM7", b"x")
    said = Redaction(path).text("anna.zip: Schmidt Anna/IM7 is cut short; IM7 of anna is left out")
    assert said == f"{REDACTED}: {REDACTED} is cut short; {REDACTED} of {REDACTED} is left out"
    path.write_bytes(b"PK\x05\x06 damaged")
    assert Redaction(path).text("anna.zip is damaged") == f"{REDACTED} is damaged"


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=4))
def test_any_text_and_any_name(text: str, names: list[str]) -> None:
    once = Redaction(*names).text(text)
    for name in names:
        if len(name) > 2 and name.isalpha():
            assert name not in once.replace(REDACTED, " ").split()


PLAIN = re.compile(
    r"(?<![\w.])[0-2](?:\.\d+){4,}(?![\w.]*\w)|(?<!\w)'[^']*'(?!\w)|(?<!\w)\"[^\"]*\"(?!\w)"
    rf"|(?<![\w.])(?:[A-Za-z]:\\|~?/)[^\s,;:'\"()]+|[^\s'\"()]*\.(?:{_EXTENSIONS})\b",
    re.IGNORECASE,
)
"""What is removed, in the plainest words: a long word takes it seconds."""
PARTS = [*"'\"( .:,-=x_1é/~\\", ".nii", "a.dcm", "C:\\", "~/", "/a", "1.2.3.4.5", ".6", "\n"]


@given(st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
def test_all_that_the_plain_pattern_removes(text: str) -> None:
    removed, wanted = ({at for found in one.finditer(text) for at in range(*found.span())} for one in (_ALWAYS, PLAIN))
    assert removed >= wanted


@pytest.mark.parametrize(
    "part", ["a", "a.", "a.nii_", "1.", "1.1", ".1", "/a:", "C:\\", "~/", "'a", '"', "' ", "1.nii-"]
)
@pytest.mark.parametrize("begin", ["", "1.1", "/", "'"])
@pytest.mark.parametrize("end", ["", "é", "."])
def test_long_words_take_no_time(begin: str, part: str, end: str) -> None:
    started = time.process_time()
    Redaction().text(begin + part * 20_000 + end)
    assert time.process_time() - started < 2


def test_a_document(tiny_bundle: Path, series: Path) -> None:
    source = DicomSource(UID, UID, UID, (), (SetAside("gone/REPORT", "a report"),))
    ct = replace(
        made_up_ct(),
        path=str(series),
        warnings=(f"IM0001 of series {UID} was set aside: no image", "3.5 mm apart", "gone/REPORT too"),
        dicom=source,
    )
    diagnoser = Diagnoser.load(tiny_bundle, device="cpu", threads=1)
    timed = diagnoser.predict_timed(ct, [(0.0, 0.0, 0.0)], ids=["left"])
    plain = json.dumps(nd.prediction_document(ct, timed))
    told = nd.prediction_document(ct, timed, redact=True)
    text = json.dumps(told)
    for secret in ("Schmidt", "Anna", "1951", "IM0001", "REPORT", UID, str(series.parent)):
        assert secret not in text
    assert "IM0001" in plain
    assert told["ct"]["path"] == REDACTED  # type: ignore[index]
    assert told["ct"]["series_uid"] is None  # type: ignore[index]
    said = [f"{REDACTED} of series {REDACTED} was set aside: no image", "3.5 mm apart", f"{REDACTED} too"]
    assert told["ct"]["warnings"] == told["nodules"][0]["warnings"][:3] == said  # type: ignore[index]
    (result,) = diagnoser.predict_batch([nd.Scan(ct, [(0.0, 0.0, 0.0)])])
    assert "IM0001" not in json.dumps(result.document(redact=True))
