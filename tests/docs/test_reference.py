"""The API reference shows every door of every room, and every command with its options."""

import re

import pytest

import nodule_diag as nd
from nodule_diag_cli.main import app


@pytest.fixture(scope="module")
def pages(script):
    return script("reference").reference_pages()


def shown(page: str) -> list[str]:
    return re.findall(r"^::: (\S+)$", page, re.MULTILINE)


def test_every_public_name_is_shown_once(pages):
    names = [path.rpartition(".")[2] for path in shown(pages["reference/nodule_diag.md"])]
    assert sorted([*names, "__version__"]) == list(nd.__all__)


def test_every_door_of_a_room_is_shown_once(pages, repo_root):
    everything = [path for page in pages.values() for path in shown(page)]
    assert len(everything) == len(set(everything))
    for stub in (repo_root / "sdk" / "nodule_diag").glob("*/__init__.pyi"):
        room = f"nodule_diag.{stub.parent.name}"
        doors = re.findall(r"^from \.(\S+) import (\w+) as \2$", stub.read_text(encoding="utf-8"), re.MULTILINE)
        assert doors
        for module, name in doors:
            page = pages[f"reference/{stub.parent.name}.md"]
            assert f"{room}.{module}.{name}" in everything
            assert f"{room}.{module}.{name}" in page, "a door that is told elsewhere is linked to"


def test_every_door_is_found_by_the_reader_of_docstrings(pages, repo_root):
    """``make docs`` would fail on one that is not: a name that is bound together with others, say."""
    griffe = pytest.importorskip("griffe")
    package = griffe.load("nodule_diag", search_paths=[str(repo_root / "sdk")])
    for page in pages.values():
        for path in shown(page):
            assert package[path.removeprefix("nodule_diag.")] is not None


def test_commands_are_shown_with_their_options(script):
    import typer

    page = script("reference").commands_page()
    for name in typer.main.get_command(app).commands:
        assert f"nodule-diag {name}" in page
    assert re.search(r"<code>--space (lps|.*lps.*)</code>", page)
    assert not re.search(r"<code>[^<]*\|", page), "a bar would end the cell"


DOCSTRING = """Reads a :class:`~nodule_diag.CTVolume`.

.. code-block:: python

    a = 1
    if a:
        b()

Then :meth:`x`."""

MARKDOWN = """Reads a `nodule_diag.CTVolume`.

```python
a = 1
if a:
    b()
```

Then `x`."""


def test_docstrings_become_markdown(script):
    pytest.importorskip("griffe")
    assert script("docstrings").as_markdown(DOCSTRING) == MARKDOWN
