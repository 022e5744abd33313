"""Cross-validation: judge every fold's held-out patients by that fold's model and put the report together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodule_diag.results import SPACES
from nodule_diag_training.config import Modality
from nodule_diag_training.data import COLLECTION, Nodule, PatchSampler, TrainingData, TrainingDataError, diagnosed_once
from nodule_diag_training.engine import load_model
from nodule_diag_training.model import SynergicModel

from .averaged_views import SymmetricModel
from .breakdown import breakdown_section
from .calibration import LEAST_OF_A_KIND, Diagnosed
from .judgement import OTHER_THRESHOLDS, Form, Judgement, judge, samples_of
from .reliability import reliability_section
from .report import (
    CERTAIN,
    brier_section,
    cube_section,
    cut_section,
    diagnosis_section,
    side_section,
    symmetry_section,
)
from .rows import Section, Target, said
from .similar_cases import RETRIEVED_CASES, nearest_cases
from .targets import target_section
from .thresholds import cut_out_of_fold, threshold_section

HELD_OUT = "held_out_patients"
HELD_OUT_LUNG = "held_out_lung_patients"
FOLD = "fold"
STORES = "stores"


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """The judgements of one fold's held-out patients.

    Attributes:
        judgements: Judgements of VOIs, of cubes, and of cubes cropped as VOIs are.
        diagnosed: Judgements of the diagnosed nodules, each in one form.
        retrieved: By feature space, eq. 14's diagnosis of each diagnosed nodule, from the training patients' cases;
            empty where there are no more than K cases.
    """

    judgements: tuple[Judgement, ...]
    diagnosed: tuple[Judgement, ...]
    retrieved: Mapping[str, Mapping[str, float]]


def retrieve(cases: Sequence[Judgement], queries: Sequence[Judgement]) -> dict[str, dict[str, float]]:
    """Eq. 13 and 14 for queries whose patients are not among the cases: mean label of the K nearest, by space."""
    return {
        space: {
            query.case_id: float(np.mean([case.label or 0 for case in nearest]))
            for query, nearest in zip(queries, nearest_cases(queries, cases, space=space), strict=True)
        }
        for space in SPACES
    }


@dataclass(frozen=True, kw_only=True)
class _Fold:
    """A fold's model that can be reported on.

    Attributes:
        path: Its file.
        model: The network.
        modality: The model's input.
        number: Number of the fold, from 0.
        held_out: The patients that it never saw.
        stores: The stores it was trained from; none for LIDC's VOIs and cubes.
    """

    path: Path
    model: SynergicModel
    modality: Modality
    number: int
    held_out: frozenset[str]
    stores: tuple[Mapping[str, object], ...]


def _read_fold(path: Path) -> _Fold:
    model, config, provenance = load_model(path)
    if not (config.modules.segnet and config.modules.rnet and config.modules.cnet):
        raise TrainingDataError(
            f"{path} is of system {config.system}, and the report needs SegNet, RNet and CNet",
            hint="evaluate a system with all three, such as D, F or J",
        )
    held_out = provenance.get(HELD_OUT)
    if not isinstance(held_out, list) or not held_out:
        raise TrainingDataError(f"{path} was trained on all patients", hint="evaluate models trained with --fold")
    stores = provenance.get(STORES, [])
    return _Fold(
        path=path,
        model=model,
        modality=config.input,
        number=int(str(provenance[FOLD])),
        held_out=frozenset(map(str, held_out)),
        stores=tuple(stores) if isinstance(stores, list) else (),
    )


def judge_fold(path: Path, data: TrainingData, *, symmetries: int = 1) -> FoldResult:
    """Judge the patients that a fold's model never saw.

    Args:
        path: The finished model of the fold.
        data: Data of all patients.
        symmetries: Views of each patch that are averaged (``nodule_diag.backends.symmetry``).

    Raises:
        TrainingDataError: If the model lacks SegNet, RNet or CNet, which the report needs, if the model does not say
            which patients were held out, or if it was trained from other data.
    """
    fold = _read_fold(path)
    model = fold.model if symmetries == 1 else SymmetricModel(fold.model, views=symmetries)
    nodules = data.nodules
    unseen = _unseen(data, fold)
    sampler = PatchSampler(data.voxels, nodules)

    def judged(some: Sequence[Nodule], form: Form) -> list[Judgement]:
        samples = samples_of(some, data.voxels, sampler, form=form, modality=fold.modality)
        return judge(model, some, samples, fold=fold.number, form=form, thresholds=OTHER_THRESHOLDS)

    cubes = [n for n in unseen if n.is_cube]
    judgements = [
        *judged([n for n in unseen if not n.is_cube and (n.in_paper_cohort or n.sure is not None)], "voi"),
        *judged(cubes, "cube"),
        *judged([n for n in cubes if n.outlined], "cube-cut"),
    ]
    seen = [n for n in diagnosed_once(nodules) if n.patient_id not in fold.held_out]
    cases = [*judged([n for n in seen if not n.is_cube], "voi"), *judged([n for n in seen if n.is_cube], "cube")]
    asked = {n.case_id for n in diagnosed_once(unseen)}
    diagnosed = tuple(j for j in judgements if j.case_id in asked and j.form != "cube-cut")
    told_apart = len(cases) > RETRIEVED_CASES  # or else every answer is the fold's base rate
    retrieved = retrieve(cases, diagnosed) if told_apart else {space: {} for space in SPACES}
    return FoldResult(judgements=tuple(judgements), diagnosed=diagnosed, retrieved=retrieved)


def _unseen(data: TrainingData, fold: _Fold) -> list[Nodule]:
    """The nodules of the held-out patients, all of whom must be in the data."""
    hint = "give the --data, or every --store, that it was trained from"
    given = sorted(json.dumps(store.to_dict(), sort_keys=True) for store in data.stores)
    if sorted(json.dumps(store, sort_keys=True) for store in fold.stores) != given:
        names = ", ".join(str(store["name"]) for store in fold.stores) or COLLECTION
        raise TrainingDataError(f"{fold.path} was trained from {names}, and the data are of {data.name}", hint=hint)
    if absent := fold.held_out - {n.patient_id for n in data.nodules}:
        raise TrainingDataError(
            f"{len(absent)} of the {len(fold.held_out)} patients that {fold.path} left out are not among the data,"
            f" {min(absent)} for one",
            hint=hint,
        )
    return [n for n in data.nodules if n.patient_id in fold.held_out]


def symmetry_gain(path: Path, data: TrainingData, *, views: int) -> Section:
    """What averaging over views is worth on the held-out cubes of a fold that have an outline or scores.

    Arguments and errors as ``judge_fold``; without such cubes, this is an error too.
    """
    fold = _read_fold(path)
    cubes = [n for n in _unseen(data, fold) if n.is_cube and (n.outlined or n.reader_scores)]
    if not cubes:
        raise TrainingDataError(f"no nodule that {path} left out has its own surroundings and an outline or scores")
    voxels = data.voxels_of(cubes)
    samples = samples_of(cubes, voxels, PatchSampler(voxels, cubes), form="cube", modality=fold.modality)
    single = judge(fold.model, cubes, samples, fold=fold.number, form="cube")
    averaged = judge(SymmetricModel(fold.model, views=views), cubes, samples, fold=fold.number, form="cube")
    (section,) = said([symmetry_section(single, averaged, views=views)])
    return section


def sections_of(folds: Sequence[FoldResult]) -> list[Section]:
    """The report over all folds; figures without any nodule are left out.

    Raises:
        TrainingDataError: If two folds judged the same patient, whose nodules would count twice.
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
    at_half = [j for fold in folds for j in fold.judgements]
    judgements = cut_out_of_fold(at_half)
    retrieved = {
        str(space): {case: value for fold in folds for case, value in fold.retrieved[space].items()} for space in SPACES
    }
    diagnosed = [j for fold in folds for j in fold.diagnosed]
    certain = [j for j in diagnosed if j.certainty == CERTAIN]
    cubes = [j for j in judgements if j.form == "cube"]
    cut = [j for j in judgements if j.form == "cube-cut"]
    vois = [j for j in judgements if j.form == "voi"]
    sides = vois or cubes
    sections = [
        target_section(cubes, sides),
        cube_section("Nodules in their real surroundings (cubes) of patients not trained on", cubes),
        breakdown_section("nodules in their real surroundings", cubes),
        breakdown_section("VOIs, whose surroundings were cut", vois),
        cut_section(cubes, cut),
        threshold_section(at_half),
        diagnosis_section("Diagnosed nodules of patients with no more VOIs than diagnoses", certain, retrieved),
        diagnosis_section(
            "All diagnosed nodules (label of the patient where nodules outnumber diagnoses)",
            diagnosed,
            retrieved,
            target=Target(">", 0.7),
        ),
        brier_section(diagnosed),
        *_reliability(diagnosed),
        side_section("paper's cohort, VOIs" if vois else "paper's cohort", sides),
    ]
    return said(sections)


def _reliability(diagnosed: Sequence[Judgement]) -> list[Section]:
    """The reliability curve, where there are enough nodules for a calibration."""
    kinds = [{j.patient_id for j in diagnosed if j.label == label} for label in (0, 1)]
    if min(map(len, kinds)) < LEAST_OF_A_KIND:
        return []
    nodules = Diagnosed.of(
        {j.case_id: (j.patient_id, j.label or 0, j.malignancy) for j in diagnosed if not math.isnan(j.malignancy)}
    )
    return [reliability_section(nodules)]
