"""Every system, score loss and label scenario learns, on patches so small that all combinations fit into a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nodule_diag.ct import distance_from_middle
from nodule_diag_training.config import Scenario, TrainingConfig
from nodule_diag_training.data.draws import Draw, PairSource
from nodule_diag_training.data.nodule import Nodule, SureLabel, TrainingDataError
from nodule_diag_training.data.patches import Sample
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.engine.checkpoint import MODEL, save_model
from nodule_diag_training.engine.objective import step_losses
from nodule_diag_training.evaluation.crossval import judge_fold
from nodule_diag_training.evaluation.judgement import judge
from nodule_diag_training.losses import paper as losses
from nodule_diag_training.losses import peers as peer_losses
from nodule_diag_training.model import synergic as model_module
from nodule_diag_training.model.synergic import SynergicOutput, build_model
from nodule_diag_training.systems import SYSTEMS

SIDE = 16
SCORE_LOSSES = ("mse", "cross-entropy", "ordinal")
MODELS = [(name, loss) for name, system in SYSTEMS.items() for loss in SCORE_LOSSES if system.rnet or loss == "mse"]


def make_draw(index: int, scores: tuple[int, ...], *, malignant: int | None = None) -> Draw:
    rng = np.random.default_rng(index)
    ball = (distance_from_middle((SIDE,) * 3) < 4.0).astype(np.float32)
    patch = np.stack([0.2 + 0.6 * ball, 0.5 * ball]) + rng.normal(0.0, 0.1, (2, SIDE, SIDE, SIDE))
    sure = None if malignant is None else SureLabel(malignant=malignant, method="biopsy", certainty="nodule")
    nodule = Nodule(
        case_id=f"case-{index}",
        patient_id=f"patient-{index}",
        image=Path("none"),
        mask=None,
        reader_scores=scores,
        diameter_mm=4.0,
        in_paper_cohort=True,
        sure=sure,
    )
    return Draw(nodule=nodule, sample=Sample(patch=patch.astype(np.float32), occupancy=ball))


UNSURE = [make_draw(0, (1, 1, 2)), make_draw(1, (3, 3, 3)), make_draw(2, (5, 5, 4))]
SURE = [make_draw(3, (2, 2, 3), malignant=1), make_draw(4, (4, 4, 4), malignant=0)]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """The layers are the real ones, an eighth as wide: what is tested here does not depend on the width."""
    monkeypatch.setattr(model_module, "HEAD_CHANNELS", 8)
    monkeypatch.setattr(model_module, "BLOCKS", ((8, 2, 1), (16, 1, 2), (32, 1, 4)))
    monkeypatch.setattr(model_module, "FEATURE_CHANNELS", 32)
    monkeypatch.setattr(model_module, "SEGNET_CHANNELS", 8)


def configuration(system: str, **changes: object) -> TrainingConfig:
    named = SYSTEMS[system]
    return TrainingConfig(system=system, diagnosis_as_score=not named.cnet, margin=0.9, **changes)


def forward(config: TrainingConfig, *, seed: int = 0):
    torch.manual_seed(seed)
    model = build_model(config)
    batch = torch.from_numpy(np.stack([d.sample.patch for d in [*UNSURE, *SURE]]))
    return model, model(batch)


@pytest.mark.parametrize(("system", "loss"), MODELS)
def test_every_system_learns_with_all_its_parameters(system, loss):
    config = configuration(system, score_loss=loss)
    model, output = forward(config)
    terms = step_losses(output, UNSURE, SURE, config)
    assert torch.isfinite(terms.total)
    terms.total.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    used = config.modules
    assert (terms.segmentation.item() > 0) == used.segnet
    assert (terms.score.item() > 0) == used.rnet
    assert (terms.classification.item() > 0) == used.cnet
    assert (terms.cam.item() > 0) == (used.guidance != "none")


@pytest.mark.parametrize(("system", "loss"), [m for m in MODELS if SYSTEMS[m[0]].cnet])
def test_every_system_learns_every_scenario(system, loss):
    plain = configuration(system, score_loss=loss)
    model, output = forward(plain)
    for scenario in get_args(Scenario):
        config = plain.model_copy(update={"scenario": scenario, "diagnosis_teaches": False})
        terms = step_losses(output, UNSURE, [], config)
        assert torch.isfinite(terms.total)
        assert terms.classification.item() > 0
        model.zero_grad()
        terms.total.backward(retain_graph=True)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        assert not [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_judged(system):
    config = configuration(system)
    model, _ = forward(config)
    nodules = [d.nodule for d in UNSURE]
    found = judge(model.eval(), nodules, [d.sample for d in UNSURE], fold=0, form="cube")
    used = SYSTEMS[system]
    for judgement in found:
        assert np.isfinite(judgement.malignancy) == np.isfinite(judgement.margin) == used.cnet
        assert np.isfinite(judgement.expert_score) == used.rnet
        assert np.isfinite(judgement.dice_grid) == np.isfinite(judgement.diameter_error_mm) == used.segnet


def forged_output(*, logits: tuple[float, ...]) -> SynergicOutput:
    generator = torch.Generator().manual_seed(7)
    cam, activation = torch.randn(2, 5, 4, 4, 4, generator=generator)
    return SynergicOutput(
        logit=torch.tensor(logits),
        cam=cam,
        pooled=torch.zeros(5, 32),
        segmentation_logit=4.0 * torch.randn(5, 4, 4, 4, generator=generator),
        score=torch.zeros(5),
        activation=activation,
    )


OUTPUT = forged_output(logits=(0.3, 0.2, -0.1, 2.0, -1.5))
SURE_MAP = losses.class_cam(OUTPUT.cam[3:], OUTPUT.logit[3:])
SURE_SEM = torch.sigmoid(OUTPUT.segmentation_logit[3:])


@pytest.mark.parametrize("mode", ["nodule", "background"])
def test_csl_and_ad_csl_guide_the_sure_nodules_in_their_mode(mode):
    found = {
        system: step_losses(OUTPUT, UNSURE, SURE, configuration(system, margin_mode=mode)).cam for system in ("I", "J")
    }
    plain = losses.cam_sem_loss(SURE_MAP, SURE_SEM, margin=0.9, mode=mode)
    confidence = 2.0 * (torch.sigmoid(OUTPUT.logit[3:]) - 0.5).abs()
    torch.testing.assert_close(found["I"], plain.mean())
    torch.testing.assert_close(found["J"], (confidence * plain).mean())


def test_cam_loss_takes_the_class_of_the_diagnosis_not_of_the_prediction():
    found = step_losses(OUTPUT, UNSURE, SURE, configuration("H")).cam
    labels = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(found, peer_losses.cam_loss(OUTPUT.cam[3:], OUTPUT.activation[3:], labels).mean())
    turned = [replace(d, nodule=replace(d.nodule, sure=replace(d.nodule.sure, malignant=1))) for d in SURE]
    assert step_losses(OUTPUT, UNSURE, turned, configuration("H")).cam.item() != pytest.approx(found.item(), abs=1e-3)


def test_a_model_that_hesitates_is_not_guided_by_ad_csl_but_by_csl():
    hesitating = replace(OUTPUT, logit=torch.zeros(5))
    assert step_losses(hesitating, UNSURE, SURE, configuration("J")).cam.item() == 0.0
    assert step_losses(hesitating, UNSURE, SURE, configuration("I")).cam.item() > 0.1


def test_segnets_map_guides_and_is_not_moved_to_meet_the_cam():
    sem = OUTPUT.segmentation_logit.clone().requires_grad_()
    cam = OUTPUT.cam.clone().requires_grad_()
    step_losses(replace(OUTPUT, segmentation_logit=sem, cam=cam), UNSURE, SURE, configuration("I")).cam.backward()
    assert sem.grad is None
    assert cam.grad[3:].abs().sum() > 0
    assert not cam.grad[:3].any()


@pytest.mark.parametrize(("system", "loss"), [("H", "mse"), ("J", "cross-entropy"), ("C", "ordinal")])
def test_losses_are_computed_where_the_model_is(system, loss):
    """Torch refuses to mix devices, and has one that needs no hardware: targets made elsewhere would raise."""
    config = configuration(system, score_loss=loss)
    with torch.device("meta"):
        model = build_model(config)
    output = model(torch.empty(5, 2, SIDE, SIDE, SIDE, device="meta"))
    assert step_losses(output, UNSURE, SURE, config).total.device.type == "meta"


def test_a_batch_that_teaches_cnet_nothing_is_zero_and_not_nan():
    config = configuration("I", scenario="12/45")
    model, output = forward(config)
    undecided = [UNSURE[1]] * 5
    terms = step_losses(output, undecided, [], config)
    assert terms.classification.item() == terms.cam.item() == 0.0
    terms.total.backward()
    assert model.cnet.weight.grad is None
    nothing = step_losses(forward(configuration("A"))[1], undecided, [], configuration("A"))
    nothing.total.backward()  # nothing to learn is not an error
    assert nothing.total.item() == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "A", "score_loss": "ordinal"}, "system A has no RNet: leave it at 'mse'"),
        ({"system": "B", "diagnosis_as_score": True}, "has no RNet"),
        ({"system": "R", "scenario": "12/45"}, "has no CNet"),
        ({"system": "F", "margin_mode": "background"}, "has no CSL"),
        ({"system": "H", "margin_mode": "background"}, "has no CSL"),
        ({"scenario": "12/45", "scores_teach_cnet": True}, "takes the place of scores_teach_cnet"),
        ({"sure_per_step": 0}, "diagnoses are all that CNet learns"),
        ({"diagnosis_teaches": False}, "name a scenario"),
        ({"system": "R", "diagnosis_as_score": True, "diagnosis_teaches": False}, "needs diagnosis_teaches"),
        ({"scenario": "2/3"}, "Input should be"),
    ],
)
def test_combinations_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(**changes)
    with pytest.raises(ValidationError, match=message):
        TrainingConfig().model_copy(update=changes)


def test_nodules_that_teach_nothing_are_not_drawn():
    assert (TrainingConfig(system="A").unsure_draws, TrainingConfig(system="A").sure_draws) == (0, 1)
    unsure = TrainingConfig(system="A", diagnosis_teaches=False, scenario="12/45")
    assert (unsure.unsure_draws, unsure.sure_draws) == (1, 0)
    assert TrainingConfig(system="R").sure_draws == 0
    assert TrainingConfig(system="R", diagnosis_as_score=True).sure_draws == 1
    assert TrainingConfig(system="R", sure_teaches_unsure=True).sure_draws == 1
    assert (TrainingConfig().unsure_draws, TrainingConfig().sure_draws) == (1, 1)


def drawn_cases(config: TrainingConfig, nodules, voxels) -> tuple[set[str], set[str]]:
    source = PairSource(config, nodules, voxels)
    steps = [source.draw(step) for step in range(config.steps)]
    unsure, sure = ({d.nodule.case_id for step in steps for d in step[kind]} for kind in (0, 1))
    return unsure, sure


def test_what_a_scenario_does_not_label_is_drawn_for_rnet_alone(tiny_nodules, tiny_voxels):
    common = {"cohort": "all", "scenario": "12/45", "diagnosis_teaches": False, "stages": [{"size": 32, "steps": 40}]}
    labelled = {"cube/0", "cube/3", "voi-5"}  # mean scores 2, 4 and 2; the others' round to 3
    for system in ("A", "CSF"):
        assert drawn_cases(TrainingConfig(system=system, **common), tiny_nodules, tiny_voxels) == (labelled, set())
    unsure, _ = drawn_cases(TrainingConfig(system="F", **common), tiny_nodules, tiny_voxels)
    assert unsure > labelled


def test_model_a_sees_sure_nodules_alone(tiny_nodules, tiny_voxels):
    config = TrainingConfig(system="A", cohort="all", stages=[{"size": 32, "steps": 20}])
    unsure, sure = drawn_cases(config, tiny_nodules, tiny_voxels)
    assert unsure == set()
    assert sure == {n.case_id for n in tiny_nodules if n.sure is not None}


def test_a_report_of_every_figure_needs_every_head(tmp_path):
    config = configuration("A")
    save_model(tmp_path / MODEL, build_model(config), config=config, provenance={})
    with pytest.raises(TrainingDataError, match="system A, and the report needs SegNet, RNet and CNet"):
        judge_fold(tmp_path / MODEL, TrainingData([]))


def test_a_diagnosis_is_the_end_of_the_readers_scale():
    config = TrainingConfig(system="R", diagnosis_as_score=True)
    _, output = forward(config)
    terms = step_losses(output, UNSURE, SURE, config)
    wanted = torch.tensor([(4 / 3 - 1) / 4, 0.5, (14 / 3 - 1) / 4, 1.0, 0.0])
    assert terms.score.item() == pytest.approx(((output.score - wanted) ** 2).mean().item(), rel=1e-5)
    plain = step_losses(output, UNSURE, SURE, TrainingConfig(system="R"))
    assert plain.score.item() == pytest.approx(((output.score - wanted)[:3] ** 2).mean().item(), rel=1e-5)
