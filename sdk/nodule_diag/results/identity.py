"""What made a prediction: runtime, bundle and case base."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Runtime:
    """What computed a prediction: the choices that ``auto`` made, in words."""

    sdk_version: str
    backend: str
    device: str
    precision: str
    threads: int
    symmetries: int = 1

    def to_dict(self) -> dict[str, object]:
        """The prediction document's ``runtime``."""
        return asdict(self)

    @property
    def label(self) -> str:
        """Backend, device, precision and threads in a few words."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.backend} on {self.device}, {self.precision}, {threads}"


@dataclass(frozen=True)
class BundleIdentity:
    """Which bundle made a prediction.

    Attributes:
        name: The model's name.
        version: The model's version.
        sha256: The hash of ``manifest.json``, which lists the hash of every other file.
    """

    name: str
    version: str
    sha256: str

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class CaseBaseIdentity:
    """Which case base a prediction was compared with.

    Attributes:
        name: The case base's name.
        sha256: The hash of its file.
        count: How many cases were compared with.
        malignant: How many of these cases are malignant.
        where: The filter that selected the cases; None for all cases of the file.
    """

    name: str
    sha256: str
    count: int
    malignant: int
    where: str | None = None
