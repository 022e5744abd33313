"""What a field of ``manifest.json`` may be: bounded text, plain paths, and JSON that all parsers read the same way."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Annotated, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

UNSAFE_PATH = "unsafe_path"
"""Type of the validation error of a path that would leave the bundle."""


def check_relative_path(name: str) -> str:
    """Return ``name`` when it is a plain relative POSIX path that stays below its folder.

    Refused: absolute paths, ``.`` and ``..`` and empty parts, backslashes and colons (a Windows drive or stream
    when the bundle is opened there) and characters that cannot be printed.

    Raises:
        PydanticCustomError: Of type :data:`UNSAFE_PATH`, a ``ValueError``.
    """
    if not name.isprintable() or {"\\", ":"} & set(name) or {"", ".", ".."} & set(name.split("/")):
        raise PydanticCustomError(UNSAFE_PATH, "path {name} is not a plain relative path", {"name": repr(name)})
    return name


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} holds characters that cannot be shown")
    return text


def _lines(text: str) -> str:
    for line in text.split("\n"):
        _one_line(line)
    return text


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(check_relative_path)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Line = Annotated[ShortText, AfterValidator(_one_line)]
"""Text that is shown: no control character, no override of the reading direction."""
LongText = Annotated[str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_lines)]


class Strict(BaseModel):
    """Base of everything read from a bundle: immutable, no unknown fields, nothing converted, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def require_apart(files: dict[str, str]) -> dict[str, str]:
    """Return ``files`` if no two names are the same file on a system that ignores upper and lower case.

    Raises:
        PydanticCustomError: Of type :data:`UNSAFE_PATH`.
    """
    seen: dict[str, str] = {}
    for name in files:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            raise PydanticCustomError(
                UNSAFE_PATH,
                "{name} and {other} are one file on some systems",
                {"name": repr(name), "other": repr(other)},
            )
    return files


def require_plain_json(text: bytes) -> None:
    """Refuse JSON that parsers read differently: a name twice in an object, NaN, a number beyond a float.

    Raises:
        ValueError: Also for text that is not JSON, or nested too deeply.
    """
    try:
        json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_no_number,
            parse_float=lambda number: _no_number(number) if math.isinf(float(number)) else None,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_repeats(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"{max(names, key=names.count)!r} stands twice in one object")


def _no_number(number: str) -> NoReturn:
    raise ValueError(f"{number[:40]} is not a finite number")
