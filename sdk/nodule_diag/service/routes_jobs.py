"""``/v1/jobs``: the progress of a job, its result, and its cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from nodule_diag.service.answers import FORMS, answer, chosen_form
from nodule_diag.service.gatekeeper import problem_response
from nodule_diag.service.jobs import JobShelf
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.service import Service
from nodule_diag.service.work import Job

LOOKED_S = 0.1
"""How often a job is checked for progress."""
HEARTBEAT_S = 10.0
"""A comment is sent after this time without news, so that no proxy closes the connection as dead."""


def job_routes(service: Service, jobs: JobShelf) -> APIRouter:
    """The routes, for one service."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.get("/{job_id}", summary="How far a job is")
    def one(job_id: str) -> dict[str, Any]:
        return jobs.get(job_id).document()

    @routes.get("/{job_id}/events", summary="The same, as server-sent events", response_class=StreamingResponse)
    async def events(job_id: str) -> StreamingResponse:
        return StreamingResponse(
            _events(jobs.get(job_id)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.get(
        "/{job_id}/result",
        summary="A job's answer",
        response_class=Response,
        responses={200: {"content": {form: {} for form in FORMS}}},
    )
    async def result(request: Request, job_id: str) -> Response:
        job = jobs.get(job_id)
        form = chosen_form(request.headers.get("accept"))
        if job.ended is None:  # not its future, which gets its result a moment after the state
            raise ServiceError(
                f"the job is {job.state}", status=409, code="job-not-done", hint=f"see /v1/jobs/{job_id}"
            )
        if job.error is not None:
            return problem_response(job.error, request.scope)  # not raised: the frames would keep their data
        found = await run_in_threadpool(lambda: answer(job.future.result(), form))
        return found.response()

    @routes.delete("/{job_id}", status_code=204, summary="Cancel a job; forget one that has ended")
    def cancel(job_id: str) -> Response:
        job = jobs.get(job_id)
        if job.ended is not None:
            jobs.forget(job_id)
        else:
            service.work.cancel(job)
        return Response(status_code=204)

    return routes


async def _events(job: Job) -> AsyncIterator[str]:
    told, silent_s = "", 0.0
    while True:
        ended = job.future.done()
        text = json.dumps(job.document(), allow_nan=False)
        if text != told:
            yield f"data: {text}\n\n"
            told, silent_s = text, 0.0
        elif silent_s >= HEARTBEAT_S:
            yield ": still there\n\n"
            silent_s = 0.0
        if ended:
            return
        await asyncio.sleep(LOOKED_S)
        silent_s += LOOKED_S
