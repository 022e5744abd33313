"""CNet's start by regression, on nodules whose label can be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from nodule_diag_training.config import PACKAGED, Stage
from nodule_diag_training.lidc import Nodule
from nodule_diag_training.model import SynergicModel
from nodule_diag_training.patches import PatchSampler
from nodule_diag_training.warm_start import fit_cnet, pooled_features


@pytest.fixture(scope="module")
def many(tiny_nodules, tiny_voxels) -> tuple[list[Nodule], dict]:
    """Twenty cubes: in the malignant ones everything is brighter."""
    nodules, voxels = [], {}
    for index in range(20):
        nodule = tiny_nodules[index % 4]
        name = f"cube/{index}"
        nodules.append(
            replace(
                nodule, case_id=name, patient_id=f"p{index}", sure=replace(tiny_nodules[0].sure, malignant=index % 2)
            )
        )
        source = tiny_voxels[nodule.case_id]
        voxels[name] = replace(source, channels=source.channels * np.float16(1.0 if index % 2 else 0.3))
    return nodules, voxels


def test_the_weights_separate_what_can_be_separated(many):
    nodules, voxels = many
    torch.manual_seed(0)
    model = SynergicModel().eval()
    config = PACKAGED.model_copy(update={"stages": (Stage(size=32, steps=1),)})
    backbone = {name: value.clone() for name, value in model.state_dict().items() if name != "cnet.weight"}
    assert fit_cnet(model, nodules, voxels, config=config) > 0.9
    for name, value in backbone.items():
        assert torch.equal(value, model.state_dict()[name]), name
    features = pooled_features(model, nodules, PatchSampler(voxels, nodules), voxels, 32)
    labels = [n.sure.malignant for n in nodules]
    assert roc_auc_score(labels, features @ model.cnet.weight[0].detach().numpy()) == 1.0


def test_pooled_features_are_what_cnet_reads(many):
    nodules, voxels = many
    torch.manual_seed(0)
    model = SynergicModel().eval()
    sampler = PatchSampler(voxels, nodules)
    features = pooled_features(model, nodules[:1], sampler, voxels, 32)
    patch = sampler.place(voxels[nodules[0].case_id], np.random.default_rng(0), patient_id="p0", size=32).patch
    logit = model(torch.from_numpy(patch)[None]).logit.item()
    assert features.shape == (1, 256)
    assert logit == pytest.approx(float(features[0] @ model.cnet.weight[0].detach().numpy()), abs=1e-5)
