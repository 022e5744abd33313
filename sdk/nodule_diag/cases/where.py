"""Filters such as ``age > 60 and sex = 'F'``: parsed here, with values bound into SQL, never pasted.

.. code-block:: text

    filter      := all ("or" all)*
    all         := one ("and" one)*
    one         := "not" one | "(" filter ")" | comparison
    comparison  := column ("=" | "!=" | "<" | "<=" | ">" | ">=") value | column "in" "(" value ("," value)* ")"
    column      := a word, or any name in double quotes
    value       := a number, or a text in single quotes, where '' is a quote

A column is one of the case's own columns or a free one. A case without the column, or with a text where the filter has
a number, does not match the comparison. Texts are compared as they are written.
"""

# ruff: noqa: S608 - what is pasted into a condition are words of this file; what the filter says is bound

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from nodule_diag.errors import UsageError

OWN_COLUMNS: Final = (
    "case_id",
    "patient_id",
    "label",
    "label_source",
    "label_certainty",
    "malignancy",
    "expert_score",
    "diameter_mm",
)
"""Columns of the table ``cases``."""
MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 4000, 500, 50
"""Far below what SQLite refuses: 32,766 values and a depth of 1,000."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | '(?P<text>(?:[^']|'')*)'
  | "(?P<quoted>(?:[^"]|"")+)"
  | (?P<word>[^\W\d]\w*)
  | (?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_COMPARED = {"=": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class Filter:
    """A parsed filter.

    Attributes:
        sql: A condition on the table ``cases``, with a ``?`` for each value.
        values: Those values, in order.
        free_columns: The free columns that the filter names.
    """

    sql: str
    values: tuple[str | int | float, ...]
    free_columns: frozenset[str]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Raises:
        UsageError: ``where``, with the place where the filter cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"the filter has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read", code="where", hint=_HINT
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("the filter is not UTF-8", code="where", hint=_HINT)
    parser = _Parser(text)
    sql = parser.any_of(0)
    parser.expect_end()
    return Filter(sql, tuple(parser.values), frozenset(parser.free_columns))


_HINT = "write it as in: age > 60 and sex = 'F'"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*_tokens(text), _Token("end", "", len(text))]
        self._next = 0
        self.values: list[str | int | float] = []
        self.free_columns: set[str] = set()

    def any_of(self, depth: int) -> str:
        return self._joined("or", self._all_of, depth)

    def _all_of(self, depth: int) -> str:
        return self._joined("and", self._one, depth)

    def _joined(self, word: str, part: Callable[[int], str], depth: int) -> str:
        parts = [part(depth)]
        while self._took(word):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else f"({f' {word.upper()} '.join(parts)})"

    def _one(self, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise self._wrong("it is nested too deeply")
        if self._took("not"):
            return f"NOT {self._one(depth + 1)}"
        if self._took("("):
            inner = self.any_of(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> str:
        column = self._take()
        if column.kind not in {"word", "quoted"}:
            raise self._wrong("the name of a column is expected", column)
        name = column.text
        sign = self._take()
        if sign.text.lower() == "in" and sign.kind == "word":
            self._expect("(")
            values = [self._value()]
            while self._took(","):
                values.append(self._value())
            self._expect(")")
            return f"({' OR '.join(self._compared(name, '=', value) for value in values)})"
        if sign.kind != "sign" or sign.text not in _COMPARED:
            raise self._wrong("one of = != < <= > >= in is expected", sign)
        return self._compared(name, _COMPARED[sign.text], self._value())

    def _compared(self, name: str, sign: str, value: str | float) -> str:
        if len(self.values) + 2 > MAX_VALUES:
            raise self._wrong("it has too many values")
        kinds = "'text'" if isinstance(value, str) else "'integer', 'real'"
        if name in OWN_COLUMNS:
            self.values.append(value)
            return f"(typeof({name}) IN ({kinds}) AND {name} {sign} ?)"
        self.free_columns.add(name)
        self.values += [name, value]
        return (
            "case_id IN (SELECT case_id FROM free_columns"
            f" WHERE name = ? AND typeof(value) IN ({kinds}) AND value {sign} ?)"
        )

    def _value(self) -> str | float:
        token = self._take()
        if token.kind == "text":
            return token.text
        if token.kind == "number":
            whole = re.fullmatch(r"[+-]?\d+", token.text)
            return int(token.text) if whole and abs(int(token.text)) < 2**63 else float(token.text)
        raise self._wrong("a number, or a text in single quotes, is expected", token)

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _took(self, word: str) -> bool:
        token = self._tokens[self._next]
        here = token.kind in {"word", "sign"} and token.text.lower() == word
        self._next += here
        return here

    def _expect(self, sign: str) -> None:
        token = self._tokens[self._next]
        if not self._took(sign):
            raise self._wrong(f"{sign} is expected", token)

    def expect_end(self) -> None:
        token = self._tokens[self._next]
        if token.kind != "end":
            raise self._wrong("and, or, or its end is expected", token)

    def _wrong(self, why: str, token: _Token | None = None) -> UsageError:
        at = self._tokens[self._next] if token is None else token
        where = f"before {self._text[at.at : at.at + 20]!r}" if at.kind != "end" else "at its end"
        return UsageError(f"the filter {self._text[:80]!r} cannot be read: {why} {where}", code="where", hint=_HINT)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            rest = text[at:].strip()
            raise UsageError(f"the filter {text[:80]!r} cannot be read from {rest[:20]!r} on", code="where", hint=_HINT)
        kind = match.lastgroup
        found = match.group(kind)
        found = found.replace("''", "'") if kind == "text" else found.replace('""', '"') if kind == "quoted" else found
        yield _Token(kind, found, match.start(kind))
        at = match.end()
