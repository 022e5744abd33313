"""Formats every JSON document."""

from __future__ import annotations

import json


def document_text(document: object) -> str:
    """JSON in ASCII, which every terminal shows, without NaN, which is not JSON, and with an end of line."""
    return json.dumps(document, allow_nan=False, indent=2) + "\n"
