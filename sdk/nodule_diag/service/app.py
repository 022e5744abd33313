"""The application: one service, its routes, and every error as a problem document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from os import PathLike

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

import nodule_diag
from nodule_diag.ct import chest_phantom
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import NoduleDiagError, UsageError
from nodule_diag.service.gatekeeper import Gatekeeper, problem_response
from nodule_diag.service.jobs import JobShelf
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.routes_about import about_routes
from nodule_diag.service.routes_cts import cts_routes
from nodule_diag.service.routes_inference import inference_routes
from nodule_diag.service.routes_jobs import job_routes
from nodule_diag.service.routes_predictions import prediction_routes
from nodule_diag.service.service import Service
from nodule_diag.service.settings import Settings
from nodule_diag.service.store import ReadCT

SWEEP_S = 5.0
"""How often expired CTs and jobs are released."""


def create_app(settings: Settings, diagnoser: Diagnoser, *, cases: str | PathLike[str] | None = None) -> FastAPI:
    """The service as an ASGI application, for any server; :func:`serve` runs it in uvicorn.

    Args:
        settings: Its settings.
        diagnoser: The loaded network; all requests share it.
        cases: The file of its case base, where it is not the bundle's own.

    Returns:
        The application; ``app.state.service`` is its :class:`Service`.
    """
    service = Service(settings, diagnoser, cases=cases)
    jobs, demo = JobShelf(count=settings.jobs, seconds=settings.job_s), ExitStack()
    service.store.spare = jobs.forget_oldest

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(service, jobs))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.to_thread(service.stop)
            jobs.clear()
            demo.close()

    app = FastAPI(
        title="nodule-diag",
        version=nodule_diag.__version__,
        description=f"{diagnoser.bundle.manifest.intended_use}\n\nErrors are RFC 9457 problem documents.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # The gatekeeper checks the token; this entry is for the button in /docs.
        dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.token else [],
    )
    app.state.service = service
    app.include_router(about_routes(service, app))
    app.include_router(cts_routes(service, jobs))
    app.include_router(prediction_routes(service, jobs))
    app.include_router(job_routes(service, jobs))
    app.include_router(inference_routes(service))
    app.add_exception_handler(NoduleDiagError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Gatekeeper, settings=settings, metrics=service.metrics)
    service.metrics.watch(lambda: _gauges(service))
    if settings.demo:
        phantom = chest_phantom()
        suggested = tuple(nodule.center_xyz_mm for nodule in phantom.nodules)
        held = service.store.add(ReadCT(phantom.ct, suggested=suggested))
        demo.enter_context(service.store.lease(held.id))  # so that it stays
    return app


async def _sweep(service: Service, jobs: JobShelf) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        service.store.sweep()
        jobs.sweep()


def _gauges(service: Service) -> dict[str, float]:
    waiting, running = service.work.counts
    cts, size = service.store.counts
    return {
        "work_waiting": waiting,
        "work_running": running,
        "cts": cts,
        "cts_bytes": size,
        "uploads_bytes": service.gate.bytes,
        "ready": float(service.ready),
    }


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NoduleDiagError)  # noqa: S101 - how it is registered
    return problem_response(error, request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    told = UsageError(
        f"{where}: {first['msg']}", hint="see the description of the interface at /docs", code="request-invalid"
    )
    return problem_response(told, request.scope)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = {404: "no-such-route", 405: "method-not-allowed"}.get(error.status_code, "http")
    told = ServiceError(
        str(error.detail), status=error.status_code, code=code, hint="see the description of the interface at /docs"
    )
    return problem_response(told, request.scope)
