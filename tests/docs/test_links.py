"""Links lead somewhere: file and heading are there. Python examples compile and name what exists."""

import ast
import re

import pytest

import nodule_diag as nd

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages(root):
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/*.md")]
    return [path for path in found if path.name != "CHANGELOG.md"]


def anchor(heading: str) -> str:
    """The id that GitHub and MkDocs give a heading."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading)).strip().lower()
    return plain.replace(" ", "-")


def anchors(path) -> set[str]:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def generated(root) -> set[str]:
    """Pages that are made while the site is built."""
    rooms = {path.parent.name for path in (root / "sdk" / "nodule_diag").glob("*/__init__.pyi")}
    return {f"reference/{name}.md" for name in {*rooms, "nodule_diag", "commands"}}


def test_links_lead_somewhere(repo_root):
    broken = []
    for page in pages(repo_root):
        for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            if target.startswith(("http://", "https://", "mailto:")):
                continue
            name, _, heading = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if file.is_relative_to(repo_root / "docs") and str(file.relative_to(repo_root / "docs")) in generated(
                repo_root
            ):
                continue
            if not file.exists() or not file.is_relative_to(repo_root):
                broken.append(f"{page.relative_to(repo_root)}: {target}")
            elif heading and heading not in anchors(file):
                broken.append(f"{page.relative_to(repo_root)}: {target}: no such heading")
    assert broken == []


def test_pages_link_to_no_path_outside_of_the_site(repo_root):
    """MkDocs knows docs/ only: a link from there to the README would be broken in the site."""
    for page in (repo_root / "docs").glob("**/*.md"):
        for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            if "://" not in target and not target.startswith("#"):
                assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(repo_root / "docs"), (
                    page,
                    target,
                )


def test_every_page_has_a_place_in_the_site(repo_root):
    named = re.findall(r"^ +- (\S+\.md)$", (repo_root / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    written = {page.relative_to(repo_root / "docs").as_posix() for page in (repo_root / "docs").glob("**/*.md")}
    assert sorted(named) == sorted(written | generated(repo_root))


def test_pages_that_the_code_names_are_there(repo_root):
    """In help texts, docstrings and messages; links inside the pages are tested above."""
    missing = set()
    for folder in ("sdk", "cli", "training", "export", "benchmarks", "tests", "docs/make", "examples"):
        for source in (repo_root / folder).rglob("*.py"):
            for name in re.findall(r"docs/[\w/-]+\.(?:md|json)", source.read_text(encoding="utf-8")):
                if not (repo_root / name).exists():
                    missing.add(f"{source.relative_to(repo_root)}: {name}")
    assert sorted(missing) == []


def examples(root):
    for page in pages(root):
        for language, code in FENCED.findall(page.read_text(encoding="utf-8")):
            if language == "python":
                yield pytest.param(code, id=f"{page.name}:{code.strip().splitlines()[0][:40]}")


def pytest_generate_tests(metafunc):
    if "example" in metafunc.fixturenames:
        root = metafunc.config.rootpath
        metafunc.parametrize("example", list(examples(root)))


def test_python_examples_compile_and_name_what_exists(example):
    tree = ast.parse(example)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nd":
            assert hasattr(nd, node.attr), f"nd.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nodule_diag"):
            module = __import__(node.module, fromlist=["_"])
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"
