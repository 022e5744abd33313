"""Numbers as they stand in texts."""

from __future__ import annotations

import math


def number(value: object, *, comma: bool = False) -> float:
    """A finite number, or its text.

    Args:
        value: A number, or text; neither a bool nor Python's own 1_0.
        comma: Whether a comma in the text is the decimal separator.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, str):
        if "_" in value or (comma and "." in value and "," in value):
            raise ValueError("not a number")
        found = float(value.replace(",", ".") if comma else value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    else:
        raise ValueError("not a number")
    if not math.isfinite(found):
        raise ValueError("not finite")
    return found
