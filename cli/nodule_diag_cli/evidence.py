"""What ``predict`` makes of a prediction for people and for a PACS: the report, DICOM objects, and their way back."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nodule_diag.errors import MissingExtraError, UsageError
from nodule_diag_cli import terminal

if TYPE_CHECKING:
    from pydicom import Dataset

    from nodule_diag.ct import CTVolume, MemoryFile
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.pacs import FetchedSeries
    from nodule_diag.results import Prediction


@dataclass(frozen=True)
class Pacs:
    """Where the CT comes from, when it is not a file.

    Attributes:
        url: The server.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
    """

    url: str
    study: str
    series: str

    def fetch(self) -> FetchedSeries:
        """Fetch the series, saying on stderr how far it is."""
        from nodule_diag.pacs import Pacs as Server

        server = Server(self.url)
        with terminal.progress("fetching the CT") as say:
            return server.fetch(
                self.study,
                self.series,
                progress=lambda have, of: say(f"fetching the CT: {have} of {of}"),
            )

    def store(self, objects: dict[str, Dataset]) -> None:
        """Send the objects."""
        from nodule_diag.pacs import Pacs as Server

        with terminal.progress(f"storing {len(objects)} objects"):
            Server(self.url).store(objects.values())


class Predicted(Protocol):
    """What came of a request."""

    @property
    def ct(self) -> CTVolume:
        """The CT."""

    @property
    def prediction(self) -> Prediction:
        """The diagnoses."""

    @property
    def diagnoser(self) -> Diagnoser:
        """What made them."""

    @property
    def files(self) -> tuple[MemoryFile, ...] | None:
        """The CT's files, where they were fetched."""


@dataclass(frozen=True)
class Evidence:
    """What was asked for besides the answer.

    Attributes:
        report: The page to write.
        identity: Whether it says whose CT it is.
        dicom_out: The folder for DICOM objects.
        store: The server that they are sent to.
    """

    report: Path | None = None
    identity: bool = False
    dicom_out: Path | None = None
    store: Pacs | None = None

    def check(self) -> None:
        """Refuse what cannot be served before any work is done.

        Raises:
            UsageError: For ``--identity`` without a report.
        """
        if self.identity and self.report is None:
            raise UsageError("--identity is for a report", hint="give --report FILE, or leave it out")
        objects = self.dicom_out is not None or self.store is not None
        for wanted, module, extra in ((self.report is not None, "jinja2", "report"), (objects, "highdicom", "dicom")):
            if wanted and find_spec(module) is None:
                raise MissingExtraError(module, extra)

    def write(self, result: Predicted) -> list[str]:
        """Write everything and send what is to be sent; returns what to tell of it."""
        told: list[str] = []
        if self.report is not None:
            from nodule_diag.report import identity_of, write_report

            with terminal.progress("writing the report"):
                whose = identity_of(result.ct, files=result.files) if self.identity else None
                write_report(self.report, result.ct, result.prediction, diagnoser=result.diagnoser, identity=whose)
            told.append(f"Wrote {self.report}.")
        if self.dicom_out is None and self.store is None:
            return told
        from nodule_diag.dicom_objects import dicom_objects, save_dicom_objects

        with terminal.progress("making DICOM objects"):
            objects = dicom_objects(result.ct, result.prediction, files=result.files)
        if self.dicom_out is not None:
            save_dicom_objects(self.dicom_out, objects)
            told.append(f"Wrote {len(objects)} DICOM objects to {self.dicom_out}.")
        if self.store is not None:
            self.store.store(objects)
            told.append(f"Stored {len(objects)} DICOM objects.")
        return told
