"""The one way a JSON document is written."""

from __future__ import annotations

import json


def document_text(document: object) -> str:
    """JSON of ASCII, which no terminal can spoil, without NaN, which is no JSON, and with an end of line."""
    return json.dumps(document, allow_nan=False, indent=2) + "\n"
