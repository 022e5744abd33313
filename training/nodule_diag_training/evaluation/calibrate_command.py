"""``nodule-diag train calibrate``: P against the diagnoses that an evaluation holds."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nodule_diag_training.data import TrainingDataError

from .calibration import Diagnosed, calibration_section
from .commands import shown, write_report

SMALLEST_DOUBT = 1e-7
"""Of a P that float32 rounded to 0 or 1."""


def read_diagnosed(paths: list[Path]) -> Diagnosed:
    """The diagnosed nodules of evaluations, each in the form in which it was compared with the cases.

    Args:
        paths: JSON of ``train evaluate``, or the same compressed by xz.

    Raises:
        TrainingDataError: If one is no such report, a nodule is in two of them, or there are too few.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            text = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            report = json.loads(text)
            asked = {case for fold in report["retrieved"] for case in fold["machine"]}
            judged = [j for j in report["judgements"] if j["case_id"] in asked and j["form"] != "cube-cut"]
            own = {
                j["case_id"]: {"patient": str(j["patient_id"]), "label": int(j["label"]), "p": float(j["malignancy"])}
                for j in judged
            }
        except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
            raise TrainingDataError(
                f"{path} is no report of an evaluation: {error!r}", hint="give what `nodule-diag train evaluate` wrote"
            ) from error
        if twice := sorted(own.keys() & found.keys()):
            raise TrainingDataError(f"{twice[0]} is in two of the reports", hint="give each fold once")
        found |= own
    p = np.clip([nodule["p"] for nodule in found.values()], SMALLEST_DOUBT, 1.0 - SMALLEST_DOUBT)
    return Diagnosed(
        case_ids=tuple(found),
        patients=tuple(nodule["patient"] for nodule in found.values()),
        logits=np.log(p / (1.0 - p)),
        labels=np.array([nodule["label"] for nodule in found.values()], dtype=np.float64),
    )


def calibrate(
    reports: Annotated[list[Path], typer.Argument(help="What `train evaluate` wrote of all folds, or .xz of it.")],
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
