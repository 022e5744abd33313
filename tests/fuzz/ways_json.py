"""Damage to JSON that leaves it JSON, mostly."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from fuzz import damage


def edited(rng: Random, data: bytes) -> bytes:
    """A value somewhere in a JSON document becomes another, goes, or moves; or its text is damaged."""
    if rng.random() < 0.3:
        return damage.damaged_text(rng, data)
    document = json.loads(data)
    spots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            spots.append((node, key))
            walk(node[key])

    walk(document)
    holder, key = rng.choice(spots)
    other, other_key = rng.choice(spots)
    new = rng.choice(
        (None, True, "", "x" * 5000, [], {}, [[]], *damage.BOUNDARIES, -1, 0.5, 1e308, float("nan"), "nan")
    )
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = json.loads(json.dumps(other[other_key]))
    else:
        holder[key] = new
    return json.dumps(document, indent=1).encode()
