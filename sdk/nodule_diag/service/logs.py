"""The log as lines of JSON on stderr. No line identifies the patient: no path, no name, no UID, no position."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from nodule_diag.process import LOG


class JsonFormatter(logging.Formatter):
    """One object per line; an exception is logged with its type and place only, because its text may name a file."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **getattr(record, "fields", {}),
        }
        kind, _, trace = record.exc_info or (None, None, None)
        if kind is not None:
            line["error"] = kind.__name__
        while trace is not None:
            line["at"] = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        return json.dumps(line, default=str)


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith("nodule_diag"):
        return record.getMessage()
    if record.name.startswith("uvicorn"):
        return str(record.msg)
    return "a library complains"  # pydicom puts the value into the text


def _show_warning(
    message: Warning | str,  # noqa: ARG001 - the signature is Python's
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    fields = {"error": category.__name__, "at": f"{Path(filename).name}:{lineno}"}
    LOG.warning("a library warns", extra={"fields": fields})


def log_as_json() -> None:
    """Send this package's log and the warnings of libraries to stderr; library messages without their text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.lastResort, warnings.showwarning = handler, _show_warning
    for name, level in (("nodule_diag", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
