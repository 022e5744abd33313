"""Adds the graph with fewer products to a bundle, once its answers match the fp32 network's.

Its files hold nodes only. ONNX lets a tensor lie in another file: each weight refers to its range of bytes in the fp32
file, so nothing is stored twice. The transformed kernels, eight times the size of the weights, are not stored: a
separate graph makes them.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx.shape_inference import infer_shapes

from nodule_diag.backends import REFERENCE, WEIGHTS_KEY, WinogradBackend, compare, create_backend, infer_all, misses
from nodule_diag.bundle import Bundle, ParityFigures, WinogradModel, write_bundle
from nodule_diag.cases import CaseIndex
from nodule_diag_export.errors import ParityError
from nodule_diag_export.graph import opset_of, parse_onnx, with_metadata

from .graph import winograd_graph

FILE = "model.winograd.onnx"
KERNELS_FILE = "model.winograd-kernels.onnx"
LEAST_BYTES = 1024
"""Size from which a weight is a reference; a smaller weight is written into the file."""
GIVEN = "given"
"""Stands for a file's name where the program gives the tensor to the runtime."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WinogradExport:
    """A graph with fewer products, in two files.

    Attributes:
        network: From patch to answers; the runtime gets the transformed kernels from the program.
        kernels: From the weights of the fp32 file to the transformed kernels.
        opset: Version of the standard operator set.
    """

    network: bytes = field(repr=False)
    kernels: bytes = field(repr=False)
    opset: int


def winograd_files(network: bytes, *, file: str) -> WinogradExport:
    """Rewrite a network.

    Args:
        network: The bytes of the fp32 file.
        file: The file's name, which the new files refer to.

    Raises:
        ExportError: ``winograd-unsupported`` if the network cannot be rewritten.
    """
    proto = parse_onnx(network, name=file)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    said[WEIGHTS_KEY] = hashlib.sha256(network).hexdigest()
    kernels, rest = split_constants(with_metadata(winograd_graph(proto), said))
    for part in (kernels, rest):
        _point_into(part, network, file)
    return WinogradExport(
        network=rest.SerializeToString(deterministic=True),
        kernels=kernels.SerializeToString(deterministic=True),
        opset=opset_of(rest),
    )


def split_constants(proto: ModelProto) -> tuple[ModelProto, ModelProto]:
    """Split a graph into the part that does not depend on its inputs and the rest.

    Returns:
        A graph without inputs, and one that still needs the first graph's outputs as initializers.
    """
    shapes = {value.name: value for value in infer_shapes(proto, strict_mode=True, data_prop=True).graph.value_info}
    known = {tensor.name for tensor in proto.graph.initializer}
    made: set[str] = set()
    first: list[NodeProto] = []
    rest: list[NodeProto] = []
    for node in proto.graph.node:
        constant = all(name in known or name in made for name in node.input)
        (first if constant else rest).append(node)
        made.update(node.output if constant else ())
    given = sorted(made & {name for node in rest for name in node.input})
    front, back = ModelProto(), ModelProto()
    for part, nodes in ((front, first), (back, rest)):
        part.CopyFrom(proto)
        used = {name for node in nodes for name in node.input}
        del part.graph.node[:], part.graph.initializer[:], part.graph.value_info[:]
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in used)
    del front.graph.input[:], front.graph.output[:]
    front.graph.output.extend(shapes[name] for name in given)
    for name in given:
        axes = shapes[name].type.tensor_type.shape.dim
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[axis.dim_value for axis in axes])
        _place_outside(tensor, location=GIVEN)
        back.graph.initializer.append(tensor)
    return front, back


def _point_into(proto: ModelProto, network: bytes, file: str) -> None:
    """Replace each weight that the fp32 file holds by a reference to its place there."""
    for tensor in proto.graph.initializer:
        data = tensor.raw_data
        at = network.find(data) if len(data) >= LEAST_BYTES else -1
        if at >= 0:
            tensor.ClearField("raw_data")
            _place_outside(tensor, location=file, offset=str(at), length=str(len(data)))


def _place_outside(tensor: TensorProto, **place: str) -> None:
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
        ParityError: If the graph misses the fp32 gate. Nothing is written then.
        BackendError: If onnxruntime cannot run the graph.
        OutputError: If it cannot be written.
    """
    old = bundle.manifest
    made = winograd_files(bundle.read(old.model.file), file=old.model.file)
    entry = WinogradModel(file=FILE, kernels=KERNELS_FILE, opset=made.opset)
    records = tuple(record for record in old.parity if record.backend != WinogradBackend.name)
    manifest = old.model_copy(update={"model": old.model.model_copy(update={"winograd": entry}), "parity": records})
    files = dict(bundle.files)
    files |= {FILE: made.network, KERNELS_FILE: made.kernels}
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
