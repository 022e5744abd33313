"""The peer, PyTorch, and the ceiling for every way: the matrix products of the same device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.flops import direct_flops
from benchmarks.gpu_check.examine import Float, Infer, Way, examine, opened
from benchmarks.gpu_check.findings import Findings, UnavailableError
from benchmarks.gpu_check.plan import Settings
from benchmarks.peers.weights import torch_network
from nodule_diag.backends import Outputs
from nodule_diag.bundle import Bundle
from nodule_diag_export.graph import OUTPUTS

REPEATS = 20
ROUNDS = 5
COMPILED_BATCHES = (1, 8, 64)
"""Each batch size is compiled for separately, which takes time."""
GRAPHS = "reduce-overhead"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def ceiling(settings: Settings, findings: Findings) -> None:
    """TFLOP/s of a square matrix product in each precision (fp32 without TF32), the best of a few rounds.

    On a CPU only fp32 is measured: without instructions for the others, one product takes torch half a minute.
    """
    _require(settings)
    findings.add(flops_per_nodule=direct_flops(), matrix=settings.matrix, torch=torch.__version__)
    if settings.device == "cuda":
        findings.add(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda)
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, float] = {}
    for name, dtype in DTYPES.items():
        if settings.device == "cpu" and dtype is not torch.float32:
            continue
        findings.doing(f"the matrix product in {name}")
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
    """Raise the driver's own message where torch finds no GPU."""
    if settings.device == "cuda":
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            raise UnavailableError(f"no CUDA device: {error}") from error


def lowered(settings: Settings) -> str:
    """The peer's reduced precision. On a CPU fp32: without instructions for bf16, one patch takes torch minutes."""
    return "bf16" if settings.device == "cuda" else "fp32"


def eager(settings: Settings, findings: Findings) -> None:
    """Eager fp32, then channels last in :func:`lowered`."""
    _require(settings)
    bundle, precision = opened(settings), lowered(settings)
    ways = [
        Way(name="torch eager", precision="fp32", load=partial(eager_fp32, bundle, device=settings.device)),
        Way(
            name="torch eager, channels_last_3d",
            precision=precision,
            load=partial(_channels_last, bundle, precision, settings.device),
        ),
    ]
    examine(settings, findings, ways, batches=settings.batches)


def compiled(settings: Settings, findings: Findings, mode: str) -> None:
    """``torch.compile`` in one of its modes, channels last in :func:`lowered`; ``reduce-overhead`` uses CUDA graphs."""
    _require(settings)
    if settings.device != "cuda" and mode == GRAPHS:
        raise UnavailableError("CUDA graphs need a GPU; on a CPU this mode is the default one")
    batches = [batch for batch in COMPILED_BATCHES if batch in settings.batches] or settings.batches
    precision = lowered(settings)
    name = f"torch.compile, channels_last_3d, CUDA graphs {'on' if mode == GRAPHS else 'off'}"
    load = partial(_channels_last, opened(settings), precision, settings.device, mode=mode)
    examine(settings, findings, [Way(name=name, precision=precision, load=load)], batches=batches)


def eager_fp32(bundle: Bundle, *, device: str) -> Infer:
    """The network in torch, fp32 without TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return _infer(torch_network(bundle).to(device), torch.contiguous_format, "fp32", device)


def _channels_last(bundle: Bundle, precision: str, device: str, *, mode: str = "") -> Infer:
    """A separate network, since the memory format is the weights' too."""
    torch.backends.cudnn.benchmark = True
    network = torch_network(bundle).to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs leave it out
    module = torch.compile(network, dynamic=False, mode=mode) if mode else network
    return _infer(module, torch.channels_last_3d, precision, device)


def _infer(
    module: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    layout: torch.memory_format,
    precision: str,
    device: str,
) -> Infer:
    """From host memory to host memory, as the SDK's backends are measured."""

    def infer(patches: Float) -> Outputs:
        autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), autocast:
            found = module(torch.from_numpy(patches).to(device).to(memory_format=layout))
            arrays = [tensor.float().cpu().numpy() for tensor in found]
        return Outputs(**dict(zip(OUTPUTS, arrays, strict=False)))

    return infer
