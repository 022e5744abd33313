"""``/v2``: the network alone, with the Open Inference Protocol, for programs that make its input themselves.

``nodule-diag`` takes patches, or the inputs of the fused graph (docs/fused-graph.md): HU of the region around each
nodule, with the matrices that resample it. ``nodule-diag-fused`` is the same model, but its metadata lists the latter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

import nodule_diag
from nodule_diag.errors import UsageError
from nodule_diag.preprocessing import OUTSIDE_LUNG_HU, PATCH_SIZE, resample, window_channels
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.service import Service
from nodule_diag.service.tensors import JSON_BYTES, Array, decode, encode
from nodule_diag.service.uploads import whole_body
from nodule_diag.service.work import Job

PATCHES, FUSED = "nodule-diag", "nodule-diag-fused"
VERSION = "1"
BODY_BYTES = 512 * 2**20
"""64 patches of 4 MiB as raw bytes, twice."""
LOWEST, HIGHEST = -1.0, 2.0
"""Limits of a patch's values: the range of the windows, with a margin."""
MAPS = (16, 16, 16)
OUTPUTS: dict[str, tuple[int, ...]] = {
    "malignancy": (), "logit": (), "expert_score": (), "segmentation": MAPS, "cam": MAPS, "features": (256,)
}  # fmt: skip
"""Outputs of a network; the features where it gives them."""
REGION = ("along_z", "along_y", "along_x")


def inference_routes(service: Service) -> APIRouter:
    """The routes, for one service."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])
    settings, diagnoser = service.settings, service.predictor.diagnoser
    masked = diagnoser.bundle.manifest.preprocessing.masked_input
    given = diagnoser.bundle.manifest.model.outputs
    shapes = {name: shape for name, shape in OUTPUTS.items() if getattr(given, name) is not None}

    @routes.head("/health/live", include_in_schema=False)
    @routes.get("/health/live", summary="Whether it answers")
    def live() -> dict[str, bool]:
        return {"live": True}

    @routes.head("/health/ready", include_in_schema=False)
    @routes.get("/health/ready", summary="Whether it takes work")
    def ready() -> JSONResponse:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @routes.get("", summary="What answers here")
    def server() -> dict[str, Any]:
        return {"name": PATCHES, "version": nodule_diag.__version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/models/{model}", summary="What a model takes and gives")
    @routes.get("/models/{model}/versions/{version}", include_in_schema=False)
    def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
        _require_model(model, version)
        return {
            "name": model,
            "versions": [VERSION],
            "platform": f"nodule-diag_{diagnoser.network.name}",
            "inputs": _fused_inputs(masked) if model == FUSED else _patch_inputs(),
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, *shape]} for name, shape in shapes.items()],
        }

    @routes.get("/models/{model}/ready", summary="Whether a model takes work")
    @routes.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    def model_ready(model: str, version: str = VERSION) -> JSONResponse:
        _require_model(model, version)
        return JSONResponse({"name": model, "ready": service.ready}, 200 if service.ready else 503)

    @routes.post("/models/{model}/infer", summary="Run the network", openapi_extra=_BODY)
    @routes.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        _require_model(model, version)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ServiceError("the body is compressed", status=415, code="body-compressed", hint="send it as it is")
        service.work.require_room()
        with service.gate.counted() as counted:
            length = request.headers.get("inference-header-content-length")
            limit = min(JSON_BYTES if length is None else BODY_BYTES, settings.upload_bytes)
            body = await whole_body(request, counted, limit=limit, settings=settings)

            def work(job: Job) -> tuple[bytes, int | None]:
                asked = decode(body, length)
                if unknown := set(asked.outputs) - set(shapes):
                    raise UsageError(f"there is no output {min(unknown)!r}", hint=f"there are {', '.join(shapes)}")
                patches = patches_of(asked.inputs, masked=masked, most=settings.nodules)
                job.at("inference")
                found = diagnoser.network.infer(patches).given()
                outputs = {name: found[name] for name in asked.outputs or shapes}
                return encode(outputs, asked, model=model, version=VERSION)

            answer, head = await service.done(request, work)
        if head is None:
            return Response(answer, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(head)}
        return Response(answer, media_type="application/octet-stream", headers=headers)

    return routes


def patches_of(inputs: dict[str, Array], *, masked: bool, most: int) -> NDArray[np.float32]:
    """The network's input, from patches or from the inputs of the fused graph.

    Args:
        inputs: ``patch`` [B, 2, 64, 64, 64]; or ``hu`` [B, z, y, x], ``along_z`` [B, 64, z], ``along_y`` [B, 64, y],
            ``along_x`` [B, 64, x], and ``lung_mask`` like ``hu`` where the network was trained with one.
        masked: Whether the network was trained with a lung mask.
        most: The most nodules at a time.

    Returns:
        (B, 2, 64, 64, 64) float32.

    Raises:
        UsageError: ``inference-request``.
    """
    wanted = {"hu", *REGION, *(("lung_mask",) if masked else ())} if "hu" in inputs else {"patch"}
    if set(inputs) != wanted:
        raise _refused(f"the inputs are {', '.join(sorted(inputs))}, not {', '.join(sorted(wanted))}")
    count = len(next(iter(inputs.values()))) if all(values.ndim for values in inputs.values()) else 0
    if not 1 <= count <= most or any(len(values) != count for values in inputs.values()):
        raise _refused(f"a batch has 1 to {most} nodules, the same for each input")
    if "patch" in wanted:
        patches = np.ascontiguousarray(inputs["patch"], dtype=np.float32)
    else:
        patches = _resampled(inputs, count)
    if patches.shape[1:] != (2, *[PATCH_SIZE] * 3):
        raise _refused(f"a patch has the shape {list(patches.shape)}, not [B, 2, 64, 64, 64]")
    if not (np.isfinite(patches) & (patches >= LOWEST) & (patches <= HIGHEST)).all():
        raise _refused(f"a value of a patch is not a number from {LOWEST:g} to {HIGHEST:g}; windows give 0 to 1")
    return patches


def _resampled(inputs: dict[str, Array], count: int) -> NDArray[np.float32]:
    hu = inputs["hu"]
    if hu.ndim != 4 or not hu.size:
        raise _refused(f"hu has the shape {list(hu.shape)}, not [B, z, y, x]")
    for name, size in zip(REGION, hu.shape[1:], strict=True):
        if inputs[name].shape != (count, PATCH_SIZE, size):
            raise _refused(f"{name} has the shape {list(inputs[name].shape)}, not {[count, PATCH_SIZE, size]}")
    if "lung_mask" in inputs:
        if inputs["lung_mask"].shape != hu.shape:
            raise _refused("lung_mask has another shape than hu")
        hu = np.where(inputs["lung_mask"] > 0, hu, OUTSIDE_LUNG_HU)
    z, y, x = (inputs[name].astype(np.float32) for name in REGION)
    return np.stack([resample(window_channels(hu[row]), (z[row], y[row], x[row])) for row in range(count)])


def _patch_inputs() -> list[dict[str, Any]]:
    return [{"name": "patch", "datatype": "FP32", "shape": [-1, 2, *[PATCH_SIZE] * 3]}]


def _fused_inputs(masked: bool) -> list[dict[str, Any]]:
    region = [-1, -1, -1, -1]
    mask = [{"name": "lung_mask", "datatype": "UINT8", "shape": region}] if masked else []
    matrices = [{"name": name, "datatype": "FP32", "shape": [-1, PATCH_SIZE, -1]} for name in REGION]
    return [{"name": "hu", "datatype": "FP32", "shape": region}, *mask, *matrices]


def _require_model(model: str, version: str) -> None:
    if model not in (PATCHES, FUSED) or version != VERSION:
        raise ServiceError(
            f"there is no model {model[:80]!r} of version {version[:20]!r}",
            status=404,
            code="no-such-model",
            hint=f"there are {PATCHES} and {FUSED}, of version {VERSION}",
        )


def _refused(why: str) -> UsageError:
    return UsageError(why, hint=f"see GET /v2/models/{PATCHES} and /v2/models/{FUSED}", code="inference-request")


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
