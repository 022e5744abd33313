"""The network alone, run by torch in several ways, by plain runtimes, and by every SDK backend that works here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.weights import torch_network
from benchmarks.subject import Bench
from nodule_diag.backends import BACKENDS, PRECISIONS, Outputs, create_backend, probe_patch
from nodule_diag.errors import BackendError
from nodule_diag_export.graph import OUTPUTS
from nodule_diag_export.parity import OnnxModel

Float = NDArray[np.float32]
EAGER = "torch eager"


class Runs(Protocol):
    """Anything that runs the network."""

    def infer(self, patches: Float) -> Outputs:
        """Run the network on (N, 2, 64, 64, 64) float32 patches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A way to run the network.

    Attributes:
        name: Name in results.
        precision: Precision that it computes in.
        runs: The object that runs it.
        graph: The ONNX file that it runs; None for torch's own module.
        peer: True if it is not one of nodule-diag's backends.
    """

    name: str
    precision: str
    runs: Runs
    graph: bytes | None = field(default=None, repr=False)
    peer: bool = False


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """The exported module in torch, eager or compiled."""

    network: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    memory_format: torch.memory_format = torch.contiguous_format

    def infer(self, patches: Float) -> Outputs:
        """Run the module."""
        with torch.inference_mode():
            found = self.network(torch.from_numpy(patches).to(memory_format=self.memory_format))
        return Outputs(**{name: tensor.numpy() for name, tensor in zip(OUTPUTS, found, strict=False)})


@dataclass(frozen=True, eq=False)
class PlainOnnxRuntime:
    """An ONNX file in a session with default options except the number of threads."""

    model: OnnxModel

    def infer(self, patches: Float) -> Outputs:
        """Run the session."""
        return Outputs(**self.model.run(patches))


def torch_networks(bench: Bench, notes: list[str]) -> Iterator[Network]:
    """PyTorch eager, with channels last, and compiled."""
    source = torch_network(bench.bundle, checkpoint=bench.settings.checkpoint)
    yield Network(name=EAGER, precision="fp32", runs=TorchNetwork(source), peer=True)
    last = torch_network(bench.bundle, checkpoint=bench.settings.checkpoint)
    last.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs leave it out
    runs = TorchNetwork(last, torch.channels_last_3d)
    yield Network(name="torch eager, channels last", precision="fp32", runs=runs, peer=True)
    compiler = os.environ.get("CXX", "g++")
    if bench.settings.quick:
        notes.append("torch.compile was left out: compiling takes a minute, and this run is quick")
    elif shutil.which(compiler) is None:
        notes.append(f"torch.compile was left out: it needs a C++ compiler, and there is no {compiler}")
    else:
        # The batch is fixed, as it is in the timing: the compiler may use this.
        compiled = TorchNetwork(torch.compile(last, dynamic=False), torch.channels_last_3d)
        try:
            compiled.infer(probe_patch())
        except RuntimeError as error:  # the base of dynamo's and inductor's errors
            notes.append(f"torch.compile was left out: {str(error).splitlines()[0]}")
            return
        yield Network(name="torch.compile, channels last", precision="fp32", runs=compiled, peer=True)


def plain_graph(name: str, data: bytes, *, threads: int) -> Network:
    """An ONNX file in plain ONNX Runtime."""
    runs = PlainOnnxRuntime(OnnxModel(data, threads=threads))
    return Network(name=name, precision="fp32", runs=runs, graph=data, peer=True)


def sdk_networks(bench: Bench, notes: list[str], *, threads: int) -> Iterator[Network]:
    """Every backend and precision that works here; the notes say why the others do not."""
    model = bench.bundle.manifest.model
    for name in BACKENDS:
        for precision in PRECISIONS:
            try:
                runs = create_backend(bench.bundle, name=name, device="auto", precision=precision, threads=threads)
            except BackendError as error:
                notes.append(f"{name} {precision} was left out: {error.message}")
                if precision == PRECISIONS[0]:  # no precision of it works here
                    break
                continue
            # The manifest names a backend's own graph under the backend's name. Graphs of reduced precision have the
            # products of the fp32 graph.
            file = getattr(getattr(model, name, None), "file", model.file)
            graph = bench.bundle.read(file)
            yield Network(name=f"{name} {precision}", precision=precision, runs=runs, graph=graph)


def given_graphs(paths: list[Path], *, threads: int) -> Iterator[Network]:
    """ONNX files of ``--network``, with the bundle's inputs and outputs, in plain ONNX Runtime."""
    for path in paths:
        yield plain_graph(f"onnxruntime, {path.name}", path.read_bytes(), threads=threads)
