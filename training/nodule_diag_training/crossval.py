"""Cross-validation: judge every fold's held-out patients by that fold's model and put the report together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodule_diag.manifest import SPACES, Space
from nodule_diag.retrieval import features

from .checkpoint import load_model
from .config import Modality
from .evaluate import Judgement, judge, samples_of
from .lidc import Nodule, TrainingDataError
from .model import SynergicModel
from .patches import NoduleVoxels, PatchSampler
from .report import (
    CERTAIN,
    Section,
    calibration_section,
    cube_section,
    cut_section,
    diagnosis_section,
    side_section,
    symmetry_section,
)
from .symmetric import SymmetricModel

RETRIEVED_CASES = 20
"""K of eq. 14."""
HELD_OUT = "held_out_patients"
FOLD = "fold"


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """The judgements of one fold's held-out patients.

    Attributes:
        judgements: Of VOIs, cubes, and cubes cut as VOIs are.
        retrieved: By feature space, eq. 14's diagnosis of each diagnosed case, from the training patients' cases.
    """

    judgements: tuple[Judgement, ...]
    retrieved: Mapping[str, Mapping[str, float]]


def diagnosed_once(nodules: Sequence[Nodule]) -> list[Nodule]:
    """The diagnosed nodules, each in one form: the cube, whose surroundings are real, where there is one."""
    return [n for n in nodules if n.sure is not None and (n.is_cube or n.twin is None)]


def _feature_matrix(space: Space, judgements: Sequence[Judgement]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([features(space, j.malignancy, min(max(j.expert_score, 1.0), 5.0)) for j in judgements])


def retrieve(cases: Sequence[Judgement], queries: Sequence[Judgement]) -> dict[str, dict[str, float]]:
    """Eq. 13 and 14 for queries whose patients are not among the cases: mean label of the K nearest, by space."""
    shared = {j.patient_id for j in cases} & {j.patient_id for j in queries}
    if shared:
        raise TrainingDataError(f"patients {sorted(shared)} are in the case base and among the queries")
    labels = np.asarray([case.label for case in cases], dtype=np.float64)
    diagnoses: dict[str, dict[str, float]] = {}
    for space in SPACES:
        base, wanted = _feature_matrix(space, cases), _feature_matrix(space, queries)
        distance = np.linalg.norm(wanted[:, None, :] - base[None, :, :], axis=2)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :RETRIEVED_CASES]
        diagnoses[space] = {
            query.case_id: float(labels[rows].mean()) for query, rows in zip(queries, nearest, strict=True)
        }
    return diagnoses


def _fold_model(path: Path) -> tuple[SynergicModel, Modality, int, set[str]]:
    """A fold's model that can be reported on, its input, the fold, and the patients that it never saw."""
    model, config, provenance = load_model(path)
    if not (config.modules.segnet and config.modules.rnet and config.modules.cnet):
        raise TrainingDataError(
            f"{path} is of system {config.system}, and the report needs SegNet, RNet and CNet",
            hint="evaluate a system with all three, such as D, F or J",
        )
    held_out = provenance.get(HELD_OUT)
    if not isinstance(held_out, list) or not held_out:
        raise TrainingDataError(f"{path} was trained on all patients", hint="evaluate models trained with --fold")
    return model, config.input, int(str(provenance[FOLD])), set(held_out)


def judge_fold(
    path: Path, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels], *, symmetries: int = 1
) -> FoldResult:
    """Judge the patients that a fold's model never saw.

    Args:
        path: The finished model of the fold.
        nodules: All of them.
        voxels: Of all of them.
        symmetries: Views of each patch that are averaged (``nodule_diag.symmetry``).

    Raises:
        TrainingDataError: If the model lacks SegNet, RNet or CNet, whose figures the report has, or does not say which
            patients were held out.
    """
    single, modality, fold, held_out = _fold_model(path)
    model = single if symmetries == 1 else SymmetricModel(single, views=symmetries)
    unseen = [n for n in nodules if n.patient_id in held_out]
    sampler = PatchSampler(voxels, nodules)

    def judged(some: Sequence[Nodule], form: str) -> list[Judgement]:
        return judge(model, some, samples_of(some, voxels, sampler, form=form, modality=modality), fold=fold, form=form)

    cubes = [n for n in unseen if n.is_cube]
    judgements = [
        *judged([n for n in unseen if not n.is_cube and (n.in_paper_cohort or n.sure is not None)], "voi"),
        *judged(cubes, "cube"),
        *judged(cubes, "cube-cut"),
    ]
    seen = [n for n in diagnosed_once(nodules) if n.patient_id not in held_out]
    cases = [*judged([n for n in seen if not n.is_cube], "voi"), *judged([n for n in seen if n.is_cube], "cube")]
    queries = [
        j for j in judgements if j.case_id in {n.case_id for n in diagnosed_once(unseen)} and j.form != "cube-cut"
    ]
    return FoldResult(judgements=tuple(judgements), retrieved=retrieve(cases, queries))


def symmetry_gain(path: Path, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels], *, views: int) -> Section:
    """What averaging over views is worth on the held-out cubes of a fold. Arguments and errors as ``judge_fold``."""
    model, modality, fold, held_out = _fold_model(path)
    cubes = [n for n in nodules if n.is_cube and n.patient_id in held_out]
    samples = samples_of(
        cubes, voxels, PatchSampler(voxels, [n for n in nodules if n.is_cube]), form="cube", modality=modality
    )
    single = judge(model, cubes, samples, fold=fold, form="cube")
    averaged = judge(SymmetricModel(model, views=views), cubes, samples, fold=fold, form="cube")
    return symmetry_section(single, averaged, views=views)


def sections_of(folds: Sequence[FoldResult]) -> list[Section]:
    """The report over all folds.

    Raises:
        TrainingDataError: If two of them judged the same patient, whose nodules would count twice.
    """
    patients: set[str] = set()
    for fold in folds:
        own = {j.patient_id for j in fold.judgements}
        if twice := sorted(own & patients):
            raise TrainingDataError(
                f"{len(twice)} patients are judged by two of the runs, {twice[0]} for one",
                hint="give every fold of one split once",
            )
        patients |= own
    judgements = [j for fold in folds for j in fold.judgements]
    retrieved = {
        str(space): {case: value for fold in folds for case, value in fold.retrieved[space].items()} for space in SPACES
    }
    diagnosed = [j for j in judgements if j.case_id in retrieved["machine"] and j.form != "cube-cut"]
    certain = [j for j in diagnosed if j.certainty == CERTAIN]
    cubes = [j for j in judgements if j.form == "cube"]
    cut = [j for j in judgements if j.form == "cube-cut"]
    return [
        cube_section("Nodules in their real surroundings (cubes) of patients not trained on", cubes, targets=True),
        cut_section(cubes, cut),
        diagnosis_section("Diagnosed nodules whose own diagnosis is known without doubt", certain, retrieved),
        diagnosis_section(
            "All diagnosed nodules (label of the patient where nodules outnumber diagnoses)",
            diagnosed,
            retrieved,
            target="> 0.70",
        ),
        calibration_section(diagnosed),
        side_section([j for j in judgements if j.form == "voi"]),
    ]
