"""docs/architecture.md: the drawing is of today's imports, and every file and function that it names is there."""

import ast
import re

import pytest


@pytest.fixture(scope="module")
def house(script):
    """The script that draws the house."""
    return script("house")


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "architecture.md").read_text(encoding="utf-8")


def defined(source: str) -> set[str]:
    """Functions and classes of a file, and methods as ``Class.method``."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def test_the_drawing_is_of_todays_imports(house):
    assert house.drawing() == house.DRAWING.read_text(encoding="utf-8"), "run: make pages"


def test_every_room_of_the_sdk_is_drawn(house, repo_root):
    drawn = house.DRAWING.read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (repo_root / "sdk" / "nodule_diag").glob("*/__init__.pyi")}
    assert rooms and all(f">{room}</text>" in drawn for room in rooms)


def test_a_room_stands_above_all_that_it_uses(house):
    roof, hall, cellar = (
        house.Room("roof", "", ("hall", "cellar")),
        house.Room("hall", "", ("cellar",)),
        house.Room("cellar", "", ()),
    )
    assert house.floors([cellar, roof, hall]) == [[roof], [hall], [cellar]]
    with pytest.raises(ValueError, match=r"hall -> cellar -> hall|cellar -> hall -> cellar"):
        house.floors([house.Room("hall", "", ("cellar",)), house.Room("cellar", "", ("hall",))])


def test_the_way_of_a_predict_has_at_most_eight_stops_and_each_is_there(page, repo_root):
    stops = re.findall(r"^\| (\d+) \| `([^`]+)` \| ([^|]+) \|", page, re.MULTILINE)
    assert [int(number) for number, _, _ in stops] == list(range(1, len(stops) + 1))
    assert 5 <= len(stops) <= 8
    for _, file, functions in stops:
        names = set(re.findall(r"`([^`]+)`", functions))
        assert names and names <= defined((repo_root / file).read_text(encoding="utf-8")), file


def test_the_stops_are_on_the_way(page, repo_root):
    """The diagnoser calls them, but for the first and last, which the caller does."""
    stops = re.findall(r"^\| \d+ \| `[^`]+` \| ([^|]+) \|", page, re.MULTILINE)
    called = (repo_root / "sdk" / "nodule_diag" / "diagnoser.py").read_text(encoding="utf-8")
    for functions in stops[2:-1]:
        for name in re.findall(r"`([^`]+)`", functions):
            assert f"{name.rpartition('.')[2]}(" in called, name


def test_where_do_i_put_names_files_that_are_there(page, repo_root):
    part = page.split("## Where do I put")[1]
    answers = [answer for answer in part.split("\n\n") if answer.startswith("**")]
    assert len(answers) == 6
    for answer in answers:
        paths = re.findall(r"`((?:sdk|cli|training|export|tests)/[^`]+)`", answer)
        assert paths, answer
        for path in paths:
            assert (repo_root / path).exists(), path
        folders = {(repo_root / path).parent if path.endswith((".py", ".json")) else repo_root / path for path in paths}
        for name in re.findall(r"`(\w+\.py)`", answer):
            assert any((folder / name).is_file() for folder in folders), name
