"""The model card and the results that it is made from."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from nodule_diag_export.bundle.card_tables import section_table
from nodule_diag_export.bundle.model_card import CardFacts, CaseCounts, render
from nodule_diag_export.bundle.network import Identity
from nodule_diag_export.bundle.results import Section, _without_nan, read_results
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity.onnx import Parity

PROVENANCE = {
    "data": {
        "nodules": 12,
        "patients": 5,
        "cubes": 3,
        "sure": 4,
        "fold": 1,
        "folds": 3,
        "held_out_patients": ["P8", "P9"],
        "seen": list(range(30)),
        "started_from": {
            "config": {
                "seed": 6,
                "an_older_setting": 2,
                "stages": [{"size": 40, "steps": 30}, {"size": 64, "steps": 9}],
            },
            "steps_done": 35,
            "then": "the last layer was set to 0",
        },
    },
    "config": {"system": "J", "seed": 7, "scores_teach_cnet": True},
    "checkpoint_sha256": "f" * 64,
}


def facts(results_json: Path, provenance: dict[str, object]) -> CardFacts:
    return CardFacts(
        identity=Identity(name="random", version="1.2.3"),
        created="2024-01-01T00:00:00+00:00",
        results=read_results(results_json),
        counts=CaseCounts(cases=142, malignant=113, patients=74, certain=45, certain_malignant=29),
        from_cubes=18,
        k=20,
        parity=Parity(difference={"cam": 4e-6}, largest_cell=3e-5, mean_cam=1e-7, random_patches=6, nodule_patches=8),
        provenance=provenance,
        model_sha256="a" * 64,
        command="nodule-diag export bundle model.safetensors",
    )


@pytest.fixture
def card(results_json) -> str:
    return render(facts(results_json, PROVENANCE))


def test_figures_stand_with_intervals_targets_notes_and_yardsticks(card):
    assert "| SegNet Dice | 0.610 | 0.550 to 0.660 | 99 | >= 0.65 |  |" in card
    assert "| CNet AUC | not defined |  | 3 |  | few \\| labels |" in card
    assert "| diameter AUC | 0.957 |  | 255 |" in card
    assert card.index("SegNet Dice") < card.index("### Yardsticks") < card.index("diameter AUC")


def test_the_commands_and_the_parity_stand_in_it(card):
    assert "```\nnodule-diag train evaluate --folds 3\n```" in card
    assert "```\nnodule-diag export bundle model.safetensors\n```" in card
    assert "in 21 minutes" in card
    assert "cam 4.0e-06" in card
    assert "No cell of a map differs by more than 3.0e-05" in card
    assert "8 of real nodules" in card


def test_it_says_when_the_judged_models_were_trained_otherwise(card):
    assert "seed 8 (here 7)" in card
    assert "system J (here" not in card


def test_steps_of_the_judged_models_stand_in_words(results_json):
    own = facts(results_json, {**PROVENANCE, "config": {"stages": [{"size": 64, "steps": 9}]}})
    judged = own.results.model_copy(update={"config": {"stages": [{"size": 64, "steps": 5}]}})
    assert "other settings than this model: stages 5 of 64-cubes (here 9 of 64-cubes)." in render(
        replace(own, results=judged)
    )


def test_it_says_what_the_weights_went_through(card):
    steps = "30 of 40-cubes + 9 of 64-cubes, 35 of 39 done; then the last layer was set to 0"
    changed = "an_older_setting 2, scores_teach_cnet False, seed 6"
    assert f"| 1 | not recorded | not recorded | {steps} | {changed} |" in card
    told = "12 volumes of 5 patients, 3 with their own surroundings, 4 diagnosed"
    assert f"| 2 | {told} | 2 patients (fold 1 of 3, from 0) |" in card
    assert "| seen | 30 entries |" in card
    assert "| seed | 7 |" in card
    assert "tightly cropped boxes" in card
    assert "P is partly the readers' opinion" in card


CLINIC = {"name": "clinic", "kind": "sure", "nodules": 7}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"stores": [CLINIC]}, False),
        ({"stores": [CLINIC, {"name": "public", "kind": "lidc", "nodules": 9}]}, True),
        ({"stores": [CLINIC, {"name": "public", "kind": "shared", "nodules": 9}]}, True),
        ({"stores": [CLINIC], "started_from": {}}, True),
        ({"stores": [CLINIC], "started_from": {"stores": [CLINIC]}}, False),
    ],
)
def test_lidc_is_named_where_any_run_learned_from_it_and_only_there(results_json, data, named):
    card = render(facts(results_json, {**PROVENANCE, "data": {"nodules": 7, "cubes": 7, **data}}))
    assert "- clinic: 7 diagnosed nodules of CTs that its maker listed" in card
    assert ("10.1118/1.3528204" in card) is named
    assert ("knows the collections of its CTs" in card) is not named


def test_it_says_that_only_some_folds_were_judged(card):
    assert "2 of the 5 folds of the patients were judged: 0, 1." in card


def test_it_says_whose_figures_a_model_of_everybody_has(results_json, card):
    everybody = {key: value for key, value in PROVENANCE["data"].items() if key != "fold"}
    said = render(facts(results_json, {**PROVENANCE, "data": everybody}))
    assert "The figures come from 2 models of the same recipe" in " ".join(said.split())
    assert "of the same recipe" not in " ".join(card.split())  # of a fold's model


def test_the_folders_of_the_machine_that_judged_stay_there(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps({"sections": [{"title": "t", "rows": []}], "command": f"evaluate {tmp_path}/fold-0 --x 1"})
    )
    assert read_results(path).command == "evaluate fold-0 --x 1"


@pytest.mark.parametrize(
    "phrase",
    [
        "Not a medical device",
        "not on screening",
        "Not a detector",
        "CC BY 3.0",
        "Armato",
        "10.1118/1.3528204",
        "0.80",
        "45",
    ],
)
def test_what_everybody_must_read_is_in_it(card, phrase):
    assert phrase in card


def test_a_table_has_as_many_cells_in_every_row(card):
    for block in card.split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"command": "x"}', "sections"),
        (json.dumps({"sections": [{"title": "t", "rows": [{"value": 1.0}]}], "command": "x"}), r"rows\.0\.metric"),
        (json.dumps({"sections": [{"title": "t"}], "command": ""}), "command"),
    ],
)
def test_results_that_cannot_be_used_say_why(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ExportError, match=message):
        read_results(path)


def test_results_that_are_not_there_say_so(tmp_path):
    with pytest.raises(ExportError, match="No such file"):
        read_results(tmp_path / "absent.json")


def test_groups_have_a_line_each_and_figures_a_column():
    rows = [
        {"group": "small", "metric": "Dice", "value": 0.5, "low": 0.25, "high": 0.75, "n": 12},
        {"group": "small", "metric": "MAE", "value": 0.3, "low": None, "high": None, "n": 9},
        {"group": "a | b", "metric": "MAE", "value": float("nan"), "n": 2},
    ]
    section = Section.model_validate({"title": "By size", "note": "The rule.", "rows": _without_nan(rows)})
    assert section_table(section).splitlines() == [
        "### By size",
        "",
        "The rule.",
        "",
        "|  | nodules | Dice | MAE |",
        "|---|---|---|---|",
        "| small | 12 | 0.500 [0.250, 0.750] | 0.300, of 9 |",
        "| a \\| b | 2 |  | not defined |",
    ]


def test_results_may_be_compressed(results_json, tmp_path):
    packed = tmp_path / "evaluation.json.xz"
    packed.write_bytes(lzma.compress(results_json.read_bytes()))
    assert read_results(packed) == read_results(results_json)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ExportError, match="not compressed by xz"):
        read_results(packed)
    packed.write_bytes(b"{}")
    with pytest.raises(ExportError, match="not compressed by xz"):
        read_results(packed)


def test_the_command_of_tables_made_again_has_two_lines(tmp_path):
    path = tmp_path / "results.json"
    command = f"evaluate {tmp_path}/fold-0 --out {tmp_path}/a.json\nevaluate --again {tmp_path}/a.json"
    path.write_text(json.dumps({"sections": [{"title": "t", "rows": []}], "command": command}))
    assert read_results(path).command == "evaluate fold-0 --out a.json\nevaluate --again a.json"


def test_patients_that_only_chose_the_weights_are_told(results_json):
    data = {"validation_patients": ["A", "B", "C"], **PROVENANCE["data"]}
    del data["held_out_patients"]
    assert "| 3 patients, to choose the weights |" in render(facts(results_json, {**PROVENANCE, "data": data}))
