"""Reads what ``train evaluate`` wrote: the report, and the judgements that its sections are made of."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from nodule_diag.results import SPACES
from nodule_diag_training.data import TrainingDataError

from .crossval import FoldResult
from .judgement import UNSAID, Judgement

COMPRESSED = ".xz"
HINT = "give what `nodule-diag train evaluate` wrote"
MAY_BE_NONE = ("label", "certainty")
"""Fields of a judgement that may be None; null in another field was not a number."""


def open_report(path: Path) -> dict[str, Any]:
    """The JSON, or the same compressed by xz.

    Raises:
        TrainingDataError: If it cannot be read.
    """
    try:
        text = path.read_bytes()
        report = json.loads(lzma.decompress(text) if path.suffix == COMPRESSED else text)
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise not_a_report(path, error) from error
    if not isinstance(report, dict):
        raise not_a_report(path, "it is not a JSON object")
    return report


def not_a_report(path: Path, why: object) -> TrainingDataError:
    """The error for a file that is not a report."""
    return TrainingDataError(
        f"{path} is not a report of an evaluation: {why if isinstance(why, str) else repr(why)}", hint=HINT
    )


def judged_in(path: Path, report: Mapping[str, Any]) -> FoldResult:
    """The judgements that a report's sections were made of, all folds together.

    Raises:
        TrainingDataError: If the report lacks them, or holds something else.
    """
    try:
        told = [
            {name: UNSAID if value is None and name not in MAY_BE_NONE else value for name, value in one.items()}
            for one in report["judgements"]
        ]
        judgements = TypeAdapter(tuple[Judgement, ...]).validate_python(told)
        retrieved = {
            str(space): {str(case): float(value) for fold in report["retrieved"] for case, value in fold[space].items()}
            for space in SPACES
        }
        diagnosed = frozenset(report.get("diagnosed", next(iter(retrieved.values()))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_a_report(path, error) from error
    return FoldResult(
        judgements=judgements,
        diagnosed=tuple(j for j in judgements if j.case_id in diagnosed and j.form != "cube-cut"),
        retrieved=retrieved,
    )


def of_fold(judged: FoldResult, fold: int) -> FoldResult:
    """The judgements of one fold."""
    own = {j.case_id for j in judged.diagnosed if j.fold == fold}
    return replace(
        judged,
        judgements=tuple(j for j in judged.judgements if j.fold == fold),
        diagnosed=tuple(j for j in judged.diagnosed if j.fold == fold),
        retrieved={
            space: {case: value for case, value in answers.items() if case in own}
            for space, answers in judged.retrieved.items()
        },
    )
