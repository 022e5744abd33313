"""The requests of a client; no value is converted, and an unknown field is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic_core import from_json

from nodule_diag.errors import UsageError

Text = Annotated[str, Field(min_length=1, max_length=4096)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PathReference(_Asked):
    """A CT below the folder of ``--root``."""

    path: Text
    series: Text | None = None
    acquisition: int | None = None


class Series(_Asked):
    """A series on a DICOMweb server."""

    url: Text
    study: Text
    series: Text


class DicomwebReference(_Asked):
    """A CT in a PACS that the service may query."""

    dicomweb: Series
    acquisition: int | None = None


Reference = PathReference | DicomwebReference


class CTRequest(RootModel[Reference]):
    """The place of a CT."""


class Nodule(_Asked):
    """One position."""

    xyz: tuple[float, float, float]
    id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Question(_Asked):
    """A question about a CT; the defaults are the command line's."""

    nodules: Annotated[list[Nodule], Field(min_length=1)]
    space: Literal["lps", "ras", "voxel"] = "lps"
    k: Annotated[int, Field(ge=1)] | None = None
    symmetries: Literal[1, 8, 48] = 1
    prevalence: float | None = None
    where: Text | None = None
    no_lung_check: bool = False
    redact: bool = False

    def ids(self) -> list[str]:
        """The nodules' ids; their numbers where no id is given."""
        return [nodule.id or str(number) for number, nodule in enumerate(self.nodules, start=1)]

    def key(self) -> str:
        """A key that is equal for questions with the same diagnoses."""
        return self.model_dump_json(exclude={"redact", "ct"})

    def apart_from_nodules(self) -> str:
        """A key that is equal for questions with the same diagnosis of the same position."""
        return self.model_dump_json(exclude={"redact", "ct", "nodules"})


class PredictionRequest(Question):
    """A question, and the CT: its id in the store, or its place. Left out where the request holds the CT itself."""

    ct: Text | Reference | None = None


Model = TypeVar("Model", bound=BaseModel)


def parsed(kind: type[Model], data: bytes | str) -> Model:
    """Parse and check a request's JSON.

    Raises:
        UsageError: ``request-damaged`` or ``request-invalid``, with the invalid field.
    """
    try:
        given: Any = from_json(data)  # several times as fast as json; other threads wait meanwhile
    except ValueError as error:
        raise UsageError(
            f"the request is not JSON: {error}",
            hint="send one JSON object, as described at /docs",
            code="request-damaged",
        ) from error
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        raise UsageError(
            f"{where}: {first['msg']}", hint="see the description of the interface at /docs", code="request-invalid"
        ) from error
