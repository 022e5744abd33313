"""``nodule-diag grand-challenge``: the interface of LUNA25, for a container without arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodule_diag_cli import terminal
from nodule_diag_cli.options import (
    BackendName,
    BackendOption,
    BundleOption,
    DeviceOption,
    PrecisionName,
    PrecisionOption,
    PrevalenceOption,
)


def grand_challenge(
    input_folder: Annotated[
        Path, typer.Option("--input", metavar="DIR", help="Folder with nodule-locations.json and images/chest-ct.")
    ] = Path("/input"),
    output_folder: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder for lung-nodule-malginancy-likelihoods.json.")
    ] = Path("/output"),
    bundle: BundleOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    prevalence: PrevalenceOption = None,
) -> None:
    """Answer one job of the LUNA25 challenge: every nodule of a CT gets a probability, even if one fails.

    A nodule that cannot be diagnosed gets 0.5, or the prevalence; stderr reports why.
    """
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.exchange import answer_grand_challenge

    diagnoser = Diagnoser.load(bundle, backend=backend.value, device=device, precision=precision.value)
    answered = answer_grand_challenge(diagnoser, input_folder, output_folder, prevalence=prevalence)
    for failure in answered.failures:
        terminal.complain(f"warning: {failure}; the prior is used instead")
    terminal.console().print(f"Wrote {answered.path}: {answered.count} nodules.")
