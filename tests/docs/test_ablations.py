"""docs/ablations.md is what docs/make/ablations.py makes of the committed reports."""

import pytest

from nodule_diag_training.recipe.departures import DEPARTURES


@pytest.mark.slow
def test_the_page_is_made_of_the_committed_reports(script):
    ablations = script("ablations")
    assert ablations.PAGE.read_text(encoding="utf-8") == ablations.page(ablations.read()), "run docs/make/ablations.py"


def test_every_departure_was_switched_off(script):
    whole, *_others = script("ablations").read()
    assert list(whole["judged"]) == list(DEPARTURES)
    ids = {name: [row["case_id"] for row in rows] for name, rows in whole["judged"].items()}
    assert all(found == ids["recipe"] for found in ids.values()), "the same nodules"
