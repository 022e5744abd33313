"""Manifests: what is read, what is refused, all of it at once, and names that no two CTs share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag.errors import UsageError
from nodule_diag.fleet import BatchOptions, ListedCT, read_manifest


def written(folder: Path, *lines: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_of_one_ct_are_one_question(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "arm,id,path,x,y,z,series,acquisition,space",
        "a,left,scans/one.nii.gz,1,2.5,-3,,,",
        "b,,two,4,5,6,1.2.3,2,ras",
        "a,,scans/one.nii.gz,7,8,9,,,lps",
        "b,,two,4,5,6,1.2.3,3,ras",
    )
    manifest = read_manifest(path)
    assert manifest.columns == ("arm", "id", "path", "x", "y", "z", "series", "acquisition", "space")
    assert manifest.rows[1] == ("b", "", "two", "4", "5", "6", "1.2.3", "2", "ras")
    one, two, three = manifest.cts
    assert (one.path, one.told) == (str(tmp_path / "scans/one.nii.gz"), "scans/one.nii.gz")
    assert (one.ids, one.points, one.rows) == (("left", "2"), ((1, 2.5, -3), (7, 8, 9)), (0, 2))
    assert (two.series, two.acquisition, two.space, two.rows) == ("1.2.3", 2, "ras", (1,))
    assert (three.acquisition, three.rows) == (3, (3,))
    assert len({ct.name for ct in manifest.cts}) == 3
    assert one.name.startswith("one-")


def test_two_dots_behind_a_link_mean_what_the_system_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data/cts", "mnt/x/cts", "mnt/x/study"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("data", "mnt/x"):
        (tmp_path / folder / "cts" / "1.nii.gz").write_text(folder)
    (tmp_path / "data" / "study").symlink_to("../mnt/x/study")
    written(tmp_path / "data" / "study", "path,x,y,z", "../cts/1.nii.gz,1,2,3")
    monkeypatch.chdir(tmp_path)
    (ct,) = read_manifest("data/study/manifest.csv").cts
    options = BatchOptions(bundle="data/study/../cts/1.nii.gz").settled()
    monkeypatch.chdir("/")
    for path in (ct.path, str(options.bundle)):
        assert Path(path).read_text() == "mnt/x"


def test_an_absolute_path_stays_and_a_table_of_excel_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes("\ufeffsep=;\r\nPath;X;Y;Z\r\n/data/ä.nii;1,5;-2;3,25\r\n".encode())
    (ct,) = read_manifest(path).cts
    assert (ct.path, ct.points) == ("/data/ä.nii", ((1.5, -2.0, 3.25),))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "path,x,y,z,id,acquisition,space",
        "one.nii,1,2,three,a,,",
        ",1,2,3,b,,",
        "one.nii,1,2,3,a,,",
        "two.nii,1,2,3,a,-1,",
        "three.nii,1,2,3,a,,mni",
        "three.nii,1,2,3,b," + "1" * 5000 + ",",
        "four.nii,1,2",
        "five.nii,1,2,inf,a,,",
        "six.nii,1,2,3,a,,ras",
        "six.nii,1,2,3,b,,",
    )
    with pytest.raises(UsageError) as refused:
        read_manifest(path)
    for said in (
        "line 2: z = 'three' is not a finite number",
        "line 3: it names no CT",
        "the id 'a' stands more than once for one.nii",
        "line 5: acquisition = '-1' is not a whole number",
        "line 6: space = 'mni' is none of lps, ras, voxel",
        "line 7: acquisition = '1111",
        "line 8: 3 cells instead of 7",
        "line 9: z = 'inf'",
        "line 11: space lps where line 10 has ras for the same CT",
    ):
        assert said in refused.value.message
    assert "docs/batch.md" in refused.value.hint


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("path,x,y", "no column z"),
        ("x,y,z,id", "no column path"),
        ("path,x,y,z,x", "'x' stands more than once"),
        ("path,x,y,z,malignancy", "'malignancy' is what a result is called"),
        ("path,x,y,z,Error_Code", "'error_code' is what a result is called"),
    ],
)
def test_columns(head: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_manifest(written(tmp_path, head, ",".join("1" * len(head.split(",")))))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"path,x,y,z\n", b"\xff\xfe\x00", b"path\0", b'path,x,y,z\n"a,1,2,3\n'])
def test_what_is_no_table(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(data)
    with pytest.raises(UsageError):
        read_manifest(tmp_path / "manifest.csv")
    with pytest.raises(UsageError):
        read_manifest(tmp_path / "absent.csv")


PATHS = st.text(min_size=1, max_size=300)


@given(PATHS, PATHS)
def test_names_are_safe_and_of_one_ct_each(first: str, second: str) -> None:
    one, other = (ListedCT(path="/x", told=told).name for told in (first, second))
    for name in (one, other):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}-[0-9a-f]{16}", name)
    # Some file systems do not tell upper from lower case.
    assert (one.lower() == other.lower()) == (first == second)


@pytest.mark.parametrize(
    ("given", "ids"), [(",2,", "1 2 3"), ("2,,", "2 3 4"), (",1,", "2 1 3"), ("3,,,", "3 2 4 5"), (",,", "1 2 3")]
)
def test_a_blank_id_takes_no_given_one(given: str, ids: str, tmp_path: Path) -> None:
    rows = [f"ct.nii,1,2,{z},{name}" for z, name in enumerate(given.split(","))]
    (ct,) = read_manifest(written(tmp_path, "path,x,y,z,id", *rows)).cts
    assert ct.ids == tuple(ids.split())


def test_series_and_acquisition_tell_cts_apart() -> None:
    cts = [ListedCT("/x", "x"), ListedCT("/x", "x", series="1"), ListedCT("/x", "x", acquisition=1)]
    assert len({ct.name for ct in cts}) == 3
    assert len({ListedCT("/x", "x", points=((z, 0, 0),)).asked for z in (0.0, 0.1)}) == 2
