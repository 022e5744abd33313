"""``nodule-diag export``."""

from __future__ import annotations

import typer

from nodule_diag_export.commands.bundle import bundle_command, cases_command, parity_command
from nodule_diag_export.commands.engines import tensorrt_command, tensorrt_rtx_command
from nodule_diag_export.commands.graph import fused_command, onnx_command, precision_command, winograd_command

app = typer.Typer(name="export", help="Export a trained model.", no_args_is_help=True, add_completion=False)
app.command("onnx")(onnx_command)
app.command("precision")(precision_command)
app.command("winograd")(winograd_command)
app.command("tensorrt")(tensorrt_command)
app.command("tensorrt-rtx")(tensorrt_rtx_command)
app.command("bundle")(bundle_command)
app.command("cases")(cases_command)
app.command("parity")(parity_command)
app.command("fused")(fused_command)
