"""What made a run: the code's version, and a fingerprint of everything that it could learn from."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import nodule_diag
from nodule_diag_training.data import Nodule, NoduleVoxels

GIT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Code and data of a run.

    Attributes:
        version: Of this package.
        revision: The git commit of the checkout it runs from, ``+`` behind it where files differ; None outside one.
        torch: Its version.
        labels_sha256: Of case ids, patients, scores, diagnoses, in the order of case ids.
        voxels_sha256: Of the prepared voxels and masks, in that order.
    """

    version: str
    revision: str | None
    torch: str
    labels_sha256: str
    voxels_sha256: str

    @classmethod
    def of(cls, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels]) -> Origin:
        """That of a run of this code on these nodules."""
        labels, arrays = hashlib.sha256(), hashlib.sha256()
        for nodule in sorted(nodules, key=lambda n: n.case_id):
            facts = asdict(nodule)
            del facts["image"], facts["mask"]  # where they lie does not matter
            labels.update(json.dumps(facts, sort_keys=True).encode())
            own = voxels[nodule.case_id]
            arrays.update(json.dumps([own.channels.shape, own.center, own.extension]).encode())
            arrays.update(own.channels.tobytes())
            arrays.update(own.occupancy.tobytes())
        return cls(
            version=nodule_diag.__version__,
            revision=_revision(Path(__file__).parent),
            torch=torch.__version__,
            labels_sha256=labels.hexdigest(),
            voxels_sha256=arrays.hexdigest(),
        )

    @property
    def data(self) -> str:
        """What it trains on, in a line."""
        return f"{self.labels_sha256} {self.voxels_sha256}"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _revision(folder: Path) -> str | None:
    """The checkout's commit; None where the package is installed, or there is no git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)  # noqa: S603
        return done.stdout.strip()

    try:
        tracked = git("ls-files", "--", str(Path(__file__).name))
        if not tracked:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
