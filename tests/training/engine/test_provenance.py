"""What a run says of its code: a digest that changes when what is learned could, and at nothing else."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

from nodule_diag_training.engine.provenance import LEARNING_CODE, Origin, code_digest, digest_of, labels_digest

SOURCE = '''"""What it is for."""

RATE = 0.5
"""Why."""


def step(x: float) -> float:
    """Take one."""
    return x - RATE * x  # downhill
'''


def digest(folder, text: str) -> str:
    (folder / "code.py").write_text(text)
    return digest_of({"code": folder})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it is for.", "Other."),
        ("Why.", "Because."),
        ("Take one.", "Take it."),
        ("  # downhill", ""),
        ("\n\n\n", "\n"),
    ],
)
def test_words_and_layout_do_not_count(old, new, tmp_path):
    assert SOURCE.count(old) == 1
    assert digest(tmp_path, SOURCE.replace(old, new)) == digest(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.25"),
        ("x - RATE", "x + RATE"),
        ("return x", "return 1"),
        ("step", "leap"),
        ("RATE = 0.5", "RATE = '0.5'"),
    ],
)
def test_code_does(old, new, tmp_path):
    assert old in SOURCE
    assert digest(tmp_path, SOURCE.replace(old, new)) != digest(tmp_path, SOURCE)


def test_files_count_by_name_wherever_they_lie(tmp_path):
    places = []
    for name in ("one", "two"):
        place = tmp_path / name / "losses"
        place.mkdir(parents=True)
        (place / "a.py").write_text(SOURCE)
        (place / "notes.md").write_text(name)
        places.append(place)
    first = digest_of({"losses": places[0]})
    assert digest_of({"losses": places[1]}) == first
    (places[1] / "a.py").rename(places[1] / "b.py")
    assert digest_of({"losses": places[1]}) != first


def test_every_place_of_the_digest_is_there():
    """One that was moved would drop out unseen."""
    for package, places in LEARNING_CODE.items():
        for place in places:
            code = resources.files(package) / place
            assert code.is_file() or any(code.iterdir())
    assert len(code_digest()) == hashlib.sha256().digest_size * 2


def test_a_run_says_its_code_and_its_nodules(tiny_nodules, tiny_voxels):
    origin = Origin.of(tiny_nodules, tiny_voxels)
    assert (origin.code, origin.labels_sha256) == (code_digest(), labels_digest(tiny_nodules))
    assert labels_digest(tiny_nodules[::-1]) == labels_digest(tiny_nodules)
    assert labels_digest(tiny_nodules[1:]) != labels_digest(tiny_nodules)
