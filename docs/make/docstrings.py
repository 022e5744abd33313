"""A griffe extension: docstrings of this project as Markdown.

They are Google style with a little of Sphinx in it: roles (``:class:`CTVolume```) and code blocks.
"""

from __future__ import annotations

import re
import textwrap

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`")
CODE_BLOCK = re.compile(r"\.\. code-block:: (\w+)\n\n((?:[ \t]+.*\n?|\n)+)")


def as_markdown(docstring: str) -> str:
    """Roles become code, and code blocks fenced ones."""

    def fenced(match: re.Match[str]) -> str:
        return f"```{match[1]}\n{textwrap.dedent(match[2]).strip()}\n```\n\n"

    return CODE_BLOCK.sub(fenced, ROLE.sub(r"`\1`", docstring))


class PlainDocstrings(griffe.Extension):
    """Rewrites each docstring when it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Griffe's event for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
