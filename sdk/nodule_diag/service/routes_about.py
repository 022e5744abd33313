"""The page, its assets, ``/docs``, ``/metrics``, ``/v1/about`` and the pictures of similar cases."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from mimetypes import guess_type
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from nodule_diag.errors import MissingExtraError
from nodule_diag.report import VIEWER
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.service import Service

SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
"""Files of Swagger UI (Apache-2.0) in the package fastapi-offline (MIT)."""


def about_routes(service: Service, app: FastAPI) -> APIRouter:
    """The routes, for one service."""
    routes = APIRouter()
    diagnoser, settings = service.predictor.diagnoser, service.settings

    @routes.head("/", include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    def page() -> Response:
        return _asset("index.html")

    @routes.get("/assets/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        return _asset(name)

    @routes.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        html = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: the interface",
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon.png",
        )
        script = bytes(html.body).partition(b"<script>")[2].partition(b"</script>")[0]
        allowed = b64encode(sha256(script).digest()).decode("ascii")
        html.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' 'sha256-{allowed}'; style-src 'self' 'unsafe-inline';"
            " img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return html

    @routes.get("/docs/{name}", include_in_schema=False)
    def docs_asset(name: str) -> Response:
        if name not in SWAGGER:
            raise _no_such_file(name)
        return Response((_swagger() / name).read_bytes(), media_type=guess_type(name)[0])

    @routes.get("/metrics", include_in_schema=False)
    def metrics_text() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/v1/about", tags=["about"], summary="What answers here, and what it takes")
    def about() -> dict[str, Any]:
        manifest, known = diagnoser.bundle.manifest, diagnoser.cases.identity
        return {
            "bundle": {"name": manifest.name, "version": manifest.version, "sha256": diagnoser.bundle.sha256},
            "intended_use": manifest.intended_use,
            "cases": {
                "name": known.name,
                "sha256": known.sha256,
                "count": known.count,
                "malignant": known.malignant,
                "pictured": diagnoser.cases.cases.pictured,
            },
            "runtime": diagnoser.runtime.to_dict(),
            "presence": manifest.presence is not None,
            "limits": {
                "upload_bytes": settings.upload_bytes,
                "ct_voxels": settings.ct_voxels,
                "cts": settings.cts,
                "cts_bytes": settings.cts_bytes,
                "expires_s": settings.expires_s,
                "nodules": settings.nodules,
                "queue": settings.queue,
                "work_s": settings.work_s,
                "paths": settings.root is not None,
                "dicomweb": len(settings.dicomweb),
                "keeps": settings.keep is not None,
            },
            "formats": {"report": True, "dicom": _has("highdicom")},
        }

    @routes.get(
        "/v1/cases/{case_id}/picture",
        tags=["about"],
        summary="The picture of a similar case",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def picture(case_id: str) -> Response:
        pictures = diagnoser.cases.cases.pictures(case_id)
        if not pictures:
            raise ServiceError(
                f"the case base has no picture of case {case_id[:80]!r}",
                status=404,
                code="no-picture",
                hint="build the case base with --pictures",
            )
        return Response(next(iter(pictures.values())), media_type="image/png")

    return routes


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _asset(name: str) -> Response:
    """A file of the page; the page uses the report's viewer."""
    found = files("nodule_diag.report") / name if name in VIEWER else files("nodule_diag.service") / "page" / name
    if "/" in name or "\\" in name or name.startswith(".") or not found.is_file():
        raise _no_such_file(name)
    kind = guess_type(name)[0] or "application/octet-stream"
    return Response(found.read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})


def _swagger() -> Any:  # noqa: ANN401 - importlib's Traversable, whose place changes in Python 3.14
    try:
        return files("fastapi_offline") / "static"
    except ModuleNotFoundError as error:
        raise MissingExtraError("fastapi-offline", "serve") from error


def _no_such_file(name: str) -> ServiceError:
    return ServiceError(f"there is no file {name[:80]!r}", status=404, code="no-such-file", hint="open the page at /")
