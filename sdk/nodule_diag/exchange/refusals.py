"""The refusal of a file that holds no positions, worded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodule_diag.errors import UsageError

MAX_LISTED_FAULTS = 20
HINT = "give a CSV with the columns x,y,z and optionally id, a JSON list of {x, y, z, id}, or one of docs/positions.md"


class UnreadableError(ValueError):
    """What is wrong inside a file, before the message gets the path."""


def refused(path: Path, faults: Sequence[str], *, hint: str = HINT) -> UsageError:
    """The error that lists all faults of a file, each with its place, in one line."""
    more = f"; and {len(faults) - MAX_LISTED_FAULTS} more" if len(faults) > MAX_LISTED_FAULTS else ""
    return UsageError(f"{path}: {'; '.join(faults[:MAX_LISTED_FAULTS])}{more}", hint=hint)
