"""The label scenarios of Table 6: which rounded mean scores are benign and which malignant."""

from __future__ import annotations

from typing import Literal

from .cohort import rounded_half_up

Scenario = Literal["1/2345", "12/345", "12/45", "123/45", "1234/5"]
"""Benign scores left of the slash, malignant ones right of it."""


def label_of(mean_score: float, scenario: Scenario) -> Literal[0, 1] | None:
    """0 or 1 by the readers' mean score (1..5), None where the scenario leaves the nodule out (3 in ``12/45``)."""
    benign, malignant = scenario.split("/")
    rounded = str(rounded_half_up(mean_score))
    return 0 if rounded in benign else 1 if rounded in malignant else None
