"""Averaging over symmetries in PyTorch and in the SDK is the same."""

import numpy as np
import torch

from nodule_diag.backends.backend import Outputs
from nodule_diag.backends.symmetry import SymmetricBackend
from nodule_diag_training.evaluation.averaged_views import SymmetricModel
from nodule_diag_training.losses import paper as losses
from nodule_diag_training.model.synergic import SynergicModel


class TorchBackend:
    """The model as the exported graph answers."""

    name, device, precision, threads, batch = "torch", "cpu", "fp32", 1, 1

    def __init__(self, model: SynergicModel) -> None:
        self.model = model

    def infer(self, patches):
        with torch.inference_mode():
            output = self.model(torch.from_numpy(patches))
        return Outputs(
            malignancy=torch.sigmoid(output.logit).numpy(),
            logit=output.logit.numpy(),
            expert_score=(1 + 4 * output.score).numpy(),
            segmentation=torch.sigmoid(output.segmentation_logit).numpy(),
            cam=losses.class_cam(output.cam, output.logit).numpy(),
        )


def test_the_sdk_and_torch_agree():
    torch.manual_seed(3)
    model = SynergicModel().eval()
    patch = np.random.default_rng(3).random((1, 2, 32, 32, 32), dtype=np.float32)
    sdk = SymmetricBackend(TorchBackend(model), views=8).infer(patch)
    with torch.inference_mode():
        ours = SymmetricModel(model, views=8)(torch.from_numpy(patch))
    np.testing.assert_allclose(sdk.logit, ours.logit.numpy(), atol=1e-6)
    np.testing.assert_allclose(sdk.expert_score, 1 + 4 * ours.score.numpy(), atol=1e-5)
    np.testing.assert_allclose(sdk.segmentation, torch.sigmoid(ours.segmentation_logit).numpy(), atol=1e-5)
    # The SDK has each view's map normalised already, torch has it as it is: alike, not equal.
    exact = losses.class_cam(ours.cam, ours.logit).numpy()
    assert np.corrcoef(sdk.cam.ravel(), exact.ravel())[0, 1] > 0.98
    torch.testing.assert_close(ours.logit, ours.cam.mean(dim=(1, 2, 3)))
