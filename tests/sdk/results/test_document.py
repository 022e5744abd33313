"""The published schema and its page: one cannot say what the other does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodule_diag as nd
from nodule_diag.results.prior import at_prevalence


def properties(schema: Any) -> Iterator[str]:
    """Every property that a schema describes, at any depth."""
    if isinstance(schema, dict):
        names = schema.get("properties")
        if isinstance(names, dict):
            yield from names
        for part in schema.values():
            yield from properties(part)


def test_the_page_names_every_property(repo_root: Path) -> None:
    schema = json.loads((Path(nd.__file__).parent / "schemas" / "prediction-1.json").read_text())
    named = set(re.findall(r"`([^`]+)`", (repo_root / "docs" / "prediction.md").read_text()))
    missing = sorted(set(properties(schema)) - named)
    assert len(set(properties(schema))) > 50
    assert missing == []


def test_the_pages_arithmetic(repo_root: Path) -> None:
    text = (repo_root / "docs" / "prediction.md").read_text()
    assert f"P = 0.70 becomes {at_prevalence(0.7, 0.05):.2f}" in text
    cases = nd.Diagnoser.load(device="cpu").cases.identity
    assert f"{cases.malignant} of {cases.count} cases are malignant" in text
    assert f'"{cases.malignant / cases.count:.2f} of the similar cases are malignant"' in text
