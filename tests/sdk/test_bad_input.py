"""Every input that must be refused is refused, for the reason documented: docs/bad-input.md is made here."""

import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bad_inputs import CASES, MANIFESTS, POINTS, POSITIONS, BadInput, BadPoint, BadPositions, point_ct
from nodule_diag.ct import points as geometry
from nodule_diag.ct.grid import MAX_SPACING_MM, WARN_SPACING_MM
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CoordinateError, CTError, NoduleDiagError, UsageError
from nodule_diag.exchange import read_positions
from nodule_diag.fleet import read_manifest

UPDATE = "NODULE_DIAG_UPDATE_DOCS"
MEMORY_BYTES = 64 * 2**20

INTRODUCTION = f"""# Inputs that are refused

A CT that cannot be diagnosed from is refused, with an exit code, a code for programs and a message that names what is
wrong. This page is made by the test that checks it: `{UPDATE}=1 pytest tests/sdk/test_bad_input.py`.

Slices may be up to {MAX_SPACING_MM:g} mm apart; above {WARN_SPACING_MM:g} mm, which is outside the paper's data, the
result carries a warning.

"""


def refused(bad: BadInput, folder: Path) -> NoduleDiagError:
    path = bad.build(folder)
    with pytest.raises(NoduleDiagError) as caught:
        read_ct(path, series=bad.series, acquisition=bad.acquisition)
    return caught.value


def refused_point(bad: BadPoint, ct: CTVolume) -> CoordinateError:
    with pytest.raises(CoordinateError) as caught:
        geometry.require_inside(ct, bad.xyz, in_lung=lambda _: bad.in_lung)
    return caught.value


def refused_positions(bad: BadPositions, folder: Path) -> NoduleDiagError:
    path = folder / bad.file
    path.write_text(bad.text)
    with pytest.raises(NoduleDiagError) as caught:
        read_positions(path, ct=read_ct(point_ct(folder)), space=bad.space)
    return caught.value


def refused_manifest(bad: BadPositions, folder: Path) -> NoduleDiagError:
    path = folder / bad.file
    path.write_text(bad.text)
    with pytest.raises(NoduleDiagError) as caught:
        read_manifest(path)
    return caught.value


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_refused_with_its_own_code_and_message(bad, tmp_path, capfd):
    error = refused(bad, tmp_path)

    assert (error.code, error.exit_code) == (bad.code, bad.exit_code)
    assert isinstance(error, UsageError if bad.exit_code == 2 else CTError)
    assert isinstance(error, ValueError)
    for words in bad.says:
        assert words in str(error)
    assert "\n" not in str(error)
    assert error.hint
    # Neither ITK nor GDCM nor MetaIO may talk past us.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bad", POINTS, ids=lambda bad: bad.name)
def test_point_refused(bad, tmp_path):
    error = refused_point(bad, read_ct(point_ct(tmp_path)))

    assert (error.code, error.exit_code) == (bad.code, 3)
    for words in bad.says:
        assert words in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("refusal", "bad"),
    [(refused_positions, bad) for bad in POSITIONS] + [(refused_manifest, bad) for bad in MANIFESTS],
    ids=lambda one: getattr(one, "file", ""),
)
def test_tables_refused(refusal, bad, tmp_path):
    error = refusal(bad, tmp_path)

    assert (error.code, error.exit_code) == (bad.code, bad.exit_code)
    assert bad.says in str(error)
    assert bad.file in str(error)
    assert "\n" not in str(error)
    assert error.hint


ABSURD = [bad for bad in CASES if "absurd" in bad.name or "bomb" in bad.name]


@pytest.mark.parametrize("bad", ABSURD, ids=lambda bad: bad.name)
def test_absurd_sizes_allocate_nothing(bad, tmp_path):
    path = bad.build(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(NoduleDiagError):
            read_ct(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES


def test_archives_leave_nothing_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for bad in CASES:
        if bad.name.startswith("zip_"):
            folder = tmp_path / bad.name / "inner" / "deep"
            folder.mkdir(parents=True)
            path = bad.build(folder)
            before = sorted(tmp_path.rglob("*"))
            with pytest.raises(CTError):
                read_ct(path)
            assert sorted(tmp_path.rglob("*")) == before


def test_the_page_in_the_docs_is_true(tmp_path, repo_root):
    page = INTRODUCTION + _ct_table(tmp_path) + "\n## Coordinates\n\n" + _point_table(tmp_path)
    for title, refusal, cases in (
        ("Files of positions", refused_positions, POSITIONS),
        ("Manifests of a batch", refused_manifest, MANIFESTS),
    ):
        page += f"\n## {title}\n\n" + _table(tmp_path, refusal, cases)
    target = repo_root / "docs" / "bad-input.md"
    if os.environ.get(UPDATE) == "1":
        target.write_text(page, encoding="utf-8")
    assert target.read_text(encoding="utf-8") == page, f"run again with {UPDATE}=1 and commit {target.name}"


def _ct_table(tmp_path: Path) -> str:
    rows = ["| Input | Exit | Code | Message | What to do |", "|---|---|---|---|---|"]
    for bad in CASES:
        folder = tmp_path / bad.name
        folder.mkdir()
        rows.append(_row(bad.title, refused(bad, folder), folder))
    return "\n".join(rows) + "\n"


def _point_table(tmp_path: Path) -> str:
    rows = ["| Input | Exit | Code | Message | What to do |", "|---|---|---|---|---|"]
    ct = read_ct(point_ct(tmp_path))
    rows += [_row(bad.title, refused_point(bad, ct), tmp_path) for bad in POINTS]
    return "\n".join(rows) + "\n"


def _table(
    tmp_path: Path, refusal: Callable[[BadPositions, Path], NoduleDiagError], cases: Iterable[BadPositions]
) -> str:
    rows = ["| Input | Exit | Code | Message | What to do |", "|---|---|---|---|---|"]
    rows += [_row(bad.title, refusal(bad, tmp_path), tmp_path) for bad in cases]
    return "\n".join(rows) + "\n"


def _row(title: str, error: NoduleDiagError, folder: Path) -> str:
    message, hint = (text.replace(f"{folder}{os.sep}", "").replace("|", "\\|") for text in (str(error), error.hint))
    return f"| {title} | {error.exit_code} | `{error.code}` | {message} | {hint} |"
