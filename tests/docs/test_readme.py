"""The README is short and plain, and shows what the program prints. Versions agree wherever they stand."""

import json
import re
import tomllib

import pytest

MAX_LINES = 130
MAX_MEDIAN_WORDS = 16
PLAIN_PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("index", "using", "glossary", "case-base", "bundles", "install", "architecture")),
    *(
        f"docs/{name}.md"
        for name in ("versions", "throughput", "measuring", "training-runs", "fused-graph", "gpu-check")
    ),
    *(f"docs/{name}.md" for name in ("positions", "grand-challenge")),
]


@pytest.fixture(scope="module")
def plain_words(script):
    """The script that measures sentences."""
    return script("plain_words")


@pytest.fixture(scope="module")
def readme(repo_root):
    return (repo_root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(repo_root):
    return tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_readme_is_short(readme):
    assert len(readme.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", PLAIN_PAGES)
def test_sentences_are_short(page, plain_words, repo_root):
    text = (repo_root / page).read_text(encoding="utf-8")
    assert len(plain_words.sentences(text)) > 3
    assert plain_words.median_words(text) <= MAX_MEDIAN_WORDS


PAGE = """# Head

One two three. Four `code with words`
six (eq. 3, 4). [A link](x.md) ends it.

- item one
- item

| a | b |

```
not read. at all.
```

Is it? Yes.
"""


def test_sentences_are_counted_as_a_reader_would(plain_words):
    first, *others = plain_words.sentences(PAGE)
    assert first == "One two three."
    assert others == ["Four `code with words` six (eq. 3, 4).", "A link ends it.", "item one", "item", "Is it?", "Yes."]
    assert [plain_words.words(sentence) for sentence in [first, *others]] == [3, 6, 4, 2, 1, 2, 1]
    assert plain_words.median_words(PAGE) == 2
    assert plain_words.median_words("# only a head") == 0


def labels(text: str) -> list[str]:
    """What a table says, without its numbers and its layout."""
    return [" ".join(re.sub(r"[\d.]+", "#", line).split()) for line in text.splitlines()]


def test_the_readme_shows_what_predict_prints(readme, script):
    maker = script("readme_output")
    shown = maker.BLOCK.search(readme)[0]
    assert len(shown.splitlines()) > 10
    assert labels(shown) == labels(maker.first_table(maker.printed(readme))), "run: make pages"


def test_the_version_is_the_same_everywhere(project, repo_root, readme):
    version = project["version"]
    assert f"nodule_diag-{version}-py3-none-any.whl" in readme
    assert set(re.findall(r"nodule_diag-([\d.]+)-py3", (repo_root / "docs" / "install.md").read_text())) == {version}
    assert re.search(r"^version: (.+)$", (repo_root / "CITATION.cff").read_text(), re.MULTILINE)[1] == version
    assert re.search(r"^## \[(\d[^]]*)\]", (repo_root / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_every_extra_is_in_the_table_of_the_install_page(project, repo_root):
    page = (repo_root / "docs" / "install.md").read_text(encoding="utf-8")
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    }
    assert set(project["optional-dependencies"]) <= named


def test_pythons_that_are_promised_are_those_that_the_page_on_versions_names(project, repo_root):
    promised = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)}
    page = (repo_root / "docs" / "versions.md").read_text(encoding="utf-8")
    assert promised and all(f"| {python}" in page for python in promised)


def test_citation_has_what_its_format_requires(repo_root):
    """Format 1.2.0 requires these four keys; the whole was checked with cffconvert when it was written."""
    text = (repo_root / "CITATION.cff").read_text(encoding="utf-8")
    assert all(re.search(rf"^{key}: ?", text, re.MULTILINE) for key in ("cff-version", "message", "title", "authors"))
    assert "Faithful learning with sure data for lung nodule diagnosis" in text
    assert "Armato" in text


def test_issue_templates_ask_for_the_doctor(repo_root):
    for template in (repo_root / ".github" / "ISSUE_TEMPLATE").glob("[fw]*.yml"):
        assert "nodule-diag doctor --json" in template.read_text(encoding="utf-8")


def test_the_notebook_is_one(repo_root):
    notebook = json.loads((repo_root / "examples" / "diagnose.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
