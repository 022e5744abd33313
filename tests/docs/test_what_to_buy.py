"""docs/what-to-buy.md is what docs/make/what_to_buy.py makes of the committed results."""

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="the extra bench is not installed")

from benchmarks.part_batch import Batch, _checks, _table, steady_rate, ways


@pytest.fixture(scope="module")
def what_to_buy(script):
    return script("what_to_buy")


@pytest.fixture
def measured(what_to_buy):
    """A committed part with made-up numbers."""
    part = what_to_buy.read_part(sorted(what_to_buy.RESULTS.glob("batch*.json"))[0])
    rates = {1: 4000.0, 2: 7600.0}
    found = {
        way: [Batch(rates[way.workers] / way.nodules, 3.0, 0.9, 700.0)] * 3 for way in ways(2) if way.engine == "local"
    }
    return replace(part, tables=(_table(found, 32),), checks=tuple(_checks(found)))


def test_the_page_is_made_of_the_committed_results(what_to_buy):
    assert what_to_buy.PAGE.read_text(encoding="utf-8") == what_to_buy.made(), "run docs/make/what_to_buy.py"


def test_figures_stand_in_the_page(what_to_buy, measured):
    text = what_to_buy.page([measured])
    assert "| local | 1 | 1 x 1 | 1 | 4,000 | 4,000 | 5 hours | 0.684 GiB |" in text
    assert "| local | 2 | 2 x 1 | 4 | 1,900 | 7,600 | 10.5 hours | 0.684 GiB |" in text
    assert "two cores, times one: 1.9, which holds the bound of at least 1.7" in text
    assert "a CT takes 0 s of a core, and each of its nodules 0.947 s more" in text
    assert "| any GPU | | | | | **not measured**" in text


def test_ways_cover_the_cores():
    assert [(way.cores, way.workers, way.threads) for way in ways(6) if way.engine == "local" and way.nodules == 1] == [
        (1, 1, 1), (2, 2, 1), (4, 4, 1), (6, 6, 1), (6, 1, 1), (6, 1, 6)
    ]  # fmt: skip
    assert [way.cores for way in ways(1) if way.engine == "local"] == [1, 1]


def test_a_rate_is_that_of_workers_that_all_work():
    seconds = [10, 11, 13, 14, 15, 16, 17]
    assert steady_rate([number * 10**9 for number in seconds], 2) == 3600.0
