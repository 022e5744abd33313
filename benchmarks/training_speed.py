"""Steps per second of the training engine against the plain fp32 loop that a newcomer would write.

Both train the same model on the same batches: four nodules at 64 voxels, with the paper's losses and Adam. The plain
loop has torch's own convolutions in its default memory layout and the C library's default allocator. It reads and
augments the drawn nodules before each step, and keeps in memory the cubes that lend their surroundings. "plain, in
memory" reads nothing from disk while it trains. The engine is ``engine.Run`` as it is. Each measurement is a separate
process, taken in turns, so that a busy machine slows all of them.

    python benchmarks/training_speed.py --out training_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from nodule_diag.ct import distance_from_middle
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data import Nodule, NoduleVoxels, PairSource, SureLabel, load_all, load_voxels
from nodule_diag_training.engine import Execution, Run, keep_freed_memory, step_losses
from nodule_diag_training.model import DilatedConv3d, build_model

PATIENTS = 12
CUBE_MM = 64
VOI_SHAPE = (12, 48, 48)
VOI_SPACING_XYZ_MM = (0.7, 0.7, 2.5)
PLAIN, IN_MEMORY, ENGINE = "plain", "plain, in memory", "engine"
MODES = (PLAIN, IN_MEMORY, ENGINE)
TARGET = 2.5
"""Target of the engine's steps per second divided by the plain loop's."""


def write_nodules(folder: Path) -> list[Nodule]:
    """A cube and a VOI for each patient, as files like the shared ones: noise around a bright ball."""
    rng = np.random.default_rng(0)
    nodules = []
    for patient in range(PATIENTS):
        for cube in (True, False):
            shape = (CUBE_MM,) * 3 if cube else VOI_SHAPE
            spacing = (1.0, 1.0, 1.0) if cube else VOI_SPACING_XYZ_MM[::-1]
            mask = (distance_from_middle(shape, spacing_zyx_mm=spacing) <= 6.0).astype(np.uint8)
            hu = (rng.normal(-850.0, 60.0, shape) + 900.0 * mask).astype(np.int16)
            image = folder / f"{patient}.{'npz' if cube else 'nii.gz'}"
            outline = None if cube else folder / f"{patient}-mask.nii.gz"
            if outline is None:
                np.savez_compressed(image, hu=hu, mask=mask)
            else:
                for array, path in ((hu, image), (mask, outline)):
                    volume = sitk.GetImageFromArray(array)
                    volume.SetSpacing(VOI_SPACING_XYZ_MM)
                    sitk.WriteImage(volume, str(path), useCompression=True)
            nodules.append(
                Nodule(
                    case_id=f"{'cube' if cube else 'voi'}-{patient}",
                    patient_id=str(patient),
                    image=image,
                    mask=outline,
                    reader_scores=(1 + patient % 5,),
                    diameter_mm=12.0,
                    in_paper_cohort=True,
                    sure=SureLabel(malignant=patient % 2, method="", certainty="nodule"),
                )
            )
    return nodules


class ReadWhenDrawn(Mapping[str, NoduleVoxels]):
    """Voxels of cubes from memory, since any of them may lend its surroundings; of VOIs from disk each time."""

    def __init__(self, nodules: Sequence[Nodule]) -> None:
        self._vois = {n.case_id: n for n in nodules if not n.is_cube}
        self._cubes = load_all([n for n in nodules if n.is_cube])

    def __getitem__(self, case_id: str) -> NoduleVoxels:
        """Voxels of one nodule."""
        return self._cubes[case_id] if case_id in self._cubes else load_voxels(self._vois[case_id])

    def __iter__(self) -> Iterator[str]:
        """All case ids."""
        return iter([*self._cubes, *self._vois])

    def __len__(self) -> int:
        """Number of nodules."""
        return len(self._cubes) + len(self._vois)


def plain_steps(nodules: Sequence[Nodule], *, config: TrainingConfig, device: str, in_memory: bool) -> Iterator[None]:
    """The plain loop, one step at a time."""
    voxels: Mapping[str, NoduleVoxels] = load_all(nodules) if in_memory else ReadWhenDrawn(nodules)
    source = PairSource(config, nodules, voxels)
    model = build_model(config)
    for module in model.modules():
        if isinstance(module, DilatedConv3d):
            module.__class__ = nn.Conv3d  # type: ignore[assignment]
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for step in range(config.steps):
        unsure, sure = source.draw(step)
        batch = torch.from_numpy(np.stack([d.sample.patch for d in [*unsure, *sure]])).to(device)
        terms = step_losses(model(batch), unsure, sure, config)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        terms.total.item()
        yield


def measure(mode: str, *, folder: Path, steps: int, device: str) -> dict[str, float]:
    """Seconds of a step, wall and CPU time, after one step that does not count."""
    config = TrainingConfig(
        stages=(Stage(size=64, steps=steps + 1),),
        cohort="all",
        unsure_per_step=2,
        sure_per_step=2,
        sure_teaches_unsure=True,
        checkpoint_every=steps + 1,
    )
    nodules = write_nodules(folder)
    clock: list[float] = []
    cpu: list[float] = []

    def note(_: object) -> None:
        clock.append(time.perf_counter())
        cpu.append(time.process_time())

    if mode == ENGINE:
        keep_freed_memory()
        execution = Execution(device=device)
        run = Run(folder / "run", config=config, nodules=nodules, voxels=load_all(nodules), execution=execution)
        run.train(on_step=note)
    else:
        for done in plain_steps(nodules, config=config, device=device, in_memory=mode == IN_MEMORY):
            note(done)
    return {"seconds": (clock[-1] - clock[0]) / steps, "cpu_seconds": (cpu[-1] - cpu[0]) / steps}


def environment(device: str) -> dict[str, object]:
    """The environment that the figures depend on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": model or platform.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
    }


def main() -> None:
    """Measure in turns and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training_speed.json"))
    parser.add_argument("--steps", type=int, default=4, help="timed steps in each process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(arguments.only, folder=Path(folder), steps=arguments.steps, device=arguments.device)
        print(json.dumps(figures))
        return
    seen: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for turn in range(arguments.turns):
        for mode in MODES:
            command = [sys.executable, __file__, "--only", mode, "--steps", str(arguments.steps)]
            done = subprocess.run([*command, "--device", arguments.device], capture_output=True, text=True, check=True)
            seen[mode].append(json.loads(done.stdout))
            print(f"turn {turn + 1}, {mode}: {seen[mode][-1]}", flush=True)
    summary = {
        mode: {kind: median(run[kind] for run in runs) for kind in ("seconds", "cpu_seconds")}
        for mode, runs in seen.items()
    }
    ratios = {
        mode: {kind: summary[mode][kind] / summary[ENGINE][kind] for kind in ("seconds", "cpu_seconds")}
        for mode in (PLAIN, IN_MEMORY)
    }
    report = {
        "environment": environment(arguments.device),
        "batch": 4,
        "patch_size": 64,
        "steps": arguments.steps,
        "turns": seen,
        "median": {mode: {**row, "steps_per_second": 1.0 / row["seconds"]} for mode, row in summary.items()},
        "engine_over": ratios,
        "target": TARGET,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for mode, ratio in ratios.items():
        print(f"engine over {mode}: {ratio['seconds']:.2f} on the clock, {ratio['cpu_seconds']:.2f} of CPU time")


if __name__ == "__main__":
    main()
