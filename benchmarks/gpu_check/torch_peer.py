"""The peer, PyTorch, and the ceiling that every way is measured against: the matrix products of the same device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.flops import direct_flops
from benchmarks.gpu_check.findings import Findings, UnavailableError, WrongAnswerError
from benchmarks.gpu_check.networks import examine, opened
from benchmarks.gpu_check.plan import Settings
from benchmarks.peers.weights import torch_network
from nodule_diag.backends import Outputs
from nodule_diag_export.onnx_graph import OUTPUTS

Float = NDArray[np.float32]
REPEATS = 20
ROUNDS = 5
COMPILED_BATCHES = (1, 8, 64)
"""Each is compiled for by itself, which takes its time."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def ceiling(settings: Settings, findings: Findings) -> None:
    """TFLOP/s of a square matrix product in each precision (fp32 without TF32), the best of a few rounds."""
    _require(settings)
    findings.add(flops_per_nodule=direct_flops(), matrix=settings.matrix, torch=torch.__version__)
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, float] = {}
    for name, dtype in DTYPES.items():
        left, right = (torch.randn(settings.matrix, settings.matrix, device=settings.device).to(dtype) for _ in "ab")
        repeats = REPEATS if settings.device == "cuda" else 1
        best = min(_seconds(partial(torch.matmul, left, right), repeats, settings.device) for _ in range(ROUNDS))
        found[name] = 2.0 * settings.matrix**3 * repeats / best / 1e12
        findings.add(tflops=dict(found))


def _seconds(call: Callable[[], object], repeats: int, device: str) -> float:
    call()
    _wait(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _require(settings: Settings) -> None:
    """The driver's own message where torch finds no GPU."""
    if settings.device == "cuda":
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            raise UnavailableError(f"no CUDA device: {error}") from error


def lowered(settings: Settings) -> str:
    """The peer's precision. On a CPU fp32: without instructions for bf16, one patch takes torch minutes."""
    return "bf16" if settings.device == "cuda" else "fp32"


def eager(settings: Settings, findings: Findings) -> None:
    """Eager fp32, then channels last in :func:`lowered`."""
    _require(settings)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    network = torch_network(opened(settings)).to(settings.device)
    ways = {"torch eager": ("fp32", network, torch.contiguous_format)}
    ways["torch eager, channels_last_3d"] = (lowered(settings), network, torch.channels_last_3d)
    missed: list[str] = []
    for way, (precision, module, layout) in ways.items():
        module.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs leave it out
        infer = _infer(module, layout, precision, settings.device)
        missed += examine(settings, findings, way=way, precision=precision, infer=infer)
    if missed:
        raise WrongAnswerError("; ".join(missed))


def compiled(settings: Settings, findings: Findings) -> None:
    """``torch.compile``, channels last in :func:`lowered`, without CUDA graphs and with (``reduce-overhead``)."""
    _require(settings)
    torch.backends.cudnn.benchmark = True
    network = torch_network(opened(settings)).to(settings.device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    batches = tuple(batch for batch in COMPILED_BATCHES if batch in settings.batches) or settings.batches
    missed: list[str] = []
    for mode, graphs in (("default", "off"), ("reduce-overhead", "on")):
        torch.compiler.reset()
        module = torch.compile(network, dynamic=False, mode=mode)
        infer = _infer(module, torch.channels_last_3d, lowered(settings), settings.device)
        way = f"torch.compile, channels_last_3d, CUDA graphs {graphs}"
        missed += examine(settings, findings, way=way, precision=lowered(settings), infer=infer, batches=batches)
        if settings.device != "cuda":
            break  # CUDA graphs are the other mode's whole difference
    if missed:
        raise WrongAnswerError("; ".join(missed))


def _infer(
    module: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    layout: torch.memory_format,
    precision: str,
    device: str,
) -> Callable[[Float], Outputs]:
    """From host memory to host memory, as the SDK's backends are measured."""

    def infer(patches: Float) -> Outputs:
        autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), autocast:
            found = module(torch.from_numpy(patches).to(device).to(memory_format=layout))
            arrays = [tensor.float().cpu().numpy() for tensor in found]
        return Outputs(**dict(zip(OUTPUTS, arrays, strict=False)))

    return infer
