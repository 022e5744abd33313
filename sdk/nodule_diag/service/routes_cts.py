"""``/v1/cts``: CTs are added, shown and removed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from nodule_diag.service.jobs import JobShelf
from nodule_diag.service.openapi import form_body, json_body
from nodule_diag.service.requests import CTRequest, PathReference, Reference, parsed
from nodule_diag.service.service import Service
from nodule_diag.service.slices import Plane, slice_png
from nodule_diag.service.store import ReadCT
from nodule_diag.service.uploads import JSON_BYTES, media_type, receive, whole_body
from nodule_diag.service.work import Job

CACHED_S = 3600
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            **form_body(),
            **json_body(CTRequest),
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def cts_routes(service: Service, jobs: JobShelf) -> APIRouter:
    """The routes, for one service."""
    routes = APIRouter(prefix="/v1/cts", tags=["cts"])
    store, sources, settings = service.store, service.sources, service.settings

    @routes.post("", status_code=201, summary="Hold a CT", openapi_extra=UPLOAD)
    async def add(
        request: Request,
        series: Annotated[str | None, Query(description="SeriesInstanceUID, where DICOM holds several.")] = None,
        acquisition: Annotated[int | None, Query(description="Which volume of the series.")] = None,
    ) -> JSONResponse:
        service.work.require_room()
        with service.gate.counted() as counted:
            if media_type(request) == "application/json":
                body = await whole_body(request, counted, limit=JSON_BYTES, settings=settings)
                reference = reference_in(body, series=series, acquisition=acquisition)
                await run_in_threadpool(sources.check, reference)

                def read(job: Job) -> ReadCT:
                    return sources.referred(reference, job)
            else:
                received = await receive(request, counted, settings=settings)
                files = received.files

                def read(job: Job) -> ReadCT:
                    return sources.uploaded(files, job, series=series, acquisition=acquisition)

            held = await service.done(request, lambda job: store.add(read(job)))
        document = store.document(held)
        return JSONResponse(document, status_code=201, headers={"Location": f"/v1/cts/{held.id}"})

    @routes.get("", summary="All CTs that are held")
    def listed() -> dict[str, Any]:
        return {"cts": store.documents()}

    @routes.get("/{ct_id}", summary="One CT")
    def one(ct_id: str) -> dict[str, Any]:
        return store.document(store.get(ct_id))

    @routes.delete("/{ct_id}", status_code=204, summary="Let a CT go, with its finished jobs")
    def remove(ct_id: str) -> Response:
        store.remove(ct_id)
        jobs.forget_of(ct_id)
        return Response(status_code=204)

    @routes.get(
        "/{ct_id}/slices/{plane}/{index}.png",
        summary="A slice as a grey picture",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def picture(
        request: Request, ct_id: str, plane: Plane, index: int, center: float = -600.0, width: float = 1500.0
    ) -> Response:
        with store.lease(ct_id) as held:
            tag = f'"{ct_id}-{plane}-{index}-{center:g}-{width:g}"'
            headers = {"Cache-Control": f"private, max-age={CACHED_S}", "ETag": tag}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            png = slice_png(held.read.ct, plane, index, center=center, width=width)
        return Response(png, media_type="image/png", headers=headers)

    return routes


def reference_in(body: bytes, *, series: str | None = None, acquisition: int | None = None) -> Reference:
    """The CT's reference in a JSON body; ``series`` and ``acquisition`` of the query count where the body has none."""
    asked = parsed(CTRequest, body)
    update: dict[str, Any] = {}
    if acquisition is not None and asked.root.acquisition is None:
        update["acquisition"] = acquisition
    if series is not None and isinstance(asked.root, PathReference) and asked.root.series is None:
        update["series"] = series
    return asked.root.model_copy(update=update)
