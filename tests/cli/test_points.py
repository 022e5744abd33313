"""``--xyz`` and ``--nodules``: what the command line makes of them. What a file may hold is tested with the SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodule_diag.errors import UsageError
from nodule_diag_cli.points import gather, join_xyz, parse_xyz


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


def test_ids_count_through_and_must_differ(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,x,y,z\nleft,1,2,3\n,4,5,6\n")
    assert list(gather(["1,2,3"], path).ids) == ["1", "left", "3"]
    path.write_text("id,x,y,z\n1,1,2,3\n")
    with pytest.raises(UsageError, match="id 1 stands more than once"):
        gather(["1,2,3"], path)
    with pytest.raises(UsageError, match="no nodule"):
        gather([], None)


def test_what_was_passed_over_is_said_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "marks.mrk.json"
    path.write_text(
        '{"markups": [{"type": "Fiducial", "controlPoints": [{"label": "a", "position": [1, 2, 3]},'
        ' {"label": "b", "position": "", "positionStatus": "undefined"}]}]}'
    )
    assert list(gather([], path).ids) == ["a"]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "warning: the list of nodules: a point without a position was passed over: b\n"
