"""Where the nodules are: ``--xyz X Y Z`` and ``--nodules FILE``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from typer.core import TyperCommand

from nodule_diag.errors import UsageError

MAX_LISTED_FAULTS = 20
MAX_LIST_BYTES = 16 * 2**20  # a nodule list is kilobytes; this keeps a CT given by mistake out of memory


class NamedPoint(NamedTuple):
    """A point as the user gave it, in the frame of ``--space``."""

    id: str
    xyz: tuple[float, float, float]


class XyzCommand(TyperCommand):
    """A command whose ``--xyz`` takes the three numbers that follow it, negative ones too, and can be repeated.

    Typer knows no list of tuples; here the three words become one before it sees them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer's context or click's
        """Join the words of each ``--xyz``, then parse as usual."""
        return super().parse_args(ctx, join_xyz(args))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # Python's own 1_000


def join_xyz(arguments: list[str]) -> list[str]:
    """Turn ``--xyz X Y Z`` into ``--xyz=X,Y,Z`` wherever it stands before ``--``.

    Raises:
        UsageError: fewer than three numbers follow, or a fourth.
    """
    joined: list[str] = []
    words = iter(range(len(arguments)))
    for at in words:
        word = arguments[at]
        if word == "--":
            return joined + arguments[at:]
        if word != "--xyz":
            joined.append(word)
            continue
        values = arguments[at + 1 : at + 4]
        if len(values) < 3 or not all(_is_number(value) for value in values):
            raise UsageError(
                f"--xyz takes three numbers, got: {' '.join(values) or 'nothing'}",
                hint="write them apart, as in: --xyz -56.94 131.27 -520.6",
            )
        if len(arguments) > at + 4 and _is_number(arguments[at + 4]) and not Path(arguments[at + 4]).exists():
            raise UsageError(
                f"--xyz takes three numbers, got: {' '.join([*values, arguments[at + 4]])}",
                hint="repeat --xyz for another nodule",
            )
        joined.append("--xyz=" + ",".join(values))
        for _ in values:
            next(words)
    return joined


def parse_xyz(text: str) -> tuple[float, float, float]:
    """Read ``X,Y,Z``; numbers that are not finite are left to the SDK, which refuses them as coordinates."""
    parts = text.replace(",", " ").split()
    if len(parts) != 3 or not all(map(_is_number, parts)):
        raise UsageError(f"--xyz takes three numbers, got: {text}", hint="as in: --xyz -56.94 131.27 -520.6")
    x, y, z = map(float, parts)
    return x, y, z


def _number(value: object) -> object:
    """Take numbers and their text, but neither true nor 1_0."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError("not a number")
    return value.strip() if isinstance(value, str) else value


def _label(value: object) -> object:
    """Take numbers as ids."""
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError("not a text or a whole number")
    return str(value).strip() or None if value is not None else None


_Number = Annotated[float, BeforeValidator(_number)]


class _Row(BaseModel):
    """One nodule of a list."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    x: _Number
    y: _Number
    z: _Number
    id: Annotated[str | None, BeforeValidator(_label)] = None


def _refuse(path: Path, faults: list[str]) -> NoReturn:
    more = f"; and {len(faults) - MAX_LISTED_FAULTS} more" if len(faults) > MAX_LISTED_FAULTS else ""
    raise UsageError(
        f"{path}: {'; '.join(faults[:MAX_LISTED_FAULTS])}{more}",
        hint="a nodule list is a CSV with the columns x,y,z and optionally id, or a JSON list of {x, y, z, id}",
    )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            _refuse(path, [f"{path.stat().st_size} bytes are too many for a nodule list"])
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse(path, ["not UTF-8 text"])
    except OSError as error:
        raise UsageError(f"cannot read the nodule list {path}: {error.strerror}", hint="check the path") from error


def _csv_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any] | str]]:
    """The rows of a CSV with the line where each stands, or what is wrong with it; comma, semicolon or tab."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[tuple[str, dict[str, Any] | str]] = []
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip().lower() for cell in cells]
                missing = [name for name in "xyz" if name not in columns]
                if missing or len(set(columns)) < len(columns):
                    what = f"no column {', '.join(missing)}" if missing else "a column stands twice"
                    _refuse(path, [f"{what} in the first line ({delimiter.join(cells)})"])
            elif len(cells) != len(columns):
                rows.append((f"line {reader.line_num}", f"{len(cells)} cells instead of {len(columns)}"))
            else:
                rows.append((f"line {reader.line_num}", dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        rows.append((f"line {reader.line_num}", str(error)))
    return rows


def _json_rows(path: Path, text: str) -> list[tuple[str, Any]]:
    """The entries of a JSON list with their place."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        _refuse(path, [f"not JSON: {error}"])
    if isinstance(document, dict) and isinstance(document.get("nodules"), list):
        document = document["nodules"]
    if not isinstance(document, list):
        _refuse(path, ["not a JSON list"])
    return [
        (f"entry {number}", "not an object {x, y, z}" if isinstance(entry, str) else entry)
        for number, entry in enumerate(document, start=1)
    ]


def read_nodules(path: Path) -> list[tuple[str | None, tuple[float, float, float]]]:
    """Read a nodule list: CSV, or JSON when the name ends in ``.json`` or the text starts like it.

    Returns:
        (id or None, x, y, z in the user's frame) of each nodule, in the order of the file.

    Raises:
        UsageError: all faults at once, each with the line or entry where it stands.
    """
    text = _text(path)
    is_json = path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{")
    nodules: list[tuple[str | None, tuple[float, float, float]]] = []
    faults: list[str] = []
    for place, entry in _json_rows(path, text) if is_json else _csv_rows(path, text):
        if isinstance(entry, str):
            faults.append(f"{place}: {entry}")
            continue
        try:
            row = _Row.model_validate(entry)
        except ValidationError as error:
            faults += [f"{place}: {_fault(detail)}" for detail in error.errors()]
        else:
            nodules.append((row.id, (row.x, row.y, row.z)))
    if faults:
        _refuse(path, faults)
    if not nodules:
        _refuse(path, ["no nodule in it"])
    return nodules


def _fault(detail: Any) -> str:  # noqa: ANN401 - pydantic's error dict
    name = ".".join(map(str, detail["loc"])) or "the entry"
    if detail["type"] == "missing":
        return f"{name} is missing"
    wanted = {"id": "a text"}.get(name, "a finite number" if name in "xyz" else "an object {x, y, z}")
    return f"{name} = {str(detail['input'])[:40]!r} is not {wanted}"


def gather(xyz: list[str], nodules: Path | None) -> list[NamedPoint]:
    """All points of the command line with their ids: the given ones, else 1, 2, 3 ... by place.

    Raises:
        UsageError: no point, or an id twice.
    """
    found: list[tuple[str | None, tuple[float, float, float]]] = [(None, parse_xyz(text)) for text in xyz]
    if nodules is not None:
        found += read_nodules(nodules)
    if not found:
        raise UsageError("no nodule was given", hint="add --xyz X Y Z for each nodule, or --nodules FILE")
    points = [NamedPoint(name or str(number), point) for number, (name, point) in enumerate(found, start=1)]
    ids = [point.id for point in points]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise UsageError(f"the nodule id {', '.join(repeated)} stands more than once", hint="give every nodule its own")
    return points
