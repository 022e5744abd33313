"""The fuzzer finds faults that were planted: a search that cannot fail would say nothing of the readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("workers are watched through /proc", allow_module_level=True)

from fuzz.campaign import BAD, TESTS, Plan, Worker, carry_out, files_of, pickled
from fuzz.seed import Seed
from fuzz.seeds import all_seeds
from fuzz.worker import Question

PLANTED = {
    "aborts": ("crashed", "SIGABRT"),
    "leaves": ("crashed", "exit code 0"),
    "hangs": ("hung", "of CPU time"),
    "sleeps": ("hung", "or 2 s"),
    "is-bare": ("bare", "KeyError"),
    "is-blunt": ("untidy", "no hint"),
    "prints": ("untidy", "bad file"),
    "eats": ("greedy", "MiB"),
    "asks-for-too-much": ("greedy", "MemoryError"),
    "feeds-a-child": ("greedy", "MiB"),
    "ignores-checksum": ("wrong", "gzip"),
    "never-written": ("wrong", "read twice"),
    "drops-slices": ("wrong", "missing without a word"),
    "other-slice": ("wrong", "changed, and only"),
}
"""What is wrong with each reader of `fuzz.planted`, and what the finding must say."""
OF = {"drops-slices": "dicom-explicit", "other-slice": "dicom-explicit", "never-written": "points-nodules.csv"}
"""Which seed a reader is given; else a gzipped NIfTI."""
IMPATIENT = ("hangs", "sleeps")


@pytest.fixture(scope="module")
def good() -> list[Seed]:
    return all_seeds()


def of_name(seeds: list[Seed], name: str) -> Seed:
    return next(seed for seed in seeds if seed.name == name)


def planted(seeds: list[Seed], reader: str) -> Seed:
    base = of_name(seeds, OF.get(reader, "nifti-gzip"))
    return replace(base, name=reader, reader=reader, ways=("bytes",))


@pytest.fixture(scope="module")
def workers(good: list[Seed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """One for most; impatient ones for those that hang."""
    seeds = [planted(good, reader) for reader in PLANTED]
    with pickled(seeds, tmp_path_factory.mktemp("planted")) as path:
        usual = Worker(path, readers="fuzz.planted")
        eager = Worker(path, readers="fuzz.planted", most_cpu_s=1.0, most_wall_s=2.0)
        yield {reader: eager if reader in IMPATIENT else usual for reader in PLANTED}
        usual.close()
        eager.close()


@pytest.mark.parametrize("reader", PLANTED)
def test_a_planted_fault_is_found(reader: str, workers: dict[str, Worker]) -> None:
    kind, says = PLANTED[reader]
    outcomes = (workers[reader].ask(Question(reader, 1, number)) for number in range(200))
    assert any(one.kind == kind and says in one.why for one in outcomes)


def test_an_honest_reader_has_no_findings(good: list[Seed], tmp_path: Path) -> None:
    honest = [replace(of_name(good, "nifti-gzip"), ways=("bytes",))]
    tally = carry_out(Plan(honest, 1, [range(200)]), tmp_path)
    counts = tally.counts["NIfTI, gzip"]
    assert counts.total() == 200
    assert not any(counts[kind] for kind in BAD), tally.findings
    assert counts["refused"] > 100
    assert counts["right"] >= 1


def test_memory_of_an_earlier_file_is_not_charged_to_the_next(good: list[Seed], tmp_path: Path) -> None:
    """A bundle may take 400 MiB; the process keeps the mark, and the next file must not be blamed for it."""
    large = replace(of_name(good, "nifti-gzip"), name="large", reader="bundle", ways=("bytes",))
    small = replace(large, name="small", reader="ct")
    with pickled([large, small], tmp_path) as path, Worker(path, readers="fuzz.planted") as worker:
        kinds = [worker.ask(Question(name, 1, number)).kind for number in range(4) for name in ("large", "small")]
    assert "refused" in kinds
    assert set(kinds) <= {"refused", "right"}


def test_the_same_mutants_are_found_however_many_workers_there_are(good: list[Seed], tmp_path: Path) -> None:
    found = [
        carry_out(Plan(good, 5, [range(4), range(4, 10)], "points-nodules", jobs), tmp_path / str(jobs))
        for jobs in (1, 2)
    ]
    assert found[0].digest() == found[1].digest()
    assert found[0].findings == found[1].findings
    assert found[0].tried == 40


def test_seeds_and_mutants_are_the_same_bytes_each_time(good: list[Seed]) -> None:
    again = all_seeds()
    assert again == good
    for seed in good:
        made = [files_of(good, seed, run=3, number=number) for number in range(10)]
        assert made == [files_of(again, seed, run=3, number=number) for number in range(10)]
        assert all(files != seed.files for _, files in made)
        assert len({repr(files) for _, files in made}) > 5


def test_every_way_is_used(good: list[Seed]) -> None:
    from fuzz.ways import WAYS

    assert {way for seed in good for way in seed.ways} == set(WAYS)


def test_a_finding_is_kept_and_read_again_by_one_command(good: list[Seed], tmp_path: Path) -> None:
    seeds = [planted(good, "is-bare")]
    plan = Plan(seeds, 1, [range(20)], keep=tmp_path / "kept", readers="fuzz.planted")
    tally = carry_out(plan, tmp_path)
    kept = sorted((tmp_path / "kept" / "bare").iterdir())
    assert 0 < len(kept) == min(5, len(tally.findings))
    name = tally.findings[0]["mutant"]
    _, files = files_of(seeds, seeds[0], run=1, number=int(name.split("/")[2]))
    assert json.loads((kept[0] / "outcome.json").read_text())["kind"] == "bare"
    assert (tmp_path / "kept" / "bare" / name.replace("/", "-") / "scan.nii.gz").read_bytes() == files["scan.nii.gz"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """As docs/reliability.md says it: from tests/, whose folder ``benchmarks`` must not hide the package."""
    environment = os.environ | {"PYTHONPATH": ".."}
    call = [sys.executable, "-m", "fuzz", *words]
    return subprocess.run(call, cwd=TESTS, capture_output=True, text=True, env=environment, check=False)


def test_the_command_counts_and_reads_again(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = command(
        "--mutants", "3", "--only", "points-nodules.csv", "--jobs", "1", "--out", str(out), "--keep", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["schema"] == "nodule-diag/fuzz/1"
    assert found["mutants"] == sum(row["tried"] for row in found["formats"]) == 3
    (row,) = found["formats"]
    assert Counter({kind: row[kind] for kind in ("refused", "right", "unknowable")}).total() == 3
    again = command("--replay", "1/points-nodules.csv/2")
    assert again.returncode == 0, again.stderr
    assert "nodules.csv" in again.stdout
