"""What the fuzzer reads with, and what an answer is: the same questions that a program asks of the SDK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

POINTS_MM = [(-10.0, 20.0, -120.0)]


@dataclass(frozen=True, eq=False)
class Answer:
    """What was read.

    Attributes:
        value: All of it that can be compared by ``==``.
        hu: (z, y, x), of a CT.
        corners_mm: (8, 3) of a CT, LPS: where its outermost voxels lie.
        warnings: Of a CT.
        figures: Of a network: each output's lowest and highest value.
    """

    value: Any
    hu: np.ndarray | None = None
    corners_mm: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)


def _ct(path: Path) -> Answer:
    from nodule_diag.ct import read_ct

    ct = read_ct(path, threads=1)
    placed = (ct.spacing_zyx_mm, ct.origin_xyz_mm, ct.direction.tolist(), ct.stored_axes, ct.stored_flips)
    ends = np.array(np.meshgrid(*([0, n - 1] for n in ct.size_xyz))).reshape(3, 8).T
    corners = np.asarray(ct.origin_xyz_mm) + ends * ct.spacing_xyz_mm @ ct.direction.T
    return Answer((ct.hu.shape, ct.hu.tobytes(), placed), ct.hu, corners, ct.warnings)


def _bundle(path: Path) -> Answer:
    from nodule_diag.bundle import Bundle

    bundle = Bundle.open(path)
    return Answer((bundle.sha256, dict(bundle.files)))


@cache
def _chest() -> Any:
    import ct_files as make
    from nodule_diag.ct import CTVolume

    hu = make.chest_hu((12, 32, 28))
    x, y, z = make.SPACING_XYZ
    return CTVolume.from_array(hu, spacing_zyx_mm=(z, y, x), origin_xyz_mm=make.ORIGIN_XYZ)


def _model(path: Path) -> Answer:
    from nodule_diag.diagnoser import Diagnoser

    diagnoser = Diagnoser.load(path, backend="onnxruntime", device="cpu", threads=1)
    (found,) = diagnoser.predict(_chest(), POINTS_MM, check_lung=False)
    maps = {"cam": found.cam.values, "segmentation": found.segmentation.values}
    outputs = {"malignancy": found.malignancy, "expert_score": found.expert_score, **maps}
    figures = {name: (float(np.min(one)), float(np.max(one))) for name, one in outputs.items()}
    return Answer((found.to_dict(), {name: one.tobytes() for name, one in maps.items()}), figures=figures)


def _cases(path: Path) -> Answer:
    from nodule_diag.cases import CaseBase

    with CaseBase.open(path) as base:
        base.verify()
        return Answer((base.name, base.model_sha256, len(base), base.digest()))


def _points(path: Path) -> Answer:
    if find_spec("nodule_diag.exchange"):
        exchange = import_module("nodule_diag.exchange")
        return Answer([(one.id, *one.xyz_lps_mm) for one in exchange.read_positions(path)])
    from nodule_diag_cli.points import gather

    return Answer([(point.id, *point.xyz) for point in gather([], path)])


READERS: dict[str, Callable[[Path], Answer]] = {
    "ct": _ct,
    "bundle": _bundle,
    "model": _model,
    "cases": _cases,
    "points": _points,
}
"""By the word in `fuzz.seeds.Seed.reader`."""
