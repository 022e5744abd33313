"""The feature spaces in which cases are compared (paper 3.3)."""

from __future__ import annotations

from typing import Literal

Space = Literal["machine", "expert", "machine+expert"]
"""A feature space of paper 3.3: CNet's probability, RNet's score, or both concatenated."""
SPACES: dict[Space, int] = {"machine": 1, "expert": 1, "machine+expert": 2}
"""The three spaces and their dimensions."""
