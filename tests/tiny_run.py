"""A run on the small nodules in a process of its own, alone or under torchrun.

``python tiny_run.py FOLDER CONFIG``; ``--held`` behind them waits in the last step, for a kill that must not come late.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.engine.execution import Execution
from nodule_diag_training.engine.processes import joined
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.runlog import StepLog
from nodule_diag_training.model import synergic as model
from tiny_nodules import make_all_voxels, make_nodules

NARROW = {
    "HEAD_CHANNELS": 16,
    "BLOCKS": ((16, 2, 1), (32, 1, 2), (64, 1, 4)),
    "FEATURE_CHANNELS": 64,
    "SEGNET_CHANNELS": 8,
}
"""The model's layers a quarter as wide; the last ones still go through Winograd's filtering."""


def main(folder: Path, config: TrainingConfig, *, held: bool) -> None:
    """Train, saying each step."""

    def said(entry: StepLog) -> None:
        print(entry.step, flush=True)
        if held and entry.step + 1 == config.steps:
            threading.Event().wait()

    for name, value in NARROW.items():
        setattr(model, name, value)
    nodules = make_nodules()
    with joined(Execution()) as (processes, execution):
        run = Run(
            folder,
            config=config,
            nodules=nodules,
            voxels=make_all_voxels(nodules),
            execution=execution,
            processes=processes,
        )
        run.train(on_step=said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), TrainingConfig.model_validate_json(sys.argv[2]), held="--held" in sys.argv[3:])
