"""What is written is what 3D Slicer's schema says, and ``--nodules`` reads it again."""

from __future__ import annotations

import csv
import json

import jsonschema
import pytest

from made_diagnosis import CENTER, made_diagnosis
from nodule_diag.errors import OutputError, UsageError
from nodule_diag.exchange import open_positions, read_positions, require_positions_format, write_positions

TEXT, FLAG, TRIPLE = {"type": "string"}, {"type": "boolean"}, {"type": "array", "items": {"type": "number"}}
CONTROL = {
    **dict.fromkeys(("id", "label", "description", "associatedNodeID"), TEXT),
    **dict.fromkeys(("selected", "locked", "visibility"), FLAG),
    "position": {**TRIPLE, "minItems": 3, "maxItems": 3},
    "positionStatus": {"enum": ["undefined", "preview", "defined"]},
}
MARKUP = {
    "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
    **dict.fromkeys(("name", "labelFormat"), TEXT),
    **dict.fromkeys(("locked", "fixedNumberOfControlPoints"), FLAG),
    "coordinateSystem": {"enum": ["LPS", "RAS"]},
    "coordinateUnits": {"enum": ["mm", "um"]},
    "controlPoints": {"type": "array", "items": {"properties": CONTROL, "additionalProperties": False}},
}
MARKUPS = {
    "required": ["@schema", "markups"],
    "properties": {
        "@schema": TEXT,
        "markups": {
            "type": "array",
            "items": {"required": ["type"], "properties": MARKUP, "additionalProperties": False},
        },
    },
    "additionalProperties": False,
}
"""What of Slicer's markups schema v1.0.3 is about point lists; closed, so that no name can be misspelt."""

ODD = 'upper "left",\n=1+1; größer'
DIAGNOSES = [
    made_diagnosis(),
    made_diagnosis(id=ODD, xyz_lps_mm=(1 / 3, -2e-7, 1234.5), malignancy=0.05, prevalence=0.05, in_lung=None),
]


@pytest.mark.parametrize("suffix", [".mrk.json", ".csv", ".jsonl", ".MRK.JSON", ".CSV"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_positions(path, DIAGNOSES)
    found = read_positions(path)
    assert [position.xyz_lps_mm for position in found] == [diagnosis.xyz_lps_mm for diagnosis in DIAGNOSES]
    assert [position.id for position in found] == ["1", ODD]
    assert open_positions(path).space == (None if suffix.lower() == ".csv" else "lps")
    assert sorted(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_markups_are_slicers(tmp_path):
    path = tmp_path / "out.mrk.json"
    write_positions(path, DIAGNOSES)
    document = json.loads(path.read_text())
    jsonschema.Draft202012Validator(MARKUPS).validate(document)
    assert document["@schema"].endswith("/markups-schema-v1.0.3.json#")
    (markup,) = document["markups"]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    first, second = markup["controlPoints"]
    assert (first["label"], first["position"], first["positionStatus"]) == ("1", list(CENTER), "defined")
    assert first["description"].startswith("P 0.71 if half were malignant, expert score 3.9 of 5, diameter 1")
    assert second["description"].startswith("P 0.05 if 5 % were malignant")


def test_the_table_has_the_main_figures(tmp_path):
    path = tmp_path / "out.csv"
    write_positions(path, DIAGNOSES)
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert float(first["malignancy"]) == 0.71
    assert float(first["diagnosis"]) == 1.0
    assert (first["presence"], first["in_lung"], second["in_lung"]) == ("", "True", "")
    assert float(first["volume_mm3"]) == DIAGNOSES[0].segmentation.volume_mm3


def test_lines_are_the_documents_nodules(tmp_path):
    path = tmp_path / "out.jsonl"
    write_positions(path, DIAGNOSES)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [one.to_dict() for one in DIAGNOSES]


def test_refused(tmp_path):
    for name in ("out.json", "out.nii.gz", "out"):
        with pytest.raises(UsageError, match=r"none of the endings \.mrk\.json, \.csv, \.jsonl"):
            require_positions_format(tmp_path / name)
    with pytest.raises(UsageError, match="no nodules to write"):
        write_positions(tmp_path / "out.csv", [])
    with pytest.raises(OutputError):
        write_positions(tmp_path / "absent" / "out.csv", DIAGNOSES)
    assert list(tmp_path.iterdir()) == []
