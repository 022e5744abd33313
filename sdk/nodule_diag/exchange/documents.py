"""JSON: the plain list, JSON Lines, 3D Slicer's markups and Grand Challenge's points."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nodule_diag.ct import Space
from nodule_diag.exchange import numbers
from nodule_diag.exchange.position import Mark, PositionFile
from nodule_diag.exchange.refusals import refused
from nodule_diag.exchange.tables import not_placed
from nodule_diag.tables import MAX_POSITIONS, number

LINES = (".jsonl", ".ndjson")
SLICER_SPACES: dict[str, Space] = {"LPS": "lps", "RAS": "ras"}
_MILLIMETRES = ("mm", "millimeter")


def parsed(path: Path, text: str) -> Any:  # noqa: ANN401 - any JSON
    """A JSON document.

    Raises:
        UsageError: when the text is not JSON, or an object has a key twice.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # ValueError: also a repeated key, or 5,000 digits
        raise refused(path, [f"not JSON: {error}"]) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def read_document(path: Path, text: str) -> PositionFile:
    """Read JSON of any of the forms.

    Raises:
        UsageError: with all faults at once, each with its entry.
    """
    if path.suffix.lower() in LINES:
        lines = [(f"line {at}", line) for at, line in enumerate(text.splitlines(), start=1) if line.strip()]
        return _list(path, [(place, parsed(path, line)) for place, line in lines[: MAX_POSITIONS + 1]], "JSON Lines")
    document = parsed(path, text)
    if isinstance(document, dict):
        if isinstance(document.get("markups"), list):
            return _markups(path, document["markups"])
        if isinstance(document.get("points"), list):
            return _points(path, document["points"])
        if "point" in document:
            return _points(path, [document])
        if isinstance(document.get("nodules"), list):
            document = document["nodules"]
    if not isinstance(document, list):
        raise refused(path, ["not a JSON list"])
    return _list(path, _numbered(document), "a JSON list")


def _numbered(entries: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _read(
    path: Path, entries: list[tuple[str, Any]], mark: Callable[[str, dict[str, Any], list[str]], Mark | None]
) -> tuple[Mark, ...]:
    """A mark for each entry, or an error with all faults."""
    faults: list[str] = []
    marks: list[Mark] = []
    if len(entries) > MAX_POSITIONS:
        faults.append(f"more than {MAX_POSITIONS} entries")
    for place, entry in entries[:MAX_POSITIONS]:
        if not isinstance(entry, dict):
            faults.append(f"{place}: the entry = {str(entry)[:40]!r} is not an object")
        elif found := mark(place, entry, faults):
            marks.append(found)
    if faults or not marks:
        raise refused(path, faults or ["no nodule in it"])
    return tuple(marks)


def _list(path: Path, entries: list[tuple[str, Any]], form: str) -> PositionFile:
    """Objects with x, y, z and perhaps id; or nodules of a prediction document, which are LPS."""
    own = [isinstance(entry, dict) and "xyz_lps_mm" in entry for _, entry in entries]
    if any(own) and not all(own):
        raise refused(path, ["some entries have xyz_lps_mm, and others have not"])

    def mark(place: str, entry: dict[str, Any], faults: list[str]) -> Mark:
        called = _name(place, "id", entry, faults)
        if "xyz_lps_mm" in entry:
            return Mark(place, numbers.point(entry["xyz_lps_mm"], faults, what=f"{place}: xyz_lps_mm"), called)
        xyz = []
        for axis in "xyz":
            try:
                xyz.append(number(entry[axis]))
            except KeyError:
                faults.append(f"{place}: {axis} is missing")
            except (ValueError, OverflowError):
                faults.append(f"{place}: {axis} = {str(entry[axis])[:40]!r} is not a finite number")
        return Mark(place, (xyz[0], xyz[1], xyz[2]) if len(xyz) == 3 else None, called)

    marks = _read(path, entries, mark)
    return PositionFile(path, form, "lps" if any(own) else None, marks, names_are_ids=True)


def _points(path: Path, entries: list[Any]) -> PositionFile:
    """Grand Challenge's "Point" and "Multiple points": LPS mm."""

    def mark(place: str, entry: dict[str, Any], faults: list[str]) -> Mark:
        called = _name(place, "name", entry, faults)
        return Mark(place, numbers.point(entry.get("point"), faults, what=f"{place}: point"), called)

    return PositionFile(path, "Grand Challenge points", "lps", _read(path, _numbered(entries), mark))


def _markups(path: Path, markups: list[Any]) -> PositionFile:
    """3D Slicer's markups: the control points of point lists, and the centres of ROIs."""
    faults: list[str] = []
    unplaced: list[str] = []
    spaces: set[Space] = set()
    marks: list[Mark] = []
    for place, markup in _numbered(markups):
        if not isinstance(markup, dict):
            faults.append(f"{place}: not an object")
            continue
        stated = markup.get("coordinateSystem", "LPS")  # the schema's default
        units = markup.get("coordinateUnits", "mm")
        if (space := SLICER_SPACES.get(str(stated))) is None:
            faults.append(f"{place}: coordinateSystem = {str(stated)[:40]!r} is neither LPS nor RAS")
        elif str(units[0] if isinstance(units, list) and units else units) not in _MILLIMETRES:
            faults.append(f"{place}: coordinateUnits = {str(units)[:40]!r} are not mm")
        else:
            spaces.add(space)
            marks += _of_markup(place, markup, faults, unplaced)
    if len(spaces) > 1 and not faults:
        faults.append("some of its markups are in LPS and some in RAS")
    if len(marks) > MAX_POSITIONS:
        faults.append(f"more than {MAX_POSITIONS} points")
    if faults or not marks:
        raise refused(path, faults or ["no placed point in it"])
    return PositionFile(path, "3D Slicer markups", spaces.pop(), tuple(marks), warnings=not_placed(unplaced))


def _of_markup(place: str, markup: dict[str, Any], faults: list[str], unplaced: list[str]) -> list[Mark]:
    kind = markup.get("type")
    if kind not in ("Fiducial", "ROI"):
        faults.append(f"{place}: a markup of type {str(kind)[:40]!r}, not a point list (Fiducial) or an ROI")
        return []
    controls = markup.get("controlPoints", [])
    if not isinstance(controls, list):
        faults.append(f"{place}: controlPoints is not a list")
        return []
    if kind == "ROI":
        title = markup.get("name") if isinstance(markup.get("name"), str) else None
        if not _placed(markup, controls):
            unplaced.append(title or place)
            return []
        return [Mark(place, numbers.point(markup.get("center"), faults, what=f"{place}: center"), title or None)]
    marks = []
    for at, control in enumerate(controls, start=1):
        here = f"{place}, control point {at}"
        if not isinstance(control, dict):
            faults.append(f"{here}: not an object")
            continue
        called = _name(here, "label", control, faults)
        if not _defined(control):
            unplaced.append(called or here)
            continue
        marks.append(Mark(here, numbers.point(control.get("position"), faults, what=f"{here}: position"), called))
    return marks


def _defined(control: dict[str, Any]) -> bool:
    return bool(control.get("positionStatus", "defined") == "defined")


def _placed(roi: dict[str, Any], controls: list[Any]) -> bool:
    """Whether an ROI has a position: 3D Slicer writes one that was never placed with center and size 0."""
    if "controlPoints" in roi:
        return any(isinstance(control, dict) and _defined(control) for control in controls)
    return not roi.get("center") == roi.get("size") == [0, 0, 0]


def _name(place: str, key: str, entry: dict[str, Any], faults: list[str]) -> str | None:
    try:
        return numbers.name(entry.get(key))
    except ValueError:
        faults.append(f"{place}: {key} = {str(entry[key])[:40]!r} is not a text")
        return None
