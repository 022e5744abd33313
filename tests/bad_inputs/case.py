"""One input that must be refused, and the list of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BadInput:
    """A file that must be refused.

    Attributes:
        name: Short name, for test ids.
        title: For people: what is wrong with it.
        code: The error code it must give.
        build: Makes it in an empty folder and returns its path.
        says: What the message must name.
        series: What to pass as ``series``.
        acquisition: What to pass as ``acquisition``.
        exit_code: The command line's exit code.
    """

    name: str
    title: str
    code: str
    build: Callable[[Path], Path]
    says: tuple[str, ...] = ()
    series: str | None = None
    acquisition: int | None = None
    exit_code: int = 3


CASES: list[BadInput] = []


def case(
    title: str, code: str, *says: str, series: str | None = None, acquisition: int | None = None, exit_code: int = 3
):
    """Register the decorated builder."""

    def register(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(BadInput(build.__name__, title, code, build, says, series, acquisition, exit_code))
        return build

    return register


def cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:count])
    return path


def changed(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


# A direction whose axes are not at right angles.
SHEAR = [[1, 0, 0], [0, 1, 0.2], [0, 0, 0.98]]
