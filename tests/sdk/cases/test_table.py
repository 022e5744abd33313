"""Tables of cases: what they may look like, every fault at once, and the model asked where it must be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bundle_factory import tiny_cases
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.cases.judging import Filled, Progress, fill
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.cases.table import Listed, read_case_table
from nodule_diag.ct.phantom import chest_phantom
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import CTError, UsageError
from nodule_diag_cli.demo import write_ct

HEAD = "case_id,patient,label,malignancy,expert_score"


def table(tmp_path: Path, *lines: str, name: str = "t.csv") -> Path:
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / name


def no_model() -> Diagnoser:
    raise AssertionError("the model was asked for")


def scored(listed: Sequence[Listed], load: Callable[[], object]) -> list[Case]:
    """The cases of a table as a base has them."""
    base, filled = filled_base(listed, load)
    assert (filled.failed, filled.added) == ([], len(listed))
    return list(base)


def filled_base(listed: Sequence[Listed], load: Callable[[], object]) -> tuple[CaseBase, Filled]:
    base = CaseBase.of((), name="of a table", model_sha256="0" * 64)
    return base, fill(base, listed, load)  # type: ignore[arg-type]


def test_json_is_what_a_case_says(tmp_path: Path) -> None:
    cases = tiny_cases()
    entries = [case.model_dump(mode="json") for case in cases]
    for document in ({"cases": entries}, entries):
        path = table(tmp_path, json.dumps(document), name="t.json")
        assert scored(read_case_table(path), no_model) == cases


def test_csv_with_all_there_is(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeff" + HEAD + ",method,label_certainty,reader_scores,diameter,age,sex,name",
        "a, p1 ,malignant,0.75,4.5,biopsy,patient,3 4 3.5,12.5,61,F,Jane",
        "b,p2,0,0.25,1,,,,,,,",
    )
    first, second = scored(read_case_table(path, columns=["age", "sex"]), no_model)
    assert first == Case(
        case_id="a", patient_id="p1", label=1, label_source="biopsy", label_certainty="patient", malignancy=0.75,
        expert_score=4.5, reader_scores=(3.0, 4.0, 3.5), diameter_mm=12.5, columns={"age": 61, "sex": "F"},
    )  # fmt: skip
    assert (second.label, second.label_source, second.label_certainty) == (0, "unknown method", "nodule")
    assert (second.reader_scores, second.diameter_mm, second.columns) == ((), None, {})


def test_a_cell_that_only_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + ",note,size", "a,p,1,0.5,3,nan,1e999")
    (case,) = scored(read_case_table(path, columns=["note", "size"]), no_model)
    assert case.columns == {"note": "nan", "size": "1e999"}


@pytest.mark.parametrize("text", ["001", "01", "1_0", "1e1", "+1", "1.", ".5", "٣", "1,5", "9" * 30])
def test_a_code_stays_text(tmp_path: Path, text: str) -> None:
    path = table(tmp_path, HEAD + ",site", f'a,p,1,0.5,3,"{text}"', "b,p,1,0.5,3,-12", "c,p,1,0.5,3,0.50")
    cases = [entry.case for entry in read_case_table(path, columns=["site"], identity=None)]
    assert [case.columns["site"] for case in cases] == [text, -12, 0.5]


COMMAS = "case_id;patient;label;path;x;y;z;diameter;pack years;\r\na;p;1;ct.nii;-1,5;2;3,25;7,5;12,5;\r\n;;;;;;;;;\r\n"


@pytest.mark.parametrize(
    "data",
    [
        COMMAS.encode(),
        ("sep=;\r\n" + COMMAS).encode("utf-8-sig"),
        COMMAS.replace(";", "\t").encode("utf-16"),
        COMMAS.replace(",", ".").replace(";", ",").encode(),
    ],
)
def test_what_spreadsheets_export(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    ((case, path, xyz),) = read_case_table(tmp_path / "t.csv", columns=["pack years"])
    assert (path, xyz) == (tmp_path / "ct.nii", (-1.5, 2.0, 3.25))
    assert (case.diameter_mm, case.columns) == (7.5, {"pack years": 12.5})


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        HEAD + ",path,x,y,z",
        "a,p,perhaps,0.5,3,,,,",
        "b,p,1,1.5,3,,,,",
        "b,p,1,0.5,3,,,,",
        "b,p,1,0.5,3,,,,",
        "c,p,1,,,ct.nii,1,2,",
        "d,p,1,,,ct.nii,1,2,far",
        ",p,1,0.5,3,,,,",
    )
    with pytest.raises(UsageError) as caught:
        read_case_table(path)
    assert caught.value.code == "case-table"
    for words in (
        "line 2, label", "line 3, malignancy", "line 5: case_id 'b' stands twice", "line 6: neither malignancy",
        "nor z is given", "line 7: z = 'far' is not a finite number", "line 8, case_id",
    ):  # fmt: skip
        assert words in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.csv", "", "no rows"),
        ("t.csv", HEAD, "no rows"),
        ("t.csv", HEAD + "\na,p,1", "line 2"),
        ("t.csv", HEAD + "\na,p,1,0.5,3,4", "line 2"),
        ("t.csv", HEAD + '\n"a,p,1,0.5,3', "unexpected end"),
        ("t.csv", HEAD + "\na\0,p,1,0.5,3", "not text"),
        ("t.csv", HEAD + ",malignancy\na,p,1,0.5,3,0.6", "line 1: malignancy stands twice"),
        ("t.csv", "case," + HEAD + "\nb,a,p,1,0.5,3", "line 2: case_id is given twice"),
        ("t.csv", "case_id,patient,label,path,x,y,z\na,p,1,ct.nii,1,2,nan", "line 2: z = 'nan' is not a finite number"),
        ("t.csv", "case_id,patient,label,path,x,y,z\na,p,1,ct.nii,inf,2,3", "line 2: x = 'inf' is not a finite number"),
        ("t.csv", HEAD + "\na,p,1,1_0,nan", "line 2: malignancy = '1_0' is not a finite number; expert_score = 'nan'"),
        ("t.csv", HEAD + ",reader_scores\na,p,1,0.5,3,4 3_5", "line 2: reader_scores = '3_5' is not a finite number"),
        ("t.csv", HEAD.replace(",", ";") + "\na;p;1;0,5;3.5", "decimal points and decimal commas"),
        (
            "t.json",
            '[{"case_id": "a", "patient": "p", "label": 1, "malignancy": true, "expert_score": "1_0"}]',
            "entry 1: malignancy = True is not a finite number; expert_score = '1_0'",
        ),
        (
            "t.json",
            '[{"case_id": "a", "patient": "p", "label": 1, "malignancy": 1, "expert_score": 3, "columns": 5}]',
            "entry 1, columns",
        ),
        (
            "t.json",
            '[{"case_id": "a", "patient": "p", "label": 1, "path": 7, "x": 1, "y": 2, "z": 3}]',
            "entry 1, path",
        ),
        ("t.json", "{", "not JSON"),
        ("t.json", "[" * 100_000, "not JSON"),
        ("t.json", '{"cases": 3}', "no list"),
        ("t.json", "[]", "no rows"),
        ("t.json", '[{"case_id": "a"}]', "entry 1"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        read_case_table(tmp_path / name)


def test_a_table_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_case_table(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="null byte"):
        read_case_table("nul\0.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_case_table(tmp_path / "t.csv")


def test_a_case_is_what_predict_says_of_its_nodule(tmp_path: Path, tiny_bundle: Path) -> None:
    """Each CT is opened once, and the case base finds a nodule again at a distance of nothing."""
    phantom = chest_phantom(spacing_zyx_mm=(2.5, 2.0, 2.0))
    write_ct(tmp_path / "chest.nii", phantom.ct)
    points = [nodule.center_xyz_mm for nodule in phantom.nodules]
    rows = [f"n{n},p{n},{n % 2},chest.nii,{','.join(map(str, point))}" for n, point in enumerate(points)]
    listed = read_case_table(table(tmp_path, "case_id,patient,label,path,x,y,z", *rows))
    told: list[Progress] = []
    diagnoser = Diagnoser.load(tiny_bundle, backend="onnxruntime", device="cpu")
    base = CaseBase.of((), name="phantoms", model_sha256=diagnoser.bundle.model_sha256)
    fill(base, listed, lambda: diagnoser, progress=told.append)
    assert told == [Progress(tmp_path / "chest.nii", 0, 1), Progress(None, 1, 1)]
    cases = list(base)
    own = Diagnoser.load(tiny_bundle, cases=base, backend="onnxruntime", device="cpu")
    found = own.predict(read_ct(tmp_path / "chest.nii"), points, k=1)
    for number, diagnosis in enumerate(found):
        nearest = diagnosis.similar["machine+expert"][0]
        assert nearest.distance < 1e-6
        assert nearest.malignancy == pytest.approx(diagnosis.malignancy, abs=1e-6)
        assert {case.case_id: case.label for case in cases}[f"n{number}"] == number % 2
    assert len(CaseIndex(base)) == len(points)


def test_a_ct_that_cannot_be_read_is_named_with_its_case(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_bytes(b"no CT")
    listed = read_case_table(table(tmp_path, "case_id,patient,label,path,x,y,z", "n7,p,1,ct.nii,0,0,0"))

    class Model:
        def predict(self, ct: object, points: Sequence[object]) -> list[object]:
            raise AssertionError("nothing was read")

    base, filled = filled_base(listed, Model)
    assert len(base) == 0
    ((case_id, path, error),) = filled.failed
    assert (case_id, path) == ("n7", tmp_path / "ct.nii")
    assert isinstance(error, CTError)


def test_p_is_raw_whatever_a_diagnosis_says(tmp_path: Path) -> None:
    """It is the sigmoid of the logit, also for logits that overflow."""
    write_ct(tmp_path / "ct.nii", chest_phantom(spacing_zyx_mm=(5.0, 4.0, 4.0)).ct)
    rows = [f"n{n},p,1,ct.nii,0,0,{n}" for n in range(4)]
    listed = read_case_table(table(tmp_path, "case_id,patient,label,path,x,y,z", *rows))
    logits = [-800.0, -1.0, 0.0, 40.0]

    class Said:
        malignancy = 0.123
        warnings = ()
        expert_score = 5.0000005

        def __init__(self, logit: float) -> None:
            self.logit = logit

    class Model:
        def predict(self, ct: object, points: Sequence[object]) -> list[Said]:
            return [Said(logit) for logit in logits]

    cases = scored(listed, Model)
    expected = 1.0 / (1.0 + np.exp(-np.array(logits, dtype=np.longdouble)))
    np.testing.assert_allclose([case.malignancy for case in cases], expected.astype(float), atol=1e-15)
    assert {case.expert_score for case in cases} == {5.0}


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("malignancy,expert_score,x", "0.5,3,unknown"),
        ("path,x,y,z,malignancy", "scan.nii,1,2,3,high"),
    ],
)
def test_columns_that_are_not_used_are_not_read(tmp_path, head, row):
    (tmp_path / "cases.csv").write_text(f"case_id,patient,label,{head}\nc1,p1,1,{row}\n")
    (listed,) = read_case_table(tmp_path / "cases.csv")
    assert listed.case.case_id == "c1"
