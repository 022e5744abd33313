"""Writes graphs of reduced precision, alone or into a copy of a bundle, once they have passed their gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from nodule_diag.bundle import Bundle, ReducedModel, write_bundle
from nodule_diag.cases import CaseIndex
from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph import PRECISION_KEY, Precision, mixed_graph, opset_of, precision_of, with_metadata
from nodule_diag_export.parity import ReducedParity, measure_reduced, require_reduced

PARITY_KEY = "reduced_parity"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReducedExport:
    """A graph of reduced precision that passed its gate.

    Attributes:
        data: Its ONNX file.
        opset: Version of the standard operator set.
        parity: Its difference from the fp32 graph; the file's metadata hold this too.
    """

    data: bytes = field(repr=False)
    opset: int
    parity: ReducedParity


def reduce_graph(
    proto: ModelProto,
    precision: Precision,
    *,
    patches: Sequence[NDArray[np.float32]],
    source: str,
    bundle: Bundle | None = None,
    threads: int = 0,
) -> ReducedExport:
    """Lower the precision of a graph's convolutions, measure the change, and describe it.

    Args:
        proto: The fp32 graph.
        precision: Precision of the convolutions.
        patches: The patches to compare on, each [2, 64, 64, 64] float32.
        source: What the patches show, in words.
        bundle: The bundle whose case base the retrieved cases are compared on.
        threads: CPU threads for ONNX Runtime.

    Raises:
        ExportError: If the graph cannot be lowered, or is not fp32.
        ParityError: If the graph misses a gate.
    """
    if precision_of(proto) != "fp32":
        raise ExportError(f"the graph is {precision_of(proto)} already", hint="give the fp32 graph")
    mixed = mixed_graph(proto, precision)
    parity = measure_reduced(
        proto,
        precision,
        patches=patches,
        source=source,
        cases=None if bundle is None else CaseIndex(bundle),
        k=20 if bundle is None else bundle.manifest.retrieval.k,
        threads=threads,
    )
    require_reduced(parity)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    said |= {PRECISION_KEY: precision, PARITY_KEY: json.dumps(parity.to_dict(), sort_keys=True)}
    described = with_metadata(mixed, said)
    return ReducedExport(data=described.SerializeToString(deterministic=True), opset=opset_of(mixed), parity=parity)


def add_precision(bundle: Bundle, reduced: ReducedExport, *, out: Path) -> Bundle:
    """Write a copy of a bundle that holds a graph of reduced precision beside its fp32 one.

    Args:
        bundle: The bundle to copy.
        reduced: The graph, made from the bundle's own.
        out: A directory, or a ``.zip``.

    Returns:
        The copy as it was read back.

    Raises:
        OutputError: If it cannot be written.
    """
    old, precision = bundle.manifest, reduced.parity.precision
    file = f"model.{precision}.onnx"
    entry = ReducedModel.model_validate(
        {"file": file, "opset": reduced.opset, "parity": json.loads(json.dumps(reduced.parity.to_dict()))}
    )
    model = old.model.model_copy(update={"reduced": {**old.model.reduced, precision: entry}})
    files = dict(bundle.files)
    return write_bundle(out, manifest=old.model_copy(update={"model": model}), files={**files, file: reduced.data})
