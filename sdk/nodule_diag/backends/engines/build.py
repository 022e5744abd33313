"""Builds a TensorRT engine from an ONNX graph, with TensorRT 11 or TensorRT for RTX: the same code, two modules.

Both are strongly typed: the graph sets the precision of every operation. TF32 is off, because it keeps ten bits of
mantissa and would miss the promised 1e-4. TensorRT tunes for the GPU in the machine. TensorRT for RTX needs no GPU to
build: it compiles for named compute capabilities, and finishes on the user's GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from nodule_diag.backends.backend import GPU_BATCH
from nodule_diag.backends.imports import import_installed
from nodule_diag.errors import BackendError, UsageError
from nodule_diag.preprocessing import PATCH_SIZE

PATCH_SHAPE = (2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
MAX_BATCH = 32
"""The most nodules in one run of the engine; a longer list is run in parts."""
BUILD_EXTRA = "engines"
"""The extra that builds engines for RTX GPUs on any machine. Running them also needs pycuda, and so CUDA's headers."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of the two runtimes.

    Attributes:
        name: Name of the backend, the extra and the distribution.
        module: The module to import.
        first_version: The first major version with this API: TensorRT 10 was weakly typed by default.
        ahead_of_time: Whether engines are built for a compute capability by name, without a GPU.
    """

    name: str
    module: str
    first_version: int
    ahead_of_time: bool


TENSORRT = Flavour(name="tensorrt", module="tensorrt", first_version=11, ahead_of_time=False)
TENSORRT_RTX = Flavour(name="tensorrt-rtx", module="tensorrt_rtx", first_version=1, ahead_of_time=True)


@dataclass(frozen=True, kw_only=True)
class BatchProfile:
    """Batch sizes that an engine is compiled for; equal ones make every shape static."""

    smallest: int
    typical: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.typical <= self.largest:
            raise UsageError(
                f"batch sizes {self.smallest}, {self.typical}, {self.largest} are not an ascending range from 1",
                hint="give a largest batch of at least 1",
            )


ONE_NODULE = BatchProfile(smallest=1, typical=1, largest=1)
"""The static profile: most predictions are of one nodule."""


def profiles_up_to(largest: int = MAX_BATCH) -> tuple[BatchProfile, ...]:
    """The static profile, and a batched one where more than one nodule is wanted."""
    if largest == 1:
        return (ONE_NODULE,)
    batched = BatchProfile(smallest=1, typical=min(GPU_BATCH, largest), largest=largest)
    return (ONE_NODULE, batched)


def profile_name(profiles: Sequence[BatchProfile]) -> str:
    """Profiles as an engine's key writes them: ``1-1-1,1-8-32``."""
    return ",".join(f"{p.smallest}-{p.typical}-{p.largest}" for p in profiles)


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltEngine:
    """A serialised engine, and the timings of its tuning for a faster next build: None for TensorRT for RTX."""

    plan: bytes = field(repr=False)
    timing_cache: bytes | None = field(repr=False, default=None)


def import_flavour(flavour: Flavour, *, extra: str | None = None) -> ModuleType:
    """Import a runtime; the error for a missing runtime names ``extra``, by default the backend's.

    Raises:
        MissingExtraError: When it is not installed.
        BackendError: ``backend-version`` for a version before the first that is supported; ``backend-broken`` when it
            cannot be loaded.
    """
    module = import_installed(flavour.module, package=flavour.name, extra=extra or flavour.name, code="backend-broken")
    if int(module.__version__.split(".")[0]) < flavour.first_version:
        raise BackendError(
            f"{flavour.name} {module.__version__} is installed; version {flavour.first_version} or newer is needed",
            hint=f"pip install 'nodule-diag[{flavour.name}]'",
            code="backend-version",
        )
    return module


def message_log(trt: ModuleType) -> Any:  # noqa: ANN401 - an ILogger of whichever module was given
    """A logger that keeps errors for the exceptions of this module, and prints nothing."""

    class MessageLog(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def reason(self) -> str:
            """The first error, in one line; the other errors follow from it."""
            text = self.errors[0] if self.errors else "it gave no reason"
            return " ".join(text.split())[:300]

    return MessageLog()


def offered_capabilities(trt: ModuleType) -> tuple[str, ...]:
    """Compute capabilities that TensorRT for RTX builds for without a GPU, as ``8.9``, ascending."""
    names = [name[2:] for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return tuple(f"{sm[:-1]}.{sm[-1]}" for sm in sorted(names, key=int))


def parse_network(trt: ModuleType, builder: Any, onnx: bytes, *, log: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Parse an ONNX file's bytes into a strongly typed network, with a builder that was made with ``log``.

    Returns:
        The network, and the parser, which owns the network's weights and must live as long as the network.

    Raises:
        BackendError: ``engine-parse-failed`` with the parser's message.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BackendError(
            f"TensorRT cannot parse the network: {found[0] if found else log.reason()}",
            hint="give an ONNX file of nodule-diag export, or use --backend onnxruntime",
            code="engine-parse-failed",
        )
    return network, parser


def build_engine(
    trt: ModuleType,
    onnx: bytes,
    *,
    input_name: str,
    profiles: Sequence[BatchProfile],
    capabilities: Sequence[str] = (),
    timing_cache: bytes | None = None,
    timing: bool = False,
) -> BuiltEngine:
    """Compile a graph.

    Args:
        trt: The runtime's module.
        onnx: The bytes of the ONNX file.
        input_name: The graph's input, [B, 2, 64, 64, 64] float32.
        profiles: Batch sizes, one optimisation profile each, in this order.
        capabilities: For TensorRT for RTX: the compute capabilities to compile for, each one of
            :func:`offered_capabilities`; empty means the GPU in this machine.
        timing_cache: For TensorRT: the timing cache of an earlier build.
        timing: Whether to keep a timing cache. With TensorRT for RTX it would need a GPU and have no effect.

    Raises:
        UsageError: For a compute capability that the builder does not offer.
        BackendError: ``engine-parse-failed`` or ``engine-build-failed`` with the library's message.
    """
    log = message_log(trt)
    builder = trt.Builder(log)
    if builder is None:
        raise _build_failed("has no builder here", log.reason())
    network, parser = parse_network(trt, builder, onnx, log=log)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    _target(trt, config, capabilities)
    for wanted in profiles:
        profile = builder.create_optimization_profile()
        sizes = (wanted.smallest, wanted.typical, wanted.largest)
        profile.set_shape(input_name, *((size, *PATCH_SHAPE) for size in sizes))
        if config.add_optimization_profile(profile) < 0:
            raise _build_failed(f"refuses the batch sizes {sizes} for {input_name}", log.reason())
    if timing:
        config.set_timing_cache(config.create_timing_cache(timing_cache or b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise _build_failed("cannot build the engine", log.reason())
    return BuiltEngine(plan=bytes(plan), timing_cache=bytes(config.get_timing_cache().serialize()) if timing else None)


def _target(trt: ModuleType, config: Any, capabilities: Sequence[str]) -> None:  # noqa: ANN401
    """Name the compute capabilities to compile for."""
    if not capabilities:
        return
    offered = offered_capabilities(trt)
    if unknown := [name for name in capabilities if name not in offered]:
        raise UsageError(
            f"this builder does not compile for compute capability {', '.join(unknown)}",
            hint=f"use {', '.join(offered)}",
            code="engine-capability",
        )
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{name.replace('.', '')}"], index)


def _build_failed(what: str, why: str) -> BackendError:
    return BackendError(
        f"TensorRT {what}: {why}",
        hint="free GPU memory and try again, or use --backend onnxruntime",
        code="engine-build-failed",
    )
