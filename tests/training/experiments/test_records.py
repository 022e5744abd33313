"""Records on disk: what is written comes back, the same bytes every time, and anything else is named."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag_training.data.confounder import CueTest
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.experiments.columns import COLUMNS, parse, serialised
from nodule_diag_training.experiments.records import (
    RECORD_FORMAT,
    CamFigures,
    FoldRecord,
    NoduleRecord,
    read_record,
    write_record,
)

figures = st.floats(-1e6, 1e6, width=32)
maybe = st.none() | figures
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
cams = st.builds(
    CamFigures,
    nodule=figures, background=figures, energy=maybe, pointing=figures, iou=figures, deletion=maybe, insertion=maybe,
)  # fmt: skip
tests: tuple[CueTest, ...] = ("as trained", "independent", "reversed")
nodules = st.builds(
    NoduleRecord,
    case_id=names,
    patient_id=names,
    form=st.sampled_from(["voi", "cube"]),
    in_paper_cohort=st.booleans(),
    diameter_mm=figures,
    reader_scores=st.lists(st.integers(1, 5), max_size=9).map(tuple),
    label=st.sampled_from([None, 0, 1]),
    certainty=st.sampled_from([None, "nodule", "patient"]),
    malignancy=maybe,
    expert_score=maybe,
    dice=maybe,
    cam=st.none() | cams,
    cued=st.dictionaries(st.sampled_from(tests), figures),
)
records = st.builds(
    FoldRecord,
    format=st.just(RECORD_FORMAT),
    version=names,
    code=st.none() | names,
    run=names,
    schedule=st.just("short"),
    seed=st.integers(0, 2**31),
    fold=st.integers(0, 9),
    folds=st.integers(2, 10),
    split_seed=st.just(0),
    configs=st.just(({"seed": 1, "scenario": None},)),
    provenance=st.just({"best": {"value": 0.1}}),
    held_out=st.lists(names, max_size=3).map(tuple),
    training_seconds=st.floats(0, 1e6),
    judging_seconds=st.floats(0, 1e6),
    patch_size=st.integers(8, 64),
    nodules=st.lists(nodules, max_size=4).map(tuple),
    cases=st.lists(nodules, max_size=4).map(tuple),
)


def an_example() -> FoldRecord:
    return FoldRecord(
        format=RECORD_FORMAT, version="0.1.0", code="ab", run="table1/J", schedule="short", seed=0, fold=0, folds=5,
        split_seed=0, configs=(), provenance={}, held_out=("p",), training_seconds=1.0, judging_seconds=1.0,
        patch_size=32,
        nodules=(
            NoduleRecord(
                case_id="a", patient_id="p", form="voi", in_paper_cohort=True, diameter_mm=9.7, reader_scores=(4, 5),
                malignancy=0.1,
            ),
            NoduleRecord(
                case_id="b/ß", patient_id="p", form="cube", in_paper_cohort=False, diameter_mm=3.1, reader_scores=(),
                label=0, certainty="nodule",
            ),
        ),
    )  # fmt: skip


@given(records)
def test_every_record_comes_back_as_it_was(record):
    data = serialised(record.model_dump(mode="json"))
    assert FoldRecord.model_validate(parse(data)) == record
    assert serialised(record.model_dump(mode="json")) == data


def test_the_file_is_the_same_at_any_time_and_holds_no_pickle(tmp_path, monkeypatch):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    write_record(first, an_example())
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_record(second, an_example())
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert read_record(first) == an_example()


def test_a_person_opens_it_as_the_page_says(tmp_path):
    """Numpy alone, as docs/experiments.md has it."""
    path = tmp_path / "fold-0.npz"
    write_record(path, an_example())
    run = np.load(path)
    header, nodules = json.loads(run["header"].item()), run["nodules"]
    assert (header["run"], header["fold"], "nodules" in header) == ("table1/J", 0, False)
    assert nodules.dtype.names == tuple(COLUMNS)
    assert nodules["case_id"].tolist() == ["a", "b/ß"]
    assert nodules["reader_scores"].tolist() == ["4 5", ""]
    assert nodules["label"].tolist() == [-1, 0]
    assert nodules["malignancy"][0] == np.float32(0.1)
    assert np.isnan(nodules["malignancy"][1])
    assert np.isnan(nodules["cam_nodule"]).all()
    assert len(run["cases"]) == 0


def test_every_column_is_documented(repo_root):
    page = (repo_root / "docs" / "experiments.md").read_text()
    told = {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `")}
    assert set(COLUMNS) <= told


def test_figures_are_kept_as_float32():
    """So that what was judged and what was read back are one record."""
    assert NoduleRecord.model_validate({**an_example().nodules[0].model_dump(), "malignancy": 0.1}).malignancy == float(
        np.float32(0.1)
    )


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_what_is_no_record_is_named(tmp_path):
    path = tmp_path / "fold-0.npz"
    whole = serialised(an_example().model_dump(mode="json"))
    header = np.array(b"{}")
    empty = np.zeros(0, dtype=[("case_id", "U1")])
    for data in (b"", b"{}", whole[: len(whole) // 2], archive(header=header), archive(header=header, nodules=header)):
        path.write_bytes(data)
        with pytest.raises(TrainingDataError, match=r"fold-0\.npz is not a result of this version: \w.+") as error:
            read_record(path)
        assert "train judge makes it again" in error.value.hint
    path.write_bytes(archive(header=header, nodules=empty, cases=empty))
    with pytest.raises(TrainingDataError, match=r"fold-0\.npz is not a result of this version: format: Field"):
        read_record(path)
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_record(tmp_path / "absent.npz")


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "fold-0.npz"
    path.write_bytes(archive(header=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(TrainingDataError, match="allow_pickle=False"):
        read_record(path)
