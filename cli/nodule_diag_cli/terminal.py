"""The one way to a terminal, which names of files, cases and patients come by: nothing in them is a command to it.

Whatever is printed, by rich or plainly, goes through :func:`printable`. JSON is ASCII already.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nodule_diag.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MIN_WIDTH, MAX_WIDTH = 60, 120
_BYTES_OF_NAMES = range(0xDC80, 0xDD00)
"""What Python makes of the bytes of a file name that is not UTF-8 (PEP 383)."""


class StdoutError(OutputError):
    """Standard output takes nothing more: a full disk, or it was closed."""


def printable(text: str) -> str:
    r"""A text that is one line and moves no cursor: ``\x1b`` for an escape character, ``\u202e`` for an override.

    What Unicode calls a control, format, separator or surrogate character is written as Python would.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if (code := ord(character)) in _BYTES_OF_NAMES:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def write(text: str) -> None:
    """Print a document on stdout, at once, so that a failure is met here."""
    sys.stdout.write(text)
    sys.stdout.flush()


def complain(*lines: str) -> None:
    """Print lines on stderr; nothing can be done where it takes none."""
    with suppress(OSError):
        sys.stderr.write("".join(f"{printable(' '.join(line.split()))}\n" for line in lines))
        sys.stderr.flush()


def console(*, stderr: bool = False) -> Console:
    """A console on the standard streams, without markup, emoji or automatic colours in text."""
    made = _console_class()
    width = max(MIN_WIDTH, min(MAX_WIDTH, made(stderr=stderr).width))
    return made(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


@cache
def _console_class() -> type[Console]:
    """Console of rich, with every text that comes to it made printable; rich is imported late."""
    from rich.console import Console

    class PrintableConsole(Console):
        def render_str(self, text: str, **how: Any) -> Text:  # noqa: ANN401 - as rich has it
            return super().render_str(printable(text), **how)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PrintableConsole


@contextmanager
def progress(message: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something takes time; nothing if stderr is not a terminal. Yields what changes it."""
    from rich.text import Text

    with console(stderr=True).status(Text(printable(message))) as status:
        yield lambda text: status.update(Text(printable(text)))


@contextmanager
def bar(message: str, *, remaining: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr; nothing where stderr is not a terminal. Yields what takes a text, and how many of all.

    Args:
        message: The first text.
        remaining: Whether to show how long the rest takes at the pace of the last seconds.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    to = console(stderr=True)
    shown = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *shown, *[TimeRemainingColumn()] * remaining, console=to, transient=True, disable=not to.is_terminal
    ) as made:
        task = made.add_task(printable(message), total=None)
        yield lambda text, done, total: made.update(task, description=printable(text), completed=done, total=total)


class _Stream(TextIOWrapper):
    """A standard stream of a program: it can show every character, and says in one way that it cannot be written."""

    def write(self, text: str, /) -> int:
        with self._faults():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        if not self.closed:
            with self._faults():
                super().flush()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is still in the buffer would be written, and complained about, once more when Python ends.
            with suppress(OSError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self.fileno())
                os.close(nothing)
            if isinstance(error, BrokenPipeError):
                raise
            if self.fileno() != 2:  # nobody can be told that stderr is full
                raise StdoutError(f"cannot write to standard output: {error.strerror}") from error


def take_streams() -> bool:
    """Make the standard streams those of this module; whether there is a standard output."""
    has_output = sys.stdout is not None
    # A file that is opened next must not become standard output: what native code prints would be written into it.
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = os.fdopen(descriptor, "w", closefd=False)
        if isinstance(stream, TextIOWrapper):
            how = {"encoding": stream.encoding, "line_buffering": stream.line_buffering}
            setattr(sys, name, _Stream(stream.detach(), errors="backslashreplace", **how))  # type: ignore[arg-type]
    sys.excepthook = _show_traceback
    warnings.showwarning = _show_warning
    return has_output


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    complain_as_is = "".join(traceback.format_exception(kind, error, trace)).splitlines()
    with suppress(OSError):
        sys.stderr.write("".join(f"{printable(line)}\n" for line in complain_as_is))


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    complain(f"warning: {message}")
