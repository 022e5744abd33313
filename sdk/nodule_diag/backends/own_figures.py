"""Figures that ``nodule-diag doctor --selftest --save`` measured here. ``auto`` uses them like the bundle's figures.

The figures are a JSON file in the user's cache (:mod:`nodule_diag.backends.user_cache`), for one bundle, CPU and set of
versions. The file decides which backend computes a diagnosis. It is refused if another user owns it or can write it, if
it is damaged, or if it was measured with another bundle, CPU or version.
"""

from __future__ import annotations

import hashlib
import platform
import stat
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from nodule_diag.backends.user_cache import make_private, read_private, user_cache, why_unsafe, why_unsafe_way
from nodule_diag.bundle import Bundle, ParityRecord, ShortText, Strict
from nodule_diag.errors import BackendError, OutputError
from nodule_diag.process import writing

SCHEMA: Final = "nodule-diag/figures/1"
FOLDER = "selftest"
FILE_MODE = 0o600
MAX_BYTES = 64 * 1024
"""A record is 400 bytes."""
DISTRIBUTIONS = ("nodule-diag", "onnxruntime", "onnxruntime-gpu", "openvino")
_CPU_INFO = Path("/proc/cpuinfo")
_CHANGING = frozenset(
    ("cpu MHz", "bogomips", "BogoMIPS", "processor", "core id", "apicid", "initial apicid", "physical id", "siblings",
     "cpu cores", "bugs")
)  # fmt: skip
"""Lines of ``/proc/cpuinfo`` that do not describe a core's arithmetic: clocks, numbers of cores, known attacks."""


class FiguresRefusedError(BackendError):
    """Own figures that are missing or must not be used."""

    code = "figures-refused"


class Measured(Strict):
    """What figures depend on.

    Attributes:
        bundle_sha256: The bundle.
        cpu: Model and instruction sets, as :func:`cpu_identity` writes them.
        versions: Versions of the SDK and the runtimes, by distribution.
    """

    bundle_sha256: ShortText
    cpu: ShortText
    versions: Annotated[dict[ShortText, ShortText], Field(max_length=20)]


class OwnFigures(Strict):
    """The content of the file.

    Attributes:
        measured: What the figures depend on.
        created: Time of the measurement, ISO 8601.
        records: The figures, passed or not.
    """

    schema_version: Literal["nodule-diag/figures/1"] = SCHEMA
    measured: Measured
    created: ShortText
    records: Annotated[tuple[ParityRecord, ...], Field(min_length=1, max_length=100)]


def own_records(bundle: Bundle) -> tuple[ParityRecord, ...]:
    """The figures of this user, machine and bundle; empty where there are none that may be used.

    Figures that another user could have written are skipped with a warning.
    """
    try:
        return read_figures(bundle).records
    except FiguresRefusedError as error:
        if error.code == "figures-unsafe" and not isinstance(error.__cause__, OutputError):  # no home folder
            warnings.warn(f"saved self-test figures are not used: {error.message}", RuntimeWarning, stacklevel=2)
        return ()


def read_figures(bundle: Bundle) -> OwnFigures:
    """Read the figures of a bundle on this machine.

    Raises:
        FiguresRefusedError: ``figures-missing``, ``figures-unsafe`` for a file or folder that another user can change
            or that cannot be read, ``figures-damaged``, or ``figures-stale`` for another bundle, CPU or version.
    """
    try:
        folder = user_cache() / FOLDER
        if why := why_unsafe(folder.lstat(), is_kind=stat.S_ISDIR) or why_unsafe_way(folder):
            raise _refused(f"{folder} {why}", "unsafe")
        path = figures_path(bundle)
        found = OwnFigures.model_validate_json(_read_own(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _refused("there are none", "missing") from error
    except OSError as error:
        raise _refused(f"they cannot be read: {error}", "unsafe") from error
    except ValidationError as error:
        raise _refused(f"{path} is damaged", "damaged") from error
    here = measured_here(bundle)
    if found.measured != here:
        other = [name for name in Measured.model_fields if getattr(found.measured, name) != getattr(here, name)]
        raise _refused(f"{path} was measured with other {', '.join(other)}", "stale")
    return found


def save_figures(bundle: Bundle, records: Sequence[ParityRecord]) -> Path:
    """Write the figures for this user, atomically; returns the file.

    Raises:
        BackendError: ``figures-none`` when ``records`` is empty.
        OutputError: When the file cannot be written.
    """
    if not records:
        raise BackendError(
            "there are no figures to save: no backend could be compared on this CPU",
            hint="nodule-diag doctor says what each backend lacks",
            code="figures-none",
        )
    path = figures_path(bundle)
    make_private(path.parent)
    figures = OwnFigures(
        measured=measured_here(bundle),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        records=tuple(records),
    )
    with writing(path) as temporary:
        temporary.chmod(FILE_MODE)
        temporary.write_bytes(figures.model_dump_json(indent=1).encode())
    return path


def figures_path(bundle: Bundle) -> Path:
    """The path of the figures. Machines may share a home folder, so the name depends on bundle and CPU."""
    key = f"{bundle.sha256} {cpu_identity()}"
    return user_cache() / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def measured_here(bundle: Bundle) -> Measured:
    """What figures depend on, here and now; imports no runtime."""
    versions = {}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return Measured(bundle_sha256=bundle.sha256, cpu=cpu_identity(), versions=versions)


def cpu_identity() -> str:
    """The CPU's model, and a digest of the system's description of it: stepping, microcode, instruction sets."""
    model = platform.processor() or platform.machine()
    described = [platform.machine(), model]
    try:
        with _CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in iter(lines.readline, "\n"):  # the first core's lines
                if not line:
                    break
                name, _, value = (part.strip() for part in line.partition(":"))
                if name == "model name":
                    model = value
                described += [] if name in _CHANGING else [f"{name}: {value}"]
    except OSError:
        described.append(platform.node())  # no description here: the host name excludes other machines
    return f"{model[:100]} {hashlib.sha256(chr(10).join(described).encode()).hexdigest()[:16]}"


def _read_own(path: Path) -> bytes:
    """A file's bytes, if only this user can change the file and its size is within the limit."""
    data = read_private(path, limit=MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _refused(f"{path} is damaged: it has more than {MAX_BYTES} bytes", "damaged")
    return data


def _refused(why: str, kind: str) -> FiguresRefusedError:
    return FiguresRefusedError(why, hint="run nodule-diag doctor --selftest --save", code=f"figures-{kind}")
