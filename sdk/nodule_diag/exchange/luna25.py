"""The interface of LUNA25 on Grand Challenge: one CT and its nodules in a folder, their probabilities in another.

Every nodule gets an answer. A nodule that cannot be diagnosed (it lies outside the CT, or the CT cannot be read) gets
the probability of a nodule of which nothing is known: the prior that every other P assumes.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodule_diag.batch import Predicts
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.errors import BackendError, NoduleDiagError, UsageError
from nodule_diag.exchange.documents import parsed
from nodule_diag.exchange.numbers import point
from nodule_diag.exchange.position import XYZ
from nodule_diag.exchange.refusals import refused
from nodule_diag.process import write_bytes
from nodule_diag.results import require_prevalence
from nodule_diag.tables import MAX_POSITIONS, read_bytes, text_of

LOCATIONS = "nodule-locations.json"
IMAGES = Path("images") / "chest-ct"
IMAGE_SUFFIXES = (".mha", ".tif", ".tiff")
LIKELIHOODS = "lung-nodule-malginancy-likelihoods.json"
"""As the challenge spells it."""
HALF = 0.5
"""The prior that the model was trained for, and the answer for a nodule of which nothing is known."""
HEAD = {"name": "Points of interest", "type": "Multiple points", "version": {"major": 1, "minor": 0}}


@dataclass(frozen=True)
class Answered:
    """The result of a run.

    Attributes:
        path: The file that was written.
        count: How many nodules the file holds.
        failures: Why nodules got the prior, one sentence each.
    """

    path: Path
    count: int
    failures: tuple[str, ...]


def answer_grand_challenge(
    diagnoser: Predicts,
    input_folder: str | os.PathLike[str],
    output_folder: str | os.PathLike[str],
    *,
    prevalence: float | None = None,
) -> Answered:
    """Answer one job of LUNA25.

    Args:
        diagnoser: Diagnoses points of a CT.
        input_folder: Holds ``nodule-locations.json`` and one CT in ``images/chest-ct``. The clinical information is
            not used.
        output_folder: Gets ``lung-nodule-malginancy-likelihoods.json``: the same points with their ``probability``.
        prevalence: Share of malignant nodules that the probabilities assume; None for one half.

    Raises:
        UsageError: when the points cannot be read, or there is not exactly one CT.
        OutputError: when the answer cannot be written.
        BackendError: when the network fails for every nodule; nothing is written then.
    """
    prior = require_prevalence(prevalence) or HALF
    folder = Path(input_folder)
    source = folder / LOCATIONS
    document = parsed(source, text_of(source, read_bytes(source)))
    points = _points(source, document)
    failures: list[str] = []
    places = [_place(number, one, failures) for number, one in enumerate(points, start=1)]
    ct = _read(_image(folder / IMAGES), failures)
    known = _probabilities(diagnoser, ct, places, prevalence, failures) if ct is not None else {}
    answers = [
        {"name": _echoed(one.get("name")), "point": place, "probability": known.get(at, prior)}
        for at, (one, place) in enumerate(zip(points, places, strict=True))
    ]
    target = Path(output_folder) / LIKELIHOODS
    with suppress(OSError):  # a fault is reported when the file is written
        target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, (json.dumps({**HEAD, "points": answers}, allow_nan=False, indent=2) + "\n").encode())
    return Answered(target, len(points), tuple(failures))


def _points(source: Path, document: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    points = document.get("points") if isinstance(document, dict) else None
    if not isinstance(points, list) or not all(isinstance(one, dict) for one in points):
        raise refused(source, ["it has no list 'points' of objects"], hint="give the challenge's own file")
    if len(points) > MAX_POSITIONS:
        raise refused(source, [f"more than {MAX_POSITIONS} points"])
    return points


def _echoed(name: object) -> str | int | None:
    return name if isinstance(name, str | int) else None


def _place(number: int, entry: dict[str, Any], failures: list[str]) -> XYZ | None:
    return point(entry.get("point"), failures, what=f"point {number} ({str(entry.get('name'))[:60]})")


def _image(folder: Path) -> Path:
    """The one CT of a job."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {error.strerror}", hint="check --input") from error
    if len(found) != 1:
        raise UsageError(
            f"{folder} holds {len(found)} CTs, not one",
            hint=f"give one file that ends in {' or '.join(IMAGE_SUFFIXES)}",
        )
    return found[0]


def _read(path: Path, failures: list[str]) -> CTVolume | None:
    try:
        return read_ct(path)
    except NoduleDiagError as error:
        failures.append(str(error))
        return None


def _probabilities(
    diagnoser: Predicts, ct: CTVolume, places: list[XYZ | None], prevalence: float | None, failures: list[str]
) -> dict[int, float]:
    """P of each point that can be diagnosed, by its index: all together, or one by one where that fails."""

    def of(some: dict[int, XYZ]) -> dict[int, float]:
        found = diagnoser.predict_timed(ct, list(some.values()), check_lung=False, prevalence=prevalence)
        return {index: one.malignancy for index, one in zip(some, found.diagnoses, strict=True)}

    placed = {index: place for index, place in enumerate(places) if place is not None}
    known: dict[int, float] = {}
    with suppress(NoduleDiagError):
        return of(placed)
    for index, place in placed.items():
        try:
            known |= of({index: place})
        except NoduleDiagError as error:
            failures.append(f"point {index + 1}: {error}")
            if isinstance(error, BackendError) and len(failures) == len(places):
                raise  # nothing works: a list of priors must not hide that
    return known
