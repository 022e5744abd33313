"""``--xyz`` and ``--nodules``: what is read, and how what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodule_diag.errors import UsageError
from nodule_diag_cli.points import gather, join_xyz, parse_xyz, read_nodules


def test_three_words_become_one() -> None:
    words = ["scan.nii", "--xyz", "-56.94", "131.27", "-520.6", "--json", "--xyz", "1", "-2e1", ".5"]
    assert join_xyz(words) == ["scan.nii", "--xyz=-56.94,131.27,-520.6", "--json", "--xyz=1,-2e1,.5"]


def test_after_the_separator_nothing_is_joined() -> None:
    words = ["--json", "--", "--xyz", "1", "2", "3"]
    assert join_xyz(words) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--xyz", "got: nothing"),
        ("--xyz 1 2", "got: 1 2"),
        ("--xyz 1 2 --json", "got: 1 2 --json"),
        ("--xyz 1 2 3 4", "got: 1 2 3 4"),
        ("--xyz 1,2,3 --json --out", "got: 1,2,3 --json --out"),
        ("--xyz 1 two 3", "got: 1 two 3"),
    ],
)
def test_not_three_numbers(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--xyz takes three numbers, {message}$"):
        join_xyz(words.split())


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1,2,three", "1_0,2,3", ""])
def test_one_word_that_is_not_three_numbers(text: str) -> None:
    assert parse_xyz("-1.5,2e1, .5") == (-1.5, 20.0, 0.5)
    with pytest.raises(UsageError, match="--xyz takes three numbers"):
        parse_xyz(text)


LISTS = {
    "plain.csv": "x,y,z\n-1.5,2,3\n4,5,6e1\n",
    "bom and windows lines.csv": "\ufeffx,y,z\r\n-1.5,2,3\r\n4,5,60\r\n",
    "blank lines.csv": "\nx,y,z\n\n-1.5,2,3\n,,\n4,5,60\n\n",
    "semicolons.csv": "x;y;z\n-1.5;2;3\n4;5;60\n",
    "tabs.csv": "x\ty\tz\n-1.5\t2\t3\n4\t5\t60\n",
    "other columns, other order.csv": "note,Z, Y ,X\nhello,3,2,-1.5\n,60,5,4\n",
    "quoted.csv": '"x","y","z"\n"-1.5"," 2 ","3"\n4,5,60\n',
    "list.json": '[{"x": -1.5, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 60}]',
    "bom.json": '\ufeff[{"x": -1.5, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 60}]',
    "nodules.json": '{"nodules": [{"x": -1.5, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 60}]}',
    "json without its name.txt": '  [{"x": -1.5, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 60}]',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LISTS[name].encode())
    assert read_nodules(path) == [(None, (-1.5, 2.0, 3.0)), (None, (4.0, 5.0, 60.0))]


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,x,y,z\nlung/left,1,2,3\n,4,5,6\n 7 ,7,8,9\n")
    assert [name for name, _ in read_nodules(path)] == ["lung/left", None, "7"]
    path.write_text('[{"id": 12, "x": 1, "y": 2, "z": 3}, {"id": null, "x": 1, "y": 2, "z": 3}]')
    assert [name for name, _ in read_nodules(path)] == ["12", None]


BAD_LISTS = {
    "empty.csv": ("", ["no nodule"]),
    "head only.csv": ("x,y,z\n", ["no nodule"]),
    "no z.csv": ("x,y\n1,2\n", ["no column z"]),
    "twice.csv": ("x,y,z,X\n1,2,3,4\n", ["stands twice"]),
    "all at once.csv": (
        "id,x,y,z\na,1,2,3\nb,one,2,3\n\nc,1,2\nd,1,nan,inf\ne,1,,3\n",
        [
            "line 3: x = 'one'",
            "line 5: 3 cells instead of 4",
            "line 6: y = 'nan'",
            "line 6: z = 'inf'",
            "line 7: y = ''",
        ],
    ),
    "decimal commas.csv": ("x;y;z\n1,5;2;3\n", ["line 2: x = '1,5'"]),
    "open quote.csv": ('x,y,z\n"1,2,3\n', ["line 2"]),
    "not text.csv": (b"x,y,z\n\xff\xfe,1,2\n", ["not UTF-8"]),
    "broken.json": ('[{"x": 1,', ["not JSON"]),
    "no list.json": ('{"x": 1, "y": 2, "z": 3}', ["not a JSON list"]),
    "deep.json": ("[" * 100_000, ["not JSON"]),
    "entries.json": (
        '[{"x": 1, "y": 2}, {"x": true, "y": 2, "z": 3}, [1, 2, 3], {"x": 1, "y": 2, "z": 3, "id": {}}]',
        ["entry 1: z is missing", "entry 2: x = 'True'", "entry 3: the entry", "entry 4: id"],
    ),
    "not finite.json": ('[{"x": NaN, "y": 2, "z": -Infinity}]', ["entry 1: x", "entry 1: z"]),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_tell_all_faults(tmp_path: Path, name: str) -> None:
    text, messages = BAD_LISTS[name]
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        read_nodules(path)
    for message in messages:
        assert message in str(caught.value)
    assert name in str(caught.value)
    assert "x,y,z" in caught.value.hint


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "many.json"
    path.write_text(json.dumps([{"x": "?", "y": 0, "z": 0}] * 50))
    with pytest.raises(UsageError, match="and 30 more"):
        read_nodules(path)


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_nodules(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot read"):
        read_nodules(tmp_path)


def test_ids_count_through_and_must_differ(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,x,y,z\nleft,1,2,3\n,4,5,6\n")
    assert [point.id for point in gather(["1,2,3"], path)] == ["1", "left", "3"]
    path.write_text("id,x,y,z\n1,1,2,3\n")
    with pytest.raises(UsageError, match="id 1 stands more than once"):
        gather(["1,2,3"], path)
    with pytest.raises(UsageError, match="no nodule"):
        gather([], None)
