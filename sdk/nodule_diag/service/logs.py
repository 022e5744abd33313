"""The log as lines of JSON on stderr. No line says whose CT it was: no path, no name, no UID, no position."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path


class JsonFormatter(logging.Formatter):
    """One object a line; an exception is told by its type and place alone, as its text may name a file."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if record.name.startswith("nodule_diag") else str(record.msg),
            **getattr(record, "fields", {}),
        }
        kind, _, trace = record.exc_info or (None, None, None)
        if kind is not None:
            line["error"] = kind.__name__
        while trace is not None:
            line["at"] = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        return json.dumps(line, default=str)


def log_as_json() -> None:
    """Send this package's log, and uvicorn's complaints, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, level in (("nodule_diag", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
