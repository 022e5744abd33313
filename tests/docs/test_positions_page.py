"""docs/positions.md: every file that it shows is read to the same position."""

import re

import pytest

import ct_files as make
from nodule_diag.ct.volume import CTVolume
from nodule_diag.exchange import read_positions

SHOWN = re.compile(r"`([\w.-]+\.\w+)`[^`]*?:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "positions.md").read_text(encoding="utf-8")


def pytest_generate_tests(metafunc):
    if "shown" in metafunc.fixturenames:
        text = (metafunc.config.rootpath / "docs" / "positions.md").read_text(encoding="utf-8")
        metafunc.parametrize("shown", SHOWN.findall(text), ids=lambda shown: shown[0])


def test_it_shows_every_text_format(page):
    assert [name for name, _ in SHOWN.findall(page)] == [
        *("found.csv", "annotations.csv", "found.json", "found.jsonl", "nodule-locations.json"),
        *("F.mrk.json", "F.fcsv"),
    ]


def test_what_it_shows_is_read(shown, tmp_path):
    name, text = shown
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    ct = CTVolume.from_array(
        make.chest_hu(), spacing_zyx_mm=(1, 1, 1), origin_xyz_mm=(0, 0, 0), path="luna/1.3.6.1.mhd"
    )
    (found,) = read_positions(path, ct=ct)
    assert found.xyz_lps_mm == (-56.94, 131.27, -520.6)
