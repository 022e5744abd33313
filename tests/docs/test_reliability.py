"""docs/reliability.md is what docs/make/reliability.py makes of the committed results, and says all that they say."""

import pytest


@pytest.fixture(scope="module")
def reliability(script):
    return script("reliability")


@pytest.fixture
def fuzz(reliability):
    kinds = (*reliability.CLASSES, "unread")
    rows = [
        {"format": "NRRD, gzip", "tried": 1200, **dict.fromkeys(kinds, 0), "refused": 1199, "crashed": 1},
        {"format": "Case base", "tried": 20, **dict.fromkeys(kinds, 0), "right": 20},
    ]
    environment = {"date": "2024-05-01T12:00:00+00:00", "commit": "abc123def456", "cpu": "Imaginary 9000", "cores": 2}
    environment |= {"memory_gib": 15.6, "platform": "Linux 6", "python": "3.12.1", "versions": {"numpy": "2.3.0"}}
    return {
        **{"mutants": 1220, "seconds": 1800.0, "per_second": 120.0, "jobs": 2, "seed": 7, "formats": rows},
        "environment": environment,
    }


@pytest.fixture
def soak(fuzz):
    columns = [{"key": "network", "label": "network"}, {"key": "predictions", "label": "predictions"}]
    check = {"name": "tiny: open files, rise", "value": 3.0, "rule": "at most", "limit": 0.0, "unit": ""}
    return {
        **{
            "environment": fuzz["environment"] | {"threads": 2},
            "wall_s": 600.0,
            "subject": "ct.nii",
            "checks": [check],
        },
        "tables": [{"columns": columns, "rows": [["tiny", 10000]]}],
    }


def test_the_page_is_made_of_the_committed_results(reliability):
    assert reliability.PAGE.read_text(encoding="utf-8") == reliability.made(), "run docs/make/reliability.py"


def test_the_counts_stand_in_the_page(reliability, fuzz, soak):
    text = reliability.page(fuzz, soak)
    assert "**1,220 damaged files, 1 faults**" in text
    assert "| NRRD, gzip | 1,200 | 1,199 | 0 | 0 | 0 | 1 |" in text
    assert "| **all** | 1,220 | 1,199 | 20 | 0 | 0 | 1 |" in text
    assert "abc123def456" in text
    assert "Imaginary 9000" in text
    assert "Missed: tiny: open files, rise" in text
    assert "| predictions | 10,000 |" in text
    soak["checks"][0]["value"] = 0.0
    assert "Every bound held" in reliability.page(fuzz, soak)


def test_classes_are_those_of_the_fuzzer(reliability):
    campaign = pytest.importorskip("fuzz.campaign")
    assert set(reliability.CLASSES) | {"unread"} == set(campaign.KINDS)
    assert reliability.BAD == campaign.BAD
