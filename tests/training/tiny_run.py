"""A run on the small nodules in a process of its own: ``python tiny_run.py FOLDER CONFIG``, alone or under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import make_all_voxels, make_nodules
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.engine import Run
from nodule_diag_training.execution import Execution
from nodule_diag_training.processes import joined


def main(folder: Path, config: TrainingConfig) -> None:
    """Train, saying each step."""
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
        run.train(on_step=lambda entry: print(entry.step, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), TrainingConfig.model_validate_json(sys.argv[2]))
