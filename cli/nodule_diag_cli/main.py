"""The entry point: one place where every failure becomes an exit code and two lines, or one JSON document."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import typer

from nodule_diag.errors import NoduleDiagError, bounded
from nodule_diag.process import document_text
from nodule_diag_cli import signals, terminal
from nodule_diag_cli.batch import batch
from nodule_diag_cli.cases import cases_app
from nodule_diag_cli.demo import demo
from nodule_diag_cli.doctor import doctor
from nodule_diag_cli.extras import add_extras
from nodule_diag_cli.grand_challenge import grand_challenge
from nodule_diag_cli.info import info
from nodule_diag_cli.points import XyzCommand
from nodule_diag_cli.predict import predict
from nodule_diag_cli.serve import serve
from nodule_diag_cli.version import version_option

if TYPE_CHECKING:
    from nodule_diag.results import Redaction

DEBUG_VARIABLE = "NODULE_DIAG_DEBUG"
EXIT_UNFORESEEN, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

# Typer brings its own copy of click since 0.26 and used the package before: its errors are found through a public name.
_BAD_PARAMETER_BASES = {base.__name__: base for base in typer.BadParameter.__mro__}
_PARSE_ERROR: type[Exception] = _BAD_PARAMETER_BASES["ClickException"]

app = typer.Typer(
    name="nodule-diag",
    help="Diagnose pulmonary nodules in a chest CT. For research; not a medical device.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback()(version_option)
app.command(cls=XyzCommand)(predict)
app.command()(info)
app.command()(doctor)
app.command()(demo)
app.command()(batch)
app.command()(serve)
app.command()(grand_challenge)
app.add_typer(cases_app, name="cases")
add_extras(app)


class Fault(NamedTuple):
    """What is told of a failure."""

    exit_code: int
    code: str
    message: str
    hint: str = ""


def _run(arguments: list[str]) -> int:
    """Run one command, letting its failures through."""
    ended = typer.main.get_command(app).main(args=arguments, prog_name="nodule-diag", standalone_mode=False)
    if ended == EXIT_INTERRUPTED:  # which Typer has made of Ctrl-C
        raise KeyboardInterrupt
    return ended if isinstance(ended, int) else 0


def _fault(error: BaseException) -> Fault:
    """What to tell of an error."""
    match error:
        case NoduleDiagError():
            return Fault(error.exit_code, error.code, *error.whole)
        case signals.Terminated():
            return Fault(error.exit_code, "terminated", str(error))
        case KeyboardInterrupt() | typer.Abort():
            return Fault(EXIT_INTERRUPTED, "interrupted", "interrupted")
        case MemoryError():
            hint = "close other programs, or use a machine with more memory"
            return Fault(EXIT_UNFORESEEN, "out-of-memory", "not enough memory", hint)
        case _ if isinstance(error, _PARSE_ERROR):
            context = getattr(error, "ctx", None)
            message = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")  # pydantic's
            path = context.command_path if context else app.info.name
            return Fault(EXIT_USAGE, "usage", message, f"see: {path} --help")
    hint = f"this is a bug; run again with {DEBUG_VARIABLE}=1 for the traceback, and report it"
    return Fault(EXIT_UNFORESEEN, "unforeseen", f"{type(error).__name__}: {error}", hint)


def _report(fault: Fault, *, as_json: bool) -> None:
    """Tell of a failure in the form that was asked for."""
    if as_json:
        error = {"code": fault.code, "message": fault.message, "hint": fault.hint}
        terminal.write(document_text({"error": error}))
    else:
        terminal.complain(f"error: {fault.message}", *([f"hint: {fault.hint}"] if fault.hint else []))


def run(arguments: Sequence[str]) -> int:
    """Run ``nodule-diag`` with arguments and return its exit code; reports every failure itself."""
    words = list(arguments)
    options = words[: words.index("--")] if "--" in words else words
    try:
        code = _run(words or ["--help"])
        sys.stdout.flush()
    except BrokenPipeError:
        return EXIT_UNFORESEEN  # the reader has gone, as in `| head`, and wants to hear no more
    except (Exception, KeyboardInterrupt, signals.Terminated) as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare group of commands, as `nodule-diag train`
            sys.stderr.write(f"{error}\n")
            return EXIT_USAGE
        # The outermost boundary: nobody meets a traceback unasked.
        cause = signals.cause_of(error)
        fault = _fault(cause)
        if os.environ.get(DEBUG_VARIABLE) and (isinstance(cause, NoduleDiagError) or fault.code == "unforeseen"):
            raise
        lost = isinstance(cause, terminal.StdoutError)
        redaction = _redaction(words) if "--redact" in options else None
        return _told(fault, as_json="--json" in options and not lost, redaction=redaction)
    return code


def _told(fault: Fault, *, as_json: bool, redaction: Redaction | None) -> int:
    """Report a failure and return its exit code, whatever becomes of the report."""
    if redaction is not None:
        fault = fault._replace(message=redaction.text(fault.message), hint=redaction.text(fault.hint))
    fault = fault._replace(message=bounded(fault.message), hint=bounded(fault.hint))
    try:
        _report(fault, as_json=as_json)
    except BrokenPipeError:
        pass
    except terminal.StdoutError as error:
        terminal.complain(f"error: {error}")
    return fault.exit_code


def _redaction(words: list[str]) -> Redaction:
    """What leaves everything out of a message that the command line names: a word may be a folder's name, mistyped."""
    from nodule_diag.results import Redaction

    values = (word.partition("=")[2] if word.startswith("--") else word for word in words[1:])
    return Redaction(*(value for value in values if value and not value.startswith("-")))


def main() -> NoReturn:
    """Console script."""
    if not terminal.take_streams():
        terminal.complain("error: standard output is closed; send it to a file, or to /dev/null")
        sys.exit(EXIT_UNFORESEEN)
    signals.install()
    sys.exit(run(sys.argv[1:]))
