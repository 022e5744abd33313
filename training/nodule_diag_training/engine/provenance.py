"""The origin of a run: the code's version and digest, and a fingerprint of everything that the run could learn from."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import torch

import nodule_diag
from nodule_diag_training.data import Nodule, NoduleVoxels

GIT_SECONDS = 10
LABELS = "labels_sha256"
"""The key of ``Origin``'s labels in a model's provenance."""
CODE = "code"
LEARNING_CODE = {
    "nodule_diag_training": ("config.py", "systems.py", "data", "engine", "losses", "model"),
    "nodule_diag": ("preprocessing",),
}
"""The sources that decide what a run learns; commands, tables, figures and the judging of models are not among them."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Code and data of a run.

    Attributes:
        version: Version of this package.
        code: ``code_digest``.
        revision: The git commit of the checkout, with a ``+`` behind it where files differ; None outside a checkout.
        torch: Version of torch.
        labels_sha256: Digest of case ids, patients, scores and diagnoses, in the order of case ids.
        voxels_sha256: Digest of the prepared voxels and masks, in the same order.
    """

    version: str
    code: str
    revision: str | None
    torch: str
    labels_sha256: str
    voxels_sha256: str

    @classmethod
    def of(cls, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels]) -> Origin:
        """The origin of a run of this code on these nodules."""
        arrays = hashlib.sha256()
        for nodule in _in_order(nodules):
            own = voxels[nodule.case_id]
            arrays.update(json.dumps([own.channels.shape, own.center, own.extension]).encode())
            arrays.update(own.channels.tobytes())
            arrays.update(own.occupancy.tobytes())
        return cls(
            version=nodule_diag.__version__,
            code=code_digest(),
            revision=_revision(Path(__file__).parent),
            torch=torch.__version__,
            labels_sha256=labels_digest(nodules),
            voxels_sha256=arrays.hexdigest(),
        )

    @property
    def data(self) -> str:
        """What the run trains on, in one line."""
        return f"{self.labels_sha256} {self.voxels_sha256}"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _in_order(nodules: Sequence[Nodule]) -> list[Nodule]:
    return sorted(nodules, key=lambda nodule: nodule.case_id)


def labels_digest(nodules: Sequence[Nodule]) -> str:
    """SHA-256 of what is known of nodules, regardless of their files' folders and of their order."""
    digest = hashlib.sha256()
    for nodule in _in_order(nodules):
        facts = asdict(nodule)
        del facts["image"], facts["mask"]
        digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 of the code that decides what a run learns (``LEARNING_CODE``): the same for a checkout and its wheel."""
    return digest_of(
        {f"{name}/{place}": resources.files(name) / place for name, places in LEARNING_CODE.items() for place in places}
    )


def digest_of(places: Mapping[str, Traversable]) -> str:
    """SHA-256 of Python files and those in folders, by name; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for name, place in places.items():
        for path, source in _sources(place, name=name):
            digest.update(json.dumps([path, _meaning(ast.parse(source))]).encode())
    return digest.hexdigest()


def _sources(place: Traversable, *, name: str) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for inner in sorted(place.iterdir(), key=lambda item: item.name):
            yield from _sources(inner, name=f"{name}/{inner.name}")
    elif name.endswith(".py"):
        yield name, place.read_bytes()


def _meaning(node: object) -> object:
    """A syntax tree as lists, without empty fields (Python versions differ in them) and without bare texts."""
    if isinstance(node, list):
        return [_meaning(item) for item in node if not _is_text(item)]
    if isinstance(node, ast.AST):
        fields = {name: _meaning(value) for name, value in ast.iter_fields(node) if value is not None and value != []}
        return [type(node).__name__, fields]
    return repr(node)


def _is_text(node: object) -> bool:
    """Whether a node is a docstring, of an attribute too."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


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
