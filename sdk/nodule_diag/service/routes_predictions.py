"""``/v1/predictions`` and ``/v1/maps``: questions about CTs, answered now or as a job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes
from nodule_diag.report import viewer_data
from nodule_diag.service.answers import FORMS, JSON, Answer, Predicted, answer, chosen_form
from nodule_diag.service.jobs import JobShelf
from nodule_diag.service.openapi import form_body, json_body
from nodule_diag.service.requests import PredictionRequest, parsed
from nodule_diag.service.service import Service
from nodule_diag.service.store import HeldCT
from nodule_diag.service.uploads import JSON_BYTES, Counted, media_type, receive, whole_body
from nodule_diag.service.work import Job

Opened = tuple[HeldCT, float]
"""A CT, and the milliseconds that reading it for this request took."""


class Asked(NamedTuple):
    """A decoded request.

    Attributes:
        question: The question.
        open: Gives the CT, in a worker's thread, for as long as the stack is open.
        ct_id: The CT's id, where it has one.
    """

    question: PredictionRequest
    open: Callable[[Job, ExitStack], Opened]
    ct_id: str | None = None


def prediction_routes(service: Service, jobs: JobShelf) -> APIRouter:
    """The routes, for one service."""
    routes = APIRouter(prefix="/v1", tags=["predictions"])

    def predicted(asked: Asked, job: Job, stack: ExitStack) -> Predicted:
        held, read_ms = asked.open(job, stack)
        prediction = service.predictor.predict(held, asked.question, job)
        made = Predicted(
            held.read, read_ms, prediction, service.predictor.diagnoser_for(asked.question), asked.question.redact
        )
        if service.settings.keep is not None:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{job.id}.json"
            write_bytes(service.settings.keep / name, answer(made, JSON).body)
        return made

    @routes.post(
        "/predictions",
        summary="Diagnose nodules",
        response_class=Response,
        openapi_extra={"requestBody": {"required": True, "content": {**json_body(PredictionRequest), **form_body()}}},
        responses={200: {"content": {form: {} for form in FORMS}}, 202: {"description": "A job: see Location"}},
    )
    async def predict(request: Request) -> Response:
        form = chosen_form(request.headers.get("accept"))
        service.work.require_room()
        with service.gate.counted() as counted, ExitStack() as held:
            asked = await understood(service, request, counted, held)
            if "respond-async" in request.headers.get("prefer", ""):
                return later(asked, request, counted, held)

            def work(job: Job) -> Answer:
                with ExitStack() as stack:
                    made = predicted(asked, job, stack)
                    job.at("answer")
                    return answer(made, form)

            found: Answer = await service.done(request, work, held)
        return found.response()

    def later(asked: Asked, request: Request, counted: Counted, held: ExitStack) -> Response:
        stack = ExitStack()
        job = service.work.submit(lambda job: predicted(asked, job, stack), request_id=request.state.request_id)
        stack.push(held.pop_all())
        counted.keep()
        job.future.add_done_callback(counted.release)
        job.future.add_done_callback(lambda future: stack.close() if future.exception() else None)
        jobs.add(job, stack, asked.ct_id)
        where = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
        return JSONResponse(job.document(), status_code=202, headers=where)

    @routes.post(
        "/maps",
        summary="What the report's viewer draws of one nodule",
        openapi_extra={"requestBody": {"required": True, "content": {**json_body(PredictionRequest), **form_body()}}},
    )
    async def maps(request: Request) -> JSONResponse:
        service.work.require_room()
        with service.gate.counted() as counted, ExitStack() as held:
            asked = await understood(service, request, counted, held)
            if len(asked.question.nodules) != 1:
                raise UsageError(
                    f"maps are of one nodule, and the request has {len(asked.question.nodules)}",
                    hint="send one request for each nodule",
                    code="one-nodule",
                )

            def work(job: Job) -> dict[str, Any]:
                with ExitStack() as stack:
                    ct, _ = asked.open(job, stack)
                    return viewer_data(ct.read.ct, service.predictor.diagnosis(ct, asked.question, job))

            return JSONResponse(await service.done(request, work, held))

    return routes


async def understood(service: Service, request: Request, counted: Counted, held: ExitStack) -> Asked:
    """Receive and check a request; a CT that it names by id stays in memory for as long as ``held`` is open.

    Errors as `receive`, `parsed`, the store and the sources.
    """
    settings, store, sources = service.settings, service.store, service.sources
    if media_type(request) == "multipart/form-data":
        received = await receive(request, counted, settings=settings)
        question = _checked(parsed(PredictionRequest, received.fields.get("request", "")), settings.nodules)
        if question.ct is not None or not received.files:
            raise UsageError(
                "a form holds the CT itself, in parts named file",
                hint="leave ct out of the part named request, or send JSON alone",
                code="ct-twice" if received.files else "ct-missing",
            )
        return Asked(question, _upload(service, received.files))
    body = await whole_body(request, counted, limit=JSON_BYTES, settings=settings)
    question = _checked(parsed(PredictionRequest, body), settings.nodules)
    reference = question.ct
    if reference is None:
        raise UsageError("no CT is named", hint='give ct: an id of POST /v1/cts, or {"path": ...}', code="ct-missing")
    if isinstance(reference, str):
        leased = held.enter_context(store.lease(reference))
        return Asked(question, lambda *_: (leased, 0.0), reference)
    await run_in_threadpool(sources.check, reference)

    def referred(job: Job, stack: ExitStack) -> Opened:
        read = sources.referred(reference, job)
        return stack.enter_context(store.for_one_request(read)), read.read_ms

    return Asked(question, referred)


def _upload(service: Service, files: dict[str, bytes]) -> Callable[[Job, ExitStack], Opened]:
    def uploaded(job: Job, stack: ExitStack) -> Opened:
        read = service.sources.uploaded(files, job)
        files.clear()  # the CT is read, and keeps its DICOM files
        return stack.enter_context(service.store.for_one_request(read)), read.read_ms

    return uploaded


def _checked(question: PredictionRequest, most: int) -> PredictionRequest:
    if len(question.nodules) > most:
        raise UsageError(
            f"{len(question.nodules)} nodules are over the limit of {most}",
            hint="ask for fewer",
            code="too-many-nodules",
        )
    return question
