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

    return _ct_answer(read_ct(path, threads=1))


def _ct_answer(ct: Any) -> Answer:
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


def _table(path: Path) -> Answer:
    from nodule_diag.cases import read_case_table

    listed = read_case_table(path, columns=("age", "sex"))
    return Answer([(one.case.model_dump(), one.xyz_lps_mm, one.path and one.path.name) for one in listed])


@cache
def _base() -> Any:
    from nodule_diag.cases import Case, CaseBase

    cases = [
        Case(
            **{"case_id": f"case-{n:04}", "patient_id": f"p{n // 2}", "label": n % 2, "label_source": "biopsy"},
            **{"label_certainty": "nodule", "malignancy": n / 10, "expert_score": 1 + n / 3, "diameter_mm": n or None},
            columns={"age": 55 + n, "sex": "FM"[n % 2]} if n % 3 else {"age": "unknown"},
        )
        for n in range(10)
    ]
    return CaseBase.of(cases, name="made", model_sha256=64 * "0")


def _where(path: Path) -> Answer:
    """What a filter selects, and what its opposite does: no case is in both, and each is in one."""
    from nodule_diag.cases import matching, selected
    from nodule_diag.errors import NoduleDiagError

    base, text = _base(), path.read_text("utf-8", "surrogateescape")  # as an argument of a command comes in
    found = matching(base, text)
    try:
        same = [row[0] for row in found] == [row[0] for row in matching(selected(base, text))]
    except NoduleDiagError:
        same = not found
    try:
        others = matching(base, f"not ({text})")
    except NoduleDiagError:  # it is as long or as deep as a filter may be
        others = [row for row in matching(base) if row not in found]
    return Answer((found, others, same, base.digest() == _digest()))


@cache
def _digest() -> str:
    return str(_base().digest())


def _fetched(path: Path) -> Answer:
    from fuzz.http_answers import SERIES, STUDY, pacs_of

    return _ct_answer(pacs_of(path.parent).fetch(STUDY, SERIES).read(threads=1))


def _stored(path: Path) -> Answer:
    from fuzz.http_answers import one_object, pacs_of

    pacs_of(path.parent).store([one_object()])
    return Answer("stored")


READERS: dict[str, Callable[[Path], Answer]] = {
    "ct": _ct,
    "bundle": _bundle,
    "model": _model,
    "cases": _cases,
    "points": _points,
    "table": _table,
    "where": _where,
    "fetched": _fetched,
    "stored": _stored,
}
"""By the word in `fuzz.seeds.Seed.reader`."""
