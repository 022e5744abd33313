"""A compiled engine on disk: the plan as TensorRT gives it, and a JSON file beside it that describes it.

``NAME`` holds only the plan, so that a C++ program can load it too. ``NAME.json`` holds the plan's key, size and
SHA-256. All three are checked before the plan is deserialised: TensorRT does not check a plan, and a truncated or
altered plan can crash the process.

The plan is written first and the JSON last, each atomically. A crash between the two leaves files that do not match;
they are refused like any other altered engine.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from nodule_diag.backends.user_cache import read_private
from nodule_diag.bundle import Sha256, ShortText, Strict
from nodule_diag.errors import BackendError
from nodule_diag.process import write_bytes

SCHEMA: Final = "nodule-diag/engine/1"
SIDECAR_SUFFIX = ".json"
MAX_SIDECAR_BYTES = 64 * 1024
"""A description has a few hundred bytes; a larger file is refused."""


class EngineRefusedError(BackendError):
    """An engine that is damaged, altered or of another GPU, version, network, precision or profile."""

    code = "engine-refused"


class EngineKey(Strict):
    """Everything that a compiled engine depends on. Two engines with one key are interchangeable.

    Attributes:
        model_sha256: SHA-256 of the ONNX file.
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        runtime_version: Version of its Python package, all four numbers.
        gpu: The GPU's name; ``any`` for an engine that was built ahead of time for a compute capability.
        compute_capability: ``8.9``; several are joined by ``+``.
        driver: Version of the NVIDIA driver; ``any`` for an engine that was built ahead of time.
        precision: Precision of the graph: ``fp32``, ``bf16`` or ``fp16``.
        profile: The batch sizes it is optimised for, as ``profile_name`` writes them.
    """

    model_sha256: Sha256
    runtime: Literal["tensorrt", "tensorrt-rtx"]
    runtime_version: ShortText
    gpu: ShortText
    compute_capability: ShortText
    driver: ShortText
    precision: Literal["fp32", "bf16", "fp16"]
    profile: ShortText

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that identify the whole key."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]

    @property
    def file_name(self) -> str:
        """The engine's file name: the parts that a person looks for, then the digest."""
        readable = f"{self.runtime}-{self.runtime_version}-sm{self.compute_capability}-{self.precision}"
        return f"{re.sub(r'[^A-Za-z0-9.+-]', '_', readable)}-{self.digest}.engine"


class _Sidecar(Strict):
    """The JSON file beside a plan."""

    schema_version: Literal["nodule-diag/engine/1"] = SCHEMA
    key: EngineKey
    size: Annotated[int, Field(ge=1)]
    sha256: Sha256


def sidecar_path(path: Path) -> Path:
    """The path of an engine's description."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def write_engine(path: Path, plan: bytes, *, key: EngineKey) -> None:
    """Write a plan and its description, each atomically; the folder must exist.

    Raises:
        OutputError: If they cannot be written.
    """
    described = _Sidecar(key=key, size=len(plan), sha256=hashlib.sha256(plan).hexdigest())
    write_bytes(path, plan)
    write_bytes(sidecar_path(path), (described.model_dump_json(indent=2) + "\n").encode())


def read_engine(path: Path, *, key: EngineKey) -> bytes:
    """Read a plan that was built for exactly this ``key``, and so is safe to deserialise.

    Raises:
        EngineRefusedError: ``engine-missing``, ``engine-undescribed``, ``engine-other-key``, ``engine-truncated`` or
            ``engine-altered``.
    """
    try:
        plan = read_private(path, owners=(0,))
    except FileNotFoundError as error:
        raise _refused(f"there is no engine {path.name}", "missing") from error
    except OSError as error:
        raise _refused(f"engine {path.name} cannot be read: {error.strerror or error}", "missing") from error
    described = _read_sidecar(path)
    if described.key != key:
        raise _refused(f"engine {path.name} was built for {_difference(described.key, key)}", "other-key")
    if len(plan) != described.size:
        raise _refused(f"engine {path.name} has {len(plan)} bytes; {described.size} were written", "truncated")
    found = hashlib.sha256(plan).hexdigest()
    if found != described.sha256:
        raise _refused(f"engine {path.name} was altered: its sha256 is {found}, not {described.sha256}", "altered")
    return plan


def _read_sidecar(path: Path) -> _Sidecar:
    sidecar = sidecar_path(path)
    try:
        text = read_private(sidecar, owners=(0,), limit=MAX_SIDECAR_BYTES + 1)
        if len(text) > MAX_SIDECAR_BYTES:
            raise _refused(f"{sidecar.name} has more than {MAX_SIDECAR_BYTES} bytes", "undescribed")
        return _Sidecar.model_validate_json(text)
    except (OSError, ValidationError) as error:
        raise _refused(f"{sidecar.name} does not describe an engine of this version", "undescribed") from error


def _difference(found: EngineKey, wanted: EngineKey) -> str:
    names = [name for name in EngineKey.model_fields if getattr(found, name) != getattr(wanted, name)]
    return ", ".join(f"{name} {getattr(found, name)} (here {getattr(wanted, name)})" for name in names)


def _refused(message: str, kind: str) -> EngineRefusedError:
    return EngineRefusedError(
        message, hint="delete it with the .json beside it; it is built again", code=f"engine-{kind}"
    )
