"""The table of diagnosed nodules: every fault at once."""

from __future__ import annotations

import pytest

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.sure_table import SureTableError, read_sure_table

HEADER = "path,x,y,z,diameter,label,patient,method\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    (tmp_path / "b.nii.gz").write_bytes(b"x")

    def write(text):
        path = tmp_path / "sure.csv"
        path.write_text(text)
        return path

    return write


def test_a_good_table(table, tmp_path):
    rows = read_sure_table(table(HEADER + "a.nii.gz,1,-2.5,3,8,malignant,p1,resection\nb.nii.gz,0,0,0,12.5,0,p2,\n"))
    first, second = rows
    assert first.path == tmp_path / "a.nii.gz"
    assert (first.center_xyz_mm, first.diameter_mm, first.malignant) == ((1.0, -2.5, 3.0), 8.0, 1)
    assert (first.patient, first.method, first.line) == ("p1", "resection", 2)
    assert (second.malignant, second.method) == (0, "")


def test_a_radius_is_half_a_diameter(table):
    (row,) = read_sure_table(table("path,x,y,z,radius,label,patient\na.nii.gz,1,2,3,4,1,p1\n"))
    assert row.diameter_mm == 8.0


def test_cases_have_names_of_their_own(table, tmp_path):
    """Two CTs of a patient may have one file name, and a nodule one position in both: no case may replace another."""
    header, row = "path,x,y,z,radius,label,patient,case\n", "a.nii.gz,1,2,3,4,1,p1,{}\n"
    (named,) = read_sure_table(table(header + row.format("left-3")))
    assert named.case_id == "left-3"
    (unnamed,) = read_sure_table(table(header + row.format("")))
    assert unnamed.case_id == "p1/a.nii.gz@1,2,3"
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.nii.gz").write_bytes(b"x")
    text = header + row.format("") + "later/" + row.format("") + "b.nii.gz,1,2,3,4,1,p1,n\nb.nii.gz,9,2,3,4,1,p1,n\n"
    with pytest.raises(SureTableError) as caught:
        read_sure_table(table(text))
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(3, "case"), (5, "case")]
    assert "is what the nodule in line 2 is called too" in str(caught.value)


def test_all_faults_are_reported_at_once(table):
    text = (
        "absent.nii.gz,1,2,3,8,1,p1,\n"  # line 2
        "a.nii.gz,one,inf,3,8,1,p1,\n"  # 3: two faults
        "a.nii.gz,1,2,3,-8,2,,\n"  # 4: three
        "b.nii.gz,1,2,3,8,1,p2,\n"
        "b.nii.gz,1,2,3,8,1,p2,\n"  # 6: again
        "b.nii.gz,5,2,3,30,0,p3,\n"  # 7: too large; another patient
        "b.nii.gz,6,2\n"  # 8: short
    )
    with pytest.raises(SureTableError) as caught:
        read_sure_table(table(HEADER + text))
    faults = {(fault.line, fault.column) for fault in caught.value.faults}
    assert faults >= {
        (2, "path"), (3, "x"), (3, "y"), (4, "diameter"), (4, "label"), (4, "patient"), (6, "x, y, z"),
        (7, "diameter"), (7, "patient"), (8, "row"), (8, "label"),
    }  # fmt: skip
    assert 5 not in {line for line, _ in faults}
    assert "line 4, label: '2' is none of" in str(caught.value)
    assert caught.value.exit_code == 3


def test_many_faults_are_counted_but_not_all_shown(table):
    with pytest.raises(SureTableError, match="and 30 more") as caught:
        read_sure_table(table(HEADER + "".join(f"a.nii.gz,{i},2,3,8,?,p1,\n" for i in range(50))))
    assert len(caught.value.faults) == 50


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,x,y,z,diameter,label", "needs patient"),
        ("path,x,y,z,label,patient", "needs one of radius and diameter"),
        ("path,x,y,z,radius,diameter,label,patient", "needs one of radius and diameter"),
        ("path,x,y,z,diameter,label,patient,age", "unknown columns 'age'"),
        ("path,x,x,y,z,diameter,label,patient", "names a column twice"),
    ],
)
def test_columns(table, header, message):
    with pytest.raises(TrainingDataError, match=message):
        read_sure_table(table(header + "\n1\n"))


def test_no_rows_and_no_file(table, tmp_path):
    with pytest.raises(TrainingDataError, match="no rows"):
        read_sure_table(table(HEADER))
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_sure_table(tmp_path / "absent.csv")
