"""Tables that case bases are made from, and filters of cases: seeds of the fuzzer."""

from __future__ import annotations

import json

from fuzz.seed import Seed

ROWS = (
    ("A-1", "k7f3", "malignant", "biopsy", 61, "F", 0.75, 3.5),
    ("A-2", "k7f3", "benign", "2 years stable", 61, "F", 0.25, 2.25),
    ("B-1", "m2c9", "0", "surgery", 58, "M", 1e-3, 1.0),
)
HEAD = ("case_id", "patient", "label", "method", "age", "sex", "malignancy", "expert_score")
FILTERS = {
    "where-plain": "expert_score > 2.5 and label = 1",
    "where-in": "case_id in ('case-0001', 'case-0002', 'it''s') or not (malignancy <= 0.5e0)",
    "where-free": """("age" >= 60 and sex != 'F') or diameter_mm = 12 and not age < -1.5""",
}
"""Of the cases that `fuzz.readers` makes."""


def tables() -> list[Seed]:
    """As CSV with what the model said, as CSV with places in CTs, and as JSON."""
    placed = [(*row[:6], f"cts/{row[0]}.nii", 61.0, -12.5, -140) for row in ROWS]
    made = {
        "judged.csv": _csv(HEAD, ROWS),
        "placed.csv": _csv((*HEAD[:6], "path", "x", "y", "z"), placed),
        "cases.json": json.dumps({"cases": [dict(zip(HEAD, row, strict=True)) for row in ROWS]}, indent=1),
    }
    found = []
    for name, text in made.items():
        ways = ("bytes", "text", "text") + ("json", "json") * name.endswith("json")
        files = {name: text.encode()}
        found.append(Seed(f"table-{name}", "Table of cases", "table", name, files, ways, "table", {name: len(text)}))
    return found


def _csv(head: tuple[str, ...], rows: object) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in (head, *rows))  # type: ignore[misc]


def filters() -> list[Seed]:
    """What stands behind ``--where``."""
    ways = ("text", "text", "bytes")
    form, entry = "Filter of cases", "where.txt"
    return [
        Seed(name, form, "where", entry, {entry: text.encode()}, ways, "where", {entry: len(text)})
        for name, text in FILTERS.items()
    ]
