"""Training from stores: nodules without masks or scores teach what is known of them, and order does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nodule_diag_training.config import OWN_NODULES, Stage, TrainingConfig
from nodule_diag_training.data.case import Case, Preprocessing
from nodule_diag_training.data.draws import Draw, PairSource
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.regions import Region
from nodule_diag_training.data.store import NoduleStore, read_store
from nodule_diag_training.data.training_data import TrainingData, diagnosed_once
from nodule_diag_training.engine.checkpoint import MODEL, save_model
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.shares import TermCounts, count_terms
from nodule_diag_training.evaluation.crossval import judge_fold
from nodule_diag_training.model import synergic as model_module
from nodule_diag_training.model.synergic import build_model
from tiny_nodules import make_voxels
from tiny_run import NARROW

ONE_STEP = (Stage(size=32, steps=1),)


def load(stores):
    return TrainingData.of(Path("unused"), stores)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    for name, value in NARROW.items():
        monkeypatch.setattr(model_module, name, value)


@pytest.fixture
def stores(tmp_path):
    """Three nodules with masks and scores; a benign and a malignant one of which nothing else is known."""
    scored = NoduleStore(tmp_path / "lidc", preprocessing=Preprocessing(kind="lidc"))
    diagnosed = NoduleStore(tmp_path / "sure", preprocessing=Preprocessing(kind="sure"))
    for number in range(5):
        voxels = make_voxels(seed=number, radius=5.0, extension=0)
        sure = number >= 3
        region = Region(
            channels=voxels.channels, occupancy=None if sure else voxels.occupancy, center=voxels.center, extension=0
        )
        case = Case(
            case_id=f"case-{number}",
            patient_id=f"patient-{number}",
            kind="sure" if sure else "lidc",
            source="ct",
            reader_scores=() if sure else (number + 1, number + 2),
            diameter_mm=5.0,
            in_paper_cohort=not sure,
            malignant=number % 2 if sure else None,
            mask_known=not sure,
        )
        (diagnosed if sure else scored).add(case, region, fingerprint="")
    return [scored.path, diagnosed.path]


def test_what_is_known_of_a_nodule_is_all_that_it_teaches(stores, tmp_path):
    data = load(stores)
    nodules, voxels = data.nodules, data.voxels
    assert [n.case_id for n in nodules] == [f"case-{number}" for number in range(5)]
    assert [n.outlined for n in nodules] == [True, True, True, False, False]
    config = TrainingConfig(
        stages=ONE_STEP, unsure_per_step=1, sure_per_step=1, sure_teaches_unsure=True, scores_teach_cnet=True
    )
    source = PairSource(config, nodules, voxels)
    unsure, sure = source.draw(0)
    assert unsure[0].nodule.reader_scores
    assert sure[0].nodule.sure is not None
    undiagnosed = [Draw(nodule=nodules[3], sample=sure[0].sample)]
    assert count_terms(undiagnosed, sure, config) == TermCounts(classification=2, cam=2)
    run = Run(tmp_path / "run", config=config, nodules=nodules, voxels=voxels)
    whole, alone = run._measure(unsure, sure), run._measure(unsure, [])
    assert whole.segmentation.item() == pytest.approx(alone.segmentation.item(), rel=1e-4)
    assert whole.score.item() == pytest.approx(alone.score.item(), rel=1e-4)
    assert run._measure([], sure).segmentation.item() == 0.0
    assert np.isfinite(run.train().cnet.weight.detach().numpy()).all()


def test_bf16_is_near_fp32(stores, tmp_path):
    data = load(stores)
    nodules, voxels = data.nodules, data.voxels
    config = TrainingConfig(stages=ONE_STEP)
    totals = {}
    for precision in ("fp32", "bf16"):
        chosen = config.model_copy(update={"precision": precision})
        run = Run(tmp_path / precision, config=chosen, nodules=nodules, voxels=voxels)
        totals[precision] = run._step(0, run._drawn(0)).total
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert totals["bf16"] == pytest.approx(totals["fp32"], rel=0.05)
    assert totals["bf16"] != totals["fp32"]


def test_the_order_of_stores_does_not_matter(stores):
    one, two = load(stores), load(stores[::-1])
    assert one.nodules == two.nodules
    assert all(np.array_equal(one.voxels[name].channels, two.voxels[name].channels) for name in one.voxels)


def test_diagnosed_nodules_that_would_never_be_drawn_are_refused(stores):
    """Without scores and outline they are drawn as sure ones or not at all."""
    data = load(stores)
    with pytest.raises(TrainingDataError, match="2 diagnosed nodules have neither scores nor a mask"):
        PairSource(OWN_NODULES.model_copy(update={"sure_per_step": 0}), data.nodules, data.voxels)
    source = PairSource(OWN_NODULES, data.nodules, data.voxels)
    assert {draw.nodule.case_id for step in range(8) for draw in source.draw(step)[1]} == {"case-3", "case-4"}


def sure_case(name, **changes):
    values = {"patient_id": "p1", "kind": "sure", "source": "a/ct.nii", "center_xyz_mm": (1.0, 2.0, 3.0)}
    values |= {"diameter_mm": 5.0, "malignant": 1, "mask_known": False}
    return Case(case_id=name, **{**values, **changes})


@pytest.fixture
def region():
    voxels = make_voxels(seed=0, radius=5.0, extension=0)
    return Region(channels=voxels.channels, occupancy=None, center=voxels.center, extension=0)


def test_no_nodule_takes_another_ones_place(tmp_path, region):
    """Names such as 1 and 2 come back in every table."""
    store = NoduleStore(tmp_path / "sure", preprocessing=Preprocessing(kind="sure"))
    store.add(sure_case("1"), region, fingerprint="x")
    for other in ({"patient_id": "p2"}, {"source": "b/later.nii", "center_xyz_mm": (9.0, 2.0, 3.0)}):
        with pytest.raises(TrainingDataError, match=r"1 is p1's nodule in a/ct\.nii already"):
            store.add(sure_case("1", **other), region, fingerprint="y")
    store.add(sure_case("1", source="moved/ct.nii"), region, fingerprint="z")
    store.add(
        sure_case("1", source="moved/ct.nii", center_xyz_mm=(1.5, 2.0, 3.0), malignant=0), region, fingerprint="z"
    )
    (nodule,) = load([store.path]).nodules
    assert nodule.sure.malignant == 0


def test_a_nodule_under_two_names_is_refused(tmp_path, region):
    """As when a table got names after it had been prepared without."""
    store = NoduleStore(tmp_path / "sure", preprocessing=Preprocessing(kind="sure"))
    for name in ("left", "p1/ct.nii@1,2,3"):
        store.add(sure_case(name), region, fingerprint="x")
    with pytest.raises(TrainingDataError, match="are one nodule of p1"):
        load([store.path])


def test_a_store_of_other_windows_is_refused(tmp_path, region):
    other = Preprocessing(kind="sure", lung_window_hu=(-1200.0, 600.0))
    store = NoduleStore(tmp_path / "sure", preprocessing=other)
    store.add(sure_case("1"), region, fingerprint="x")
    with pytest.raises(TrainingDataError, match="prepared with other parameters"):
        load([store.path])


def test_voxels_are_read_when_they_are_wanted(tmp_path, region):
    store = NoduleStore(tmp_path / "sure", preprocessing=Preprocessing(kind="sure"))
    for name in ("1", "2"):
        store.add(sure_case(name, center_xyz_mm=(float(name), 0.0, 0.0)), region, fingerprint="x")
    data = load([store.path])
    first, second = data.nodules
    (stored,) = [s for s in read_store(store.path) if s.case.case_id == "2"]
    for file in (stored.folder / "channels").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"damaged")
    assert set(data.voxels_of([first])) == {"1"}
    with pytest.raises(TrainingDataError, match="is damaged"):
        data.voxels_of([second])


def test_a_twin_in_no_store_is_forgotten(tmp_path):
    """Else a diagnosed VOI whose cube was left out would be neither judged nor a case."""
    store = NoduleStore(tmp_path / "shared", preprocessing=Preprocessing(kind="shared"))
    voxels = make_voxels(seed=0, radius=5.0, extension=0)
    region = Region(channels=voxels.channels, occupancy=voxels.occupancy, center=voxels.center, extension=0)
    for name, twin in (("lone", "cube/lost"), ("voi", "cube/voi"), ("cube/voi", "voi")):
        kind = "cube" if name.startswith("cube/") else "voi"
        case = Case(
            case_id=name, patient_id=name, kind=kind, source="x", diameter_mm=5.0, malignant=1, twin=twin
        )  # fmt: skip
        store.add(case, region, fingerprint="")
    data = load([store.path])
    assert {n.case_id: n.twin for n in data.nodules} == {"lone": None, "voi": "cube/voi", "cube/voi": "voi"}
    assert [n.case_id for n in diagnosed_once(data.nodules)] == ["cube/voi", "lone"]
    assert [store.to_dict() for store in data.stores] == [{"name": "shared", "kind": "shared", "nodules": 3}]


def test_diagnosed_nodules_alone_train_cnet_alone(stores, tmp_path):
    data = load(stores[1:])
    nodules, voxels = data.nodules, data.voxels
    with pytest.raises(TrainingDataError, match="none of the 2 nodules has scores or a mask"):
        PairSource(TrainingConfig(stages=ONE_STEP), nodules, voxels)
    config = TrainingConfig(system="A", stages=ONE_STEP)
    assert PairSource(config, nodules, voxels).draw(0)[0] == []
    lonely = [nodules[0]]
    with pytest.raises(TrainingDataError, match="0 benign and 1 malignant"):
        PairSource(config, lonely, voxels)


def test_a_fold_is_judged_on_all_that_it_left_out_or_not_at_all(tmp_path, tiny_nodules, tiny_voxels):
    """And nothing is retrieved from twenty cases or fewer: each nodule would find them all."""
    config = TrainingConfig(system="J")
    data = TrainingData(tiny_nodules, load=lambda some: {n.case_id: tiny_voxels[n.case_id] for n in some})
    path = tmp_path / MODEL
    provenance = {"fold": 0, "folds": 4, "held_out_patients": ["patient-0", "patient-5"]}
    save_model(path, build_model(config), config=config, provenance=provenance)
    fold = judge_fold(path, data)
    assert {j.patient_id for j in fold.judgements} == {"patient-0", "patient-5"}
    assert {j.case_id for j in fold.diagnosed} == {"cube/0", "voi-5"}
    assert not any(fold.retrieved.values())
    assert all([cut.threshold for cut in j.cuts] == [0.25, 0.3, 0.35, 0.4, 0.45] for j in fold.judgements)
    held_out = [*provenance["held_out_patients"], "patient-9"]
    save_model(path, build_model(config), config=config, provenance={**provenance, "held_out_patients": held_out})
    with pytest.raises(TrainingDataError, match=r"1 of the 3 patients .* are not among the data, patient-9"):
        judge_fold(path, data)


def test_stores_that_cannot_be_used_are_refused(stores, tmp_path):
    with pytest.raises(TrainingDataError, match=r"case-\d is in .* and in"):
        load([stores[0], stores[0]])
    empty = NoduleStore(tmp_path / "empty", preprocessing=Preprocessing(kind="sure"))
    with pytest.raises(TrainingDataError, match="holds no nodule"):
        load([empty.path])
    with pytest.raises(TrainingDataError, match="is not a store"):
        load([tmp_path / "nowhere"])
