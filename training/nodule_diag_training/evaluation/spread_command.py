"""``nodule-diag train spread``: the spread over turned views above which P's error doubles, if there is one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nodule_diag.backends import SymmetricBackend, infer_all, require_views
from nodule_diag.errors import UsageError
from nodule_diag.results import UNCALIBRATED, Calibration
from nodule_diag_training.data import Nodule, TrainingData, TrainingDataError, once, scenario_label
from nodule_diag_training.engine import MODEL, load_model
from nodule_diag_training.options import DEFAULT_DATA, DataOption, StoreOption

from .commands import shown, shown_stores, write_report
from .crossval import HELD_OUT
from .presence import TorchBackend, whole_patches
from .turned_views import Turned, errors_double_above, spread_section

SIDES = "12/45"


def truth_of(nodule: Nodule) -> int | None:
    """1 malignant or 0 benign, by diagnosis, else by the side of the readers' mean; None where neither is known."""
    if nodule.sure is not None:
        return int(nodule.sure.malignant)
    side = scenario_label(SIDES, nodule.mean_score) if nodule.reader_scores else None
    return None if side is None else int(side)


def turned_views(folder: Path, data: TrainingData, *, views: int, calibration: Calibration | None) -> list[Turned]:
    """A fold's answers on turned views of the nodules that it held out: diagnosed ones, and those seen whole.

    Raises:
        TrainingDataError: If the fold held out none.
    """
    model, _, facts = load_model(folder / MODEL)
    held_out = frozenset(facts.get(HELD_OUT, []))
    left_out = [nodule for nodule in once(data.nodules) if nodule.patient_id in held_out]
    asked = [
        nodule for nodule in left_out if truth_of(nodule) is not None and (nodule.is_cube or nodule.sure is not None)
    ]
    if not asked:
        raise TrainingDataError(f"{folder} left out no nodule whose truth is known", hint="judge runs of --fold")
    lenders = [*asked, *(nodule for nodule in left_out if nodule.is_cube and nodule not in asked)]
    patches = whole_patches(lenders, data.voxels_of(lenders))[: len(asked)]
    outputs = infer_all(SymmetricBackend(TorchBackend(model), views=views), np.stack(patches))
    if outputs.view_logits is None:  # for the type checker: several views have them
        raise TrainingDataError("one view has no spread")
    made = UNCALIBRATED if calibration is None else calibration
    return [
        Turned(
            case_id=nodule.case_id,
            patient_id=nodule.patient_id,
            truth=truth_of(nodule) or 0,
            diagnosed=nodule.sure is not None,
            malignancy=made.probability(float(logit)),
            spread=made.spread(turned.tolist()),
            score_error=abs(float(score) - nodule.mean_score) if nodule.reader_scores else float("nan"),
        )
        for nodule, logit, turned, score in zip(
            asked, outputs.logit, outputs.view_logits, outputs.expert_score, strict=True
        )
    ]


def spread(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one per fold.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Report of `train calibrate`, if P is calibrated.", show_default=False),
    ] = None,
    views: Annotated[int, typer.Option(metavar="8|48", help="Views of each patch.")] = 8,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
) -> None:
    """Measure whether P is more often wrong where P varies as the patch is turned (`predict --symmetries`).

    `export bundle --spread` takes the report: if errors double above some spread, larger spreads get a warning.
    """
    if require_views(views) == 1:
        raise UsageError("one view has no spread", hint="give --views 8 or 48")
    made = None if calibration is None else _read(calibration)
    loaded = TrainingData.of(data, store or ())
    turned = [one for run in runs for one in turned_views(run, loaded, views=views, calibration=made)]
    limit, tried = errors_double_above(turned)
    section = spread_section(turned, tried, views=views)
    report: dict[str, object] = {
        "sections": [section.to_dict()],
        "command": f"nodule-diag train spread {' '.join(map(shown, runs))}{shown_stores(store)}"
        f"{'' if calibration is None else f' --calibration {shown(calibration)}'} --views {views} --out {shown(out)}",
        "spread": None if limit is None else {"views": views, "warn_above": limit},
        "turned": [asdict(one) for one in turned],
    }
    write_report(out, report, [section])
    said = "no spread was found above which errors double" if limit is None else f"errors double above {limit:.3f}"
    typer.echo(f"\n{said}")


def _read(path: Path) -> Calibration:
    try:
        return Calibration(**json.loads(path.read_bytes())["calibration"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no calibration: {error!r}", hint="give what `train calibrate` wrote") from error
