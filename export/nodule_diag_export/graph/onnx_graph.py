"""The export-only module and its ONNX graph: every input and output has a name, and the caller chooses the batch.

The graph is traced by ``torch.export`` at the exporter's native opset. There, group normalisation becomes a reshape and
InstanceNormalization, which runs everywhere. Opset 21 would keep GroupNormalization nodes; ONNX Runtime on a CPU
expands these again and runs 8 % slower (0.63 against 0.69 s for one patch on two busy cores).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from logging import ERROR, getLogger

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from nodule_diag.preprocessing import PATCH_SIZE
from nodule_diag_export.errors import ExportError
from nodule_diag_training.losses import class_cam
from nodule_diag_training.model import PATCH_CHANNELS, SynergicModel

from .names import INPUT, OUTPUTS, RAW_CAM

OPSET = 18
PRODUCER = "nodule-diag"
SCORE_MIN, SCORE_MAX = 1.0, 5.0
MAX_BATCH = 4096
"""An upper bound that torch.export requires; the ONNX file does not have it."""


class ExportGraph(nn.Module):
    """The trained model as the SDK sees it.

    Args:
        model: In evaluation mode, with SegNet, RNet and CNet.

    Raises:
        ExportError: If the model lacks one of these modules: a bundle has their outputs.
    """

    def __init__(self, model: SynergicModel) -> None:
        super().__init__()
        parts = (("SegNet", model.segnet), ("RNet", model.rnet), ("CNet", model.cnet))
        missing = [name for name, part in parts if part is None]
        if missing:
            raise ExportError(
                f"the checkpoint's model has no {' and no '.join(missing)}, whose outputs a bundle must have",
                hint="train a system with SegNet, RNet and CNet, such as D, F or J",
            )
        self.model = model

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Run the model.

        Args:
            patch: [B, 2, 64, 64, 64] float32, both windows scaled to [0, 1].

        Returns:
            malignancy: [B], P, the sigmoid of the logit.
            logit: [B], S of eq. 4.
            expert_score: [B], RNet's score on the readers' scale. As a regression it may leave 0..1 a little; the
                scale ends at 1 and 5, so the score is clipped to the scale.
            segmentation: [B, 16, 16, 16], SEM in [0, 1].
            cam: [B, 16, 16, 16], CAM_c (eq. 6) min-max normalised; zeros where it is flat.
            features: [B, 256], F_k of eq. 4, what RNet and CNet read.
            cam_raw: [B, 16, 16, 16], eq. 5, whose mean is the logit.
        """
        output = self.model(patch)
        return (
            torch.sigmoid(output.logit),
            output.logit,
            (SCORE_MIN + (SCORE_MAX - SCORE_MIN) * output.score).clamp(SCORE_MIN, SCORE_MAX),
            torch.sigmoid(output.segmentation_logit),
            class_cam(output.cam, output.logit),
            output.pooled,
            output.cam,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings on torchvision, which is not used, and on its own use of torch."""
    registration = getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnxscript|onnx_ir)\.")
            yield
    finally:
        registration.setLevel(level)


def trace(model: SynergicModel) -> ModelProto:
    """The ONNX graph of a model, with the raw CAM as a last output.

    Args:
        model: A trained model.

    Returns:
        A graph without stack traces or other records of the machine that made it.

    Raises:
        ExportError: If the model lacks SegNet, RNet or CNet, or cannot be traced.
    """
    graph = ExportGraph(model.eval()).eval()
    example = torch.zeros(2, PATCH_CHANNELS, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[*OUTPUTS, RAW_CAM],
            dynamic_shapes={INPUT: {0: torch.export.Dim("B", min=1, max=MAX_BATCH)}},
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    proto = program.model_proto
    _strip(proto)
    _require_names(proto)
    return proto


def _strip(proto: ModelProto) -> None:
    """Remove what the exporter recorded of its own work: stack traces with paths, FX nodes, intermediate shapes."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = PRODUCER
    proto.producer_name = PRODUCER
    proto.producer_version = ""


def _require_names(proto: ModelProto) -> None:
    """Check that the graph has the names and the one dynamic axis that the bundle format requires."""
    names = tuple(value.name for value in chain(proto.graph.input, proto.graph.output))
    if names != (INPUT, *OUTPUTS, RAW_CAM):
        raise ExportError(f"the exported graph has the tensors {', '.join(names)}")
    for value in chain(proto.graph.input, proto.graph.output):
        batch, *rest = value.type.tensor_type.shape.dim
        if not batch.dim_param or any(axis.dim_param for axis in rest):
            raise ExportError(f"the axes of {value.name} are not a dynamic batch and fixed sizes")


def public_graph(proto: ModelProto) -> ModelProto:
    """A copy of a traced graph with only the outputs of a bundle."""
    public = ModelProto()
    public.CopyFrom(proto)
    (index,) = (i for i, output in enumerate(public.graph.output) if output.name == RAW_CAM)
    del public.graph.output[index]
    return public


def with_metadata(proto: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """A copy of a graph with ``metadata_props``, sorted by key."""
    described = ModelProto()
    described.CopyFrom(proto)
    onnx.helper.set_model_props(described, dict(sorted(metadata.items())))
    return described
