"""What tells whose a case is is refused unless somebody insists, and pseudonyms need a key to be guessed."""

from __future__ import annotations

import hashlib
import hmac
import stat
import sys
from pathlib import Path

import pytest

from nodule_diag.cases.identity import identity_in_name, identity_in_value, read_patient_key
from nodule_diag.cases.table import read_case_table
from nodule_diag.errors import OutputError, UsageError

HEAD = "case_id,patient,label,malignancy,expert_score"


def table(folder: Path, *lines: str) -> Path:
    (folder / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize(
    "column",
    [
        "name", "Name", "PatientName", "patient_name", "first name", "Last-Name", "surname", "Nachname", "Vorname",
        "DOB", "birth_date", "BirthDate", "date of birth", "Geburtsdatum", "MRN", "mrn", "patient number", "PatientID",
        "ssn", "e-mail", "email", "phone", "address", "accession_number", "AccessionNumber", "StudyInstanceUID",
    ],
)  # fmt: skip
def test_names_of_columns_that_hold_identity(column: str) -> None:
    assert identity_in_name(column)


@pytest.mark.parametrize(
    "column",
    [
        "age",
        "sex",
        "smoker",
        "lobe",
        "pack_years",
        "scanner",
        "kernel",
        "drug",
        "hospital",
        "volume_mm3",
        "year",
        "EGFR",
    ],
)
def test_names_of_columns_that_hold_none(column: str) -> None:
    assert not identity_in_name(column)


@pytest.mark.parametrize(
    ("value", "look"),
    [
        ("1950-03-12", "a date"), ("12.03.1950", "a date"), ("3/12/1950", "a date"), ("19500312", "a date"),
        ("biopsy of 2019-03-04", "a date"), (19500312, "a date"), ("1.2.840.113619.2.55.3.604688", "a UID"),
        ("jane@doe.org", "an e-mail address"), ("DOE^JANE", "a name"), ("12345678", "a patient number"),
        (4711081, "a patient number"), ("123-45-6789", "a patient number"), ("A123456789", "a patient number"),
    ],
)  # fmt: skip
def test_values_that_tell_whose_they_are(value: object, look: str) -> None:
    assert identity_in_value(value) == look


@pytest.mark.parametrize("value", ["Jane Doe", "Doe, Jane", "Smith", "SMITH", "O'Neil", "Müller-Lüdenscheidt"])
def test_a_name_where_a_key_belongs(value: str) -> None:
    assert identity_in_value(value, is_key=True) == "a name"
    assert identity_in_value(value) == ""  # a lobe may be called Upper Left


@pytest.mark.parametrize(
    "value",
    ["p1", "P000123", "LIDC-IDRI-0314", "case-0017", "7", "12345", "3f9a1c20191231bc", "SITE2-004711", "a", "lung-1"],
)
def test_keys_that_tell_nobody(value: str) -> None:
    assert identity_in_value(value, is_key=True) == ""


@pytest.mark.parametrize("value", [61, 72.5, 20191231.5, "F", "Upper Left", "adenocarcinoma", "v1.2.3", "2019", 14137])
def test_values_that_tell_nobody(value: object) -> None:
    assert identity_in_value(value) == ""


def test_a_table_is_refused_with_every_column_and_no_value(tmp_path: Path) -> None:
    path = table(
        tmp_path, HEAD + ",born,name,age",
        "Smith_1950-03-12,4711081,1,0.5,3,1950-03-12,Jane,61", "b,4711082,1,0.5,3,,Mary,62",
    )  # fmt: skip
    with pytest.raises(UsageError) as caught:
        read_case_table(path, columns=["born", "name", "age"])
    assert caught.value.code == "case-identity"
    for words in ("'case_id' looks like a date", "'patient_id' looks like a patient number, and 1 more", "'born' looks",
                  "column 'name'"):  # fmt: skip
        assert words in caught.value.message
    for secret in ("Smith", "4711081", "1950", "Jane"):
        assert secret not in caught.value.message
    assert "--patient-key" in caught.value.hint
    with pytest.raises(UsageError, match=r"line 3, malignancy.*'patient_id' looks") as caught:  # with other faults
        read_case_table(table(tmp_path, HEAD, "a,4711081,1,0.5,3", "b,p,1,2,3"))
    assert caught.value.code == "case-table"


def test_columns_that_are_not_taken_over_may_hold_anything(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + ",name,age", "a,p1,1,0.5,3,DOE^JANE,61")
    assert read_case_table(path, columns=["age"])[0].case.columns == {"age": 61}


def test_who_insists_gets_it_column_by_column(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + ",name", "a,4711081,1,0.5,3,Jane")
    with pytest.raises(UsageError, match="patient_id"):
        read_case_table(path, columns=["name"], identity=["name"])
    (row,) = read_case_table(path, columns=["name"], identity=["name", "patient"])
    assert (row.case.patient_id, row.case.columns) == ("4711081", {"name": "Jane"})
    assert read_case_table(path, columns=["name"], identity=None) == [row]


def test_a_key_makes_pseudonyms_that_stay_the_same(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD, "a,4711081,1,0.5,3", "b,4711081,1,0.5,3", "c,Jane Doe,1,0.5,3")
    key = read_patient_key(tmp_path / "key")
    assert key == read_patient_key(tmp_path / "key")
    patients = [row.case.patient_id for row in read_case_table(path, patient_key=key)]
    expected = hmac.new(key, b"4711081", hashlib.sha256).hexdigest()[:32]
    assert patients[:2] == [expected] * 2
    assert len(set(patients)) == 2
    other = read_patient_key(tmp_path / "other")
    assert read_case_table(path, patient_key=other)[0].case.patient_id != expected
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"secret\n")
    with pytest.raises(UsageError, match="6 bytes; at least 16"):
        read_patient_key(tmp_path / "short")
    with pytest.raises(UsageError, match="cannot be read"):
        read_patient_key(tmp_path)
    with pytest.raises(OutputError, match="cannot be made"):
        read_patient_key(tmp_path / "absent" / "key")
