"""Points and names as they stand in JSON."""

from __future__ import annotations

from nodule_diag.exchange.position import XYZ
from nodule_diag.tables import number


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
