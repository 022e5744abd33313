"""How far a training is, on stderr; and the precision to give where a training is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .config import Precision, TrainingConfig
from .engine import StepLog, slow_in_bf16

Show = Callable[[TrainingConfig, StepLog], None]

SLOW = "warning: bf16 is very slow on this CPU, which has no AVX-512; stop, and give --precision fp32 and a new --out"
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Precision of the convolutions, instead of the configuration's. fp32 on a CPU without AVX-512.",
        show_default=False,
    ),
]


@contextmanager
def progress(
    title: str | None = None, *, precision: Precision, device: str = "cpu", shown: bool = True
) -> Iterator[Show]:
    """A progress bar, and the function that moves it after a step of a configuration.

    Args:
        title: Text before the bar.
        precision: Precision of the training; the first step in bf16 may take minutes, so the warning comes before it.
        device: The device that computes; a CPU that is slow in bf16 gets a warning.
        shown: Whether the bar is shown; of several processes, one shows it.
    """
    from tqdm import tqdm

    if slow_in_bf16(device) and shown and precision == "bf16":
        typer.echo(SLOW, err=True)
    with tqdm(unit="step", desc=title, disable=not shown) as bar:

        def show(config: TrainingConfig, entry: StepLog) -> None:
            bar.total = config.steps
            bar.update(entry.step + 1 - bar.n)
            bar.set_postfix(
                total=f"{entry.total:.3f}", cls=f"{entry.classification:.3f}", cam=f"{entry.cam:.3f}",
                seg=f"{entry.segmentation:.3f}", reg=f"{entry.score:.3f}",
            )  # fmt: skip

        yield show
