"""The entry point: one place where every failure becomes an exit code and two lines, or one JSON document."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import typer

from nodule_diag.errors import NoduleDiagError
from nodule_diag_cli.cases import cases_app
from nodule_diag_cli.demo import demo
from nodule_diag_cli.doctor import doctor
from nodule_diag_cli.extras import add_extras
from nodule_diag_cli.grand_challenge import grand_challenge
from nodule_diag_cli.info import info
from nodule_diag_cli.out import document_text
from nodule_diag_cli.points import XyzCommand
from nodule_diag_cli.predict import predict
from nodule_diag_cli.version import version_option

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
app.command()(grand_challenge)
app.add_typer(cases_app, name="cases")
add_extras(app)


def _fail(as_json: bool, *, exit_code: int, code: str, message: str, hint: str) -> int:
    """Report a failure in the form that was asked for."""
    if as_json:
        sys.stdout.write(document_text({"error": {"code": code, "message": message, "hint": hint}}))
    else:
        lines = [f"error: {' '.join(message.split())}"]
        if hint:
            lines.append(f"hint: {' '.join(hint.split())}")
        sys.stderr.write("\n".join(lines) + "\n")
    return exit_code


def _run(arguments: list[str]) -> int:
    """Run one command, letting its failures through."""
    ended = typer.main.get_command(app).main(args=arguments, prog_name="nodule-diag", standalone_mode=False)
    return ended if isinstance(ended, int) else 0


def _report_parse_error(as_json: bool, error: Exception) -> int:
    """Report what Typer itself refused; a bare group of commands (``nodule-diag train``) shows its help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(str(error) + "\n")
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "nodule-diag"
    message = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")  # pydantic's, in Typer
    return _fail(as_json, exit_code=EXIT_USAGE, code="usage", message=message, hint=f"see: {path} --help")


def run(arguments: Sequence[str]) -> int:
    """Run ``nodule-diag`` with arguments and return its exit code; reports every failure itself."""
    before_separator = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    as_json = "--json" in before_separator
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    try:
        code = _run(list(arguments) or ["--help"])
        sys.stdout.flush()
    except NoduleDiagError as error:
        if debug:
            raise
        return _fail(as_json, exit_code=error.exit_code, code=error.code, message=str(error), hint=error.hint)
    except _PARSE_ERROR as error:
        return _report_parse_error(as_json, error)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(as_json, exit_code=EXIT_INTERRUPTED, code="interrupted", message="interrupted", hint="")
    except BrokenPipeError:
        # The reader has gone, as in `| head`. Python would flush to it once more at exit and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNFORESEEN
    except MemoryError:
        return _fail(
            as_json,
            exit_code=EXIT_UNFORESEEN,
            code="out-of-memory",
            message="not enough memory",
            hint="close other programs, or use a machine with more memory",
        )
    except Exception as error:  # the outermost boundary: nobody meets a traceback unasked
        if debug:
            raise
        return _fail(
            as_json,
            exit_code=EXIT_UNFORESEEN,
            code="unforeseen",
            message=f"{type(error).__name__}: {error}",
            hint=f"this is a bug; run again with {DEBUG_VARIABLE}=1 for the traceback, and report it",
        )
    return code


def main() -> NoReturn:
    """Console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file name or an id may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
