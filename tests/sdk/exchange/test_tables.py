"""CSV, LUNA's columns and ``.fcsv``: what is read, and how what is wrong is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ct_files as make
import marked_files as marked
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CoordinateError, UsageError
from nodule_diag.exchange import open_positions, read_positions
from nodule_diag.tables import content

POINTS = [(-1.5, 2.0, 3.0), (4.0, 5.0, 60.0)]
LISTS: dict[str, str | bytes] = {
    "plain.csv": "x,y,z\n-1.5,2,3\n4,5,6e1\n",
    "bom and windows lines.csv": "\ufeffx,y,z\r\n-1.5,2,3\r\n4,5,60\r\n",
    "old mac lines.csv": "x,y,z\r-1.5,2,3\r4,5,60\r",
    "utf-16 of excel.txt": "x\ty\tz\r\n-1,5\t2\t3\r\n4\t5\t60\r\n".encode("utf-16"),
    "big endian.csv": b"\xfe\xff" + "x,y,z\n-1.5,2,3\n4,5,60\n".encode("utf-16-be"),
    "blank lines.csv": "\nx,y,z\n\n-1.5,2,3\n,,\n4,5,60\n\n",
    "semicolons.csv": "x;y;z\n-1.5;2;3\n4;5;60\n",
    "decimal commas.csv": "x;y;z\n-1,5;2;3\n4;5,0;60\n",
    "said by excel.csv": "sep=;\nx;y;z\n-1,5;2;3\n4;5;60\n",
    "tabs.csv": "x\ty\tz\n-1.5\t2\t3\n4\t5\t60\n",
    "other columns, other order.csv": "note,Z, Y ,X\nhello,3,2,-1.5\n,60,5,4\n",
    "quoted.csv": '"x","y","z"\n"-1.5"," 2 ","3"\n4,5,60\n',
    "quoted, with separators.csv": 'note,x,y,z\n"a, b\nc ""d""",-1.5,2,3\n;,4,5,60\n',
    "names without a name.csv": "x,y,z,,\n-1.5,2,3,,\n4,5,60,a,b\n",
}


def read(path: Path) -> list[tuple[str | None, tuple[float, ...] | None]]:
    return [(mark.name, mark.xyz) for mark in open_positions(path).marks]


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, LISTS[name]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read(path) == [(None, point) for point in POINTS]
    assert [position.id for position in read_positions(path)] == ["1", "2"]


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,x,y,z\nlung/left,1,2,3\n,4,5,6\n 7 ,7,8,9\n")
    assert [name for name, _ in read(path)] == ["lung/left", None, "7"]
    assert [position.id for position in read_positions(path)] == ["lung/left", "2", "7"]
    assert read_positions(path)[1].source == f"{path}, line 3"
    path.write_text("id,x,y,z\n2,1,2,3\n,4,5,6\n")
    with pytest.raises(UsageError, match="id 2 stands more than once"):
        read_positions(path)


BAD_LISTS: dict[str, tuple[str | bytes, list[str]]] = {
    "empty.csv": ("", ["no nodule"]),
    "head only.csv": ("x,y,z\n", ["no nodule"]),
    "excel said only.csv": ("sep=;\n", ["no nodule"]),
    "no z.csv": ("x,y\n1,2\n", ["no column z"]),
    "twice.csv": ("x,y,z,X\n1,2,3,4\n", ["stands twice"]),
    "two kinds.csv": ("x,y,z,coordX,coordY,coordZ\n1,2,3,4,5,6\n", ["stands twice"]),
    "half of luna.csv": ("seriesuid,coordX,coordY\n1.2,4,5\n", ["no column coordz"]),
    "all at once.csv": (
        "id,x,y,z\na,1,2,3\nb,one,2,3\n\nc,1,2\nd,1,nan,inf\ne,1,,3\nf,1_0,1,1\n",
        [
            "line 3: x = 'one'",
            "line 5: 3 cells instead of 4",
            "line 6: y = 'nan'",
            "line 6: z = 'inf'",
            "line 7: y = ''",
            "line 8: x = '1_0'",
        ],
    ),
    "decimal comma between commas.csv": ('x,y,z\n"1,5",2,3\n', ["line 2: x = '1,5'"]),
    "thousands.csv": ("x;y;z\n1.234,5;2;3\n", ["line 2: x = '1.234,5'"]),
    "points and commas.csv": ("x;y;z\n1,234;2;3\n1.5;2;3\n", ["decimal points and decimal commas"]),
    "open quote.csv": ('x,y,z\n"1,2,3\n', ["line 2"]),
    "a field of a megabyte.csv": ("x,y,z,note\n1,2,3," + "a" * 2**20, ["line 2: field larger"]),
    "not text.csv": (b"x,y,z\n\xff\xfe,1,2\n", ["not UTF-8"]),
    "half a character.csv": (b"\xff\xfex\x00,", ["not UTF-8"]),
    "binary.csv": (b"x,y,z\n1,2,\x00\n", ["not text"]),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_tell_all_faults(tmp_path: Path, name: str) -> None:
    text, messages = BAD_LISTS[name]
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        open_positions(path)
    for message in messages:
        assert message in str(caught.value)
    assert name in str(caught.value)
    assert (caught.value.code, caught.value.exit_code) == ("usage", 2)
    assert ("UTF-8" if "not " in name or "char" in name or "binary" in name else "x,y,z") in caught.value.hint


def test_missing_list(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path, tmp_path / "nul\0.csv"):
        with pytest.raises(UsageError, match="cannot read"):
            open_positions(path)


@given(rows=st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), min_size=1, max_size=20), how=st.sampled_from(",;\t"))
def test_any_numbers_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], how: str) -> None:
    path = tmp_path_factory.mktemp("table") / "list.csv"
    path.write_text("\n".join(how.join(map(repr, row)) for row in [("x", "y", "z"), *rows]).replace("'", ""))
    assert [mark.xyz for mark in open_positions(path).marks] == rows


def test_a_hundred_thousand_points_take_seconds(tmp_path: Path) -> None:
    """Comparing each id with each takes hours; one second of CPU is what it takes."""
    path = tmp_path / "many.csv"
    path.write_text("id,x,y,z\n" + "".join(f"n{number},{number},1.5,-2.25\n" for number in range(100_000)))
    started = time.process_time()
    found = read_positions(path)
    assert time.process_time() - started < 60
    assert len(found) == 100_000
    assert found[-1].xyz_lps_mm == (99_999.0, 1.5, -2.25)


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.csv"
    path.write_text("x,y,z\n" + "1,2,3\n" * 20)
    monkeypatch.setattr("nodule_diag.tables.rows.MAX_POSITIONS", 19)
    with pytest.raises(UsageError, match="more than 19 rows"):
        open_positions(path)
    monkeypatch.setattr(content, "MAX_TEXT_BYTES", 100)
    with pytest.raises(UsageError, match="126 bytes are too many"):
        open_positions(path)
    monkeypatch.setattr(content, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="more than 100 bytes"):
        open_positions(path)
    with pytest.raises(UsageError, match="more than 100 bytes"):
        open_positions("/dev/zero")


LUNA = (
    "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    "1.3.6.1,-128.699421965,-175.319271928,-298.387506667,5.65\n"
    "1.3.6.2,103.783651,-211.925149,-227.12125,4.22\n"
    "1.3.6.1,69.6390168,-140.944585,876.374496,5.78\n"
)


def ct_called(path: str) -> CTVolume:
    return CTVolume.from_array(make.chest_hu(), spacing_zyx_mm=(1, 1, 1), origin_xyz_mm=(0, 0, 0), path=path)


@pytest.mark.parametrize("ct", ["luna/1.3.6.1.mhd", "1.3.6.1.mha", "1.3.6.1.nii.gz", "1.3.6.1"])
def test_rows_of_other_series_are_passed_over(tmp_path: Path, ct: str) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(LUNA)
    found = read_positions(path, ct=ct_called(ct))
    assert [(position.id, position.source) for position in found] == [
        ("1", f"{path}, line 2"),
        ("2", f"{path}, line 4"),
    ]
    assert found[1].xyz_lps_mm == (69.6390168, -140.944585, 876.374496)


def test_a_list_without_the_series_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(LUNA)
    with pytest.raises(CoordinateError, match=r"'scan'.*its 3 are of 1\.3\.6\.1, 1\.3\.6\.2") as caught:
        read_positions(path, ct=ct_called("scan.nii.gz"))
    assert (caught.value.code, caught.value.exit_code) == ("coordinate-other-series", 3)
    with pytest.raises(UsageError, match="names 2 series"):
        read_positions(path)
    path.write_text("\n".join(line for line in LUNA.splitlines() if "1.3.6.2" not in line))
    assert len(read_positions(path)) == 2
    path.write_text(LUNA.replace("1.3.6.1,", ",").replace("seriesuid", "seriesUID"))
    assert len(read_positions(path, ct=ct_called("scan.nii.gz"))) == 2, "rows that name no series"


def test_space(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("x,y,z\n1,2,3\n")
    ct = ct_called("scan.nii.gz")
    assert read_positions(path, space="ras")[0].xyz_lps_mm == (-1, -2, 3)
    assert read_positions(path, ct=ct, space="ras")[0].xyz_lps_mm == (-1, -2, 3)
    assert read_positions(path, ct=ct, space="voxel")[0].xyz_lps_mm == (1, 2, 3)
    with pytest.raises(UsageError, match="voxel positions"):
        read_positions(path, space="voxel")
    path.write_text(marked.fcsv([(1, 2, 3)], "RAS", "4.11"))
    assert read_positions(path, space="ras")[0].xyz_lps_mm == (-1, -2, 3)
    with pytest.raises(UsageError, match="RAS mm, not lps"):
        read_positions(path, space="lps")


def test_fcsv_obeys_its_own_frame(tmp_path: Path) -> None:
    path = tmp_path / "f.fcsv"
    for frame, expected in {"LPS": 1, "1": 1, "RAS": -1, "0": -1}.items():
        path.write_text(marked.fcsv([(1, 2, 3)], frame, "4.11"))
        assert read_positions(path)[0].xyz_lps_mm == (expected, 2 * expected, 3)


def test_fcsv_details(tmp_path: Path) -> None:
    path = tmp_path / "f.fcsv"
    head = marked.fcsv([], "LPS", "5.6")
    path.write_text(
        head + '1,1,2,3,0,0,0,1,1,1,0,"nodule ""A"", upper",seen twice,vtkMRMLScalarVolumeNode1,2,0\n'
        "2,4,5,6,0,0,0,1,1,1,0,F-2,,,2,0\n\n3,0,0,0,0,0,0,1,1,1,0,F-3,,,0,0\n4,7,8,9,0,0,0,1,1,1,0,F-2,,\n"
    )
    file = open_positions(path)
    assert [position.id for position in file.on(None)] == ['nodule "A", upper', "F-2", "F-2 (2)"]
    assert file.warnings == ("a point without a position was passed over: F-3",)
    path.write_text(head.replace("id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label", "label,id,z,y,x") + "F,0,3,2,1,,\n")
    assert read_positions(path)[0].xyz_lps_mm == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (marked.fcsv([(1, 2, 3)], "2", "4.6"), "its frame is '2'"),
        (marked.fcsv([(1, 2, 3)], "IJK", "4.11"), "its frame is 'IJK'"),
        ("# Markups fiducial file version = 4.11\n1,1,2,3,0,0,0,1,1,1,0,F-1,,\n", "no line '# CoordinateSystem"),
        (marked.fcsv([], "LPS", "4.11"), "no placed point"),
        (marked.fcsv([], "LPS", "4.11") + "1,1,2\n", "line 4: 3 cells are too few"),
        (marked.fcsv([("a", 2, float("inf"))], "LPS", "4.11").replace("'", ""), "line 4: z = 'inf'"),
        (marked.fcsv([(1, 2, 3)], "LPS", "4.11").replace(",label", ""), "no column label"),
        (marked.fcsv([], "LPS", "4.11") + '1,1,2,3,0,0,0,1,1,1,0,"F\n', "line 4"),
    ],
)
def test_bad_fcsv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.fcsv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        open_positions(path)
    assert message in str(caught.value)
