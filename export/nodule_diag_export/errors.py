"""The errors between a checkpoint and a bundle."""

from __future__ import annotations

from nodule_diag.errors import NoduleDiagError


class ExportError(NoduleDiagError, ValueError):
    """A checkpoint, results file or graph that cannot become part of a bundle."""

    code = "export-failed"
    exit_code = 1


class ParityError(ExportError):
    """The exported graph's answers differ from the trained model's. Nothing was written."""

    code = "export-parity"
