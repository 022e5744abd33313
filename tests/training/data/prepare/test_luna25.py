"""LUNA25 in miniature: its table's faults, its CTs and blocks in a store, and metadata that must not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from luna25_files import annotations, hu_of, metadata_of, write_blocks, write_cts, write_table
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import NoduleDiagError
from nodule_diag_training.cli import app
from nodule_diag_training.data.nodule import TrainingDataError, split_by_patient
from nodule_diag_training.data.prepare.luna25_blocks import LARGEST_METADATA, read_block_grid
from nodule_diag_training.data.prepare.luna25_table import Luna25TableError, read_luna25_table
from nodule_diag_training.data.regions import cut_region
from nodule_diag_training.data.store import read_store
from nodule_diag_training.data.training_data import TrainingData

GOOD = "100,1.2.3,19990102,-1.5,2,3.25,1,100_1_19990102,100_1,0,62,Male"


def prepare(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["prepare", "luna25", *map(str, arguments)])
    if isinstance(result.exception, NoduleDiagError):
        raise result.exception
    return result.exit_code, result.output


def test_a_good_table(tmp_path):
    (row,) = read_luna25_table(write_table(tmp_path / "t.csv", [GOOD]))
    assert (row.patient, row.series_uid, row.study_date) == ("100", "1.2.3", "19990102")
    assert (row.center_xyz_mm, row.nodule, row.annotation) == ((-1.5, 2.0, 3.25), "100_1", "100_1_19990102")
    assert (row.malignant, row.line) == (0, 2)


def test_all_faults_are_reported_at_once(tmp_path):
    rows = [
        GOOD,  # line 2
        "100,1.2.x,1999-01-02,one,inf,3,1,../up,100_1,yes,62,Male",  # 3: five in its cells, another for infinity
        ",,,,,,,,,,,",  # 4: every one is needed
        GOOD,  # 5: the annotation, the nodule and the place again
        "200,1.2.3,20000102,4,5,6,2,200_2_20000102,200_2,1,62,Male",  # 6: the CT is another's, and of another day
        "300,1.2.9,20000102,4,5,6,1,300_1_20000102,100_1,1,62,Male",  # 7: the nodule is another's
        "300,1.2.9,20000102,4,5,6,3,300_3_20000102,300_3,1,62",  # 8: a cell is missing, and 7's place
    ]
    with pytest.raises(Luna25TableError) as caught:
        read_luna25_table(write_table(tmp_path / "t.csv", rows))
    assert caught.value.code == "luna25-table"
    found = [(fault.line, fault.column) for fault in caught.value.faults]
    needed = ["AnnotationID", "CoordX", "CoordY", "CoordZ", "NoduleID", "PatientID", "SeriesInstanceUID", "StudyDate"]
    assert found == [
        *[(3, name) for name in ("AnnotationID", "CoordX", "CoordY", "SeriesInstanceUID", "StudyDate", "label")],
        *[(4, name) for name in (*needed, "label")],
        *[(5, name) for name in ("AnnotationID", "CoordX, CoordY, CoordZ", "NoduleID")],
        (6, "PatientID"), (6, "StudyDate"),
        (7, "NoduleID"),
        (8, "CoordX, CoordY, CoordZ"), (8, "row"),
    ]  # fmt: skip
    assert "line 6, PatientID: '200', but line 2 gives the same CT to '100'" in str(caught.value)


def test_a_table_of_something_else_says_what_it_lacks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,label,label\n1.2,1,2,3,0,0\n")
    with pytest.raises(TrainingDataError, match=r"needs PatientID, .* and names label twice"):
        read_luna25_table(path)


@pytest.fixture(scope="module")
def luna25(tmp_path_factory) -> Path:
    """Table, CTs and blocks."""
    root = tmp_path_factory.mktemp("luna25")
    write_table(root / "table.csv")
    write_cts(root / "cts")
    write_blocks(root / "blocks")
    return root


def test_cts_fill_a_store_and_years_of_a_patient_stay_together(luna25, tmp_path):
    code, said = prepare("--csv", luna25 / "table.csv", "--images", luna25 / "cts", "--out", tmp_path / "store")
    assert (code, "16 nodules added" in said) == (0, True), said
    data = TrainingData.of(Path(), [tmp_path / "store"])
    assert [(store.kind, store.nodules) for store in data.stores] == [("luna25", 16)]
    for own, nodule in zip(sorted(annotations(), key=lambda a: a.annotation), data.nodules, strict=True):
        assert (nodule.case_id, nodule.patient_id) == (own.annotation, own.patient)
        assert nodule.sure is not None
        assert (nodule.sure.malignant, nodule.sure.certainty) == (own.label, "nodule")
        assert (nodule.reader_scores, nodule.outlined, nodule.is_cube) == ((), False, True)
        assert np.isnan(nodule.diameter_mm), "nobody measured it"
    folds = split_by_patient(data.nodules, folds=3, seed=0)
    for patient in {own.patient for own in annotations()}:
        assert sum(patient in fold for fold in folds) == 1
    voxels = data.voxels
    assert all(not voxels[nodule.case_id].occupancy.any() for nodule in data.nodules)
    code, said = prepare("--csv", luna25 / "table.csv", "--images", luna25 / "cts", "--out", tmp_path / "store")
    assert (code, "0 nodules added, 16 were there" in said) == (0, True), said


def test_a_block_says_what_its_place_in_the_ct_says(luna25, tmp_path):
    """The block's own voxels at the table's point, which is not the block's middle."""
    code, said = prepare("--csv", luna25 / "table.csv", "--images", luna25 / "blocks", "--out", tmp_path / "store")
    assert (code, "16 nodules added" in said) == (0, True), said
    stored = {own.case.case_id: own for own in read_store(tmp_path / "store")}
    own = annotations()[4]
    size, origin = (160, 160, 100), tuple(np.asarray(own.center) - (63.9, 64.2, 49.3))
    ct = CTVolume.from_array(
        hu_of(own, size_xyz=size, origin_xyz=origin), spacing_zyx_mm=(1.0, 0.8, 0.8), origin_xyz_mm=origin
    )
    expected = cut_region(ct, own.center, mask=None).channels[1].astype(np.float32)
    found = stored[own.annotation].region().channels[1].astype(np.float32)
    inside = expected > 0.3
    assert inside.sum() > 200
    assert 2 * (inside & (found > 0.3)).sum() / (inside.sum() + (found > 0.3).sum()) > 0.95
    middle = [axis[found > 0.3].mean() for axis in np.indices(found.shape)]
    assert middle == pytest.approx(stored[own.annotation].center, abs=0.3)


def test_what_is_missing_or_damaged_is_left_out_and_named(tmp_path):
    write_table(tmp_path / "table.csv")
    write_blocks(tmp_path / "blocks")
    gone, damaged, thin, moved, wrong = (own.annotation for own in annotations()[:5])
    image, metadata = tmp_path / "blocks" / "image", tmp_path / "blocks" / "metadata"
    (metadata / f"{gone}.npy").unlink()
    (image / f"{damaged}.npy").write_bytes(b"no array")
    facts = np.load(metadata / f"{thin}.npy", allow_pickle=True).item()
    facts |= {"spacing": np.array([0.3, 0.8, 0.8]), "origin": facts["origin"] + [0.7 * 32, 0, 0]}
    np.save(metadata / f"{thin}.npy", facts)
    facts = np.load(metadata / f"{moved}.npy", allow_pickle=True).item()
    np.save(metadata / f"{moved}.npy", facts | {"origin": facts["origin"] + 500.0})
    np.save(metadata / f"{wrong}.npy", facts | {"transform": np.ones((3, 3))})
    arguments = ("--csv", tmp_path / "table.csv", "--images", tmp_path / "blocks", "--out", tmp_path / "store")
    code, said = prepare(*arguments)
    assert code == 3
    assert "11 nodules added, 0 were there, 5 left out" in said
    lines = dict(zip((gone, damaged, thin, moved, wrong), said.splitlines()[-5:], strict=True))
    assert f"left out {gone} " in lines[gone]
    assert "does not exist" in lines[gone]
    assert "cannot be read" in lines[damaged]
    assert "and the network's cube" in lines[thin]
    assert "[coordinate-outside]" in lines[moved]
    assert "[ct-" in lines[wrong]


def test_a_folder_of_other_images_is_refused_before_any_is_read(luna25, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(TrainingDataError, match="holds none of the 16 files that the table names"):
            prepare("--csv", luna25 / "table.csv", "--images", folder, "--out", tmp_path / "store")


def saved(path: Path, value: object, *, protocol: int = 4) -> Path:
    """As numpy writes it, in a pickle of our making."""
    array = np.empty((), dtype=object)
    array[()] = value
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    return path


def as_scalars(values: object) -> list[object]:
    """Lists of numpy's numbers."""
    return [as_scalars(own) if np.ndim(own) else np.float64(own) for own in values]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "of", [np.asarray, lambda v: np.asfortranarray(v, dtype=">f4"), lambda v: np.asarray(v).tolist(), as_scalars]
)
def test_metadata_are_read_as_whichever_arrays_they_are(tmp_path, protocol, of):
    """numpy writes protocol 3 or 4."""
    value = {"origin": of([3.0, 2.0, 1.0]), "spacing": of([1.25, 0.5, 0.75]), "transform": of(np.eye(3) * [1, -1, -1])}
    grid = read_block_grid(saved(tmp_path / "m.npy", value, protocol=protocol))
    assert grid.origin_xyz_mm == (1.0, 2.0, 3.0)
    assert grid.spacing_zyx_mm == (1.25, 0.5, 0.75)
    np.testing.assert_array_equal(grid.direction, np.diag([-1.0, -1.0, 1.0]))


@pytest.mark.parametrize("angle", [0.0, 0.1])
@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
def test_a_block_lies_where_simpleitk_says(tmp_path, axes, angle):
    """Whatever the order, sign and tilt of the axes."""
    turned = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    image = sitk.Image([4, 5, 6], sitk.sitkInt16)
    image.SetSpacing((0.5, 0.75, 1.25))
    image.SetOrigin((-20.0, 30.0, -400.0))
    image.SetDirection((turned * [1, -1, -1])[:, axes].ravel().tolist())
    grid = read_block_grid(saved(tmp_path / "m.npy", metadata_of(image)))
    for index_xyz in ([0.0, 0.0, 0.0], [3.0, 1.5, 2.0], [0.5, 4.0, 5.0]):
        scaled = np.array(index_xyz) * grid.spacing_zyx_mm[::-1]
        point = grid.origin_xyz_mm + grid.direction @ scaled
        assert point == pytest.approx(np.array(image.TransformContinuousIndexToPhysicalPoint(index_xyz)))


class Runs:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_metadata_cannot_run_anything(tmp_path):
    for value in (Runs(tmp_path / "ran"), {"origin": Runs(tmp_path / "ran")}):
        with pytest.raises(TrainingDataError, match=r"it names posix.mkdir|it names nt.mkdir"):
            read_block_grid(saved(tmp_path / "m.npy", value))
    assert not (tmp_path / "ran").exists()


def npy(pickled: bytes) -> bytes:
    return (
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': ()}".ljust(69)
        + b"\n"
        + pickled
    )


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2, 3],
        {},
        {"origin": [1, 2, 3], "spacing": [1, 0, 1], "transform": np.eye(3)},
        {"origin": [1, 2], "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": [1, 2, float("nan")], "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": [1, 2, 10**400], "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": CYCLE, "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": [CYCLE, 2, 3], "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": np.array(["a", "b", "c"]), "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": np.array([1, 2, None]), "spacing": [1, 1, 1], "transform": np.eye(3)},
        {"origin": "abc", "spacing": [1, 1, 1], "transform": np.eye(3)},
    ],
    ids=str,
)
def test_metadata_of_anything_else_are_refused(tmp_path, value):
    with pytest.raises(TrainingDataError, match="is no metadata of a LUNA25 block"):
        read_block_grid(saved(tmp_path / "m.npy", value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        npy(b""),
        npy(b"."),
        npy(b"\x80\x04N."),
        npy(b"\x80\x04Nr\xff\xff\xff\x7f."),  # remembers a value in place two thousand million
        npy(b"\x80\x04cnumpy\nndarray\n."),
        npy(b"\x80\x04cbuiltins\neval\n."),
        b"\x93NUMPY\x01\x00" + b"x" * LARGEST_METADATA,
    ],
)
def test_damaged_metadata_are_refused(tmp_path, data):
    (tmp_path / "m.npy").write_bytes(data)
    with pytest.raises(TrainingDataError, match="is no metadata of a LUNA25 block"):
        read_block_grid(tmp_path / "m.npy")
