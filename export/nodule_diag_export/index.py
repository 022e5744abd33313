"""A bundle's case base: what the exported network says of every nodule with a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nodule_diag.case_base import Case
from nodule_diag.case_table import CaseTable
from nodule_diag_training.evaluate import case_generator
from nodule_diag_training.lidc import Nodule, SureLabel
from nodule_diag_training.patches import PatchSampler
from nodule_diag_training.training_data import TrainingData

from .errors import ExportError
from .onnx_graph import SCORE_MAX, SCORE_MIN
from .parity import OnnxModel

Float = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class DiagnosedPatch:
    """A nodule with a diagnosis and the patch that the network sees of it.

    Attributes:
        nodule: What names it and holds the readers' scores: of a VOI and its cube the VOI.
        sure: Its diagnosis.
        patch: [2, 64, 64, 64] float32.
        from_cube: Whether the surroundings are the nodule's own.
    """

    nodule: Nodule
    sure: SureLabel
    patch: Float = field(repr=False)
    from_cube: bool


def diagnosed_nodules(nodules: Iterable[Nodule]) -> list[tuple[Nodule, SureLabel]]:
    """Those with a diagnosis, in the order of their ids. The cube of a VOI is the same nodule again."""
    named = (n for n in nodules if not n.is_cube or n.twin is None)
    return sorted(((n, n.sure) for n in named if n.sure is not None), key=lambda pair: pair[0].case_id)


def diagnosed_patches(data: TrainingData, *, limit: int | None = None) -> Iterator[DiagnosedPatch]:
    """The patches of the diagnosed nodules, the same in every run.

    A nodule that is also a cube is seen with its own surroundings; another one is laid onto other patients', chosen by
    a generator that depends on its name alone.

    Args:
        data: Of all patients.
        limit: At most so many nodules, spread over the list.

    Yields:
        One nodule after the other, in the order of their case ids.

    Raises:
        TrainingDataError: If voxels are missing or damaged.
        ExportError: If no nodule has a diagnosis.
    """
    by_id = {nodule.case_id: nodule for nodule in data.nodules}
    chosen = diagnosed_nodules(data.nodules)
    if not chosen:
        raise ExportError(
            f"no nodule of {data.name} has a diagnosis",
            hint="give a --store of diagnosed nodules too (train prepare sure)",
            code="index-no-cases",
        )
    if limit is not None and limit < len(chosen):
        chosen = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, limit)]
    cubes = [nodule for nodule in data.nodules if nodule.is_cube]
    voxels = data.voxels_of(cubes)
    sampler = PatchSampler(voxels, cubes)
    for nodule, sure in chosen:
        seen = nodule if nodule.twin is None else by_id[nodule.twin]
        source = voxels[seen.case_id] if seen.is_cube else data.voxels_of([seen])[seen.case_id]
        sample = sampler.place(source, case_generator(seen.case_id), patient_id=seen.patient_id)
        yield DiagnosedPatch(nodule=nodule, sure=sure, patch=sample.patch, from_cube=seen.is_cube)


def cases_of(model: OnnxModel, patches: Iterable[DiagnosedPatch]) -> list[Case]:
    """Run the network over the patches: the features of eq. 13 beside what is known of each nodule."""
    cases = []
    for entry in patches:
        answer = model.run(np.ascontiguousarray(entry.patch[None]))
        cases.append(
            Case(
                case_id=entry.nodule.case_id,
                patient_id=entry.nodule.patient_id,
                label=1 if entry.sure.malignant else 0,
                label_source=entry.sure.method,
                label_certainty=entry.sure.certainty,
                malignancy=float(np.clip(answer["malignancy"][0], 0.0, 1.0)),
                expert_score=float(np.clip(answer["expert_score"][0], SCORE_MIN, SCORE_MAX)),
                reader_scores=tuple(float(score) for score in entry.nodule.reader_scores),
                diameter_mm=entry.nodule.diameter_mm,
            )
        )
    return cases


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """What a case base consists of."""

    cases: int
    malignant: int
    patients: int
    certain: int
    certain_malignant: int

    @classmethod
    def of(cls, cases: Sequence[Case]) -> CaseCounts:
        """Count them; ``certain`` are those whose diagnosis is of the nodule and not of its patient."""
        table = CaseTable.of(cases)
        return cls(
            cases=len(table),
            malignant=int(table.labels.sum(dtype=np.int64)),
            patients=len(table.patient_names),
            certain=int(table.certain.sum()),
            certain_malignant=int(table.labels[table.certain].sum(dtype=np.int64)),
        )

    @property
    def base_rate(self) -> float:
        """Share of malignant cases."""
        return self.malignant / self.cases
