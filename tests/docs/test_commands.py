"""Every ``nodule-diag`` line that the pages show parses: its command, options and choices exist."""

import re
import shlex
from enum import Enum
from typing import NamedTuple

import pytest
import typer

from nodule_diag_cli.extras import PASSED_THROUGH, _load
from nodule_diag_cli.main import app
from nodule_diag_cli.points import join_xyz

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(nodule-diag [^`]+)`")
SHELL = {"", "sh", "bash", "console"}
PROGRAM = "nodule-diag"
PLACEHOLDERS = {"...", "COMMAND", "PART"}


class Shown(NamedTuple):
    """A command line of a page; ``whole`` where it stands in a block, as something to be typed."""

    page: str
    words: list[str]
    whole: bool


def shown_lines(text: str) -> list[tuple[str, bool]]:
    """The command lines of a page, comments cut off and continued lines joined."""
    lines = []
    for language, block in FENCED.findall(text):
        if language in SHELL:
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                # `torchrun ... -m nodule_diag_cli train` and `.venv/bin/nodule-diag` are the same program.
                found = re.match(r"(?:\$ )?(?:\S*/)?nodule-diag(?: |$)", line) or re.search(
                    r"-m nodule_diag_cli ", line
                )
                if found:
                    lines.append((f"{PROGRAM} {line[found.end() :]}", True))
    prose = FENCED.sub("", text).replace("\n", " ")
    return lines + [(line, False) for line in INLINE.findall(prose)]


def shown(root) -> list[Shown]:
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("docs/*.md")), *root.glob("examples/*.md")]
    found = []
    for page in pages:
        for line, whole in shown_lines(page.read_text(encoding="utf-8")):
            words = [word for word in shlex.split(line, comments=True) if word not in PLACEHOLDERS]
            found.append(Shown(page.name, words, whole and "..." not in line))
    return found


def choices(parameter) -> set[str]:
    """The values that an option takes, where they are fixed: an enumeration, which Typer keeps as the annotation."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    is_enumeration = isinstance(annotation, type) and issubclass(annotation, Enum)
    return {str(member.value) for member in annotation} if is_enumeration else set()


def parse(words: list[str], *, whole: bool) -> None:
    """Walk from the program to the command, then let its own parser take the rest.

    Raises:
        Exception: For an unknown command, option or choice, and in a whole line for a missing argument.
    """
    name, *rest = words
    path, command = name, typer.main.get_command(app)
    if rest and rest[0] in PASSED_THROUGH:
        command = typer.main.get_command(_load(rest[0]))
        path, rest = f"{path} {rest[0]}", rest[1:]
    while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        below = command.get_command(command.context_class(command), rest[0])
        assert below is not None, f"{path} has no command {rest[0]!r}"
        command, path, rest = below, f"{path} {rest[0]}", rest[1:]
    if not rest and not whole:
        return
    if any(parameter.name == "xyz" for parameter in command.params):
        rest = join_xyz(rest)
    context = command.context_class(command, info_name=path)
    values, left, _ = command.make_parser(context).parse_args(rest)
    assert left == [] or not whole, f"{path} takes no {left}"
    for parameter in command.params:
        value = values.get(parameter.name)
        allowed = choices(parameter)
        if allowed and isinstance(value, str):
            assert value in allowed, f"{path}: {value!r} is none of {sorted(allowed)}"
        if whole and parameter.required:
            assert value not in (None, ()), f"{path} needs {parameter.name}"


def test_the_pages_show_commands(repo_root):
    assert len(shown(repo_root)) > 30


def pytest_generate_tests(metafunc):
    if "line" in metafunc.fixturenames:
        found = shown(metafunc.config.rootpath)
        metafunc.parametrize("line", found, ids=[f"{line.page}: {' '.join(line.words)[:60]}" for line in found])


def test_the_command_line_takes_it(line):
    if len(line.words) > 1 and line.words[1] in {"train", "export", "bench"}:
        pytest.importorskip("torch")
    parse(line.words, whole=line.whole)


@pytest.mark.parametrize(
    "wrong",
    [
        "nodule-diag predikt scan.nii",
        "nodule-diag predict scan.nii --xyz 1 2 3 --bundel b",
        "nodule-diag predict scan.nii --xyz 1 2 3 --space rsa",
        "nodule-diag predict scan.nii other.nii --xyz 1 2 3",
        "nodule-diag info --xyz 1 2 3",
    ],
)
def test_this_test_can_fail(wrong):
    with pytest.raises(Exception, match=r"predikt|bundel|rsa|other|--xyz"):
        parse(shlex.split(wrong), whole=True)


def test_lines_are_found_as_people_write_them():
    page = (
        "```\n.venv/bin/nodule-diag info  # about\nnodule-diag predict a \\\n  --json\n```\nSee `nodule-diag\ndoctor`."
    )
    assert [line for line, _ in shown_lines(page)] == [
        "nodule-diag info  # about",
        "nodule-diag predict a  --json",
        "nodule-diag doctor",
    ]
