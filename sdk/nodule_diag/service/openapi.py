"""The entries of /openapi.json for bodies that the routes read themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON body of a model, without references, which would not resolve in that document."""
    schema = model.model_json_schema()
    kinds = schema.pop("$defs", {})
    return {"application/json": {"schema": _inlined(schema, kinds)}}


def form_body() -> dict[str, Any]:
    """A form: one CT, a header and its data file, one .zip, or the DICOM files of a series; and the question."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    request = {"type": "string", "description": "The JSON of a prediction request, without ct."}
    return {
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": files, "request": request}}},
    }


def _inlined(schema: Any, kinds: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(schema, list):
        return [_inlined(item, kinds) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(kinds[schema["$ref"].rpartition("/")[2]], kinds)
    return {key: _inlined(value, kinds) for key, value in schema.items()}
