"""A batch: the same answers as one by one, failures named, killed and gone on with, and no mixture of two batches."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import nodule_diag as nd
from fleet_batches import BROKEN, KILLER, phantom_manifest
from nodule_diag.errors import BackendError, BundleError, OutputError, UsageError
from nodule_diag.fleet import BatchOptions, Limits, Summary, read_manifest, run_batch
from nodule_diag.process import sole_writer

WHERE = "label_source != 'Doe'"
KILLING = "fleet_batches:killing"
NO_RAY = pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: pip install 'nodule-diag[ray]'")
ENGINES = ["local", pytest.param("ray", marks=[pytest.mark.slow, NO_RAY])]


@pytest.fixture(scope="module")
def options(tiny_bundle: Path) -> BatchOptions:
    return BatchOptions(bundle=str(tiny_bundle), backend="onnxruntime")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good CTs: do not write to them."""
    return phantom_manifest(tmp_path_factory.mktemp("few"), 4, broken=False)


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty CTs of which five are broken, and one ends its worker."""
    return phantom_manifest(tmp_path_factory.mktemp("sixty"), 60)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((folder / "cts").iterdir())]


def test_answers_are_those_of_one_by_one(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    summary = run_batch(read_manifest(few), tmp_path / "out", options, workers=2)
    assert (summary.cts, summary.nodules, summary.there, summary.failed, summary.workers) == (4, 6, 0, (), 2)
    diagnoser = nd.Diagnoser.load(options.bundle, backend="onnxruntime", threads=1)
    by_file = {answer["path"]: answer for answer in answers(tmp_path / "out")}
    rows = iter(table(tmp_path / "out"))
    for ct in read_manifest(few).cts:
        volume = nd.read_ct(ct.path)
        wanted: Any = nd.prediction_document(volume, diagnoser.predict_timed(volume, ct.points, ids=ct.ids))
        found = by_file[ct.told]
        assert found["schema"] == "nodule-diag/batch-ct/1"
        assert found["failed"] == []
        for name in ("nodules", "bundle", "cases", "runtime", "prevalence"):
            assert found[name] == wanted[name]
        assert found["ct"] == wanted["ct"] | {"path": ct.told}
        assert "timing_ms" not in found
        for nodule in wanted["nodules"]:
            row = next(rows)
            assert (row["path"], row["id"], row["error_code"]) == (ct.told, nodule["id"], "")
            assert row["arm"] in ("a", "b")
            assert float(row["malignancy"]) == nodule["malignancy"]
            assert float(row["diameter_mm"]) == nodule["segmentation"]["diameter_mm"]
            assert (row["feature_distance"], row["calibrated"]) == ("", "false")
            assert row["in_lung"] == str(nodule["in_lung"]).lower()
            assert list(filter(None, row["warnings"].split(" | "))) == nodule["warnings"]
            assert json.loads((tmp_path / "out" / row["result"]).read_text()) == found


def test_an_answer_is_a_prediction_document_without_its_times(
    few: Path, options: BatchOptions, tmp_path: Path, repo_root: Path
) -> None:
    import jsonschema

    run_batch(read_manifest(few), tmp_path, options, workers=1)
    schema = json.loads((repo_root / "sdk/nodule_diag/schemas/prediction-1.json").read_text())
    schema["required"].remove("timing_ms")
    schema["properties"]["schema"] = {"const": "nodule-diag/batch-ct/1"}
    for answer in answers(tmp_path):
        jsonschema.validate(answer, schema)


KILLED = """
import os, signal, sys
from nodule_diag.fleet import BatchOptions, read_manifest, run_batch
manifest, out, bundle, engine, moment = sys.argv[1:]
def progress(at):
    if at.done >= int(moment):
        os.kill(os.getpid(), signal.SIGKILL)
run_batch(read_manifest(manifest), out, BatchOptions(bundle=bundle, backend="onnxruntime"), workers=2, engine=engine,
          progress=progress, work="fleet_batches:killing")
"""


def killed(*words: object) -> int:
    """Run the batch in a process that kills itself once so many CTs have their answers; waits for its children."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "error", "-c", KILLED, *map(str, words)]
    # Every process that it starts holds this pipe: it ends when the last of them has.
    return subprocess.run(line, env=environment, stdout=subprocess.PIPE, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_sixty_cts_killed_twice(
    engine: str, sixty: Path, options: BatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # for Ray's processes
    manifest, whole, out = read_manifest(sixty), tmp_path / "whole", tmp_path / "out"
    wanted = run_batch(manifest, whole, options, workers=2, work=KILLING)
    codes = {one.path: one.code for one in wanted.failed}
    assert codes == BROKEN | {f"{KILLER}.nii": "worker-died"}
    assert (wanted.cts, wanted.nodules, len(table(whole))) == (60, 80, 80)
    assert "after 2 tries" in next(one.message for one in wanted.failed if one.code == "worker-died")

    before = set(Path("/tmp").glob("nodule-diag-ray-*"))
    for moment in (17, 41):
        assert killed(sixty, out, options.bundle, engine, moment) == -signal.SIGKILL
        assert not (out / "results.csv").exists()
        assert len(answers(out)) == moment
    for left in set(Path("/tmp").glob("nodule-diag-ray-*")) - before:  # Ray's own, of a process that was killed
        shutil.rmtree(left)
    half = out / "cts" / ".0.part.ct00.json"
    half.write_text("{")  # as a kill within a write leaves it
    found = run_batch(manifest, out, options, workers=2, engine=engine, work=KILLING)
    assert found.there == 41
    assert found.failed == wanted.failed
    assert files(out) == files(whole)


def test_the_killer_takes_no_other_with_it(
    tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands: first, last, read ahead or worked on, with one worker and with more than there are CTs."""
    (tmp_path / "cts").mkdir()
    manifest = phantom_manifest(tmp_path / "cts", 4, broken=False)
    text = manifest.read_text()
    for number, workers in ((0, 1), (2, 1), (3, 9)):
        source = tmp_path / "cts" / f"ct{number:02}.nii"
        source.rename(tmp_path / "cts" / f"{KILLER}.nii")
        manifest.write_text(text.replace(source.name, f"{KILLER}.nii"))
        out, log = tmp_path / f"out{number}", tmp_path / f"log{number}"
        monkeypatch.setenv("KILLS_LOG", str(log))
        summary = run_batch(read_manifest(manifest), out, options, workers=workers, work=KILLING)
        assert [(one.path, one.code) for one in summary.failed] == [(f"{KILLER}.nii", "worker-died")]
        assert summary.workers == min(workers, 4)
        assert log.read_text() == "killed\n" * 2
        (tmp_path / "cts" / f"{KILLER}.nii").rename(source)


def test_a_nodule_outside_leaves_the_others_of_its_ct(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    rows = few.read_text().splitlines()
    manifest = few.parent / "outside.csv"
    manifest.write_text("\n".join([rows[0], rows[1], "ct00.nii,9000,0,0,far,a", rows[2]]) + "\n")
    summary = run_batch(read_manifest(manifest), tmp_path, options, workers=1)
    (failed,) = summary.failed
    assert (failed.ids, failed.code) == (("far",), "coordinate-outside")
    assert summary.to_dict()["nodules"] == {"total": 3, "diagnosed": 2, "failed": 1}
    (answer,) = answers(tmp_path)
    assert [nodule["id"] for nodule in answer["nodules"]] == ["n00-0", "n00-1"]
    whole = run_batch(read_manifest(few), tmp_path / "whole", options, workers=1)
    assert not whole.failed
    expected = next(one for one in answers(tmp_path / "whole") if one["path"] == "ct00.nii")
    assert answer["nodules"] == expected["nodules"]
    assert [row["error_code"] for row in table(tmp_path)] == ["", "coordinate-outside", ""]


def test_what_stands_there_is_kept(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    manifest = read_manifest(few)
    run_batch(manifest, tmp_path, options, workers=2)
    before = files(tmp_path)
    marked = next((tmp_path / "cts").glob("ct01-*"))
    marked.write_bytes(marked.read_bytes().replace(b'"path": "ct01.nii",\n  "bundle"', b'"path": "kept",\n  "bundle"'))
    damaged = next((tmp_path / "cts").glob("ct02-*"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    emptied = next((tmp_path / "cts").glob("ct03-*"))
    emptied.write_bytes(json.dumps(json.loads(emptied.read_bytes()) | {"nodules": None}).encode())
    summary = run_batch(manifest, tmp_path, options, workers=2)
    assert (summary.there, summary.cts_per_hour is None) == (2, False)
    assert b'"kept"' in marked.read_bytes()
    assert files(tmp_path)["results.csv"] == before["results.csv"]
    for path in (damaged, emptied):
        assert path.read_bytes() == before[str(path.relative_to(tmp_path))]
    assert run_batch(manifest, tmp_path, options).cts_per_hour is None


def test_another_question_is_asked_anew(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    """A manifest may grow and be mended: rows that are the same are not diagnosed again."""
    manifest = few.parent / "changing.csv"
    head, *rows = few.read_text().splitlines()
    manifest.write_text("\n".join([head, *rows[:2], "absent.nii,1,2,3,n,a"]) + "\n")
    first = run_batch(read_manifest(manifest), tmp_path, options, workers=1)
    assert first.codes == {"ct-missing-path": (1, 1)}
    assert len(answers(tmp_path)) == 2
    manifest.write_text("\n".join([head, *rows]) + "\n")
    second = run_batch(read_manifest(manifest), tmp_path, options, workers=1)
    assert (second.there, second.cts, second.failed) == (1, 4, ())
    assert len(answers(tmp_path)) == 4, "the one that failed and is asked no more is gone"
    moved = [rows[0].replace(",-72.0,", ",-71.0,"), *rows[1:]]
    manifest.write_text("\n".join([head, *moved]) + "\n")
    assert run_batch(read_manifest(manifest), tmp_path, options, workers=1).there == 3
    manifest.write_text("\n".join([head, *rows[:2]]) + "\n")
    with pytest.raises(OutputError, match="answers for 3 CTs that the manifest does not name") as refused:
        run_batch(read_manifest(manifest), tmp_path, options, workers=1)
    assert refused.value.code == "batch-other"
    assert len(answers(tmp_path)) == 4


def test_two_batches_are_not_mixed(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    from bundle_factory import make_tiny_bundle, tiny_cases

    manifest = read_manifest(few)
    run_batch(manifest, tmp_path / "out", options, workers=1)
    before = files(tmp_path / "out")
    other = make_tiny_bundle(tmp_path / "other", cases=tiny_cases(40)).path
    for change, said in (
        ({"bundle": str(other)}, "bundle and cases"),
        ({"k": 3}, "options"),
        ({"prevalence": 0.1}, "options"),
        ({"redact": True}, "options"),
        ({"threads": 2}, "runtime"),
    ):
        with pytest.raises(OutputError, match=f"a batch that differs in its {said}") as refused:
            run_batch(manifest, tmp_path / "out", replace(options, **change), workers=1)  # type: ignore[arg-type]
        assert refused.value.code == "batch-other"
    assert files(tmp_path / "out") == before
    (tmp_path / "out" / "batch.json").unlink()
    with pytest.raises(OutputError, match="no batch that can be gone on with"):
        run_batch(manifest, tmp_path / "out", options, workers=1)


@pytest.mark.parametrize("changed", ["bundle", "case base"])
@pytest.mark.parametrize("workers", [1, 2])
def test_no_answer_of_a_bundle_or_case_base_that_came_later(workers: int, changed: str, tmp_path: Path) -> None:
    """The one worker is replaced after a CT ended it; the second of two, and an actor, load at their first CT."""
    from bundle_factory import make_tiny_bundle, tiny_base, tiny_cases
    from nodule_diag.fleet.order import Order
    from nodule_diag.fleet.ray_actors import _Actor

    manifest = phantom_manifest(tmp_path, 6, broken=False)
    (tmp_path / "ct01.nii").rename(tmp_path / f"{KILLER}.nii")
    manifest.write_text(manifest.read_text().replace("ct01.nii", f"{KILLER}.nii"))
    bundle, cases = make_tiny_bundle(tmp_path / "bundle"), tmp_path / "cases.sqlite"
    tiny_base(model_sha256=bundle.model_sha256).save(cases)

    def change(at: Any) -> None:
        if at.done == 0:
            if changed == "bundle":
                make_tiny_bundle(bundle.path, cases=tiny_cases(40))
            else:
                tiny_base(tiny_cases(40), model_sha256=bundle.model_sha256).save(cases)

    options = BatchOptions(bundle=str(bundle.path), cases=str(cases), backend="onnxruntime")
    with pytest.raises(OutputError, match=f"the {changed} was changed during the batch") as refused:
        run_batch(read_manifest(manifest), tmp_path / "out", options, workers=workers, progress=change, work=KILLING)
    assert refused.value.code == "batch-other"
    assert not (tmp_path / "out" / "results.csv").exists()
    plan = json.loads((tmp_path / "out" / "batch.json").read_bytes())
    assert plan["bundle"]["sha256"] == bundle.sha256
    actor = _Actor(Order(options, Limits(), first=plan))
    with actor._worker:
        told = actor.judge(read_manifest(manifest).cts[0])
    assert told["error"]["code"] == "batch-other"


def test_failures_are_tried_again_when_asked(tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "cts").mkdir()
    manifest = phantom_manifest(tmp_path / "cts", 4, broken=False)
    whole = tmp_path / "cts" / "ct01.nii"
    data = whole.read_bytes()
    whole.write_bytes(data[:-500])
    first = run_batch(read_manifest(manifest), tmp_path / "out", options, workers=1)
    assert first.codes == {"ct-truncated": (1, 1)}
    whole.write_bytes(data)
    again = run_batch(read_manifest(manifest), tmp_path / "out", options, workers=1)
    assert (again.there, again.codes) == (4, first.codes)
    mended = run_batch(read_manifest(manifest), tmp_path / "out", options, workers=1, retry_failed=True)
    assert (mended.there, mended.failed) == (3, ())


def test_redacted(tmp_path: Path, options: BatchOptions) -> None:
    folder = tmp_path / "Doe^John"
    folder.mkdir()
    manifest = phantom_manifest(folder, 6, broken=False)
    lines = manifest.read_text().replace("ct0", "Doe_ct0").splitlines()
    for path in folder.glob("ct0*.nii"):
        path.rename(path.with_name(f"Doe_{path.name}"))
    (folder / "Doe_ct01.nii").write_bytes(b"no CT")
    (folder / "Doe_ct02.nii").unlink()
    (folder / "Roe^Jane").mkdir()
    (folder / "Doe_ct03.nii").rename(folder / "Roe^Jane" / "ct03.nii")
    lines = [line.replace("Doe_ct03", "Roe^Jane/ct03") for line in lines]
    last = next(at for at, line in enumerate(lines) if line.startswith("Roe"))
    lines[last] = lines[last].rsplit(",", 1)[0] + ",a follow-up of Roe^Jane"
    lines[1] = lines[1].rsplit(",", 1)[0] + f",seen in {folder}/Doe_ct00.nii of 1.2.840.113619.2.1"
    manifest.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    summary = run_batch(read_manifest(manifest), out, replace(options, redact=True, where=WHERE), workers=2)
    assert {one.code for one in summary.failed} == {"ct-damaged", "ct-missing-path"}
    said = b"".join(files(out).values()) + json.dumps(summary.to_dict()).encode()
    assert b"Doe" not in said
    assert b"113619" not in said
    assert b"Roe" not in said
    assert sorted(path.name for path in (out / "cts").iterdir()) == [f"ct-{n:06}.json" for n in range(1, 7)]
    assert [row["path"] for row in table(out)] == ["[redacted]"] * 8
    assert table(out)[0]["id"] == "n00-0"


@pytest.mark.parametrize("name", ["Doe_John", "nodule of Doe_John", "1.2.840.113619.2.1", "absent.nii"])
def test_an_id_that_names_someone_is_refused_where_names_are_left_out(tmp_path: Path, name: str) -> None:
    """It stands in each answer and each failure, and an answer without it is nobody's."""
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,x,y,z,id\nDoe_John/ct.nii,1,2,3,left\nDoe_John/ct.nii,1,2,4,{name}\n")
    with pytest.raises(UsageError, match="the id in row 2 ") as refused:
        run_batch(read_manifest(manifest), tmp_path / "out", BatchOptions(redact=True), work="child_work:broken")
    assert name not in str(refused.value.to_dict())
    assert not (tmp_path / "out").exists()


def test_alone_means_in_a_new_process_and_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CTs each end their worker's answer; what is told of the others comes of processes that lived on."""
    from nodule_diag.fleet import local
    from nodule_diag.fleet.manifest import ListedCT
    from nodule_diag.fleet.order import Order
    from nodule_diag.fleet.worker import Said

    both, alone, fresh = threading.Barrier(2), [0], []

    class Scripted:
        used = False

        def __init__(self, order: Order) -> None:
            self.order = order

        def __enter__(self) -> Scripted:
            return self

        def __exit__(self, *_: object) -> None: ...

        def stop(self) -> None: ...

        def restart(self) -> None:
            self.used = False

        def say(self, ct: ListedCT, ahead: ListedCT | None = None) -> Said:
            both.wait(10)
            self.used = True  # it is not restarted: its last answer may have been another CT's
            return Said({}, again=True)

        def judge(self, ct: ListedCT, *, tries: int) -> dict[str, Any]:
            alone[0] += 1
            fresh.append(not self.used)
            time.sleep(0.2)
            fresh.append(alone[0] == 1)
            alone[0] -= 1
            return {}

    monkeypatch.setattr(local, "Worker", Scripted)
    cts = [ListedCT(f"/{n}", f"{n}") for n in range(2)]
    assert len(list(local.LocalEngine(2).answers(cts, Order(BatchOptions(), Limits())))) == 2
    assert fresh == [True] * 4


@pytest.mark.parametrize(
    ("there", "device", "fitting"),
    [({"CPU": 16.0, "GPU": 2.0}, "cuda", 2), ({"CPU": 2.0, "GPU": 8.0}, "cuda:0", 1), ({"CPU": 16.0}, "cpu", 8)],
)
def test_as_many_actors_as_a_cluster_has_room_for(there: dict[str, float], device: str, fitting: int) -> None:
    from nodule_diag.fleet.order import Order
    from nodule_diag.fleet.ray_actors import _fitting, _resources

    assert _fitting(there, _resources(Order(BatchOptions(device=device, threads=2), Limits()))) == fitting


def test_limits(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    """A CT that takes too much memory is tried alone, and given up; so is one that takes too long."""
    if sys.platform != "linux":
        pytest.skip("the limits are Linux's")
    manifest = read_manifest(few)
    limits = Limits(cpu_s=600, memory_bytes=2**30)
    greedy = run_batch(manifest, tmp_path / "greedy", options, workers=1, limits=limits, work="fleet_batches:greedy")
    assert greedy.codes == {"worker-failed": (1, 2)}
    assert "MemoryError" in greedy.failed[0].message
    slow = run_batch(manifest, tmp_path / "slow", options, workers=1, limits=Limits(1), work="fleet_batches:looping")
    assert ("took-too-long", "ct00.nii") in {(one.code, one.path) for one in slow.failed}


def test_what_cannot_start_is_told_before_any_ct(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    manifest = read_manifest(few)
    with pytest.raises(BundleError):
        run_batch(manifest, tmp_path / "a", replace(options, bundle=str(tmp_path / "none")))
    with pytest.raises(BackendError):
        run_batch(manifest, tmp_path / "b", replace(options, backend="tensorrt"))
    with pytest.raises(UsageError):
        run_batch(manifest, tmp_path / "c", replace(options, where="nothing = 3"))
    with pytest.raises(BackendError) as refused:
        run_batch(manifest, tmp_path / "d", options, work="child_work:broken")
    assert refused.value.code == "worker-cannot-start"
    for change, said in (
        ({"engine": "dask"}, "no engine 'dask'"),
        ({"workers": 0}, "workers is 0"),
        ({"options": replace(options, prevalence=2.0)}, "prevalence"),
        ({"options": replace(options, threads=0)}, "threads"),
        ({"options": replace(options, k=0)}, "k is 0"),
        ({"options": replace(options, k=20_000)}, "k is 20000"),
        ({"options": replace(options, symmetries=7)}, "symmetries is 7"),
    ):
        with pytest.raises(UsageError, match=said):
            run_batch(manifest, tmp_path / "e", **change)  # type: ignore[arg-type]
        assert not (tmp_path / "e").exists()
    with pytest.raises(UsageError, match="limited to 0 s"):
        Limits(cpu_s=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_batch(manifest, tmp_path / "file", options)
    (tmp_path / "busy").mkdir()
    with sole_writer(tmp_path / "busy" / ".lock", of=tmp_path), pytest.raises(OutputError) as busy:
        run_batch(manifest, tmp_path / "busy", options)
    assert busy.value.code == "output-busy"
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".csv")]


def test_an_error_of_the_caller_ends_the_workers(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    def progress(at: object) -> None:
        if getattr(at, "done", 0) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(read_manifest(few), tmp_path, options, workers=2, progress=progress)
    assert not [thread for thread in threading.enumerate() if "_serve" in thread.name]
    assert len(answers(tmp_path)) == 2
    assert not (tmp_path / ".lock").exists()
    assert run_batch(read_manifest(few), tmp_path, options, workers=2).there == 2


def test_time_left_is_told_of_this_run_alone(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    told: list[Any] = []
    run_batch(read_manifest(few), tmp_path, options, workers=1, progress=told.append)
    assert [at.done for at in told] == [0, 1, 2, 3, 4]
    assert [at.remaining_s is None for at in told] == [True, True, False, False, False]
    assert told[-1].remaining_s == 0
    for path in list((tmp_path / "cts").glob("ct0[0-2]*")):
        path.unlink()
    told.clear()
    run_batch(read_manifest(few), tmp_path, options, workers=1, progress=told.append)
    assert [(at.done, at.remaining_s is None) for at in told] == [(1, True), (2, True), (3, False), (4, False)]


def test_a_summary_counts() -> None:
    from nodule_diag.fleet.summary import Failed

    failed = tuple(Failed(f"cts/{n}.json", "p", ("1", "2"), code, "m", "h") for n, code in enumerate("abb"))
    summary = Summary(10, 20, 4, failed, 12.0, "local", 2)
    assert list(summary.codes.items()) == [("b", (2, 4)), ("a", (1, 2))]
    assert summary.cts_per_hour == 6 * 3600 / 12
    document = summary.to_dict()
    assert document["cts"] == {"total": 10, "there": 4, "failed": 3}
    assert document["failures"][0] == {"code": "b", "cts": 2, "nodules": 4}


def test_a_summary_counts_a_ct_once_for_each_code() -> None:
    """Each nodule outside its CT is a failure of its own."""
    from nodule_diag.fleet.summary import Failed

    failed = tuple(Failed("cts/1.json", "p", (name,), code, "m", "h") for name, code in zip("123", "aab", strict=True))
    document = Summary(1, 3, 0, failed, 12.0, "local", 1).to_dict()
    assert document["cts"]["failed"] == 1
    assert document["failures"] == [{"code": "a", "cts": 1, "nodules": 2}, {"code": "b", "cts": 1, "nodules": 1}]


@pytest.mark.slow
@NO_RAY
def test_an_actor_that_is_lost_is_tried_once_more(
    few: Path, options: BatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default Ray would try for ever."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("ACTORS_LOG", str(tmp_path / "log"))
    summary = run_batch(
        read_manifest(few), tmp_path / "out", options, workers=1, engine="ray", work="fleet_batches:ending_its_parent"
    )
    assert [(one.path, one.code) for one in summary.failed] == [("ct01.nii", "worker-lost")]
    assert (tmp_path / "log").read_text() == "ct01.nii\n" * 2


@pytest.mark.slow
@NO_RAY
def test_ray_waits_for_no_cores_that_are_not_here(few: Path, options: BatchOptions, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="a worker takes 1000 CPUs and 0 GPUs") as refused:
        run_batch(read_manifest(few), tmp_path, replace(options, threads=1000), engine="ray")
    assert refused.value.code == "ray-failed"


@NO_RAY
def test_nothing_of_ray_is_loaded_for_local() -> None:
    code = "import sys, nodule_diag.fleet as f; f.run_batch; f.read_manifest; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ray_is_an_extra(few: Path, options: BatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(nd.MissingExtraError, match=r"nodule-diag\[ray\]"):
        run_batch(read_manifest(few), tmp_path, options, engine="ray")
