"""Results as JSON: the same after reading, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from benchmarks.environment import Environment
from benchmarks.results import PART, Check, Part, read_part
from nodule_diag.errors import UsageError


def test_what_is_written_is_read(part: Part, tmp_path: Path) -> None:
    part.write(tmp_path / "part.json")
    assert read_part(tmp_path / "part.json") == part


def test_the_document_keeps_to_its_schema(part: Part) -> None:
    schema = PART.json_schema()
    document = json.loads(part.to_json())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["schema"] == "nodule-diag/benchmark/1"
    del document["environment"]["load_average"]
    with pytest.raises(jsonschema.ValidationError, match="load_average"):
        jsonschema.Draft202012Validator(schema).validate(document)


def test_not_a_number_is_no_result(part: Part) -> None:
    wrong = replace(part, wall_s=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        wrong.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "nodule-diag/benchmark/2"}, "at schema"),
        ({"wall_s": "long"}, "at wall_s"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_something_else_is_refused(part: Part, tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps(json.loads(part.to_json()) | change))
    with pytest.raises(UsageError, match=message):
        read_part(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_part(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [("at least", 5.0, True), ("at least", 4.9, False), ("at most", 5.0, True), ("at most", 5.1, False)],
)
def test_bounds(rule: str, value: float, holds: bool) -> None:
    assert Check(name="x", value=value, rule=rule, limit=5.0).holds is holds


def test_the_machine_describes_itself() -> None:
    found = Environment.now(threads=3)
    assert found.threads == 3
    assert found.cores >= 1
    assert found.versions["numpy"]
    assert len(found.load_average) == 3
