"""``bench soak`` in miniature, and that it sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra bench is not installed")

from benchmarks.part_soak import Soaked, State, soak
from benchmarks.results import read_part
from benchmarks.soak_inputs import made_inputs, tiny_bundle
from nodule_diag.diagnoser import Diagnoser
from nodule_diag_cli.main import run

ROUNDS = 6


@pytest.fixture(scope="module")
def diagnoser(tmp_path_factory: pytest.TempPathFactory) -> Diagnoser:
    return Diagnoser.load(tiny_bundle(tmp_path_factory.mktemp("soak") / "tiny"), threads=1)


def test_the_command(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    assert run(["bench", "soak", "--quick", "--bundle", str(tiny_bundle), "--threads", "1", "--out", str(out)]) == 0
    found = read_part(out)
    (table,) = found.tables
    assert len(table.rows) == 2
    asked, answered, refused = (table.values(key) for key in ("predictions", "answered", "refused"))
    assert all(a == b + c for a, b, c in zip(asked, answered, refused, strict=True))
    assert all(number > 0 for number in [*answered, *refused])
    # Memory of so few predictions is left to the long run: it depends on the allocator.
    assert all(check.holds for check in found.checks if "differed" in check.name or "open files" in check.name)


def test_good_inputs_are_answered_and_bad_ones_refused(diagnoser: Diagnoser, tmp_path: Path) -> None:
    answers = {name: ask(diagnoser) for name, ask in made_inputs(tmp_path / "inputs").items()}
    good = {name for name, answer in answers.items() if answer.startswith(b"{")}
    assert good == {"ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd", "ct.nrrd", "series", "three nodules"}
    assert len({answers[name] for name in good - {"three nodules", "series"}}) == 1, "one CT in five formats"
    assert all(b"ct-" in answer or b"coordinate-" in answer for name, answer in answers.items() if name not in good)


def test_answers_that_change_and_files_left_open_are_seen(diagnoser: Diagnoser, tmp_path: Path) -> None:
    held = []
    calls = iter(range(1000))

    def leaks(_: Diagnoser) -> bytes:
        held.append((tmp_path / "leak").open("wb"))
        return b"{}"

    found = soak(diagnoser, {"leaks": leaks, "changes": lambda _: b"{%d}" % next(calls)}, 2 * 40)
    for file in held:
        file.close()
    assert found.other == 39
    assert found.rise("handles") > 20
    assert found.answered == 80


@pytest.mark.parametrize(("each_mib", "grows"), [(0.01, True), (0.0, False)])
def test_growth_is_a_slope_and_not_a_jump(each_mib: float, grows: bool) -> None:
    rng = np.random.default_rng(0)
    at = tuple(range(1000, 10_000, 100))
    states = tuple(State(300.0 + number * each_mib + rng.uniform(-3, 3), 9, 4, 0) for number in at)
    found = Soaked(10_000, 9000, 0, states, at, 1.0)
    assert (found.slope_mib > 20.0) is grows
    assert (found.growth_mib > 20.0) is grows
    assert found.rise("handles") == found.rise("threads") == found.rise("children") == 0
