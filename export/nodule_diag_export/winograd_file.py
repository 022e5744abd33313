"""Adds the graph with fewer products to a bundle, once it answers as the fp32 network does.

Its file holds nodes only. ONNX lets a tensor lie in another file: each weight is the range of bytes that it has in the
fp32 file anyway, so nothing is stored twice, and any runtime that opens the two side by side reads it.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from nodule_diag.backends import create_backend
from nodule_diag.backends.choice import REFERENCE
from nodule_diag.backends.winograd import WEIGHTS_KEY, WinogradBackend
from nodule_diag.bundle import Bundle, write_bundle
from nodule_diag.manifest import MANIFEST_NAME, ParityFigures, WinogradModel
from nodule_diag.parity import compare, infer_all, misses
from nodule_diag.retrieval import CaseIndex

from .errors import ParityError
from .onnx_graph import opset_of, with_metadata
from .reduced import parse_onnx
from .winograd_graph import winograd_graph

FILE = "model.winograd.onnx"
LEAST_BYTES = 1024
"""Of a weight that is pointed to; a smaller one is written into the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WinogradExport:
    """The file of a graph with fewer products.

    Attributes:
        data: Its bytes.
        opset: Version of the standard operator set.
    """

    data: bytes = field(repr=False)
    opset: int


def winograd_file(network: bytes, *, file: str) -> WinogradExport:
    """Rewrite a network.

    Args:
        network: The bytes of the fp32 file.
        file: Its name, which the new file refers to; the two belong into one folder.

    Raises:
        ExportError: ``winograd-unsupported`` if it cannot be rewritten.
    """
    proto = parse_onnx(network, name=file)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    said[WEIGHTS_KEY] = hashlib.sha256(network).hexdigest()
    rewritten = with_metadata(winograd_graph(proto), said)
    _point_into(rewritten, network, file)
    return WinogradExport(data=rewritten.SerializeToString(deterministic=True), opset=opset_of(rewritten))


def _point_into(proto: ModelProto, network: bytes, file: str) -> None:
    """Replace the weights that the fp32 file holds by where they are in it."""
    for tensor in proto.graph.initializer:
        data = tensor.raw_data
        at = network.find(data) if len(data) >= LEAST_BYTES else -1
        if at < 0:
            continue
        place = {"location": file, "offset": str(at), "length": str(len(data))}
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)


def add_winograd(
    bundle: Bundle, *, patches: NDArray[np.float32], out: Path, threads: int
) -> tuple[Bundle, ParityFigures]:
    """Write a copy of a bundle that holds the graph with fewer products beside its fp32 one.

    Args:
        bundle: The bundle to copy.
        patches: [N, 2, 64, 64, 64] float32 to compare the two graphs on.
        out: A directory, or a ``.zip``.
        threads: CPU threads of a call, at least 1.

    Returns:
        The copy as it was read back, and the differences.

    Raises:
        ExportError: ``winograd-unsupported`` if the network cannot be rewritten.
        ParityError: If it misses the fp32 gate. Nothing is written then.
        BackendError: If onnxruntime cannot run it.
        OutputError: If it cannot be written.
    """
    old = bundle.manifest
    made = winograd_file(bundle.read(old.model.file), file=old.model.file)
    entry = WinogradModel(file=FILE, opset=made.opset)
    records = tuple(record for record in old.parity if record.backend != WinogradBackend.name)
    manifest = old.model_copy(update={"model": old.model.model_copy(update={"winograd": entry}), "parity": records})
    files = {name: bundle.read(name) for name in old.files if name != MANIFEST_NAME}
    files[FILE] = made.data
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(write_bundle(Path(folder) / "bundle", manifest=manifest, files=files), patches, threads)
    if missed := misses(figures, precision="fp32"):
        raise ParityError(
            f"the winograd graph differs from the fp32 one by too much: {'; '.join(missed)}; nothing was written",
            hint="use the network as it is, and report this",
        )
    return write_bundle(out, manifest=manifest, files=files), figures


def _measure(bundle: Bundle, patches: NDArray[np.float32], threads: int) -> ParityFigures:
    wanted, found = (
        infer_all(create_backend(bundle, name=name, device="cpu", precision="fp32", threads=threads), patches)
        for name in (REFERENCE, WinogradBackend.name)
    )
    return compare(wanted, found, precision="fp32", cases=CaseIndex(bundle), k=bundle.manifest.retrieval.k)
