"""A start for CNet that is already sure of something: logistic regression on the pooled features of a trained backbone.

ad-CSL weighs a nodule by the confidence of P (eq. 11), so a CNet that hesitates is not guided at all. From its random
start CNet hesitates for thousands of steps, because group normalisation leaves little of a nodule in a channel's mean.
The regression finds such weights at once; training goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .config import TrainingConfig
from .engine import cnet_label
from .evaluate import BATCH, case_generator
from .lidc import Nodule, patients_of
from .model import SynergicModel
from .patches import NoduleVoxels, PatchSampler

INVERSE_PENALTY = 0.01
"""C of the L2-penalised regression, on features scaled to unit variance."""


def pooled_features(
    model: SynergicModel,
    nodules: Sequence[Nodule],
    sampler: PatchSampler,
    voxels: Mapping[str, NoduleVoxels],
    size: int,
) -> NDArray[np.float32]:
    """[N, 256], F_k of eq. 4, of unaugmented patches with sides of ``size`` voxels."""
    pooled = []
    for begin in range(0, len(nodules), BATCH):
        patches = [
            sampler.place(voxels[n.case_id], case_generator(n.case_id), patient_id=n.patient_id, size=size).patch
            for n in nodules[begin : begin + BATCH]
        ]
        with torch.inference_mode():
            features, _ = model.features(torch.from_numpy(np.stack(patches)))
        pooled.append(features.mean(dim=(2, 3, 4)).numpy())
    return np.concatenate(pooled)


def fit_cnet(
    model: SynergicModel, nodules: Sequence[Nodule], voxels: Mapping[str, NoduleVoxels], *, config: TrainingConfig
) -> float:
    """Set CNet's weights by logistic regression on every nodule that CNet may learn from.

    Args:
        model: Its backbone is taken as it is.
        nodules: Training patients' only.
        voxels: Theirs.
        config: Says which labels count (``cnet_label``) and the patch size of the first step.

    Returns:
        AUC of the regression on patients left out of it, five folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    labelled = [(n, cnet_label(n, drawn_as_sure=True, config=config)) for n in nodules]
    chosen = [n for n, label in labelled if label is not None]
    labels = np.asarray([label for _, label in labelled if label is not None])
    features = pooled_features(model, chosen, PatchSampler(voxels, nodules), voxels, config.patch_size(0))
    scale = features.std(axis=0) + np.finfo(np.float32).eps
    # CNet has no bias (eq. 4); the features' means, which hardly vary, serve as one.
    regression = LogisticRegression(C=INVERSE_PENALTY, fit_intercept=False, class_weight="balanced", max_iter=2000)
    patients = [n.patient_id for n in chosen]
    folds = GroupKFold(n_splits=min(5, len(patients_of(chosen))))
    left_out = cross_val_predict(
        regression, features / scale, labels, groups=patients, cv=folds, method="decision_function"
    )
    regression.fit(features / scale, labels)
    with torch.no_grad():
        model.cnet.weight.copy_(torch.from_numpy((regression.coef_ / scale).astype(np.float32)))
    return float(roc_auc_score(labels, left_out))
