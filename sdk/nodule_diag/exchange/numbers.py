"""Numbers and names as they stand in texts."""

from __future__ import annotations

import math

from nodule_diag.exchange.position import XYZ


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


def point(values: object, faults: list[str], *, what: str) -> XYZ | None:
    """Three numbers of a JSON list; None where they are invalid, with an entry in ``faults``."""
    if isinstance(values, list) and len(values) == 3:
        try:
            x, y, z = (number(value) for value in values)
        except (ValueError, OverflowError):
            pass
        else:
            return x, y, z
    faults.append(f"{what} = {str(values)[:60]!r} is not three finite numbers")
    return None


def name(value: object) -> str | None:
    """A text or a whole number as a name; None where it is empty.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError("not a text or a whole number")
    return str(value).strip() or None if value is not None else None
