"""Writes the repository: two models, one version of each, whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Final

from nodule_diag.errors import OutputError
from nodule_diag.process import sync_folder, write_bytes
from nodule_diag_export.fused import HuType, Source, fuse_model
from nodule_diag_export.graph import parse_onnx, tensors_of

from .config import Serving, config_text

PATCHES: Final = "nodule-diag"
FUSED: Final = "nodule-diag-fused"
VERSION: Final = "1"
MODEL_FILE: Final = "model.onnx"
"""The file that Triton's ONNX Runtime backend looks for in a version's folder."""


def repository_files(
    source: Source, *, serving: Serving, hu_type: HuType = "float32", threads: int = 0
) -> dict[str, bytes]:
    """Every file of the repository, by its path there.

    Args:
        source: The network.
        serving: How the server runs both models.
        hu_type: Type of the fused graph's HU.
        threads: CPU threads for ONNX Runtime, which measures the fused graph.

    Raises:
        ExportError: As :func:`nodule_diag_export.fused.export_fused`.
    """
    files = {}
    for name, data in (
        (PATCHES, source.network),
        (FUSED, fuse_model(source, hu_type=hu_type, threads=threads).data),
    ):
        graph = parse_onnx(data, name=name).graph
        config = config_text(
            name,
            inputs=tensors_of(list(graph.input)),
            outputs=tensors_of(list(graph.output)),
            serving=serving,
            batched=name == PATCHES,
        )
        files[f"{name}/config.pbtxt"] = config.encode()
        files[f"{name}/{VERSION}/{MODEL_FILE}"] = data
    return files


def export_triton(
    source: Source, out: Path, *, serving: Serving, hu_type: HuType = "float32", threads: int = 0
) -> list[str]:
    """:func:`repository_files` into a new folder, which appears whole or not at all.

    Returns:
        The names of the models.

    Raises:
        OutputError: If the folder exists and is not empty, or cannot be written.
        ExportError: As :func:`repository_files`.
    """
    _require_new(out)
    files = repository_files(source, serving=serving, hu_type=hu_type, threads=threads)
    fresh = out.with_name(f".{secrets.token_hex(6)}.{out.name}")
    try:
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(fresh / name, data)
        fresh.rename(out)  # over an empty folder, too
        sync_folder(out.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write the repository {out}: {error.strerror or error}", hint="check the folder it is in"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return [PATCHES, FUSED]


def _require_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists", hint="name a new folder; Triton would take what else is in it for models")
