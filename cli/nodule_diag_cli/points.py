"""Where the nodules are: ``--xyz X Y Z`` and ``--nodules FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from nodule_diag.errors import UsageError
from nodule_diag_cli import terminal

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume, Space
    from nodule_diag.exchange import Position, PositionFile


@dataclass(frozen=True, eq=False)
class Points:
    """The nodules of a command line.

    Attributes:
        xyz: Those of ``--xyz``, in the frame of ``space``; their ids are their numbers.
        space: The frame of ``xyz``, and of a list that states none.
        file: The list of ``--nodules``; its nodules come after the others.
        ids: What they are called; where the file names series, also what those of other CTs are.
    """

    xyz: Sequence[tuple[float, float, float]]
    space: Space = "lps"
    file: PositionFile | None = None
    ids: Sequence[str] = ()

    def on(self, ct: CTVolume) -> list[Position]:
        """All nodules of a CT, in LPS mm.

        Raises:
            UsageError: when the file is in another frame than ``space``.
            CoordinateError: when the positions are of another CT, or not finite.
        """
        from nodule_diag.ct import to_lps
        from nodule_diag.exchange import Position

        given = to_lps(ct, self.xyz, space=self.space).tolist() if self.xyz else []
        found = [Position(str(number), (x, y, z), "--xyz") for number, (x, y, z) in enumerate(given, start=1)]
        if self.file is not None:
            # LPS is what nobody need say, and with --xyz the frame is said of those: the file's own is obeyed then.
            unsaid = self.space == "lps" or bool(self.xyz)
            space = None if self.file.space is not None and unsaid else self.space
            found += self.file.on(ct, space=space, first=len(found) + 1)
        return found


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
                hint="write them with spaces between, as in: --xyz -56.94 131.27 -520.6",
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
        raise UsageError(f"--xyz takes three numbers, got: {text}", hint="write them as in: --xyz -56.94 131.27 -520.6")
    x, y, z = map(float, parts)
    return x, y, z


def gather(xyz: list[str], nodules: Path | None, *, space: Space = "lps", redact: bool = False) -> Points:
    """All points of the command line; says on stderr what of the file was passed over.

    Raises:
        UsageError: no point, an id twice, or a file that cannot be read.
    """
    given = [parse_xyz(text) for text in xyz]
    ids = [str(number) for number in range(1, len(given) + 1)]
    if nodules is None:
        if not given:
            raise UsageError("no nodule was given", hint="add --xyz X Y Z for each nodule, or --nodules FILE")
        return Points(given, space=space, ids=ids)
    from nodule_diag.exchange import open_positions

    file = open_positions(nodules)
    found = file.possible_ids(first=len(given) + 1)
    if repeated := sorted(set(ids).intersection(found)):
        raise UsageError(
            f"the nodule id {', '.join(repeated)} stands more than once", hint="give each nodule an id of its own"
        )
    for warning in file.warnings:
        told = "something in it was passed over" if redact else warning  # a label may be a name
        terminal.complain(f"warning: the list of nodules: {told}")
    return Points(given, space=space, file=file, ids=[*ids, *found])
