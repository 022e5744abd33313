"""``nodule-diag train calibrate``: P against the diagnoses that an evaluation holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag_training.data import TrainingDataError

from .calibration import Diagnosed, calibration_section
from .commands import shown, write_report
from .reports import not_a_report, open_report


def read_diagnosed(paths: list[Path]) -> Diagnosed:
    """The diagnosed nodules of evaluations, each in the form in which it was compared with the cases.

    Args:
        paths: JSON of ``train evaluate``, or the same compressed by xz.

    Raises:
        TrainingDataError: If a file is not such a report, a nodule is in two of them, or there are too few nodules.
    """
    found: dict[str, tuple[str, int, float]] = {}
    for path in paths:
        report = open_report(path)
        try:
            asked = {case for fold in report["retrieved"] for case in fold["machine"]}
            own = {
                j["case_id"]: (str(j["patient_id"]), int(j["label"]), float(j["malignancy"]))
                for j in report["judgements"]
                if j["case_id"] in asked and j["form"] != "cube-cut"
            }
        except (ValueError, KeyError, TypeError) as error:
            raise not_a_report(path, error) from error
        if twice := sorted(own.keys() & found.keys()):
            raise TrainingDataError(f"{twice[0]} is in two of the reports", hint="give each fold once")
        found |= own
    return Diagnosed.of(found)


def calibrate(
    reports: Annotated[list[Path], typer.Argument(help="Reports of `train evaluate` on all folds, JSON or .xz.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
) -> None:
    """Fit the two numbers that turn CNet's output into a probability, and judge them on patients left out of the fit.

    `export bundle --calibration` takes the report.
    """
    nodules = read_diagnosed(reports)
    section, slope, intercept, after = calibration_section(nodules)
    report: dict[str, object] = {
        "sections": [section.to_dict()],
        "command": f"nodule-diag train calibrate {' '.join(map(shown, reports))} --out {shown(out)}",
        "calibration": {"slope": slope, "intercept": intercept},
        "nodules": [
            {"case_id": case, "patient_id": patient, "label": int(label), "logit": logit, "after": p}
            for case, patient, label, logit, p in zip(
                nodules.case_ids,
                nodules.patients,
                nodules.labels.tolist(),
                nodules.logits.tolist(),
                after.tolist(),
                strict=True,
            )
        ],
    }
    if not math.isfinite(slope):
        raise TrainingDataError("the fit has no answer", hint="look at the report of the evaluation")
    write_report(out, report, [section])
